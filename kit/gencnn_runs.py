"""The trainings of Gen-CNN: genetic searches with repetitions, other searches of the same budget, and final trainings with what they found.

The thesis searches 25 generations of 50 individuals, three epochs at 112 px each, takes the best validation MCC of the run, and trains once more for 50
epochs at 448 px. Departures: the random head is one for all individuals instead of new for each; the individual that won is trained again from its seed,
bit for bit, so that its test images are looked at once and no weights need to be kept; the final training uses rate and decay as they were searched
(the released code exchanges them, an option); and what the thesis does not measure is run beside it: random search and four others with
the same number of evaluations, accuracy as fitness, and how far cheap epochs foretell the outcome of the long training.
"""

import functools
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from kit import architectures, data, outcome, papers, paths, ported_weights, record, registry, short_runs, short_training, thesis_augment, train
from kit.errors import KitError
from kit.evolution import genetic, rivals, workers
from kit.evolution import genome as genomes
from kit.evolution import plan as plans

TITLES = {"sign-language-digits": "Sign Language Digits", "kvasir-v2": "KVASIR-v2", "isic-2019": "ISIC-2019", "breakhis": "BreaKHis"}  # keys of the thesis' tables
PUBLISHED = {"sign-language-digits": "sign-digits", "kvasir-v2": "kvasir-v2", "isic-2019": "isic2019", "breakhis": "breakhis"}  # names of the registry
MEDICAL = tuple(TITLES)[1:]
RIVALS = tuple(method for method in rivals.METHODS if method != "genetic")
CROSSOVER, MUTATION = {"learning_rate": 0.9, "weight_decay": 0.9}, {"learning_rate": 0.2, "weight_decay": 0.2}  # Table 3.4; the other genes: 0 and 0.4
RATES = "rates.json"


class BadPlan(KitError):
    """A setting of the Gen-CNN trainings is out of range, or names something that does not exist."""


@dataclass(frozen=True)
class Plan:
    """What is searched and trained; the defaults are the published ones, or the card's advice where nothing is published.

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
        Keep near-duplicates in one part; the thesis does not.
    architectures : tuple of str
    weights : {"auto", "imagenet", None}
    order, rates, scale : str
        See :func:`kit.evolution.genome.chapter3`.
    tournament : {"text", "code"}
        One opponent, or the released code's two with its ties.
    generations, individuals, epochs, size, batch : int
        Of the searches on the medical sets.
    fitness : {"mcc", "accuracy"}
    fitness_part : {"val", "train"}
        "train" is what the released code did until January 2025.
    decay_mode : str
        See :func:`kit.optimizers.decayed`; "none_for_adam" is the released code's.
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
    architectures: tuple = genomes.TABLE_3_1
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

    def __post_init__(self):
        object.__setattr__(self, "medical", tuple(dict(self.medical).items()))
        object.__setattr__(self, "architectures", tuple(self.architectures))
        object.__setattr__(self, "rivals", RIVALS if tuple(self.rivals) == ("all",) else tuple(self.rivals))
        for what, wanted, known in (("medical set", dict(self.medical), MEDICAL), ("architecture", self.architectures, architectures.ARCHITECTURES), ("search", self.rivals, RIVALS),
                                    ("fitness", [self.fitness], ("mcc", "accuracy")), ("fitness_part", [self.fitness_part], ("val", "train")),
                                    ("tournament", [self.tournament], ("text", "code")), ("target", [self.target] * (self.target_repetitions > 0), dict(self.medical))):
            for name in wanted:
                if name not in known:
                    raise BadPlan(f"There is no {what} {name!r} here; choose from {', '.join(known)}.")
        if min(self.generations, self.individuals, self.repetitions, self.convergence_generations, self.convergence_individuals, len(self.architectures)) < 1:
            raise BadPlan("Generations, individuals, repetitions and architectures must be at least 1.")
        if "hyperband" in self.rivals and self.epochs < 2:
            raise BadPlan("Hyperband shortens trainings: give epochs of at least 2, or leave it out of rivals.")

    @property
    def side(self) -> int:
        """Side that images are decoded to."""
        return self.stored or max(self.final_size, thesis_augment.resized_side(self.size))

    def genome(self) -> genomes.Genome:
        """The five genes."""
        return genomes.chapter3(self.order, self.rates, self.scale, self.architectures)

    def settings(self, generations: int, individuals: int, seed: int) -> genetic.GASettings:
        """Of the genetic algorithm, with the probabilities of Table 3.4 in the order of the genes."""
        names = self.genome().names
        chances = {"crossover": tuple(CROSSOVER.get(n, 0.0) for n in names), "mutation": tuple(MUTATION.get(n, 0.4) for n in names), "seed": seed}
        return genetic.GASettings(generations, individuals, **chances) if self.tournament == "text" else genetic.released(generations, individuals, **chances)

    def initial(self) -> dict:
        """Architecture -> "imagenet" or None: how its weights start, with the files at hand."""
        return {name: ported_weights.initialisation(name, self.weights).weights for name in self.architectures}


@dataclass(frozen=True)
class Found:
    """What a search ended with.

    Attributes
    ----------
    method, dataset : str
    seed : int
        Of the search.
    fitness : float
        Of the best individual of the run.
    values : dict
        Its genes, decoded.
    trained : dict
        Its rates on the validation images and the seed and number of epochs of its training.
    trace : pandas.DataFrame
        One row an evaluation, in order: generation, fitness, best (so far), reason, seconds, cost (1, or the fraction of the epochs).
    history : pandas.DataFrame or None
        Of the genetic algorithm, see :class:`kit.evolution.plan.Result`.
    """

    method: str
    dataset: str
    seed: int
    fitness: float
    values: dict
    trained: dict
    trace: pd.DataFrame = field(repr=False)
    history: pd.DataFrame | None = field(default=None, repr=False)


# --- data -------------------------------------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4)
def loaded(dataset: str, fingerprint: str, images: int, side: int, grouped: bool, seed: int) -> tuple[data.Inputs, dict]:
    """The images, and row numbers of "train", "val" and "test" (60, 20 and 20 % of each class); the fingerprint only makes the result the data's own."""
    return data.in_three(dataset, side, images, seed, grouped)


def images_of(plan: Plan, dataset: str) -> tuple[data.Inputs, dict]:
    """The images of a plan's data set and its three parts; see :func:`loaded`."""
    return loaded(dataset, registry.facts(dataset)["fingerprint"], plan.images, plan.side, plan.grouped, plan.seed)


def training_ids(plan: Plan, role: str) -> list:
    """Ids of the training images of a medical set."""
    inputs, parts = images_of(plan, dict(plan.medical)[role])
    return inputs.index["image_id"].to_numpy()[parts["train"]].tolist()


def space(wanted) -> tuple:
    """Architectures by name; the nine of Table 3.1 for ["all"]."""
    return genomes.TABLE_3_1 if list(wanted) == ["all"] else tuple(wanted)


# --- searches ---------------------------------------------------------------------------------------------------------------------------------


def task(plan: Plan, dataset: str, fitness: str | None = None) -> dict:
    """Everything besides the genes that an evaluation depends on, as JSON can hold it."""
    where = {"dataset": dataset, "fingerprint": registry.facts(dataset)["fingerprint"], "images": plan.images, "side": plan.side, "grouped": plan.grouped, "split_seed": plan.seed}
    how = {"weights": plan.initial(), "epochs": plan.epochs, "size": plan.size, "batch": plan.batch, "decay_mode": plan.decay_mode}
    return {**where, **how, "fitness": fitness or plan.fitness, "part": plan.fitness_part}


def evaluate(values: dict, folder, *, dataset, fingerprint, images, side, grouped, split_seed, weights, epochs, size, batch, decay_mode, fitness, part) -> float:
    """Train an individual briefly and judge it: its MCC or accuracy on the validation images, in [-1, 1].

    Parameters
    ----------
    values : dict
        Decoded genes; "search" with the seed; "epochs" where a method shortens the training.
    folder : path-like
        Gets rates.json: the rates, the seed and the epochs.
    others
        From :func:`task`.

    Raises
    ------
    kit.train.Diverged, kit.outcome.OutOfMemory, kit.optimizers.RefusedRule
        The search notes the reason and counts the individual as the worst.
    """
    inputs, parts = loaded(dataset, fingerprint, images, side, grouped, split_seed)
    doer = short_training.trainer(network(values, weights, inputs))
    seed, epochs = int(values["search"]["seed"]) % 2**31, int(values.get("epochs") or epochs)
    doer.train(values, inputs, parts["train"], epochs=epochs, size=size, batch_size=batch, seed=seed, decay_mode=decay_mode)
    rates = short_training.rates(doer.predict(inputs, parts[part], size, part))
    record.write_json(Path(folder) / RATES, {"mcc": rates["mcc"], "accuracy": rates["accuracy"], "f1": rates["f1_of_macros"], "seed": seed, "epochs": epochs})
    return rates[fitness]


def network(values: dict, weights: dict, inputs: data.Inputs) -> short_training.Network:
    """The network of an individual; the head is the same for all of a data set."""
    return short_training.Network(values["architecture"], len(registry.get(inputs.name).classes), weights=weights[values["architecture"]])


def searches_folder(plan: Plan) -> Path:
    """Where the searches lie."""
    return paths.results_dir() / plan.profile / "gencnn" / "searches"


def search(plan: Plan, dataset: str, seed: int, generations: int, individuals: int, fitness: str | None = None) -> Found:
    """The genetic search, or the finished one of the same settings and images.

    Raises
    ------
    kit.evolution.plan.AllFailed
    """
    asked = plans.Plan(plan.genome(), plan.settings(generations, individuals, seed), "gencnn.fitness", task(plan, dataset, fitness))
    result = workers.run(asked, searches_folder(plan) / f"genetic-{dataset}-seed{seed}-{asked.key()[:10]}", plan.workers)
    best, history = result.best, result.history
    trace = history[["generation", "fitness", "reason", "seconds"]].assign(best=history["fitness"].where(history["reason"].isna()).cummax().ffill(), cost=1.0)
    return Found("genetic", dataset, seed, best["fitness"], best["values"], record.read_json(best["folder"] / RATES), trace, history)


def rival(plan: Plan, method: str, dataset: str, seed: int) -> Found:
    """Another search with the budget of the convergence study.

    Raises
    ------
    kit.evolution.plan.AllFailed
    """
    told, budget = task(plan, dataset), plan.convergence_generations * plan.convergence_individuals
    settings = {"budget": budget, "seed": seed, "population": plan.convergence_individuals, "epochs": plan.epochs if method == "hyperband" else None}
    folder = searches_folder(plan) / f"{method}-{dataset}-seed{seed}-{record.digest([asdict(plan.genome()), told, settings])[:10]}"
    trace = rivals.search(method, plan.genome(), functools.partial(evaluate, **told), folder=folder, **settings)
    best = trace.loc[trace["fitness"].where(trace["reason"].isna()).idxmax()]
    trained = record.read_json(plans.trial_folder(folder, int(best["evaluation"])) / RATES)
    return Found(method, dataset, seed, float(best["fitness"]), {n: best[n] for n in plan.genome().names}, trained, trace)


def convergence(plan: Plan) -> dict:
    """Searches of the convergence study: method -> [Found, ...], the genetic one first; one that fails is reported and left out."""
    jobs = {("genetic", r): functools.partial(search, plan, plan.convergence, plan.seed + r, plan.convergence_generations, plan.convergence_individuals) for r in range(plan.repetitions)}
    jobs |= {(method, r): functools.partial(rival, plan, method, plan.convergence, plan.seed + r) for method in plan.rivals for r in range(min(plan.rival_repetitions, plan.repetitions))}
    found = attempted(jobs)
    return {method: kept for method in ("genetic", *plan.rivals) if (kept := [f for (m, _), f in found.items() if m == method])}


def medical(plan: Plan) -> dict:
    """Searches on the medical sets: role -> Found; each has a seed of its own, so that sets that share their images do not share their search."""
    return attempted({role: functools.partial(search, plan, dataset, role_seed(plan, role), plan.generations, plan.individuals) for role, dataset in plan.medical})


def role_seed(plan: Plan, role: str) -> int:
    """Seed of the search on a medical set."""
    return plan.seed + 100 * (1 + MEDICAL.index(role))


def targets(plan: Plan) -> dict:
    """MCC and accuracy as fitness on the same images with the same seeds: fitness -> {seed: Found}; the MCC search of the medical sets is the first of its kind."""
    dataset, first = dict(plan.medical).get(plan.target), role_seed(plan, plan.target)
    jobs = {(fitness, first + r): functools.partial(search, plan, dataset, first + r, plan.generations, plan.individuals, fitness) for r in range(plan.target_repetitions) for fitness in ("mcc", "accuracy")}
    found = attempted(jobs)
    return {fitness: {seed: f for (which, seed), f in found.items() if which == fitness} for fitness in ("mcc", "accuracy")}


# --- trainings --------------------------------------------------------------------------------------------------------------------------------


def again(plan: Plan, found: Found, fitness: str | None = None) -> record.Run:
    """The best individual of a search trained again from its seed, now with predictions of validation and test images."""
    inputs, parts = images_of(plan, found.dataset)
    name = f"{found.method}-{found.dataset}-seed{found.seed}" + f"-{fitness}" * bool(fitness) + "-best"
    return short_runs.fit(short_runs.Config("gencnn", plan.profile, name, network(found.values, plan.initial(), inputs), found.values, found.trained["epochs"], plan.size,
                                                    batch_size=plan.batch, seed=found.trained["seed"], decay_mode=plan.decay_mode, watch=()), inputs, parts)  # fmt: skip


def final(plan: Plan, found: Found, values: dict | None = None, name: str = "final") -> record.Run:
    """The long training with the genes of a search, or with other `values`: larger images, cosine, last weights; nothing is selected on the way."""
    inputs, parts = images_of(plan, found.dataset)
    used = values or found.values
    if plan.swap_lr_wd:
        used = {**used, "learning_rate": used["weight_decay"], "weight_decay": used["learning_rate"]}
    return short_runs.fit(short_runs.Config("gencnn", plan.profile, f"{found.method}-{found.dataset}-seed{found.seed}-{name}", network(used, plan.initial(), inputs), used, plan.final_epochs,
                                                    plan.final_size, plan.final_size, plan.final_batch, found.seed, True, plan.decay_mode), inputs, parts)  # fmt: skip


def sampled(plan: Plan, found: Found) -> pd.DataFrame:
    """Individuals of a genetic search, evenly spread over the ranks of their fitness, the best and the worst among them; no genes twice."""
    names = list(plan.genome().names)
    history = found.history[found.history["reason"].isna()].drop_duplicates(names).sort_values("fitness", kind="stable", ignore_index=True)
    return history.iloc[np.unique(np.linspace(0, len(history) - 1, min(plan.fidelity, len(history))).round().astype(int))] if plan.fidelity else history.iloc[:0]


def fidelity(plan: Plan, found: Found) -> pd.DataFrame:
    """Fitness after the short training beside validation and test MCC after the long one, one row an individual of :func:`sampled`."""
    chosen = sampled(plan, found)
    runs = attempted({(row["generation"], row["individual"]): functools.partial(final, plan, found, {n: row[n] for n in plan.genome().names}, f"g{row['generation']}i{row['individual']}")
                      for row in chosen.to_dict("records")})  # fmt: skip
    rows = [{**row, **{f"final_{part}_mcc": run.metrics()[part]["mcc"] for part in ("val", "test")}} for row in chosen.to_dict("records")
            if (run := runs.get((row["generation"], row["individual"])))]  # fmt: skip
    return pd.DataFrame(rows, columns=[*chosen.columns, "final_val_mcc", "final_test_mcc"])


def attempted(jobs: dict) -> dict:
    """Results of `jobs` (functions without arguments) that did not fail; the others are reported."""
    finished = {}
    for key, job in jobs.items():
        try:
            finished[key] = job()
        except (train.Diverged, outcome.OutOfMemory, plans.AllFailed) as error:
            print(f"left out, {' '.join(map(str, key if isinstance(key, tuple) else [key]))}: {error}", flush=True)
    return finished


# --- what is said of them ---------------------------------------------------------------------------------------------------------------------


def thesis_name(architecture: str) -> str:
    """An architecture as the thesis' tables of this chapter are keyed."""
    return {"efficientnetv2_s": "efficientnetv2-small"}.get(architecture, architecture.replace("_", "-"))


def notes(plan: Plan, study: str = "medical") -> list[str]:
    """What the plan does otherwise than the publication states, in the searches on the "medical" sets or in the "convergence" study, whose size is not published."""
    used = {"epochs_per_individual": plan.epochs, "image_size": [plan.size] * 2, "final_epochs": plan.final_epochs, "final_image_size": [plan.final_size] * 2,
            "code_hpo_batch": plan.batch, "code_final_batch_at_448": plan.final_batch}  # fmt: skip
    used |= {"generations": plan.generations, "individuals": plan.individuals} if study == "medical" else {"convergence_repetitions": plan.repetitions}
    found = [line.replace("code ", "").replace("hpo", "search").replace(" at 448", "") for line in papers.departures(papers.load("gencnn"), used)]
    names = [thesis_name(name) for name in plan.architectures]
    other = set(names) != set(papers.load("gencnn").hyperparameters["architectures"])
    found += [f"{len(names)} architecture{'s' * (len(names) != 1)} ({', '.join(names)}) instead of nine"] * other
    found += [f"{plan.images} images of a set"] * bool(plan.images) + ["near-duplicates kept in one part"] * plan.grouped
    found += [f"{plan.scale} scale of rate and decay instead of linear"] * (plan.scale != "linear") + ["fitness accuracy instead of MCC"] * (plan.fitness != "mcc")
    found += ["fitness of the training images, as the released code before 2025"] * (plan.fitness_part == "train") + ["rate and decay exchanged in the final training, as in the released code"] * plan.swap_lr_wd
    return found


def stand_in(plan: Plan, role: str) -> str | None:
    """What replaces the published data set and weights in the results of a role; None if nothing does."""
    dataset = plan.convergence if role == "sign-language-digits" else dict(plan.medical)[role]
    random = [architectures.entry(name).title for name, weights in plan.initial().items() if weights is None]
    said = [f"{dataset} in place of {TITLES[role]}"] * (dataset != PUBLISHED[role]) + [f"random initialisation in place of ImageNet weights ({', '.join(random)})"] * bool(random)
    return "; ".join(said) or None
