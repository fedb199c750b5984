"""What the adapter to KerasTuner asks of an algorithm, answered by both: the genetic algorithm,
told a generation at a time, and the differential evolution, told candidate by candidate.

Trainings are numbered from 0 in the order in which they are handed out; a trial of KerasTuner's is
one training. In the genetic algorithm that is the n-th individual over all generations, in the
differential evolution a candidate's ``evaluation`` (infeasible ones and duplicates are no trials).
That order, and the result, are the same for any number of workers: the genetic algorithm waits for
its generation, and the differential evolution hands out only what the sequential code would be
certain to train (:mod:`kit.search.evolution.opposition`), so that where the paper's stop falls into
a generation no worker runs ahead of it.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from kit.search.evolution.genetic import GASettings, GeneticAlgorithm
from kit.search.evolution.opposition import ODE
from kit.search.evolution.opposition_log import Candidate
from kit.search.evolution.opposition_settings import ODESettings


def first_of(settings: GASettings, generation: int) -> int:
    """Number of the first individual of a generation of the genetic algorithm."""
    return sum(settings.sizes[:generation])


def ended(state: dict) -> bool:
    """True if an oracle's state on disk is that of a search that is over, with or without a
    result.
    """
    if state["failure"]:
        return True
    if OppositionSearch.KEY in state:
        return state[OppositionSearch.KEY]["ended"] is not None
    genetic = state[GeneticSearch.KEY]
    return genetic["generation"] == genetic["settings"]["generations"]


def _seed(*place) -> int:
    return int(np.random.SeedSequence(list(place)).generate_state(1)[0])


class GeneticSearch:
    """The genetic algorithm behind the oracle.

    Parameters
    ----------
    settings : kit.search.evolution.genetic.GASettings
    state : dict, optional
        Of the algorithm, to go on from.
    """

    KEY = "genetic"  # in the oracle's state

    def __init__(self, settings: GASettings, state: dict | None = None) -> None:
        self.algorithm = (
            GeneticAlgorithm(settings) if state is None else GeneticAlgorithm.from_state(state)
        )

    @property
    def finished(self) -> bool:
        """True once nothing is left to train."""
        return self.algorithm.finished

    def _first(self, before: int = 0) -> int:
        return first_of(self.algorithm.settings, self.algorithm.generation - before)

    def task(self, number: int) -> tuple[np.ndarray, dict] | None:
        """Genes of a training and where it stands in the search; None while it has to wait."""
        genes, row = self.algorithm.ask(), number - self._first()
        if row >= len(genes):
            return None
        generation, lineage = self.algorithm.generation, self.algorithm.lineage
        parents = [self._first(1) + int(n) for n in lineage.parents[row]] if generation else []
        return genes[row], {
            "generation": generation,
            "individual": row,
            "origin": lineage.origin[row],
            "seed": _seed(self.algorithm.settings.seed, number),  # as of every rival
            "parents": parents,
            "shares": lineage.shares[row].tolist(),
            "better": int(lineage.better[row]),
        }

    def gather(self, outcomes: dict) -> bool:
        """Tell the algorithm what of `outcomes` (number: outcome) it waits for; True if a
        generation ended.
        """
        found = [
            outcomes.get(n) for n in range(self._first(), self._first() + len(self.algorithm.ask()))
        ]
        if None in found:
            return False
        self.algorithm.tell(
            [outcome["fitness"] for outcome in found], [outcome["reason"] for outcome in found]
        )
        return True

    def failure(self) -> str | None:
        """Why there is no result; None as long as there may be one."""
        if self.algorithm.generation == 0 or self.algorithm.best is not None:
            return None
        reasons = [reason for entry in self.algorithm.told for reason in entry["reasons"]]
        return (
            f"All {len(reasons)} individuals failed, so there is nothing to select; the first: "
            f"{self.algorithm.told[-1]['reasons'][0]}."
        )

    def alive(self) -> set:
        """Numbers of the trainings whose weights are still needed: the best's and the coming
        parents'.
        """
        found, best = set(), self.algorithm.best
        if best is not None:
            found.add(first_of(self.algorithm.settings, best["generation"]) + best["individual"])
        if not self.finished:
            found |= {self._first(1) + int(n) for n in self.algorithm.lineage.parents.ravel()}
        return found

    def best(self) -> dict:
        """The best individual, and the number of its training."""
        best = self.algorithm.best
        return {
            **best,
            "training": first_of(self.algorithm.settings, best["generation"]) + best["individual"],
        }

    def trainings(self) -> list:
        """Of every row of the history: the number of its training."""
        return list(range(sum(len(entry["fitness"]) for entry in self.algorithm.told)))


class OppositionSearch:
    """The differential evolution behind the oracle.

    Parameters
    ----------
    settings : kit.search.evolution.opposition_settings.ODESettings
    space : object
        See :mod:`kit.search.evolution.opposition`.
    state : dict, optional
        Of the algorithm, to go on from.
    """

    KEY = "ode"

    def __init__(self, settings: ODESettings, space: Any, state: dict | None = None) -> None:
        self.algorithm = ODE(settings, space) if state is None else ODE.from_state(state, space)

    @property
    def finished(self) -> bool:
        """True once nothing is left to train."""
        return self.algorithm.finished

    def task(self, number: int) -> tuple[np.ndarray, dict] | None:
        """Genes of a training and where it stands in the search; None while it has to wait."""
        candidate = next((c for c in self.algorithm.ask() if c.evaluation == number), None)
        if candidate is None:
            return None
        return candidate.genes, {
            "generation": candidate.generation,
            "individual": number,
            "number": candidate.number,
            "origin": candidate.phase,
            "seed": _seed(self.algorithm.settings.seed, candidate.index),
            "parents": [],
            "from": list(candidate.parents),
            "genes": candidate.genes.tolist(),
        }

    def gather(self, outcomes: dict) -> bool:
        """Tell the algorithm what of `outcomes` (number: outcome) it waits for; True if a
        generation or its first half ended.
        """
        batch, going = self.algorithm.batch, True
        while going:  # what is told may open more, of which some may have ended before a kill
            known = (
                []
                if self.finished
                else [c.evaluation for c in self.algorithm.ask() if c.evaluation in outcomes]
            )
            for number in known:
                told = outcomes[number]
                self.algorithm.tell(number, told["fitness"], told["reason"], told.get("ties", ()))
            going = bool(known)
        return self.algorithm.batch is not batch or self.finished

    def failure(self) -> str | None:
        """Why there is no result; None as long as there may be one."""
        search = self.algorithm
        failed = [c for c in search.log if c.failed and c.duplicate is None]
        if search.books.generations and search.books.trained == 0 and failed:
            return (
                f"All {len(failed)} candidates that were tried failed, so there is nothing to "
                f"select; the first: {failed[0].reason}."
            )
        if self.finished and search.books.trained == 0:
            return (
                f"None of {len(search.log)} candidates could be trained, so there is nothing to "
                f"select: {_reasons(search.log)}."
            )
        return None

    def alive(self) -> set:
        """Numbers of the trainings whose weights are still needed: the best's, the population's and
        those of candidates that are not judged yet.
        """
        search = self.algorithm
        log, members = (
            search.log,
            [
                *search.population,
                *([search.best] if search.best else []),
                *([] if self.finished else search.batch),
            ],
        )
        return {(log[c.duplicate] if c.duplicate is not None else c).evaluation for c in members}

    def best(self) -> dict:
        """The best candidate, and the number of its training."""
        best = self.algorithm.best
        return {
            "generation": best.generation,
            "individual": best.evaluation,
            "number": best.number,
            "fitness": best.fitness,
            "genes": best.genes.copy(),
            "training": best.evaluation,
        }

    def trainings(self) -> list:
        """Of every row of the history: the number of its training; None without one."""
        return [c.evaluation for c in self.algorithm.log]


def _reasons(log: Sequence[Candidate]) -> str:
    """How often each reason for not training a candidate occurs and the first that gives it, the
    commonest first; reasons that differ only in numbers count as one.
    """
    kinds: dict[str, list[str]] = {}
    for candidate in log:
        reason = candidate.reason or "a duplicate"
        kinds.setdefault(re.sub(r"[\d.e+-]*\d", "#", reason), []).append(reason)
    common = sorted(kinds.values(), key=len, reverse=True)
    return "; ".join(f"{len(same)} times {same[0]}" for same in common)
