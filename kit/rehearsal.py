"""A rehearsal: everything that a profile would run, with one optimiser step a training.

Days on a GPU should not end at a misspelt layer. Under ``run_all.sh --rehearse`` the notebooks run
with the published sizes and settings, but each training sees one batch twice (once to trace, once
to time) and predicts a few images a class; what the whole training would take is written down. The
seam is where trainings begin (:func:`kit.training.train.fit`, :class:`kit.training.short.Trainer`),
so no notebook and no study knows of it.
"""

import os
from pathlib import Path

import numpy as np

from kit import files, paths

PROFILE = "rehearsal"
SIGN = "KIT_REHEARSAL"
PREDICTED = 2  # images a class


def active() -> bool:
    """Whether this process rehearses."""
    return os.environ.get(SIGN, "0") not in ("", "0")


def notebook() -> str:
    """Name of the notebook that this process runs, or "alone"."""
    return os.environ.get("KIT_NOTEBOOK") or "alone"


def folder() -> Path:
    """``results/rehearsal``."""
    return paths.results_dir() / PROFILE


def few(labels: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Some of the given rows, every class as often as there is room.

    Parameters
    ----------
    labels : numpy.ndarray
        (N,) classes of all images.
    rows : numpy.ndarray
        Row numbers to choose from.
    count : int
        How many; all if there are not more.

    Returns
    -------
    numpy.ndarray
        In the order of `rows`; the first of each class, then the second, and so on.
    """
    rows = np.asarray(rows)
    own = np.asarray(labels)[rows]
    turn = np.empty(len(rows), int)
    for label in np.unique(own):
        turn[own == label] = np.arange((own == label).sum())
    return rows[np.sort(np.lexsort((np.arange(len(rows)), turn))[:count])]


def predicted(labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The rows to predict: all that are given, in a rehearsal two images a class."""
    if not active():
        return np.asarray(rows)
    return few(labels, rows, PREDICTED * len(np.unique(labels)))


def write_down(kind: str, name: str, facts: dict) -> None:
    """Keep what a training or a missing file means for the plan, one file each, so that a rehearsal
    that was killed goes on.

    Parameters
    ----------
    kind : {"trainings", "lacking"}
    name : str
    facts : dict
        What JSON can hold.
    """
    key = files.digest([notebook(), name, facts.get("signature"), facts.get("run")])[:10]
    file = folder() / "plan" / kind / f"{notebook()[:2]}-{name}-{key}.json"
    files.write_json(file, {"notebook": notebook(), "name": name, **facts})


def written(kind: str) -> list[dict]:
    """What :func:`write_down` kept, by notebook and name."""
    found = [files.read_json(file) for file in (folder() / "plan" / kind).glob("*.json")]
    return sorted(found, key=lambda facts: (facts["notebook"], facts["name"]))


def lacks(name: str, source: str) -> None:
    """Write down a file of weights that the real run needs and this machine lacks."""
    write_down("lacking", name, {"source": source})
