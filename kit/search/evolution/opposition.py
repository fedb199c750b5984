"""Opposition-based differential evolution, the search of PBC-NAS, as an ask/tell core in NumPy.

The released code is one loop that trains as it goes. Here candidates are handed out and their
fitness is told in any order, and the search is the same as if one had been trained after the other:
a candidate is handed out only once it is certain that the sequential code would train it, so that
workers beside each other neither change the search nor train anything beyond its stop (near the
budget some of them wait). ``mode="paper"`` repeats the released code with its slips, number by
number; ``mode="clean"``, the default, settles them (:mod:`kit.search.evolution.opposition_settings`
has the table). Random search keeps the same books at the same budget.

Nothing here knows what genes mean: a `space` has ``genes`` (their number), ``reason(x)`` (why x
stands for nothing, else None), ``key(x, kind)`` (equal for candidates that count as the same; None
equals nothing) and, if the cost is capped, ``cost(x)``, as :class:`kit.search.nas3d.space.Space`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from kit.search.evolution.genetic import NOT_FINITE, OutOfTurn
from kit.search.evolution.opposition_log import (
    INIT,
    JUMP,
    OPPOSITE,
    RANDOM,
    TRIAL,
    Books,
    Candidate,
    frame,
)
from kit.search.evolution.opposition_settings import ODESettings

STREAMS = ("initial", "donors", "crossover", "jumping", "repair")
REDRAWS = 1000  # draws for a genome that is no duplicate, in a space that may be exhausted
BUDGET, EXHAUSTED = "the budget is spent", "nothing new was found for too many generations"


class ODE:
    """Ask for candidates, tell their fitness, until :attr:`finished`.

    Parameters
    ----------
    settings : ODESettings
    space : object
        See the module.

    Attributes
    ----------
    log : list of Candidate
    population : list of Candidate
        The current members, slot by slot.
    generation : int
        Of the candidates that are out; -1 at the start.
    books : Books
        Counters, and one entry a generation that ended: generation, population (numbers), fitness,
        best (number), best_fitness, jumped, survived (opposites that stayed), the counters.
    ended : str or None
        BUDGET or EXHAUSTED once the search is over.
    """

    def __init__(self, settings: ODESettings, space: Any) -> None:
        self.settings, self.space, self.log, self.population, self.batch = (
            settings,
            space,
            [],
            [],
            [],
        )
        self.generation, self.phase, self.books, self.ended = -1, INIT, Books(), None
        self._best, self._number, self._evaluations, self._seen, self._idle, self._jumped = (
            None,
            0,
            0,
            {},
            0,
            None,
        )
        seeds = (
            [settings.seed] * len(STREAMS)
            if settings.streams == "same"
            else np.random.SeedSequence(settings.seed).generate_state(len(STREAMS))
        )
        self.streams = {
            name: np.random.RandomState(int(seed))
            for name, seed in zip(STREAMS, seeds, strict=True)
        }
        self._start()

    @property
    def finished(self) -> bool:
        """True once nothing is left to train."""
        return self.ended is not None

    @property
    def best(self) -> Candidate | None:
        """The best candidate so far, of those that the search considers (see `last_in_best`); None
        while none succeeded.
        """
        return self._best

    def rank(self, candidate: Candidate) -> tuple:
        """What candidates are compared by."""
        return (candidate.fitness, *(candidate.ties if self.settings.tie_break else ()))

    def ask(self) -> list:
        """Candidates to be trained now, in order; those already handed out and not told are among
        them.

        Raises
        ------
        OutOfTurn
            After the end.
        """
        if self.finished:
            raise OutOfTurn(f"The search has ended ({self.ended}); its log is complete.")
        return self._walk()[1]

    def tell(
        self,
        evaluation: int,
        fitness: float | None,
        reason: str | None = None,
        ties: Sequence[float] = (),
    ) -> None:
        """Outcome of a candidate, in any order.

        Parameters
        ----------
        evaluation : int
            The candidate's.
        fitness : float or None
            Higher is better. None or not finite counts as failed.
        reason : str, optional
            Why it failed; one with a reason gets the worst fitness whatever its number.
        ties : sequence of float
            Decide between equal fitness, one after the other; higher is better.

        Raises
        ------
        OutOfTurn
            If this candidate is not waited for.
        """
        candidate = next(
            (c for c in (() if self.finished else self.ask()) if c.evaluation == evaluation), None
        )
        if candidate is None:
            raise OutOfTurn(f"The search waits for no fitness of evaluation {evaluation}.")
        numbers = [math.nan if value is None else float(value) for value in (fitness, *ties)]
        candidate.reason = reason or (None if all(map(math.isfinite, numbers)) else NOT_FINITE)
        candidate.failed = candidate.reason is not None
        candidate.fitness, candidate.ties = (
            (self._worst(), ()) if candidate.failed else (numbers[0], tuple(numbers[1:]))
        )
        self._advance()

    def _worst(self) -> float:
        return self.settings.worst[self.generation >= 0]

    # candidates

    def _add(self, genes, phase: str, parents=()) -> Candidate:
        """A candidate enters the log and the batch; what needs no training is settled."""
        candidate = Candidate(
            len(self.log),
            None,
            self.generation,
            phase,
            np.array(genes, float),
            parents=tuple(parents),
        )
        key = None
        candidate.reason, candidate.rejected = self._unfit(genes)
        if candidate.reason is not None:
            candidate.feasible, candidate.fitness = False, self._worst()
        else:
            key = self._key(genes)
            candidate.duplicate = None if key is None else self._seen.get(key)
        if candidate.duplicate is not None and self.settings.cached == "swap":
            candidate.genes = self.log[candidate.duplicate].genes.copy()
        if candidate.duplicate is None or self.settings.numbering == "all":
            candidate.number, self._number = self._number, self._number + 1
        if candidate.feasible and candidate.duplicate is None:
            candidate.evaluation, self._evaluations = self._evaluations, self._evaluations + 1
            if key is not None:
                self._seen[key] = candidate.index
        self.log.append(candidate)
        self.batch.append(candidate)
        return candidate

    def _unfit(self, genes) -> tuple:
        """Why genes are not to be trained (None if they are), and whether for their cost alone."""
        reason, most = self.space.reason(genes), self.settings.most_cost
        if reason is None and most is not None and (cost := self.space.cost(genes)) > most:
            return f"it costs {cost:.3g}, above {most:.3g}", True
        return reason, False

    def _key(self, genes):
        return None if self.settings.dedup == "none" else self.space.key(genes, self.settings.dedup)

    def _name(self, candidate: Candidate) -> int:
        return (
            candidate.number
            if candidate.number is not None
            else self._name(self.log[candidate.duplicate])
        )

    def _uniform(self):
        """Uniform genes that are no duplicate and, if asked for, feasible, if there are such."""
        for _ in range(REDRAWS):
            genes = self.streams["initial"].uniform(size=self.space.genes)
            if self.settings.infeasible == "redrawn" and self._unfit(genes)[0] is not None:
                continue
            key = None if self.space.reason(genes) else self._key(genes)
            if key is None or key not in self._seen:
                break
        return genes

    def _start(self) -> None:
        """The initial set and its opposites."""
        first = RANDOM if self.settings.algorithm == "random" else INIT
        for _ in range(self.settings.population):
            self._add(self._uniform(), first)
        if self.settings.opposite_init and first == INIT:
            self._number += self.settings.numbering == "paper"
            for candidate in list(self.batch):
                self._add(1 - candidate.genes, OPPOSITE, [candidate.number])
        self._advance()

    def _breed(self) -> None:
        """The trials of the next generation, one a slot, all from the population as it is; or more
        random genomes.
        """
        self.generation, self.phase, self.batch, self._jumped = self.generation + 1, TRIAL, [], None
        n = self.settings.population
        if self.settings.algorithm == "random":
            for _ in range(n):
                self._add(self._uniform(), RANDOM)
            return
        for slot, target in enumerate(self.population):
            others = np.delete(np.arange(n), slot) if self.settings.exclude_target else np.arange(n)
            donors = [
                self.population[k] for k in self.streams["donors"].choice(others, 3, replace=False)
            ]
            mutant = donors[0].genes + self.settings.factor * (donors[1].genes - donors[2].genes)
            mask = self.streams["crossover"].rand(self.space.genes) < self.settings.crossover
            if not mask.any():
                mask[self.streams["crossover"].randint(self.space.genes)] = True
            self._add(
                self._repaired(np.where(mask, mutant, target.genes)),
                TRIAL,
                [self._name(c) for c in (target, *donors)],
            )

    def _repaired(self, genes):
        """Genes outside [0, 1] are drawn anew; after the crossover, so that only those which the
        trial takes from the mutant use up draws.
        """
        outside = (genes < 0) | (genes > 1)
        genes[outside] = self.streams["repair"].uniform(size=outside.sum())
        return genes

    def _jump(self) -> None:
        """The opposites of the population within the range it covers."""
        self.phase, self.batch, self._jumped = JUMP, [], []
        genes = np.array([member.genes for member in self.population])
        for member in self.population:
            self._add(
                np.clip(genes.min(0) + genes.max(0) - member.genes, 0, 1),
                JUMP,
                [self._name(member)],
            )

    # what follows from outcomes

    def _walk(self) -> tuple:
        """The batch as the sequential code would go through it: candidates it is certain to reach,
        those of them to train now, and whether it stops before the end.
        """
        limit = (
            math.inf
            if self.settings.stop == "over" and self.phase != TRIAL
            else self.settings.limit
        )
        certain = possible = self.books.trained
        reached, ready = [], []
        for candidate in self.batch:
            if certain >= limit:
                return reached, ready, True
            if candidate.waits and possible < limit:
                ready.append(candidate)
            certain, possible = (
                certain + candidate.trained,
                possible + candidate.trained + candidate.waits,
            )
            reached.append(candidate)
        return reached, ready, certain >= limit

    def _advance(self) -> None:
        """Go on until something is to be trained or the search is over."""
        while not self.finished:
            reached, _, stopped = self._walk()
            if any(candidate.waits for candidate in reached):
                return
            self._close(reached, stopped)

    def _close(self, reached, stopped) -> None:
        for candidate in self.batch[len(reached) :]:
            candidate.dropped = True
        for candidate in reached:
            if candidate.duplicate is not None:
                known = self.log[candidate.duplicate]
                candidate.fitness, candidate.ties, candidate.failed = (
                    known.fitness,
                    known.ties,
                    known.failed,
                )
            self.books.enter(candidate)
        self._consider(reached[:-1] if stopped and not self.settings.last_in_best else reached)
        lost = stopped and self.settings.stop == "over"
        if not lost:
            self._select(reached)
        jumps = (
            self.settings.algorithm == "ode"
            and self.settings.opposite_jumping
            and self.phase == TRIAL
            and not stopped
        )
        if (
            jumps
            and self.generation >= 0
            and self.streams["jumping"].uniform() < self.settings.jumping
        ):
            self._jump()
        else:
            self._end_generation()

    def _consider(self, reached) -> None:
        """Follow the best: the latest of equals as the sequential code meets them, or the first."""
        for candidate in reached:
            if candidate.failed or not candidate.feasible:
                continue
            rank, best = self.rank(candidate), self._best and self.rank(self._best)
            if (
                best is None
                or rank > best
                or (rank == best and self.settings.best_ties == "latest")
            ):
                self._best = candidate

    def _select(self, reached) -> None:
        """Who stays: one to one after trials, else the best of all."""
        n = self.settings.population
        if self.phase == TRIAL and self.settings.algorithm == "ode":
            self.population = [
                trial if self.rank(trial) >= self.rank(member) else member
                for member, trial in zip(self.population, reached, strict=False)
            ] + self.population[len(reached) :]
            return
        new = [candidate for candidate in reached if candidate.duplicate is None]
        self.population = sorted(self.population + new, key=self.rank, reverse=True)[
            :n
        ]  # stable: the earlier of equals stays
        if self.phase == JUMP:
            self._jumped = [candidate.number for candidate in new if candidate in self.population]
        head = self.population[0] if self.population else None
        if (
            self.settings.best_ties == "latest"
            and head is not None
            and head.feasible
            and not head.failed
        ):
            self._best = head

    def _end_generation(self) -> None:
        before = self.books.generations[-1]["trained"] if self.books.generations else 0
        best = self._best
        self.books.generations.append(
            {
                "generation": self.generation,
                "population": [self._name(c) for c in self.population],
                "fitness": [c.fitness for c in self.population],
                "best": best and self._name(best),
                "best_fitness": best and best.fitness,
                "jumped": self._jumped is not None,
                "survived": len(self._jumped or ()),
                **self.books.counts(),
            }
        )
        self._idle = 0 if self.books.trained > before else self._idle + 1
        if self.books.trained >= self.settings.budget:
            self.ended = BUDGET
        elif self._idle >= self.settings.patience:
            self.ended = EXHAUSTED
        else:
            self._breed()

    # records

    def history(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """One row a candidate of the log, see :func:`kit.search.evolution.opposition_log.frame`.

        Parameters
        ----------
        names : sequence of str, optional
            Column names of the genes; gene_0, gene_1, ... unless given.
        """
        names = names or [f"gene_{j}" for j in range(self.space.genes)]
        return frame(self.log, names, self._name)

    def state(self) -> dict:
        """Everything that the rest of the search depends on, as plain JSON; numbers keep all their
        digits.
        """
        streams = {
            name: [a.tolist() if isinstance(a, np.ndarray) else a for a in stream.get_state()]
            for name, stream in self.streams.items()
        }
        log = [
            {**vars(c), "genes": c.genes.tolist(), "parents": list(c.parents), "ties": list(c.ties)}
            for c in self.log
        ]
        settings = {**asdict(self.settings), "worst": list(self.settings.worst)}
        return {
            "settings": settings,
            "streams": streams,
            "log": log,
            "population": [c.index for c in self.population],
            "batch": [c.index for c in self.batch],
            "generation": self.generation,
            "phase": self.phase,
            "books": asdict(self.books),
            "ended": self.ended,
            "best": self._best and self._best.index,
            "number": self._number,
            "evaluations": self._evaluations,
            "idle": self._idle,
            "jumped": self._jumped,
        }

    @classmethod
    def from_state(cls, state: dict, space: Any) -> "ODE":
        """The search as it was when :meth:`state` was called."""
        search = cls.__new__(cls)
        settings = ODESettings.stored(state["settings"])
        search.settings, search.space, search.streams = settings, space, {}
        for name, told in state["streams"].items():
            search.streams[name] = np.random.RandomState()
            search.streams[name].set_state((told[0], np.array(told[1], np.uint32), *told[2:]))
        search.log = [
            Candidate(
                **{
                    **c,
                    "genes": np.array(c["genes"], float),
                    "parents": tuple(c["parents"]),
                    "ties": tuple(c["ties"]),
                }
            )
            for c in state["log"]
        ]
        search.population, search.batch = (
            [search.log[k] for k in state[name]] for name in ("population", "batch")
        )
        search.generation, search.phase, search.books, search.ended = (
            state["generation"],
            state["phase"],
            Books(**state["books"]),
            state["ended"],
        )
        search._best = None if state["best"] is None else search.log[state["best"]]
        search._number, search._evaluations, search._idle, search._jumped = (
            state[name] for name in ("number", "evaluations", "idle", "jumped")
        )
        search._seen = {
            key: c.index
            for c in search.log
            if c.evaluation is not None and (key := search._key(c.genes)) is not None
        }
        return search


def run(search: ODE, function: Callable[[np.ndarray], ArrayLike]) -> ODE:
    """Go on with a search in this process until it is over.

    Parameters
    ----------
    search : ODE
    function : callable
        ``function(genes) -> float``, or a sequence of the fitness and the values that decide
        between equals; higher is better.
    """
    while not search.finished:
        candidate = search.ask()[0]
        fitness, *ties = np.atleast_1d(function(candidate.genes)).tolist()
        search.tell(candidate.evaluation, fitness, ties=ties)
    return search
