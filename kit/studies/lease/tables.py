"""The tables of the LeaSE paper: from saved predictions to numbers beside the published ones.

Nothing here sees a model. What differs from the paper: it gives single runs without intervals on a
test folder in which 251 of 394 images are pixel copies of training images; here every number has an
interval (Wilson for accuracy, bootstrap over duplicate groups for the others) and a second value on
the images without a twin in the training folder, and methods are compared over search
seeds. Averages are macro over one-against-rest classes; F1 is the harmonic mean of macro precision
and recall, which is what the printed column fits within 0.06 points. The averages leave out a class
without images, which the leak-free part of the paper's test set has: no image without a tumour is
left in it.
"""

import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from kit import files
from kit.data import duplicates, registry
from kit.evaluation import metrics, stats
from kit.published import papers
from kit.report import results as report_results
from kit.report.artefacts import Artefacts
from kit.search.nas2d import baselines, genotype, gradient_check, uniformity
from kit.studies import shared
from kit.studies.lease import plan

PRINTED_CLASSES = {
    "glioma_tumor": "glioma",
    "meningioma_tumor": "meningioma",
    "no_tumor": "healthy",
    "notumor": "healthy",
    "pituitary_tumor": "pituitary",
}
METRICS = {
    "accuracy": "accuracy",
    "precision": "macro_precision",
    "recall": "macro_recall",
    "f1": "f1_of_macros",
    "auc": "macro_auc",
    "specificity": "macro_specificity",
}
SHARE = (
    "audience / explainer",
    "audience / explainer, lowest epoch",
    "audience / explainer, highest epoch",
)
NOTATION = pd.DataFrame(
    [
        ("A", "architecture weights (alpha, and beta of PC-DARTS)"),
        ("E", "weights of the explainer, the network that is searched"),
        ("W", "weights of the audience, a network of fixed architecture"),
        ("delta", "perturbation of each training image that changes the explainer's prediction"),
        ("D_e(tr)", "images that train the explainer: half of the training folder"),
        ("D_e(val)", "images that judge the explainer: the other half"),
        ("D_a(tr)", "images that train the audience: the same as D_e(tr)"),
        ("D_a(val)", "images that judge the audience: the same as D_e(val)"),
    ],
    columns=["symbol", "meaning"],
)


def result_table(results: dict, name: str, resamples: int = 1000) -> pd.DataFrame:
    """Table 3's six metrics of several results, on all test images and on the leak-free ones.

    Parameters
    ----------
    results : dict
        Row key -> (predictions of the test images, ids of the training images).
    name : str
        Registered data set.
    resamples : int
        Of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        Long, as :func:`kit.report.results.binary_table`: row, metric, value, low, high, n,
        leak_free, leak_free_low, leak_free_high, leak_free_n; percent.
    """
    named = {row: (predictions, name, ids) for row, (predictions, ids) in results.items()}
    return shared.result_table(
        named, METRICS, lambda table, metric: interval(table, metric, resamples)
    )


def interval(
    predictions: pd.DataFrame, metric: str, resamples: int = 1000
) -> stats.Interval | None:
    """One of `METRICS` in percent with its 95 % interval; None without images, or for the AUC of a
    single class.
    """
    if len(predictions) == 0 or (metric == "auc" and predictions["label"].nunique() < 2):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", metrics.UndefinedMetric
        )  # the table's note says which class is absent
        return report_results.rate_interval(predictions, METRICS[metric], resamples).scaled(100)


def wide(
    long: pd.DataFrame, parameters: dict, columns: Sequence[str] = tuple(METRICS)
) -> pd.DataFrame:
    """The layout of Table 3: one line a method.

    Parameters
    ----------
    long : pandas.DataFrame
        From :func:`result_table`.
    parameters : dict
        Row key -> trainable parameters.
    columns : sequence of str

    Returns
    -------
    pandas.DataFrame
        method, the columns (percent), accuracy's interval as text, accuracy (leak-free) and its
        interval and number of images, parameters (M).
    """
    lines = []
    for row, cells in long.groupby("row", sort=False):
        by = cells.set_index("metric")
        accuracy = by.loc["accuracy"]
        lines.append(
            {
                "method": plan.TITLES[row],
                **{c: by.loc[c, "value"] for c in columns},
                "accuracy 95 %": report_results.ends(accuracy, "", 1),
                "accuracy, leak-free": accuracy["leak_free"],
                "leak-free 95 %": report_results.ends(accuracy, "leak_free_", 1),
                "leak-free n": int(accuracy["leak_free_n"]),
                "parameters (M)": parameters[row] / 1e6,
            }
        )
    return pd.DataFrame(lines)


def renamed(long: pd.DataFrame, rows: dict, metric: str = "accuracy") -> pd.DataFrame:
    """The lines of one metric under the row names of Tables 4 and 5; methods that were not run are
    left out.
    """
    chosen = long[long["metric"] == metric].set_index("row")
    return pd.DataFrame(
        [
            {**chosen.loc[method].to_dict(), "row": row}
            for row, method in rows.items()
            if method in chosen.index
        ],
        columns=[*long.columns],
    )


def short(long: pd.DataFrame, rows: dict) -> pd.DataFrame:
    """Tables 4 and 5: method, accuracy with its interval, and both on the leak-free images;
    percent.
    """
    chosen = renamed(long, rows)
    lines = [
        {
            "method": plan.TITLES[rows[line["row"]]],
            "accuracy": line["value"],
            "95 %": report_results.ends(line, "", 1),
            "leak-free": line["leak_free"],
            "leak-free 95 %": report_results.ends(line, "leak_free_", 1),
        }
        for line in chosen.to_dict("records")
    ]
    return pd.DataFrame(
        lines, columns=["method", "accuracy", "95 %", "leak-free", "leak-free 95 %"]
    )


def count_table(name: str) -> pd.DataFrame:
    """Table 2: images a class in training and test, and test images without a twin in the
    training folder; index = the printed class names.
    """
    index = registry.index(name)
    train, test = (index[index["split"] == part] for part in ("train", "test"))
    free = test[
        duplicates.leak_free(index, duplicates.groups(name), train["image_id"], test["image_id"])
    ]
    counts = pd.DataFrame(
        {
            column: table["label"].value_counts()
            for column, table in (("train", train), ("test", test), ("test_leak_free", free))
        }
    )
    counts = counts.reindex(range(len(registry.get(name).classes))).fillna(0).astype(int)
    counts.index = pd.Index(
        [PRINTED_CLASSES.get(c, c) for c in registry.get(name).classes], name="class"
    )
    counts.loc["total"] = counts.sum()
    return counts


def store_counts(out: Artefacts, counts: pd.DataFrame) -> None:
    """Put the counts beside those of Table 2."""
    for row, cells in counts.iterrows():
        for column in ("train", "test"):
            if f"table-2/{row}/{column}" in papers.load("lease").values:
                out.value(f"table-2/{row}/{column}", int(cells[column]))


def search_table(searched: dict) -> pd.DataFrame:
    """What each search did and ended with.

    Parameters
    ----------
    searched : dict
        Method -> {seed: run}, from :func:`kit.studies.lease.runs.search_all`.

    Returns
    -------
    pandas.DataFrame
        A line a search: accuracy of the supernet on the judging half, skip connections; entropy and
        margin (weight of the chosen operation over the next, in equal weights) of the normal cell,
        and whether both cells have left the uniform architecture
        (:mod:`kit.search.nas2d.uniformity`); the audience's part of the gradient over the
        explainer's, over the epochs that moved the architecture: weighted by how far each moved it,
        lowest and highest; cosine with the exact gradient at the start, also in float64; collapse.
    """
    rows = []
    for method, runs in searched.items():
        for seed, run in runs.items():
            last = run.history().iloc[-1]
            rows.append(
                {
                    "method": plan.TITLES[method],
                    "seed": seed,
                    "accuracy (%)": 100 * last["val_accuracy"],
                    "skips (normal)": int(last["skips_normal"]),
                    "skips (reduction)": int(last["skips_reduce"]),
                    "entropy (normal)": last["entropy_normal"],
                    "margin (normal)": last["margin_normal"],
                    "architecture": _architecture(run, last),
                    **_share(run.history()),
                    **_cosines(run),
                    "collapsed": "yes" if last["collapse"] else "no",
                }
            )
    return pd.DataFrame(rows)


def _architecture(run, last) -> str:
    """In words, whether the two cells of a search mean anything."""
    survivors = files.read_json(run.folder / "genotype.json").get("survivors")
    operations = len(survivors[0][0]) if survivors else len(genotype.PRIMITIVES)
    moved = [
        uniformity.left(
            last[f"entropy_{cell}"],
            last[f"margin_{cell}"],
            updates=last["updates"],
            rate=run.config["arch_lr"],
            operations=operations,
        )
        for cell in ("normal", "reduce")
    ]
    if all(moved):
        return "has left uniform"
    if any(moved):
        return f"the {'reduction' if moved[0] else 'normal'} cell has not left uniform"
    return "has not left uniform"


def _share(history: pd.DataFrame) -> dict:
    """The audience's part over the explainer's, over the epochs that moved the architecture."""
    moving = history[history["moved"] > 0] if "ratio" in history else history[:0]
    if moving.empty:
        return dict.fromkeys(SHARE, np.nan)
    ratio = moving["ratio"]
    found = (np.average(ratio, weights=moving["moved"]), ratio.min(), ratio.max())
    return dict(zip(SHARE, map(float, found), strict=True))


def _cosines(run) -> dict:
    """How far the followed gradient is from the exact one, of LeaSE the audience's term."""
    found = files.read_json(run.folder / gradient_check.NAME, default=None) or {}
    told = {}
    for name, ending in (("cosine with exact", ""), ("cosine with float64", "_float64")):
        value = found.get(f"audience_cosine{ending}", found.get(f"cosine{ending}"))
        told[name] = np.nan if value is None else value
    return told


def cost_table(searched: dict, final: dict) -> pd.DataFrame:
    """Seconds of search and of the final training, by method, and the device. Times differ from run
    to run, so they stand outside the tables.
    """
    rows = []
    for row, run in final.items():
        seconds = (
            float(next(iter(searched[row].values())).history()["seconds"].sum())
            if row in searched
            else np.nan
        )
        rows.append(
            {
                "method": plan.TITLES[row],
                "search (s)": seconds,
                "training (s)": float(run.history()["seconds"].sum()),
                "epochs": len(run.history()),
                "device": files.read_json(run.folder / "environment.json")["device"],
            }
        )
    return pd.DataFrame(rows)


def store(writers: dict, long: pd.DataFrame) -> None:
    """Put the numbers of Tables 3, 4 and 5 beside the printed ones; arguments as
    :func:`kit.report.results.store`.
    """
    report_results.store(writers, "table-3", long)
    for artefact, rows in (("table-4", plan.TABLE_4), ("table-5", plan.TABLE_5)):
        report_results.store(writers, artefact, renamed(long, rows))


def store_parameters(writers: dict, parameters: dict) -> None:
    """Put parameter counts in millions beside Table 3's; those of the hand-designed networks depend
    on neither data nor settings.
    """
    known = papers.load("lease").values
    for row, count in parameters.items():
        if f"table-3/{row}/parameters" in known:
            exact = row in plan.BASELINES and count == baselines.entry(row).parameters
            writers[row.split(".")[0]].value(f"table-3/{row}/parameters", count / 1e6, exact=exact)


def store_claims(writers: dict, long: pd.DataFrame, parameters: dict, images: int) -> None:
    """Put our values beside the numbers that the paper's text states."""
    cell = long.set_index(["row", "metric"])
    stated = {
        "abstract.accuracy": ("lease-darts", "accuracy"),
        "abstract.auc": ("lease-darts", "auc"),
        "abstract.resnet101.accuracy": ("resnet101", "accuracy"),
        "abstract.resnet101.auc": ("resnet101", "auc"),
        "pcdarts.f1-from": ("pcdarts", "f1"),
        "pcdarts.f1-to": ("lease-pcdarts.gamma0.5", "f1"),
        "darts.accuracy-from": ("darts", "accuracy"),
        "darts.accuracy-to": ("lease-darts", "accuracy"),
        "best-auc": ("lease-darts", "auc"),
    }
    for claim, key in stated.items():
        if key in cell.index:
            line = cell.loc[key]
            free = line["leak_free"] if np.isfinite(line["leak_free"]) else None
            writers[key[0].split(".")[0]].value(
                f"claims/{claim}",
                line["value"],
                (line["low"], line["high"]),
                leak_free=free,
                leak_free_interval=(line["leak_free_low"], line["leak_free_high"]),
                n=line["n"],
            )
    for claim, row in (
        ("abstract.parameters", "lease-darts"),
        ("abstract.resnet101.parameters", "resnet101"),
    ):
        if row in parameters:
            exact = row == "resnet101" and parameters[row] == baselines.entry(row).parameters
            writers[row].value(f"claims/{claim}", parameters[row] / 1e6, exact=exact)
    writers["data"].value("claims/dataset.images", images)


# --- beyond seed noise? ---------------------------------------------------------------------------


def difference_table(
    accuracies: dict, pairs: Iterable[tuple[str, str]] = plan.PAIRS
) -> pd.DataFrame:
    """LeaSE minus its base method, or a search minus random cells, paired by seed.

    Parameters
    ----------
    accuracies : dict
        Method -> {seed: accuracy in percent}.
    pairs : sequence of (str, str)

    Returns
    -------
    pandas.DataFrame
        comparison, seeds, difference (pp), its 95 % t interval over seeds (low, high; NaN with one
        seed), sd of the seeds within a method, and the answer.
    """
    named = [
        (
            {"comparison": f"{plan.TITLES[first]} − {plan.TITLES[second]}"},
            accuracies.get(first, {}),
            accuracies.get(second, {}),
        )
        for first, second in pairs
    ]
    return shared.difference_table(named, ["comparison"], column="difference (pp)")


def verdict(table: pd.DataFrame) -> str:
    """The answer of a :func:`difference_table` in one sentence."""
    counts = table["answer"].value_counts()
    if table.empty or set(counts.index) == {"one seed: no answer"}:
        return (
            "Whether LeaSE beats its base method cannot be said: no comparison was run with "
            "more than one search seed."
        )
    better, decided = (
        int(counts.get("beyond seed noise", 0)),
        int((table["answer"] != "one seed: no answer").sum()),
    )
    return (
        f"LeaSE beats its base method beyond seed noise in {better} of {decided} "
        f"comparison{'s' * (decided != 1)} at this budget; "
        f"the largest difference is {table['difference (pp)'].max():+.1f} percentage points over "
        f"{int(table['seeds'].max())} seeds."
    )


def leak_effect(long: pd.DataFrame) -> pd.DataFrame:
    """What the copies are worth: accuracy on all test images, on those without a copy in training,
    and the difference in percentage points.
    """
    chosen = long[long["metric"] == "accuracy"]
    return pd.DataFrame(
        {
            "method": chosen["row"].map(plan.TITLES),
            "all images": chosen["value"],
            "n": chosen["n"],
            "leak-free": chosen["leak_free"],
            "leak-free n": chosen["leak_free_n"],
            "difference (pp)": chosen["value"] - chosen["leak_free"],
        }
    ).reset_index(drop=True)
