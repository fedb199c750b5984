"""What the differential evolution writes down: every candidate with its parents and fate,
and the counts of every generation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

INIT, OPPOSITE, TRIAL, JUMP, RANDOM = "init", "opposite-init", "trial", "jump", "random"


@dataclass(eq=False)
class Candidate:
    """One row of the log.

    Attributes
    ----------
    index : int
        Place in the log.
    number : int or None
        The candidate counter of the publication's file names.
    generation : int
        From 0; -1 for the initial set.
    phase : str
        INIT, OPPOSITE, TRIAL, JUMP or RANDOM.
    genes : numpy.ndarray
        (genes,) float in [0, 1].
    parents : tuple of int
        Numbers: target and three donors of a trial, the candidate or slot that an opposite mirrors
        (a jump mirrors within the population's range), none at random.
    evaluation : int or None
        Place in the order of trainings; None for what is not trained.
    fitness : float or None
        Higher is better; None until told, and for what was dropped at the end.
    ties : tuple of float
        Decide between equal fitness; higher is better.
    duplicate : int or None
        Index of the candidate it equals.
    feasible, rejected, failed, dropped : bool
        Stands for something that may be trained; is infeasible for its cost alone; could not be
        trained; was left when the budget was spent.
    reason : str or None
        Why it is infeasible or failed.
    """

    index: int
    number: int | None
    generation: int
    phase: str
    genes: np.ndarray
    parents: tuple = ()
    evaluation: int | None = None
    fitness: float | None = None
    ties: tuple = ()
    duplicate: int | None = None
    feasible: bool = True
    rejected: bool = False
    failed: bool = False
    dropped: bool = False
    reason: str | None = None

    @property
    def waits(self) -> bool:
        """To be trained and not told yet."""
        return self.evaluation is not None and self.fitness is None

    @property
    def trained(self) -> bool:
        """Trained with success."""
        return self.evaluation is not None and self.fitness is not None and not self.failed


@dataclass
class Books:
    """What was counted, candidates in order, generations when they end."""

    trained: int = 0
    infeasible: int = 0
    rejected: int = 0
    duplicates: int = 0
    failed: int = 0
    generations: list = field(default_factory=list)

    def enter(self, candidate: Candidate) -> None:
        """Count a candidate whose outcome is known."""
        self.trained += candidate.trained
        self.infeasible += not candidate.feasible
        self.rejected += candidate.rejected
        self.duplicates += candidate.duplicate is not None
        self.failed += candidate.failed and candidate.duplicate is None

    def counts(self) -> dict:
        """The five counters."""
        return {name: value for name, value in vars(self).items() if name != "generations"}


def frame(
    log: Sequence[Candidate], names: Sequence[str], name_of: Callable[[Candidate], int]
) -> pd.DataFrame:
    """One row a candidate: its attributes, `duplicate` as the number it equals, and its genes.

    Parameters
    ----------
    log : sequence of Candidate
    names : sequence of str
        Column names of the genes.
    name_of : callable
        The number by which a candidate is known.
    """
    rows = []
    for candidate in log:
        told = {name: value for name, value in vars(candidate).items() if name != "genes"}
        twin = candidate.duplicate
        told["duplicate"] = None if twin is None else name_of(log[twin])
        rows.append({**told, **dict(zip(names, candidate.genes.tolist(), strict=True))})
    return pd.DataFrame(rows)
