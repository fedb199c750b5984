"""What one run of PBC-NAS searches, retrains and compares."""

from dataclasses import dataclass, field

from kit.data import registry
from kit.errors import KitError
from kit.published import papers
from kit.search.evolution.opposition_settings import ODESettings
from kit.search.nas3d import final as nas3d_final
from kit.search.nas3d import resnet
from kit.search.nas3d import space as nas3d_space
from kit.search.nas3d.final import Recipe3D
from kit.search.nas3d.proxy import Proxy
from kit.search.nas3d.released import RELEASED

KEYS = ("organ", "nodule", "fracture", "adrenal", "vessel", "synapse")


METHODS = {
    "ode": {},
    "de": {"opposite_init": False, "opposite_jumping": False},
    "random": {"algorithm": "random"},
}


RESNETS = {
    f"{network}-{variant}": (network, variant)
    for network in ("resnet18", "resnet50")
    for variant in ("2.5d", "3d", "acs")
}


PROTOCOLS = ("pbcnas", "benchmark")


class BadPlan(KitError):
    """A setting of the notebook is out of range, or a data set, method or network does not
    exist.
    """


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is run; the defaults are the published settings.

    Attributes
    ----------
    profile : str
    datasets : tuple of (str, str)
        Published data set (`KEYS`) and the registered set that is used for it.
    edge : int
        Voxels along each axis that volumes are resized to.
    images : int
        Most training volumes of final trainings, by class proportion; 0: all.
    searches : tuple of str
        Of `METHODS`; "ode" is the publication's.
    mode : {"clean", "paper"}
        Slips of the released search settled or repeated, see
        :mod:`kit.search.evolution.opposition_settings`.
    population, budget, seeds
        Members; models to train; random seeds of the searches.
    operations, cells, stacks, filters : tuple of int
        The search space, see :class:`kit.search.nas3d.space.Space`.
    most_gmacs : float
        Candidates that need more billions of multiply-adds for a volume are rejected; 0: none, as
        published.
    proxy : kit.search.nas3d.proxy.Proxy
    finalists : int
        Candidates of each search by opposition that are trained finally; the controls' best alone
        is.
    released : tuple of str
        Networks of :data:`kit.search.nas3d.released.RELEASED` to train as well, each on the set it
        was found on.
    final, benchmark : kit.search.nas3d.final.Recipe3D
        Protocols of the publication and of MedMNIST.
    final_seeds : tuple of int
    warm_start : bool
        Biases and normalisations of the searched network are handed over, as in the released
        script.
    resnets : tuple of str
        Of `RESNETS`.
    resnet_width : float
        Share of their channels.
    protocols : tuple of str
        Of `PROTOCOLS`, for the ResNets.
    transfer_rates : tuple of float
        Learning rates of fine-tuning; empty: no transfer.
    transfer_epochs : int
    fidelity, fidelity_epochs : int
        Candidates of all ranks that are retrained with the first seed, and for how long; 0: none.
    workers : int
        Processes that judge candidates; 0: this one.

    Raises
    ------
    BadPlan
    """

    profile: str
    datasets: tuple = tuple((key, f"{key}mnist3d") for key in KEYS)
    edge: int = 28
    images: int = 0
    searches: tuple = ("ode", "de", "random")
    mode: str = "clean"
    population: int = 20
    budget: int = 200
    seeds: tuple = (42,)
    operations: tuple = tuple(range(15))
    cells: tuple = nas3d_space.CELLS
    stacks: tuple = nas3d_space.STACKS
    filters: tuple = nas3d_space.FILTERS
    most_gmacs: float = 0.0
    proxy: Proxy = field(default_factory=Proxy)
    finalists: int = 3
    released: tuple = ()
    final: Recipe3D = field(default_factory=Recipe3D)
    benchmark: Recipe3D = nas3d_final.BENCHMARK
    final_seeds: tuple = (0, 42, 143, 1234, 3074)
    warm_start: bool = False
    resnets: tuple = tuple(RESNETS)
    resnet_width: float = 1.0
    protocols: tuple = PROTOCOLS
    transfer_rates: tuple = (1e-4, 1e-3)
    transfer_epochs: int = 100
    fidelity: int = 15
    fidelity_epochs: int = 200
    workers: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "datasets", tuple((key, name) for key, name in dict(self.datasets).items())
        )
        for name in (
            "searches",
            "seeds",
            "operations",
            "cells",
            "stacks",
            "filters",
            "released",
            "final_seeds",
            "resnets",
            "protocols",
            "transfer_rates",
        ):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for chosen, known, what in (
            (dict(self.datasets), KEYS, "published data set"),
            (self.searches, METHODS, "search"),
            (self.released, RELEASED, "released network"),
            (self.resnets, RESNETS, "ResNet"),
            (self.protocols, PROTOCOLS, "protocol"),
        ):
            unknown = [name for name in chosen if name not in known]
            if unknown:
                raise BadPlan(f"There is no {what} {unknown[0]!r}; choose from {', '.join(known)}.")
        if (
            not self.datasets
            or "ode" not in self.searches
            or not self.seeds
            or not self.final_seeds
        ):
            raise BadPlan(
                "The notebook needs a data set, the search ode, and a seed of searches and of "
                "final trainings."
            )
        if (
            min(self.finalists, self.edge - 3) < 1
            or min(self.images, self.most_gmacs, self.fidelity, self.workers) < 0
        ):
            raise BadPlan("At least one finalist, 4 voxels along an edge, and no negative numbers.")

    def settings(self, method: str, seed: int) -> ODESettings:
        """Settings of one search."""
        return ODESettings(
            population=self.population,
            budget=self.budget,
            mode=self.mode,
            most_cost=self.most_gmacs * 1e9 or None,
            seed=seed,
            **METHODS[method],
        )

    def space(self, name: str) -> dict:
        """Arguments of the search space for a registered set."""
        shape = {
            part: list(getattr(self, part)) for part in ("operations", "cells", "stacks", "filters")
        }
        return {
            "classes": len(registry.get(name).classes),
            "edge": self.edge,
            "channels": 1,
            **shape,
        }


def notes(plan: Plan) -> list[str]:
    """What the plan does otherwise than the released code."""
    used = {
        "volume_size": [plan.edge] * 3,
        "operations": len(plan.operations),
        "cells": list(plan.cells),
        "stacks": list(plan.stacks),
        "filters": list(plan.filters),
        "population": plan.population,
        "budget_models": plan.budget,
        "proxy_fraction": 1 / plan.proxy.fraction,
        "proxy_epochs": plan.proxy.epochs,
        "proxy_patience": plan.proxy.patience,
        "proxy_batch_size": plan.proxy.batch_size,
        "proxy_learning_rate": plan.proxy.learning_rate,
        "final_epochs": plan.final.epochs,
        "final_batch_size": plan.final.batch_size,
        "final_learning_rate": plan.final.learning_rate,
        "final_seeds": list(plan.final_seeds),
    }
    if plan.resnets and "benchmark" in plan.protocols:
        used |= {
            "baseline_epochs": plan.benchmark.epochs,
            "baseline_batch_size": plan.benchmark.batch_size,
        }
    found = papers.departures(papers.load("pbcnas"), used)
    found += [f"at most {plan.images} training volumes in final trainings"] * bool(plan.images) + [
        f"candidates above {plan.most_gmacs:g} GMACs rejected"
    ] * bool(plan.most_gmacs)
    found += [resnet.reduction(plan.resnet_width)] * (bool(plan.resnets) and plan.resnet_width != 1)
    found += [
        f"volumes of {plan.edge} voxels made from 64, not the official small ones"
        for _, name in plan.datasets
        if name.endswith("-64") and plan.edge != 64
    ][:1]
    found += ["candidates judged by validation loss instead of accuracy"] * (
        plan.proxy.judge == "loss"
    ) + ["on all validation volumes instead of a quarter"] * (plan.proxy.validation == "all")
    missing = [key for key in KEYS if key not in dict(plan.datasets)]
    found += [f"without the data sets {', '.join(missing)}"] * bool(missing)
    return found
