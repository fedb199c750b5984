"""What one run of the astrocytes' experiments trains, and the rows of the published tables."""

from dataclasses import dataclass

from kit.data import registry
from kit.errors import KitError
from kit.models import architecture_catalog, ported_weights, weights
from kit.published import papers

PAPER = "astrocytes"


# rows of the thesis' tables -> registered data set, and -> architecture
DATA = {
    "cifar-10": "cifar10",
    "cifar-100": "cifar100",
    "kvasir-v2": "kvasir-v2",
    "breakhis": "breakhis",
}


NETWORKS = {
    "shufflenetv2-x1.5": "shufflenetv2_x1.5",
    "mobilenetv3-large": "mobilenetv3_large",
    "regnety-400mf": "regnety_400mf",
}


TABLES = {
    "cifar-10": "table-4-3",
    "cifar-100": "table-4-4",
    "kvasir-v2": "table-4-5",
    "breakhis": "table-4-6",
}


ARMS = {
    "published": "factors of Tables 4.3 to 4.6, Algorithm 3 read literally",
    "mean": "published factors, activity of the batch mean",
    "count": "published factors, count of non-zero outputs",
    "norm": "published factors, norm of the kernel kept",
    "undone": "published factors, undone after NG batches",
    "epoch": "published factors, one decision an epoch",
    "classes": "published factors, K = number of classes: never",
    "found": "factors that our Experiment 2 found",
    "released": "counts only, as the released code does",
    "zero": "Str = 0, Weak = 1",
}


JUDGES = ("moving", "recalibrated")


class BadAstrocytePlan(KitError):
    """A setting of the astrocyte experiments is out of range, or a data set, network or arm does
    not exist.
    """


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is trained, and at what size; the defaults are the published ones.

    Attributes
    ----------
    profile : str
    datasets, architectures : dict
        Row of the thesis' tables -> registered data set, or -> key of
        `kit.models.architecture_catalog.ARCHITECTURES`; rows that are left out are not run. Two
        rows may share a data set: what does not depend on the row is then trained once.
    image_size : int
        Side in pixels.
    images, evaluated : int
        Training images, and images of the validation and of the test part, by class proportion; 0
        takes all.
    batch_size : int
    learning_rate : float
        Factor on Adam's 0.001.
    weight_decay : float
    decay_mode : str
        "l2_all", or "none_for_adam" as the released code has it; see
        :func:`kit.training.optimizers.decayed`.
    mixing : {"off", "choice", "cutmix", "mixup"}
        The released code draws CutMix or MixUp ("choice") but trains on the images as they were
        ("off").
    weights : None, "auto" or "imagenet"
    decisions : int
    threshold : float
    order : {"after", "before"}
        Of the optimizer's step and the scaling of kernels; the printed forward pass scales before.
    bn_momentum : float or None
        Of every BatchNormalization; None leaves the networks' own, which the thesis does not
        change, but which short trainings do not reach.
    cosine_floor : float
        Of Experiments 2 and 3, as a fraction of the rate: not stated, a tenth in the released code.
    brightness : float
        The thesis says colour jitter, the released code has brightness only, of 0.5.
    judged_by : {"moving", "recalibrated"}
        Statistics of BatchNormalization by which Experiment 2 chooses; every network is evaluated
        with both.
    grid : tuple of float
        Str and Weak of Experiment 1.
    exp1_datasets : tuple of str
    exp1_repetitions, exp1_epochs, exp2_epochs, exp3_repetitions, exp3_epochs : int
    exp2_step : float
    arms : tuple of str
        Of Experiment 3 beside the networks without astrocytes; the first one is the tables' CNGN.
        Keys of `ARMS`.
    single : tuple of str
        Arms that are trained with the first seed only.
    checked : {"all", "first"}
        Rows on which the arms of `single` are trained.
    seed : int
    """

    profile: str
    datasets: tuple = tuple(DATA.items())
    architectures: tuple = tuple(NETWORKS.items())
    image_size: int = 224
    images: int = 0
    evaluated: int = 0
    batch_size: int = 256
    learning_rate: float = 0.1
    weight_decay: float = 0.01
    decay_mode: str = "l2_all"
    mixing: str = "choice"
    weights: str | None = "auto"
    decisions: int = 4
    threshold: float = 2.0
    order: str = "after"
    bn_momentum: float | None = None
    cosine_floor: float = 0.1
    brightness: float = 0.5
    judged_by: str = "moving"
    grid: tuple = (0.5, 0.75, 1.0, 1.25, 1.5)
    exp1_datasets: tuple = ("cifar-10", "cifar-100")
    exp1_repetitions: int = 3
    exp1_epochs: int = 5
    exp2_epochs: int = 10
    exp2_step: float = 0.25
    exp3_repetitions: int = 3
    exp3_epochs: int = 10
    arms: tuple = (
        "published",
        "mean",
        "count",
        "norm",
        "undone",
        "epoch",
        "classes",
        "found",
        "released",
        "zero",
    )
    single: tuple = ("released", "zero", "classes")
    checked: str = "all"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("datasets", "architectures"):
            object.__setattr__(self, name, tuple(dict(getattr(self, name)).items()))
        for name in ("grid", "exp1_datasets", "arms", "single"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for given, known, what in (
            (dict(self.datasets), DATA, "data set"),
            (dict(self.architectures), NETWORKS, "network"),
            (self.arms, ARMS, "arm"),
            (self.exp1_datasets, DATA, "data set"),
        ):
            unknown = [key for key in given if key not in known]
            if unknown or not given:
                raise BadAstrocytePlan(
                    f"{unknown[0] if unknown else 'Nothing'!r} is no {what} of the chapter; choose "
                    f"from {', '.join(known)}."
                )
        if 1.0 not in self.grid or len(set(self.grid)) != len(self.grid):
            raise BadAstrocytePlan(
                f"The grid {self.grid} needs different factors, and 1 among them, which is the "
                "control."
            )
        counts = (
            self.exp1_repetitions,
            self.exp1_epochs,
            self.exp2_epochs,
            self.exp3_repetitions,
            self.exp3_epochs,
        )
        if (
            min(counts) < 1
            or max(self.exp2_epochs, self.exp3_epochs) > 10
            or ("found" in self.arms and self.exp3_epochs > self.exp2_epochs)
        ):
            raise BadAstrocytePlan(
                "Epochs and repetitions must be at least 1; Experiments 2 and 3 have at most 10 "
                "epochs, 3 no more than 2 if it takes its factors."
            )
        if self.checked not in ("all", "first") or self.arms[0] in self.single:
            raise BadAstrocytePlan(
                f"checked is {self.checked!r} and the first arm {self.arms[0]!r}; give all or "
                "first, and an arm that is trained with all seeds."
            )
        if self.judged_by not in JUDGES:
            raise BadAstrocytePlan(
                f"judged_by is {self.judged_by!r}; choose one of {', '.join(JUDGES)}."
            )
        for _, name in self.architectures:
            if not architecture_catalog.entry(name).buffers:
                raise BadAstrocytePlan(
                    f"{architecture_catalog.entry(name).title} has no BatchNormalization, which "
                    "all networks of the chapter have and which takes scaled kernels up; choose a "
                    "network with it."
                )


@dataclass(frozen=True)
class Case:
    """One row of the thesis' tables: a data set and a network, and what stands for them here."""

    dataset: str
    network: str
    data: str
    architecture: str

    @property
    def row(self) -> str:
        """Row id of Tables 4.2, 4.7 and 4.8."""
        return f"{self.dataset}.{self.network}"

    @property
    def title(self) -> str:
        """Data set and network as they were run."""
        return f"{data_title(self.data)}, {architecture_catalog.entry(self.architecture).title}"


def cases(plan: Plan) -> list[Case]:
    """All rows that are run, data set by data set."""
    return [
        Case(dataset, network, name, architecture)
        for dataset, name in plan.datasets
        for network, architecture in plan.architectures
    ]


def titles(plan: Plan) -> dict:
    """Text for figures of each data set and network that is run, with what it stands for."""
    pairs = [(row, data_title(name), data_title(DATA[row])) for row, name in plan.datasets]
    pairs += [
        (
            row,
            architecture_catalog.entry(name).title,
            architecture_catalog.entry(NETWORKS[row]).title,
        )
        for row, name in plan.architectures
    ]
    return {row: here if here == there else f"{here} for {there}" for row, here, there in pairs}


def data_title(name: str) -> str:
    """Title of a registered data set without what follows a comma or a bracket."""
    return registry.get(name).title.split(",")[0].split(" (")[0]


def stand_in(plan: Plan, rows: list[Case] | None = None) -> str | None:
    """What every result on some rows (default: all) has to say of replaced data and networks, and
    of random initial weights.
    """
    rows = cases(plan) if rows is None else rows
    said = [
        f"{data_title(c.data)} in place of {data_title(DATA[c.dataset])}"
        for c in rows
        if DATA[c.dataset] != c.data
    ]
    said += [
        f"{architecture_catalog.entry(c.architecture).title} in place of "
        f"{architecture_catalog.entry(NETWORKS[c.network]).title}"
        for c in rows
        if NETWORKS[c.network] != c.architecture
    ]
    said += [
        f"{architecture_catalog.entry(c.architecture).title}: {start(plan, c).text}"
        for c in rows
        if start(plan, c).stand_in
    ]
    return "; ".join(dict.fromkeys(said)) or None


def start(plan: Plan, case: Case) -> weights.Initialisation:
    """How the network of a row starts."""
    return ported_weights.initialisation(case.architecture, plan.weights)


def settings(plan: Plan) -> dict:
    """The plan in the words of ``hyperparameters`` in papers/astrocytes.yml."""
    mixing = {"choice": "CutMix or MixUp", "cutmix": "CutMix", "mixup": "MixUp", "off": "none"}[
        plan.mixing
    ]
    return {
        "batch_size": plan.batch_size,
        "image_size": [plan.image_size] * 2,
        "learning_rate": round(plan.learning_rate * 1e-3, 12),
        "weight_decay": plan.weight_decay,
        "ng": plan.decisions,
        "activation_threshold": plan.threshold,
        "exp1_str": list(plan.grid),
        "exp1_weak": list(plan.grid),
        "exp1_repetitions": plan.exp1_repetitions,
        "epochs_exp1": plan.exp1_epochs,
        "epochs_exp2": plan.exp2_epochs,
        "exp2_step": plan.exp2_step,
        "exp3_repetitions": plan.exp3_repetitions,
        "epochs_exp3": plan.exp3_epochs,
        "augmentation_mixing": mixing,
        "loss": "label smoothing",
        "optimizer": "Adam",
        "lr_scheduler_exp1": "none",
        "lr_scheduler_exp2": "cosine annealing",
        "lr_scheduler_exp3": "cosine annealing",
    }


def unstated(plan: Plan) -> list[tuple]:
    """Settings that Table 4.1 does not have: name, what else is known of them, and here."""
    momentum = "the networks' own" if plan.bn_momentum is None else f"{plan.bn_momentum:g}"
    return [
        ("weight decay acts", "not stated; not on Adam in the code", plan.decay_mode),
        ("Adam's other settings", "PyTorch's defaults", "PyTorch's defaults"),
        ("cosine's floor", "not stated; a tenth in the code", f"{plan.cosine_floor:g}"),
        ("momentum of BatchNormalization", "not stated", momentum),
        (
            "jitter of colours",
            "colour jitter; brightness 0.5 only in the code",
            f"brightness {plan.brightness:g}",
        ),
        ("weights that are evaluated", "of the last epoch", "of the last epoch"),
        ("kernels are scaled", "in the forward pass", f"{plan.order} the optimizer's step"),
        (
            "statistics of BatchNormalization in evaluations",
            "moving",
            "moving, and recalibrated by the training pipeline",
        ),
        ("experiment 2 chooses by", "moving statistics", f"{plan.judged_by} statistics"),
    ]


def notes(plan: Plan) -> list[str]:
    """What the plan does otherwise than the thesis states."""
    found = [
        line.replace("exp1 str", "Str of Experiment 1").replace("exp1 weak", "Weak of Experiment 1")
        for line in papers.departures(papers.load(PAPER), settings(plan))
    ]
    found += [f"{plan.images} training images"] * bool(plan.images) + [
        f"{plan.evaluated} validation and test images"
    ] * bool(plan.evaluated)
    found += [f"BatchNormalization with momentum {plan.bn_momentum}"] * bool(plan.bn_momentum)
    found += ["Experiment 2 judged by recalibrated statistics"] * (plan.judged_by != "moving")
    found += [f"cosine to {plan.cosine_floor:g} of the rate"] * (plan.cosine_floor != 0.1)
    found += [f"brightness jitter of {plan.brightness:g}"] * (plan.brightness != 0.5)
    found += ["no weight decay for Adam"] * (plan.decay_mode == "none_for_adam")
    left_out = [data_title(name) for row, name in DATA.items() if row not in dict(plan.datasets)]
    left_out += [
        architecture_catalog.entry(name).title
        for row, name in NETWORKS.items()
        if row not in dict(plan.architectures)
    ]
    return found + [f"without {', '.join(left_out)}"] * bool(left_out)
