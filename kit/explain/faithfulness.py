"""Scores that tell whether a class activation map deserves trust.

Differences from the Br35H paper (Jardim et al. 2024): it judges two pictures by eye. Here maps are
judged by what the prediction does when the marked pixels are removed or brought back, and by the
lesion masks of a data set that has them (the phantoms' own, or those that the author of Br35H
outlined on 801 of its 1,500 images with a tumour); always beside random or centred maps, because a
map of the middle of the head alone finds many lesions.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage

from kit.data import registry
from kit.data.inputs import Inputs
from kit.explain.gradcam import normalise, resize

if TYPE_CHECKING:
    import keras


def deletion_curve(
    predict: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    heat: np.ndarray,
    steps: int = 20,
    baseline: str = "blur",
    insertion: bool = False,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Score of the explained class while the most important pixels are removed (deletion) or
    brought back (insertion).

    After Petsiuk et al. 2018 (RISE), which blurs for insertion and blackens for deletion; here one
    baseline serves both, because black is the usual value of an MRI background.

    Parameters
    ----------
    predict : callable
        Takes images (n, H, W, C), returns the explained class' score of each (n,).
    image : float array (H, W, C)
        As the model expects it.
    heat : array (h, w)
        The map; resized to the image. Pixels of equal value are ordered at random.
    steps : int
        Equal portions of pixels.
    baseline : {"blur", "mean"}
        What removed pixels become: the image blurred with a twentieth of its side as sigma, or its
        mean per channel.
    insertion : bool
        Start from the baseline and bring pixels back.
    seed : int
        For the order of equal pixels.

    Returns
    -------
    fractions, scores : float arrays (steps + 1,)
        Share of pixels changed, 0 to 1, and the score there.
    """
    image = np.asarray(image, np.float32)
    heat = resize(np.asarray(heat)[None], image.shape[:2])[0].ravel()
    order = np.lexsort((np.random.default_rng(seed).random(heat.size), -heat))
    rank = np.empty(heat.size)
    rank[order] = np.arange(heat.size)
    removed = _baseline(image, baseline)
    fractions = np.linspace(0, 1, steps + 1)
    changed = (rank.reshape(image.shape[:2]) < (fractions * heat.size)[:, None, None])[..., None]
    return fractions, np.asarray(
        predict(np.where(changed != insertion, removed, image)), float
    ).reshape(-1)


def _baseline(image, kind: str):
    if kind == "mean":
        return np.broadcast_to(image.mean((0, 1)), image.shape)
    if kind == "blur":
        return ndimage.gaussian_filter(image, (image.shape[0] / 20, image.shape[1] / 20, 0))
    raise ValueError(f"baseline is {kind!r}; choose 'blur' or 'mean'.")


def curve_area(fractions: np.ndarray, scores: np.ndarray) -> float:
    """Area under a deletion curve (lower is better) or insertion curve (higher is better),
    trapezoidal, at most the highest score.
    """
    return float(np.trapezoid(scores, fractions))


def faithfulness(
    predict: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray | Sequence[np.ndarray],
    maps: np.ndarray | Sequence[np.ndarray],
    targets: Sequence[int] | np.ndarray,
    steps: int = 20,
    baseline: str = "blur",
    seed: int = 0,
) -> pd.DataFrame:
    """Deletion and insertion areas of maps, and of random maps of like smoothness for comparison.

    Parameters
    ----------
    predict : callable
        Takes images (n, H, W, C), returns probabilities (n,) or (n, 1) of class 1, or (n, classes).
    images, maps
        Float (N, H, W, C) as the model expects them, and (N, h, w).
    targets : array of int (N,)
        The classes that the maps explain.
    steps, baseline, seed
        As in `deletion_curve`; the seed also draws the random maps.

    Returns
    -------
    pandas.DataFrame
        One row per image: deletion, insertion, deletion_random, insertion_random.
    """
    others = random_maps(len(maps), np.shape(maps)[1:], seed)
    rows = []
    for image, heat, other, target in zip(images, maps, others, targets, strict=True):
        scorer = _class_scorer(predict, int(target))
        rows.append(
            {
                f"{kind}{suffix}": curve_area(
                    *deletion_curve(
                        scorer,
                        image,
                        heat=values,
                        steps=steps,
                        baseline=baseline,
                        insertion=kind == "insertion",
                        seed=seed,
                    )
                )
                for suffix, values in (("", heat), ("_random", other))
                for kind in ("deletion", "insertion")
            }
        )
    return pd.DataFrame(
        rows, columns=["deletion", "insertion", "deletion_random", "insertion_random"]
    )


def _class_scorer(predict, target: int):
    def scores(images):
        output = np.asarray(predict(images))
        if output.ndim == 1 or output.shape[-1] == 1:
            yes = output.reshape(len(output))
            return yes if target == 1 else 1 - yes
        return output[:, target]

    return scores


def random_maps(count: int, size: Sequence[int], seed: int = 0, cells: int = 8) -> np.ndarray:
    """Smooth random maps (count, h, w) in [0, 1]: noise blurred to the grain of a `cells` x `cells`
    map, no place preferred to another.
    """
    noise = np.random.default_rng(seed).standard_normal((count, *size))
    smooth = ndimage.gaussian_filter(noise, (0, *(side / cells / 2 for side in size)), mode="wrap")
    return normalise(smooth - smooth.min((1, 2), keepdims=True))


def centred_map(size: Sequence[int]) -> np.ndarray:
    """A map (h, w) that falls from 1 at the centre to 0 in the corners: what a guess without
    looking scores.
    """
    rows, columns = (np.linspace(-1, 1, side) for side in size)
    return normalise(1 - np.hypot(rows[:, None], columns)[None] / np.sqrt(2))[0]


def pointing_game(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Whether each map's maximum lies on the lesion (Zhang et al. 2016).

    Parameters
    ----------
    maps, masks : arrays (N, H, W)
        Maps in [0, 1], and masks that are nonzero on the lesion.

    Returns
    -------
    numpy.ndarray
        float (N,): 1 hit, 0 miss; the share of hits among several equal maxima; 0 for an all-zero
        map; NaN where the mask is empty.
    """
    maps, masks = _flat(maps, masks)
    highest = maps.max(1, keepdims=True)
    peak = (maps == highest) & (highest > 0)
    hits = (peak & masks).sum(1) / np.maximum(peak.sum(1), 1)
    return np.where(masks.any(1), hits, np.nan)


def energy_inside(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Share of each map's sum that lies on the lesion (Wang et al. 2020); float (N,), 0 for an
    all-zero map, NaN where the mask is empty.
    """
    maps, masks = _flat(maps, masks)
    total = maps.sum(1)
    inside = np.divide((maps * masks).sum(1), total, out=np.zeros(len(maps)), where=total > 0)
    return np.where(masks.any(1), inside, np.nan)


def _flat(maps, masks):
    maps, masks = np.asarray(maps, float), np.asarray(masks) > 0
    if maps.shape != masks.shape:
        raise ValueError(
            f"maps are {maps.shape} and masks {masks.shape}; give both at the size of the image "
            "(gradcam(..., upsample=True))."
        )
    return maps.reshape(len(maps), -1), masks.reshape(len(masks), -1)


def localisation(maps: np.ndarray, masks: np.ndarray, seed: int = 0) -> pd.DataFrame:
    """Pointing game and energy inside the lesion, beside what random, centred and uniform maps
    reach.

    Parameters
    ----------
    maps, masks : arrays (N, H, W)
        As in `pointing_game`.
    seed : int
        For the random maps.

    Returns
    -------
    pandas.DataFrame
        One row per image: pointing, energy, pointing_random, energy_random, pointing_centre,
        energy_centre and energy_uniform (the lesion's share of the image); NaN where the mask is
        empty.
    """
    masks = np.asarray(masks) > 0
    size = masks.shape[1:]
    rivals = {
        "": maps,
        "_random": random_maps(len(masks), size, seed),
        "_centre": np.broadcast_to(centred_map(size), masks.shape),
    }
    table = {
        f"{name}{suffix}": function(values, masks)
        for suffix, values in rivals.items()
        for name, function in (("pointing", pointing_game), ("energy", energy_inside))
    }
    return pd.DataFrame(table | {"energy_uniform": energy_inside(np.ones(masks.shape), masks)})


def lesion(
    name: str, inputs: Inputs, rows: Sequence[int] | np.ndarray, size: int
) -> np.ndarray | None:
    """Lesion mask of one image at `size` pixels, bool (size, size); None where the image has none.

    Parameters
    ----------
    name : str
        Registered data set.
    inputs : kit.data.inputs.Inputs
    rows : (1,) array
        Row of the image.
    """
    file = registry.mask_file(name, inputs.index["image_id"].iloc[int(rows[0])])
    if file is None:
        return None
    return (
        np.asarray(Image.open(file).convert("L").resize((size, size), Image.Resampling.NEAREST))
        > 127
    )


def explanation_scores(
    model: "keras.Model",
    images: np.ndarray,
    maps: np.ndarray,
    name: str,
    inputs: Inputs,
    rows: np.ndarray,
) -> dict:
    """Mean faithfulness of maps for the positive class, and mean localisation over the images whose
    lesion is outlined, each beside its random baseline.

    Parameters
    ----------
    model : keras.Model
    images : numpy.ndarray
        (N, H, W, C) as the model expects them.
    maps : numpy.ndarray
        (N, H, W) in [0, 1].
    name, inputs, rows
        As in :func:`lesion`, with N rows.

    Returns
    -------
    dict
        Column name -> mean; outlined: number of images whose maps could be localised. The columns
        of :func:`localisation` are absent where that is 0.
    """
    scores = faithfulness(
        lambda batch: model.predict(batch, verbose=0),
        images,
        maps,
        np.ones(len(images), int),
        steps=10,
    )
    masks = {
        i: mask
        for i, row in enumerate(rows)
        if (mask := lesion(name, inputs, [row], maps.shape[1])) is not None
    }
    means = scores.mean().to_dict()
    if masks:
        found = localisation(np.asarray(maps)[list(masks)], np.stack(list(masks.values())))
        means |= found.mean().to_dict()
    return means | {"outlined": len(masks)}
