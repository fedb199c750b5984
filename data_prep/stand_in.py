"""The Br35H-like set: what can be had of Br35H from the 7,023-image set, for work without Br35H
itself.

Difference from the paper: Br35H has 1,500 images without and 1,500 with a tumour. The former are,
image by image, part of the 7,023-image set (numbers 395 to 1594 of Training/notumor and 105 to 404
of Testing/notumor; what comes before is SARTAJ's). The latter are not available, so 500 images of
each of the three tumour classes (figshare and SARTAJ) take their place, drawn at random with a
fixed seed. The classes therefore come from different sources, and a classifier may live off that.
Near-twins are kept among the negatives, as Br35H has them, and avoided among the positives, where
no draw of the publication has to be matched.
"""

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data_prep import archive, ingest, layout, verify
from kit import files
from kit.data import duplicates, registry

SEED = 35
PER_CLASS = 500
BR35H_NUMBERS = {"Training": range(395, 1595), "Testing": range(105, 405)}
TUMOURS = ("glioma", "meningioma", "pituitary")


def make(
    data: registry.DataSet,
    to: Path | str,
    archives: Sequence[Path | str] = (),
    accept_incomplete: bool = False,
    say: Callable[[str], object] = print,
) -> dict:
    """Make the stand-in set from the prepared `nickparvar` in `to`, which is prepared first if need
    be.

    Parameters and result are those of :func:`data_prep.ingest.prepare`. What the origin lacks is
    passed on as ``incomplete``.
    """
    to = Path(to).expanduser().resolve()
    if (to / data.name / "dataset.json").exists():
        return ingest.prepare(data, to, say=say)
    origin = registry.get(data.source["derived_from"])
    facts = ingest.prepare(origin, to, archives, accept_incomplete, say)
    partial, root = to / f"{data.name}.partial", to / data.name
    try:
        with files.FolderLock(to / ".locks" / data.name):
            shutil.rmtree(partial, ignore_errors=True)
            result = _build(data, to / origin.name, facts, partial, say)
            partial.replace(root)
    except files.FolderBusy:
        raise ingest.PrepBusy(
            f"Another process is making {data.name} in {to}; wait until it has finished."
        ) from None
    except Exception as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise ingest.disk_error(error, to) from error
        raise
    return result


def _build(data, origin: Path, facts: dict, partial: Path, say) -> dict:
    listed = pd.read_csv(origin / "manifest.csv", dtype={"image_id": str, "class_name": str})
    negatives = [image_id for image_id in listed.image_id if is_br35h(image_id)]
    positives = tumours(listed, origin)
    archive.check_space(partial.parent, int(listed.bytes.sum()))
    labels = {}
    for name, chosen in (("no", negatives), ("yes", positives)):
        (partial / name).mkdir(parents=True)
        for image_id in chosen:
            target = f"{name}/{Path(image_id).name}"
            archive.link_or_copy(origin / image_id, partial / target)
            labels[target] = ("all", name)
    missing = [
        f"no/{Path(image_id).name}" for image_id in facts["incomplete"] if is_br35h(image_id)
    ]
    manifest, notes, _ = verify.images_manifest(data, partial, labels)
    verify.check_classes(data, labels.values())
    return ingest.write_facts(
        data,
        partial,
        manifest=manifest,
        labels=labels,
        origins=[],
        missing=missing,
        notes=notes,
        say=say,
        seed=SEED,
        made_from={"name": facts["name"], "fingerprint": facts["fingerprint"]},
    )


def is_br35h(image_id: str) -> bool:
    """Whether an image of the 7,023-image set is one of Br35H's images without a tumour."""
    split, name = image_id.split("/")[0], Path(image_id).name
    number = re.search(r"-no_(\d{4})\.jpg$", name)
    return number is not None and int(number[1]) in BR35H_NUMBERS.get(split, ())


def tumours(
    listed: pd.DataFrame, origin: Path, per_class: int = PER_CLASS, seed: int = SEED
) -> list[str]:
    """Random tumour images, `per_class` of each class, no two of them twins.

    Parameters
    ----------
    listed : pandas.DataFrame
        Manifest of the 7,023-image set.
    origin : Path
        Its folder.

    Returns
    -------
    list of str
        Sorted image ids; deterministic for a given manifest and seed. Twins are images in one
        near-duplicate group of :func:`kit.data.duplicates.duplicate_groups`, byte-identical files
        among them.

    Raises
    ------
    data_prep.layout.WrongArchive
        If a class has too few different images.
    """
    random, chosen, taken = np.random.default_rng(seed), [], set()
    rows = listed[listed.class_name.isin(TUMOURS)]
    group = dict(
        zip(
            rows.image_id,
            duplicates.duplicate_groups(rows, origin, level="near").near_group,
            strict=False,
        )
    )
    for name in TUMOURS:
        own: list = []
        for image_id in random.permutation(sorted(rows.image_id[rows.class_name == name])):
            if len(own) < per_class and group[image_id] not in taken:
                taken.add(group[image_id])
                own.append(str(image_id))
        if len(own) < per_class:
            raise layout.WrongArchive(
                f"{origin} has only {len(own)} different images of {name}, {per_class} are needed; "
                "prepare the complete set."
            )
        chosen += own
    return sorted(chosen)
