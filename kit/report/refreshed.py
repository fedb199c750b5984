"""Stored values brought up to what a verdict needs, from the predictions that lie beside them: no
training, no data set.

A results folder that an earlier version wrote lacks kinds, seeds and duplicate groups, and its
intervals count copies as independent images. The predictions say which images are copies of each
other; a stored share is recognised among them by its value and its number of images.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit import files
from kit.evaluation import metrics
from kit.evaluation.stats import Interval
from kit.published import papers
from kit.report import entries, results

FACTORS = {("MFLOPs", "GFLOPs"): 1e-3, ("GFLOPs", "MFLOPs"): 1e3}
SAME = 1e-9
FACTS = (
    "data",
    "embedded",
    "fingerprint",
    "stand_in_for",
    "incomplete",
    "stand_in",
    "reductions",
    "notebook",
)
DEFAULTS = {"groups": None, "leak_free_n": None, "leak_free_groups": None, "seeds": None}


def refresh(folder: Path) -> int:
    """Rewrite ``values.json`` of one publication's results folder.

    Parameters
    ----------
    folder : Path
        ``results/<profile>/<paper>``.

    Returns
    -------
    int
        Number of shares whose interval was recomputed from predictions.
    """
    path = folder / "values.json"
    stored, printed = files.read_json(path, default={}), papers.load(folder.name).values
    known, done = shares(folder), 0
    for value_id, entry in stored.items():
        number = printed.get(value_id)
        if number is None:
            continue
        stored[value_id] = entry = _upgraded(entry, number)
        found = _match(entry, number, known)
        if found is not None:
            interval, groups = found
            one = 100.0 if number.unit == "%" else 1.0
            entry |= {"groups": groups, "n": interval.n, "seeds": 1}
            entry |= {"low": interval.low * one, "high": interval.high * one}
            done += 1
    if stored:
        files.write_json(path, {i: e for i, e in stored.items() if i in printed})
    return done


def _upgraded(entry: dict, number) -> dict:
    """The entry with every field that is written today, in the printed unit."""
    factor = FACTORS.get((entry.get("unit", ""), number.unit), 1.0)
    scaled = {
        name: None if entry.get(name) is None else entry[name] * factor
        for name in ("ours", "low", "high", "leak_free", "leak_free_low", "leak_free_high")
    }
    fixed = {"level": entries.LEVEL, "unit": number.unit, "kind": number.kind}
    return {**DEFAULTS, "seed_sd": 0.0, **entry, **scaled, **fixed}


def shares(folder: Path) -> list[tuple[float, int, Interval, int]]:
    """Shares of right images in every committed run, of all images and of each class: value, n,
    interval with copies counted once, groups.
    """
    found: list[tuple[float, int, Interval, int]] = []
    for path in sorted(folder.glob("runs/**/predict*.csv")):
        table = pd.read_csv(path)
        if not {"label", "group", "score_0", "score_1"} <= set(table):
            continue
        parts = [table] + [part for _, part in table.groupby("label")]
        if "part" in table:
            for _, one in table.groupby("part"):
                parts += [one] + [part for _, part in one.groupby("label")]
        for part in parts:
            interval = results.share_right(part)
            found.append((interval.estimate, len(part), interval, int(part["group"].nunique())))
    return found


def _match(entry: dict, number, known):
    images = entry.get("n") or number.n
    if number.kind != "result" or entry["ours"] is None or number.statistic:
        return None
    value = entry["ours"] / (100.0 if number.unit == "%" else 1.0)
    found = [
        (interval, groups)
        for share, n, interval, groups in known
        if images in (n, None) and abs(share - value) < SAME
    ]
    # classes of one size that are all right, or all wrong, cannot be told apart
    return found[0] if len({groups for _, groups in found}) == 1 else None


def last_runs(folder: Path, pattern: str) -> list[pd.DataFrame]:
    """Predictions of the runs whose folder name matches, in the order of their names."""
    return [pd.read_csv(p / "predictions.csv") for p in sorted((folder / "runs").glob(pattern))]


def right_share(table: pd.DataFrame) -> float:
    """Percent of the images whose class is right."""
    return float(100 * np.mean(metrics.correct(table)))


class Evidence:
    """Writer of evidence.json for a finished run, with the data, stand-ins and reductions that its
    stored results name.

    Parameters
    ----------
    folder : Path
        ``results/<profile>/<paper>``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        values = files.read_json(folder / "values.json", default={}).values()
        measured = [entry for entry in values if entry.get("data")]
        self._facts: dict[str, Any] = dict.fromkeys(FACTS) | {"incomplete": [], "reductions": []}
        for entry in measured:
            for name in FACTS:
                self._facts[name] = self._facts[name] or entry.get(name)

    def evidence(
        self,
        conclusion_id: str,
        parts: Mapping[str, Interval] | Interval,
        *,
        seeds: int = 1,
        groups: int | None = None,
    ) -> None:
        """As :meth:`kit.report.artefacts.Artefacts.evidence`."""
        path = self.folder / "evidence.json"
        entry = entries.evidence(parts, seeds, groups, self._facts)
        files.write_json(path, files.read_json(path, default={}) | {conclusion_id: entry})
