"""The trainings of Gen-CNN: genetic searches with repetitions, other searches of the same budget,
and final trainings with what they found.

The thesis searches 25 generations of 50 individuals, three epochs at 112 px each, takes the best
validation MCC of the run, and trains once more for 50 epochs at 448 px. Departures: the random head
is one for all individuals instead of new for each; the individual that won is trained again from
its seed, bit for bit, so that its test images are looked at once and no weights need to be kept;
the final training uses rate and decay as they were searched (the released code exchanges them, an
option); and what the thesis does not measure is run beside it: random search and four others with
the same number of evaluations, accuracy as fitness, and how far cheap epochs foretell the outcome
of the long training.
"""

import functools
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from kit import files, kernels, paths, record
from kit.data import images as data_images
from kit.data import inputs as data_inputs
from kit.data import registry
from kit.search.evolution import plan as plans
from kit.search.evolution import rivals, workers
from kit.studies import shared
from kit.studies.gencnn import plan as gencnn_plan
from kit.studies.gencnn.plan import Plan
from kit.training import predictions, short, short_network, short_runs, train

RATES = "rates.json"


@dataclass(frozen=True)
class Found:
    """What a search ended with.

    Attributes
    ----------
    method, dataset : str
    seed : int
        Of the search.
    fitness : float
        Of the best individual of the run.
    values : dict
        Its genes, decoded.
    trained : dict
        Its rates on the validation images and the seed and number of epochs of its training.
    trace : pandas.DataFrame
        One row an evaluation, in order: generation, fitness, best (so far), reason, seconds, cost
        (1, or the fraction of the epochs).
    history : pandas.DataFrame or None
        Of the genetic algorithm, see :class:`kit.search.evolution.plan.Result`.
    """

    method: str
    dataset: str
    seed: int
    fitness: float
    values: dict
    trained: dict
    trace: pd.DataFrame = field(repr=False)
    history: pd.DataFrame | None = field(default=None, repr=False)


# --- data -----------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4)
def loaded(
    dataset: str, fingerprint: str, images: int, side: int, grouped: bool, seed: int
) -> tuple[data_inputs.Inputs, dict]:
    """The images, and row numbers of "train", "val" and "test" (60, 20 and 20 % of each class); the
    fingerprint only makes the result the data's own.
    """
    return data_images.in_three(dataset, side, images, seed, grouped)


def images_of(plan: Plan, dataset: str) -> tuple[data_inputs.Inputs, dict]:
    """The images of a plan's data set and its three parts; see :func:`loaded`."""
    return loaded(
        dataset,
        registry.facts(dataset)["fingerprint"],
        images=plan.images,
        side=plan.side,
        grouped=plan.grouped,
        seed=plan.seed,
    )


def training_ids(plan: Plan, role: str) -> list:
    """Ids of the training images of a medical set."""
    inputs, parts = images_of(plan, dict(plan.medical)[role])
    return inputs.index["image_id"].to_numpy()[parts["train"]].tolist()


# --- searches -------------------------------------------------------------------------------------


def task(plan: Plan, dataset: str, fitness: str | None = None) -> dict:
    """Everything besides the genes that an evaluation depends on, as JSON can hold it."""
    where = {
        "dataset": dataset,
        "fingerprint": registry.facts(dataset)["fingerprint"],
        "images": plan.images,
        "side": plan.side,
        "grouped": plan.grouped,
        "split_seed": plan.seed,
    }
    how = {
        "weights": plan.initial(),
        "epochs": plan.epochs,
        "size": plan.size,
        "batch": plan.batch,
        "decay_mode": plan.decay_mode,
        "network_settings": _how(plan),
    }
    return {**where, **how, "fitness": fitness or plan.fitness, "part": plan.fitness_part}


def evaluate(  # noqa: PLR0913 - what a search's digest is made of, see task()
    values: dict,
    folder: Path | str,
    *,
    dataset: str,
    fingerprint: str,
    images: int,
    side: int,
    grouped: bool,
    split_seed: int,
    weights: dict,
    epochs: int,
    size: int,
    batch: int,
    decay_mode: str,
    network_settings: dict,
    fitness: str,
    part: str,
) -> float:
    """Train an individual briefly and judge it: its MCC or accuracy on the validation images, in
    [-1, 1].

    Parameters
    ----------
    values : dict
        Decoded genes; "search" with the seed; "epochs" where a method shortens the training.
    folder : path-like
        Gets rates.json: the rates, the seed and the epochs.
    others
        From :func:`task`.

    Raises
    ------
    kit.training.train.Diverged, kit.training.predictions.OutOfMemory,
    kit.training.optimizers.RefusedRule
        The search notes the reason and counts the individual as the worst.
    """
    inputs, parts = loaded(
        dataset, fingerprint, images=images, side=side, grouped=grouped, seed=split_seed
    )
    doer = short.trainer(network(values, weights, inputs, network_settings))
    seed, epochs = int(values["search"]["seed"]) % 2**31, int(values.get("epochs") or epochs)
    doer.train(
        values,
        inputs,
        parts["train"],
        epochs=epochs,
        size=size,
        batch_size=batch,
        seed=seed,
        decay_mode=decay_mode,
    )
    rates = short_network.rates(doer.predict(inputs, parts[part], size, part))
    files.write_json(
        Path(folder) / RATES,
        {
            "mcc": rates["mcc"],
            "accuracy": rates["accuracy"],
            "f1": rates["f1_of_macros"],
            "seed": seed,
            "epochs": epochs,
        },
    )
    return rates[fitness]


def network(values: dict, weights: dict, inputs: data_inputs.Inputs, how: dict) -> short.Network:
    """The network of an individual; the head is the same for all of a data set.

    Parameters
    ----------
    values : dict
        Decoded genes.
    weights : dict
        Architecture -> how it starts.
    inputs : kit.data.inputs.Inputs
    how : dict
        Further settings of :class:`kit.training.short.Network`.
    """
    return short.Network(
        values["architecture"],
        len(registry.get(inputs.name).classes),
        weights=weights[values["architecture"]],
        **how,
    )


def _how(plan: Plan) -> dict:
    return {
        "settings": plan.optimizer_settings,
        "bn_momentum": plan.bn_momentum,
        "brightness": plan.brightness,
    }


def searches_folder(plan: Plan) -> Path:
    """Where the searches lie."""
    return paths.results_dir() / plan.profile / "gencnn" / "searches"


def search(
    plan: Plan,
    dataset: str,
    seed: int,
    generations: int,
    individuals: int,
    fitness: str | None = None,
) -> Found:
    """The genetic search, or the finished one of the same settings and images.

    Raises
    ------
    kit.search.evolution.plan.AllFailed
    """
    asked = plans.Plan(
        genome=plan.genome(),
        settings=plan.settings(generations, individuals, seed),
        evaluate="gencnn.fitness",
        arguments=task(plan, dataset, fitness),
    )
    result = workers.run(
        asked,
        searches_folder(plan) / f"genetic-{dataset}-seed{seed}-{asked.key()[:10]}",
        plan.workers,
    )
    best, history = result.best, result.history
    trace = history[["generation", "fitness", "reason", "seconds", *plan.genome().names]].assign(
        best=history["fitness"].where(history["reason"].isna()).cummax().ffill(), cost=1.0
    )
    return Found(
        method="genetic",
        dataset=dataset,
        seed=seed,
        fitness=best["fitness"],
        values=best["values"],
        trained=files.read_json(best["folder"] / RATES),
        trace=trace,
        history=history,
    )


def rival(plan: Plan, method: str, dataset: str, seed: int) -> Found:
    """Another search with the budget of the convergence study.

    Raises
    ------
    kit.search.evolution.plan.AllFailed
    """
    told, budget = task(plan, dataset), plan.convergence_generations * plan.convergence_individuals
    settings = {
        "budget": budget,
        "seed": seed,
        "population": plan.convergence_individuals,
        "epochs": plan.epochs if method == "hyperband" else None,
    }
    key = files.digest([asdict(plan.genome()), told, kernels.keyed(settings)])[:10]
    folder = searches_folder(plan) / f"{method}-{dataset}-seed{seed}-{key}"
    trace = rivals.search(
        method, plan.genome(), functools.partial(evaluate, **told), folder=folder, **settings
    )
    best = trace.loc[trace["fitness"].where(trace["reason"].isna()).idxmax()]
    trained = files.read_json(plans.trial_folder(folder, int(best["evaluation"])) / RATES)
    return Found(
        method=method,
        dataset=dataset,
        seed=seed,
        fitness=float(best["fitness"]),
        values={n: best[n] for n in plan.genome().names},
        trained=trained,
        trace=trace,
    )


def convergence(plan: Plan) -> dict:
    """Searches of the convergence study: method -> [Found, ...], the genetic one first; one that
    fails is reported and left out.
    """
    jobs = {
        ("genetic", r): functools.partial(
            search,
            plan,
            plan.convergence,
            plan.seed + r,
            generations=plan.convergence_generations,
            individuals=plan.convergence_individuals,
        )
        for r in range(plan.repetitions)
    }
    jobs |= {
        (method, r): functools.partial(rival, plan, method, plan.convergence, plan.seed + r)
        for method in plan.rivals
        for r in range(min(plan.rival_repetitions, plan.repetitions))
    }
    found = attempted(jobs)
    return {
        method: kept
        for method in ("genetic", *plan.rivals)
        if (kept := [f for (m, _), f in found.items() if m == method])
    }


def medical(plan: Plan) -> dict:
    """Searches on the medical sets: role -> Found; each has a seed of its own, so that sets that
    share their images do not share their search.
    """
    return attempted(
        {
            role: functools.partial(
                search,
                plan,
                dataset,
                gencnn_plan.role_seed(plan, role),
                generations=plan.generations,
                individuals=plan.individuals,
            )
            for role, dataset in plan.medical
        }
    )


def targets(plan: Plan) -> dict:
    """MCC and accuracy as fitness on the same images with the same seeds: fitness -> {seed: Found};
    the MCC search of the medical sets is the first of its kind.
    """
    dataset, first = dict(plan.medical).get(plan.target), gencnn_plan.role_seed(plan, plan.target)
    jobs = {
        (fitness, first + r): functools.partial(
            search,
            plan,
            dataset,
            first + r,
            generations=plan.generations,
            individuals=plan.individuals,
            fitness=fitness,
        )
        for r in range(plan.target_repetitions)
        for fitness in ("mcc", "accuracy")
    }
    found = attempted(jobs)
    return {
        fitness: {seed: f for (which, seed), f in found.items() if which == fitness}
        for fitness in ("mcc", "accuracy")
    }


# --- trainings ------------------------------------------------------------------------------------


def again(plan: Plan, found: Found, fitness: str | None = None) -> record.Run:
    """The best individual of a search trained again from its seed, now with predictions of
    validation and test images.
    """
    inputs, parts = images_of(plan, found.dataset)
    name = (
        f"{found.method}-{found.dataset}-seed{found.seed}" + f"-{fitness}" * bool(fitness) + "-best"
    )
    return short_runs.fit(
        short_runs.Config(
            "gencnn",
            plan.profile,
            name,
            network=network(found.values, plan.initial(), inputs, _how(plan)),
            values=found.values,
            epochs=found.trained["epochs"],
            size=plan.size,
            batch_size=plan.batch,
            seed=found.trained["seed"],
            decay_mode=plan.decay_mode,
            watch=(),
        ),
        inputs,
        parts,
    )


def final(plan: Plan, found: Found, values: dict | None = None, name: str = "final") -> record.Run:
    """The long training with the genes of a search, or with other `values`: larger images, cosine,
    last weights unless the plan says otherwise; then validation MCC selects the epoch.
    """
    inputs, parts = images_of(plan, found.dataset)
    used = values or found.values
    if plan.swap_lr_wd:
        used = {
            **used,
            "learning_rate": used["weight_decay"],
            "weight_decay": used["learning_rate"],
        }
    return short_runs.fit(
        short_runs.Config(
            "gencnn",
            plan.profile,
            f"{found.method}-{found.dataset}-seed{found.seed}-{name}",
            network=network(used, plan.initial(), inputs, _how(plan)),
            values=used,
            epochs=plan.final_epochs,
            size=plan.final_size,
            resized=plan.final_size,
            batch_size=plan.final_batch,
            seed=found.seed,
            cosine=True,
            cosine_floor=plan.cosine_floor,
            keep=plan.final_weights,
            decay_mode=plan.decay_mode,
        ),
        inputs,
        parts,
    )


def sampled(plan: Plan, found: Found) -> pd.DataFrame:
    """Individuals of a genetic search, evenly spread over the ranks of their fitness, the best and
    the worst among them; no genes twice.
    """
    names = list(plan.genome().names)
    history = (
        found.history[found.history["reason"].isna()]
        .drop_duplicates(names)
        .sort_values("fitness", kind="stable", ignore_index=True)
    )
    return (
        history.iloc[
            np.unique(
                np.linspace(0, len(history) - 1, min(plan.fidelity, len(history)))
                .round()
                .astype(int)
            )
        ]
        if plan.fidelity
        else history.iloc[:0]
    )


def fidelity(plan: Plan, found: Found) -> pd.DataFrame:
    """Fitness after the short training beside validation and test MCC after the long one, one row
    an individual of :func:`sampled`.
    """
    chosen = sampled(plan, found)
    runs = attempted(
        {
            (row["generation"], row["individual"]): functools.partial(
                final,
                plan,
                found,
                {n: row[n] for n in plan.genome().names},
                f"g{row['generation']}i{row['individual']}",
            )
            for row in chosen.to_dict("records")
        }
    )
    rows = [
        {**row, **{f"final_{part}_mcc": run.metrics()[part]["mcc"] for part in ("val", "test")}}
        for row in chosen.to_dict("records")
        if (run := runs.get((row["generation"], row["individual"])))
    ]
    return pd.DataFrame(rows, columns=[*chosen.columns, "final_val_mcc", "final_test_mcc"])


def attempted(jobs: dict) -> dict:
    """Results of `jobs` (functions without arguments) that did not fail; the others are
    reported.
    """
    return shared.attempted(
        jobs,
        (train.Diverged, predictions.OutOfMemory, plans.AllFailed),
        lambda key: " ".join(map(str, key if isinstance(key, tuple) else [key])),
    )
