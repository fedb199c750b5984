"""Images a second of the augmentations, beside the generator that the publications use: ``python -m
kit.benchmarks.augmentation affine|auto``.
"""

import itertools
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

import cv2
import numpy as np
import pandas as pd
import PIL

from kit.data import batches
from kit.data.augment import affine as augment_affine
from kit.data.augment import autoaugment


def affine(size: int = 200, images: int = 512, rounds: int = 3, seed: int = 0) -> pd.DataFrame:
    """Time both augmenters side by side, in turns, on random images: batches of 32 as they reach
    the network.

    The generator is iterated as published, without what tf.data would cost on top; the fused path
    includes tf.data, shuffling and scaling.

    Returns
    -------
    pandas.DataFrame
        One row an augmenter: images/s of the median round, slowest and fastest round, and ratio to
        the generator; indexed by augmenter.
    """
    x = np.random.default_rng(seed).integers(0, 256, (images, size, size, 3), dtype=np.uint8)
    targets = np.zeros((images, 4), np.float32)
    fused = iter(
        batches.augmented(
            x,
            targets,
            np.arange(images),
            scale=1 / 255,
            batch_size=32,
            seed=seed,
            first_epoch=0,
            settings=augment_affine.Augmentation(),
        )
    )
    streams = {
        "keras_generator": augment_affine.generator_batches(
            x, targets, 1 / 255, 32, augment_affine.Augmentation(), seed=seed
        ),
        "fused": fused,
    }
    rates = {name: [] for name in streams}
    for _, (name, stream) in itertools.product(range(rounds), streams.items()):
        for _ in range(3):
            next(stream)
        started, seen = time.perf_counter(), 0
        while seen < images:
            seen += len(next(stream)[1])
        rates[name].append(seen / (time.perf_counter() - started))
        time.sleep(
            0.2
            # lets the prefetching of the fused stream finish, so that it takes no time from the
            # other
        )
    table = pd.DataFrame(
        [
            {"augmenter": n, "images/s": np.median(r), "slowest": min(r), "fastest": max(r)}
            for n, r in rates.items()
        ]
    )
    table = table.set_index("augmenter")
    return table.assign(ratio=table["images/s"] / table.loc["keras_generator", "images/s"])


def auto(
    size: int = 64, images: int = 2048, rounds: int = 3, batch_size: int = 96, seed: int = 0
) -> pd.DataFrame:
    """Images/s of this augmentation, in one thread and as it reaches the network through
    ``tf.data``, in turns, on random images.

    Returns
    -------
    pandas.DataFrame
        Indexed by way and encoding: images/s of the median round, slowest and fastest round.
    """
    x = np.random.default_rng(seed).integers(0, 256, (images, size, size, 3), dtype=np.uint8)
    rows, targets = np.arange(images), np.zeros((images, 4), np.float32)

    def alone(settings):
        for start in itertools.cycle(range(0, images - batch_size, batch_size)):
            yield autoaugment.batch(
                x[start : start + batch_size], rows[start : start + batch_size], 0, settings, seed
            )

    streams = {}
    for settings in (autoaugment.AutoAugment(name, cutout=16) for name in autoaugment.ENCODINGS):
        streams["one thread", settings.encoding] = alone(settings)
        streams["tf.data", settings.encoding] = iter(
            batches.augmented(
                x,
                targets,
                rows,
                scale=1 / 255,
                batch_size=batch_size,
                seed=seed,
                first_epoch=0,
                settings=settings,
            )
        )
    rates = {key: [] for key in streams}
    for _, (key, stream) in itertools.product(range(rounds), streams.items()):
        for _ in range(3):
            next(stream)
        started, seen = time.perf_counter(), 0
        while seen < images:
            one = next(stream)
            seen += len(one[1]) if isinstance(one, tuple) else len(one)
        rates[key].append(seen / (time.perf_counter() - started))
        time.sleep(
            0.2
        )  # lets a stream's prefetching finish, so that it takes no time from the next one
    index = pd.MultiIndex.from_tuples(rates, names=["way", "encoding"])
    return pd.DataFrame(
        [{"images/s": np.median(r), "slowest": min(r), "fastest": max(r)} for r in rates.values()],
        index=index,
    )


def main(arguments: Sequence[str]) -> None:
    """Print the table of one augmentation."""
    ways = {
        "affine": (affine, asdict(augment_affine.Augmentation())),
        "auto": (auto, "both encodings"),
    }
    if len(arguments) != 1 or arguments[0] not in ways:
        raise SystemExit("Usage: python -m kit.benchmarks.augmentation affine|auto")
    benchmark, settings = ways[arguments[0]]
    print(
        f"{benchmark().round(1)}\n{os.cpu_count()} cores, OpenCV {cv2.__version__}, Pillow "
        f"{PIL.__version__}, {settings}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
