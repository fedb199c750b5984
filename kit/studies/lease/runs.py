"""The trainings of the LeaSE paper: its twelve searches, the networks that they lead to, six
hand-designed networks, and a random search of equal budget.

The paper states batches of 64 and 50 epochs for all searches, 12 cells of 36 channels and 3,000
epochs for the evaluation, and one run of everything. Departures: P-DARTS keeps its three stages of
25 epochs; whole pipelines are repeated with several seeds (of the split into halves, the search and
the final training), because a difference between two single ones says nothing; cells drawn at
random, as often, are evaluated beside the searched ones; and whatever is
reduced stands in :func:`notes`. No image selects an epoch: the last weights are reported, and the
accuracy on the test images that Figure 2 follows is looked at only.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

from kit import processes, record
from kit.data import images, registry
from kit.data import inputs as data_inputs
from kit.search.nas2d import derived, memory, random_search, retrain, search
from kit.search.nas2d.genotype import Genotype
from kit.search.nas2d.search_config import SearchConfig
from kit.studies.lease.plan import RANDOM, Plan
from kit.training import train


def inputs_and_parts(plan: Plan) -> tuple[data_inputs.Inputs, dict]:
    """The images, and row numbers of "train" (the plan's share of the training folder) and
    "test".
    """
    inputs = images.load(plan.dataset, plan.image_size, channels=3)
    rows = {part: np.flatnonzero(inputs.index["split"] == part) for part in ("train", "test")}
    rows["train"] = data_inputs.fewer(inputs.labels, rows["train"], plan.images)
    return inputs, rows


def search_configs(plan: Plan, method: str) -> list[SearchConfig]:
    """The search of a method, one configuration a seed."""
    family, options = plan.family(method), {}
    if method.startswith("lease"):
        audience = "vgg13" if method.endswith("vgg13") else "resnet18"
        gamma = float(method.split(".gamma")[1]) if ".gamma" in method else 1.0
        options = {
            "lease": {},
            "gamma": gamma,
            "audience": audience,
            "audience_options": {"width": plan.audience_width},
            "audience_only": method.endswith("audience-only"),
        }
    first = SearchConfig(
        "lease",
        plan.profile,
        method.replace(".", "-"),
        family,
        channels=plan.channels,
        cells=plan.pdarts_cells if family == "pdarts" else plan.cells,
        epochs=plan.pdarts_epochs if family == "pdarts" else plan.search_epochs,
        steps=plan.search_steps,
        batch_size=plan.search_batch,
        mode=plan.mode,
        lr=plan.search_lr,
        arch_lr=plan.arch_lr or None,
        pruning=plan.pruning,
        traced=plan.traced,
        augmentation={} if plan.search_augmented else None,
        seed=plan.seed,
        **options,
    )
    return search.seeds(first, dict(plan.seeds).get(method, 1))


def search_all(
    plan: Plan,
    names: Sequence[str],
    inputs: data_inputs.Inputs,
    parts: data_inputs.PartRows,
    beside_it: dict | None = None,
) -> dict:
    """Searches of several methods with all their seeds: method -> {seed: run}; one that fails is
    reported and left out.

    Parameters
    ----------
    plan : Plan
    names : sequence of str
        Methods.
    inputs, parts
        From :func:`inputs_and_parts`.
    beside_it : dict, optional
        Further arguments of :func:`others`, which a second process does meanwhile; worth its memory
        where searches are short.
    """
    configs = {method: search_configs(plan, method) for method in names}
    missing = any(
        not search.folder(config, inputs, *_halves(config, inputs, parts)).finished
        for same in configs.values()
        for config in same
    )
    second = (
        processes.running(
            "kit.studies.lease.runs:others", plan=asdict(plan), methods=list(names), **beside_it
        )
        if beside_it and missing
        else contextlib.nullcontext()
    )
    with second:
        runs = {}
        for config in (config for same in configs.values() for config in same):
            runs |= search.search_all([config], inputs, *_halves(config, inputs, parts))
    found = {
        method: {config.seed: runs[config.name] for config in same if config.name in runs}
        for method, same in configs.items()
    }
    return {method: seeds for method, seeds in found.items() if seeds}


def _halves(config: SearchConfig, inputs, parts) -> tuple:
    """The halves of a search: its own seed draws them."""
    return search.halves(inputs, parts["train"], config.seed)


def others(plan: dict, networks: list, methods: list) -> None:
    """Work of the second process: the hand-designed networks, the random search, and the networks
    of each search that has ended.
    """
    settings = Plan(**{**plan, "seeds": dict(plan["seeds"])})
    inputs, parts = inputs_and_parts(settings)
    train_baselines(settings, networks, inputs, parts)
    evaluate_all(settings, {RANDOM: random_all(settings, inputs, parts)}, inputs, parts)
    waiting = [
        (method, config.seed, search.folder(config, inputs, *_halves(config, inputs, parts)))
        for method in methods
        for config in search_configs(settings, method)
    ]
    last = False
    while waiting and not last:
        last = processes.over.wait(0.2)
        ready = [entry for entry in waiting if entry[2].finished]
        for method, seed, run in ready:
            evaluate_all(settings, {method: {seed: run}}, inputs, parts)
        waiting = [entry for entry in waiting if entry not in ready]


def memory_needed(plan: Plan, method: str, inputs: data_inputs.Inputs) -> memory.Estimate:
    """Memory that a search will need at its peak, estimated before it starts; prints as a
    sentence.
    """
    config = search_configs(plan, method)[0]
    last = config.stages - 1
    space = config.space(last, len(registry.get(plan.dataset).classes), inputs.x.shape[3])
    return memory.estimate(
        space,
        plan.image_size,
        plan.search_batch,
        order=config.order,
        mode=config.mode,
        lease=config.lease,
        audience=config.audience,
        audience_options=config.audience_options,
    )


def random_all(plan: Plan, inputs: data_inputs.Inputs, parts: data_inputs.PartRows) -> dict:
    """Random searches, as many as the method with most seeds has: seed -> run; one that fails is
    reported and left out.
    """
    return train.attempted(
        {seed: lambda s=seed: random_cells(plan, inputs, parts, s) for seed in plan.random_seeds}
    )


def random_cells(
    plan: Plan, inputs: data_inputs.Inputs, parts: data_inputs.PartRows, seed: int | None = None
) -> record.Run:
    """The random search of a seed (the plan's unless given), for the cost of one search: cells
    drawn at random, trained briefly on one half, the best on the other half kept.
    """
    seed = plan.seed if seed is None else seed
    like = replace(search_configs(plan, plan.random_budget)[0], seed=seed)
    half_a, half_b = _halves(like, inputs, parts)
    config = random_search.RandomSearch(
        profile=plan.profile,
        name=RANDOM + f"-seed{seed}" * (seed != plan.seed),
        budget=random_search.search_cost(like, inputs, half_a),
        most=plan.random_candidates,
        channels=plan.channels,
        cells=plan.cells,
        recipe={"epochs": plan.random_epochs, "batch_size": plan.search_batch},
        augmentation=like.augmentation,
        seed=seed,
    )
    return random_search.search(config, inputs, half_a, half_b)


def recipe(plan: Plan, family: str | None = None) -> retrain.Recipe:
    """How the networks of a family are trained; None for the hand-designed ones."""
    return retrain.Recipe(
        plan.evaluation_epochs,
        plan.evaluation_batch,
        plan.evaluation_lr,
        drop_path=retrain.DROP_PATH.get(family, 0.0),
        auxiliary=plan.auxiliary if family else 0.0,
    )


def _options(plan: Plan, seed: int) -> dict:
    chosen = (
        {"augmentation": {"cutout": plan.cutout}, "augmenter": "autoaugment"}
        if plan.augmented
        else {}
    )
    return {"profile": plan.profile, "seed": seed, "watch": "test", **chosen}


def evaluate_cells(
    plan: Plan,
    method: str,
    seed: int,
    cells: Genotype,
    inputs: data_inputs.Inputs,
    parts: data_inputs.PartRows,
) -> record.Run:
    """Train the network derived from searched cells on all training images with the search's own
    seed, or return its finished run.
    """
    name = f"{method.replace('.', '-')}-cells" + f"-seed{seed}" * (seed != plan.seed)
    family = "darts" if method == RANDOM else plan.family(method)
    return retrain.fit_cells(
        cells,
        recipe(plan, family),
        inputs,
        parts,
        channels=plan.evaluation_channels,
        cells=plan.evaluation_cells,
        name=name,
        keep_weights=False,
        **_options(plan, seed),
    )


def evaluate_all(
    plan: Plan, searched: dict, inputs: data_inputs.Inputs, parts: data_inputs.PartRows
) -> dict:
    """Networks of all searches: method -> {seed: run}; one that fails is reported and left out.

    Parameters
    ----------
    searched : dict
        Method -> {seed: search run}, from :func:`search_all`.
    """
    return {
        method: train.attempted(
            {
                seed: lambda m=method, s=seed, r=run: evaluate_cells(
                    plan, m, s, cells=search.found(r), inputs=inputs, parts=parts
                )
                for seed, run in runs.items()
            }
        )
        for method, runs in searched.items()
    }


def train_baselines(
    plan: Plan, names: Sequence[str], inputs: data_inputs.Inputs, parts: data_inputs.PartRows
) -> dict:
    """The hand-designed networks, name -> run, by the same recipe."""
    width = {} if plan.baseline_width == 1 else {"width": plan.baseline_width}
    return train.attempted(
        {
            name: lambda n=name: retrain.fit_baseline(
                n,
                recipe(plan),
                inputs,
                parts,
                build_options=width,
                name=n,
                keep_weights=False,
                **_options(plan, plan.seed),
            )
            for name in names
        }
    )


def parameters(run: record.Run) -> int:
    """Trainable parameters of an evaluated network, without the auxiliary head."""
    model = run.config["model"]
    if model["kind"] == "cells":
        shape = {name: model[name] for name in ("channels", "cells", "classes", "input_channels")}
        return derived.parameters(Genotype(model["normal"], model["reduce"]), **shape)
    return run.metrics()["trainable_parameters"]
