"""Lesions that were outlined by hand: a VGG Image Annotator file in, one mask an image out.

The author of Br35H outlined the tumours of 801 images with the VGG Image Annotator (VIA 2) and
published the outlines beside byte copies of those images, for a Mask R-CNN. The copies are
recognised and left out; the outlines become ``masks/<image>.png`` at the image's own size, as the
lesion masks of the phantoms are (:func:`kit.data.registry.mask_file`).
"""

import hashlib
import json
from collections import Counter
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from data_prep.archive import Source
from kit.data import registry
from kit.data.imageio import SUFFIXES
from kit.errors import KitError


class BadRegions(KitError):
    """A file of outlines cannot be read, or does not belong to the images."""


def member(data: registry.DataSet, source: Source) -> str | None:
    """Name of the file of outlines in an archive; None where the set or the archive has none.

    Parameters
    ----------
    data : kit.data.registry.DataSet
        With ``source: {regions: {file, class, copies}}`` if it has outlines.
    source : data_prep.archive.Source
    """
    wanted = data.source.get("regions", {}).get("file")
    found = [name for name in source.members if wanted and PurePosixPath(name).name == wanted]
    return min(found, key=len, default=None)


def copies(data: registry.DataSet, source: Source, digests: set) -> dict:
    """Remarks on the images that an archive holds once more for the outlines.

    Parameters
    ----------
    data : kit.data.registry.DataSet
    source : data_prep.archive.Source
    digests : set of str
        SHA-256 of the images of the set.

    Returns
    -------
    dict
        Remark -> number of images, as the notes of ``dataset.json``.
    """
    folder = data.source.get("regions", {}).get("copies")
    wanted = {
        name
        for name in source.members
        if folder in PurePosixPath(name).parts and PurePosixPath(name).suffix.lower() in SUFFIXES
    }
    known = Counter(
        hashlib.sha256(b"".join(blocks)).hexdigest() in digests for _, blocks in source.each(wanted)
    )
    words = {True: "byte copies of images of the set", False: "no copies of images of the set"}
    return {f"{folder} holds {words[same]}, left out": n for same, n in known.items()}


def read(content: bytes) -> dict:
    """Outlines of a VIA file: file name -> (length of the image file in bytes, list of shapes).

    Raises
    ------
    BadRegions
        If the content is no VIA annotation file.
    """
    try:
        entries = json.loads(content)
        entries = entries.get("_via_img_metadata", entries)
        return {
            entry["filename"]: (
                entry["size"],
                [region["shape_attributes"] for region in _listed(entry["regions"])],
            )
            for entry in entries.values()
        }
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadRegions(
            f"The outlines are no file of the VGG Image Annotator ({error}); fetch it again."
        ) from error


def _listed(regions) -> list:
    """VIA 1 numbers the regions of an image, VIA 2 lists them."""
    return list(regions.values()) if isinstance(regions, dict) else regions


def draw(shapes: list, width: int, height: int) -> np.ndarray:
    """Union of outlines.

    Parameters
    ----------
    shapes : list of dict
        VIA's shape attributes: polygon (all_points_x, all_points_y), ellipse (cx, cy, rx, ry and
        theta in radians), circle (cx, cy, r) or rect (x, y, width, height); in pixels from the
        upper left corner.
    width, height : int
        Of the image, pixels.

    Returns
    -------
    numpy.ndarray
        bool (height, width).

    Raises
    ------
    BadRegions
        If a shape is of another kind or lies outside the image altogether.
    """
    mask = np.zeros((height, width), bool)
    for shape in shapes:
        try:
            own = _SHAPES[shape["name"]](shape, width, height)
        except KeyError as error:
            raise BadRegions(
                f"An outline is a {shape.get('name')!r} or lacks {error}; polygons, ellipses, "
                "circles and rectangles are known."
            ) from error
        if not own.any():
            raise BadRegions(
                f"A {shape['name']} lies outside its image of {width} x {height} pixels; the "
                "outlines belong to other files."
            )
        mask |= own
    return mask


def _polygon(shape: dict, width: int, height: int) -> np.ndarray:
    corners = np.rint(np.column_stack([shape["all_points_x"], shape["all_points_y"]]))
    drawn = np.zeros((height, width), np.uint8)
    return cv2.fillPoly(drawn, [corners.astype(np.int32)], 1).astype(bool)


def _ellipse(shape: dict, width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    x, y, angle = x - shape["cx"], y - shape["cy"], shape.get("theta") or 0.0
    along, across = (
        x * np.cos(angle) + y * np.sin(angle),
        y * np.cos(angle) - x * np.sin(angle),
    )
    return (along / shape["rx"]) ** 2 + (across / shape["ry"]) ** 2 <= 1


def _circle(shape: dict, width: int, height: int) -> np.ndarray:
    return _ellipse(shape | {"rx": shape["r"], "ry": shape["r"]}, width, height)


def _rectangle(shape: dict, width: int, height: int) -> np.ndarray:
    left, top = shape["x"], shape["y"]
    right, bottom = left + shape["width"], top + shape["height"]
    corners = {
        "all_points_x": [left, right, right, left],
        "all_points_y": [top, top, bottom, bottom],
    }
    return _polygon(corners, width, height)


_SHAPES = {"polygon": _polygon, "ellipse": _ellipse, "circle": _circle, "rect": _rectangle}


def write(data: registry.DataSet, root: Path, manifest: pd.DataFrame) -> dict:
    """Draw the masks of a set that lies unpacked below `root`.

    Parameters
    ----------
    data : kit.data.registry.DataSet
    root : Path
        Holds the images and, if the archive had it, the file of outlines.
    manifest : pandas.DataFrame
        Columns image_id and bytes.

    Returns
    -------
    dict
        For ``dataset.json``: images and regions (numbers), shapes (kind -> number), other_files
        (images whose file is another one than the outlined, and which therefore have no mask),
        absent, sha256 of the file of outlines, fingerprint of the masks. Empty without outlines.
    """
    wanted = data.source.get("regions")
    if not wanted or not (root / wanted["file"]).is_file():
        return {}
    content = (root / wanted["file"]).read_bytes()
    folder = "/".join(part for part in (data.layout["all"], wanted["class"]) if part)
    lengths = dict(zip(manifest.image_id, manifest.bytes, strict=True))
    kinds: Counter[str] = Counter()
    lacking: Counter[str] = Counter()
    drawn = 0
    for name, (length, shapes) in sorted(read(content).items()):
        image_id = f"{folder}/{name}"
        if lengths.get(image_id) != length:
            lacking["other_files" if image_id in lengths else "absent"] += 1
            continue
        with Image.open(root / image_id) as image:
            mask = draw(shapes, *image.size)
        target = registry.mask_below(root, image_id)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask.astype(np.uint8) * 255).save(target)
        drawn += 1
        kinds.update(shape["name"] for shape in shapes)
    return {
        "images": drawn,
        "regions": kinds.total(),
        "shapes": dict(kinds),
        "other_files": lacking["other_files"],
        "absent": lacking["absent"],
        "sha256": hashlib.sha256(content).hexdigest(),
        "fingerprint": fingerprint(root),
    }


def fingerprint(root: Path) -> str:
    """SHA-256 over the names and files of all masks below `root`."""
    total = hashlib.sha256()
    for path in sorted((root / registry.MASKS).rglob("*.png")):
        total.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()
