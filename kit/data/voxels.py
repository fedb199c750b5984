"""Volumes as arrays: masks stay masks, sizes change as the publication's code changes them,
thumbnails for the search of copies.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import ndimage

from kit.data import registry
from kit.errors import KitError


class NoVolumes(KitError):
    """A data set holds no volumes, or its file is damaged."""


def stored(name: str) -> np.ndarray:
    """All volumes of a registered set in the order of its index, uint8 (n, edge, edge, edge) with
    axes depth, height, width.

    Raises
    ------
    NoVolumes, registry.DatasetMissing
    """
    if registry.get(name).kind != "volumes":
        raise NoVolumes(
            f"{name} holds {registry.get(name).kind}; choose a data set of volumes, such as "
            "phantom3d or adrenalmnist3d."
        )
    ids = registry.index(name)["image_id"]
    for file in sorted(registry.root(name).glob("*.npz")):
        with np.load(file) as arrays:
            if "train_images" in arrays:
                parts = {split: arrays[f"{split}_images"] for split in registry.get(name).layout}
                return np.stack(
                    [parts[split][int(number)] for split, number in (one.split("/") for one in ids)]
                )
    raise NoVolumes(
        f"{registry.root(name)} holds no .npz file with the array train_images; prepare {name} "
        "again."
    )


def is_mask(volumes: np.ndarray) -> bool:
    """Whether volumes have no more than two values, 0 and another."""
    return set(np.unique(volumes)) <= {0, volumes.max()}


def resized(volumes: np.ndarray, edge: int) -> np.ndarray:
    """Volumes of another edge, trilinear at voxel centres without antialiasing; masks stay masks,
    of 0 and 255.

    Parameters
    ----------
    volumes : numpy.ndarray
        uint8 (n, e, e, e).
    edge : int
        Voxels along each axis, at least 4.

    Returns
    -------
    numpy.ndarray
        uint8 (n, edge, edge, edge), rounded to the nearest grey value.

    Raises
    ------
    ValueError
        If `edge` is below 4.
    """
    if edge < 4:
        raise ValueError(f"edge is {edge}; a volume needs at least 4 voxels along each axis.")
    mask = is_mask(volumes)
    if mask:
        volumes = np.where(volumes, np.uint8(255), np.uint8(0))
    if edge == volumes.shape[1]:
        return volumes

    def one(volume):
        return ndimage.zoom(
            volume.astype(np.float32), edge / len(volume), order=1, mode="nearest", grid_mode=True
        )

    with ThreadPoolExecutor() as pool:  # scipy releases the interpreter lock
        found = np.stack(list(pool.map(one, volumes)))
    return (
        np.where(found > 127.5, np.uint8(255), np.uint8(0))
        if mask
        else np.rint(found).astype(np.uint8)
    )


def thumbnails(name: str, side: int = 14) -> np.ndarray:
    """Small versions for the search for near-duplicates: float32 (n, side^3), zero mean and unit
    length; all zeros for a volume without contrast.
    """
    cells = resized(stored(name), side).reshape(-1, side**3).astype(np.float64)
    cells -= cells.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(cells, axis=1, keepdims=True)
    return np.divide(cells, lengths, out=np.zeros_like(cells), where=lengths > 1e-6).astype(
        np.float32
    )
