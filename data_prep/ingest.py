"""Make one data set: find the archive, verify, unpack, check, and move into place as a whole.

Everything happens in ``<name>.partial`` beside the target; the finished folder appears by one
rename, with ``dataset.json`` already in it. A process that is killed is continued by the next run,
an error leaves nothing behind, and two runs at once are kept apart by a lock.
"""

import errno
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from data_prep import archive, fetch, layout, regions, sources, verify
from kit import files, record
from kit.data import registry
from kit.errors import KitError

GIGABYTE = 1 << 30
PLANS = {
    "folders": layout.plan_folders,
    "table": layout.plan_table,
    "records": layout.plan_records,
    "volumes": layout.plan_volumes,
}


class TargetTaken(KitError):
    """The target folder holds something that data_prep did not make."""


class PrepBusy(KitError):
    """Another run makes the same data set."""


class ChecksumMismatch(KitError):
    """A file that its source publishes with a checksum has another one."""


def prepare(
    data: registry.DataSet,
    to: Path | str,
    archives: Sequence[Path | str] = (),
    accept_incomplete: bool = False,
    say: Callable[[str], object] = print,
    extra: dict | None = None,
    via: str | None = None,
) -> dict:
    """Make the data set `data` in ``<to>/<name>``.

    Parameters
    ----------
    data : kit.data.registry.DataSet
    to : path-like
        Folder of all data sets.
    archives : sequence of path-like
        Files (or one unpacked folder) to use; without any, ``<to>/downloads`` is looked into and
        then the network is asked.
    accept_incomplete : bool
        Go on with a copy that lacks images; what is absent is recorded.
    say : callable
        Receives one line a step.
    extra : dict, optional
        More entries for ``dataset.json``.
    via : {"files", "kaggle"}, optional
        The only route of the network to take; by default all that there are, in this order.

    Returns
    -------
    dict
        Content of ``dataset.json``.

    Raises
    ------
    KitError
        One of the classes of this package; nothing half-written is left behind.
    """
    to = Path(to).expanduser().resolve()
    root = to / data.name
    if (root / "dataset.json").exists():
        say(f"{data.name} is already in {root}; delete that folder to make it anew.")
        return files.read_json(root / "dataset.json")
    if root.is_dir() and any(root.iterdir()):
        raise TargetTaken(
            f"{root} exists and is no prepared data set; move it away or choose another folder "
            "with --to."
        )
    try:
        with files.FolderLock(to / ".locks" / data.name):
            return _prepare_locked(
                data,
                to,
                [Path(a).expanduser() for a in archives],
                accept_incomplete=accept_incomplete,
                say=say,
                extra=extra or {},
                via=via,
            )
    except files.FolderBusy:
        raise PrepBusy(
            f"Another process is making {data.name} in {to}; wait until it has finished."
        ) from None


def _prepare_locked(
    data, to: Path, archives: list, *, accept_incomplete: bool, say, extra: dict, via: str | None
) -> dict:
    partial, root = to / f"{data.name}.partial", to / data.name
    if (root / "dataset.json").exists():
        return files.read_json(root / "dataset.json")
    try:
        found, temporary = (archives, None) if archives else fetch.obtain(data, to, say, via)
        facts = _build(
            data, partial, found, accept_incomplete=accept_incomplete, say=say, extra=extra
        )
        partial.replace(root)
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise disk_error(error, to) from error
        raise
    if temporary:
        shutil.rmtree(temporary, ignore_errors=True)
    return facts


def disk_error(error: OSError, folder: Path | str) -> KitError:
    """The sentence for an error of the file system."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return archive.NoSpace(
            f"The disk of {folder} is full; free some space or choose another folder with --to."
        )
    return files.CannotWrite(
        f"Cannot read or write {error.filename or folder}: {error.strerror or error}; check the "
        "permissions or choose another folder with --to."
    )


def _build(
    data, partial: Path, archives: list, *, accept_incomplete: bool, say, extra: dict
) -> dict:
    origins = [_verify_file(data, path, say) for path in archives]
    limit = int(data.source.get("max_gb", 2) * GIGABYTE)
    opened = [archive.open_source(path, limit) for path in archives]
    source = opened[0] if len(opened) == 1 else archive.Bundle(opened)
    plan = replace(PLANS[data.source.get("format", "folders")](data, source), source=source)
    missing = []
    if plan.labels:
        verify.check_classes(data, plan.labels.values())
        missing = verify.absent(data, plan.labels)
        verify.refuse_incomplete(data, missing, accept_incomplete)
    outlines = regions.member(data, source)
    if outlines:
        plan.targets[outlines] = data.source["regions"]["file"]
    _begin(partial, origins)
    written = archive.unpack(source, plan.targets, partial)
    say(
        f"unpacked {written} of {len(plan.targets)} files"
        + (f", left out {', '.join(plan.skipped[:3])}" if plan.skipped else "")
    )
    return _finish(
        data,
        partial,
        plan,
        origins=origins,
        missing=missing,
        accept_incomplete=accept_incomplete,
        say=say,
        extra=extra,
    )


def _verify_file(data, path: Path, say) -> dict:
    """Checksums of an archive, compared with what the source publishes."""
    if path.is_dir():
        say(f"{path} is a folder: no checksum, the content is checked by names and counts")
        return {"file": path.name, "known": "folder"}
    if not path.is_file():
        raise archive.CorruptArchive(f"There is no file {path}; check the path.")
    found = sources.checksums(path) | {"file": path.name}
    for known in sources.known_files(data):
        if sources.same_file(found, known):
            say(
                f"{path.name}: checksum as expected "
                f"({known.get('title', 'as published by the source')})"
            )
            return found | {"known": known.get("title", "published by the source")}
    for known in data.source.get("files", []):
        if known["file"] == path.name and sources.same_file(found, known) is False:
            kind = "md5" if known.get("md5") else "sha256"
            raise ChecksumMismatch(
                f"{path} has {kind.upper()} {found[kind]}, {data.name} needs {known[kind]}; the "
                "download is damaged or another version, fetch it again."
            )
    say(
        f"{path.name}: no checksum is known for this file (SHA-256 {found['sha256']}); checking "
        "names and counts"
    )
    return found | {"known": None}


def _begin(partial: Path, origins: list) -> None:
    """An empty working folder, or the one that a killed run with the same archives left."""
    mark = partial / ".origin.json"
    same = files.read_json(mark, default=None) == origins and all(
        origin["known"] != "folder" for origin in origins
    )
    if partial.exists() and not same:
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    files.write_json(mark, origins)
    for leftover in partial.rglob(".tmp-*"):
        leftover.unlink()


def _finish(
    data,
    partial: Path,
    plan,
    *,
    origins: list,
    missing: list,
    accept_incomplete: bool,
    say,
    extra: dict,
) -> dict:
    notes: dict = {}
    dropped: list = []
    if data.kind == "volumes":
        manifest = layout.volumes_manifest(data, partial)
        labels = dict(
            zip(
                manifest.image_id,
                zip(manifest.split, manifest.class_name, strict=False),
                strict=False,
            )
        )
    else:
        labels = plan.labels or layout.expand_records(data, partial)
        manifest, notes, dropped = verify.images_manifest(data, partial, labels, accept_incomplete)
        labels = {image_id: labels[image_id] for image_id in manifest.image_id}
        for name in dropped:
            (partial / name).unlink()
    verify.check_classes(data, labels.values())
    missing = missing if plan.labels else verify.absent(data, labels)
    verify.refuse_incomplete(data, missing, accept_incomplete)
    if data.source.get("regions"):
        notes |= regions.copies(data, plan.source, set(manifest.sha256))
        extra = extra | {"masks": regions.write(data, partial, manifest)}
    (partial / ".origin.json").unlink()
    return write_facts(
        data,
        partial,
        manifest=manifest,
        labels=labels,
        origins=origins,
        missing=missing + [f"{name} (unreadable)" for name in dropped],
        notes=notes,
        skipped=plan.skipped,
        say=say,
        **extra,
    )


def write_facts(  # noqa: PLR0913  one argument a fact
    data: registry.DataSet,
    folder: Path,
    *,
    manifest: pd.DataFrame,
    labels: dict,
    origins: list,
    missing: list,
    notes: dict,
    skipped: Sequence[str] = (),
    say: Callable[[str], object] = print,
    **more: Any,
) -> dict:
    """Write manifest.csv and, last, dataset.json; returns the content of the latter."""
    files.write_csv(folder / "manifest.csv", manifest.sort_values("image_id", kind="stable"))
    facts = {
        "name": data.name,
        "title": data.title,
        "embedded": False,
        "source": data.source.get("kaggle") or data.source.get("page") or data.url,
        "fingerprint": record.fingerprint(manifest),
        "counts": verify.count(data, labels.values()),
        "incomplete": missing,
        "made_by": "data_prep",
        "stand_in_for": data.stand_in_for,
        "archives": origins,
        "checked": verify.compare_bytes(data, manifest),
        "notes": notes,
        "skipped": list(skipped),
        **more,
    }
    say(f"{len(manifest)} {data.kind} in {len(facts['counts'])} groups; {facts['checked']}")
    for note, number in notes.items():
        say(f"  {number} images: {note}")
    if more.get("masks"):
        say(f"  {more['masks']['images']} images have a lesion mask")
    if missing:
        say(f"INCOMPLETE, and every result will say so: {verify.shown(missing)}")
    files.write_json(folder / "dataset.json", facts)
    return facts


def data_set(name: str) -> registry.DataSet:
    """The registered real data set `name`.

    Raises
    ------
    kit.data.registry.UnknownDataSet
        If there is none, or it is embedded and needs no preparation.
    """
    data = registry.get(name)
    if data.embedded:
        raise registry.UnknownDataSet(
            f"{name} is embedded and makes itself on first use; data_prep is for "
            f"{', '.join(real_names())}."
        )
    return data


def real_names() -> list[str]:
    """Names of the registered data sets that have to be prepared."""
    return [name for name in registry.names() if not registry.get(name).embedded]
