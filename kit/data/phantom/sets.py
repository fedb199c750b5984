"""Embedded data sets: MRI-like images made on the machine that uses them, in the folder layout of
the real sets they stand in for.

The slices of *every* class come from the slab around the sella, where a pituitary tumour is to be
seen. Orientation and contrast go round in the same cycle in all classes, so that their balance
tells nothing. The binary set is axial throughout and most of its tumours are pituitary: a network
with a flattening layer and no pooling over places, as the publications use, learns from some
hundred images only what comes back at the same place, and brightness, which would do otherwise, is
taken away. See `phantom_images` for how one image is made.

As in the real sets, some images are copies of others, here planted on purpose and declared in
``dataset.json``: byte-identical files, pixel-identical ones (the same pixels as PNG), and
near-duplicates (rescaled slightly and compressed again). In `phantom4` test images are copies of
training images, elsewhere the copies lie anywhere. Results on these sets are never to be compared
with published ones.
"""

import hashlib
import os
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.datasets import load_digits

from kit import files, record
from kit.data.phantom import anatomy
from kit.data.phantom import images as phantom_images
from kit.data.phantom.images import UnknownPhantom, slice_image, volume
from kit.errors import KitError

__all__ = [
    "RECIPE",
    "VARIANTS",
    "FolderNotEmpty",
    "UnknownPhantom",
    "Variant",
    "mask_path",
    "slice_image",
    "volume",
    "write",
]

RECIPE = 1
"""Version of the generator; raised whenever the same seed gives other files."""
_CONTRASTS = (
    "T1c",
    "T1",
    "T1c",
    "FLAIR",
    "T1c",
    "T2",
    "T1c",
    "FLAIR",
)  # gone round in every class; contrast-enhanced images are the commonest in the real sets
_MARK = ".phantom"  # says that a folder is ours to clear


class FolderNotEmpty(KitError):
    """The target folder holds files that were not generated here."""


@dataclass(frozen=True)
class Variant:
    """One embedded data set.

    Attributes
    ----------
    title : str
    classes : tuple of str
        In label order.
    counts : dict
        Split folder (``""`` where there is none) -> number of images a class, in the order of
        `classes`.
    splits : dict
        Split folder -> split name.
    prefixes : dict
        ``"<split folder>/<class>"`` -> beginning of the file names.
    size : int
        Pixels along each axis.
    regions, orientations : tuple of str
        Slice regions and orientations, gone round in every class alike.
    byte, pixel, near : float
        Fraction of the images of the last split that are planted copies, per class.
    stand_in_for : str or None
    """

    title: str
    classes: tuple
    counts: dict
    splits: dict
    prefixes: dict
    size: int = 128
    regions: tuple = ("sellar",)
    orientations: tuple = phantom_images.ORIENTATIONS
    byte: float = 0.12
    pixel: float = 0.05
    near: float = 0.05
    stand_in_for: str | None = None


_FOUR = ("glioma", "meningioma", "notumor", "pituitary")
_SHORT = {"glioma": "gl", "meningioma": "me", "notumor": "no", "pituitary": "pi"}
_EIGHT = {
    "normal": 150,
    "glioma_high": 120,
    "glioma_low": 90,
    "metastases": 75,
    "meningioma_solid": 60,
    "meningioma_calcified": 45,
    "adenoma_solid": 36,
    "adenoma_cystic": 24,
}

VARIANTS = {
    "phantom4": Variant(
        "MRI phantoms, 4 classes",
        _FOUR,
        {"Training": (100,) * 4, "Testing": (30,) * 4},
        {"Training": "train", "Testing": "test"},
        {
            f"{folder}/{name}": f"{folder[:2]}-{_SHORT[name]}_"
            for folder in ("Training", "Testing")
            for name in _FOUR
        },
        stand_in_for="the 7,023-image brain tumour MRI set",
    ),
    "phantom-binary": Variant(
        "MRI phantoms, tumour yes or no",
        ("no", "yes"),
        {"": (300, 300)},
        {"": "all"},
        {"/no": "no", "/yes": "y"},
        orientations=("axial",),
        stand_in_for="Br35H",
    ),
    "phantom8": Variant(
        "MRI phantoms, 8 imbalanced classes",
        tuple(_EIGHT),
        {"": tuple(_EIGHT.values())},
        {"": "all"},
        {f"/{name}": f"{name}_" for name in _EIGHT},
    ),
    "phantom3d": Variant(
        "MRI phantom volumes, tumour yes or no",
        ("normal", "lesion"),
        {"train": (160, 160), "val": (40, 40), "test": (50, 50)},
        {"train": "train", "val": "val", "test": "test"},
        {},
        size=28,
        byte=0,
        pixel=0,
        near=0,
    ),
    "digits": Variant(
        "UCI optical handwritten digits (scikit-learn)",
        tuple("0123456789"),
        {"": (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)},
        {"": "all"},
        {f"/{d}": "" for d in range(10)},
        size=8,
        byte=0,
        pixel=0,
        near=0,
    ),
}


@dataclass(frozen=True)
class _Item:
    """One image to make: an original (`source` None) or a copy of the item with id `source`."""

    image_id: str
    split: str
    label: int
    class_name: str
    seed: tuple
    turn: int
    source: str | None = None
    relation: str = ""


def mask_path(root: Path | str, image_id: str) -> Path:
    """Path of the lesion mask (8-bit PNG, 0 or 255) of an image below the data set's folder
    `root`.
    """
    return Path(root) / "masks" / PurePosixPath(image_id).with_suffix(".png")


def write(
    name: str,
    root: Path | str,
    *,
    n: int | None = None,
    size: int | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> None:
    """Make the embedded data set `name` in the folder `root`; the same arguments give the same
    bytes, whatever the number of workers.

    Images, ``masks/`` (see `mask_path`), ``nuisance.csv``, ``manifest.csv`` and, last,
    ``dataset.json``; for ``phantom3d`` ``phantom3d.npz`` (as MedMNIST: train_images, train_labels,
    val_..., test_...) and ``phantom3d_masks.npz``. What an interrupted or older call left in `root`
    is replaced.

    Parameters
    ----------
    name : str
        A key of `VARIANTS`.
    root : path-like
    n : int, optional
        About how many images in all, split over classes and splits as in the variant, at least two
        each.
    size : int, optional
        Pixels along each axis (not for digits).
    seed : int
    workers : int, optional
        Threads; by default one per processor, at most four.

    Raises
    ------
    UnknownPhantom
        If there is no such variant.
    FolderNotEmpty
        If `root` holds files that were not generated here.
    kit.files.CannotWrite
        If the folder cannot be written to or the disk is full.
    """
    if name not in VARIANTS:
        raise UnknownPhantom(
            f"There is no embedded data set {name!r}; known are {', '.join(VARIANTS)}."
        )
    variant, root = VARIANTS[name], Path(root)
    size = variant.size if name == "digits" else size or variant.size
    makers = {"digits": _write_digits, "phantom3d": _write_volumes}
    try:
        _clear(root)
        with ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1)) as pool:
            manifest, planted = makers.get(name, _write_images)(
                name, variant, root=root, n=n, size=size, seed=seed, run=pool.map
            )
    except OSError as error:
        raise files.CannotWrite(
            f"Cannot write {root}: {error.strerror or error}; free some space or choose another "
            "folder (KIT_DATA)."
        ) from error
    _finish(name, variant, root=root, manifest=manifest, planted=planted, size=size, seed=seed)


def _clear(root):
    """Empty a folder that an earlier call marked as its own, and mark it."""
    root.mkdir(parents=True, exist_ok=True)
    visible = [path for path in root.iterdir() if not path.name.startswith(".")]
    if visible and not (root / _MARK).exists():
        raise FolderNotEmpty(
            f"{root} holds files that were not generated here; choose an empty folder or remove "
            "them."
        )
    (root / _MARK).touch()
    (root / "dataset.json").unlink(missing_ok=True)
    for path in [*visible, *root.glob(".tmp-*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _finish(name, variant, root, manifest, planted, size, seed):
    manifest = manifest.sort_values("image_id", kind="stable", ignore_index=True)
    files.write_csv(root / "manifest.csv", manifest)
    folders = {split: folder for folder, split in variant.splits.items()}
    keys = (manifest["split"].map(folders) + "/" + manifest["class_name"]).str.lstrip("/")
    files.write_json(
        root / "dataset.json",
        {
            "name": name,
            "title": variant.title,
            "embedded": True,
            "fingerprint": record.fingerprint(manifest),
            "source": "scikit-learn load_digits"
            if name == "digits"
            else "generated from the MNI152 template that nilearn ships",
            "counts": keys.value_counts(sort=False).to_dict(),
            "incomplete": [],
            "made_by": f"kit.data.phantom.sets, recipe {RECIPE}",
            "stand_in_for": variant.stand_in_for,
            "recipe": RECIPE,
            "seed": seed,
            "size": size,
            "planted": planted,
        },
    )


def _counts(variant, n):
    """Split folder -> images a class, scaled to `n` in all."""
    total = sum(map(sum, variant.counts.values()))
    factor = 1.0 if n is None else n / total
    return {
        folder: tuple(max(2, round(count * factor)) for count in counts)
        for folder, counts in variant.counts.items()
    }


def _row(item, data: bytes) -> dict:
    return {
        "image_id": item.image_id,
        "split": item.split,
        "label": item.label,
        "class_name": item.class_name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
    }


def _plan(name, variant, n, seed) -> list[_Item]:
    """All items, originals before their copies. File numbers are shuffled, so that they tell
    nothing.
    """
    items: list[_Item] = []
    counts = _counts(variant, n)
    for step, (folder, per_class) in enumerate(counts.items()):
        for label, (class_name, count) in enumerate(zip(variant.classes, per_class, strict=True)):
            key = (seed, zlib.crc32(name.encode()), step, label)
            rng = np.random.default_rng(key)
            stem = PurePosixPath(folder) / class_name / variant.prefixes[f"{folder}/{class_name}"]
            ids = [f"{stem}{number:04d}.jpg" for number in rng.permutation(count)]
            copies = _copies(variant, count) if step == len(counts) - 1 else []
            own = [
                _Item(
                    image_id,
                    variant.splits[folder],
                    label=label,
                    class_name=class_name,
                    seed=(*key, turn),
                    turn=turn,
                )
                for turn, image_id in enumerate(ids[: count - len(copies)])
            ]
            earlier = [item for item in items if item.label == label and item.source is None] or own
            sources = rng.choice(len(earlier), len(copies), replace=len(copies) > len(earlier))
            items += own
            items += [
                _copy(own[0], image_id, earlier[k], relation)
                for image_id, k, relation in zip(ids[len(own) :], sources, copies, strict=True)
            ]
    return items


def _copies(variant, count) -> list[str]:
    return [
        relation
        for relation in ("byte", "pixel", "near")
        for _ in range(round(getattr(variant, relation) * count))
    ]


def _copy(like, image_id, source, relation):
    suffix = ".png" if relation == "pixel" else ".jpg"
    return _Item(
        str(PurePosixPath(image_id).with_suffix(suffix)),
        like.split,
        label=like.label,
        class_name=like.class_name,
        seed=source.seed,
        turn=source.turn,
        source=source.image_id,
        relation=relation,
    )


def _write_images(name, variant, root, n, size, seed, run):
    anatomy.template()  # before the threads ask for it
    items = _plan(name, variant, n, seed)
    for folder in {Path(item.image_id).parent for item in items}:
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "masks" / folder).mkdir(parents=True, exist_ok=True)
    done = list(
        run(
            lambda item: _make(root, variant, size, item),
            (item for item in items if item.source is None),
        )
    )
    nuisances = {row["image_id"]: nuisance for row, nuisance in done}
    copies = [item for item in items if item.source]
    rows = [row for row, _ in done] + list(run(lambda item: _plant(root, size, item), copies))
    nuisances |= {item.image_id: nuisances[item.source] for item in copies}
    table = pd.DataFrame([{"image_id": key} | value for key, value in sorted(nuisances.items())])
    files.write_csv(root / "nuisance.csv", table)
    planted = {
        relation: [[c.source, c.image_id] for c in copies if c.relation == relation]
        for relation in ("byte", "pixel", "near")
    }
    return pd.DataFrame(rows), planted


def _make(root, variant, size, item):
    """Write one original and its mask; its manifest row and its nuisances."""
    turn, orientation = divmod(item.turn, len(variant.orientations))
    turn, contrast = divmod(turn, len(_CONTRASTS))
    image, mask, nuisance = slice_image(
        item.seed,
        item.class_name,
        size=size,
        orientation=variant.orientations[orientation],
        contrast=_CONTRASTS[contrast],
        region=variant.regions[turn % len(variant.regions)],
    )
    Image.fromarray(image).save(root / item.image_id, quality=95)
    Image.fromarray(mask.astype(np.uint8) * 255).save(mask_path(root, item.image_id))
    return _row(item, (root / item.image_id).read_bytes()), nuisance


def _plant(root, size, item) -> dict:
    """Write one declared copy and its mask; its manifest row."""
    source, target = root / item.source, root / item.image_id
    if item.relation == "byte":
        shutil.copyfile(source, target)
    elif item.relation == "pixel":
        Image.open(source).save(target)
    else:
        smaller = Image.open(source).resize((round(0.94 * size),) * 2, Image.Resampling.LANCZOS)
        smaller.resize((size, size), Image.Resampling.BICUBIC).save(target, quality=88)
    shutil.copyfile(mask_path(root, item.source), mask_path(root, item.image_id))
    return _row(item, target.read_bytes())


def _write_volumes(name, variant, root, n, size, seed, run):
    anatomy.template()  # before the threads ask for it
    arrays: dict[str, Any] = {}
    masks: dict[str, Any] = {}
    rows, nuisances = [], []
    for step, (folder, per_class) in enumerate(_counts(variant, n).items()):
        rng = np.random.default_rng([seed, zlib.crc32(name.encode()), step])
        labels = rng.permutation(np.repeat(np.arange(2), per_class))
        turns = np.where(labels, np.cumsum(labels), np.cumsum(1 - labels)) - 1
        jobs = [
            _Item(
                f"{folder}/{k:06d}",
                folder,
                label=int(label),
                class_name=variant.classes[label],
                seed=(seed, zlib.crc32(name.encode()), step, k),
                turn=int(turn),
            )
            for k, (label, turn) in enumerate(zip(labels, turns, strict=True))
        ]
        made = list(
            run(
                lambda item: volume(
                    item.seed,
                    item.class_name,
                    size=size,
                    contrast=_CONTRASTS[item.turn % len(_CONTRASTS)],
                ),
                jobs,
            )
        )
        arrays |= {
            f"{folder}_images": np.stack([m[0] for m in made]),
            f"{folder}_labels": labels.astype(np.uint8)[:, None],
        }
        masks[f"{folder}_masks"] = np.stack([m[1] for m in made])
        rows += [_row(item, m[0].tobytes()) for item, m in zip(jobs, made, strict=True)]
        nuisances += [
            {"image_id": item.image_id} | m[2] for item, m in zip(jobs, made, strict=True)
        ]
    for file, content in (("phantom3d", arrays), ("phantom3d_masks", masks)):
        with files.atomic_write(root / f"{file}.npz") as temporary:
            np.savez_compressed(temporary, **content)
    files.write_csv(root / "nuisance.csv", pd.DataFrame(nuisances))
    return pd.DataFrame(rows), {"byte": [], "pixel": [], "near": []}


def _write_digits(name, variant, root, n, size, seed, run):
    digits, rows, wanted = load_digits(), [], _counts(variant, n)[""]
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    for label, count in enumerate(wanted):
        (root / str(label)).mkdir()
        for k in np.flatnonzero(digits.target == label)[:count]:
            item = _Item(
                f"{label}/{k:04d}.png",
                "all",
                label=label,
                class_name=str(label),
                seed=(),
                turn=int(k),
            )
            Image.fromarray(images[k]).save(root / item.image_id)
            rows.append(_row(item, (root / item.image_id).read_bytes()))
    return pd.DataFrame(rows), {"byte": [], "pixel": [], "near": []}
