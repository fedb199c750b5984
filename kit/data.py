"""From image files to batches: decode once, cache as uint8, gather by index.

ImageDataGenerator and per-image ``tf.data`` chains decode and resize every image in every epoch; the publications' loaders did too. Here
each data set is decoded and resized once per size into a memory-mapped array, and batches are gathered from it. The order of an epoch depends on
(seed, epoch) only, so that a resumed run sees the same batches.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Callable

import numpy as np
import pandas as pd
from PIL import Image

from kit import audit, imageio, paths, record, registry
from kit.errors import KitError

RESAMPLING = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC,
              "area": Image.Resampling.BOX}


class BadSplit(KitError):
    """A part of a split cannot be trained or tested on."""


@dataclass(frozen=True)
class Inputs:
    """A data set in memory, ready for training.

    Attributes
    ----------
    name : str
        Registered data set.
    index : pandas.DataFrame
        One row an image: image_id, split, label, class_name, sha256, group (near-duplicate group).
    x : numpy.ndarray
        uint8 images (N, H, W, C) or float16 features (N, h, w, C), row i belongs to ``index.iloc[i]``.
    scale : float
        Factor that the batches are multiplied with after the cast to float32 (1/255 for images, 1 for features).
    facts : dict
        What a run's configuration records of the data: name, fingerprint, size, channels, interpolation, features.
    """

    name: str
    index: pd.DataFrame
    x: np.ndarray
    scale: float
    facts: dict

    @property
    def labels(self) -> np.ndarray:
        """Integer labels, shape (N,), int64."""
        return self.index["label"].to_numpy(np.int64)

    def rows(self, image_ids) -> np.ndarray:
        """Row numbers of image ids, in the order given."""
        position = pd.Series(np.arange(len(self.index)), index=self.index["image_id"])
        return position.loc[list(image_ids)].to_numpy()

    def batch(self, rows) -> np.ndarray:
        """Model inputs of some rows: float32 (n, ...), scaled."""
        return np.array(self.x[rows], np.float32) * np.float32(self.scale)  # a plain array: Keras does not know memory maps


def load(name: str, size: int, channels: int = 1, interpolation: str = "bilinear") -> Inputs:
    """Decode a registered image data set, or open the cached decoding.

    Parameters
    ----------
    name : str
    size : int
        Side of the square that images are resized to, in pixels; the aspect ratio is not kept, as in the publications.
    channels : {1, 3}
    interpolation : {"nearest", "bilinear", "bicubic", "area"}
        Pillow's filter of that name. When shrinking, Pillow widens the filter (antialiasing) where OpenCV does not.

    Raises
    ------
    registry.DatasetMissing, imageio.UnreadableImage
    """
    index = registry.index(name).merge(_group_column(name), on="image_id", validate="one_to_one")
    facts = {"name": name, "fingerprint": registry.facts(name)["fingerprint"], "size": size, "channels": channels,
             "interpolation": interpolation, "incomplete": registry.facts(name).get("incomplete") or []}
    file = paths.cache_dir() / "decoded" / f"{name}-{record.digest(facts)[:16]}.npy"
    if not file.exists():
        _decode_all(index, registry.root(name), size, channels, RESAMPLING[interpolation], file)
    return Inputs(name, index, np.load(file, mmap_mode="r"), 1 / 255, facts)


def _group_column(name: str) -> pd.DataFrame:
    return audit.groups(name)[["image_id", "near_group"]].rename(columns={"near_group": "group"})


def _decode_all(index: pd.DataFrame, root, size: int, channels: int, resampling, file) -> None:
    def decode(image_id: str) -> np.ndarray:
        picture = Image.fromarray(imageio.read_image(root / image_id, channels=channels))
        if picture.size != (size, size):
            picture = picture.resize((size, size), resampling)
        return np.asarray(picture).reshape(size, size, channels)

    with record.atomic_write(file) as temporary:
        stack = np.lib.format.open_memmap(temporary, "w+", np.uint8, (len(index), size, size, channels))
        with ThreadPoolExecutor() as pool:  # Pillow releases the interpreter lock while it decodes
            for row, pixels in enumerate(pool.map(decode, index["image_id"], chunksize=16)):
                stack[row] = pixels
        stack.flush()
        del stack


def with_features(inputs: Inputs, tag: dict, compute: Callable[[np.ndarray], np.ndarray]) -> Inputs:
    """The same data set as cached outputs of a frozen network.

    Parameters
    ----------
    inputs : Inputs
        uint8 images.
    tag : dict
        Everything the features depend on besides the images (backbone, weights); part of the cache key and of the configuration.
    compute : callable
        (n, H, W, C) uint8 -> (n, h, w, C') float; called on blocks of at most 256 images.
    """
    facts = {**inputs.facts, "features": tag}
    file = paths.cache_dir() / "features" / f"{inputs.name}-{record.digest(facts)[:16]}.npy"
    if not file.exists():
        with record.atomic_write(file) as temporary:
            first = compute(inputs.x[:1])
            stack = np.lib.format.open_memmap(temporary, "w+", np.float16, (len(inputs.x), *first.shape[1:]))
            for start in range(0, len(inputs.x), 256):
                stack[start:start + 256] = compute(inputs.x[start:start + 256])
            stack.flush()
            del stack
    return replace(inputs, x=np.load(file, mmap_mode="r"), scale=1.0, facts=facts)


def epochs(inputs: Inputs, rows: np.ndarray, batch_size: int, seed: int, first_epoch: int = 0):
    """An endless stream of shuffled epochs as ``tf.data``; one epoch is ``ceil(len(rows) / batch_size)`` batches.

    The permutation of epoch e is drawn from (seed, e), whatever came before, so that a stream started at `first_epoch` continues an
    interrupted one exactly.

    Returns
    -------
    tf.data.Dataset
        Pairs (float32 inputs (b, ...), float32 labels (b, 1) for two classes or (b, classes) one-hot).
    """
    import tensorflow as tf

    x, y = tf.constant(np.ascontiguousarray(inputs.x[np.sort(rows)])), tf.constant(_targets(inputs, np.sort(rows)))

    def one_epoch(epoch):
        order = tf.random.experimental.stateless_shuffle(tf.range(len(rows)), seed=tf.stack([tf.constant(seed, tf.int64), epoch]))
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)

    def gather(chosen):
        return tf.cast(tf.gather(x, chosen), tf.float32) * inputs.scale, tf.gather(y, chosen)

    counter = tf.data.Dataset.counter(start=first_epoch, dtype=tf.int64)
    return counter.flat_map(one_epoch).map(gather, num_parallel_calls=2, deterministic=True).prefetch(2).with_options(_untuned())


def in_order(inputs: Inputs, rows: np.ndarray, batch_size: int):
    """The given rows once, in their order, as ``tf.data`` pairs like those of :func:`epochs`."""
    import tensorflow as tf

    x, y = tf.constant(np.ascontiguousarray(inputs.x[rows])), tf.constant(_targets(inputs, rows))
    slices = tf.data.Dataset.range(len(rows)).batch(batch_size)
    return slices.map(lambda i: (tf.cast(tf.gather(x, i), tf.float32) * inputs.scale, tf.gather(y, i))).prefetch(2).with_options(_untuned())


def _untuned():
    """Options without autotuning: nothing is left to tune here, and ending its thread holds up the end of a training by up to two seconds."""
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def _targets(inputs: Inputs, rows: np.ndarray) -> np.ndarray:
    labels = inputs.labels[rows]
    classes = len(registry.get(inputs.name).classes)
    return labels[:, None].astype(np.float32) if classes == 2 else np.eye(classes, dtype=np.float32)[labels]


def check_parts(inputs: Inputs, parts: dict) -> None:
    """Refuse a split in which a class has no image in a training part.

    Parameters
    ----------
    parts : dict
        Part name -> row numbers. A class missing in a part that is only tested on is legal (its metrics are undefined there).

    Raises
    ------
    BadSplit
    """
    names = registry.get(inputs.name).display
    for part, rows in parts.items():
        if len(rows) == 0:
            raise BadSplit(f"{inputs.name}: the part {part!r} holds no image; choose a larger test size or fewer folds.")
        absent = sorted(set(range(len(names))) - set(inputs.labels[rows].tolist()))
        if part.startswith("train") and absent:
            raise BadSplit(f"{inputs.name}: no image of class {names[absent[0]]} in the part {part!r}; add images of it or drop the class.")
