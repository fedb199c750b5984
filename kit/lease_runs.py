"""The trainings of the LeaSE paper: its twelve searches, the networks that they lead to, six hand-designed networks, and a random search of equal budget.

The paper states batches of 64 and 50 epochs for all searches, 12 cells of 36 channels and 3,000 epochs for the evaluation, and one run of everything.
Departures: P-DARTS keeps its three stages of 25 epochs; searches are repeated with several seeds, because a difference between two single searches says
nothing; cells drawn at random are evaluated beside the searched ones; and whatever is reduced stands in :func:`notes`. No image selects an epoch: the
last weights are reported, and the accuracy on the test images that Figure 2 follows is looked at only.
"""

import contextlib
from dataclasses import asdict, dataclass

import numpy as np

from kit import beside, data, lease_tables, papers, record, registry, train
from kit.errors import KitError
from kit.nas import derived, evaluation, memory, random_search, search
from kit.nas.genotype import Genotype
from kit.nas.search_config import SearchConfig


class BadPlan(KitError):
    """A setting of the LeaSE trainings is out of range, or a method does not exist."""


@dataclass(frozen=True)
class Plan:
    """What is searched and trained, and at what size; the defaults are the published ones.

    Attributes
    ----------
    profile, dataset : str
    image_size : int
        Side in pixels, three equal channels.
    images : int
        Training images of searches and evaluations, by class proportion; 0 takes all.
    channels, cells : int
        Of the supernets of DARTS and PC-DARTS.
    pdarts_cells : tuple of int
        Of the three stages of P-DARTS.
    search_epochs, pdarts_epochs : int
        Of a search, and of a stage of P-DARTS.
    search_batch, search_steps : int
        Batch size, and most steps an epoch (0: all images of the half).
    mode : {"exact", "finite"}
        How second derivatives are taken; see :class:`kit.nas.search_config.SearchConfig`.
    pruning : {"remove", "mask"}
        Of P-DARTS, see there.
    traced : bool
        False for searches of a few steps, see there.
    audience_width : int
        Channels of the audience's first layer; 64 in the published networks.
    search_augmented, augmented : bool
        AutoAugment in the search and in the evaluation.
    cutout : int
        Side of the square that is cut out in the evaluation; 0 for none.
    search_lr : float
    arch_lr : float
        Adam's rate for the architecture; 0 takes each family's own (3e-4, or 6e-4 for PC-DARTS and P-DARTS), by which the weights move a few
        hundredths in a hundred steps.
    evaluation_cells, evaluation_channels, evaluation_epochs, evaluation_batch : int
    evaluation_lr, auxiliary : float
    baseline_width : float
        Share of the channels of the hand-designed networks.
    seeds : dict
        Method -> number of search seeds; 1 where it is absent.
    random_budget : str
        Method whose search the random search may cost as much as, in multiply-accumulates.
    random_candidates, random_epochs : int
        Most cells that it draws, and how long it trains each.
    seed : int
    """

    profile: str
    dataset: str
    image_size: int = 64
    images: int = 0
    channels: int = 16
    cells: int = 8
    pdarts_cells: tuple = (5, 11, 17)
    search_epochs: int = 50
    pdarts_epochs: int = 25
    search_batch: int = 64
    search_steps: int = 0
    mode: str = "exact"
    pruning: str = "remove"
    traced: bool = True
    audience_width: int = 64
    search_augmented: bool = True
    augmented: bool = True
    cutout: int = 0
    search_lr: float = 0.025
    arch_lr: float = 0.0
    evaluation_cells: int = 12
    evaluation_channels: int = 36
    evaluation_epochs: int = 3000
    evaluation_batch: int = 96
    evaluation_lr: float = 0.025
    auxiliary: float = 0.4
    baseline_width: float = 1.0
    seeds: tuple = ()
    random_budget: str = "darts"
    random_candidates: int = 100
    random_epochs: int = 5
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "pdarts_cells", tuple(self.pdarts_cells))
        object.__setattr__(self, "seeds", tuple(sorted(dict(self.seeds).items())))
        for method, count in self.seeds:
            if method not in lease_tables.SEARCHES or count < 1:
                raise BadPlan(f"seeds has {method}: {count}; give one of {', '.join(lease_tables.SEARCHES)} and a number of at least 1.")
        methods([self.random_budget], lease_tables.SEARCHES)
        if self.images < 0 or self.random_candidates < 1:
            raise BadPlan(f"images is {self.images} and random_candidates {self.random_candidates}; they must be at least 0 and 1.")

    def family(self, method: str) -> str:
        """Search space of a method."""
        return next(family for family in ("pcdarts", "pdarts", "darts") if family in method.split(".")[0].split("-"))


def methods(wanted, among) -> list:
    """`wanted` if all of them exist, all of `among` for ["all"].

    Raises
    ------
    BadPlan
    """
    if list(wanted) == ["all"]:
        return list(among)
    unknown = [name for name in wanted if name not in among]
    if unknown:
        raise BadPlan(f"There is no method {unknown[0]!r}; choose from {', '.join(among)}, or all.")
    return list(wanted)


def inputs_and_parts(plan: Plan) -> tuple[data.Inputs, dict]:
    """The images, and row numbers of "train" (the plan's share of the training folder) and "test"."""
    inputs = data.load(plan.dataset, plan.image_size, channels=3)
    rows = {part: np.flatnonzero(inputs.index["split"] == part) for part in ("train", "test")}
    rows["train"] = data.fewer(inputs.labels, rows["train"], plan.images)
    return inputs, rows


def search_configs(plan: Plan, method: str) -> list[SearchConfig]:
    """The search of a method, one configuration a seed."""
    family, options = plan.family(method), {}
    if method.startswith("lease"):
        audience = "vgg13" if method.endswith("vgg13") else "resnet18"
        gamma = float(method.split(".gamma")[1]) if ".gamma" in method else 1.0
        options = {"lease": {}, "gamma": gamma, "audience": audience, "audience_options": {"width": plan.audience_width}, "audience_only": method.endswith("audience-only")}
    first = SearchConfig(
        "lease", plan.profile, method.replace(".", "-"), family, channels=plan.channels, cells=plan.pdarts_cells if family == "pdarts" else plan.cells,
        epochs=plan.pdarts_epochs if family == "pdarts" else plan.search_epochs, steps=plan.search_steps, batch_size=plan.search_batch, mode=plan.mode, lr=plan.search_lr,
        arch_lr=plan.arch_lr or None,
        pruning=plan.pruning, traced=plan.traced, augmentation={} if plan.search_augmented else None, seed=plan.seed, **options)
    return search.seeds(first, dict(plan.seeds).get(method, 1))


def search_all(plan: Plan, names, inputs, parts: dict, beside_it: dict | None = None) -> dict:
    """Searches of several methods with all their seeds: method -> {seed: run}; one that fails is reported and left out.

    Parameters
    ----------
    plan : Plan
    names : sequence of str
        Methods.
    inputs, parts
        From :func:`inputs_and_parts`.
    beside_it : dict, optional
        Further arguments of :func:`others`, which a second process does meanwhile; worth its memory where searches are short.
    """
    half_a, half_b = search.halves(inputs, parts["train"], plan.seed)
    configs = {method: search_configs(plan, method) for method in names}
    missing = any(not search.folder(config, inputs, half_a, half_b).finished for same in configs.values() for config in same)
    second = beside.running("kit.lease_runs:others", plan=asdict(plan), methods=list(names), **beside_it) if beside_it and missing else contextlib.nullcontext()
    with second:
        runs = search.search_all([config for same in configs.values() for config in same], inputs, half_a, half_b)
    found = {method: {config.seed: runs[config.name] for config in same if config.name in runs} for method, same in configs.items()}
    return {method: seeds for method, seeds in found.items() if seeds}


def others(plan: dict, networks: list, methods: list) -> None:
    """Work of the second process: the hand-designed networks, the random search, and the networks of each search that has ended."""
    settings = Plan(**{**plan, "seeds": dict(plan["seeds"])})
    inputs, parts = inputs_and_parts(settings)
    train_baselines(settings, networks, inputs, parts)
    drawn = random_cells(settings, inputs, parts)
    train.attempted({"random": lambda: evaluate_cells(settings, "random", settings.seed, search.found(drawn), inputs, parts)})
    half_a, half_b = search.halves(inputs, parts["train"], settings.seed)
    waiting = [(method, config.seed, search.folder(config, inputs, half_a, half_b)) for method in methods for config in search_configs(settings, method)]
    last = False
    while waiting and not last:
        last = beside.over.wait(0.2)
        ready = [entry for entry in waiting if entry[2].finished]
        for method, seed, run in ready:
            evaluate_all(settings, {method: {seed: run}}, inputs, parts)
        waiting = [entry for entry in waiting if entry not in ready]


def memory_needed(plan: Plan, method: str, inputs) -> memory.Estimate:
    """Memory that a search will need at its peak, estimated before it starts; prints as a sentence."""
    config = search_configs(plan, method)[0]
    last = config.stages - 1
    space = config.space(last, len(registry.get(plan.dataset).classes), inputs.x.shape[3])
    return memory.estimate(space, plan.image_size, plan.search_batch, config.order, config.mode, config.lease, config.audience, config.audience_options)


def random_cells(plan: Plan, inputs, parts: dict) -> record.Run:
    """The random search, for the cost of one search: cells drawn at random, trained briefly on one half, the best on the other half kept."""
    half_a, half_b = search.halves(inputs, parts["train"], plan.seed)
    like = search_configs(plan, plan.random_budget)[0]
    config = random_search.RandomSearch(
        profile=plan.profile, budget=random_search.search_cost(like, inputs, half_a), most=plan.random_candidates, channels=plan.channels, cells=plan.cells,
        recipe={"epochs": plan.random_epochs, "batch_size": plan.search_batch}, augmentation=like.augmentation, seed=plan.seed)
    return random_search.search(config, inputs, half_a, half_b)


def recipe(plan: Plan, family: str | None = None) -> evaluation.Recipe:
    """How the networks of a family are trained; None for the hand-designed ones."""
    return evaluation.Recipe(plan.evaluation_epochs, plan.evaluation_batch, plan.evaluation_lr, drop_path=evaluation.DROP_PATH.get(family, 0.0), auxiliary=plan.auxiliary if family else 0.0)


def _options(plan: Plan) -> dict:
    chosen = {"augmentation": {"cutout": plan.cutout}, "augmenter": "autoaugment"} if plan.augmented else {}
    return {"profile": plan.profile, "seed": plan.seed, "watch": "test", **chosen}


def evaluate_cells(plan: Plan, method: str, seed: int, cells: Genotype, inputs, parts: dict) -> record.Run:
    """Train the network derived from searched cells on all training images, or return its finished run."""
    name = f"{method.replace('.', '-')}-cells" + f"-seed{seed}" * (seed != plan.seed)
    family = "darts" if method == "random" else plan.family(method)
    return evaluation.fit_cells(cells, recipe(plan, family), inputs, parts, channels=plan.evaluation_channels, cells=plan.evaluation_cells, name=name, keep_weights=False, **_options(plan))


def evaluate_all(plan: Plan, searched: dict, inputs, parts: dict) -> dict:
    """Networks of all searches: method -> {seed: run}; one that fails is reported and left out.

    Parameters
    ----------
    searched : dict
        Method -> {seed: search run}, from :func:`search_all`.
    """
    return {method: train.attempted({seed: lambda m=method, s=seed, r=run: evaluate_cells(plan, m, s, search.found(r), inputs, parts) for seed, run in runs.items()})
            for method, runs in searched.items()}


def train_baselines(plan: Plan, names, inputs, parts: dict) -> dict:
    """The hand-designed networks, name -> run, by the same recipe."""
    width = {} if plan.baseline_width == 1 else {"width": plan.baseline_width}
    return train.attempted({name: lambda n=name: evaluation.fit_baseline(n, recipe(plan), inputs, parts, build_options=width, name=n, keep_weights=False, **_options(plan)) for name in names})


def notes(plan: Plan) -> list[str]:
    """What the plan does otherwise than the publication states."""
    used = {"search_cells": plan.cells, "search_init_channels": plan.channels, "search_batch_size": plan.search_batch, "search_epochs": plan.search_epochs,
            "search_lr_initial": plan.search_lr, "evaluation_cells": plan.evaluation_cells, "evaluation_init_channels": plan.evaluation_channels,
            "evaluation_batch_size": plan.evaluation_batch, "evaluation_epochs": plan.evaluation_epochs, "input_size": [plan.image_size] * 2,
            "augmentation": "AutoAugment" if plan.augmented else "none", "code_pdarts_epochs_per_stage": plan.pdarts_epochs}  # fmt: skip
    found = papers.departures(papers.load("lease"), used)
    found += [f"at most {plan.search_steps} steps a search epoch"] * bool(plan.search_steps) + [f"{plan.images} training images"] * bool(plan.images)
    found += [f"rate of the architecture {plan.arch_lr:g} instead of 3e-4 (DARTS) and 6e-4"] * bool(plan.arch_lr)
    found += [f"audience of {plan.audience_width} instead of 64 channels"] * (plan.audience_width != 64)
    found += [f"hand-designed networks with {plan.baseline_width:g} of their channels"] * (plan.baseline_width != 1)
    found += [f"P-DARTS stages of {', '.join(map(str, plan.pdarts_cells))} cells instead of 5, 11, 17"] * (tuple(plan.pdarts_cells) != (5, 11, 17))
    return [line.replace("code pdarts", "P-DARTS") for line in found]


def parameters(run: record.Run) -> int:
    """Trainable parameters of an evaluated network, without the auxiliary head."""
    model = run.config["model"]
    if model["kind"] == "cells":
        shape = {name: model[name] for name in ("channels", "cells", "classes", "input_channels")}
        return derived.parameters(Genotype(model["normal"], model["reduce"]), **shape)
    return run.metrics()["trainable_parameters"]
