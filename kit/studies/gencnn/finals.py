"""The tables of Gen-CNN's final trainings: rates on the test images beside the literature's, and
what they cost.

Nothing here sees a model. What differs from the thesis: every rate has an interval (Wilson for
accuracy, bootstrap over duplicate groups for the others) and a second value on the images without a
twin in training. F1 is that of the macro averages (eq. 2.65), which fits the printed
rows; the mean of the classes' F1, which the released code computes, stands beside it. All are
fractions, as in the thesis.
"""

import numpy as np
import pandas as pd

from kit import files, record
from kit.data import registry
from kit.evaluation import metrics, stats
from kit.models import architecture_catalog
from kit.published import papers
from kit.report import artefacts, plots
from kit.report import results as report_results
from kit.studies import shared
from kit.studies.gencnn.plan import MEDICAL, TITLES, Plan
from kit.studies.gencnn.runs import Found

COMPARISONS = dict(zip(MEDICAL, ("table-3-6", "table-3-7", "table-3-8"), strict=True))
MATRICES = dict(zip(MEDICAL, ("figure-3-8", "figure-3-9", "figure-3-10"), strict=True))
METRICS = {
    "accuracy": "accuracy",
    "f1": "f1_of_macros",
    "mcc": "mcc",
    "f1_mean": "macro_f1",
    "recall": "macro_recall",
    "specificity": "macro_specificity",
}


def interval(
    predictions: pd.DataFrame, metric: str, resamples: int = 1000
) -> stats.Interval | None:
    """One of `METRICS` as a fraction with its 95 % interval; None without images."""
    return report_results.rate_interval(predictions, METRICS[metric], resamples)


def result_table(results: dict, resamples: int = 1000) -> pd.DataFrame:
    """Rates of several results on all test images and on the leak-free ones, long: row, metric,
    value, low, high, n and the same with the prefix leak_free.

    Parameters
    ----------
    results : dict
        Row -> (predictions, registered data set, ids of the training images).
    """
    return shared.result_table(
        results, METRICS, lambda table, metric: interval(table, metric, resamples)
    )


def comparison(role: str, lines: pd.DataFrame, architecture: str) -> pd.DataFrame:
    """Table 3.6, 3.7 or 3.8: the literature and the thesis' own row as citations, then ours with
    intervals.

    Parameters
    ----------
    lines : pandas.DataFrame
        The rows of :func:`result_table` for this data set; empty if the training failed.
    architecture : str
        Of the final network.
    """
    paper, artefact = papers.load("gencnn"), COMPARISONS[role]
    keys = [
        key.split("/")[1]
        for key in paper.texts
        if key.startswith(f"{artefact}/") and key.endswith("/model")
    ]
    rows = []
    for key in keys:
        cells = {
            c: paper.values[f"{artefact}/{key}/{c}"].value
            if f"{artefact}/{key}/{c}" in paper.values
            else np.nan
            for c in ("flops", "accuracy", "f1", "mcc")
        }
        rows.append(
            {
                "reference": "Gen-CNN, as printed"
                if key == "gen-cnn"
                else key.rsplit("-", 1)[0].title() + f" {key.rsplit('-', 1)[1]}",
                "approach": paper.texts[f"{artefact}/{key}/model"],
                "GFLOPs": cells["flops"],
                **{c: cells[c] for c in ("accuracy", "f1", "mcc")},
                "source": "thesis" if key == "gen-cnn" else "quoted by the thesis",
            }
        )
    if len(lines):
        by, entry = lines.set_index("metric"), architecture_catalog.entry(architecture)
        rows.append(
            {
                "reference": "Gen-CNN, this run",
                "approach": entry.label,
                "GFLOPs": entry.macs / 1e9,
                **{c: by.loc[c, "value"] for c in ("accuracy", "f1", "mcc")},
                "source": "this run",
                "accuracy 95 %": report_results.ends(by.loc["accuracy"]),
                "MCC 95 %": report_results.ends(by.loc["mcc"]),
                "accuracy, leak-free": by.loc["accuracy", "leak_free"],
                "MCC, leak-free": by.loc["mcc", "leak_free"],
                "leak-free n": str(int(by.loc["accuracy", "leak_free_n"])),
                "mean F1 of the classes": by.loc["f1_mean", "value"],
            }
        )
    return pd.DataFrame(rows)


def store_comparison(
    out: artefacts.Artefacts, role: str, lines: pd.DataFrame, architecture: str
) -> None:
    """Put accuracy, F1, MCC and FLOPs of the final network beside the printed ones."""
    chosen = lines[lines["metric"].isin(["accuracy", "f1", "mcc"])].assign(row="gen-cnn")
    report_results.store({"gen-cnn": out}, COMPARISONS[role], chosen)
    if len(chosen):
        out.value(
            f"{COMPARISONS[role]}/gen-cnn/flops",
            architecture_catalog.entry(architecture).macs / 1e9,
        )


def show_role(
    plan: Plan,
    out: artefacts.Artefacts,
    role: str,
    results: pd.DataFrame,
    found: Found | None,
    run: record.Run | None,
) -> None:
    """A medical set's comparison with the literature and its confusion matrix; both failed if
    search or final training did.
    """
    if run is None:
        for artefact in (COMPARISONS[role], MATRICES[role]):
            out.failed(
                artefact,
                "the search found nothing" if found is None else "the final training failed",
            )
        return
    lines, architecture = results[results["row"] == role], found.values["architecture"]
    store_comparison(out, role, lines, architecture)
    out.table(
        COMPARISONS[role],
        comparison(role, lines, architecture),
        "MACs of this run at 224 px; intervals: Wilson, bootstrap over duplicate groups.",
        decimals=4,
    )
    out.figure(
        MATRICES[role],
        plots.confusion_matrix(
            matrix(run.predictions("test")), registry.get(dict(plan.medical)[role]).display
        ),
    )


def matrix(predictions: pd.DataFrame) -> np.ndarray:
    """Confusion matrix, rows = true."""
    labels, scores = metrics.labels_and_scores(predictions)
    return metrics.confusion(labels, scores.argmax(1), scores.shape[1])


def threshold_table(results: pd.DataFrame, limit: float = 0.85) -> pd.DataFrame:
    """Recall and specificity beside the value that the thesis calls the industry's standard."""
    rows = []
    for row, cells in results.groupby("row", sort=False) if len(results) else ():
        by = cells.set_index("metric")
        met = {True: "yes", False: "no"}[
            bool(by.loc["recall", "value"] >= limit and by.loc["specificity", "value"] >= limit)
        ]
        rows.append(
            {
                "data set": TITLES[row],
                "macro recall": by.loc["recall", "value"],
                "95 %": report_results.ends(by.loc["recall"]),
                "macro specificity": by.loc["specificity", "value"],
                f"both at least {limit}": met,
            }
        )
    return pd.DataFrame(rows)


def cost_table(outcomes: dict, runs: dict) -> pd.DataFrame:
    """Seconds of searches and final trainings, and the device. Times differ from run to run, so
    they stand outside the tables.

    Parameters
    ----------
    outcomes : dict
        Title -> Found.
    runs : dict
        Title -> run of the final training.
    """
    rows = []
    for title, found in outcomes.items():
        run = runs.get(title)
        rows.append(
            {
                "search": title,
                "evaluations": len(found.trace),
                "search (s)": float(pd.to_numeric(found.trace["seconds"]).sum()),
                "final training (s)": float(run.history()["seconds"].sum()) if run else np.nan,
                "device": files.read_json(run.folder / "environment.json")["device"]
                if run
                else "–",
            }
        )
    return pd.DataFrame(rows)
