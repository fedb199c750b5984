"""What one run of LeaSE searches and trains, and the rows of the published tables."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from kit.errors import KitError
from kit.published import papers


class BadPlan(KitError):
    """A setting of the LeaSE trainings is out of range, or a method does not exist."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is searched and trained, and at what size; the defaults are the published ones.

    Attributes
    ----------
    profile, dataset : str
    image_size : int
        Side in pixels, three equal channels.
    images : int
        Training images of searches and evaluations, by class proportion; 0 takes all.
    channels, cells : int
        Of the supernets of DARTS and PC-DARTS.
    pdarts_cells : tuple of int
        Of the three stages of P-DARTS.
    search_epochs, pdarts_epochs : int
        Of a search, and of a stage of P-DARTS.
    search_batch, search_steps : int
        Batch size, and most steps an epoch (0: all images of the half).
    mode : {"exact", "finite"}
        How the product of equation 12 is taken; see
        :class:`kit.search.nas2d.search_config.SearchConfig`.
    pruning : {"remove", "mask"}
        Of P-DARTS, see there.
    traced : bool
        False for searches of a few steps, see there.
    audience_width : int
        Channels of the audience's first layer; 64 in the published networks.
    search_augmented, augmented : bool
        AutoAugment in the search and in the evaluation.
    cutout : int
        Side of the square that is cut out in the evaluation; 0 for none.
    search_lr : float
    arch_lr : float
        Adam's rate for the architecture; 0 takes each family's own (3e-4, or 6e-4 for PC-DARTS and
        P-DARTS), by which the weights move a few hundredths in a hundred steps.
    evaluation_cells, evaluation_channels, evaluation_epochs, evaluation_batch : int
    evaluation_lr, auxiliary : float
    baseline_width : float
        Share of the channels of the hand-designed networks.
    seeds : dict
        Method -> number of seeds, each of a split, a search and a final training; 1 where it is
        absent. Random cells get as many as the method with most.
    random_budget : str
        Method whose search the random search may cost as much as, in multiply-accumulates.
    random_candidates, random_epochs : int
        Most cells that it draws, and how long it trains each.
    seed : int
    """

    profile: str
    dataset: str
    image_size: int = 64
    images: int = 0
    channels: int = 16
    cells: int = 8
    pdarts_cells: tuple = (5, 11, 17)
    search_epochs: int = 50
    pdarts_epochs: int = 25
    search_batch: int = 64
    search_steps: int = 0
    mode: str = "exact"
    pruning: str = "remove"
    traced: bool = True
    audience_width: int = 64
    search_augmented: bool = True
    augmented: bool = True
    cutout: int = 0
    search_lr: float = 0.025
    arch_lr: float = 0.0
    evaluation_cells: int = 12
    evaluation_channels: int = 36
    evaluation_epochs: int = 3000
    evaluation_batch: int = 96
    evaluation_lr: float = 0.025
    auxiliary: float = 0.4
    baseline_width: float = 1.0
    seeds: tuple = ()
    random_budget: str = "darts"
    random_candidates: int = 100
    random_epochs: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "pdarts_cells", tuple(self.pdarts_cells))
        object.__setattr__(self, "seeds", tuple(sorted(dict(self.seeds).items())))
        for method, count in self.seeds:
            if method not in SEARCHES or count < 1:
                raise BadPlan(
                    f"seeds has {method}: {count}; give one of {', '.join(SEARCHES)} and a number "
                    "of at least 1."
                )
        methods([self.random_budget], SEARCHES)
        if self.images < 0 or self.random_candidates < 1:
            raise BadPlan(
                f"images is {self.images} and random_candidates {self.random_candidates}; they "
                "must be at least 0 and 1."
            )

    @property
    def random_seeds(self) -> tuple:
        """Seeds of the random cells."""
        count = max([count for _, count in self.seeds], default=1)
        return tuple(self.seed + n for n in range(count))

    def family(self, method: str) -> str:
        """Search space of a method."""
        return next(
            family
            for family in ("pcdarts", "pdarts", "darts")
            if family in method.split(".")[0].split("-")
        )


def methods(wanted: Iterable[str], among: Collection[str]) -> list:
    """`wanted` if all of them exist, all of `among` for ["all"].

    Raises
    ------
    BadPlan
    """
    if list(wanted) == ["all"]:
        return list(among)
    unknown = [name for name in wanted if name not in among]
    if unknown:
        raise BadPlan(f"There is no method {unknown[0]!r}; choose from {', '.join(among)}, or all.")
    return list(wanted)


def notes(plan: Plan) -> list[str]:
    """What the plan does otherwise than the publication states."""
    used = {
        "search_cells": plan.cells,
        "search_init_channels": plan.channels,
        "search_batch_size": plan.search_batch,
        "search_epochs": plan.search_epochs,
        "search_lr_initial": plan.search_lr,
        "evaluation_cells": plan.evaluation_cells,
        "evaluation_init_channels": plan.evaluation_channels,
        "evaluation_batch_size": plan.evaluation_batch,
        "evaluation_epochs": plan.evaluation_epochs,
        "input_size": [plan.image_size] * 2,
        "augmentation": "AutoAugment" if plan.augmented else "none",
        "code_pdarts_epochs_per_stage": plan.pdarts_epochs,
    }
    found = papers.departures(papers.load("lease"), used)
    found += [f"at most {plan.search_steps} steps a search epoch"] * bool(plan.search_steps) + [
        f"{plan.images} training images"
    ] * bool(plan.images)
    found += [f"rate of the architecture {plan.arch_lr:g} instead of 3e-4 (DARTS) and 6e-4"] * bool(
        plan.arch_lr
    )
    found += [f"audience of {plan.audience_width} instead of 64 channels"] * (
        plan.audience_width != 64
    )
    found += [f"hand-designed networks with {plan.baseline_width:g} of their channels"] * (
        plan.baseline_width != 1
    )
    found += [
        f"P-DARTS stages of {', '.join(map(str, plan.pdarts_cells))} cells instead of 5, 11, 17"
    ] * (tuple(plan.pdarts_cells) != (5, 11, 17))
    return [line.replace("code pdarts", "P-DARTS") for line in found]


TITLES = {
    "densenet40": "DenseNet-40",
    "densenet101": "DenseNet-101",
    "vgg13": "VGG-13",
    "vgg16": "VGG-16",
    "resnet50": "ResNet-50",
    "resnet101": "ResNet-101",
    "darts": "DARTS",
    "lease-darts": "LeaSE+DARTS",
    "pcdarts": "PC-DARTS",
    "lease-pcdarts.gamma0.1": "LeaSE+PC-DARTS, γ = 0.1",
    "lease-pcdarts.gamma0.5": "LeaSE+PC-DARTS, γ = 0.5",
    "lease-pcdarts.gamma1": "LeaSE+PC-DARTS, γ = 1",
    "pdarts": "P-DARTS",
    "lease-pdarts": "LeaSE+P-DARTS",
    "lease-darts.audience-only": "LeaSE+DARTS, audience loss only",
    "lease-pdarts.audience-only": "LeaSE+P-DARTS, audience loss only",
    "lease-darts.vgg13": "LeaSE+DARTS, audience VGG-13",
    "lease-pdarts.vgg13": "LeaSE+P-DARTS, audience VGG-13",
    "random": "Random cells (not in the paper)",
}


BASELINES = tuple(TITLES)[:6]


SEARCHES = tuple(TITLES)[6:18]


TABLE_3 = tuple(TITLES)[:14]


# rows that Tables 4 and 5 print -> the method they are
TABLE_4 = {
    "lease-darts.audience-only": "lease-darts.audience-only",
    "lease-darts.both": "lease-darts",
    "lease-pdarts.audience-only": "lease-pdarts.audience-only",
    "lease-pdarts.both": "lease-pdarts",
}


TABLE_5 = {
    "lease-darts.vgg13": "lease-darts.vgg13",
    "lease-darts.resnet18": "lease-darts",
    "lease-pdarts.vgg13": "lease-pdarts.vgg13",
    "lease-pdarts.resnet18": "lease-pdarts",
}


RANDOM = "random"

PAIRS = (
    ("lease-darts", "darts"),
    ("lease-pcdarts.gamma0.1", "pcdarts"),
    ("lease-pcdarts.gamma0.5", "pcdarts"),
    ("lease-pcdarts.gamma1", "pcdarts"),
    ("lease-pdarts", "pdarts"),
)
AGAINST_RANDOM = tuple((method, RANDOM) for method in SEARCHES)
