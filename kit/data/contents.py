"""What the search for copies reads from each image file: the hash of its pixels, a small thumbnail
for near-duplicates, and the views in which twins are sought.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from kit.data import imageio, thumbnails
from kit.data.steps import Arrays, Steps

SIDE = 32  # cells of the thumbnail's side
_STEP = 1024  # images that are read, then kept, at once


@dataclass(frozen=True)
class Contents:
    """What was read of n files.

    Attributes
    ----------
    hashes : numpy.ndarray
        str, (n,): SHA-256 of the decoded pixels.
    cells : numpy.ndarray
        float32, (n, 1024): :func:`thumbnail`.
    looks : kit.data.thumbnails.Looks
        Of no picture where no views were asked for.
    """

    hashes: np.ndarray
    cells: np.ndarray
    looks: thumbnails.Looks


def read(
    paths: Sequence[Path],
    versions: Sequence[str],
    views: bool,
    progress: Callable[[int, int], None],
    steps: Steps,
) -> Contents:
    """Read image files, two at a time on two cores.

    Parameters
    ----------
    paths : sequence of Path
    versions : sequence of str
        Something that changes with each file's bytes, such as its SHA-256.
    views : bool
        Whether the views are needed.
    progress : callable
        Called with the number of files read and of all.
    steps : Steps
    """
    parts: list[Arrays] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow and OpenCV release the lock

        def some(start: int, block: Sequence[Path]) -> Arrays:
            seen: list[tuple] = []
            for one in pool.map(partial(_look, views=views), block):
                progress(start + len(seen), len(paths))
                seen.append(one)
            names = ("hashes", "cells", "views", "rectangles")
            return {
                name: np.stack(part)
                for name, part in zip(names, zip(*seen, strict=True), strict=False)
            }

        for start in range(0, len(paths), _STEP):
            end = start + _STEP
            depends = [list(versions[start:end]), views]
            parts.append(steps("read", depends, partial(some, start, paths[start:end])))
            progress(min(end, len(paths)), len(paths))
    if not parts:
        return Contents(np.empty(0, str), np.empty((0, SIDE * SIDE), np.float32), thumbnails.NONE)
    whole = {name: np.concatenate([part.pop(name) for part in parts]) for name in list(parts[0])}
    looks = thumbnails.Looks(whole["views"], whole["rectangles"]) if views else thumbnails.NONE
    return Contents(whole["hashes"], whole["cells"], looks)


def _look(path: Path, views: bool = True) -> tuple:
    """Hash of the decoded pixels (grey where the three channels are equal), the normalised
    thumbnail of one file, and, asked for views, what :func:`kit.data.thumbnails.look` gives.
    """
    pixels = imageio.read_image(path, channels=3)
    if (pixels[..., 1:] == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    seen = pixel_hash(pixels), thumbnail(pixels)
    return (*seen, *thumbnails.look(grey(pixels))) if views else seen


def grey(pixels: np.ndarray) -> np.ndarray:
    """The luminance of a picture, uint8 (H, W); of a grey one, itself."""
    return np.asarray(Image.fromarray(pixels).convert("L"))


def read_grey(path: Path | str) -> np.ndarray:
    """The grey pixels of an image file: uint8 (H, W)."""
    return grey(imageio.read_image(Path(path), channels=3))


def pixel_hash(pixels: np.ndarray) -> str:
    """SHA-256 of the shape and the 8-bit pixels of an image."""
    return hashlib.sha256(
        repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()
    ).hexdigest()


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Grey cell averages of an image, zero mean and unit length: float32, shape (1024,).

    An image without contrast gives all zeros, hence cosine 0 with everything.

    Parameters
    ----------
    pixels : numpy.ndarray
        uint8, (H, W) or (H, W, 3).
    """
    picture = Image.fromarray(pixels).convert("L").convert("F")
    cells = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64).ravel()
    cells -= cells.mean()
    length = np.linalg.norm(cells)
    return (cells / length if length > 1e-6 else np.zeros_like(cells)).astype(np.float32)


def cosine(first: Path | str, second: Path | str) -> float:
    """Cosine similarity of the thumbnails of two image files, -1..1; 0 if one has no contrast."""
    one, other = (thumbnail(imageio.read_image(Path(p), channels=3)) for p in (first, second))
    return float(one @ other)
