"""What a search is: genome, settings, and the function that trains and judges an individual; written into its folder so that every process reads the same.

The function is named "module:function" and imported by the process that calls it: ``evaluate(values, folder, **arguments) -> float``. `values` holds
the decoded genes by name and, under "search", where the individual stands: generation, individual, origin, seed, and the folders,
shares and ranks of its parents. `folder` is the individual's own; what it leaves there is there for its offspring, and is removed once it has none.
"""

import importlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from kit import record
from kit.errors import KitError
from kit.evolution.genetic import GASettings, GeneticAlgorithm
from kit.evolution.genome import Genome

PLAN, STATE = "search.json", "oracle.json"


class BadPlan(KitError):
    """The genome, the settings and the function do not fit together, or the function cannot be imported."""


class OtherSearch(KitError):
    """The folder holds another search."""


class AllFailed(KitError):
    """Not one individual could be evaluated."""


class SearchBroken(KitError):
    """The processes of a search ended before the search."""


@dataclass(frozen=True)
class Plan:
    """A search.

    Attributes
    ----------
    genome : kit.evolution.genome.Genome
    settings : kit.evolution.genetic.GASettings
    evaluate : str
        "module:function".
    arguments : dict
        More keyword arguments of the function; what JSON can hold.
    lease : float
        Seconds without a sign of life after which a worker counts as dead and its individual is given to another.
    most_losses : int
        Workers that may die on an individual before it counts as failed: one that exhausts the memory kills each.

    Raises
    ------
    BadPlan
    """

    genome: Genome
    settings: GASettings
    evaluate: str
    arguments: dict = field(default_factory=dict)
    lease: float = 60.0
    most_losses: int = 3

    def __post_init__(self):
        if len(self.genome) != self.settings.genes:
            raise BadPlan(f"The genome has {len(self.genome)} genes, but the settings give probabilities for {self.settings.genes}.")
        if self.evaluate.count(":") != 1 or self.lease <= 0 or self.most_losses < 1:
            raise BadPlan('The function is named "module:function", the lease is above 0 seconds and at least one loss ends an individual.')

    def function(self):
        """The function, imported.

        Raises
        ------
        BadPlan
        """
        module, name = self.evaluate.split(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise BadPlan(f"{self.evaluate} cannot be imported ({error}); name a function of a module that every worker finds.") from error

    def write(self, folder) -> None:
        """Write the plan into its folder, or check that the one there is the same.

        Raises
        ------
        OtherSearch
        """
        file, mine = Path(folder) / PLAN, asdict(self)
        there = record.read_json(file, default=None)
        if there is None:
            record.write_json(file, mine)
        elif record.digest(there) != record.digest(mine):
            raise OtherSearch(f"{folder} holds a search with other settings; delete it or choose another folder.")

    @classmethod
    def read(cls, folder) -> "Plan":
        """The plan of a folder."""
        told = record.read_json(Path(folder) / PLAN)
        return cls(Genome(**told.pop("genome")), GASettings(**told.pop("settings")), **told)


def trial_folder(folder, number: int) -> Path:
    """Folder of the n-th individual of a search, counted from 0 over all generations."""
    return Path(folder) / f"trial_{number:04d}"


def first_of(settings: GASettings, generation: int) -> int:
    """Number of the first individual of a generation."""
    return sum(settings.sizes[:generation])


@dataclass(frozen=True)
class Result:
    """A search as far as it came.

    Attributes
    ----------
    plan : Plan
    genetic : kit.evolution.genetic.GeneticAlgorithm
    history : pandas.DataFrame
        One row an individual of the generations that are complete: the columns of :meth:`GeneticAlgorithm.history` (genes named ``gene.<name>``), then the decoded
        values and seconds.
    folder : pathlib.Path
    """

    plan: Plan
    genetic: GeneticAlgorithm
    history: pd.DataFrame
    folder: Path

    @property
    def best(self) -> dict:
        """The best individual of the run: generation, individual, fitness, genes, values, folder."""
        found = self.genetic.best
        number = first_of(self.plan.settings, found["generation"]) + found["individual"]
        return {**found, "values": self.plan.genome.decode(found["genes"]), "folder": trial_folder(self.folder, number)}


def result(folder) -> Result:
    """Read what a search has found so far.

    Raises
    ------
    kit.record.DamagedRecord
        If the folder holds no search.
    AllFailed
        If the search ended because every individual failed.
    """
    folder, plan = Path(folder), Plan.read(folder)
    state = record.read_json(folder / STATE)
    if state["failure"]:
        raise AllFailed(state["failure"])
    genetic = GeneticAlgorithm.from_state(state["genetic"])
    table = genetic.history([f"gene.{name}" for name in plan.genome.names])
    for name in plan.genome.names if len(table) else ():
        gene = next(g for g in plan.genome.genes if g.name == name)
        table[name] = [gene.decode(value) for value in table[f"gene.{name}"]]
    table["seconds"] = [state["seconds"].get(str(n)) for n in range(len(table))]
    return Result(plan, genetic, table, folder)
