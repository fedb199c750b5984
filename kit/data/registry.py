"""Data sets as data: ``kit/datasets.yml`` says what each one is, this module finds it on disk.

A data set lies in ``data_dir()/<name>`` in its source's own folder layout, beside the
``manifest.csv`` and ``dataset.json`` that its maker (``python -m data_prep`` for real sets,
:mod:`kit.data.phantom.sets` for embedded ones) wrote. Embedded sets are made on first use; real
ones are never fetched from here.
"""

import functools
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import yaml

from kit import files, paths
from kit.data.phantom import sets
from kit.errors import KitError

MASKS = "masks"
INDEX_COLUMNS = ["image_id", "split", "label", "class_name", "sha256"]


class UnknownDataSet(KitError):
    """No data set of that name is registered."""


class DatasetMissing(KitError):
    """A real data set has not been prepared."""


@dataclass(frozen=True)
class DataSet:
    """What is known of a data set before it is on disk.

    Attributes
    ----------
    name, title : str
    task : str
        ``"binary"`` or ``"multiclass"``.
    kind : str
        ``"images"`` or ``"volumes"``.
    classes : tuple of str
        Folder names in label order; label i is ``classes[i]``.
    display : tuple of str
        Names for tables and figures.
    layout : dict
        Split name -> folder below the root that holds one folder a class.
    counts : dict
        ``"<split folder>/<class>"`` -> number of images that the publications print; empty where
        none is printed.
    embedded : bool
        True for generated or bundled data, whose results are never compared with published ones.
    licence, citation, url, note : str
    stand_in_for : str or None
        The published data set in whose place this one is used.
    masks : str
        What the lesion masks of some or all images are; empty where there are none. See
        :func:`mask_file`.
    source : dict
        Download facts; used by ``data_prep`` only.
    """

    name: str
    title: str
    task: str
    kind: str
    classes: tuple
    display: tuple
    layout: dict
    counts: dict = field(default_factory=dict)
    embedded: bool = False
    licence: str = ""
    citation: str = ""
    url: str = ""
    note: str = ""
    stand_in_for: str | None = None
    masks: str = ""
    source: dict = field(default_factory=dict)


@functools.cache
def _entries() -> dict:
    return yaml.safe_load((paths.ROOT / "kit" / "datasets.yml").read_text(encoding="utf-8"))


def names() -> list[str]:
    """Names of all registered data sets, in the file's order."""
    return list(_entries())


def get(name: str) -> DataSet:
    """The registered data set `name`, or one's own that ``data_prep folder`` laid out.

    Raises
    ------
    UnknownDataSet
        If the name is neither registered nor a prepared folder.
    """
    entry = _entries().get(name)
    if entry is None:
        entry = files.read_json(root(name) / "dataset.json", default={}).get("entry")
    if entry is None:
        raise UnknownDataSet(
            f"No data set is called {name!r}; known are {', '.join(names())}, "
            f"and your own after `python -m data_prep folder --from DIR --name {name}`."
        )
    entry = dict(entry)
    classes = tuple(str(c) for c in entry.pop("classes"))
    display = tuple(entry.pop("display", None) or classes)
    known = {k: v for k, v in entry.items() if k in DataSet.__dataclass_fields__}
    return DataSet(name=name, classes=classes, display=display, **known)


def root(name: str) -> Path:
    """Folder of the data set `name`, there or not."""
    return paths.data_dir() / name


def mask_below(folder: Path | str, image_id: str) -> Path:
    """Where the lesion mask of an image lies below its data set's folder, there or not."""
    return sets.mask_path(folder, image_id)


def mask_file(name: str, image_id: str) -> Path | None:
    """Lesion mask of an image: an 8-bit PNG of the image's own size, 0 or 255.

    Parameters
    ----------
    name : str
        Registered data set of images.
    image_id : str
        Path of the image below the data set's root.

    Returns
    -------
    pathlib.Path or None
        None where nobody outlined a lesion in this image.
    """
    path = mask_below(root(name), image_id)
    return path if get(name).masks and path.is_file() else None


def ensure(name: str) -> Path:
    """Folder of a complete data set; embedded sets are made on first use.

    Raises
    ------
    DatasetMissing
        If a real data set has not been prepared; the sentence holds the command that does it.
    """
    data, folder = get(name), root(name)
    if (folder / "dataset.json").exists():
        return folder
    if not data.embedded:
        raise DatasetMissing(
            f"The data set {name} ({data.title}) is not in {paths.data_dir()}; "
            f"run `python -m data_prep {name} --to {paths.data_dir()}` (with --archive FILE if you "
            "have it)."
        )
    with files.FolderLock(paths.data_dir() / f".{name}.making", wait=300):
        if not (folder / "dataset.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            sets.write(name, folder)
    return folder


def facts(name: str) -> dict:
    """Content of ``dataset.json``: fingerprint, counts, what is missing, what it stands in for."""
    return files.read_json(ensure(name) / "dataset.json")


def index(name: str) -> pd.DataFrame:
    """One row an image, sorted by image id.

    Returns
    -------
    pandas.DataFrame
        Columns image_id (path below the root), split, label (int), class_name, sha256.
    """
    table = pd.read_csv(
        ensure(name) / "manifest.csv", dtype={"image_id": str, "class_name": str, "split": str}
    )
    return table[INDEX_COLUMNS].sort_values("image_id", kind="stable", ignore_index=True)


def caveats(name: str) -> list[str]:
    """What every result on this data set has to say: embedded, a stand-in, incomplete."""
    data, known = get(name), facts(name)
    lines = []
    if data.embedded:
        lines.append(f"embedded data ({data.title}), not comparable with published values")
    if known.get("stand_in_for"):
        lines.append(f"{data.title} in place of {known['stand_in_for']}")
    missing = known.get("incomplete") or []
    if missing:
        shown = ", ".join(missing[:4]) + (
            f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        )
        lines.append(f"incomplete copy, absent: {shown}")
    return lines
