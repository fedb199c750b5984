"""The tables of Gen-CNN: from finished searches and saved predictions to numbers beside the
published ones.

Nothing here sees a model. What differs from the thesis: repetitions have a t interval; the rivals
are run with the same genes and the same number of evaluations instead of quoted; what the thesis
leaves open is answered by :mod:`kit.studies.gencnn.answers`. The final networks' tables stand in
:mod:`kit.studies.gencnn.finals`.
"""

import itertools

import numpy as np
import pandas as pd

from kit.data import duplicates, registry, three_parts
from kit.evaluation import stats
from kit.models import architecture_catalog
from kit.published import papers
from kit.report import artefacts
from kit.studies import shared
from kit.studies.gencnn import plan as gencnn_plan
from kit.studies.gencnn import runs as gencnn_runs
from kit.studies.gencnn.answers import METHODS
from kit.studies.gencnn.plan import MEDICAL, PUBLISHED, TITLES, Plan, thesis_name
from kit.studies.gencnn.runs import Found

NOTEBOOK = "40_gencnn_ga"
SAMPLES = dict(zip(TITLES, ("figure-3-4", "figure-3-5", "figure-3-6", "figure-3-7"), strict=True))
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
        stand_in=gencnn_plan.stand_in(plan, role),
        reductions=gencnn_plan.notes(plan, study),
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


def store_architectures(out: artefacts.Artefacts) -> None:
    """Put the counted multiply-accumulates beside the printed FLOPs, each in its printed unit."""
    printed = papers.load("gencnn").values
    for name in architecture_catalog.TABLE_3_1:
        key = f"table-3-1/{thesis_name(name)}/flops"
        unit = {"GFLOPs": 1e9, "MFLOPs": 1e6}[printed[key].unit]
        out.value(key, architecture_catalog.entry(name).macs / unit, exact=True)


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


def store_split(out: artefacts.Artefacts, table: pd.DataFrame) -> None:
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
    twin in training.
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
        "final_lr_scheduler": f"cosine to {plan.cosine_floor:g} of the rate, every step",
        "code_final_batch_at_448": plan.final_batch,
    }
    lines = [
        (
            label,
            stated[key][0] if key.endswith("image_size") else stated[key],
            used[key],
            "released code" if key.startswith("code_") else "thesis",
        )
        for label, key in SETTINGS
    ]
    lines += [
        (
            "convergence study: repetitions",
            stated["convergence_repetitions"],
            plan.repetitions,
            "thesis",
        ),
        (
            "convergence study: generations × individuals",
            "not stated",
            f"{plan.convergence_generations} × {plan.convergence_individuals}",
            "–",
        ),
        ("opponents in the tournament", "1 (code: 2)", ours.opponents, "thesis"),
        ("decay", "on SGD, RMSprop, Adamax; not on Adam", plan.decay_mode, "released code"),
        (
            "rates and momenta of SGD and RMSprop",
            "PyTorch's defaults (code: 1e-2 and 1e-3, momentum 0.9)",
            "PyTorch's defaults"
            if plan.optimizer_settings == "text"
            else "1e-2 and 1e-3, momentum 0.9",
            "thesis",
        ),
        (
            "momentum of BatchNormalization",
            "not stated",
            "the networks' own" if plan.bn_momentum is None else plan.bn_momentum,
            "–",
        ),
        (
            "jitter of colours",
            "colour jitter (code: brightness 0.5 only)",
            f"brightness {plan.brightness:g}",
            "thesis",
        ),
        ("weights of the final training", "last epoch", plan.final_weights, "released code"),
    ]
    return shared.settings_table(lines, ["setting", "published", "this run", "published by"])


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
    rows, genetic = [], {one.seed: one for one in found.get("genetic", ())}
    for method, searches in found.items():
        for one in searches:
            line = {
                "method": method,
                "seed": one.seed,
                "trainings": len(one.trace),
                "cost": float(one.trace["cost"].sum()),
                "failed": int(one.trace["reason"].notna().sum()),
                "common": common(genetic.get(one.seed), one),
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


def common(genetic: Found | None, other: Found) -> float:
    """How many evaluations two searches of one seed have in common from the first on: the same
    genes, trained alike with the same fitness; NaN without the genetic one.
    """
    if genetic is None:
        return np.nan
    names = [*other.values, "fitness"]
    rows = [
        one.trace.loc[one.trace["cost"] == 1, names].to_dict("records") for one in (genetic, other)
    ]
    equal = (a == b for a, b in zip(*rows, strict=False))
    return float(sum(1 for _ in itertools.takewhile(bool, equal)))


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
                "in common with the genetic search": lines["common"].mean(),
            }
        )
    return pd.DataFrame(rows)


def store_convergence(out: artefacts.Artefacts, outcomes: pd.DataFrame) -> None:
    """Put mean (with its t interval) and standard deviation of the genetic repetitions beside Table
    3.3's.
    """
    values = outcomes.loc[outcomes["method"] == "genetic", "final_test_accuracy"].dropna()
    if len(values) > 1:
        mean = stats.mean_t(values)
        out.value("table-3-3/gen-cnn/mean", mean.estimate, (mean.low, mean.high))
        out.value("table-3-3/gen-cnn/std", values.std(ddof=1))
