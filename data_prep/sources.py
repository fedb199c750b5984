"""What is known about the sources: checksums, complete lists of names, and what to do by hand when
the network says no.
"""

import csv
import functools
import gzip
import hashlib
from pathlib import Path

from kit.data import registry

MANIFESTS = Path(__file__).parent / "manifests"
BLOCK = 1 << 20


@functools.cache
def manifest(name: str) -> dict:
    """Image id -> SHA-256 (None where only the name is known), from a file of
    ``data_prep/manifests/``.

    Two kinds of file: ``*.csv.gz`` with the columns image_id, sha256; ``*.csv`` with folder,
    pattern, first, last for numbered names.
    """
    path = MANIFESTS / name
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if path.suffix == ".gz":
        return {row["image_id"]: row["sha256"] for row in rows}
    return {
        f"{row['folder']}/{row['pattern'] % number}": None
        for row in rows
        for number in range(int(row["first"]), int(row["last"]) + 1)
    }


def expected(data: registry.DataSet) -> dict:
    """Image id -> SHA-256 or None of the complete set; empty where no list of names is known."""
    return manifest(data.source["manifest"]) if data.source.get("manifest") else {}


def checksums(path: Path | str) -> dict:
    """SHA-256, MD5 and length of a file."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with Path(path).open("rb") as file:
        while block := file.read(BLOCK):
            sha256.update(block)
            md5.update(block)
    return {
        "bytes": Path(path).stat().st_size,
        "sha256": sha256.hexdigest(),
        "md5": md5.hexdigest(),
    }


def known_files(data: registry.DataSet) -> list[dict]:
    """Files that the source publishes (``files``) and other copies whose checksum is known
    (``copies``).
    """
    return data.source.get("files", []) + data.source.get("copies", [])


def same_file(found: dict, known: dict) -> bool | None:
    """Whether the `found` checksums are those of a `known` file; None where the source publishes
    none.
    """
    kinds = [kind for kind in ("sha256", "md5") if known.get(kind)]
    return all(found[kind] == known[kind] for kind in kinds) if kinds else None


def describe_file(known: dict) -> str:
    """One line about a file: name, length, checksum."""
    facts = [f"{known['bytes']:,} bytes"] if known.get("bytes") else []
    facts += [f"{kind.upper()} {known[kind]}" for kind in ("sha256", "md5") if known.get(kind)]
    return known["file"] + (
        f" ({', '.join(facts)})"
        if facts
        else " (no checksum is published; the content is checked by names and counts)"
    )


def instructions(data: registry.DataSet, to: Path | str) -> str:
    """What to do by hand: page, files, folder, checksum, and the command that follows."""
    source, lines = data.source, [f"To fetch {data.name} by hand:"]
    if source.get("kaggle"):
        handle, version = source["kaggle"].split("/versions/")
        lines.append(
            "  - on a machine with internet open "
            f"https://www.kaggle.com/datasets/{handle}/versions/{version} "
            f"(version {version}; a free account) and press Download: archive.zip"
        )
    if source.get("page"):
        lines.append(f"  - on a machine with internet open {source['page']}")
    lines += [
        f"  - download {describe_file(file)}" + (f" from {file['url']}" if file.get("url") else "")
        for file in source.get("files", [])
    ]
    lines += [
        f"  - a copy known to be good: {describe_file(copy)}, {copy['title']}"
        for copy in source.get("copies", [])
    ]
    names = [file["file"] for file in source.get("files", [])] or ["archive.zip"]
    there = " ".join(str(Path(to) / "downloads" / name) for name in names)
    lines += [
        f"  - put it into {Path(to) / 'downloads'} (or anywhere else)",
        f"  - run: python -m data_prep {data.name} --to {to} --archive {there}",
    ]
    lines += [
        f"  - or use the stand-in: python -m data_prep {name} --to {to}"
        for name in registry.names()
        if registry.get(name).stand_in_for == data.name
    ]
    return "\n".join(lines)
