"""The trainings of the astrocyte chapter: what is run, on which images, and Experiments 1 and 3 (the greedy search of Experiment 2: `kit.astrocyte_search`).

The thesis trains three networks on four data sets, once over a 5 x 5 grid of the factors Str and Weak (Experiment 1), once with the best of nine factors in
each epoch (2) and three times with the factors found (3). Departures: every network with astrocytes has a twin without them of the same seed, so that what
astrocytes do can be set against what a seed does; two further arms tell the explanations apart: "released", whose astrocytes count but change nothing as in
the published code, and "zero", constant factors (0, 1), which the thesis calls harmless. Repetitions differ in order, augmentation and dropout but share the
initial weights. No image selects an epoch in Experiment 3. BatchNormalization has momentum 0.9 in all networks, because short trainings need it.
"""

from dataclasses import dataclass, replace

from kit import architectures, audit, data, papers, record, registry, short_runs, split, thesis_augment, weights
from kit.errors import KitError
from kit.short_runs import Config
from kit.short_training import Network
from kit.train import Diverged

PAPER = "astrocytes"
# rows of the thesis' tables -> registered data set, and -> architecture
DATA = {"cifar-10": "cifar10", "cifar-100": "cifar100", "kvasir-v2": "kvasir-v2", "breakhis": "breakhis"}
NETWORKS = {"shufflenetv2-x1.5": "shufflenetv2_x1.5", "mobilenetv3-large": "mobilenetv3_large", "regnety-400mf": "regnety_400mf"}
TABLES = {"cifar-10": "table-4-3", "cifar-100": "table-4-4", "kvasir-v2": "table-4-5", "breakhis": "table-4-6"}
ARMS = {"published": "factors of Tables 4.3 to 4.6", "found": "factors that our Experiment 2 found", "released": "counts only, as the released code does",
        "zero": "Str = 0, Weak = 1"}  # fmt: skip
NATIVE = {"cifar10": 32, "cifar100": 32}  # sides at which small images are kept; they are enlarged batch by batch


class BadAstrocytePlan(KitError):
    """A setting of the astrocyte experiments is out of range, or a data set, network or arm does not exist."""


@dataclass(frozen=True)
class Plan:
    """What is trained, and at what size; the defaults are the published ones.

    Attributes
    ----------
    profile : str
    datasets, architectures : dict
        Row of the thesis' tables -> registered data set, or -> key of `kit.architectures.ARCHITECTURES`; rows that are left out are not run. Two rows may
        share a data set: what does not depend on the row is then trained once.
    image_size : int
        Side in pixels.
    images, evaluated : int
        Training images, and images of the validation and of the test part, by class proportion; 0 takes all.
    batch_size : int
    learning_rate : float
        Factor on Adam's 0.001.
    weight_decay : float
    decay_mode : str
        "l2_all", or "none_for_adam" as the released code has it; see :func:`kit.optimizers.decayed`.
    mixing : {"off", "choice", "cutmix", "mixup"}
        The released code draws CutMix or MixUp ("choice") but trains on the images as they were ("off").
    weights : None, "auto" or "imagenet"
    decisions : int
    threshold : float
    grid : tuple of float
        Str and Weak of Experiment 1.
    exp1_datasets : tuple of str
    exp1_repetitions, exp1_epochs, exp2_epochs, exp3_repetitions, exp3_epochs : int
    exp2_step : float
    arms : tuple of str
        Of Experiment 3 beside the networks without astrocytes; the first one is the tables' CNGN. Keys of `ARMS`.
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
    grid: tuple = (0.5, 0.75, 1.0, 1.25, 1.5)
    exp1_datasets: tuple = ("cifar-10", "cifar-100")
    exp1_repetitions: int = 3
    exp1_epochs: int = 5
    exp2_epochs: int = 10
    exp2_step: float = 0.25
    exp3_repetitions: int = 3
    exp3_epochs: int = 10
    arms: tuple = ("published", "found", "released", "zero")
    single: tuple = ("released", "zero")
    checked: str = "all"
    seed: int = 0

    def __post_init__(self):
        for name in ("datasets", "architectures"):
            object.__setattr__(self, name, tuple(dict(getattr(self, name)).items()))
        for name in ("grid", "exp1_datasets", "arms", "single"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for given, known, what in ((dict(self.datasets), DATA, "data set"), (dict(self.architectures), NETWORKS, "network"), (self.arms, ARMS, "arm"),
                                   (self.exp1_datasets, DATA, "data set")):  # fmt: skip
            unknown = [key for key in given if key not in known]
            if unknown or not given:
                raise BadAstrocytePlan(f"{unknown[0] if unknown else 'Nothing'!r} is no {what} of the chapter; choose from {', '.join(known)}.")
        if 1.0 not in self.grid or len(set(self.grid)) != len(self.grid):
            raise BadAstrocytePlan(f"The grid {self.grid} needs different factors, and 1 among them, which is the control.")
        counts = (self.exp1_repetitions, self.exp1_epochs, self.exp2_epochs, self.exp3_repetitions, self.exp3_epochs)
        if min(counts) < 1 or max(self.exp2_epochs, self.exp3_epochs) > 10 or ("found" in self.arms and self.exp3_epochs > self.exp2_epochs):
            raise BadAstrocytePlan("Epochs and repetitions must be at least 1; Experiments 2 and 3 have at most 10 epochs, 3 no more than 2 if it takes its factors.")
        if self.checked not in ("all", "first") or self.arms[0] in self.single:
            raise BadAstrocytePlan(f"checked is {self.checked!r} and the first arm {self.arms[0]!r}; give all or first, and an arm that is trained with all seeds.")
        for _, name in self.architectures:
            architectures.entry(name)


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
        return f"{data_title(self.data)}, {architectures.entry(self.architecture).title}"


def cases(plan: Plan) -> list[Case]:
    """All rows that are run, data set by data set."""
    return [Case(dataset, network, name, architecture) for dataset, name in plan.datasets for network, architecture in plan.architectures]


def titles(plan: Plan) -> dict:
    """Text for figures of each data set and network that is run, with what it stands for."""
    pairs = [(row, data_title(name), data_title(DATA[row])) for row, name in plan.datasets]
    pairs += [(row, architectures.entry(name).title, architectures.entry(NETWORKS[row]).title) for row, name in plan.architectures]
    return {row: here if here == there else f"{here} for {there}" for row, here, there in pairs}


def data_title(name: str) -> str:
    """Title of a registered data set without what follows a comma or a bracket."""
    return registry.get(name).title.split(",")[0].split(" (")[0]


def stand_in(plan: Plan, rows=None) -> str | None:
    """What every result on some rows (default: all) has to say of replaced data and networks, and of random initial weights."""
    rows = cases(plan) if rows is None else rows
    said = [f"{data_title(c.data)} in place of {data_title(DATA[c.dataset])}" for c in rows if DATA[c.dataset] != c.data]
    said += [f"{architectures.entry(c.architecture).title} in place of {architectures.entry(NETWORKS[c.network]).title}" for c in rows if NETWORKS[c.network] != c.architecture]
    said += [f"{architectures.entry(c.architecture).title}: {start(plan, c).text}" for c in rows if start(plan, c).stand_in]
    return "; ".join(dict.fromkeys(said)) or None


def start(plan: Plan, case: Case) -> weights.Initialisation:
    """How the network of a row starts."""
    from kit import ported_weights

    return ported_weights.initialisation(case.architecture, plan.weights)


def inputs_and_parts(plan: Plan) -> dict:
    """Images and row numbers of "train", "val" and "test" of every data set that is run: registered name -> (kit.data.Inputs, parts)."""
    return {name: _prepared(plan, name) for name in dict.fromkeys(name for _, name in plan.datasets)}


def _prepared(plan: Plan, name: str) -> tuple:
    side = min(thesis_augment.resized_side(plan.image_size), NATIVE.get(name, plan.image_size * 2))
    inputs = data.load(name, side, channels=3)
    wanted = {"train": plan.images, "val": plan.evaluated, "test": plan.evaluated}
    return inputs, {part: data.fewer(inputs.labels, inputs.rows(ids), wanted[part]) for part, ids in parts(name).items()}


def parts(name: str) -> dict:
    """Image ids: 60, 20 and 20 per cent within each class; where the data have a test folder, that and 90 and 10 per cent of the rest (card 4.20)."""
    index = registry.index(name)
    if "test" not in set(index["split"]):
        return split.three_way_split(name).parts
    train, val = split.holdout(index[index["split"] == "train"], test_size=0.1, stratified=True)
    return {"train": train, "val": val, "test": index["image_id"][index["split"] == "test"].tolist()}


def network(plan: Plan, case: Case, astrocytes: str) -> Network:
    """What the traced step of a row depends on."""
    chosen = start(plan, case).weights
    return Network(case.architecture, len(registry.get(case.data).classes), weights=chosen, seed=plan.seed, mixing=plan.mixing, astrocytes=astrocytes,
                   decisions=plan.decisions, threshold=plan.threshold)


def values(plan: Plan) -> dict:
    """Loss, optimizer, rate and decay of all experiments."""
    return {"loss": "label_smoothing", "optimizer": "adam", "learning_rate": plan.learning_rate, "weight_decay": plan.weight_decay}


def config(plan: Plan, case: Case, name: str, astrocytes: str, epochs: int, **more) -> Config:
    """A training of a row; its name does not tell the row, so that rows with the same data share it."""
    full = f"{name}-{case.data}-{case.architecture}".replace(".", "-")
    return Config(PAPER, plan.profile, full, network(plan, case, astrocytes), values(plan), epochs, plan.image_size, batch_size=plan.batch_size,
                  decay_mode=plan.decay_mode, **more)


# --- Experiment 1 ---


def grid_runs(plan: Plan, case: Case, loaded: dict) -> dict:
    """Experiment 1 of a row: (Str, Weak) -> list of runs, one a repetition, None for one that diverged; (1, 1) is the control."""
    inputs, rows = loaded[case.data]
    rows = {part: rows[part] for part in ("train", "val")}
    first = config(plan, case, "exp1", "algorithm", plan.exp1_epochs)
    pairs = [(strong, weak) for strong in plan.grid for weak in plan.grid]
    return {pair: [_fit(replace(first, factors=(pair,) * plan.exp1_epochs, seed=plan.seed + r), inputs, rows) for r in range(plan.exp1_repetitions)] for pair in pairs}


# --- Experiment 3 ---


def published_factors(case: Case, epochs: int) -> list:
    """The first rows of Tables 4.3 to 4.6 for a row of the tables."""
    printed = papers.load(PAPER).values
    return [tuple(float(printed[f"{TABLES[case.dataset]}/{case.network}.epoch{e}/{column}"].value) for column in ("str", "weak")) for e in range(1, epochs + 1)]


def arm_runs(plan: Plan, case: Case, loaded: dict, found=None) -> dict:
    """Experiment 3 of a row: arm -> {seed: run}; "off" is the networks without astrocytes. A training that diverged is left out and reported.

    Parameters
    ----------
    plan : Plan
    case : Case
    loaded : dict
        From :func:`inputs_and_parts`.
    found : sequence of pairs, optional
        Factors of our Experiment 2; the arm "found" is left out without them.
    """
    inputs, rows = loaded[case.data]
    factors = {"published": published_factors(case, plan.exp3_epochs), "released": [(0.5, 0.75)] * plan.exp3_epochs, "zero": [(0.0, 1.0)] * plan.exp3_epochs}
    if found is not None:
        factors["found"] = [tuple(pair) for pair in found][: plan.exp3_epochs]
    result = {}
    left_out = plan.single if plan.checked == "first" and case != cases(plan)[0] else ()
    for arm in ("off", *(a for a in plan.arms if a in factors and a not in left_out)):
        mode = {"off": "off", "released": "released"}.get(arm, "algorithm")
        count = 1 if arm in plan.single else plan.exp3_repetitions
        first = config(plan, case, f"exp3-{arm}", mode, plan.exp3_epochs, cosine=True, factors=None if arm == "off" else tuple(factors[arm]), watch=("test",), features="test",
                       keep_weights=arm in ("off", "released"))
        runs = {seed: _fit(replace(first, seed=seed), inputs, rows) for seed in range(plan.seed, plan.seed + count)}
        result[arm] = {seed: run for seed, run in runs.items() if run}
    return result


def _fit(chosen: Config, inputs, rows) -> record.Run | None:
    try:
        return short_runs.fit(chosen, inputs, rows)
    except Diverged as error:
        print(f"left out: {chosen.name} with {chosen.factors}: {error}", flush=True)
        return None


def train_ids(loaded: dict, case: Case) -> list:
    """Ids of the images that a row's networks are trained on."""
    inputs, rows = loaded[case.data]
    return inputs.index["image_id"].to_numpy()[rows["train"]].tolist()


def copies(loaded: dict) -> dict:
    """Test images with a near-duplicate among the training images, by registered data set: (with, all)."""
    found = {}
    for name, (inputs, rows) in loaded.items():
        ids = inputs.index["image_id"].to_numpy()
        free = audit.leak_free(registry.index(name), audit.groups(name), ids[rows["train"]], ids[rows["test"]])
        found[name] = (int((~free).sum()), len(free))
    return found


def settings(plan: Plan) -> dict:
    """The plan in the words of ``hyperparameters`` in papers/astrocytes.yml."""
    mixing = {"choice": "CutMix or MixUp", "cutmix": "CutMix", "mixup": "MixUp", "off": "none"}[plan.mixing]
    return {"batch_size": plan.batch_size, "image_size": [plan.image_size] * 2, "learning_rate": round(plan.learning_rate * 1e-3, 12), "weight_decay": plan.weight_decay,
            "ng": plan.decisions, "activation_threshold": plan.threshold, "exp1_str": list(plan.grid), "exp1_weak": list(plan.grid), "exp1_repetitions": plan.exp1_repetitions,
            "epochs_exp1": plan.exp1_epochs, "epochs_exp2": plan.exp2_epochs, "exp2_step": plan.exp2_step, "exp3_repetitions": plan.exp3_repetitions,
            "epochs_exp3": plan.exp3_epochs, "augmentation_mixing": mixing, "loss": "label smoothing"}  # fmt: skip


def notes(plan: Plan) -> list[str]:
    """What the plan does otherwise than the thesis states."""
    found = [line.replace("exp1 str", "Str of Experiment 1").replace("exp1 weak", "Weak of Experiment 1") for line in papers.departures(papers.load(PAPER), settings(plan))]
    found += [f"{plan.images} training images"] * bool(plan.images) + [f"{plan.evaluated} validation and test images"] * bool(plan.evaluated)
    found += ["no weight decay for Adam"] * (plan.decay_mode == "none_for_adam")
    left_out = [data_title(name) for row, name in DATA.items() if row not in dict(plan.datasets)]
    left_out += [architectures.entry(name).title for row, name in NETWORKS.items() if row not in dict(plan.architectures)]
    return found + [f"without {', '.join(left_out)}"] * bool(left_out)
