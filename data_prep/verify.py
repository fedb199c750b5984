"""Is it the published data set, whole and readable? Names, class counts, checksums, and every
single image.

Three findings, from harmless to fatal: bytes that differ from a known copy (recorded), images that
are absent or unreadable (refused unless accepted, then shown in every result), and images or
classes that the set does not have (refused).
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from data_prep import regions, sources
from data_prep.layout import COLUMNS, WrongArchive
from kit import files, record
from kit.data import imageio, registry
from kit.errors import KitError

NAMED = 20


class IncompleteSet(KitError):
    """Images of the published set are absent."""


class EmptyClass(KitError):
    """A class has no image at all, in one of the splits or altogether."""


class BadImages(KitError):
    """Some images cannot be read."""


class DamagedSet(KitError):
    """A prepared data set has changed since it was made."""


def folder_of(data: registry.DataSet, split: str, name: str) -> str:
    """Key of a class in ``counts``: "<split folder>/<class>", or the split for volumes."""
    return split if data.kind == "volumes" else f"{data.layout[split]}/{name}".strip("/")


def count(data: registry.DataSet, labels: Iterable[tuple[str, str]]) -> dict:
    """Images per class folder (volumes: per split), in the layout's order, classes without images
    included.
    """
    found = Counter(folder_of(data, split, name) for split, name in labels)
    keys = dict.fromkeys(
        folder_of(data, split, name) for split in data.layout for name in data.classes
    )
    return {key: found.get(key, 0) for key in keys}


def published_counts(data: registry.DataSet) -> dict:
    """``counts`` of the registry entry, or ``source: each`` (one number a split) spelt out."""
    each = data.source.get("each", {})
    return data.counts or {
        folder_of(data, split, name): number
        for split, number in each.items()
        for name in data.classes
    }


def check_classes(data: registry.DataSet, labels: Iterable[tuple[str, str]]) -> None:
    """Refuse a class without images.

    Raises
    ------
    EmptyClass
        Naming the folder.
    """
    found = Counter(labels)
    for split, folder in data.layout.items():
        empty = [name for name in data.classes if not found[(split, name)]]
        if empty:
            where = (
                f"{folder or 'the folder of the set'} ({split})"
                if len(data.layout) > 1
                else data.name
            )
            raise EmptyClass(
                f"{data.name} has no image of {', '.join(empty)} in {where}; every class needs "
                "images in every split."
            )


def absent(data: registry.DataSet, labels: dict) -> list[str]:
    """What the published set has and this copy lacks.

    Parameters
    ----------
    data : kit.data.registry.DataSet
    labels : dict
        Image id -> (split, class).

    Returns
    -------
    list of str
        Image ids where the names are known and at most 20 a folder are absent, else "<folder>: 4000
        of 5000 absent".

    Raises
    ------
    WrongArchive
        If there are images that the published set does not have.
    """
    names = sources.expected(data)
    if names:
        return _absent_names(data, labels, names)
    found, lines = count(data, labels.values()), []
    for key, published in published_counts(data).items():
        allowed = {published, data.source.get("counts_also", {}).get(key, published)}
        if found.get(key, 0) > max(allowed):
            raise _wrong(data, key, found.get(key, 0), published)
        if found.get(key, 0) not in allowed:
            lines.append(f"{key}: {published - found.get(key, 0)} of {published} absent")
    return lines


def _wrong(data, key: str, found: int, published: int) -> WrongArchive:
    return WrongArchive(
        f"{key} holds {found} images where {data.name} has {published}; this is another version of "
        "the set, "
        f"fetch {data.source.get('kaggle') or 'the one that data_prep names'}."
    )


def _absent_names(data, labels: dict, names: dict) -> list[str]:
    found = count(data, labels.values())
    for key, published in data.counts.items():
        if found.get(key, 0) > published:
            raise _wrong(data, key, found.get(key, 0), published)
    foreign = sorted(set(labels) - set(names))
    if foreign and found == data.counts:
        return []  # a renamed copy; compare_bytes says how much of it is known
    if foreign:
        raise WrongArchive(
            f"{len(foreign)} images have names that {data.name} does not have, {foreign[0]} first; "
            "this is another version of the set."
        )
    missing = sorted(set(names) - set(labels))
    total, lacking = (
        Counter(name.rpartition("/")[0] for name in names),
        Counter(name.rpartition("/")[0] for name in missing),
    )
    many = [
        f"{folder}: {number} of {total[folder]} absent"
        for folder, number in lacking.items()
        if number > NAMED
    ]
    return [name for name in missing if lacking[name.rpartition("/")[0]] <= NAMED] + many


def refuse_incomplete(data: registry.DataSet, missing: list, accepted: bool) -> None:
    """Raise :class:`IncompleteSet` unless nothing is missing or it was accepted."""
    if missing and not accepted:
        raise IncompleteSet(
            f"This copy of {data.name} is incomplete, absent: {shown(missing)}; fetch a complete "
            "one, or add --accept-incomplete "
            "to go on without them (every result will say so)."
        )


def shown(names: list, most: int = 5) -> str:
    """The first few of a list in words."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def images_manifest(
    data: registry.DataSet, root: Path, labels: dict, accept_bad: bool = False
) -> tuple[pd.DataFrame, dict, list]:
    """Decode every image and list it.

    Parameters
    ----------
    labels : dict
        Image id -> (split, class).
    accept_bad : bool
        Leave unreadable images out of the manifest instead of refusing the set.

    Returns
    -------
    manifest : pandas.DataFrame
        Columns image_id, split, label, class_name, sha256, bytes; sorted by image_id.
    notes : dict
        Remark -> number of images, as "palette", "named .jpg but PNG", "3024 x 3024 pixels" where a
        size is rare.
    dropped : list of str
        Unreadable images, not in the manifest.

    Raises
    ------
    BadImages
        Naming the first unreadable ones.
    """
    ids = sorted(labels)
    facts, bad = imageio.inspect_all(root / image_id for image_id in ids)
    if bad and not accept_bad:
        first = " ".join(list(bad.values())[:3]).replace(f"{root}/", "")
        raise BadImages(
            f"{len(bad)} of {len(ids)} images of {data.name} cannot be used: {first} "
            "(--accept-incomplete leaves them out, and every result says so.)"
        )
    rows = [
        [
            image_id,
            *labels[image_id][:1],
            data.classes.index(labels[image_id][1]),
            labels[image_id][1],
            fact.sha256,
            fact.bytes,
        ]
        for image_id, fact in zip(ids, facts, strict=False)
        if fact
    ]
    notes = Counter(note for fact in facts if fact for note in fact.notes)
    digests = Counter(row[4] for row in rows)
    if again := sum(number - 1 for number in digests.values()):
        notes["byte for byte another image of the set"] = again
    sizes = Counter((fact.width, fact.height) for fact in facts if fact)
    common = sizes.most_common(1)[0] if sizes else ((0, 0), 0)
    if common[1] > 0.9 * len(ids):
        notes.update(
            {
                f"{w} x {h} pixels": n
                for (w, h), n in sizes.items()
                if (w, h) != common[0] and n <= NAMED
            }
        )
    return (
        pd.DataFrame(rows, columns=COLUMNS),
        dict(notes),
        [path.relative_to(root).as_posix() for path in bad],
    )


def compare_bytes(data: registry.DataSet, manifest: pd.DataFrame) -> str:
    """One line on how the bytes compare with the checksummed manifest of a known copy."""
    known = {image_id: digest for image_id, digest in sources.expected(data).items() if digest}
    fingerprint = record.fingerprint(manifest)
    for copy in sources.known_files(data):
        if copy.get("fingerprint") == fingerprint:
            return f"every image is that of a known copy ({copy.get('title', copy['file'])})"
    if not known:
        return "no checksums of single images are known; names and counts were checked"
    equal = sum(
        known.get(image_id) == digest
        for image_id, digest in zip(manifest.image_id, manifest.sha256, strict=False)
    )
    return f"{equal} of {len(manifest)} images are byte for byte those of the checksummed manifest"


def check_prepared(data: registry.DataSet, root: Path) -> int:
    """Compare a prepared set with its own manifest; returns the number of images.

    Raises
    ------
    DamagedSet
        Naming the first files that are absent, changed or new.
    """
    from data_prep.layout import volumes_manifest

    listed = pd.read_csv(
        root / "manifest.csv", dtype={"image_id": str, "sha256": str, "class_name": str}
    )
    if data.kind == "volumes":
        now = dict(
            zip(*volumes_manifest(data, root)[["image_id", "sha256"]].T.to_numpy(), strict=False)
        )
    else:
        now = {
            image_id: sources.checksums(root / image_id)["sha256"]
            for image_id in listed.image_id
            if (root / image_id).is_file()
        }
    wrong = [
        image_id
        for image_id, digest in zip(listed.image_id, listed.sha256, strict=False)
        if now.get(image_id) != digest
    ]
    facts = files.read_json(root / "dataset.json")
    if facts.get("masks") and regions.fingerprint(root) != facts["masks"]["fingerprint"]:
        wrong.append("masks")
    if record.fingerprint(listed) != facts["fingerprint"]:
        wrong.insert(0, "manifest.csv")
    if wrong:
        raise DamagedSet(
            f"{len(wrong)} files of {root} are absent or have changed, {', '.join(wrong[:3])} "
            f"first; delete the folder and prepare {data.name} again."
        )
    return len(listed)
