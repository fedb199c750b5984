"""Does an image look like the training data? A classifier answers for every picture, also for a
photograph of a cat; this asks before it is believed.

Neither the CAD-framework paper nor its application has such a check. Three distances are taken, and
each has a limit that a stated share of held-out images keep:

* colour: mean difference of the largest and the smallest channel, in grey levels; MR slices are
  grey;
* look: brightness of the border and of the whole, share of dark pixels, contrast and sharpness of
  the picture as it was uploaded, as the distance
  to the fifth nearest training image in units of the training images' spread. It does not depend on
  the network;
* features: cosine distance of the features before the classifier to the fifth nearest training
  image (Sun et al. 2022, deep nearest neighbours).

An image inside all limits may still be none that the model can judge: another scanner, another
orientation or another disease need not show here.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike

from kit import files
from kit.errors import KitError

SIDE = 128
BORDER = 6
NEIGHBOURS = 5
MOST = 1000
LEAST_COLOUR = 3.0
CHECKS = ("colour", "look", "features")
REASONS = {
    "colour": "it is coloured, and the training images are grey",
    "look": "its brightness, border, contrast or sharpness is unlike that of the training images",
    "features": "what the network finds in it is unlike what it finds in the training images",
}


class TooFewImages(KitError):
    """There are not enough images to take statistics of."""


def measures(pixels: np.ndarray) -> np.ndarray:
    """Colour and look of a picture: float64 (8,), grey levels 0..255 except where noted.

    Parameters
    ----------
    pixels : numpy.ndarray
        uint8 (H, W, 3). Measured after shrinking to 128 x 128.

    Returns
    -------
    numpy.ndarray
        Colour; median and mean of the border; share of pixels below 30 (0..1); mean absolute
        Laplacian; standard deviation; mean; Laplacian over standard deviation (no unit).
    """
    small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    grey = small.mean(axis=2)
    inner = np.zeros((SIDE, SIDE), bool)
    inner[BORDER:-BORDER, BORDER:-BORDER] = True
    border, edges, spread = grey[~inner], np.abs(cv2.Laplacian(grey, cv2.CV_32F)).mean(), grey.std()
    colour = (small.max(axis=2) - small.min(axis=2)).mean()
    return np.array(
        [
            colour,
            np.median(border),
            border.mean(),
            (grey < 30).mean(),
            edges,
            spread,
            grey.mean(),
            edges / (spread + 1),
        ],
        float,
    )


@dataclass(frozen=True)
class Statistics:
    """What is kept of the training images.

    Attributes
    ----------
    looks : numpy.ndarray
        float32 (M, 7), in units of `scale` around `centre`.
    centre, scale : numpy.ndarray
        float32 (7,).
    features : numpy.ndarray
        float16 (M, d), rows of length 1.
    limits : numpy.ndarray
        float64 (3,), in the order of `CHECKS`.
    facts : numpy.ndarray
        float64 (4,): share of held-out images inside all limits that was asked for, share that is,
        number of training and of held-out images.
    """

    looks: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    features: np.ndarray
    limits: np.ndarray
    facts: np.ndarray

    def distances(self, looks: ArrayLike, features: ArrayLike) -> np.ndarray:
        """Colour, look and feature distance of images: float64 (N, 3); `looks` are rows of
        :func:`measures` (N, 8), `features` (N, d).
        """
        looks = np.asarray(looks, float)
        return np.stack(
            [
                looks[:, 0],
                self._look(looks[:, 1:]),
                self._feature(np.asarray(features, np.float32)),
            ],
            axis=1,
        )

    def _look(self, looks):
        rows = (looks - self.centre) / self.scale
        return _nearest(((rows[:, None] - self.looks[None]) ** 2).sum(-1)) ** 0.5

    def _feature(self, features):
        return _nearest(1 - _unit(features) @ self.features.astype(np.float32).T)

    def strange(self, pixels: np.ndarray, image: np.ndarray, features: np.ndarray) -> str:
        """Why one image does not look like the training data; empty if it does.

        Parameters
        ----------
        pixels : numpy.ndarray
            The picture as uploaded, uint8 (H, W, 3).
        image : numpy.ndarray
            What the network saw, uint8 (S, S, 3); one grey level all over is reason enough.
        features : numpy.ndarray
            (d,).
        """
        (found,) = self.distances(measures(pixels)[None], features[None])
        reasons = [
            REASONS[check]
            for check, value, limit in zip(CHECKS, found, self.limits, strict=True)
            if not value <= limit
        ]
        if image.min() == image.max():
            reasons.append("nothing is left of it after the preprocessing")
        return "; ".join(reasons)

    def summary(self) -> dict:
        """For ``model.json`` and the model card."""
        asked, inside, trained, held_out = self.facts.tolist()
        return {
            "limits": dict(zip(CHECKS, self.limits.tolist(), strict=True)),
            "quantile": asked,
            "inside": inside,
            "training_images": int(trained),
            "held_out_images": int(held_out),
            "neighbours": NEIGHBOURS,
        }

    def save(self, path: Path | str) -> None:
        """Write a compressed npz file, atomically."""
        with files.atomic_write(path) as temporary:
            np.savez_compressed(temporary, **vars(self))

    @classmethod
    def load(cls, path: Path) -> "Statistics":
        """Read what :meth:`save` wrote."""
        with np.load(path) as file:
            return cls(**{name: file[name] for name in cls.__dataclass_fields__})


def statistics(
    looks: ArrayLike,
    features: ArrayLike,
    held_looks: ArrayLike,
    held_features: ArrayLike,
    quantile: float = 0.99,
    seed: int = 0,
) -> Statistics:
    """Take statistics of training images and set the limits by held-out ones.

    Parameters
    ----------
    looks, held_looks : array (N, 8)
        Rows of :func:`measures`, of training and of held-out images.
    features, held_features : array (N, d)
        Features before the classifier.
    quantile : float
        Share of the held-out images that keep all limits, at least; the remaining share is divided
        evenly among the three checks.
    seed : int
        Draws the 1000 training images that are kept.

    Raises
    ------
    TooFewImages
        With fewer than 20 training or held-out images.
    """
    looks, features, held_looks = (
        np.asarray(looks, float),
        np.asarray(features, np.float32),
        np.asarray(held_looks, float),
    )
    if min(len(looks), len(held_looks)) < 20:
        raise TooFewImages(
            f"{len(looks)} training and {len(held_looks)} held-out images are too few for "
            "statistics of the training data; take at least 20 each."
        )
    kept = np.sort(np.random.default_rng(seed).permutation(len(looks))[:MOST])
    centre, scale = looks[:, 1:].mean(0), looks[:, 1:].std(0) + 1e-6
    start = Statistics(
        ((looks[kept, 1:] - centre) / scale).astype(np.float32),
        centre.astype(np.float32),
        scale=scale.astype(np.float32),
        features=_unit(features[kept]).astype(np.float16),
        limits=np.full(3, np.inf),
        facts=np.zeros(4),
    )
    found = start.distances(held_looks, held_features)
    limits = np.quantile(found, 1 - (1 - quantile) / len(CHECKS), axis=0, method="higher")
    limits[0] = max(limits[0], LEAST_COLOUR)
    facts = np.array(
        [quantile, (found <= limits).all(axis=1).mean(), len(looks), len(held_looks)], float
    )
    return Statistics(
        start.looks,
        start.centre,
        scale=start.scale,
        features=start.features,
        limits=limits,
        facts=facts,
    )


def _unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _nearest(distances):
    """Distance to the fifth nearest of the columns."""
    return np.partition(distances, NEIGHBOURS - 1, axis=1)[:, NEIGHBOURS - 1].astype(float)
