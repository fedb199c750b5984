"""From image files to batches: decode once, cache as uint8, gather by index.

ImageDataGenerator and per-image ``tf.data`` chains decode and resize every image in every epoch; the publications' loaders did too. Here
each data set is decoded and resized once per size into a memory-mapped array, and batches are gathered from it. The order and the augmentation
of an epoch depend on (seed, epoch) only, so that a resumed run sees the same batches.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Callable

import numpy as np
import pandas as pd
from PIL import Image

from kit import audit, autoaugment, imageio, paths, record, registry, split
from kit import augment as augmenting
from kit.errors import KitError

RESAMPLING = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC,
              "area": Image.Resampling.BOX}
AUGMENTERS = {"fused": augmenting.Augmentation, "keras_generator": augmenting.Augmentation, "autoaugment": autoaugment.AutoAugment}  # and their settings


class BadSplit(KitError):
    """A part of a split cannot be trained or tested on."""


class BadPreparation(KitError):
    """A function that prepares images gives something else than agreed."""


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

    def members(self, parts: dict) -> dict:
        """What a run is keyed by of its images: for each part its number of images and the digest of their ids, in the order of the rows."""
        ids = self.index["image_id"].to_numpy()
        return {part: {"images": len(rows), "sha256": record.digest(ids[rows].tolist())} for part, rows in parts.items()}

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
    index = indexed(name)
    facts = {"name": name, "fingerprint": registry.facts(name)["fingerprint"], "size": size, "channels": channels,
             "interpolation": interpolation, "incomplete": registry.facts(name).get("incomplete") or []}
    file = paths.cache_dir() / "decoded" / f"{name}-{record.digest(facts)[:16]}.npy"

    def decode(path) -> np.ndarray:
        picture = Image.fromarray(imageio.read_image(path, channels=channels))
        if picture.size != (size, size):
            picture = picture.resize((size, size), RESAMPLING[interpolation])
        return np.asarray(picture).reshape(size, size, channels)

    if not file.exists():
        _fill(file, [registry.root(name) / i for i in index["image_id"]], decode, (size, size, channels))
    return Inputs(name, index, np.load(file, mmap_mode="r"), 1 / 255, facts)


def prepared(name: str, tag: dict, prepare: Callable, size: int) -> Inputs:
    """A registered image data set after a preprocessing chain, cached like :func:`load`.

    Parameters
    ----------
    name : str
    tag : dict
        Everything the pixels depend on besides the files and `size` (chain, mode, its version): plain JSON values, part of the cache key and
        recorded in ``facts["prepared"]`` and so in every run's configuration.
    prepare : callable
        (path) -> uint8 (size, size, 3); called in threads.
    size : int
        Side in pixels.

    Raises
    ------
    BadPreparation
        If `prepare` gives another type or shape. Its own errors pass through, and nothing is cached.
    registry.DatasetMissing
    """
    index = indexed(name)
    facts = {"name": name, "fingerprint": registry.facts(name)["fingerprint"], "size": size, "channels": 3, "prepared": tag,
             "incomplete": registry.facts(name).get("incomplete") or []}
    file = paths.cache_dir() / "prepared" / f"{name}-{record.digest(facts)[:16]}.npy"

    def checked(path) -> np.ndarray:
        pixels = np.asarray(prepare(path))
        if pixels.dtype != np.uint8 or pixels.shape != (size, size, 3):
            raise BadPreparation(f"Preparing {path} gave {pixels.dtype} {pixels.shape}; it must give uint8 {(size, size, 3)}.")
        return pixels

    if not file.exists():
        _fill(file, [registry.root(name) / i for i in index["image_id"]], checked, (size, size, 3))
    return Inputs(name, index, np.load(file, mmap_mode="r"), 1 / 255, facts)


def indexed(name: str) -> pd.DataFrame:
    """Index of a registered set with the near-duplicate group of each image, "group"."""
    groups = audit.groups(name)[["image_id", "near_group"]].rename(columns={"near_group": "group"})
    return registry.index(name).merge(groups, on="image_id", validate="one_to_one")


def _fill(file, images: list, pixels_of: Callable, shape: tuple) -> None:
    with record.atomic_write(file) as temporary:
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


def epochs(inputs: Inputs, rows: np.ndarray, batch_size: int, seed: int, first_epoch: int = 0, augment=None, augmenter: str = "fused"):
    """An endless stream of shuffled epochs as ``tf.data``; one epoch is ``ceil(len(rows) / batch_size)`` batches.

    The permutation of epoch e is drawn from (seed, e), whatever came before, so that a stream started at `first_epoch` continues an
    interrupted one exactly. The augmentation of an image is drawn from (seed, e, its row).

    Parameters
    ----------
    augment : kit.augment.Augmentation, kit.autoaugment.AutoAugment, dict or None
        Settings of the augmenter; None: the images as they are.
    augmenter : {"fused", "keras_generator", "autoaugment"}
        The CAD framework's transform as one warp on cached pixels, or by its generator, which also shuffles in its own way; or AutoAugment.

    Returns
    -------
    tf.data.Dataset
        Pairs (float32 inputs (b, ...), float32 labels (b, 1) for two classes or (b, classes) one-hot).

    Raises
    ------
    augment.BadAugmentation
        If the inputs are no images.
    """
    import tensorflow as tf

    place = np.sort(rows)
    if augment is not None:
        x, y = np.ascontiguousarray(inputs.x[place]), _targets(inputs, place)
        settings = AUGMENTERS[augmenter].of(augment)
        _augmenter(settings).check_images(x)
        if augmenter == "keras_generator":
            return _generated(x, y, inputs.scale, batch_size, seed, first_epoch, settings)
        return augmented(x, y, place, inputs.scale, batch_size, seed, first_epoch, settings)
    x, y = tf.constant(np.ascontiguousarray(inputs.x[place])), tf.constant(_targets(inputs, place))

    def gather(chosen, _):
        return tf.cast(tf.gather(x, chosen), tf.float32) * inputs.scale, tf.gather(y, chosen)

    return _orders(len(rows), batch_size, seed, first_epoch).map(gather, num_parallel_calls=2, deterministic=True).prefetch(2).with_options(_untuned())


def _orders(count: int, batch_size: int, seed: int, first_epoch: int):
    """Pairs (positions of a batch, epoch number), without end."""
    import tensorflow as tf

    def one_epoch(epoch):
        order = tf.random.experimental.stateless_shuffle(tf.range(count), seed=tf.stack([tf.constant(seed, tf.int64), epoch]))
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size).map(lambda chosen: (chosen, epoch))

    return tf.data.Dataset.counter(start=first_epoch, dtype=tf.int64).flat_map(one_epoch)


def augmented(x, y, image_rows, scale: float, batch_size: int, seed: int, first_epoch: int, settings):
    """The fused path of :func:`epochs`, and AutoAugment's, on plain arrays: uint8 images (n, H, W, C), their targets and the rows their draws are keyed by."""
    import tensorflow as tf

    warp, targets = _augmenter(settings).warper(x, image_rows, scale, settings, seed), tf.constant(y)

    def batch(chosen, epoch):
        pixels = tf.numpy_function(warp, [chosen, epoch], tf.float32, stateful=False)  # stateful calls would run one at a time
        return tf.ensure_shape(pixels, (None, *x.shape[1:])), tf.gather(targets, chosen)

    workers = max(2, min(8, os.cpu_count() or 2))
    return _orders(len(x), batch_size, seed, first_epoch).map(batch, num_parallel_calls=workers, deterministic=True).prefetch(2).with_options(_untuned())


def _augmenter(settings):
    """The module whose settings these are."""
    return autoaugment if isinstance(settings, autoaugment.AutoAugment) else augmenting


def _generated(x, y, scale: float, batch_size: int, seed: int, first_epoch: int, settings):
    import tensorflow as tf

    signature = tuple(tf.TensorSpec((None, *a.shape[1:]), tf.float32) for a in (x, y))
    batches = lambda: augmenting.generator_batches(x, y, scale, batch_size, settings, seed, first_epoch)  # noqa: E731
    return tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(2).with_options(_untuned())


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


def fewer(labels, rows, count: int) -> np.ndarray:
    """About `count` of the rows by class proportion (largest remainder, at least one of each class), spread evenly over each class in file order.

    Parameters
    ----------
    labels : numpy.ndarray
        Of all images.
    rows : array of int
    count : int
        0, or as many as there are rows, takes all.

    Returns
    -------
    numpy.ndarray
        Sorted row numbers; `count` of them unless there are more classes than that.
    """
    rows = np.sort(rows)
    if not 0 < count < len(rows):
        return rows
    kinds, sizes = np.unique(labels[rows], return_counts=True)
    exact = sizes * count / len(rows)
    quota = np.maximum(1, np.floor(exact).astype(int))
    while quota.sum() < count:
        quota[np.argmax(exact - quota)] += 1
    return np.sort(np.concatenate([rows[labels[rows] == kind][np.linspace(0, size - 1, most).round().astype(int)] for kind, size, most in zip(kinds, sizes, quota, strict=True)]))


def in_three(name: str, size: int, images: int = 0, seed: int = 0, grouped: bool = False) -> tuple[Inputs, dict]:
    """Images of a registered set, three channels, and row numbers of "train", "val" and "test" by :func:`kit.split.three_way_split`.

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
    parts = {part: inputs.rows(ids) for part, ids in split.three_way_split(name, seed, grouped=grouped).parts.items()}
    total = len(inputs.index)
    if 0 < images < total:
        parts = {part: fewer(inputs.labels, rows, max(1, round(images * len(rows) / total))) for part, rows in parts.items()}
    return inputs, parts
