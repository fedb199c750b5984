"""The searches of chapter 5 of the thesis: Gen-Soup with and without astrocytes, in two experiments, and what they have to be compared with.

The thesis runs each search once, changes scheduler and length together, and has no baseline. Here searches can be repeated with several seeds, scheduler
and length can be varied one at a time, a search that copies the better parent's weights tells what averaging is worth, astrocytes as they were
released (which change nothing) tell what the two further genes alone do, and the final population is made into soups after the fact. The reported network
is the thesis': the highest validation MCC of the whole search, tested once at the final image size.
"""

import shutil
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from kit import architectures, data, papers, paths, record, registry
from kit.errors import KitError
from kit.evolution import averaging, genome, soup
from kit.evolution.soup import SoupSettings

EXPERIMENTS = ("1", "2", "1-constant", "2-cosine")  # the latter two: the same lengths with the other scheduler
ARMS = {"without": "off", "with": "algorithm", "released": "released", "copying": "off"}  # and the astrocytes' mode
PUBLISHED = ("kvasir-v2", "breakhis")
MODELS = ("best", "last", "uniform", "greedy", "weighted", "single", "ema")


class BadPlan(KitError):
    """A setting of the Gen-Soup searches is out of range, or an arm or experiment does not exist."""


@dataclass(frozen=True)
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
        Initial weights, see :class:`kit.short_training.Network`.
    generations : tuple of int
        Of experiments 1 and 2.
    first, decrement, smallest, start, end, at_end, epochs, batch_size, recalibrate
        See :class:`kit.evolution.soup.SoupSettings`; `recalibrate` holds for soups too.
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
        Keep near-duplicates in one part.
    seed : int
        The first; also of the split.
    """

    profile: str
    datasets: tuple = (("kvasir-v2", "kvasir-v2"), ("breakhis", "breakhis"))
    experiments: tuple = ("1", "2")
    arms: tuple = ("without", "with")
    decoded_size: int = 320
    images: int = 0
    architectures: tuple = genome.TABLE_5_2
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
    mixing: str = "choice"
    augmentation: bool = True
    ema_momentum: float = 0.5
    points: int = 11
    seeds: int = 1
    grouped: bool = False
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "datasets", tuple((key, name) for key, name in dict(self.datasets).items()))
        for field in ("experiments", "arms", "architectures", "generations"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        for chosen, known, what in ((dict(self.datasets), PUBLISHED, "published data set"), (self.experiments, EXPERIMENTS, "experiment"), (self.arms, ARMS, "arm")):
            unknown = [name for name in chosen if name not in known]
            if unknown or not chosen:
                raise BadPlan(f"There is no {what} {unknown[0] if unknown else ''!r}; choose from {', '.join(known)}.")
        if len(self.generations) != 2 or self.seeds < 1 or self.images < 0 or not 0 <= self.ema_momentum < 1:
            raise BadPlan("Gen-Soup needs the lengths of both experiments, at least one seed, and a momentum in [0, 1).")

    def settings(self, experiment: str, arm: str, seed: int) -> SoupSettings:
        """Settings of one search."""
        shared = {name: getattr(self, name) for name in ("first", "decrement", "smallest", "start", "end", "at_end", "epochs", "batch_size", "recalibrate")}
        return SoupSettings(generations=self.generations[int(experiment[0]) - 1], cosine=experiment in ("1", "2-cosine"),
                            inheritance="better" if arm == "copying" else "average", seed=seed, **shared)

    def genome(self, arm: str) -> genome.Genome:
        """Seven genes, five without astrocytes."""
        return genome.chapter5(ARMS[arm] != "off", architectures=self.architectures)


def load(plan: Plan, name: str) -> tuple:
    """Images of a registered set and row numbers of "train", "val" and "test": 60, 20 and 20 per cent of each class."""
    return data.in_three(name, plan.decoded_size, plan.images, plan.seed, plan.grouped)


def network(plan: Plan, name: str, arm: str):
    """What the searches' traced steps depend on."""
    from kit.short_training import Network

    return Network(plan.architectures[0], len(registry.get(name).classes), weights=plan.weights, seed=plan.seed, augmentation=plan.augmentation, mixing=plan.mixing,
                   astrocytes=ARMS[arm])


def run_of(plan: Plan, name: str, experiment: str, arm: str, seed: int, inputs, parts: dict) -> record.Run:
    """The run folder of one search, whether it exists or not."""
    config = {"search": asdict(plan.settings(experiment, arm, seed)), "genome": [asdict(gene) for gene in plan.genome(arm).genes], "network": asdict(network(plan, name, arm)),
              "ema_momentum": plan.ema_momentum, "points": plan.points, "data": inputs.facts, "parts": inputs.members(parts)}
    return record.Run(paths.results_dir() / plan.profile / "gensoup" / "runs", f"{name}-experiment{experiment}-{arm}-seed{seed}", config)


def search(plan: Plan, name: str, experiment: str, arm: str, seed: int, inputs, parts: dict) -> record.Run:
    """One search and its comparisons, or the finished run of the same settings and images; an interrupted one goes on.

    Returns
    -------
    kit.record.Run
        With history.csv (individuals), predictions.csv (test; column model), models.csv, path.csv, metrics.json (the best individual) and best.npz.

    Raises
    ------
    kit.evolution.plan.AllFailed, kit.evolution.soup.OtherStart
    """
    run = run_of(plan, name, experiment, arm, seed, inputs, parts)
    if not run.finished:
        data.check_parts(inputs, parts)

    def work() -> float:
        settings = plan.settings(experiment, arm, seed)
        nursery = soup.Nursery(network(plan, name, arm), inputs, parts, settings)
        done = soup.Search(run.folder / "search", settings, plan.genome(arm), nursery).run()
        _conclude(run, plan, done, nursery)
        return float(sum(row["seconds"] for row in done.rows))

    run.once(seed, work)
    shutil.rmtree(run.folder / "search", ignore_errors=True)
    return run


def _conclude(run: record.Run, plan: Plan, done: soup.Search, nursery: soup.Nursery) -> None:
    """Test the search's network and its rivals, follow the path between two parents, and write everything."""
    models, path, kinship = _soups(plan, done, nursery)
    best = done.best
    weights = soup.load(done.folder / soup.BEST)
    models = {"best": (best["architecture"], weights, {"image_size": best["size"]}), **models, **_single(plan, best, nursery)}
    tables, rows, size = [], [], done.settings.end
    for model, (architecture, found, more) in models.items():
        try:
            table = nursery.trainer(architecture).predict(nursery.inputs, np.sort(nursery.parts["test"]), size, "test", weights=found)
        except nursery.failures as error:
            print(f"left out: {model}: {error}", flush=True)
            continue
        tables.append(table.assign(model=model))
        rows.append({"model": model, "architecture": architecture, "validation_mcc": _judged(nursery, architecture, found, size), **more})
    record.write_csv(run.folder / "predictions.csv", pd.concat(tables, ignore_index=True))
    record.write_csv(run.folder / "models.csv", pd.DataFrame(rows))
    record.write_csv(run.folder / "path.csv", path)
    record.write_csv(run.folder / "history.csv", done.history)
    record.write_json(run.folder / "metrics.json", {"best": best, "kinship": kinship, "barrier": averaging.barrier(path) if len(path) else None})
    soup.save(run.folder / soup.BEST, weights)


def _soups(plan: Plan, done: soup.Search, nursery: soup.Nursery) -> tuple:
    """Soups of the final population, the scores between its two best members, and how many generations ago they were one."""
    rows, size = done.final_members(), done.settings.end
    if not rows:
        return {}, pd.DataFrame(columns=["share", "score", "recalibrated"]), None
    architecture, members = rows[0]["architecture"], [done.weights(row) for row in rows]

    def fresh(weights):
        return nursery.recalibrate(architecture, weights, size) if plan.recalibrate else weights

    def score(weights):
        return _judged(nursery, architecture, fresh(weights), size)

    made = {"last": (architecture, members[0], {"members": 1})}
    for name, (weights, shares) in soup.soups(members, [row["fitness"] for row in rows], score).items():
        made[name] = (architecture, fresh(weights), {"members": int(np.count_nonzero(shares))})
    if len(members) < 2:
        return made, pd.DataFrame(columns=["share", "score", "recalibrated"]), None
    raw = averaging.path(members[0], members[1], lambda weights: _judged(nursery, architecture, weights, size), plan.points)
    return made, raw.assign(recalibrated=averaging.path(members[0], members[1], score, plan.points)["score"]), done.kinship(rows[0], rows[1])


def _judged(nursery: soup.Nursery, architecture: str, weights, size: int) -> float:
    """Validation MCC; -1 for weights whose predictions are no numbers."""
    try:
        return nursery.fitness(architecture, weights, size)
    except nursery.failures:
        return -1.0


def _single(plan: Plan, best: dict, nursery: soup.Nursery) -> dict:
    """One network trained with the best genes for as many epochs as a lineage has, and the moving average of its weights; nothing if it fails."""
    settings, kept, doer = nursery.settings, [], nursery.trainer(best["architecture"])
    epochs = settings.generations * settings.epochs
    try:
        doer.train(best, nursery.inputs, nursery.parts["train"], epochs=epochs, size=settings.end, batch_size=settings.batch_size, seed=settings.seed,
                   of_epochs=epochs if settings.cosine else None, decay_mode=settings.decay_mode, watch=lambda epoch: kept.append(doer.model.get_weights()) or {})
        mean = soup.moving_average(kept, plan.ema_momentum)
    except nursery.failures as error:
        print(f"left out: one training of the best genes: {error}", flush=True)
        return {}
    mean = nursery.recalibrate(best["architecture"], mean, settings.end) if plan.recalibrate else mean
    return {"single": (best["architecture"], kept[-1], {"members": 1}), "ema": (best["architecture"], mean, {"members": epochs})}


def search_all(plan: Plan, loaded: dict) -> dict:
    """All searches: (published data set, experiment, arm) -> {seed: run}; one that fails is reported and left out.

    Parameters
    ----------
    loaded : dict
        Published data set -> what :func:`load` gave for its stand-in or itself.
    """
    runs = {}
    for key, name in plan.datasets:
        for experiment in plan.experiments:
            for arm in plan.arms:
                for seed in range(plan.seed, plan.seed + plan.seeds):
                    try:
                        runs.setdefault((key, experiment, arm), {})[seed] = search(plan, name, experiment, arm, seed, *loaded[key])
                    except (soup.AllFailed, soup.OtherStart) as error:
                        print(f"left out: {error}", flush=True)
    return {key: found for key, found in runs.items() if found}


def notes(plan: Plan) -> list[str]:
    """What the plan does otherwise than the thesis states."""
    used = {"generations_exp1": plan.generations[0], "generations_exp2": plan.generations[1], "epochs_per_generation": plan.epochs, "image_size_start": [plan.start] * 2,
            "image_size_end": [plan.end] * 2, "epochs_at_max_image_size": plan.at_end * plan.epochs, "population_initial": plan.first, "population_decrement": plan.decrement,
            "population_minimum": plan.smallest}
    found = papers.departures(papers.load("gensoup"), used)
    found += [f"at most {plan.images} images a data set"] * bool(plan.images) + ["no augmentation"] * (not plan.augmentation)
    found += ["CutMix and MixUp left out"] * (plan.mixing == "off")
    missing = [architectures.entry(name).title for name in genome.TABLE_5_2 if name not in plan.architectures]
    added = [architectures.entry(name).title for name in plan.architectures if name not in genome.TABLE_5_2]
    found += [f"without {', '.join(missing)}"] * bool(missing) + [f"with {', '.join(added)}, which the thesis does not have"] * bool(added)
    return found


def starts(plan: Plan) -> dict:
    """How each architecture starts: name -> `kit.weights.Initialisation`."""
    from kit import ported_weights

    return {name: ported_weights.initialisation(name, plan.weights) for name in plan.architectures}


def stand_in(plan: Plan) -> str | None:
    """What results have to say of architectures that start at random; None if all start from ImageNet."""
    random = [architectures.entry(name).title for name, start in starts(plan).items() if start.stand_in]
    return f"random initial weights in place of ImageNet's: {', '.join(random)}" if random else None


def tested(run: record.Run, model: str = "best") -> pd.DataFrame:
    """Test predictions of the search's network or of one of its rivals (`MODELS`); empty if that was not made."""
    table = run.predictions()
    return table[table["model"] == model].drop(columns="model").reset_index(drop=True)


tested.__test__ = False  # not a pytest function


def models(run: record.Run) -> pd.DataFrame:
    """What was compared: model, architecture, validation_mcc, members."""
    return pd.read_csv(run.folder / "models.csv")


def path_of(run: record.Run) -> pd.DataFrame:
    """Validation MCC between the two best networks of the final population: share, score, recalibrated."""
    return pd.read_csv(run.folder / "path.csv")
