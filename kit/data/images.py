"""From image files to batches: decode once, cache as uint8, gather by index.

ImageDataGenerator and per-image ``tf.data`` chains decode and resize every image in every epoch;
the publications' loaders did too. Here each data set is decoded and resized once per size into a
memory-mapped array, and batches are gathered from it. The order and the augmentation of an epoch
depend on (seed, epoch) only, so that a resumed run sees the same batches.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
from PIL import Image

from kit import files, kernels, paths, rehearsal
from kit.data import duplicates, imageio, registry, three_parts
from kit.data import inputs as data_inputs
from kit.data.inputs import Inputs
from kit.errors import KitError

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "area": Image.Resampling.BOX,
}


class BadPreparation(KitError):
    """A function that prepares images gives something else than agreed."""


def load(name: str, size: int, channels: int = 1, interpolation: str = "bilinear") -> Inputs:
    """Decode a registered image data set, or open the cached decoding.

    Parameters
    ----------
    name : str
    size : int
        Side of the square that images are resized to, in pixels; the aspect ratio is not kept, as
        in the publications.
    channels : {1, 3}
    interpolation : {"nearest", "bilinear", "bicubic", "area"}
        Pillow's filter of that name. When shrinking, Pillow widens the filter (antialiasing) where
        OpenCV does not.

    Raises
    ------
    registry.DatasetMissing, imageio.UnreadableImage
    """
    index = indexed(name)
    facts = {
        "name": name,
        "fingerprint": registry.facts(name)["fingerprint"],
        "size": size,
        "channels": channels,
        "interpolation": interpolation,
        "incomplete": registry.facts(name).get("incomplete") or [],
    }
    file = paths.cache_dir() / "decoded" / f"{name}-{files.digest(facts)[:16]}.npy"

    def decode(path) -> np.ndarray:
        picture = Image.fromarray(imageio.read_image(path, channels=channels))
        if picture.size != (size, size):
            picture = picture.resize((size, size), RESAMPLING[interpolation])
        return np.asarray(picture).reshape(size, size, channels)

    if not file.exists():
        _fill(
            file,
            [registry.root(name) / i for i in index["image_id"]],
            decode,
            (size, size, channels),
        )
    return Inputs(name, index, np.load(file, mmap_mode="r"), 1 / 255, facts)


def prepared(name: str, tag: dict, prepare: Callable, size: int) -> Inputs:
    """A registered image data set after a preprocessing chain, cached like :func:`load`.

    Parameters
    ----------
    name : str
    tag : dict
        Everything the pixels depend on besides the files and `size` (chain, mode, its version):
        plain JSON values, part of the cache key and recorded in ``facts["prepared"]`` and so in
        every run's configuration.
    prepare : callable
        (path) -> uint8 (size, size, 3); called in threads.
    size : int
        Side in pixels.

    Raises
    ------
    BadPreparation
        If `prepare` gives another type or shape. Its own errors pass through, and nothing is
        cached.
    registry.DatasetMissing
    """
    index = indexed(name)
    facts = {
        "name": name,
        "fingerprint": registry.facts(name)["fingerprint"],
        "size": size,
        "channels": 3,
        "prepared": tag,
        "incomplete": registry.facts(name).get("incomplete") or [],
    }
    file = paths.cache_dir() / "prepared" / f"{name}-{files.digest(facts)[:16]}.npy"

    def checked(path) -> np.ndarray:
        pixels = np.asarray(prepare(path))
        if pixels.dtype != np.uint8 or pixels.shape != (size, size, 3):
            raise BadPreparation(
                f"Preparing {path} gave {pixels.dtype} {pixels.shape}; it must give uint8 "
                f"{(size, size, 3)}."
            )
        return pixels

    if not file.exists():
        _fill(file, [registry.root(name) / i for i in index["image_id"]], checked, (size, size, 3))
    return Inputs(name, index, np.load(file, mmap_mode="r"), 1 / 255, facts)


def indexed(name: str) -> pd.DataFrame:
    """Index of a registered set with the twin group of each image, "group"."""
    groups = duplicates.groups(name)[["image_id", "twin_group"]].rename(
        columns={"twin_group": "group"}
    )
    return registry.index(name).merge(groups, on="image_id", validate="one_to_one")


def _fill(file, images: list, pixels_of: Callable, shape: tuple) -> None:
    with files.atomic_write(file) as temporary:
        stack = np.lib.format.open_memmap(temporary, "w+", np.uint8, (len(images), *shape))
        with ThreadPoolExecutor() as pool:  # Pillow and OpenCV release the interpreter lock
            try:
                for row, pixels in enumerate(pool.map(pixels_of, images)):
                    stack[row] = pixels
            except BaseException:
                pool.shutdown(cancel_futures=True)  # one bad image: do not decode the others first
                raise
        stack.flush()
        del stack


def with_features(inputs: Inputs, tag: dict, compute: Callable[[np.ndarray], np.ndarray]) -> Inputs:
    """The same data set as cached outputs of a frozen network.

    Parameters
    ----------
    inputs : Inputs
        uint8 images.
    tag : dict
        Everything the features depend on besides the images (backbone, weights); part of the cache
        key and of the configuration.
    compute : callable
        (n, H, W, C) uint8 -> (n, h, w, C') float; called on blocks of at most 256 images.
    """
    facts = {**inputs.facts, "features": tag}
    if rehearsal.active():  # one image's features stand for all
        facts["rehearsal"] = True
    key = files.digest(kernels.keyed(facts))[:16]
    file = paths.cache_dir() / "features" / f"{inputs.name}-{key}.npy"
    if not file.exists():
        with files.atomic_write(file) as temporary:
            first = compute(inputs.x[:1])
            if rehearsal.active():
                started = time.perf_counter()
                compute(inputs.x[:1])
                _plan_features(inputs, tag, time.perf_counter() - started)
            stack = np.lib.format.open_memmap(
                temporary, "w+", np.float16, (len(inputs.x), *first.shape[1:])
            )
            if rehearsal.active():
                stack[:] = first
            for start in () if rehearsal.active() else range(0, len(inputs.x), 256):
                stack[start : start + 256] = compute(inputs.x[start : start + 256])
            stack.flush()
            del stack
    return replace(inputs, x=np.load(file, mmap_mode="r"), scale=1.0, facts=facts)


def _plan_features(inputs: Inputs, tag: dict, seconds: float) -> None:
    """Write down what the features of all images take; operations and memory are not counted."""
    facts = {"signature": files.digest(tag)[:16], "run": "features", "seed": 0, "epochs": 0}
    facts |= {"images": len(inputs.x), "predicted": len(inputs.x), "steps": 0, "batch": 1}
    facts |= {"batch_here": 1, "step_seconds": 0.0, "traced_seconds": seconds}
    facts |= {"predict_seconds": seconds, "flops": None, "peak": None, "parameters": None}
    rehearsal.write_down("trainings", f"features-{tag.get('backbone', inputs.name)}", facts)


def in_three(
    name: str, size: int, images: int = 0, seed: int = 0, grouped: bool = False
) -> tuple[Inputs, dict]:
    """Images of a registered set, three channels, and row numbers of "train", "val" and "test" by
    :func:`kit.data.three_parts.three_way_split`.

    Parameters
    ----------
    name : str
    size : int
        Side in pixels.
    images : int
        Most images of all parts together, by :func:`fewer`; 0 takes all.
    seed, grouped
        Of the split.
    """
    inputs = load(name, size, channels=3)
    parts = {
        part: inputs.rows(ids)
        for part, ids in three_parts.three_way_split(name, seed, grouped=grouped).parts.items()
    }
    total = len(inputs.index)
    if 0 < images < total:
        parts = {
            part: data_inputs.fewer(inputs.labels, rows, max(1, round(images * len(rows) / total)))
            for part, rows in parts.items()
        }
    return inputs, parts
