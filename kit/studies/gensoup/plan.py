"""What one run of Gen-Soup searches, with which budget and on which data."""

from dataclasses import dataclass

from kit.errors import KitError
from kit.models import architecture_catalog, ported_weights
from kit.models.weights import Initialisation
from kit.published import papers
from kit.search.evolution import genome as evolution_genome
from kit.search.evolution.soup_settings import SoupSettings

EXPERIMENTS = (
    "1",
    "2",
    "1-constant",
    "2-cosine",
)  # the latter two: the same lengths with the other scheduler


ARMS = {
    "without": "off",
    "with": "algorithm",
    "released": "released",
    "copying": "off",
}  # and the astrocytes' mode


PUBLISHED = ("kvasir-v2", "breakhis")


class BadPlan(KitError):
    """A setting of the Gen-Soup searches is out of range, or an arm or experiment does not
    exist.
    """


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is searched; the defaults are the published settings.

    Attributes
    ----------
    profile : str
    datasets : dict
        Published data set (kvasir-v2, breakhis) -> registered set that is used for it.
    experiments, arms : tuple of str
        See `EXPERIMENTS` and `ARMS`.
    decoded_size : int
        Side that images are decoded to once; those of the schedule are made from it.
    images : int
        Most images of a data set, by class proportion; 0: all.
    architectures : tuple of str
    weights : str or None
        Initial weights, see :class:`kit.training.short.Network`.
    generations : tuple of int
        Of experiments 1 and 2.
    first, decrement, smallest, start, end, at_end, epochs, batch_size, recalibrate, decay_mode
        See :class:`kit.search.evolution.soup_settings.SoupSettings`.
    cosine_floor : float
        Likewise; a tenth in the released code of chapter 3.
    optimizer_settings : {"text", "code"}
        Rates and momenta of SGD and RMSprop: PyTorch's defaults, as the thesis says, or those of
        the released code of chapter 3.
    bn_momentum : float or None
        Of every BatchNormalization; None leaves the networks' own, which the thesis does not
        change.
    brightness : float
        The thesis says colour jitter, the released code of chapter 3 has brightness only, of 0.5.
    mixing : str
        "choice": CutMix or MixUp, as published.
    augmentation : bool
    ema_momentum : float
        Of the average of one training, over its epochs.
    points : int
        Of the path between two networks.
    seeds : int
        Searches of every arm.
    grouped : bool
        Keep twins in one part.
    seed : int
        The first; also of the split.
    """

    profile: str
    datasets: tuple = (("kvasir-v2", "kvasir-v2"), ("breakhis", "breakhis"))
    experiments: tuple = ("1", "2")
    arms: tuple = ("without", "with")
    decoded_size: int = 320
    images: int = 0
    architectures: tuple = architecture_catalog.TABLE_5_2
    weights: str | None = "auto"
    generations: tuple = (20, 35)
    first: int = 50
    decrement: int = 5
    smallest: int = 10
    start: int = 224
    end: int = 302
    at_end: int = 10
    epochs: int = 1
    batch_size: int = 32
    recalibrate: bool = True
    decay_mode: str = "l2_all"
    cosine_floor: float = 0.1
    optimizer_settings: str = "text"
    bn_momentum: float | None = None
    brightness: float = 0.5
    mixing: str = "choice"
    augmentation: bool = True
    ema_momentum: float = 0.5
    points: int = 11
    seeds: int = 1
    grouped: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "datasets", tuple((key, name) for key, name in dict(self.datasets).items())
        )
        for field in ("experiments", "arms", "architectures", "generations"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        for chosen, known, what in (
            (dict(self.datasets), PUBLISHED, "published data set"),
            (self.experiments, EXPERIMENTS, "experiment"),
            (self.arms, ARMS, "arm"),
        ):
            unknown = [name for name in chosen if name not in known]
            if unknown or not chosen:
                raise BadPlan(
                    f"There is no {what} {unknown[0] if unknown else ''!r}; choose from "
                    f"{', '.join(known)}."
                )
        if (
            len(self.generations) != 2
            or self.seeds < 1
            or self.images < 0
            or not 0 <= self.ema_momentum < 1
            or self.optimizer_settings not in ("text", "code")
        ):
            raise BadPlan(
                "Gen-Soup needs the lengths of both experiments, at least one seed, a momentum in "
                "[0, 1), and optimizer_settings text or code."
            )

    def settings(self, experiment: str, arm: str, seed: int) -> SoupSettings:
        """Settings of one search."""
        shared = {
            name: getattr(self, name)
            for name in (
                "first",
                "decrement",
                "smallest",
                "start",
                "end",
                "at_end",
                "epochs",
                "batch_size",
                "recalibrate",
                "decay_mode",
                "cosine_floor",
            )
        }
        return SoupSettings(
            generations=self.generations[int(experiment[0]) - 1],
            cosine=experiment in ("1", "2-cosine"),
            inheritance="better" if arm == "copying" else "average",
            seed=seed,
            **shared,
        )

    def genome(self, arm: str) -> evolution_genome.Genome:
        """Seven genes, five without astrocytes."""
        return evolution_genome.chapter5(ARMS[arm] != "off", architectures=self.architectures)


def notes(plan: Plan) -> list[str]:
    """What the plan does otherwise than the thesis states."""
    used = {
        "generations_exp1": plan.generations[0],
        "generations_exp2": plan.generations[1],
        "epochs_per_generation": plan.epochs,
        "image_size_start": [plan.start] * 2,
        "image_size_end": [plan.end] * 2,
        "epochs_at_max_image_size": plan.at_end * plan.epochs,
        "population_initial": plan.first,
        "population_decrement": plan.decrement,
        "population_minimum": plan.smallest,
    }
    found = papers.departures(papers.load("gensoup"), used)
    found += [f"at most {plan.images} images a data set"] * bool(plan.images) + [
        "no augmentation"
    ] * (not plan.augmentation)
    found += ["CutMix and MixUp left out"] * (plan.mixing == "off")
    found += [f"BatchNormalization with momentum {plan.bn_momentum}"] * bool(plan.bn_momentum)
    found += ["SGD and RMSprop as in the released code of chapter 3"] * (
        plan.optimizer_settings == "code"
    )
    missing = [
        architecture_catalog.entry(name).title
        for name in architecture_catalog.TABLE_5_2
        if name not in plan.architectures
    ]
    added = [
        architecture_catalog.entry(name).title
        for name in plan.architectures
        if name not in architecture_catalog.TABLE_5_2
    ]
    found += [f"without {', '.join(missing)}"] * bool(missing) + [
        f"with {', '.join(added)}, which the thesis does not have"
    ] * bool(added)
    return found


def starts(plan: Plan) -> dict[str, Initialisation]:
    """How each architecture starts: name -> `kit.models.weights.Initialisation`."""
    return {name: ported_weights.initialisation(name, plan.weights) for name in plan.architectures}


def stand_in(plan: Plan) -> str | None:
    """What results have to say of architectures that start at random; None if all start from
    ImageNet.
    """
    random = [
        architecture_catalog.entry(name).title
        for name, start in starts(plan).items()
        if start.stand_in
    ]
    return f"random initial weights in place of ImageNet's: {', '.join(random)}" if random else None
