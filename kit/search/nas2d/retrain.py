"""The evaluation phase: searched cells, and the hand-designed networks beside them, trained from
scratch by one recipe.

The publication states 12 cells of 36 channels, batches of 96 and 3,000 epochs; the rest of the
recipe is the one of the authors of DARTS. How the hand-designed networks were
trained is not stated: here they get the same optimizer, augmentation and epochs, so that a
difference is one of architecture. Runs are those of `kit.training.train`: seeded, resumable, never
repeated.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import keras

from kit import compat, record
from kit.data import inputs as data_inputs
from kit.data import registry
from kit.errors import KitError
from kit.search.nas2d import baselines, derived
from kit.search.nas2d.genotype import Genotype
from kit.search.nas2d.trainee import SGD, PerEpoch, Trainee
from kit.training import rules, train

EAGER_STEPS = (
    12  # fewer training steps than these are not worth tracing a graph for (measured, see `fit`)
)


class BadRecipe(KitError):
    """A setting of the evaluation phase is out of range."""


@dataclass(frozen=True)
class Recipe:
    """How to train in the evaluation phase.

    Attributes
    ----------
    epochs, batch_size : int
        Published.
    learning_rate, lr_min : float
        Ends of a cosine over the epochs, constant within an epoch.
    momentum, decay, clip : float
        L2 is added after clipping the gradient's global norm.
    drop_path : float
        Rate that dropped paths rise to, linearly, from 0; DARTS 0.2, PC-DARTS and P-DARTS 0.3. Of
        no effect on hand-designed networks.
    auxiliary : float
        Weight of the auxiliary head's loss; 0 leaves the head out. Of no effect on hand-designed
        networks.

    Raises
    ------
    BadRecipe
    """

    epochs: int = 3000
    batch_size: int = 96
    learning_rate: float = 0.025
    lr_min: float = 0.0
    momentum: float = 0.9
    decay: float = 3e-4
    clip: float = 5.0
    drop_path: float = 0.2
    auxiliary: float = 0.4

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1),
            ("batch_size", 2),
            ("lr_min", 0),
            ("momentum", 0),
            ("decay", 0),
            ("drop_path", 0),
            ("auxiliary", 0),
        ):
            if getattr(self, name) < least:
                raise BadRecipe(f"{name} is {getattr(self, name)}; it must be {least} or more.")
        for name in ("momentum", "drop_path"):
            if getattr(self, name) >= 1:
                raise BadRecipe(f"{name} is {getattr(self, name)}; it must be below 1.")
        if self.clip <= 0:
            raise BadRecipe(f"clip is {self.clip}; it must be above 0.")


DROP_PATH = {"darts": 0.2, "pcdarts": 0.3, "pdarts": 0.3}


def fit(  # noqa: PLR0913 (a run and its name)
    make: Callable,
    description: dict,
    recipe: Recipe,
    inputs: data_inputs.Inputs,
    parts: data_inputs.PartRows,
    *,
    name: str,
    profile: str,
    paper: str = "lease",
    seed: int = 0,
    watch: str = "validation",
    **options: Any,
) -> record.Run:
    """Train any network by the recipe, or return the finished run of the same settings.

    Parameters
    ----------
    make : callable
        () -> uncompiled keras.Model that gives probabilities, and optionally those of an auxiliary
        head; called after seeding.
    description : dict
        What the network is, as it shall stand in config.json and be part of the run's key.
    recipe : Recipe
    inputs : kit.data.inputs.Inputs
    parts : mapping
        Row numbers by part; "train" is trained on, `watch` is evaluated after each epoch (Figure
        2), the others are predicted at the end.
    name, profile, paper : str
        Of the run folder.
    seed : int
    watch : str
    **options
        Further settings of `kit.training.train.TrainConfig`: augmentation, augmenter, keep_weights,
        keep_best, recalibrate_batchnorm, graph. Without `graph`, trainings of fewer than
        `EAGER_STEPS` steps run without tracing.

    Returns
    -------
    kit.record.Run
        As of `kit.training.train.fit`; history.csv also has learning_rate and, where paths are
        dropped, drop_path.

    Raises
    ------
    kit.training.train.Diverged, kit.training.predictions.OutOfMemory, kit.data.inputs.BadSplit
        The run folder then says why, and other runs are left as they are.
    """
    steps = -(-len(parts["train"]) // recipe.batch_size)
    options.setdefault("graph", steps * recipe.epochs >= EAGER_STEPS)
    config = train.TrainConfig(
        paper,
        profile,
        name,
        {**description, "recipe": asdict(recipe)},
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        optimizer="sgd",
        loss="categorical_crossentropy",
        seed=seed,
        **options,
    )
    return train.fit(
        config, lambda: compiled(make(), recipe, steps, config.graph), inputs, parts, watch
    )


def compiled(network: keras.Model, recipe: Recipe, steps: int, graph: bool = True) -> Trainee:
    """`network` ready to train by `recipe` with `steps` steps an epoch; a
    `kit.search.nas2d.trainee.Trainee`.
    """
    epochs = range(recipe.epochs)
    rates = PerEpoch(
        [
            rules.cosine(epoch, recipe.epochs, recipe.learning_rate, recipe.lr_min)
            for epoch in epochs
        ],
        steps,
    )
    paths = PerEpoch(
        [rules.drop_path(epoch, recipe.epochs, recipe.drop_path) for epoch in epochs], steps
    )
    drops = recipe.drop_path > 0 and any(layer.name.startswith("cell_") for layer in network.layers)
    trainee = Trainee(
        network, {**asdict(recipe), "steps": steps}, paths if drops else None, recipe.auxiliary
    )
    trainee.compile(
        SGD(rates, recipe.momentum, recipe.decay, recipe.clip),
        jit_compile=graph and compat.use_xla(),
        run_eagerly=not graph,
    )
    return trainee


def fit_cells(
    genotype: Genotype,
    recipe: Recipe,
    inputs: data_inputs.Inputs,
    parts: data_inputs.PartRows,
    *,
    channels: int = 36,
    cells: int = 12,
    **options: Any,
) -> record.Run:
    """Train the network derived from searched cells; `options` as for `fit`.

    Parameters
    ----------
    genotype : Genotype
    channels, cells : int
        See `kit.search.nas2d.derived.PRESETS`.
    """
    shape = {
        "size": inputs.x.shape[1],
        "channels": channels,
        "cells": cells,
        "classes": _classes(inputs),
        "input_channels": inputs.x.shape[3],
    }
    described = {"kind": "cells", "normal": genotype.normal, "reduce": genotype.reduce, **shape}
    return fit(
        lambda: derived.network(genotype, auxiliary=recipe.auxiliary > 0, **shape),
        described,
        recipe,
        inputs,
        parts,
        **options,
    )


def fit_baseline(
    network: str,
    recipe: Recipe,
    inputs: data_inputs.Inputs,
    parts: data_inputs.PartRows,
    *,
    build_options: dict | None = None,
    **options: Any,
) -> record.Run:
    """Train one of the hand-designed networks of `kit.search.nas2d.baselines` by the same recipe;
    `options` as for `fit`.

    Parameters
    ----------
    network : str
        Name for `kit.search.nas2d.baselines.build`.
    build_options : dict, optional
        Further arguments of it, such as a smaller width.
    """
    shape = {
        "size": inputs.x.shape[1],
        "classes": _classes(inputs),
        "channels": inputs.x.shape[3],
        **(build_options or {}),
    }

    return fit(
        lambda: baselines.build(network, **shape),
        {"kind": "baseline", "network": network, **shape},
        recipe,
        inputs,
        parts,
        **options,
    )


def _classes(inputs) -> int:
    return len(registry.get(inputs.name).classes)
