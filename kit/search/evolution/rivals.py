"""Other searches at the same budget as the genetic algorithm: what Table 3.3 compares with, run
instead of quoted.

The thesis sets its algorithm, with pretrained networks and their architecture among the genes,
beside published results of a genetic algorithm, a particle swarm and an artificial bee colony that
tuned six other hyperparameters of one AlexNet, and leaves out random search. Here all methods
search the same genome with the same evaluation, seed by seed and training for training.

=========  =======================================================================================
random     uniform genes, the baseline that a search must beat
genetic    :mod:`kit.search.evolution.genetic`
swarm      particle swarm with inertia (NiaPy): genes are positions, categories their bins
bees       artificial bee colony (NiaPy), likewise
bayesian   Gaussian process and confidence bound (KerasTuner): categories are bin centres on the
           axis of a gene
hyperband  successive halving (KerasTuner): many short trainings, the better half longer; counts
           epochs, so it makes more but shorter evaluations
=========  =======================================================================================

NiaPy (MIT, releases every year) was chosen for the last two published rivals because it follows the
original papers, seeds a generator of its own and is of the kit's licence; Indago (MIT) draws from
NumPy's global generator and its bees differ from Karaboga's (onlookers are a colony of their own,
scouts are not evaluated), MEALPY is GPL, pygmo is compiled C++ for islands of problems that cost
microseconds.

A search cut off goes on: its evaluations are in the folder as they end, the method is run again
from its seed and takes known results from there.
"""

import contextlib
import json
import logging
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kit import files
from kit.errors import KitError
from kit.search.evolution.genetic import NOT_FINITE, GASettings, GeneticAlgorithm
from kit.search.evolution.genome import Genome
from kit.search.evolution.plan import AllFailed, OtherSearch, trial_folder

TRACE, METHOD = "trace.json", "method.json"
WORST = -1.0
SWARM = {
    "c1": 1.49618,
    "c2": 1.49618,
    "w": 0.7298,
    "min_velocity": -0.5,
    "max_velocity": 0.5,
}  # Clerc and Kennedy 2002; half the range a step at most


class NoSuchMethod(KitError):
    """The method is none of METHODS, or its budget is too small for it."""


class _Spent(Exception):
    """The budget is used up: unwinds a method that does not stop by itself."""


class Ledger:
    """Evaluates for a method, counts what it costs, and remembers.

    Parameters
    ----------
    genome : kit.search.evolution.genome.Genome
    evaluate : callable
        ``evaluate(values, folder) -> float``; higher is better. See
        :mod:`kit.search.evolution.plan` for `values` and `folder`.
    budget : float
        Evaluations; a shortened one counts as the fraction of epochs it trains.
    seed : int
    folder : path-like
    epochs : int, optional
        Epochs of a full evaluation, told to the evaluation as ``values["epochs"]`` where a method
        shortens it.
    """

    def __init__(
        self,
        genome: Genome,
        evaluate: Callable[..., float],
        budget: float,
        seed: int,
        folder: Path | str,
        epochs: int | None = None,
    ) -> None:
        self.genome, self.evaluate, self.budget, self.seed, self.folder, self.epochs = (
            genome,
            evaluate,
            budget,
            seed,
            Path(folder),
            epochs,
        )
        self.known = files.read_json(self.folder / TRACE, default=[])
        self.rows, self.spent = [], 0.0

    def left(self, cost: float = 1.0) -> bool:
        """True while another evaluation of this cost fits the budget."""
        return self.spent + cost <= self.budget + 1e-9

    def __call__(
        self, genes: Sequence[float] | np.ndarray, generation: int, epochs: int | None = None
    ) -> dict:
        """Evaluate an individual, or look it up; gives its row of the trace.

        Raises
        ------
        _Spent
            If the budget does not allow it.
        kit.search.evolution.plan.OtherSearch
            If the folder knows another individual at this place.
        """
        cost, number = 1.0 if epochs is None else epochs / self.epochs, len(self.rows)
        if not self.left(cost):
            raise _Spent
        genes = [float(g) for g in genes]
        if number < len(self.known):
            row = self.known[number]
            if not np.allclose(row["genes"], genes, rtol=0, atol=1e-9):
                raise OtherSearch(
                    f"Evaluation {number} in {self.folder} has other genes than this search; "
                    "delete the folder or choose another."
                )
        else:
            row = {
                "evaluation": number,
                "generation": generation,
                **self._judge(genes, generation, number, epochs),
                "genes": genes,
                "cost": cost,
            }
            self.known.append(row)
            files.write_json(self.folder / TRACE, self.known)
        self.rows.append(row)
        self.spent += cost
        return row

    def _judge(self, genes, generation, number, epochs) -> dict:
        folder, started, fitness, reason = (
            trial_folder(self.folder, number),
            time.monotonic(),
            WORST,
            None,
        )
        folder.mkdir(parents=True, exist_ok=True)
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        where = {
            "generation": generation,
            "individual": number,
            "origin": "rival",
            "seed": seed,
            "parents": [],
            "shares": [],
            "better": 0,
        }
        try:
            fitness = float(
                self.evaluate(
                    {
                        **self.genome.decode(genes),
                        "search": where,
                        **({"epochs": epochs} if epochs else {}),
                    },
                    folder,
                )
            )
            if not math.isfinite(fitness):
                fitness, reason = WORST, NOT_FINITE
        except Exception as error:
            text = (str(error).strip() or "no message").splitlines()[0]
            reason = text if isinstance(error, KitError) else f"{type(error).__name__}: {text}"
        return {
            "fitness": fitness,
            "reason": reason,
            "seconds": round(time.monotonic() - started, 3),
        }

    def trace(self) -> pd.DataFrame:
        """The trace, see :func:`search`."""
        if all(row["reason"] is not None for row in self.rows):
            raise AllFailed(
                f"All {len(self.rows)} evaluations failed; the first: "
                f"{self.rows[0]['reason'] if self.rows else 'the budget allows none'}."
            )
        table = pd.DataFrame(self.rows)
        table["best"] = table["fitness"].where(table["reason"].isna()).cummax().ffill()
        values = pd.DataFrame([self.genome.decode(row["genes"]) for row in self.rows])
        columns = [
            "evaluation",
            "generation",
            "fitness",
            "best",
            "genes",
            "seconds",
            "reason",
            "cost",
        ]
        return pd.concat([table[columns], values], axis=1)


def search(  # noqa: PLR0913 a search has nine parts that its folder answers for, each by name
    method: str,
    genome: Genome,
    evaluate: Callable,
    budget: int,
    seed: int,
    folder: Path | str,
    *,
    population: int = 10,
    epochs: int | None = None,
    genetic: dict | None = None,
) -> pd.DataFrame:
    """Run a search of `budget` evaluations, or go on with the one in the folder.

    Parameters
    ----------
    method : str
        One of METHODS.
    genome : kit.search.evolution.genome.Genome
    evaluate : callable
        ``evaluate(values, folder) -> float``, higher is better; at most 1 and at least -1, as MCC
        and accuracies are. One that raises or is not finite counts as -1, with the reason.
    budget : int
        Full evaluations.
    seed : int
        Of the method; every evaluation is told one of its own.
    folder : path-like
    population : int
        Individuals of the genetic algorithm, particles, bees (half of which hold food sources);
        Bayesian optimisation draws as many at random first.
    epochs : int, optional
        Epochs of a full evaluation, needed by Hyperband: it asks for ``values["epochs"]`` and
        trains each time from the start, which is counted.
    genetic : dict, optional
        Settings of :class:`kit.search.evolution.genetic.GASettings`: at least crossover and
        mutation, unless the genome has five genes.

    Returns
    -------
    pandas.DataFrame
        One row an evaluation: evaluation, generation, fitness, best (so far; missing while all
        failed), genes (list), seconds, reason (None if well), cost (1, or the fraction of epochs),
        then the decoded values.

    Raises
    ------
    NoSuchMethod
    kit.search.evolution.plan.AllFailed
        If no evaluation succeeded.
    kit.search.evolution.plan.OtherSearch
        If the folder holds another search.
    """
    if method not in METHODS or budget < 1 or population < 1:
        raise NoSuchMethod(
            f'"{method}" with a budget of {budget} and a population of {population} cannot be run; '
            f"choose one of {', '.join(METHODS)} and at least 1 of each."
        )
    folder = Path(folder)
    with files.FolderLock(folder):
        _claim(
            folder,
            {
                "method": method,
                "genome": genome,
                "budget": budget,
                "seed": seed,
                "population": population,
                "epochs": epochs,
                "genetic": genetic,
            },
        )
        ledger = Ledger(genome, evaluate, budget, seed, folder, epochs=epochs)
        with contextlib.suppress(_Spent):
            METHODS[method](ledger, population, genetic or {})
        table = ledger.trace()
        files.write_csv(folder / "trace.csv", table.assign(genes=table["genes"].map(json.dumps)))
    return table


def _claim(folder: Path, told: dict) -> None:
    there = files.read_json(folder / METHOD, default=None)
    if there is None:
        files.write_json(folder / METHOD, told)
    elif files.digest(there) != files.digest(told):
        raise OtherSearch(f"{folder} holds another search; delete it or choose another folder.")


def _random(ledger: Ledger, population: int, _) -> None:
    rng = np.random.default_rng(ledger.seed)
    while True:
        ledger(rng.random(len(ledger.genome)), len(ledger.rows) // population)


def _genetic(ledger: Ledger, population: int, settings: dict) -> None:
    generations = math.ceil(ledger.budget / population)
    algorithm = GeneticAlgorithm(
        GASettings(generations, population, **{"worst": WORST, "seed": ledger.seed, **settings})
    )
    while not algorithm.finished:
        rows = [ledger(genes, algorithm.generation) for genes in algorithm.ask()]
        algorithm.tell([row["fitness"] for row in rows], [row["reason"] for row in rows])


def _niapy(ledger: Ledger, algorithm) -> None:
    """Run an algorithm of NiaPy, which minimises, on 1 - fitness in the unit cube."""
    from niapy.problems import Problem
    from niapy.task import Task

    class Cost(Problem):
        def _evaluate(self, x):
            return (
                1.0
                - ledger(np.clip(x, 0.0, 1.0), len(ledger.rows) // algorithm.population_size)[
                    "fitness"
                ]
            )

    algorithm.run(Task(Cost(len(ledger.genome), 0.0, 1.0)))


def _swarm(ledger: Ledger, population: int, _) -> None:
    from niapy.algorithms.basic import ParticleSwarmAlgorithm

    _niapy(ledger, ParticleSwarmAlgorithm(population, seed=ledger.seed, **SWARM))


def _bees(ledger: Ledger, population: int, _) -> None:
    from niapy.algorithms.basic import ArtificialBeeColonyAlgorithm

    if population < 4:
        raise NoSuchMethod(
            f"A colony needs at least 4 bees, 2 of which hold food sources, not {population}."
        )
    sources = population // 2
    _niapy(
        ledger,
        ArtificialBeeColonyAlgorithm(
            2 * sources, limit=sources * len(ledger.genome), seed=ledger.seed
        ),
    )  # limit of Karaboga and Basturk 2007


def _kerastuner(ledger: Ledger, oracle, generation, shortened: bool) -> None:
    """Ask an oracle of KerasTuner, evaluate, tell; what failed is told as the worst fitness, since
    oracles skip failed trials but Hyperband waits for them.
    """
    oracle.verbose = 0
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # scikit-learn's, about length scales at their bounds, of every fit
        oracle._set_project_dir(scratch, "oracle")
        while True:
            trial = oracle.create_trial("tuner0")
            if trial.status != "RUNNING":
                return
            values = trial.hyperparameters.values
            row = ledger(
                ledger.genome.encode(values),
                generation(trial),
                values["tuner/epochs"] if shortened else None,
            )
            oracle.update_trial(trial.trial_id, {"fitness": row["fitness"]})
            trial.status = "COMPLETED"
            oracle.end_trial(trial)


def _bayesian(ledger: Ledger, population: int, _) -> None:
    import keras_tuner

    oracle = keras_tuner.oracles.BayesianOptimizationOracle(
        keras_tuner.Objective("fitness", "max"),
        max_trials=int(ledger.budget),
        num_initial_points=population,
        hyperparameters=ledger.genome.hyperparameters(),
        seed=ledger.seed + 1,
    )  # KerasTuner takes 0 for no seed
    _kerastuner(ledger, oracle, lambda trial: len(ledger.rows) // population, False)


def _hyperband(ledger: Ledger, population: int, _) -> None:
    import keras_tuner

    if not ledger.epochs or ledger.epochs < 2:
        raise NoSuchMethod(
            "Hyperband shortens evaluations: it needs `epochs`, the epochs of a full one, and at "
            "least 2 of them."
        )
    oracle = keras_tuner.oracles.HyperbandOracle(
        keras_tuner.Objective("fitness", "max"),
        max_epochs=ledger.epochs,
        factor=3 if ledger.epochs > 2 else 2,
        hyperband_iterations=0,
        hyperparameters=ledger.genome.hyperparameters(),
        seed=ledger.seed + 1,
    )
    _kerastuner(ledger, oracle, lambda trial: trial.hyperparameters.values["tuner/round"], True)


METHODS = {
    "random": _random,
    "genetic": _genetic,
    "swarm": _swarm,
    "bees": _bees,
    "bayesian": _bayesian,
    "hyperband": _hyperband,
}
logging.getLogger("niapy").setLevel(logging.WARNING)
