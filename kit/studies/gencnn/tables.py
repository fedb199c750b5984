"""The tables of Gen-CNN: from finished searches and saved predictions to numbers beside the
published ones.

Nothing here sees a model. What differs from the thesis: every rate on the test images has an
interval (Wilson for accuracy, bootstrap over duplicate groups for the others) and a second value on
the images without a near-duplicate in training; repetitions have a t interval; the rivals are run
with the same genes and the same number of evaluations instead of quoted; what the thesis leaves
open is answered by :mod:`kit.studies.gencnn.answers`. F1 is that of the macro averages (eq. 2.65),
which fits the printed rows; the mean of the classes' F1, which the released code computes, stands
beside it. All are fractions, as in the thesis.
"""

import numpy as np
import pandas as pd

from kit import files, record
from kit.data import duplicates, registry, three_parts
from kit.evaluation import metrics, stats
from kit.models import architecture_catalog
from kit.published import papers
from kit.report import artefacts, plots
from kit.report import results as report_results
from kit.studies.gencnn import plan as gencnn_plan
from kit.studies.gencnn import runs as gencnn_runs
from kit.studies.gencnn.answers import METHODS
from kit.studies.gencnn.plan import MEDICAL, PUBLISHED, TITLES, Plan, thesis_name
from kit.studies.gencnn.runs import Found

NOTEBOOK = "40_gencnn_ga"
COMPARISONS = dict(zip(MEDICAL, ("table-3-6", "table-3-7", "table-3-8"), strict=True))
MATRICES = dict(zip(MEDICAL, ("figure-3-8", "figure-3-9", "figure-3-10"), strict=True))
SAMPLES = dict(zip(TITLES, ("figure-3-4", "figure-3-5", "figure-3-6", "figure-3-7"), strict=True))
METRICS = {
    "accuracy": "accuracy",
    "f1": "f1_of_macros",
    "mcc": "mcc",
    "f1_mean": "macro_f1",
    "recall": "macro_recall",
    "specificity": "macro_specificity",
}
QUOTED = {
    "ga-reference": "GA, quoted",
    "pso-reference": "PSO, quoted",
    "abc-reference": "ABC, quoted",
}
OUR_GENES = "architecture, lr, weight decay, loss, optimizer"
SETTINGS = (
    ("generations", "generations"),
    ("individuals", "individuals"),
    ("epochs an individual", "epochs_per_individual"),
    ("image side, search (px)", "image_size"),
    ("fitness", "fitness"),
    ("crossover probability", "crossover_probability"),
    ("mutation probability", "mutation_probability"),
    ("order of the genes", "gene_order"),
    ("factor on the learning rate", "lr_scale"),
    ("weight decay", "weight_decay"),
    ("batch, search", "code_hpo_batch"),
    ("epochs, final", "final_epochs"),
    ("image side, final (px)", "final_image_size"),
    ("scheduler, final", "final_lr_scheduler"),
    ("batch, final", "code_final_batch_at_448"),
)


def writer(plan: Plan, role: str | None = None) -> artefacts.Artefacts:
    """Writer of a data set's artefacts with its stand-ins and reductions; without a role, of what
    needs no data.
    """
    if role is None:
        return artefacts.Artefacts("gencnn", plan.profile, NOTEBOOK)
    dataset = plan.convergence if role == "sign-language-digits" else dict(plan.medical)[role]
    study = "medical" if role in MEDICAL else "convergence"
    return artefacts.Artefacts(
        "gencnn",
        plan.profile,
        NOTEBOOK,
        dataset,
        gencnn_plan.stand_in(plan, role),
        gencnn_plan.notes(plan, study),
    )


def data_writer(plan: Plan, role: str) -> artefacts.Artefacts:
    """Writer of what shows a data set only: its stand-in, but nothing about trainings."""
    dataset = plan.convergence if role == "sign-language-digits" else dict(plan.medical)[role]
    return artefacts.Artefacts(
        "gencnn",
        plan.profile,
        NOTEBOOK,
        dataset,
        None if dataset == PUBLISHED[role] else f"{dataset} in place of {TITLES[role]}",
    )


# --- what needs no training -----------------------------------------------------------------------


def architecture_table(plan: Plan) -> pd.DataFrame:
    """Table 3.1: family and FLOPs as printed, multiply-accumulates at 224 px and parameters as
    counted here, and what this run searches; the last line is not the thesis'.
    """
    paper, rows = papers.load("gencnn"), []
    for name in dict.fromkeys([*architecture_catalog.TABLE_3_1, *plan.architectures]):
        entry, key = architecture_catalog.entry(name), f"table-3-1/{thesis_name(name)}"
        start = (
            {"imagenet": "ImageNet", None: "random"}[plan.initial()[name]]
            if name in plan.architectures
            else "not searched"
        )
        rows.append(
            {
                "family": paper.texts.get(f"{key}/family", "–"),
                "architecture": entry.label,
                "FLOPs, printed": paper.texts.get(f"{key}/flops_printed", "–"),
                "MACs at 224 px (M)": entry.macs / 1e6,
                "parameters (M)": entry.parameters / 1e6,
                "weights in this run": start,
            }
        )
    return pd.DataFrame(rows)


def store_architectures(out) -> None:
    """Put the counted multiply-accumulates beside the printed FLOPs."""
    for name in architecture_catalog.TABLE_3_1:
        out.value(
            f"table-3-1/{thesis_name(name)}/flops",
            architecture_catalog.entry(name).macs / 1e6,
            exact=True,
        )


def split_rule() -> pd.DataFrame:
    """Table 3.2: images a class in the three parts of the published sets, as the released rule
    makes them from the class counts; key, data set, class, train, valid, test.

    The thesis' own BreaKHis counts differ by one in places: each class folder seems to have held
    one more file, which is no image.
    """
    rows = []
    for role, name in PUBLISHED.items():
        counts = [
            (path.rsplit("/", 1)[-1], count) for path, count in registry.get(name).counts.items()
        ]
        parts = [
            (label.lower().replace("_", "-"), *three_parts.three_way_counts(count))
            for label, count in counts
        ]
        parts.append(("total", *(sum(part[i] for part in parts) for i in (1, 2, 3))))
        rows += [
            {
                "key": f"{role}.{label}",
                "data set": TITLES[role],
                "class": label,
                "train": a,
                "valid": b,
                "test": c,
            }
            for label, a, b, c in parts
        ]
    return pd.DataFrame(rows)


def store_split(out, table: pd.DataFrame) -> None:
    """Put the counts of :func:`split_rule` beside the printed ones; they follow from the
    publications' class counts alone.
    """
    for line in table.to_dict("records"):
        for column in ("train", "valid", "test"):
            out.value(f"table-3-2/{line['key']}/{column}", line[column], exact=True)
        if line["class"] == "total":
            out.value(
                f"table-3-2/{line['key']}/all",
                line["train"] + line["valid"] + line["test"],
                exact=True,
            )


def part_table(plan: Plan) -> pd.DataFrame:
    """Images a class of the sets that this run uses: train, valid, test, and test without a
    near-duplicate in training.
    """
    rows = []
    for name in dict.fromkeys([plan.convergence, *dict(plan.medical).values()]):
        inputs, parts = gencnn_runs.images_of(plan, name)
        ids, groups = inputs.index["image_id"].to_numpy(), duplicates.groups(name)
        free = parts["test"][
            duplicates.leak_free(
                registry.index(name), groups, ids[parts["train"]], pd.Series(ids[parts["test"]])
            )
        ]
        counts = [
            np.bincount(inputs.labels[r], minlength=len(registry.get(name).classes))
            for r in (parts["train"], parts["val"], parts["test"], free)
        ]
        for label, *cells in [
            *zip(registry.get(name).classes, *counts, strict=True),
            ("total", *(c.sum() for c in counts)),
        ]:
            rows.append(
                {
                    "data set": name,
                    "class": label,
                    **dict(
                        zip(
                            ("train", "valid", "test", "test_leak_free"),
                            map(int, cells),
                            strict=True,
                        )
                    ),
                }
            )
    return pd.DataFrame(rows)


def settings_table(plan: Plan) -> pd.DataFrame:
    """Table 3.4: what the thesis states (or its released code, where it does not) and what this run
    does.
    """
    stated, ours = (
        papers.load("gencnn").hyperparameters,
        plan.settings(plan.generations, plan.individuals, plan.seed),
    )
    genes = {gene.name: gene for gene in plan.genome().genes}
    used = {
        "generations": plan.generations,
        "individuals": plan.individuals,
        "epochs_per_individual": plan.epochs,
        "image_size": plan.size,
        "fitness": f"{'validation' if plan.fitness_part == 'val' else 'training'} {plan.fitness}",
        "crossover_probability": ours.crossover,
        "mutation_probability": ours.mutation,
        "gene_order": tuple(genes),
        "lr_scale": (genes["learning_rate"].low, genes["learning_rate"].high),
        "weight_decay": (genes["weight_decay"].low, genes["weight_decay"].high),
        "code_hpo_batch": plan.batch,
        "final_epochs": plan.final_epochs,
        "final_image_size": plan.final_size,
        "final_lr_scheduler": "cosine to a tenth, every step",
        "code_final_batch_at_448": plan.final_batch,
    }
    lines = [
        (
            label,
            _plain(stated[key][0] if key.endswith("image_size") else stated[key]),
            _plain(used[key]),
            "released code" if key.startswith("code_") else "thesis",
        )
        for label, key in SETTINGS
    ]
    lines += [
        (
            "convergence study: repetitions",
            _plain(stated["convergence_repetitions"]),
            _plain(plan.repetitions),
            "thesis",
        ),
        (
            "convergence study: generations × individuals",
            "not stated",
            f"{plan.convergence_generations} × {plan.convergence_individuals}",
            "–",
        ),
        ("opponents in the tournament", "1 (code: 2)", str(ours.opponents), "thesis"),
        ("decay", "on SGD, RMSprop, Adamax; not on Adam", plan.decay_mode, "released code"),
    ]
    return pd.DataFrame(lines, columns=["setting", "published", "this run", "published by"])


def _plain(value) -> str:
    return (
        ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
        if isinstance(value, list | tuple)
        else str(value)
    )


# --- searches -------------------------------------------------------------------------------------


def best_table(searches: dict) -> pd.DataFrame:
    """Table 3.5: what each search on a medical set found; one column a set.

    Parameters
    ----------
    searches : dict
        Role -> `kit.studies.gencnn.runs.Found`.
    """
    columns = {}
    for role, found in searches.items():
        first = found.trace[found.trace["fitness"] == found.fitness].iloc[0]
        columns[TITLES[role]] = {
            **_genes(found),
            "validation MCC": f"{found.trained['mcc']:.4f}",
            "optimal generation": str(int(first["generation"]) + 1),
            "evaluations": str(len(found.trace)),
            "of them failed": str(int(found.trace["reason"].notna().sum())),
        }
    return pd.DataFrame(columns).rename_axis("hyperparameter")


def _genes(found: Found) -> dict:
    values = found.values
    return {
        "architecture": architecture_catalog.entry(values["architecture"]).label,
        "loss": values["loss"].replace("_", " "),
        "optimizer": values["optimizer"],
        "factor on the learning rate": f"{values['learning_rate']:.4g}",
        "weight decay": f"{values['weight_decay']:.4g}",
    }


def outcome_table(found: dict, winners: dict, finals: dict) -> pd.DataFrame:
    """One line a search: best fitness, and test accuracy and MCC of its best individual and of its
    final training.

    Parameters
    ----------
    found : dict
        Method -> [Found, ...], from :func:`kit.studies.gencnn.runs.convergence`.
    winners, finals : dict
        (method, seed) -> run, from :func:`kit.studies.gencnn.runs.again` and
        :func:`kit.studies.gencnn.runs.final`; a training that failed is absent.
    """
    rows = []
    for method, searches in found.items():
        for one in searches:
            line = {
                "method": method,
                "seed": one.seed,
                "trainings": len(one.trace),
                "cost": float(one.trace["cost"].sum()),
                "failed": int(one.trace["reason"].notna().sum()),
                "search": one.fitness,
            }
            for name, runs in (("best", winners), ("final", finals)):
                rates = runs[method, one.seed].metrics() if (method, one.seed) in runs else {}
                line |= {
                    f"{name}_{part}_{metric}": rates[part][metric] if rates else np.nan
                    for part in ("val", "test")
                    for metric in ("accuracy", "mcc")
                }
            rows.append(line)
    return pd.DataFrame(rows)


def convergence_table(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Table 3.3: mean and standard deviation of the test accuracy over repetitions; the quoted
    rivals as citations, ours at the same budget.
    """
    paper = papers.load("gencnn")
    rows = [
        {
            "algorithm": title,
            "optimised hyperparameters": paper.texts[f"table-3-3/{row}/hyperparameters"],
            "runs": "30",
            "mean": paper.values[f"table-3-3/{row}/mean"].value,
            "SD": paper.values[f"table-3-3/{row}/std"].value,
            "source": "quoted by the thesis: one AlexNet",
        }
        for row, title in QUOTED.items()
    ]
    rows.append(
        {
            "algorithm": "Gen-CNN, as printed",
            "optimised hyperparameters": paper.texts["table-3-3/gen-cnn/hyperparameters"],
            "runs": "30",
            "mean": paper.values["table-3-3/gen-cnn/mean"].value,
            "SD": paper.values["table-3-3/gen-cnn/std"].value,
            "source": "thesis",
        }
    )
    for method, lines in outcomes.groupby("method", sort=False):
        values = lines["final_test_accuracy"].dropna()
        rows.append(
            {
                "algorithm": METHODS[method],
                "optimised hyperparameters": OUR_GENES,
                "runs": str(len(values)),
                "mean": values.mean(),
                "SD": values.std(ddof=1),
                "source": "this run",
                "search-best mean": lines["best_test_accuracy"].mean(),
                "search-best SD": lines["best_test_accuracy"].std(ddof=1),
                "trainings a search": lines["trainings"].mean(),
                "cost a search": lines["cost"].mean(),
            }
        )
    return pd.DataFrame(rows)


def store_convergence(out, outcomes: pd.DataFrame) -> None:
    """Put mean (with its t interval) and standard deviation of the genetic repetitions beside Table
    3.3's.
    """
    values = outcomes.loc[outcomes["method"] == "genetic", "final_test_accuracy"].dropna()
    if len(values) > 1:
        mean = stats.mean_t(values)
        out.value("table-3-3/gen-cnn/mean", mean.estimate, (mean.low, mean.high))
        out.value("table-3-3/gen-cnn/std", values.std(ddof=1))


# --- test images ----------------------------------------------------------------------------------


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
    rows = []
    for row, (predictions, name, train_ids) in results.items():
        clean = report_results.leak_free(predictions, name, train_ids)
        for metric in METRICS:
            rows.append(
                {
                    "row": row,
                    "metric": metric,
                    **report_results.columns(interval(predictions, metric, resamples), ""),
                    **report_results.columns(interval(clean, metric, resamples), "leak_free"),
                }
            )
    return pd.DataFrame(rows)


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


def store_comparison(out, role: str, lines: pd.DataFrame, architecture: str) -> None:
    """Put accuracy, F1, MCC and FLOPs of the final network beside the printed ones."""
    chosen = lines[lines["metric"].isin(["accuracy", "f1", "mcc"])].assign(row="gen-cnn")
    report_results.store({"gen-cnn": out}, COMPARISONS[role], chosen)
    if len(chosen):
        out.value(
            f"{COMPARISONS[role]}/gen-cnn/flops",
            architecture_catalog.entry(architecture).macs / 1e9,
        )


def show_role(
    plan: Plan, out, role: str, results: pd.DataFrame, found: Found | None, run: record.Run | None
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
