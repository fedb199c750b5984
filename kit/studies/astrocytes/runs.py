"""The trainings of the astrocyte chapter: what is run, on which images, and Experiments 1 and 3
(the greedy search of Experiment 2: `kit.studies.astrocytes.search`).

The thesis trains three networks on four data sets, once over a 5 x 5 grid of the factors Str and
Weak (Experiment 1), once with the best of nine factors in each epoch (2) and three times with the
factors found (3). Departures: every network with astrocytes has a twin without them of the same
seed, so that what astrocytes do can be set against what a seed does; further arms tell the
explanations apart: the readings of Algorithm 3 that text and pseudocode allow
(:mod:`kit.models.astrocyte_readings`), "released", whose astrocytes count but change nothing as in
the published code, and "zero", constant factors (0, 1), which the thesis calls harmless.
Repetitions differ in order, augmentation and dropout but share the initial weights. No image
selects an epoch in Experiment 3. Where NG divides the steps of an epoch, kernels are scaled on its
last step and the moving statistics of BatchNormalization are those of other kernels; therefore all
networks, with and without astrocytes, are evaluated twice, with moving and with recalibrated
statistics.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kit import record
from kit.data import duplicates, images, registry, split, three_parts
from kit.data import inputs as data_inputs
from kit.data.augment import crop_rotate
from kit.models.astrocyte_readings import READINGS
from kit.published import papers
from kit.studies.astrocytes import plan as astrocytes_plan
from kit.studies.astrocytes.plan import Case, Plan
from kit.training import short_runs
from kit.training.short import Network
from kit.training.short_network import Values
from kit.training.short_runs import Config
from kit.training.train import Diverged

NATIVE = {
    "cifar10": 32,
    "cifar100": 32,
}  # sides at which small images are kept; they are enlarged batch by batch


def inputs_and_parts(plan: Plan) -> dict:
    """Images and row numbers of "train", "val" and "test" of every data set that is run: registered
    name -> (kit.data.inputs.Inputs, parts).
    """
    return {
        name: _prepared(plan, name) for name in dict.fromkeys(name for _, name in plan.datasets)
    }


def _prepared(plan: Plan, name: str) -> tuple:
    side = min(crop_rotate.resized_side(plan.image_size), NATIVE.get(name, plan.image_size * 2))
    inputs = images.load(name, side, channels=3)
    wanted = {"train": plan.images, "val": plan.evaluated, "test": plan.evaluated}
    return inputs, {
        part: data_inputs.fewer(inputs.labels, inputs.rows(ids), wanted[part])
        for part, ids in parts(name).items()
    }


def parts(name: str) -> split.Parts:
    """Image ids: 60, 20 and 20 per cent within each class; where the data have a test folder, that
    and 90 and 10 per cent of the rest, which the thesis does not state.
    """
    index = registry.index(name)
    if "test" not in set(index["split"]):
        return three_parts.three_way_split(name).parts
    train, val = split.holdout(index[index["split"] == "train"], test_size=0.1, stratified=True)
    return {
        "train": train,
        "val": val,
        "test": index["image_id"][index["split"] == "test"].tolist(),
    }


def network(plan: Plan, case: Case, astrocytes: str, reading: str = "literal") -> Network:
    """What the traced step of a row depends on, Algorithm 3 read in one way."""
    chosen = astrocytes_plan.start(plan, case).weights
    return Network(
        case.architecture,
        len(registry.get(case.data).classes),
        weights=chosen,
        seed=plan.seed,
        mixing=plan.mixing,
        astrocytes=astrocytes,
        decisions=plan.decisions,
        threshold=plan.threshold,
        reading=reading,
        order=plan.order,
        bn_momentum=plan.bn_momentum,
        brightness=plan.brightness,
    )


def values(plan: Plan) -> Values:
    """Loss, optimizer, rate and decay of all experiments."""
    return {
        "loss": "label_smoothing",
        "optimizer": "adam",
        "learning_rate": plan.learning_rate,
        "weight_decay": plan.weight_decay,
    }


def config(plan: Plan, case: Case, name: str, astrocytes: str, epochs: int, **more: Any) -> Config:
    """A training of a row; its name does not tell the row, so that rows with the same data share
    it.
    """
    full = f"{name}-{case.data}-{case.architecture}".replace(".", "-")
    return Config(
        astrocytes_plan.PAPER,
        plan.profile,
        full,
        network=network(plan, case, astrocytes),
        values=values(plan),
        epochs=epochs,
        size=plan.image_size,
        batch_size=plan.batch_size,
        decay_mode=plan.decay_mode,
        cosine_floor=plan.cosine_floor,
        recalibrated=True,
        **more,
    )


# --- Experiment 1 ---


def grid_runs(plan: Plan, case: Case, loaded: dict) -> dict:
    """Experiment 1 of a row: (Str, Weak) -> list of runs, one a repetition, None for one that
    diverged; (1, 1) is the control.
    """
    inputs, rows = loaded[case.data]
    rows = {part: rows[part] for part in ("train", "val")}
    first = config(plan, case, "exp1", "algorithm", plan.exp1_epochs)
    pairs = [(strong, weak) for strong in plan.grid for weak in plan.grid]
    return {
        pair: [
            _fit(
                replace(first, factors=(pair,) * plan.exp1_epochs, seed=plan.seed + r), inputs, rows
            )
            for r in range(plan.exp1_repetitions)
        ]
        for pair in pairs
    }


# --- Experiment 3 ---


def published_factors(case: Case, epochs: int) -> list:
    """The first rows of Tables 4.3 to 4.6 for a row of the tables."""
    printed = papers.load(astrocytes_plan.PAPER).values
    return [
        tuple(
            float(
                printed[
                    f"{astrocytes_plan.TABLES[case.dataset]}/{case.network}.epoch{e}/{column}"
                ].value
            )
            for column in ("str", "weak")
        )
        for e in range(1, epochs + 1)
    ]


def arm_runs(plan: Plan, case: Case, loaded: dict, found: Sequence | None = None) -> dict:
    """Experiment 3 of a row: arm -> {seed: run}; "off" is the networks without astrocytes. A
    training that diverged is left out and reported.

    Parameters
    ----------
    plan : Plan
    case : Case
    loaded : dict
        From :func:`inputs_and_parts`.
    found : sequence of pairs, optional
        Factors of our Experiment 2; the arm "found" is left out without them.
    """
    inputs, rows = loaded[case.data]
    factors = {
        "published": published_factors(case, plan.exp3_epochs),
        "released": [(0.5, 0.75)] * plan.exp3_epochs,
        "zero": [(0.0, 1.0)] * plan.exp3_epochs,
    }
    factors |= {arm: factors["published"] for arm in READINGS if arm != "literal"}
    if found is not None:
        factors["found"] = [tuple(pair) for pair in found][: plan.exp3_epochs]
    result = {}
    left_out = (
        plan.single if plan.checked == "first" and case != astrocytes_plan.cases(plan)[0] else ()
    )
    for arm in ("off", *(a for a in plan.arms if a in factors and a not in left_out)):
        mode = {"off": "off", "released": "released"}.get(arm, "algorithm")
        count = 1 if arm in plan.single else plan.exp3_repetitions
        first = config(
            plan,
            case,
            f"exp3-{arm}",
            mode,
            plan.exp3_epochs,
            cosine=True,
            factors=None if arm == "off" else tuple(factors[arm]),
            watch=("test",),
            features="test",
            keep_weights=arm in ("off", "released"),
        )
        if arm in READINGS:
            first = replace(first, network=network(plan, case, mode, reading=arm))
        runs = {
            seed: _fit(replace(first, seed=seed), inputs, rows)
            for seed in range(plan.seed, plan.seed + count)
        }
        result[arm] = {seed: run for seed, run in runs.items() if run}
    return result


def _fit(chosen: Config, inputs, rows) -> record.Run | None:
    try:
        return short_runs.fit(chosen, inputs, rows)
    except Diverged as error:
        print(f"left out: {chosen.name} with {chosen.factors}: {error}", flush=True)
        return None


def train_ids(loaded: dict, case: Case) -> list:
    """Ids of the images that a row's networks are trained on."""
    inputs, rows = loaded[case.data]
    return inputs.index["image_id"].to_numpy()[rows["train"]].tolist()


def copies(loaded: dict) -> dict:
    """Test images with a twin among the training images, by registered data set: (with,
    all).
    """
    found = {}
    for name, (inputs, rows) in loaded.items():
        ids = inputs.index["image_id"].to_numpy()
        free = duplicates.leak_free(
            registry.index(name), duplicates.groups(name), ids[rows["train"]], ids[rows["test"]]
        )
        found[name] = (int((~free).sum()), len(free))
    return found
