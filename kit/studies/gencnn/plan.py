"""What one run of Gen-CNN searches, with which budget and on which data."""

from collections.abc import Sequence
from dataclasses import dataclass

from kit.data.augment import crop_rotate
from kit.errors import KitError
from kit.models import architecture_catalog, ported_weights
from kit.published import papers
from kit.search.evolution import genetic, rivals
from kit.search.evolution import genome as evolution_genome

TITLES = {
    "sign-language-digits": "Sign Language Digits",
    "kvasir-v2": "KVASIR-v2",
    "isic-2019": "ISIC-2019",
    "breakhis": "BreaKHis",
}  # keys of the thesis' tables


PUBLISHED = {
    "sign-language-digits": "sign-digits",
    "kvasir-v2": "kvasir-v2",
    "isic-2019": "isic2019",
    "breakhis": "breakhis",
}  # names of the registry


MEDICAL = tuple(TITLES)[1:]


RIVALS = tuple(method for method in rivals.METHODS if method != "genetic")


CROSSOVER, MUTATION = (
    {"learning_rate": 0.9, "weight_decay": 0.9},
    {"learning_rate": 0.2, "weight_decay": 0.2},
)  # Table 3.4; the other genes: 0 and 0.4


class BadPlan(KitError):
    """A setting of the Gen-CNN trainings is out of range, or names something that does not
    exist.
    """


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is searched and trained; the defaults are the published ones, or a choice of ours where
    nothing is published.

    Attributes
    ----------
    profile : str
    convergence : str
        Registered data set of the repetitions (Table 3.3).
    medical : tuple of (str, str)
        Name in the thesis' tables -> registered data set.
    images : int
        Images of a data set, by class proportion of each part; 0 takes all.
    stored : int
        Side that images are decoded to, in pixels; 0: the largest that a training asks for.
    grouped : bool
        Keep twins in one part; the thesis does not.
    architectures : tuple of str
    weights : {"auto", "imagenet", None}
    order, rates, scale : str
        See :func:`kit.search.evolution.genome.chapter3`.
    tournament : {"text", "code"}
        One opponent, or the released code's two with its ties.
    generations, individuals, epochs, size, batch : int
        Of the searches on the medical sets.
    fitness : {"mcc", "accuracy"}
    fitness_part : {"val", "train"}
        "train" is what the released code did until January 2025.
    decay_mode : str
        See :func:`kit.training.optimizers.decayed`; "none_for_adam" is the released code's.
    optimizer_settings : {"text", "code"}
        Rates and momenta of SGD and RMSprop: PyTorch's defaults, as the thesis says, or the
        released code's (1e-2 and 1e-3, momentum 0.9).
    bn_momentum : float or None
        Of every BatchNormalization; None leaves the networks' own, which the thesis does not
        change.
    brightness : float
        The thesis says colour jitter, the released code has brightness only, of 0.5.
    cosine_floor : float
        Of the final training, as a fraction of the rate: a tenth in the released code.
    final_weights : {"last", "best"}
        Of the last epoch of the final training, as published, or of its best by validation MCC.
    final_epochs, final_size, final_batch : int
    swap_lr_wd : bool
        Exchange rate and decay in the final training, as the released code does.
    repetitions, convergence_generations, convergence_individuals : int
        Of the convergence study.
    rivals : tuple of str
        Other searches with the budget of the convergence study.
    rival_repetitions : int
        Most of `repetitions` that they are run for.
    target : str
        Medical set on which accuracy is tried as fitness.
    target_repetitions : int
        Searches of each kind there; 0 for none.
    fidelity : int
        Individuals of the first search that get a final training; 0 for none.
    workers : int
        Processes that evaluate a generation; 0 evaluates in this one.
    seed : int
    """

    profile: str
    convergence: str = "sign-digits"
    medical: tuple = tuple((role, PUBLISHED[role]) for role in MEDICAL)
    images: int = 0
    stored: int = 0
    grouped: bool = False
    architectures: tuple = architecture_catalog.TABLE_3_1
    weights: str | None = "auto"
    order: str = "table-3.4"
    rates: str = "text"
    scale: str = "linear"
    tournament: str = "text"
    generations: int = 25
    individuals: int = 50
    epochs: int = 3
    size: int = 112
    batch: int = 32
    fitness: str = "mcc"
    fitness_part: str = "val"
    decay_mode: str = "l2_all"
    optimizer_settings: str = "text"
    bn_momentum: float | None = None
    brightness: float = 0.5
    cosine_floor: float = 0.1
    final_weights: str = "last"
    final_epochs: int = 50
    final_size: int = 448
    final_batch: int = 8
    swap_lr_wd: bool = False
    repetitions: int = 30
    convergence_generations: int = 5
    convergence_individuals: int = 10
    rivals: tuple = RIVALS
    rival_repetitions: int = 3
    target: str = "isic-2019"
    target_repetitions: int = 3
    fidelity: int = 12
    workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "medical", tuple(dict(self.medical).items()))
        object.__setattr__(self, "architectures", tuple(self.architectures))
        object.__setattr__(
            self, "rivals", RIVALS if tuple(self.rivals) == ("all",) else tuple(self.rivals)
        )
        for what, wanted, known in (
            ("medical set", dict(self.medical), MEDICAL),
            ("architecture", self.architectures, architecture_catalog.ARCHITECTURES),
            ("search", self.rivals, RIVALS),
            ("fitness", [self.fitness], ("mcc", "accuracy")),
            ("fitness_part", [self.fitness_part], ("val", "train")),
            ("tournament", [self.tournament], ("text", "code")),
            ("group of settings", [self.optimizer_settings], ("text", "code")),
            ("final_weights", [self.final_weights], ("last", "best")),
            ("target", [self.target] * (self.target_repetitions > 0), dict(self.medical)),
        ):
            for name in wanted:
                if name not in known:
                    raise BadPlan(
                        f"There is no {what} {name!r} here; choose from {', '.join(known)}."
                    )
        counts = (
            self.generations,
            self.individuals,
            self.repetitions,
            self.convergence_generations,
            self.convergence_individuals,
            len(self.architectures),
        )
        if min(counts) < 1:
            raise BadPlan(
                "Generations, individuals, repetitions and architectures must be at least 1."
            )
        if "hyperband" in self.rivals and self.epochs < 2:
            raise BadPlan(
                "Hyperband shortens trainings: give epochs of at least 2, or leave it out of "
                "rivals."
            )

    @property
    def side(self) -> int:
        """Side that images are decoded to."""
        return self.stored or max(self.final_size, crop_rotate.resized_side(self.size))

    def genome(self) -> evolution_genome.Genome:
        """The five genes."""
        return evolution_genome.chapter3(self.order, self.rates, self.scale, self.architectures)

    def settings(self, generations: int, individuals: int, seed: int) -> genetic.GASettings:
        """Of the genetic algorithm, with the probabilities of Table 3.4 in the order of the
        genes.
        """
        names = self.genome().names
        chances = {
            "crossover": tuple(CROSSOVER.get(n, 0.0) for n in names),
            "mutation": tuple(MUTATION.get(n, 0.4) for n in names),
            "seed": seed,
        }
        return (
            genetic.GASettings(generations, individuals, **chances)
            if self.tournament == "text"
            else genetic.released(generations, individuals, **chances)
        )

    def initial(self) -> dict:
        """Architecture -> "imagenet" or None: how its weights start, with the files at hand."""
        return {
            name: ported_weights.initialisation(name, self.weights).weights
            for name in self.architectures
        }


def space(wanted: Sequence[str]) -> tuple:
    """Architectures by name; the nine of Table 3.1 for ["all"]."""
    return architecture_catalog.TABLE_3_1 if list(wanted) == ["all"] else tuple(wanted)


def role_seed(plan: Plan, role: str) -> int:
    """Seed of the search on a medical set."""
    return plan.seed + 100 * (1 + MEDICAL.index(role))


def thesis_name(architecture: str) -> str:
    """An architecture as the thesis' tables of this chapter are keyed."""
    return {"efficientnetv2_s": "efficientnetv2-small"}.get(
        architecture, architecture.replace("_", "-")
    )


def notes(plan: Plan, study: str = "medical") -> list[str]:
    """What the plan does otherwise than the publication states, in the searches on the "medical"
    sets or in the "convergence" study, whose size is not published.
    """
    used = {
        "epochs_per_individual": plan.epochs,
        "image_size": [plan.size] * 2,
        "final_epochs": plan.final_epochs,
        "final_image_size": [plan.final_size] * 2,
        "code_hpo_batch": plan.batch,
        "code_final_batch_at_448": plan.final_batch,
    }
    used |= (
        {"generations": plan.generations, "individuals": plan.individuals}
        if study == "medical"
        else {"convergence_repetitions": plan.repetitions}
    )
    found = [
        line.replace("code ", "").replace("hpo", "search").replace(" at 448", "")
        for line in papers.departures(papers.load("gencnn"), used)
    ]
    names = [thesis_name(name) for name in plan.architectures]
    other = set(names) != set(papers.load("gencnn").hyperparameters["architectures"])
    found += [
        f"{len(names)} architecture{'s' * (len(names) != 1)} ({', '.join(names)}) instead of nine"
    ] * other
    found += [f"{plan.images} images of a set"] * bool(plan.images) + [
        "twins kept in one part"
    ] * plan.grouped
    found += [f"{plan.scale} scale of rate and decay instead of linear"] * (
        plan.scale != "linear"
    ) + ["fitness accuracy instead of MCC"] * (plan.fitness != "mcc")
    found += ["fitness of the training images, as the released code before 2025"] * (
        plan.fitness_part == "train"
    ) + [
        "rate and decay exchanged in the final training, as in the released code"
    ] * plan.swap_lr_wd
    found += [f"BatchNormalization with momentum {plan.bn_momentum}"] * bool(plan.bn_momentum)
    found += ["SGD and RMSprop as in the released code"] * (plan.optimizer_settings == "code")
    found += ["weights of the best epoch in the final training"] * (plan.final_weights == "best")
    return found


def stand_in(plan: Plan, role: str) -> str | None:
    """What replaces the published data set and weights in the results of a role; None if nothing
    does.
    """
    dataset = plan.convergence if role == "sign-language-digits" else dict(plan.medical)[role]
    random = [
        architecture_catalog.entry(name).title
        for name, weights in plan.initial().items()
        if weights is None
    ]
    said = [f"{dataset} in place of {TITLES[role]}"] * (dataset != PUBLISHED[role]) + [
        f"random initialisation in place of ImageNet weights ({', '.join(random)})"
    ] * bool(random)
    return "; ".join(said) or None
