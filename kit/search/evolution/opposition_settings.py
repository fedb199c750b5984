"""Settings of the opposition-based differential evolution: the released code's choices, the
repaired ones, and every choice by itself.

==============  =================================  ===============================================
choice          "paper"                            "clean"
==============  =================================  ===============================================
dedup           "paper": raw paths and degrees     "phenotype": the network that is built
cached          "swap": a duplicate trial becomes  "keep": it keeps its genes and takes the known
                the candidate it equals            fitness
worst           -1 at the start, 0 later           -1 always, so that a network at chance beats
                                                   none
streams         "same": all start at the seed, so  "spawned": independent
                the first genes and the repairs
                are the same numbers
stop            "over": once more than the budget  "exact": when the budget is trained, wherever;
                is trained, within the trials of   what is left of the generation is dropped, the
                a generation, without selection;   rest is selected
                or at its end
last_in_best    False: the model that ended the    True
                search is forgotten
best_ties       "latest" of equals                 "first" of equals
tie_break       False                              True: told values decide between equal fitness
numbering       "paper": one number is skipped     "all": every candidate that is logged
                after the initial set, and
                duplicates have none
infeasible      "kept": in the initial set, with   "redrawn": random genomes are drawn until
                the worst fitness                  they can be trained
exclude_target  False: a donor may be the target   False
==============  =================================  ===============================================

In both, infeasible opposites and trials stay in the race with the worst fitness, and a trial that
equals its target's fitness replaces it.
"""

import math
from dataclasses import dataclass

from numpy.typing import ArrayLike

from kit.errors import KitError

MODES = {
    "paper": {
        "dedup": "paper",
        "cached": "swap",
        "worst": (-1.0, 0.0),
        "streams": "same",
        "stop": "over",
        "last_in_best": False,
        "best_ties": "latest",
        "tie_break": False,
        "numbering": "paper",
        "infeasible": "kept",
    },
    "clean": {
        "dedup": "phenotype",
        "cached": "keep",
        "worst": (-1.0, -1.0),
        "streams": "spawned",
        "stop": "exact",
        "last_in_best": True,
        "best_ties": "first",
        "tie_break": True,
        "numbering": "all",
        "infeasible": "redrawn",
    },
}
_CHOICES = {
    "algorithm": ("ode", "random"),
    "mode": tuple(MODES),
    "cached": ("swap", "keep"),
    "streams": ("same", "spawned"),
    "stop": ("over", "exact"),
    "best_ties": ("latest", "first"),
    "numbering": ("paper", "all"),
    "infeasible": ("kept", "redrawn"),
}


class BadSettings(KitError):
    """Settings of the differential evolution that contradict each other."""


@dataclass(frozen=True, kw_only=True)
class ODESettings:
    """Settings of a search; a choice that is None takes what the mode says.

    Attributes
    ----------
    population : int
    budget : int
        Candidates to train; infeasible ones, duplicates and failures do not count.
    factor, crossover, jumping : float
        Weight of the donors' difference; probabilities that a gene comes from the mutant and that a
        generation jumps.
    opposite_init, opposite_jumping : bool
        Opposites of the initial set, and jumps; without both it is plain DE/rand/1/bin.
    algorithm : str
        "ode", or "random": uniform genomes, no two the same, with the same books.
    mode : str
        "paper" or "clean".
    dedup : str, optional
        Kind of key that is asked of the space; "none" trains duplicates.
    cached, streams, stop, best_ties, numbering, infeasible : str, optional
    worst : tuple of float, optional
        Fitness of infeasible and failed candidates of the initial set, and of later ones; no real
        fitness may lie below.
    last_in_best, tie_break, exclude_target : bool, optional
    most_cost : float, optional
        A candidate that costs more, as the space says, is rejected: logged, and infeasible.
    patience : int
        Generations in a row that trained nothing, after which the search ends: the space or the
        population is exhausted. The released code has no such end.
    seed : int

    Raises
    ------
    BadSettings
    """

    population: int = 20
    budget: int = 200
    factor: float = 0.5
    crossover: float = 0.5
    jumping: float = 0.3
    opposite_init: bool = True
    opposite_jumping: bool = True
    algorithm: str = "ode"
    mode: str = "clean"
    dedup: str | None = None
    cached: str | None = None
    worst: tuple | None = None
    streams: str | None = None
    stop: str | None = None
    last_in_best: bool | None = None
    best_ties: str | None = None
    tie_break: bool | None = None
    numbering: str | None = None
    infeasible: str | None = None
    exclude_target: bool = False
    most_cost: float | None = None
    patience: int = 50
    seed: int = 42

    def __post_init__(self) -> None:
        for name, value in MODES.get(self.mode, {}).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise BadSettings(
                    f"{name} is {getattr(self, name)!r}; choose one of {', '.join(choices)}."
                )
        object.__setattr__(self, "worst", tuple(float(value) for value in self.worst))
        if self.population < 3 + self.exclude_target or min(self.budget, self.patience) < 1:
            raise BadSettings(
                "The population needs three donors (four members if the target is none), and "
                "budget and patience at least 1."
            )
        if not (0 <= self.crossover <= 1 and 0 <= self.jumping <= 1 and math.isfinite(self.factor)):
            raise BadSettings(
                "Crossover and jumping are probabilities, and the factor is a finite number."
            )
        if len(self.worst) != 2 or not all(map(math.isfinite, self.worst)):
            raise BadSettings("The worst fitness is two finite numbers: at the start and later.")

    @classmethod
    def stored(cls, told: dict) -> "ODESettings":
        """Settings from a file; one written before there was the choice `infeasible` kept them."""
        return cls(**{"infeasible": "kept", **told})

    @property
    def limit(self) -> int:
        """Trained candidates at which the search stops within a generation."""
        return self.budget + (self.stop == "over")


@dataclass(frozen=True)
class Box:
    """A space of numbers in [0, 1] in which everything is feasible and nothing is the same.

    Attributes
    ----------
    genes : int
    """

    genes: int

    def reason(self, x: ArrayLike) -> None:
        """Nothing is infeasible."""

    def key(self, x: ArrayLike, kind: str) -> None:
        """Nothing is a duplicate."""
