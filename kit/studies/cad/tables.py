"""The tables of the six-model CAD framework: from saved predictions to numbers beside the published
ones.

Nothing here sees a model. What differs from the paper: it gives single runs without intervals on a
test folder in which 216 of 1,311 images are byte copies of training images; here every number has
an interval (Wilson for proportions, bootstrap over duplicate groups for F1 and weighted averages)
and a second value on the images that have no copy in the training folder. Its Table 4 contradicts
its own Figure 8 in four rows; see :mod:`kit.studies.cad.published_tables`. The analysis of errors
is in :mod:`kit.studies.cad.errors`.

Tables of predictions (see :mod:`kit.evaluation.metrics`) come as a dict: row key of
``papers/cad.yml`` ("resnet50", "resnet50-noaug" ...) -> table of the test images. `writers` is a
dict from the same keys to ``kit.report.artefacts.Artefacts``, each with that model's stand-in and
reductions.
"""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from kit.data import registry
from kit.evaluation import metrics, resampling, stats
from kit.published import papers
from kit.report.artefacts import Artefacts
from kit.studies import shared
from kit.studies.cad import split
from kit.studies.cad.published_tables import CLASS_METRICS, CLASSES, TITLES, published_table

SETTINGS = (
    "learning_rate",
    "batch_size",
    "epochs",
    "validation_fraction",
    "dropout_rate",
    "optimizer",
    "activation",
    "loss",
)
PUBLISHED_PROTOCOL = "predict"


# --- tables 2 to 7 --------------------------------------------------------------------------------


def count_table(name: str, validation_fraction: float = 0.2) -> pd.DataFrame:
    """Table 2: images a class in train, val and test, and the test images without a copy in the
    training folder (same bytes; the same picture in any form).
    """
    parts, class_of = (
        split.published_parts(name, validation_fraction),
        registry.index(name).set_index("image_id")["class_name"],
    )
    parts |= {
        "test_without_byte_copies": split.leak_free_ids(name, "byte"),
        "test_leak_free": split.leak_free_ids(name),
    }
    classes = sorted(
        registry.get(name).classes,
        key=lambda c: (
            ("glioma", "meningioma", "pituitary", "notumor").index(c) if c in CLASSES else 9
        ),
    )
    table = pd.DataFrame(
        {
            part: class_of.loc[ids].value_counts().reindex(classes, fill_value=0)
            for part, ids in parts.items()
        }
    )
    table.loc["total"] = table.sum()
    return table.rename_axis("row")


def settings_table(used: dict) -> pd.DataFrame:
    """Table 3: the paper's eight settings, then whatever else `used` holds, published beside used.

    Parameters
    ----------
    used : dict
        Names of the paper's ``hyperparameters`` -> value of the run.

    Raises
    ------
    papers.UnknownValue
        If a name is not listed in ``papers/cad.yml``.
    """
    papers.departures(papers.load("cad"), used)
    stated = papers.load("cad").hyperparameters
    rows = [
        {
            "row": key,
            "setting": key.replace("_", " "),
            "published": stated[key],
            "used": used.get(key),
        }
        for key in dict.fromkeys((*SETTINGS, *used))
    ]
    return (
        pd.DataFrame(rows, dtype=object)
        .set_index("row")
        .map(lambda cell: None if cell is None else str(cell))
    )


def report_table(
    tables: dict, free_ids: Collection[str], classes: Sequence[str] = CLASSES, resamples: int = 1000
) -> pd.DataFrame:
    """The numbers of Table 4 in long form, in published units, for ``evaluate.store(writers,
    "table-4", ...)``.

    Parameters
    ----------
    tables : dict
        Model key -> predictions of the test images.
    free_ids : collection of str
        From :func:`leak_free_ids`.
    classes : sequence of str
        Folder names in label order.
    resamples : int
        Of the bootstrap for F1 and weighted averages.

    Returns
    -------
    pandas.DataFrame
        row ("resnet50.glioma", "resnet50.weighted", "resnet50"), metric (precision, recall, f1:
        fraction; accuracy: percent), value, low, high, n, leak_free, leak_free_low, leak_free_high,
        leak_free_n.
    """
    rows = []
    for model, table in tables.items():
        both = table, table[table["image_id"].isin(set(free_ids))]
        asked = [(f"{model}.{c}", m, k) for k, c in enumerate(classes) for m in CLASS_METRICS] + [
            (f"{model}.weighted", m, None) for m in CLASS_METRICS
        ]
        rows += [
            _line(row, m, *(class_interval(t, m, k, resamples) for t in both))
            for row, m, k in asked
        ]
        rows.append(_line(model, "accuracy", *(accuracy(t) for t in both)))
    return pd.DataFrame(rows)


def class_interval(
    predictions: pd.DataFrame, metric: str, label: int | None, resamples: int = 1000
) -> stats.Interval | None:
    """Precision, recall or F1 (fractions) of class `label`, or the support-weighted average (None),
    with its 95 % interval; None if undefined.
    """
    if len(predictions) == 0:
        return None
    if label is None:
        whole = accuracy(predictions)
        return (
            whole.scaled(0.01)
            if metric == "recall"
            else resampling.bootstrap(predictions, f"weighted_{metric}", resamples)
        )
    labels, scores = metrics.labels_and_scores(predictions)
    said, true = scores.argmax(1) == label, labels == label
    if not true.any():
        return None
    if metric == "f1":
        binary = predictions[["image_id", "group"]].assign(
            label=true.astype(int), score_0=1.0 - said, score_1=said * 1.0
        )
        return resampling.bootstrap(binary, "f1", resamples)
    among = true if metric == "recall" else said
    if not among.any():
        return stats.Interval(0.0, np.nan, np.nan, level=0.95, n=0, method="never predicted")
    return stats.wilson(int((said & true).sum()), int(among.sum()))


def accuracy(predictions: pd.DataFrame) -> stats.Interval | None:
    """Accuracy in percent with Wilson's interval; None without images."""
    return (
        stats.wilson(int(metrics.correct(predictions).sum()), len(predictions)).scaled(100)
        if len(predictions)
        else None
    )


def _line(row: str, metric: str, full, free) -> dict:
    return {"row": row, "metric": metric, **shared.rate_cells(full, free)}


def accuracy_table(tables: dict, free_ids: Collection[str]) -> pd.DataFrame:
    """Accuracies in percent, long form as :func:`report_table`; `tables` maps (row, column) to
    predictions, e.g. ("mobilenetv2", "original").
    """
    free = set(free_ids)
    return pd.DataFrame(
        [
            _line(row, column, accuracy(t), accuracy(t[t["image_id"].isin(free)]))
            for (row, column), t in tables.items()
        ]
    )


def seed_table(tested: dict, free_ids: Collection[str]) -> pd.DataFrame:
    """Accuracy over seeds, in percent; the article has one training a network.

    Parameters
    ----------
    tested : dict
        Name -> test predictions of each training.
    free_ids : collection of str
        Test images without a copy in the training folder.

    Returns
    -------
    pandas.DataFrame
        Index = name; seeds, then mean, sd (sample standard deviation, NaN for one seed), lowest and
        highest of all test images, and mean and sd of the leak-free ones.
    """
    rows, free = {}, set(free_ids)
    for name, tables in tested.items():
        whole, without = (
            np.array([100 * metrics.correct(t).mean() for t in kept])
            for kept in (tables, [t[t["image_id"].isin(free)] for t in tables])
        )
        rows[name] = {
            "seeds": len(tables),
            "mean": whole.mean(),
            "sd": whole.std(ddof=1) if len(tables) > 1 else np.nan,
            "lowest": whole.min(),
            "highest": whole.max(),
            "mean_leak_free": without.mean(),
            "sd_leak_free": without.std(ddof=1) if len(tables) > 1 else np.nan,
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("row")
    return table.astype({"seeds": int})


def class_report(report: pd.DataFrame) -> pd.DataFrame:
    """Table 4 to print: a row a model and class, all test images and the leak-free ones; accuracy
    (%) with its interval beside the weighted row.
    """
    at, rows = report.set_index(["row", "metric"]), {}
    for row in report.loc[report["metric"] == "f1", "row"]:
        model, class_name = row.split(".")
        cells = {"model": TITLES.get(model, model), "class": class_name}
        for column, suffix in (("value", ""), ("leak_free", " (leak-free)")):
            cells |= {
                ("F1" if m == "f1" else m) + suffix: at.loc[(row, m), column] for m in CLASS_METRICS
            }
        whole = at.loc[(model, "accuracy")] if class_name == "weighted" else {}
        for column, suffix in (("", ""), ("leak_free", " (leak-free)")):
            value, low, high = (
                whole.get(f"{column}_{end}".strip("_") if end else column or "value", np.nan)
                for end in ("", "low", "high")
            )
            cells |= {
                f"accuracy %{suffix}": value,
                f"95 % interval{suffix}": None if np.isnan(low) else f"{low:.2f} to {high:.2f}",
            }
        rows[row] = cells
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("row")


def cost_table(costs: pd.DataFrame, report: pd.DataFrame) -> pd.DataFrame:
    """Table 5: parameters (millions), MACs of one image (thousand millions), training time
    (minutes) and accuracy (percent, both test sets).

    Parameters
    ----------
    costs : pandas.DataFrame
        Index = model keys; columns parameters, macs (counts), seconds, and optionally device;
        others are kept as they are.
    report : pandas.DataFrame
        From :func:`report_table`.
    """
    whole = report[report["metric"] == "accuracy"].set_index("row").reindex(costs.index)
    own = {
        "model": [TITLES.get(k, k) for k in costs.index],
        "parameters": costs["parameters"] / 1e6,
        "macs": costs["macs"] / 1e9,
        "training_time": costs["seconds"] / 60,
    }
    ends = {
        "value": "accuracy",
        "low": "accuracy_low",
        "high": "accuracy_high",
        "leak_free": "accuracy_leak_free",
    }
    rest = costs.drop(columns=["parameters", "macs", "seconds"])
    return pd.concat(
        [pd.DataFrame(own, costs.index), whole[list(ends)].rename(columns=ends), rest], axis=1
    ).rename_axis("row")


def time_table(times: dict | pd.DataFrame) -> pd.DataFrame:
    """Table 6: prediction time of one image by protocol, fastest mean first; milliseconds.

    Parameters
    ----------
    times : dict or pandas.DataFrame
        Model key -> list of ``kit.evaluation.timing.Times``; or one row a timed image: model (key),
        protocol ("predict": one by one as published), ms.

    Returns
    -------
    pandas.DataFrame
        Index = model keys; columns model, protocol, min, max, avg, q1, median, q3, n.
    """
    if isinstance(times, dict):
        times = pd.concat(
            [
                pd.DataFrame({"model": m, "protocol": one.protocol, "ms": np.ravel(one.ms)})
                for m, found in times.items()
                for one in found
            ]
        )
    grouped = times.groupby(["protocol", "model"], sort=False)["ms"]
    table = grouped.agg(
        min="min",
        max="max",
        avg="mean",
        q1=lambda v: v.quantile(0.25),
        median="median",
        q3=lambda v: v.quantile(0.75),
        n="size",
    ).reset_index()
    order = list(dict.fromkeys([PUBLISHED_PROTOCOL, *times["protocol"]]))
    table = (
        table.assign(rank=table["protocol"].map(order.index))
        .sort_values(["rank", "avg"], ignore_index=True)
        .drop(columns="rank")
    )
    table.insert(0, "row", table.pop("model"))
    table.insert(1, "model", table["row"].map(lambda key: TITLES.get(key, key)))
    return table.set_index("row")


def comparison_table(
    report: pd.DataFrame, costs: pd.DataFrame, times: pd.DataFrame, model: str = "resnet50"
) -> pd.DataFrame:
    """Table 7: the printed rows (source "literature", "published") and below them `model` of this
    run; arguments are Tables 4 (long), 5 and 6.
    """
    table = published_table("table-7")
    table.insert(
        0, "source", ["published" if row == "resnet50" else "literature" for row in table.index]
    )
    at = report.set_index(["row", "metric"])["value"]
    mean = times[(times.index == model) & (times["protocol"] == PUBLISHED_PROTOCOL)]["avg"]
    ours = {m: at.get((f"{model}.weighted", m)) for m in CLASS_METRICS} | {
        "accuracy": at.get((model, "accuracy"))
    }
    ours |= {
        "source": "this run",
        "model": TITLES.get(model, model),
        "training_time": costs["training_time"].get(model),
    }
    table.loc[f"{model}.ours"] = pd.Series(
        ours | {"prediction_time": mean.iloc[0] if len(mean) else None}, dtype=object
    ).reindex(table.columns)
    return table.where(table.notna(), None)


# --- values beside the published ones -------------------------------------------------------------


def store_wide(
    writers: dict,
    artefact: str,
    table: pd.DataFrame,
    default: Artefacts | None = None,
    exact: Collection[str] = (),
) -> None:
    """Put the cells of a wide table (index = row keys) that the paper prints, and does not merely
    quote, beside its values.

    Parameters
    ----------
    writers : dict
        Model key -> writer.
    artefact : str
    table : pandas.DataFrame
        ``<column>_low``, ``<column>_high`` and ``<column>_leak_free`` are taken for the column's
        interval and leak-free value.
    default : kit.report.artefacts.Artefacts or None
        Writer of the rows that are no model.
    exact : collection of str
        Columns that depend on neither data nor settings (parameter counts).
    """
    known = papers.load("cad").values
    for row, cells in table.iterrows():
        out = writers.get(str(row).split(".")[0], default)
        for column, value in cells.items():
            entry = known.get(f"{artefact}/{row}/{column}")
            if out is not None and entry is not None and not entry.literature and pd.notna(value):
                ends = cells.get(f"{column}_low"), cells.get(f"{column}_high")
                out.value(
                    entry.id,
                    value,
                    None if ends[0] is None else ends,
                    cells.get(f"{column}_leak_free"),
                    exact=column in exact,
                )


def store_times(writers: dict, times: pd.DataFrame) -> None:
    """Table 6's values: the published protocol only."""
    store_wide(writers, "table-6", times[times["protocol"] == PUBLISHED_PROTOCOL])


def store_comparison(writers: dict, table: pd.DataFrame, model: str = "resnet50") -> None:
    """Table 7's values: the row of this run from :func:`comparison_table`."""
    store_wide(
        writers,
        "table-7",
        table.loc[[f"{model}.ours"]]
        .rename(index={f"{model}.ours": model})
        .drop(columns=["source", "model", "reference"]),
    )
