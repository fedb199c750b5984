"""How an architecture search is run: one frozen, validated dataclass whose defaults are those of
the family's own code.

The defaults follow the reference code of DARTS, PC-DARTS and P-DARTS with
the batch size of 64 and learning rate 0.025 that the LeaSE paper states for all of them. Where
paper and code disagree the code of the base method is the default: P-DARTS keeps three stages of 25
epochs, although the paper says 50. A shorter search freezes the architecture for the same share of
its epochs as the full one, unless told otherwise.
"""

from dataclasses import asdict, dataclass, field, fields, replace

from kit.data.augment.autoaugment import AutoAugment
from kit.errors import KitError
from kit.search.nas2d.lease_settings import LeaseSettings
from kit.search.nas2d.space import Space

FAMILIES = ("darts", "pcdarts", "pdarts")
STAGES = {"darts": 1, "pcdarts": 1, "pdarts": 3}
WARM_UP = {
    "darts": 0.0,
    "pcdarts": 15 / 50,
    "pdarts": 10 / 25,
}  # share of the epochs that train weights only
DEFAULTS = {
    "darts": {
        "order": 2,
        "channels": 16,
        "cells": 8,
        "epochs": 50,
        "lr_min": 0.001,
        "arch_lr": 3e-4,
        "arch_clip": None,
    },
    "pcdarts": {
        "order": 1,
        "channels": 16,
        "cells": 8,
        "epochs": 50,
        "lr_min": 0.0,
        "arch_lr": 6e-4,
        "arch_clip": None,
    },
    "pdarts": {
        "order": 1,
        "channels": 16,
        "cells": (5, 11, 17),
        "epochs": 25,
        "lr_min": 0.0,
        "arch_lr": 6e-4,
        "arch_clip": 5.0,
    },
}
LEASE_ONLY = ("gamma", "audience", "audience_options", "audience_only", "separate")
PDARTS_ONLY = ("keep", "skip_rates", "most_skips", "pruning")


class BadSearch(KitError):
    """A setting of an architecture search is out of range."""


@dataclass(frozen=True)
class SearchConfig:
    """How to search; printed as a table, validated when made. Settings given as None take the
    family's default and are spelt out.

    Attributes
    ----------
    paper, profile, name : str
        Run folder ``results/<profile>/<paper>/runs/<name>-<key>``.
    family : {"darts", "pcdarts", "pdarts"}
    lease : kit.search.nas2d.lease.LeaseSettings, dict or None
        None searches by the base method alone.
    gamma : float
        Weight of the audience's loss, at least 0; only with `lease`, as the next three.
    audience : {"resnet18", "vgg13"}
    audience_options : dict
        Further options of :mod:`kit.search.nas2d.audience` (stem, width).
    audience_only : bool
        Leave the explainer's own loss out of the architecture gradient (the ablation of Table 4).
    order : {1, 2}
        Of the explainer's architecture gradient; 2 for DARTS, 1 for the others.
    mode : {"exact", "finite"}
        How the product of second derivatives in the explainer (equations 11 and 12) is taken: by
        nested differentiation, or by a central difference as in the reference code. LeaSE's other
        two products are exact always; see :mod:`kit.search.nas2d.gradient_check`.
    separate : bool
        LeaSE on a second-order method: one more product a step, so that the angle between the two
        terms can be logged.
    channels, cells : int or tuple of int
        Of the supernet; for P-DARTS one value or one a stage.
    epochs : int
        Of a stage.
    warm_up : int
        First epochs (of a stage) that train weights only; None takes the family's share of the
        epochs.
    steps : int
        Most steps an epoch; 0 for one pass over the first half.
    batch_size : int
    lr, lr_min, momentum, decay, clip : float
        SGD on the weights, cosine an epoch; L2 added after the clip of the global norm.
    arch_lr, arch_betas, arch_decay, arch_clip : float
        Adam on the architecture.
    keep : tuple of int
        P-DARTS: operations an edge that survive the first and second stage.
    skip_rates : tuple of float
        P-DARTS: dropout after the identity, one a stage.
    most_skips : int
        P-DARTS: skip connections that the normal cell may keep; None for no restriction.
    pruning : {"remove", "mask"}
        P-DARTS: "remove" builds a smaller network in the next stage, "mask" gives the dropped
        operations the weight 0 in the same one, which is the same function: dearer to run, but
        nothing is traced anew where the stages agree in channels and cells. For quick runs.
    augmentation : dict or None
        Settings of :mod:`kit.data.augment.autoaugment` for the training images of both halves; None
        leaves the images as they are.
    traced : bool
        Lay each step out as one graph; False runs it operation by operation around the traced
        networks, which starts half a minute earlier. For quick runs.
    seed : int
        Initial weights, architecture, batches, perturbations and dropout.

    Raises
    ------
    BadSearch, kit.search.nas2d.supernet.UnusableSpace
    """

    paper: str = "lease"
    profile: str = "quick"
    name: str = "darts"
    family: str = "darts"
    lease: LeaseSettings | None = None
    gamma: float = 1.0
    audience: str = "resnet18"
    audience_options: dict = field(default_factory=dict)
    audience_only: bool = False
    order: int | None = None
    mode: str = "exact"
    separate: bool = False
    channels: int | tuple | None = None
    cells: int | tuple | None = None
    epochs: int | None = None
    warm_up: int | None = None
    steps: int = 0
    batch_size: int = 64
    lr: float = 0.025
    lr_min: float | None = None
    momentum: float = 0.9
    decay: float = 3e-4
    clip: float = 5.0
    arch_lr: float | None = None
    arch_betas: tuple = (0.5, 0.999)
    arch_decay: float = 1e-3
    arch_clip: float | None = None
    keep: tuple = (5, 3)
    skip_rates: tuple = (0.1, 0.4, 0.7)
    most_skips: int | None = 2
    pruning: str = "remove"
    augmentation: dict | None = None
    traced: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise BadSearch(f"family is {self.family!r}; choose one of {', '.join(FAMILIES)}.")
        for name, value in DEFAULTS[self.family].items():
            if getattr(self, name) is None:
                self._set(name, value)
        for name in ("channels", "cells"):
            self._set(name, self._per_stage(name))
        if self.warm_up is None:
            self._set(
                "warm_up", min(round(WARM_UP[self.family] * self.epochs), max(self.epochs - 1, 0))
            )
        if isinstance(self.lease, dict):
            self._set("lease", LeaseSettings(**self.lease))
        if (
            self.augmentation is not None
        ):  # spelt out, so that the key does not depend on which defaults were written down
            self._set("augmentation", asdict(AutoAugment.of(self.augmentation)))
        for name in ("arch_betas", "keep", "skip_rates"):
            self._set(name, tuple(getattr(self, name)))
        self._check()

    def _set(self, name, value) -> None:
        object.__setattr__(self, name, value)

    def _per_stage(self, name) -> tuple:
        value = getattr(self, name)
        values = (value,) * self.stages if isinstance(value, int) else tuple(value)
        if len(values) != self.stages or any(v < 1 for v in values):
            raise BadSearch(
                f"{name} is {value!r}; give {self.stages} whole number{'s' * (self.stages > 1)} of "
                f"at least 1 for {self.family}."
            )
        return values

    def _check(self) -> None:
        for name, choices in (
            ("order", (1, 2)),
            ("mode", ("exact", "finite")),
            ("pruning", ("remove", "mask")),
            ("audience", ("resnet18", "vgg13")),
        ):
            if getattr(self, name) not in choices:
                raise BadSearch(
                    f"{name} is {getattr(self, name)!r}; choose one of "
                    f"{', '.join(map(str, choices))}."
                )
        limits = {
            "epochs": 1,
            "batch_size": 2,
            "steps": 0,
            "gamma": 0,
            "warm_up": 0,
            "lr_min": 0,
            "decay": 0,
            "arch_decay": 0,
            "momentum": 0,
        }
        for name, least in limits.items():
            if getattr(self, name) < least:
                raise BadSearch(f"{name} is {getattr(self, name)}; it must be {least} or more.")
        for name in ("lr", "arch_lr", "clip"):
            if not 0 < getattr(self, name) < 10:
                raise BadSearch(
                    f"{name} is {getattr(self, name)}; it must be above 0 and below 10."
                )
        if self.audience_only and self.lease is None:
            raise BadSearch(
                "audience_only needs lease settings; give lease={} for the recommended ones."
            )
        for stage in range(self.stages):
            self.space(stage, 2, 3)  # refuses what cannot be built
        if self.family == "pdarts":
            self._check_pdarts()

    def _check_pdarts(self) -> None:
        if not (len(self.keep) == 2 and 8 >= self.keep[0] >= self.keep[1] >= 2):
            raise BadSearch(
                f"keep is {self.keep}; give two numbers of operations from 8 down to 2, such as "
                "(5, 3)."
            )
        if len(self.skip_rates) != 3 or not all(0 <= rate < 1 for rate in self.skip_rates):
            raise BadSearch(
                f"skip_rates is {self.skip_rates}; give three rates of at least 0 and below 1."
            )
        if self.pruning == "mask" and len(set(zip(self.channels, self.cells, strict=False))) > 1:
            raise BadSearch(
                "pruning 'mask' needs the same channels and cells in all stages; use 'remove'."
            )

    @property
    def stages(self) -> int:
        """3 for P-DARTS, otherwise 1."""
        return STAGES[self.family]

    @property
    def total_epochs(self) -> int:
        """Epochs of all stages."""
        return self.stages * self.epochs

    def space(
        self, stage: int, classes: int, input_channels: int, survivors: tuple | None = None
    ) -> Space:
        """The supernet of a stage (from 0); `survivors` is (normal, reduce), or None where all
        operations are left.
        """
        normal, reduce = survivors or (None, None)
        return Space(
            self.family,
            channels=self.channels[stage],
            cells=self.cells[stage],
            classes=classes,
            input_channels=input_channels,
            normal=normal,
            reduce=reduce,
        )

    def key(self) -> dict:
        """The settings that the result depends on, without those that have no effect here."""
        without = (
            {"paper", "profile"}
            | (set(LEASE_ONLY) if self.lease is None else set())
            | (set(PDARTS_ONLY) if self.family != "pdarts" else set())
            | ({"traced"} if self.traced else set())
        )
        kept = {name: value for name, value in asdict(self).items() if name not in without}
        if self.lease is not None and self.mode == "finite":
            kept["finite"] = "equation 12"  # searches from before took all products so
        return kept

    def __str__(self) -> str:
        width = max(len(f.name) for f in fields(self))
        return "\n".join(f"{f.name:<{width}}  {getattr(self, f.name)}" for f in fields(self))


def seeds(config: SearchConfig, count: int) -> list[SearchConfig]:
    """The same search with `count` seeds, beginning with its own: the unit whose spread says what a
    difference between methods is worth.
    """
    return [
        config
        if n == 0
        else replace(config, seed=config.seed + n, name=f"{config.name}-seed{config.seed + n}")
        for n in range(count)
    ]
