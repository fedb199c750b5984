"""From the files of a source to the rows of a manifest: which member is which image of which class
in which split.

Four layouts occur: one folder a class (most sets), one folder and a table of labels (ISIC-2019),
fixed-length binary records (CIFAR) and NumPy archives of volumes (MedMNIST3D). The first two keep
the source's own layout; CIFAR records become BMP files, lossless and the same bytes on every
machine, in ``train/<class>/<position in the official order>.bmp``; volumes stay in their .npz.
"""

import csv
import hashlib
import io
import shutil
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from PIL import Image

from data_prep.archive import CorruptArchive, Source
from kit.data import registry
from kit.data.imageio import SUFFIXES
from kit.errors import KitError

COLUMNS = ["image_id", "split", "label", "class_name", "sha256", "bytes"]
SIDE = 32


class WrongArchive(KitError):
    """The archive is readable but holds another data set."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to unpack where.

    Attributes
    ----------
    targets : dict
        Member name -> path below the data set's root.
    labels : dict
        Path below the root -> (split, class), for every image that is known before unpacking.
    skipped : list of str
        Members that are no part of the set although they lie in its folders.
    source : data_prep.archive.Source or None
        Where the members come from.
    """

    targets: dict
    labels: dict = field(default_factory=dict)
    skipped: list = field(default_factory=list)
    source: Source | None = None


def class_folders(data: registry.DataSet) -> dict:
    """Folder below the root, as a tuple of names -> (split, class)."""
    nested = data.source.get("class_folders", {})
    return {
        tuple(part for part in f"{folder}/{nested.get(name, name)}".split("/") if part): (
            split,
            name,
        )
        for split, folder in data.layout.items()
        for name in data.classes
    }


def plan_folders(data: registry.DataSet, source: Source) -> Plan:
    """One folder a class, below whatever folders the archive wraps around them.

    Raises
    ------
    WrongArchive
        If none of the class folders is there.
    """
    folders, nested = class_folders(data), data.source.get("nested", False)
    found = {name: hit for name in source.members if (hit := _locate(name, folders))}
    tops = Counter(top for top, _, _ in found.values())
    if not tops:
        wanted = ", ".join("/".join(folder) for folder in list(folders)[:3])
        raise WrongArchive(
            f"{source.path} has no folders {wanted}, ...; it is not {data.name} ({data.title}) or "
            "has another layout."
        )
    best = max(tops, key=lambda top: (tops[top], -len(top)))
    plan = Plan(targets={})
    for name, (top, label, below) in found.items():
        if top != best:
            continue
        target = "/".join(PurePosixPath(name).parts[len(top) :])
        if (below > 1 and not nested) or not _is_image(name):
            plan.skipped.append(target)
        else:
            plan.targets[name], plan.labels[target] = target, label
    return plan


def _locate(name: str, folders: dict):
    """(folders above the class folder's path, (split, class), levels below it), or None."""
    parts = PurePosixPath(name).parts
    for start in range(len(parts)):
        for length in {len(folder) for folder in folders}:
            if len(parts) > start + length and parts[start : start + length] in folders:
                return (
                    parts[:start],
                    folders[parts[start : start + length]],
                    len(parts) - start - length,
                )
    return None


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not any(
        part.startswith((".", "__MACOSX")) for part in path.parts
    )


def plan_table(data: registry.DataSet, source: Source) -> Plan:
    """Images in one folder, classes in a one-hot CSV (ISIC-2019); both files are needed."""
    tables = [name for name in source.members if name.endswith(data.source["table"])]
    if not tables:
        raise WrongArchive(
            f"The labels {data.source['table']} are missing; give both files: --archive "
            f"{source.path} {data.source['table']}."
        )
    rows = csv.DictReader(io.StringIO(source.read(tables[0]).decode("utf-8-sig")))
    labels = {
        row["image"]: next((name for name in data.classes if float(row.get(name) or 0) == 1), None)
        for row in rows
    }
    folder = data.layout["all"]
    plan = Plan(targets={tables[0]: data.source["table"]})
    for name in source.members:
        if not _is_image(name):
            continue
        target = f"{folder}/{PurePosixPath(name).name}"
        if labels.get(PurePosixPath(name).stem):
            plan.targets[name], plan.labels[target] = (
                target,
                ("all", labels[PurePosixPath(name).stem]),
            )
        else:
            plan.skipped.append(target)
    if not plan.labels:
        raise WrongArchive(
            f"{source.path} holds none of the images of {data.source['table']}; it is not "
            f"{data.name}."
        )
    return plan


def plan_records(data: registry.DataSet, source: Source) -> Plan:
    """CIFAR: the official binary archive, or a copy with one folder a class."""
    files = {
        PurePosixPath(name).name: name
        for name in source.members
        if name.endswith((".bin", "label_names.txt"))
    }
    needed = [file for names in data.source["records"].values() for file in names]
    if not any(file in files for file in needed):
        return plan_folders(data, source)
    absent = [file for file in needed if file not in files]
    if absent:
        raise CorruptArchive(f"{source.path} lacks {', '.join(absent)}; fetch it again.")
    return Plan(targets={files[file]: f".records/{file}" for file in needed})


def expand_records(data: registry.DataSet, root: Path) -> dict:
    """Write the unpacked CIFAR records as images; returns path below the root -> (split, class)."""
    labels, skip = {}, data.source["label_bytes"]
    for split, files in data.source["records"].items():
        blocks = [np.fromfile(root / ".records" / file, np.uint8) for file in files]
        if any(block.size % (skip + 3 * SIDE * SIDE) for block in blocks):
            raise CorruptArchive(
                f"The records of {data.name} have an odd length; fetch the archive again."
            )
        records = np.concatenate(blocks).reshape(-1, skip + 3 * SIDE * SIDE)
        for position, record in enumerate(records):
            name = data.classes[record[skip - 1]]
            target = f"{data.layout[split]}/{name}/{position:05d}.bmp"
            labels[target] = (split, name)
            (root / target).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(record[skip:].reshape(3, SIDE, SIDE).transpose(1, 2, 0)).save(
                root / target
            )
    shutil.rmtree(root / ".records")
    return labels


def plan_volumes(data: registry.DataSet, source: Source) -> Plan:
    """MedMNIST3D: one .npz with the arrays <split>_images and <split>_labels."""
    files = [name for name in source.members if name.endswith(".npz")]
    if len(files) != 1:
        raise WrongArchive(
            f"{source.path} is no single .npz file; {data.name} comes as "
            f"{data.source['files'][0]['file']}."
        )
    return Plan(targets={files[0]: data.source["files"][0]["file"]})


def volumes_manifest(data: registry.DataSet, root: Path) -> pd.DataFrame:
    """One row a volume, image_id ``<split>/<index in the array, from 000000>``; sha256 over the
    volume's uint8 voxels in C order.

    Raises
    ------
    CorruptArchive
        If the file is no .npz of the expected arrays.
    WrongArchive
        If the volumes have another edge length.
    """
    path = root / data.source["files"][0]["file"]
    try:
        _check_length(data, path)
        with np.load(path, allow_pickle=False) as arrays:
            rows = [
                row
                for split in data.layout
                for row in _volume_rows(
                    data, split, arrays[f"{split}_images"], arrays[f"{split}_labels"]
                )
            ]
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise CorruptArchive(
            f"{path.name} is no MedMNIST3D file or is damaged ({error}); fetch it again."
        ) from error
    return pd.DataFrame(rows, columns=COLUMNS)


def _check_length(data, path: Path) -> None:
    """Refuse a file whose arrays are much larger than the published ones, before they are read into
    memory.
    """
    published = sum(data.counts.values()) * data.source["edge"] ** 3
    with zipfile.ZipFile(path) as file:
        length = sum(info.file_size for info in file.infolist())
    if published and length > 1.1 * published + (1 << 20):
        raise WrongArchive(
            f"{path.name} unpacks to {length / 1e6:,.0f} MB where {data.name} has "
            f"{published / 1e6:,.0f} MB; it is another file."
        )


def _volume_rows(data, split: str, volumes: np.ndarray, labels: np.ndarray):
    edge = data.source["edge"]
    if volumes.shape[1:] != (edge, edge, edge) or volumes.dtype != np.uint8:
        raise WrongArchive(
            f"{data.name} needs uint8 volumes of {edge} voxels a side, the file has "
            f"{volumes.dtype} {volumes.shape[1:]}; "
            "the 28 and the 64 voxel files are separate data sets (name and name-64)."
        )
    for index, (volume, label) in enumerate(zip(volumes, labels.ravel(), strict=True)):
        content = np.ascontiguousarray(volume)
        yield [
            f"{split}/{index:06d}",
            split,
            int(label),
            data.classes[label],
            hashlib.sha256(content.data).hexdigest(),
            content.nbytes,
        ]
