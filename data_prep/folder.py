"""One's own data: any folder of images with one folder a class, with or without a split, becomes a
data set that every notebook accepts.
"""

import re
from collections.abc import Callable
from pathlib import Path

from data_prep import archive, ingest, layout, verify
from kit import files
from kit.data import registry
from kit.data.imageio import SUFFIXES
from kit.errors import KitError

SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
}


class BadFolder(KitError):
    """The folder cannot be made into a data set."""


def register(
    origin: Path | str,
    name: str,
    to: Path | str,
    accept_incomplete: bool = False,
    say: Callable[[str], object] = print,
) -> dict:
    """Make the data set `name` from the folder `origin`, whose files are hard-linked or copied,
    never changed.

    Parameters
    ----------
    origin : path-like
        Holds one folder a class, or one folder a split (train, training, val, valid, validation,
        test, testing, in any case) that holds one folder a class. May be ``<to>/<name>`` itself.
    name : str
        Lower-case letters, digits and hyphens.
    to : path-like
        Folder of all data sets.
    accept_incomplete : bool
        Leave unreadable images out instead of refusing.

    Returns
    -------
    dict
        Content of ``dataset.json``; its ``entry`` is what the registry needs.

    Raises
    ------
    BadFolder
        If the name is taken or the folder has no such layout.
    """
    if not origin or not name:
        raise BadFolder(
            "One's own data needs both: python -m data_prep folder --from DIR --name my-set."
        )
    if (
        not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,60}", name)
        or name in registry.names()
        or name in ("folder", "downloads")
    ):
        raise BadFolder(
            f"The name {name!r} is taken or has other characters than a-z, 0-9 and hyphens; choose "
            "another one."
        )
    origin, to = Path(origin).expanduser().resolve(), Path(to).expanduser().resolve()
    data = describe(origin, name)
    if origin == to / name and not (origin / "dataset.json").exists():
        return _in_place(data, origin, to, accept_incomplete, say)
    return ingest.prepare(
        data, to, [origin], accept_incomplete, say=say, extra={"entry": entry(data)}
    )


def describe(origin: Path, name: str) -> registry.DataSet:
    """The registry entry that a folder amounts to.

    Raises
    ------
    BadFolder
        If there are fewer than two class folders, or the splits have different classes.
    """
    if not origin.is_dir():
        raise BadFolder(f"There is no folder {origin}; check --from.")
    tops = _folders(origin)
    splits = {
        SPLITS[top.lower()]: top for top in tops if top.lower() in SPLITS and _folders(origin / top)
    }
    layout_ = splits or {"all": ""}
    classes = sorted({child for folder in layout_.values() for child in _folders(origin / folder)})
    if len(classes) < 2 or (splits and "train" not in splits):
        raise BadFolder(
            f"{origin} has no two class folders{' in a folder train' if splits else ''}; lay it "
            f"out as {origin.name}/<class>/<image> "
            f"or {origin.name}/train/<class>/<image> and {origin.name}/test/<class>/<image>."
        )
    return registry.DataSet(
        name=name,
        title=name,
        task="binary" if len(classes) == 2 else "multiclass",
        kind="images",
        classes=tuple(classes),
        display=tuple(classes),
        layout=layout_,
        licence="one's own",
        source={"page": str(origin.name)},
    )


def entry(data: registry.DataSet) -> dict:
    """What ``kit.data.registry.get`` needs to know of one's own data set."""
    return {
        "title": data.title,
        "task": data.task,
        "kind": data.kind,
        "classes": list(data.classes),
        "layout": data.layout,
        "licence": data.licence,
    }


def from_entry(name: str, facts: dict) -> registry.DataSet:
    """The :class:`kit.data.registry.DataSet` of a prepared set of one's own, from the ``entry`` in
    its dataset.json.
    """
    return registry.DataSet(
        name=name,
        **facts | {"classes": tuple(facts["classes"]), "display": tuple(facts["classes"])},
    )


def _folders(path: Path) -> list[str]:
    return sorted(
        child.name
        for child in path.iterdir()
        if child.is_dir()
        and not child.name.startswith((".", "_"))
        and any(file.suffix.lower() in SUFFIXES or file.is_dir() for file in child.iterdir())
    )


def _in_place(data, root: Path, to: Path, accept_incomplete: bool, say) -> dict:
    """Register a folder that already lies where the kit looks; only manifest.csv and dataset.json
    are added.
    """
    with files.FolderLock(to / ".locks" / data.name):
        plan = layout.plan_folders(data, archive.FolderSource(root))
        verify.check_classes(data, plan.labels.values())
        manifest, notes, dropped = verify.images_manifest(
            data, root, plan.labels, accept_incomplete
        )
        labels = {image_id: plan.labels[image_id] for image_id in manifest.image_id}
        return ingest.write_facts(
            data,
            root,
            manifest=manifest,
            labels=labels,
            origins=[],
            missing=[f"{n} (unreadable)" for n in dropped],
            notes=notes,
            skipped=plan.skipped,
            say=say,
            entry=entry(data),
        )
