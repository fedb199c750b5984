"""What a search is: genome, settings, and the function that trains and judges an individual;
written into its folder so that every process reads the same.

The function is named by an id of :mod:`kit.search.evolution.tasks` or as "module:function", and
imported by the process that calls it: ``evaluate(values, folder, **arguments) -> float``. `values`
holds the decoded genes by name and, under "search", where the individual stands: generation,
individual, origin, seed, and the folders, shares and ranks of its parents. `folder` is the
individual's own; what it leaves there is there for its offspring, and is removed once it has none.
A plan with a space searches by differential evolution: "search" then also holds the candidate's
number and its genes, no candidate inherits from another, the weights of the population and the best
stay, and the function may return a sequence, the fitness and the values that decide between equals.
"""

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from kit import files, kernels
from kit.errors import KitError
from kit.search.evolution import tasks
from kit.search.evolution.genetic import GASettings, GeneticAlgorithm
from kit.search.evolution.genome import Gene, Genome
from kit.search.evolution.opposition import ODE
from kit.search.evolution.opposition_settings import ODESettings
from kit.search.evolution.population import GeneticSearch, OppositionSearch

PLAN, STATE = "search.json", "oracle.json"


class BadPlan(KitError):
    """The genome, the settings and the function do not fit together, or the function cannot be
    imported.
    """


class OtherSearch(KitError):
    """The folder holds another search."""


class AllFailed(KitError):
    """Not one individual could be evaluated."""


class SearchBroken(KitError):
    """The processes of a search ended before the search."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A search by the genetic algorithm.

    Attributes
    ----------
    genome : kit.search.evolution.genome.Genome
    settings : kit.search.evolution.genetic.GASettings
    evaluate : str
        An id of :data:`kit.search.evolution.tasks.TASKS`, or "module:function" of a function of
        your own.
    arguments : dict
        More keyword arguments of the function; what JSON can hold.
    lease : float
        Seconds without a sign of life after which a worker counts as dead and its individual is
        given to another.
    most_losses : int
        Workers that may die on an individual before it counts as failed: one that exhausts the
        memory kills each.

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

    def __post_init__(self) -> None:
        self._check_names()
        self._check_genes()
        if self.lease <= 0 or self.most_losses < 1:
            raise BadPlan("The lease is above 0 seconds and at least one loss ends an individual.")

    def _check_names(self):
        for field_name in (each for each in tasks.FIELDS if hasattr(self, each)):
            given = getattr(self, field_name)
            if tasks.unknown(given):
                raise BadPlan(
                    f"There is no task {given!r}; choose from {', '.join(tasks.TASKS)}, "
                    'or name your own as "module:function".'
                )
            object.__setattr__(self, field_name, tasks.name(given))

    def _check_genes(self):
        if len(self.genome) != self.settings.genes:
            raise BadPlan(
                f"The genome has {len(self.genome)} genes, but the settings give probabilities for "
                f"{self.settings.genes}."
            )

    def function(self) -> Callable:
        """The function, imported.

        Raises
        ------
        BadPlan
        """
        return _imported(self.evaluate)

    def search(self, state: dict | None = None) -> GeneticSearch | OppositionSearch:
        """The search, new or as it is in an oracle's state: a
        :class:`kit.search.evolution.population.GeneticSearch`.
        """
        return GeneticSearch(self.settings, state and state[GeneticSearch.KEY])

    def key(self) -> str:
        """Digest of all settings, which names folders: the same wherever the modules lie."""
        return files.digest(kernels.keyed(self._settings()))

    def _settings(self) -> dict:
        return tasks.historic(asdict(self))

    def write(self, folder: Path | str) -> None:
        """Write the plan into its folder, or check that the one there is the same.

        Raises
        ------
        OtherSearch
        """
        file = Path(folder) / PLAN
        there = files.read_json(file, default=None)
        if there is None:
            files.write_json(file, asdict(self))
        elif files.digest(tasks.historic(there)) != files.digest(self._settings()):
            raise OtherSearch(
                f"{folder} holds a search with other settings; delete it or choose another folder."
            )

    @staticmethod
    def read(folder: Path | str) -> "Plan":
        """The plan of a folder; a :class:`SpacePlan` if it names a space."""
        told = files.read_json(Path(folder) / PLAN)
        if "space" in told:
            kind, settings = SpacePlan, ODESettings.stored(told["settings"])
        else:
            kind, settings = Plan, GASettings(**told["settings"])
        given = {"genome": Genome(**told["genome"]), "settings": settings}
        return kind(**told | given)


@dataclass(frozen=True, kw_only=True)
class SpacePlan(Plan):
    """A search by differential evolution, or at random with the same books; its settings are
    :class:`kit.search.evolution.opposition_settings.ODESettings`.

    Attributes
    ----------
    space : str
        An id of :data:`kit.search.evolution.tasks.TASKS`, or "module:class", of the space; see
        :mod:`kit.search.evolution.opposition`.
    space_arguments : dict
        Keyword arguments that make it; what JSON can hold.
    """

    space: str = "box"
    space_arguments: dict = field(default_factory=dict)

    def _check_genes(self):
        if len(self.genome) != self.made_space().genes:
            raise BadPlan(
                f"The genome has {len(self.genome)} genes, but the space {self.made_space().genes}."
            )

    def made_space(self) -> Any:
        """The space.

        Raises
        ------
        BadPlan
        """
        try:
            return _imported(self.space)(**self.space_arguments)
        except TypeError as error:
            raise BadPlan(
                f"The space {self.space} cannot be made ({error}); give it the arguments that it "
                "takes."
            ) from error

    def search(self, state: dict | None = None) -> OppositionSearch:
        """The search, new or as it is in an oracle's state: a
        :class:`kit.search.evolution.population.OppositionSearch`.
        """
        return OppositionSearch(
            self.settings, self.made_space(), state and state[OppositionSearch.KEY]
        )


def numbers(genes: int) -> Genome:
    """A genome of so many plain numbers in [0, 1], for a space that decodes them itself."""
    return Genome(tuple(Gene(f"gene_{n}") for n in range(genes)))


def _imported(name: str):
    module, _, thing = tasks.place(name).partition(":")
    try:
        return getattr(importlib.import_module(module), thing)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadPlan(
            f"{name} cannot be imported ({error}); name a function of a module that every worker "
            "finds."
        ) from error


def trial_folder(folder: Path | str, number: int) -> Path:
    """Folder of the n-th training of a search, counted from 0 over all generations."""
    return Path(folder) / f"trial_{number:04d}"


@dataclass(frozen=True)
class Result:
    """A search as far as it came.

    Attributes
    ----------
    plan : Plan
    search : kit.search.evolution.population.GeneticSearch or OppositionSearch
    history : pandas.DataFrame
        One row an individual of the generations that are complete (genetic) or a candidate
        (differential evolution): the columns of the algorithm's ``history``, genes named
        ``gene.<name>``, then the decoded values and seconds.
    folder : pathlib.Path
    """

    plan: Plan
    search: GeneticSearch | OppositionSearch
    history: pd.DataFrame
    folder: Path

    @property
    def algorithm(self) -> GeneticAlgorithm | ODE:
        """The :class:`kit.search.evolution.genetic.GeneticAlgorithm` or
        :class:`kit.search.evolution.opposition.ODE`.
        """
        return self.search.algorithm

    @property
    def best(self) -> dict:
        """The best individual of the run: generation, individual, fitness, genes, values, folder;
        of a candidate also its number.
        """
        found = self.search.best()
        return {
            **found,
            "values": self.plan.genome.decode(found["genes"]),
            "folder": trial_folder(self.folder, found.pop("training")),
        }


def result(folder: Path | str) -> Result:
    """Read what a search has found so far.

    Raises
    ------
    kit.files.DamagedRecord
        If the folder holds no search.
    AllFailed
        If the search ended because every individual failed.
    """
    folder, plan = Path(folder), Plan.read(folder)
    state = files.read_json(folder / STATE)
    if state["failure"]:
        raise AllFailed(state["failure"])
    search = plan.search(state)
    table = search.algorithm.history([f"gene.{name}" for name in plan.genome.names])
    for gene in plan.genome.genes if len(table) else ():
        table[gene.name] = [gene.decode(value) for value in table[f"gene.{gene.name}"]]
    table["seconds"] = [state["seconds"].get(str(number)) for number in search.trainings()]
    return Result(plan, search, table, folder)
