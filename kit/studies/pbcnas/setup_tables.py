"""The tables of PBC-NAS in 3D that say what was used (1 to 3): data, search space, settings."""

import numpy as np
import pandas as pd

from kit.data import registry
from kit.published import papers
from kit.search.evolution.opposition_settings import MODES, ODESettings
from kit.search.nas3d import proxy as nas3d_proxy
from kit.search.nas3d import space
from kit.studies.pbcnas.plan import Plan
from kit.studies.pbcnas.tables import data_title

JUDGED = {
    "accuracy": "best validation accuracy of the proxy training",
    "loss": "lowest validation loss of the proxy training",
}
BIASES = {
    "zeros": "zero",
    "torch": "uniform within one over the square root of the inputs",
}


def data_table(plan: Plan, loaded: dict) -> pd.DataFrame:
    """Table 1: data set, size, classes, volumes by part and in the proxy, share of the largest test
    class, fingerprint.
    """
    rows = []
    for key, name in plan.datasets:
        inputs, parts = loaded[key]
        counts, proxy = inputs.index["split"].value_counts(), nas3d_proxy.parts(inputs, plan.proxy)
        rows.append(
            {
                "data": data_title(key, name),
                "voxels": " × ".join(map(str, inputs.x.shape[1:4])),
                "classes": len(registry.get(name).classes),
                **{part: int(counts[part]) for part in ("train", "val", "test")},
                "proxy train": len(proxy["train"]),
                "proxy val": len(proxy["val"]),
                "largest test class": float(
                    np.bincount(inputs.labels[parts["test"]]).max() / len(parts["test"])
                ),
                "fingerprint": registry.facts(name)["fingerprint"][:12],
            }
        )
    return pd.DataFrame(rows)


def store_data(writers: dict, table: pd.DataFrame, plan: Plan) -> None:
    """Put our counts beside those of Table 1, where the published set was used."""
    for (key, name), (_, line) in zip(plan.datasets, table.iterrows(), strict=True):
        if not name.startswith(f"{key}mnist3d"):
            continue
        for ours, published in (
            ("train", "train"),
            ("val", "val"),
            ("test", "test"),
            ("proxy train", "proxy_train"),
            ("proxy val", "proxy_val"),
            ("classes", "classes"),
        ):
            counted = plan.proxy.fraction == 4 or not published.startswith(
                "proxy"
            )  # nothing else of the settings changes a count
            writers[key].value(f"table-1/{key}/{published}", line[ours], data=name, exact=counted)


def space_table() -> pd.DataFrame:
    """Table 2: operation, kernel, parameters at the three widths, multiply-adds at 28 voxels and 8
    channels.
    """
    return pd.DataFrame(
        [
            {
                "index": n,
                "operation": o.name,
                "kernel": "×".join([str(o.kernel)] * 3),
                **{f"parameters, {c} channels": o.parameters(c) for c in space.FILTERS},
                "MMACs, 8 channels": o.macs(8, 28**3) / 1e6,
            }
            for n, o in enumerate(space.OPERATIONS)
        ]
    )


def genome_table(plan: Plan) -> pd.DataFrame:
    """The layout of the genome: genes, meaning, published choices, choices of this run."""
    rows = [
        ("0 to 20", "edge between two of seven vertices", "off, on", "off, on"),
        (
            "21 to 25",
            "operation of vertices 1 to 5",
            "15",
            f"{len(plan.operations)}: " + ", ".join(space.NAMES[n] for n in plan.operations),
        ),
        ("26", "cells in a stack", _listed(space.CELLS), _listed(plan.cells)),
        ("27", "stacks", _listed(space.STACKS), _listed(plan.stacks)),
        ("28", "channels of the first stack", _listed(space.FILTERS), _listed(plan.filters)),
    ]
    return pd.DataFrame(rows, columns=["genes", "meaning", "published", "this run"])


def settings_table(plan: Plan) -> pd.DataFrame:
    """Table 3: setting, released code, this run."""
    printed, used = papers.load("pbcnas").hyperparameters, plan.settings("ode", plan.seeds[0])
    rows = [*_search_rows(plan, printed, used), *_training_rows(plan, printed)]
    return pd.DataFrame(
        [
            {"setting": name, "released code": str(theirs), "this run": str(ours)}
            for name, theirs, ours in rows
        ]
    )


def _search_rows(plan: Plan, printed: dict, used: ODESettings) -> list[tuple]:
    """Setting, released code, this run: of the evolution and what it judges by."""
    return [
        ("Population", printed["population"], used.population),
        ("Models to train", printed["budget_models"], used.budget),
        (
            "Mutation",
            f"{printed['mutation']}, factor {printed['mutation_factor']}",
            f"DE/rand/1, factor {used.factor}",
        ),
        (
            "Crossover",
            f"binomial, rate {printed['crossover_rate']}",
            f"binomial, rate {used.crossover}",
        ),
        ("Opposites at the start", "yes", "yes" if used.opposite_init else "no"),
        ("Jumping rate", printed["jumping_rate"], used.jumping),
        ("Genes out of bounds", printed["bounds"], "drawn anew"),
        ("Selection", printed["selection"], "one to one, ties to the trial"),
        ("Seeds of the search", printed["search_seed"], _listed(plan.seeds)),
        ("Objective", printed["objective"], JUDGED[plan.proxy.judge]),
        (
            "Proxy: validation volumes",
            "1/4",
            "all" if plan.proxy.validation == "all" else f"1/{plan.proxy.fraction}",
        ),
        (
            "Infeasible genomes of the initial set",
            "kept, with the worst fitness",
            {"kept": "kept, with the worst fitness", "redrawn": "drawn anew"}[used.infeasible],
        ),
        (
            "Biases at the start",
            BIASES["torch"] + " (PyTorch's default)",
            BIASES[plan.proxy.biases],
        ),
    ]


def _training_rows(plan: Plan, printed: dict) -> list[tuple]:
    """Setting, released code, this run: of the networks that may be, the proxy and the final
    trainings.
    """
    return [
        ("Most multiply-adds", "none", f"{plan.most_gmacs:g} G" if plan.most_gmacs else "none"),
        ("Proxy: share of the data", "1/4", f"1/{plan.proxy.fraction}"),
        (
            "Proxy: epochs, patience",
            f"{printed['proxy_epochs']}, {printed['proxy_patience']}",
            f"{plan.proxy.epochs}, {plan.proxy.patience}",
        ),
        (
            "Proxy: batch, rate",
            f"{printed['proxy_batch_size']}, {printed['proxy_learning_rate']}",
            f"{plan.proxy.batch_size}, {plan.proxy.learning_rate:g}",
        ),
        (
            "Final: epochs, batch, rate",
            f"{printed['final_epochs']}, {printed['final_batch_size']}, "
            f"{printed['final_learning_rate']}",
            f"{plan.final.epochs}, {plan.final.batch_size}, {plan.final.learning_rate:g}",
        ),
        ("Final: seeds", _listed(printed["final_seeds"]), _listed(plan.final_seeds)),
        (
            "Final: initial weights",
            "kernels new, biases and normalisations from the search (warm start; not stated)",
            "kernels new, biases and normalisations from the search (warm start)"
            if plan.warm_start
            else "all new",
        ),
    ]


def modes_table(plan: Plan) -> pd.DataFrame:
    """Where the released search slips and the repaired one differs: choice, paper, clean,
    this run.
    """
    used = plan.settings("ode", plan.seeds[0])
    return pd.DataFrame(
        [
            {
                "choice": name.replace("_", " "),
                "paper": _said(MODES["paper"][name]),
                "clean": _said(MODES["clean"][name]),
                "this run": _said(getattr(used, name)),
            }
            for name in MODES["paper"]
        ]
    )


def _listed(numbers) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def _said(value) -> str:
    return (
        {True: "yes", False: "no"}.get(
            value, _listed(value) if isinstance(value, tuple) else str(value)
        )
        if not isinstance(value, str)
        else value
    )
