"""The error analysis of the six-model CAD framework: who misses which images, how many images they
really are, and which differences count.

What differs from the paper: it counts file names, of which several are the same image (three of the
names in its Figure 9 are one); here every count is given by name and by image. It ranks models by
accuracies 0.07 points apart; here every pair has an exact McNemar test, corrected for the number of
pairs (Holm), also on images without copies. It does not look at calibration.

`tables` and `writers` are those of :mod:`kit.studies.cad.tables`; `copy_of` comes from
:func:`kit.studies.cad.split.copies`.
"""

from collections.abc import Collection, Iterable, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from kit.data import duplicates
from kit.evaluation import metrics, stats
from kit.published import papers
from kit.studies.cad.published_tables import BEST, CLASSES, MODELS, TITLES
from kit.studies.cad.split import copies, published_parts


def missed(tables: dict) -> pd.DataFrame:
    """Images that at least one model gets wrong, most often missed first: image_id, label, wrong
    (number of models), and a column a model with the predicted label where it is wrong (Int64,
    missing where it is right).
    """
    first = next(iter(tables.values())).set_index("image_id")["label"]
    said = pd.DataFrame(
        {model: _said(table).reindex(first.index) for model, table in tables.items()}
    ).astype("Int64")
    said = said.where(said.ne(first, axis=0))
    found = (
        said.assign(label=first, wrong=said.notna().sum(axis=1)).query("wrong > 0").reset_index()
    )
    return found.sort_values(["wrong", "image_id"], ascending=[False, True], ignore_index=True)[
        ["image_id", "label", "wrong", *tables]
    ]


def _said(table: pd.DataFrame) -> pd.Series:
    return pd.Series(metrics.labels_and_scores(table)[1].argmax(1), table["image_id"])


def venn_counts(tables: dict, copy_of: pd.Series, models: Iterable[str] = BEST) -> pd.DataFrame:
    """Figure 10: how many misclassified images lie in each region of the Venn diagram of `models`.

    Returns
    -------
    pandas.DataFrame
        Index "resnet50", "resnet50+xception" ... (missed by exactly these); columns images (file
        names) and distinct (names that are one image, by `copy_of` of :func:`copies`, count once; a
        group counts as missed by a model that misses any of it).
    """
    wrong = missed({m: tables[m] for m in models}).set_index("image_id")[list(models)].notna()
    grouped = wrong.groupby(copy_of.reindex(wrong.index).to_numpy()).any()
    regions = [part for size in range(1, len(models) + 1) for part in combinations(models, size)]
    count = {
        "+".join(r): [
            int((frame[list(models)] == [m in r for m in models]).all(axis=1).sum())
            for frame in (wrong, grouped)
        ]
        for r in regions
    }
    return pd.DataFrame.from_dict(
        count, orient="index", columns=["images", "distinct"]
    ).rename_axis("missed by")


def missed_by_all(
    name: str, tables: dict, models: Iterable[str] = BEST, level: str = duplicates.LEVEL
) -> pd.DataFrame:
    """Images that every one of `models` gets wrong, with their copies.

    Returns
    -------
    pandas.DataFrame
        image_id, label, a column a model (predicted label), distinct (number of the image: equal
        numbers are one image), copies_in_training ("file (part)" joined by blanks; part "train" or
        "val" of :func:`published_parts`).
    """
    found, group = missed({m: tables[m] for m in models}), copies(name, level)
    found = found[found["wrong"] == len(models)]
    part_of = {
        i: part for part, ids in published_parts(name).items() for i in ids if part != "test"
    }
    members = {
        g: [f"{i.rsplit('/', 1)[-1]} ({part_of[i]})" for i in ids if i in part_of]
        for g, ids in group.index.groupby(group).items()
    }
    codes = group.reindex(found["image_id"]).to_numpy()
    found = found.assign(
        distinct=pd.factorize(codes)[0] + 1,
        copies_in_training=[" ".join(members[code]) for code in codes],
    )
    return found.drop(columns="wrong").reset_index(drop=True)


def error_table(tables: dict, copy_of: pd.Series, free_ids: Collection[str]) -> pd.DataFrame:
    """Errors a model: images, errors, distinct (copies counted once), errors among images with a
    copy in training and without, and both error rates (%).
    """
    rows, free = {}, set(free_ids)
    for model, table in tables.items():
        wrong, clean = ~metrics.correct(table), table["image_id"].isin(free).to_numpy()
        rates = {
            f"rate_{word} %": 100 * wrong[part].mean() if part.any() else np.nan
            for word, part in (("copied", ~clean), ("leak_free", clean))
        }
        rows[model] = {
            "model": TITLES.get(model, model),
            "images": len(table),
            "errors": int(wrong.sum()),
            "distinct": copy_of.reindex(table["image_id"][wrong]).nunique(),
            "errors_copied": int((wrong & ~clean).sum()),
            "errors_leak_free": int((wrong & clean).sum()),
            **rates,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("row")


def pair_tests(tables: dict, copy_of: pd.Series | None = None) -> pd.DataFrame:
    """Exact McNemar test of every pair of models, with Holm's correction over all pairs.

    Parameters
    ----------
    tables : dict
        Model key -> predictions of the same images.
    copy_of : pandas.Series or None
        From :func:`copies`; given, only the first image of each group is used, because copies are
        not independent.

    Returns
    -------
    pandas.DataFrame
        first, second, only_first_right, only_second_right, difference (pp), n, p, p_holm.
    """
    right = pd.DataFrame(
        {model: pd.Series(metrics.correct(t), t["image_id"]) for model, t in tables.items()}
    )
    if right.isna().to_numpy().any():
        raise stats.BadSample(
            "The models were tested on different images; compare them on the same test part."
        )
    if copy_of is not None:
        right = right[~pd.Series(copy_of.reindex(right.index).to_numpy()).duplicated().to_numpy()]
    rows = []
    for a, b in combinations(right, 2):
        test = stats.mcnemar_exact(right[a], right[b])
        rows.append(
            {
                "first": a,
                "second": b,
                "only_first_right": int(test.statistic),
                "only_second_right": int((~right[a].astype(bool) & right[b]).sum()),
                "difference (pp)": 100 * test.estimate,
                "n": test.n,
                "p": test.p,
            }
        )
    table = pd.DataFrame(rows)
    return table.assign(p_holm=stats.holm(table["p"])) if len(table) else table


def calibration_table(tables: dict, free_ids: Collection[str]) -> pd.DataFrame:
    """Top-label calibration a model: mean confidence, accuracy and expected calibration error (%),
    all images and the leak-free ones.
    """
    rows, free = {}, set(free_ids)
    for model, table in tables.items():
        rows[model] = {"model": TITLES.get(model, model)}
        for suffix, part in (("", table), (" (leak-free)", table[table["image_id"].isin(free)])):
            if len(part):
                labels, scores = metrics.labels_and_scores(part)
                values = (
                    scores.max(1).mean(),
                    (scores.argmax(1) == labels).mean(),
                    metrics.calibration(part).ece,
                )
                rows[model] |= dict(
                    zip(
                        (f"confidence %{suffix}", f"accuracy %{suffix}", f"ECE %{suffix}"),
                        100 * np.array(values),
                        strict=True,
                    )
                )
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("row")


# --- values beside the published ones -------------------------------------------------------------


def matrix(table: pd.DataFrame) -> np.ndarray:
    """Confusion matrix of a table of predictions, int (C, C), rows = true."""
    labels, scores = metrics.labels_and_scores(table)
    return metrics.confusion(labels, scores.argmax(1), scores.shape[1])


def store_matrices(writers: dict, tables: dict, classes: Sequence[str] = CLASSES) -> None:
    """Put the cells of the confusion matrices beside those of Figures 8 and 15, and the counts that
    the text takes from them.
    """
    known = papers.load("cad").values
    for model, table in tables.items():
        cells, artefact = matrix(table), "figure-15" if model == "resnet50-noaug" else "figure-8"
        named = {
            f"{artefact}/{model}.{t}/{s}": cells[i, j]
            for i, t in enumerate(classes)
            for j, s in enumerate(classes)
        }
        named |= {f"claims/{model}.{key}": count for key, count in _sums(cells, classes).items()}
        for value_id in [v for v in named if v in known]:
            writers[model].value(value_id, int(named[value_id]), n=len(table))


def _sums(cells: np.ndarray, classes) -> dict:
    """Every count that a sentence can make of a confusion matrix: "<class>-predicted.from-<class>",
    "<class>-true.total" ...
    """
    found = {}
    for k, c in enumerate(classes):
        found |= {
            f"{c}-predicted.total": cells[:, k].sum(),
            f"{c}-true.total": cells[k].sum(),
            f"{c}-predicted.correct": cells[k, k],
            f"{c}-true.correct": cells[k, k],
        }
        for other, name in enumerate(classes):
            found |= {
                f"{c}-predicted.from-{name}": cells[other, k],
                f"{c}-true.as-{name}": cells[k, other],
            }
    return found


def store_errors(
    writers: dict,
    tables: dict,
    healthy: int = CLASSES.index("notumor"),
    called: int = CLASSES.index("glioma"),
) -> None:
    """Put the counts of Figures 9 (images of class `healthy` called `called`) and 10 (errors)
    beside the published ones, for :data:`kit.studies.cad.published_tables.BEST`.
    """
    table = missed({m: tables[m] for m in BEST})
    confused = (table[list(BEST)] == called).fillna(False).astype(bool)[table["label"] == healthy]
    for model in BEST:
        writers[model].value(f"figure-9/{model}/no_tumour_as_glioma", int(confused[model].sum()))
        writers[model].value(
            f"figure-10/{model}/errors", int(table[model].notna().sum()), n=len(tables[model])
        )
    writers[BEST[0]].value(
        "figure-9/all-three/no_tumour_as_glioma", int(confused.all(axis=1).sum())
    )
    writers[BEST[0]].value(
        "figure-10/all-three/errors",
        int((table["wrong"] == len(BEST)).sum()),
        n=len(tables[BEST[0]]),
    )


def store_claims(writers: dict, report: pd.DataFrame, ablation: pd.DataFrame | None = None) -> None:
    """Put the accuracies, rates and gains that the text states beside ours.

    Parameters
    ----------
    writers : dict
    report : pandas.DataFrame
        From ``cad.report_table``.
    ablation : pandas.DataFrame or None
        From ``cad.accuracy_table`` with the columns "original" and "preprocessed"; gives the gains
        from preprocessing.
    """
    at = report.set_index(["row", "metric"])
    same = {
        "mobilenetv2.accuracy": ("mobilenetv2", "accuracy"),
        "best-accuracy": ("resnet50", "accuracy"),
        "augmentation.with": ("resnet50", "accuracy"),
        "augmentation.without": ("resnet50-noaug", "accuracy"),
        "augmentation.glioma-recall": ("resnet50-noaug.glioma", "recall"),
        "augmentation.meningioma-precision": ("resnet50-noaug.meningioma", "precision"),
    }
    for claim, key in same.items():
        model = key[0].split(".")[0]
        if key in at.index and model in writers:
            row = at.loc[key]
            writers[model].value(
                f"claims/{claim}",
                row["value"],
                (row["low"], row["high"]),
                leak_free=row["leak_free"],
                leak_free_interval=(row["leak_free_low"], row["leak_free_high"]),
                n=row["n"],
            )
    if ablation is not None:
        wide = ablation.pivot(index="row", columns="metric", values=["value", "leak_free"])
        gain, free = (
            wide[(column, "preprocessed")] - wide[(column, "original")]
            for column in ("value", "leak_free")
        )
        if "mobilenetv2" in gain.index:
            writers["mobilenetv2"].value(
                "claims/preprocessing.gain-mobilenetv2",
                gain["mobilenetv2"],
                leak_free=free["mobilenetv2"],
            )
        if set(MODELS) <= set(gain.index):
            writers[MODELS[0]].value(
                "claims/preprocessing.gain-mean",
                gain[list(MODELS)].mean(),
                leak_free=free[list(MODELS)].mean(),
            )


def convergence(histories: dict, level: float = 0.95) -> pd.DataFrame:
    """When validation accuracy first reached `level` (epoch, missing if never), its best, its last
    value and its spread over the last five epochs (%).

    The paper calls models converged without saying when a model is; `level` is our choice.
    """
    rows = {}
    for model, history in histories.items():
        seen, epochs = history["val_accuracy"].to_numpy(), history["epoch"].to_numpy()
        first = epochs[seen >= level]
        rows[model] = {
            "model": TITLES.get(model, model),
            f"first epoch at {level:g}": first[0] if len(first) else pd.NA,
            "best epoch": epochs[seen.argmax()],
            "best %": 100 * seen.max(),
            "last %": 100 * seen[-1],
            "SD of last five (pp)": 100 * np.std(seen[-5:], ddof=1) if len(seen) > 1 else np.nan,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("row")
