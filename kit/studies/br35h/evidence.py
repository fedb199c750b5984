"""What a run says of the conclusions of the Br35H paper: differences of the two models on the
folds, on the hold-out, in time, and in where their heat maps lie.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit.data.inputs import Inputs
from kit.explain import faithfulness
from kit.report import refreshed
from kit.report.artefacts import Artefacts
from kit.studies import shared


def store(
    out: Artefacts | refreshed.Evidence,
    runs: Mapping,
    by_fold: pd.DataFrame,
    costs: pd.DataFrame,
    names: Mapping,
) -> None:
    """Store the evidence for "no-difference", "holdout-difference", "auc" and "faster".

    Parameters
    ----------
    out : kit.report.artefacts.Artefacts
    runs : mapping
        "cnn", "tl" -> (fold runs, final run).
    by_fold : pandas.DataFrame
        Long table of the folds' metrics, in percent.
    costs : pandas.DataFrame
        From :func:`kit.studies.br35h.tables.costs`.
    names : mapping
        Model key -> name in `costs`.
    """
    accuracy = {m: fold_values(by_fold, m) for m in ("tl", "cnn")}
    folds = len(accuracy["tl"])
    shared.store_evidence(
        out,
        "no-difference",
        shared.over_folds(accuracy["tl"] - accuracy["cnn"], 1 / max(1, folds - 1)),
    )
    tl, cnn = (runs[m][1].predictions() for m in ("tl", "cnn"))
    more = {"groups": tl["group"].nunique()} if "group" in tl else {}
    shared.store_evidence(out, "holdout-difference", shared.paired_shares(tl, cnn), **more)
    shared.store_evidence(out, "auc", shared.paired_areas(tl, cnn), **more)
    seconds = {
        m: costs[costs["model"] == names[m]].query("run != 'final'")["seconds"] for m in runs
    }
    ratio = shared.over_ratios(np.maximum(seconds["tl"], 0.05), np.maximum(seconds["cnn"], 0.05))
    shared.store_evidence(out, "faster", ratio)


def fold_values(by_fold: pd.DataFrame, model: str, metric: str = "accuracy") -> np.ndarray:
    """A model's values of a metric, one a fold, float (folds,)."""
    mine = by_fold["row"].str.startswith(f"{model}.fold") & (by_fold["metric"] == metric)
    return by_fold.loc[mine, "value"].to_numpy(float)


def store_localisation(
    out: Artefacts, maps: Mapping, dataset: str, inputs: Inputs, rows: np.ndarray
) -> None:
    """Store the evidence for "grad-cam": share of the heat maps' energy inside the outlined lesion,
    transfer model minus CNN, paired by image; nothing where no lesion is outlined.

    Parameters
    ----------
    maps : mapping
        "cnn", "tl" -> float (N, H, W), the two of different sizes.
    dataset, inputs, rows
        As in :func:`kit.explain.faithfulness.lesion`, with N rows.
    """
    inside: dict[str, list[float]] = {"cnn": [], "tl": []}
    for i, row in enumerate(rows):
        masks = {m: faithfulness.lesion(dataset, inputs, [row], maps[m].shape[1]) for m in inside}
        if all(mask is not None for mask in masks.values()):
            for m, mask in masks.items():
                energy = faithfulness.energy_inside(maps[m][i : i + 1], mask[None])
                inside[m].append(float(energy[0]))
    pairs = np.subtract(inside["tl"], inside["cnn"])
    shared.store_evidence(out, "grad-cam", shared.over_folds(pairs[np.isfinite(pairs)]))


def again(folder: Path, protocol: str = "random") -> None:
    """Store the evidence of a finished run again from what it left: predictions and costs.csv.

    Parameters
    ----------
    folder : Path
        ``results/<profile>/br35h``.
    protocol : str
        The protocol whose runs are read.
    """
    runs, lines = {}, []
    for model in ("cnn", "tl"):
        folds = refreshed.last_runs(folder, f"{model}-{protocol}-fold*")
        final = refreshed.last_runs(folder, f"{model}-{protocol}-final*")
        runs[model] = (folds, Kept(final[0]))
        lines += [
            {
                "row": f"{model}.fold{i}",
                "metric": "accuracy",
                "value": refreshed.right_share(table),
            }
            for i, table in enumerate(folds, 1)
        ]
    costs = pd.read_csv(folder / "costs.csv")
    names = dict(zip(("cnn", "tl"), costs["model"].unique(), strict=True))
    store(refreshed.Evidence(folder), runs, pd.DataFrame(lines), costs, names)


@dataclass(frozen=True)
class Kept:
    """A run of which only the predictions are left."""

    table: pd.DataFrame

    def predictions(self) -> pd.DataFrame:
        """Its predictions table."""
        return self.table
