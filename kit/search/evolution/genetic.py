"""The genetic algorithm of Gen-CNN and Gen-Soup, thesis Algorithms 1 and 2, as an ask/tell core in
NumPy.

The default follows the text: each individual meets one opponent and survives only if it is strictly
better; every offspring inherits its first parent's genes, blends some with a random mate by their
normalised fitness (eq. 3.4 and 3.5), and mutates some; the best of the selected replaces the last.
The released code meets two opponents, keeps the individual on a tie, and draws the last index half
as often as the others, which is where its elite sits; options give all three (:func:`released`).
Three cases that break text or code are settled: parents that are both the worst blend to their
plain mean (the code sets the gene to 0), a generation that all ties counts as all best (the code
divides by zero), and a fitness that is missing or not finite is told as the worst there is, with a
reason, and has no part in the scale of the others (its evaluation is 0). Gen-Soup's population
shrinks (Table 5.1) without the thesis saying how: here the tournament runs over a random order of
the population until enough are selected, and the best is always kept.

Nothing here knows what genes mean or how they are evaluated; see :mod:`kit.search.evolution.genome`
and :mod:`kit.search.evolution.tuner`.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from kit.errors import KitError
from kit.search.evolution.operators import normalised, offspring, shares, tournament

CROSSOVER_3 = (0.0, 0.0, 0.0, 0.9, 0.9)  # Table 3.4, in its order of genes
MUTATION_3 = (0.4, 0.4, 0.4, 0.2, 0.2)
CROSSOVER_5 = (0.0, 0.0, 0.0, 0.9, 0.9, 0.9, 0.9)  # Table 5.1
MUTATION_5 = (0.0, 0.25, 0.25, 0.25, 0.25, 0.15, 0.15)
NOT_FINITE = "the fitness is not finite"


class BadSettings(KitError):
    """Settings of the genetic algorithm that contradict each other."""


class OutOfTurn(KitError):
    """A generation was asked for after the last one, or told what does not fit it."""


@dataclass(frozen=True)
class GASettings:
    """Settings of a search.

    Attributes
    ----------
    generations : int
    individuals : int or tuple of int
        Population, the same in every generation or one number a generation that never grows.
    crossover, mutation : tuple of float
        Probabilities, one a gene; their length is the number of genes.
    opponents : int
        Opponents that each individual meets in the tournament: 1 (text), 2 (released code).
    ties : str
        Who survives a tie: "opponent" (text), "self" (released code).
    legacy_index : bool
        Draw indices and random numbers exactly as the released code does after
        ``numpy.random.seed(seed)``.
    dominant : tuple of int
        Genes that are taken from the better parent instead of the first (Gen-Soup: the
        architecture, section 5.2); the first parent is the better on a tie.
    worst : float
        Fitness of an individual that failed; -1 is the worst MCC.
    seed : int

    Raises
    ------
    BadSettings
    """

    generations: int
    individuals: int | tuple
    crossover: tuple = CROSSOVER_3
    mutation: tuple = MUTATION_3
    opponents: int = 1
    ties: str = "opponent"
    legacy_index: bool = False
    dominant: tuple = ()
    worst: float = -1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("crossover", "mutation", "dominant"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not isinstance(self.individuals, int):
            object.__setattr__(self, "individuals", tuple(int(n) for n in self.individuals))
        if (
            self.generations < 1
            or len(self.sizes) != self.generations
            or min(self.sizes) < 1
            or any(a < b for a, b in zip(self.sizes, self.sizes[1:], strict=False))
        ):
            raise BadSettings(
                f"{self.generations} generations need as many sizes, each at least 1 and none "
                f"above the one before it, not {self.individuals}."
            )
        if (
            len(self.crossover) != len(self.mutation)
            or not self.crossover
            or not all(0 <= p <= 1 for p in self.crossover + self.mutation)
        ):
            raise BadSettings(
                "The probabilities of crossover and mutation need one number in [0, 1] for every "
                "gene."
            )
        if (
            self.opponents < 1
            or self.ties not in ("opponent", "self")
            or not set(self.dominant) <= set(range(self.genes))
        ):
            raise BadSettings(
                'The tournament needs at least one opponent, ties go to "opponent" or "self", and '
                "dominant genes are indices of genes."
            )
        if not math.isfinite(self.worst):
            raise BadSettings("The worst fitness must be a finite number.")

    @property
    def genes(self) -> int:
        """Number of genes."""
        return len(self.crossover)

    @property
    def sizes(self) -> tuple:
        """Individuals of every generation."""
        return (
            (self.individuals,) * self.generations
            if isinstance(self.individuals, int)
            else self.individuals
        )


def released(generations: int, individuals: int, **changes: Any) -> GASettings:
    """Settings of the released code: two opponents, ties keep the individual, and an index drawn
    with a bias (the last one half as often).
    """
    return GASettings(
        generations,
        individuals,
        **{"opponents": 2, "ties": "self", "legacy_index": True, **changes},
    )


def shrinking(generations: int, first: int = 50, decrement: int = 5, smallest: int = 10) -> tuple:
    """Population sizes of Gen-Soup (Table 5.1): 50, 45, ... 10, 10."""
    return tuple(max(first - decrement * g, smallest) for g in range(generations))


@dataclass(frozen=True)
class Lineage:
    """Where the individuals of a generation come from.

    Attributes
    ----------
    origin : tuple of str
        "random", "offspring" or "elite".
    parents : numpy.ndarray
        (n, 2) int, rows of the generation before; -1 in the first generation, twice the same row
        for the elite.
    shares : numpy.ndarray
        (n, 2) float weights of the parents in a blend, summing to 1 (eq. 3.5 and 5.1); (1, 0) for
        the elite.
    better : numpy.ndarray
        (n,) int, 0 or 1: which parent has the higher evaluation; the first on a tie.
    """

    origin: tuple
    parents: np.ndarray
    shares: np.ndarray
    better: np.ndarray


class GeneticAlgorithm:
    """Ask for a generation's genes, tell their fitness, until :attr:`finished`.

    Parameters
    ----------
    settings : GASettings

    Attributes
    ----------
    generation : int
        From 0: the one to be told next.
    lineage : Lineage
        Of the generation that :meth:`ask` gives.
    told : list of dict
        One entry a generation told: genes, fitness, evaluations, reasons, lineage.
    """

    def __init__(self, settings: GASettings) -> None:
        self.settings, self.generation, self.told = settings, 0, []
        self._bits = (
            np.random.MT19937() if settings.legacy_index else np.random.PCG64(settings.seed)
        )
        if settings.legacy_index:
            self._bits.state = np.random.RandomState(settings.seed).get_state(legacy=False)
        n = settings.sizes[0]
        self._genes = self._random((n, settings.genes))
        self.lineage = Lineage(
            ("random",) * n, np.full((n, 2), -1), np.full((n, 2), 0.5), np.zeros(n, int)
        )

    def _random(self, shape=None):
        return np.random.Generator(self._bits).random(shape)

    @property
    def finished(self) -> bool:
        """True once the last generation was told."""
        return self.generation == self.settings.generations

    def ask(self) -> np.ndarray:
        """Genes of the current generation, (n, genes) float in [0, 1]; the same until it is told.

        Raises
        ------
        OutOfTurn
            After the last generation.
        """
        if self.finished:
            raise OutOfTurn(
                f"The search has ended after {self.generation} generations; its history is "
                "complete."
            )
        return self._genes.copy()

    def tell(
        self,
        fitness: Sequence[float | None] | np.ndarray,
        reasons: Sequence[str | None] | None = None,
    ) -> None:
        """Fitness of the current generation, and breed the next.

        Parameters
        ----------
        fitness : sequence of float or None
            (n,); higher is better. What is None or not finite counts as failed.
        reasons : sequence of str or None, optional
            (n,); why an individual failed. One with a reason gets the worst fitness whatever its
            number.

        Raises
        ------
        OutOfTurn
        """
        n = len(self.ask())
        if len(fitness) != n or (reasons is not None and len(reasons) != n):
            raise OutOfTurn(
                f"Generation {self.generation} has {n} individuals, but {len(fitness)} fitness "
                "values were told."
            )
        numbers = np.array([np.nan if value is None else value for value in fitness], float)
        reasons = [
            reason or (None if np.isfinite(value) else NOT_FINITE)
            for value, reason in zip(numbers, reasons or [None] * n, strict=True)
        ]
        failed = np.array([reason is not None for reason in reasons])
        numbers = np.where(failed, self.settings.worst, numbers)
        evaluations = normalised(numbers, failed)
        self.told.append(
            {
                "genes": self._genes,
                "fitness": numbers,
                "evaluations": evaluations,
                "reasons": reasons,
                "lineage": self.lineage,
            }
        )
        self.generation += 1
        if not self.finished:
            self._breed(evaluations)

    def _breed(self, evaluations) -> None:
        """The next generation from the current one: tournament, offspring, elite at the end."""
        genes, m = self._genes, self.settings.sizes[self.generation]
        rows = self._select(evaluations, m)
        elite = (
            rows[np.argmax(evaluations[rows])]
            if evaluations[rows].max() == evaluations.max()
            else np.argmax(evaluations)
        )
        mates, crossed, mutated, values = self._draws(m)
        first, second = rows[: m - 1], rows[mates]
        better = (evaluations[second] > evaluations[first]).astype(int)
        weights = shares(evaluations[first], evaluations[second])
        inherited = genes[first]
        for gene in self.settings.dominant:
            inherited[:, gene] = np.where(better, genes[second, gene], genes[first, gene])
        children = offspring(
            inherited, genes[second], weights, crossed=crossed, mutated=mutated, values=values
        )
        self._genes = np.vstack([children, genes[elite]])
        self.lineage = Lineage(
            ("offspring",) * (m - 1) + ("elite",),
            np.vstack([np.stack([first, second], 1), [[elite, elite]]]),
            np.vstack([weights, [[1.0, 0.0]]]),
            np.append(better, 0),
        )

    def _select(self, evaluations, m: int) -> np.ndarray:
        n = len(evaluations)
        contestants = np.arange(n) if m == n else np.argsort(self._random(n))[:m]
        return tournament(
            evaluations,
            contestants,
            self._indices((m, self.settings.opponents), n),
            self.settings.ties,
        )

    def _indices(self, shape, n: int) -> np.ndarray:
        """Random rows of n; with `legacy_index` as the released code draws them: the last half as
        often as the others.
        """
        u = self._random(shape)
        if self.settings.legacy_index:
            return np.round(-0.5 * u + (n - 1) * (1 - u)).astype(int)
        return np.minimum((u * n).astype(int), n - 1)

    def _draws(self, m: int):
        """Mates (m - 1,) among m selected, which genes are crossed and mutated, and their new
        values, (m - 1, genes) each.
        """
        crossover, mutation, shape = (
            np.array(self.settings.crossover),
            np.array(self.settings.mutation),
            (m - 1, self.settings.genes),
        )
        if not self.settings.legacy_index:
            return (
                self._indices(m - 1, m),
                self._random(shape) < crossover,
                self._random(shape) < mutation,
                self._random(shape),
            )
        mates, crossed, mutated, values = (
            np.zeros(m - 1, int),
            np.zeros(shape, bool),
            np.zeros(shape, bool),
            np.zeros(shape),
        )
        for i in range(
            m - 1
        ):  # one draw after the other: a value is drawn only where a gene mutates
            mates[i] = self._indices((), m)
            for j in range(self.settings.genes):
                crossed[i, j], mutated[i, j] = (
                    self._random() < crossover[j],
                    self._random() < mutation[j],
                )
                values[i, j] = self._random() if mutated[i, j] else 0.0
        return mates, crossed, mutated, values

    @property
    def best(self) -> dict | None:
        """The individual with the highest fitness of the whole run, the earliest of equals:
        generation, individual, fitness, genes; None while none succeeded.
        """
        found = None
        for g, entry in enumerate(self.told):
            for i, (fitness, reason) in enumerate(
                zip(entry["fitness"], entry["reasons"], strict=True)
            ):
                if reason is None and (found is None or fitness > found["fitness"]):
                    found = {
                        "generation": g,
                        "individual": i,
                        "fitness": float(fitness),
                        "genes": entry["genes"][i].copy(),
                    }
        return found

    def history(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """One row an individual told: generation, individual, fitness, evaluation, reason, origin,
        first, second, share, and its genes.

        Parameters
        ----------
        names : sequence of str, optional
            Column names of the genes; gene_0, gene_1, ... unless given.
        """
        names, rows = names or [f"gene_{j}" for j in range(self.settings.genes)], []
        for g, entry in enumerate(self.told):
            lineage = entry["lineage"]
            rows.extend(
                {
                    "generation": g,
                    "individual": i,
                    "fitness": float(entry["fitness"][i]),
                    "evaluation": float(entry["evaluations"][i]),
                    "reason": entry["reasons"][i],
                    "origin": lineage.origin[i],
                    "first": int(lineage.parents[i, 0]),
                    "second": int(lineage.parents[i, 1]),
                    "share": float(lineage.shares[i, 0]),
                    **dict(zip(names, entry["genes"][i].tolist(), strict=True)),
                }
                for i in range(len(entry["fitness"]))
            )
        return pd.DataFrame(rows)

    def state(self) -> dict:
        """Everything that the rest of the search depends on, as plain JSON; numbers keep all their
        digits.
        """
        told = [
            {
                "genes": e["genes"].tolist(),
                "fitness": e["fitness"].tolist(),
                "evaluations": e["evaluations"].tolist(),
                "reasons": list(e["reasons"]),
                "lineage": _listed(e["lineage"]),
            }
            for e in self.told
        ]
        return {
            "settings": asdict(self.settings),
            "random": _plain(self._bits.state),
            "generation": self.generation,
            "genes": self._genes.tolist(),
            "lineage": _listed(self.lineage),
            "told": told,
        }

    @classmethod
    def from_state(cls, state: dict) -> "GeneticAlgorithm":
        """The search as it was when :meth:`state` was called."""
        search = cls(GASettings(**state["settings"]))
        bits = state["random"]
        if "key" in bits["state"]:
            bits = {
                **bits,
                "state": {**bits["state"], "key": np.array(bits["state"]["key"], np.uint32)},
            }
        search._bits.state = bits
        search.generation, search._genes, search.lineage = (
            state["generation"],
            np.array(state["genes"], float),
            _lineage(state["lineage"]),
        )
        search.told = [
            {
                "genes": np.array(e["genes"], float),
                "fitness": np.array(e["fitness"], float),
                "evaluations": np.array(e["evaluations"], float),
                "reasons": list(e["reasons"]),
                "lineage": _lineage(e["lineage"]),
            }
            for e in state["told"]
        ]
        return search


def _listed(lineage: Lineage) -> dict:
    return {name: np.asarray(value).tolist() for name, value in vars(lineage).items()}


def _lineage(listed: dict) -> Lineage:
    return Lineage(
        tuple(listed["origin"]),
        np.array(listed["parents"], int),
        np.array(listed["shares"], float),
        np.array(listed["better"], int),
    )


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
