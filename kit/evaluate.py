"""From saved predictions to the numbers of a table: metrics with intervals, on all test images and on those without a copy in training.

Nothing here sees a model. The publications report point estimates on test sets that hold copies of training images; every number here has a
95 % interval (Wilson for proportions, bootstrap over duplicate groups for AUC) and its value on the leak-free part. All metrics are in percent.
"""

import numpy as np
import pandas as pd

from kit import audit, metrics, papers, record, registry, stats

COUNTS = {"accuracy": ("TP", "TN"), "sensitivity": ("TP", "FN"), "specificity": ("TN", "FP")}
BINARY = ("accuracy", "sensitivity", "specificity", "auc")


def leak_free(predictions: pd.DataFrame, name: str, train_ids) -> pd.DataFrame:
    """The rows of `predictions` whose image has no near-duplicate among `train_ids`; `name` is the registered data set."""
    keep = audit.leak_free(registry.index(name), audit.groups(name), train_ids, predictions["image_id"])
    return predictions[keep].reset_index(drop=True)


def interval(predictions: pd.DataFrame, metric: str, seed: int = 0) -> stats.Interval | None:
    """A binary metric in percent with its 95 % interval; None where it is undefined (no image of a class it needs).

    Parameters
    ----------
    predictions : pandas.DataFrame
        Binary predictions table (see :mod:`kit.metrics`).
    metric : {"accuracy", "sensitivity", "specificity", "auc"}
    seed : int
        Of the bootstrap.
    """
    both = predictions["label"].nunique() == 2
    if len(predictions) == 0 or (metric == "auc" and not both):
        return None
    if metric == "auc":
        return stats.bootstrap(predictions, "auc", seed=seed).scaled(100)
    counts = metrics.binary_metrics(predictions) if both else _one_class(predictions)
    k = counts["TP"] + counts["TN"] if metric == "accuracy" else counts[COUNTS[metric][0]]
    n = counts["n"] if metric == "accuracy" else sum(counts[c] for c in COUNTS[metric])
    return stats.wilson(k, n).scaled(100) if n else None


def rate_interval(predictions: pd.DataFrame, rate: str, resamples: int = 1000) -> stats.Interval | None:
    """A multi-class rate of :mod:`kit.metrics` as a fraction with its 95 % interval, Wilson's or by bootstrap; None without images."""
    if len(predictions) == 0:
        return None
    if rate == "accuracy":
        return stats.wilson(int(metrics.correct(predictions).sum()), len(predictions))
    return stats.bootstrap(predictions, rate, resamples)


def _one_class(predictions: pd.DataFrame) -> dict:
    """Counts where only one class is present, without the warning that undefined rates deserve elsewhere."""
    label, positive = int(predictions["label"].iloc[0]), predictions["score_1"] > 0.5
    hits, misses = (int(positive.sum()), int((~positive).sum()))
    return {"TP": hits * label, "FN": misses * label, "FP": hits * (1 - label), "TN": misses * (1 - label), "n": len(predictions)}


def fold_results(runs: dict, split) -> dict:
    """Predictions of the folds' validation parts: row "<model>.fold<i>" -> (predictions, training ids), for :func:`binary_table`.

    Parameters
    ----------
    runs : dict
        Model key -> (fold runs, final run) from ``train.cross_validate``.
    split : kit.split.Split
    """
    return {f"{model}.fold{i}": (run.predictions(), train_ids)
            for model, (folds, _) in runs.items() for i, (run, (train_ids, _)) in enumerate(zip(folds, split.folds(), strict=True), 1)}


def test_results(runs: dict, split) -> dict:
    """Predictions of the hold-out by the final models: row "<model>" -> (predictions, training ids); arguments as :func:`fold_results`."""
    return {model: (final.predictions(), split.development) for model, (_, final) in runs.items()}


test_results.__test__ = False  # not a pytest function


def binary_table(results: dict, name: str, chosen=BINARY) -> pd.DataFrame:
    """Metrics of several results, on all images and on the leak-free ones.

    Parameters
    ----------
    results : dict
        Row name -> (predictions table, ids of the training images).
    name : str
        Registered data set.
    chosen : sequence of str
        Metrics.

    Returns
    -------
    pandas.DataFrame
        One row per result and metric: row, metric, value, low, high, n, leak_free, leak_free_low, leak_free_high, leak_free_n; percent.
    """
    rows = []
    for row, (predictions, train_ids) in results.items():
        clean = leak_free(predictions, name, train_ids)
        for metric in chosen:
            full, free = interval(predictions, metric), interval(clean, metric)
            rows.append({"row": row, "metric": metric, **columns(full, ""), **columns(free, "leak_free")})
    return pd.DataFrame(rows)


def columns(found: stats.Interval | None, prefix: str) -> dict:
    """An interval as the cells of a long table: value (or `prefix`), low, high and n; NaN and 0 for None."""
    names = [prefix or "value", *(f"{prefix}_{n}".strip("_") for n in ("low", "high", "n"))]
    return dict(zip(names, (found.estimate, found.low, found.high, found.n) if found else (np.nan, np.nan, np.nan, 0)))


def ends(line, prefix: str = "", decimals: int = 3) -> str:
    """An interval of a long table's row as text, "–" where it is undefined."""
    return f"{line[prefix + 'low']:.{decimals}f} to {line[prefix + 'high']:.{decimals}f}" if np.isfinite(line[prefix + "low"]) else "–"


def fold_table(table: pd.DataFrame, models: dict) -> pd.DataFrame:
    """The layout of the Br35H paper's Table 1: folds, then mean, sample variance and sample standard deviation, by model.

    Parameters
    ----------
    table : pandas.DataFrame
        From :func:`binary_table`, rows named "<model>.fold<i>".
    models : dict
        Model key -> name to print.

    Returns
    -------
    pandas.DataFrame
        Columns model, fold and one a metric. Percent; the variance is in squared percentage points.
    """
    wide = table.pivot(index="row", columns="metric", values="value")[list(dict.fromkeys(table["metric"]))]
    blocks = []
    for key, shown in models.items():
        folds = wide[wide.index.str.startswith(f"{key}.fold")]
        moments = pd.DataFrame({"mean": folds.mean(), "variance (pp²)": folds.var(ddof=1), "SD (pp)": folds.std(ddof=1)}).T
        block = pd.concat([folds.set_axis([f"fold {i + 1}" for i in range(len(folds))]), moments])
        blocks.append(block.reset_index(names="fold").assign(model=shown))
    joined = pd.concat(blocks, ignore_index=True).rename_axis(columns=None)
    return joined[["model", "fold", *wide.columns]]


def store(writers: dict, artefact: str, table: pd.DataFrame) -> None:
    """Put every number of a :func:`binary_table` that the publication prints beside it: ``<artefact>/<row>/<metric>``.

    Parameters
    ----------
    writers : dict
        Model key (a row's name up to the first dot) -> ``kit.report.Artefacts``, each with that model's stand-in.
    artefact : str
    table : pandas.DataFrame
    """
    for row in table.itertuples():
        value_id, out = f"{artefact}/{row.row}/{row.metric}", writers[row.row.split(".")[0]]
        if value_id in papers.load(out.paper).values:
            out.value(value_id, row.value, (row.low, row.high), row.leak_free, (row.leak_free_low, row.leak_free_high), row.n)


def store_moments(writers: dict, artefact: str, table: pd.DataFrame) -> None:
    """Put the mean (t interval over folds) and the sample variance of each model's folds beside the published ones; arguments as :func:`store`."""
    for model, out in writers.items():
        folds = table[table["row"].str.startswith(f"{model}.fold")]
        for metric, values in folds.groupby("metric"):
            mean, free = stats.mean_t(values["value"]), values["leak_free"].dropna()
            if f"{artefact}/{model}.mean/{metric}" in papers.load(out.paper).values:
                out.value(f"{artefact}/{model}.mean/{metric}", mean.estimate, (mean.low, mean.high), free.mean() if len(free) else None)
                out.value(f"{artefact}/{model}.variance/{metric}", values["value"].var(ddof=1), None, free.var(ddof=1) if len(free) > 1 else None)


def pick_shared(a: pd.DataFrame, b: pd.DataFrame, label: int) -> str:
    """Image id of class `label` that both models get right: the one whose less confident score is the median of its kind.

    The publication shows two images without saying how they were chosen; the median is neither the best nor the worst case. Where no image is
    right in both, the one with the highest smaller score is taken.
    """
    column = f"score_{label}"
    both = a.merge(b[["image_id", column]], on="image_id", suffixes=("", "_b")).query("label == @label")
    both = both.assign(least=both[[column, f"{column}_b"]].min(axis=1)).sort_values(["least", "image_id"], ignore_index=True)
    right = both[both["least"] > 0.5]
    return right["image_id"].iloc[len(right) // 2] if len(right) else both["image_id"].iloc[-1]


def compare_folds(table: pd.DataFrame, first: str, second: str, metric: str = "accuracy", test_over_train: float = 0.5) -> pd.DataFrame:
    """Every t test that could be meant by "t test on the fold accuracies", and the right one first.

    Parameters
    ----------
    table : pandas.DataFrame
        From :func:`binary_table`.
    first, second : str
        Model keys; differences are first minus second, in percentage points.
    test_over_train : float
        Validation over training images of a fold, 1/(k-1).

    Returns
    -------
    pandas.DataFrame
        Columns test, statistic, df, p, difference (pp), note.
    """
    a, b = (table[table["row"].str.startswith(f"{m}.fold") & (table["metric"] == metric)]["value"].to_numpy() for m in (first, second))
    notes = {"paired t": "same folds for both models: the test to read", "corrected resampled t": "Nadeau-Bengio, for overlapping training folds",
             "pooled t": "the authors' variant: treats the folds as independent", "Welch t": "independent, unequal variances"}
    tests = [stats.paired_t(a, b), stats.corrected_resampled_t(a - b, test_over_train), stats.pooled_t(a, b), stats.welch_t(a, b), stats.wilcoxon(a, b)]
    return tests_table(tests, notes)


def compare_on_test(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Paired tests of two models on the same test images: exact McNemar, DeLong, and the paired bootstrap over duplicate groups.

    Parameters
    ----------
    a, b : pandas.DataFrame
        Binary predictions tables of the same images in the same order.
    """
    right_a, right_b = metrics.correct(a), metrics.correct(b)
    tests = [stats.mcnemar_exact(right_a, right_b), stats.fisher(int((~right_a).sum()), len(a), int((~right_b).sum()), len(b))]
    if a["label"].nunique() == 2:
        tests.append(stats.delong(a["label"].to_numpy(), a["score_1"].to_numpy(), b["score_1"].to_numpy()))
    table = tests_table(tests, {"Fisher exact": "ignores that both models saw the same images"})
    table["difference (pp)"] = [np.nan if t.name == "Fisher exact" else 100 * t.estimate for t in tests]  # Fisher estimates an odds ratio
    return table


def tests_table(tests, notes=None) -> pd.DataFrame:
    """Tests as rows: test, statistic, df, p, difference (pp), note."""
    notes = notes or {}
    return pd.DataFrame([{"test": t.name, "statistic": t.statistic, "df": t.df, "p": t.p, "difference (pp)": t.estimate, "note": notes.get(t.name, t.note)}
                         for t in tests])


def store_comparison(out, folds: pd.DataFrame, tests: pd.DataFrame) -> None:
    """Put our fold means, standard deviations and the authors' kind of t statistic beside those that the paper's text states."""
    authors = tests.set_index("test").loc["pooled t"]
    out.value("claims/t-test.t", abs(authors["statistic"]))
    for model in folds["row"].str.split(".").str[0].unique():
        values = folds[folds["row"].str.startswith(f"{model}.fold") & (folds["metric"] == "accuracy")]["value"]
        mean = stats.mean_t(values)
        out.value(f"claims/t-test.{model}-mean", mean.estimate, (mean.low, mean.high))
        out.value(f"claims/t-test.{model}-sd", values.std(ddof=1))


def seed_spread(a, b) -> dict:
    """What a difference of two methods is worth that were run with the same seeds: 95 % t interval over seeds, noise of a seed, answer.

    Parameters
    ----------
    a, b : numpy.ndarray
        Float (seeds,), in percent or hundredths, paired.

    Returns
    -------
    dict
        low and high of the mean of a - b and "sd of a seed (pp)" (NaN with one seed), and the answer.
    """
    if len(a) < 2:
        return {"low": np.nan, "high": np.nan, "sd of a seed (pp)": np.nan, "answer": "one seed: no answer"}
    found = stats.mean_t(a - b)
    answer = "beyond seed noise" if found.low > 0 else "worse, beyond seed noise" if found.high < 0 else "within seed noise"
    return {"low": found.low, "high": found.high, "sd of a seed (pp)": float(np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)), "answer": answer}


def costs(runs: dict, names: dict) -> pd.DataFrame:
    """Training time of every run: model, run, epochs, seconds and device. Times differ from run to run, so they stand outside the tables.

    Parameters
    ----------
    runs : dict
        Model key -> (fold runs, final run).
    names : dict
        Model key -> name to print.
    """
    rows = []
    for model, (folds, final) in runs.items():
        for label, run in [*((f"fold {i}", r) for i, r in enumerate(folds, 1)), ("final", final)]:
            history = run.history()
            rows.append({"model": names[model], "run": label, "epochs": len(history), "seconds": round(history["seconds"].sum(), 1),
                         "device": record.read_json(run.folder / "environment.json")["device"]})
    return pd.DataFrame(rows)


def bars(table: pd.DataFrame, names: dict) -> pd.DataFrame:
    """A :func:`binary_table` in the layout of ``plots.metric_bars``: models as rows, a metric and its interval as columns."""
    wide = {}
    for row in table.itertuples():
        wide.setdefault(names[row.row], {}).update({row.metric: row.value, f"{row.metric}_low": row.low, f"{row.metric}_high": row.high})
    return pd.DataFrame(wide).T
