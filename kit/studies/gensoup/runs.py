"""The searches of chapter 5 of the thesis: Gen-Soup with and without astrocytes, in two
experiments, and what they have to be compared with.

The thesis runs each search once, changes scheduler and length together, and has no baseline. Here
searches can be repeated with several seeds, scheduler and length can be varied one at a time, a
search that copies the better parent's weights tells what averaging is worth, astrocytes as they
were released (which change nothing) tell what the two further genes alone do, and the final
population is made into soups after the fact. Every network, averaged or not, is judged and tested
by moving and by recalibrated statistics, so that an average is compared with its like. The reported
network is the thesis': the highest validation MCC of the whole search, tested once at the final
image size.
"""

import functools
import itertools
import shutil
from dataclasses import asdict

import numpy as np
import pandas as pd

from kit import files, paths, record
from kit.data import images, registry
from kit.data import inputs as data_inputs
from kit.search.evolution import averaging, soup
from kit.studies import shared
from kit.studies.gensoup import plan as gensoup_plan
from kit.studies.gensoup.plan import Plan
from kit.training.short import Network
from kit.training.short_runs import STATISTICS

MODELS = ("best", "last", "uniform", "greedy", "weighted", "single", "ema")


def load(plan: Plan, name: str) -> tuple:
    """Images of a registered set and row numbers of "train", "val" and "test": 60, 20 and 20 per
    cent of each class.
    """
    return images.in_three(name, plan.decoded_size, plan.images, plan.seed, plan.grouped)


def network(plan: Plan, name: str, arm: str) -> Network:
    """What the searches' traced steps depend on."""
    return Network(
        plan.architectures[0],
        len(registry.get(name).classes),
        weights=plan.weights,
        seed=plan.seed,
        augmentation=plan.augmentation,
        mixing=plan.mixing,
        astrocytes=gensoup_plan.ARMS[arm],
        settings=plan.optimizer_settings,
        bn_momentum=plan.bn_momentum,
        brightness=plan.brightness,
    )


def run_of(
    plan: Plan,
    name: str,
    experiment: str,
    arm: str,
    seed: int,
    inputs: data_inputs.Inputs,
    parts: data_inputs.PartRows,
) -> record.Run:
    """The run folder of one search, whether it exists or not."""
    config = {
        "search": asdict(plan.settings(experiment, arm, seed)),
        "genome": [asdict(gene) for gene in plan.genome(arm).genes],
        "network": asdict(network(plan, name, arm)),
        "ema_momentum": plan.ema_momentum,
        "points": plan.points,
        "data": inputs.facts,
        "parts": inputs.members(parts),
    }
    return record.Run(
        paths.results_dir() / plan.profile / "gensoup" / "runs",
        f"{name}-experiment{experiment}-{arm}-seed{seed}",
        config,
    )


def search(
    plan: Plan,
    name: str,
    experiment: str,
    arm: str,
    seed: int,
    inputs: data_inputs.Inputs,
    parts: data_inputs.PartRows,
) -> record.Run:
    """One search and its comparisons, or the finished run of the same settings and images; an
    interrupted one goes on.

    Returns
    -------
    kit.record.Run
        With history.csv (individuals), predictions.csv (test; column model), models.csv, path.csv,
        metrics.json (the best individual) and best.npz.

    Raises
    ------
    kit.search.evolution.plan.AllFailed, kit.search.evolution.soup.OtherStart
    """
    run = run_of(plan, name, experiment, arm, seed, inputs=inputs, parts=parts)
    if not run.finished:
        data_inputs.check_parts(inputs, parts)

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
    """Test the search's network and its rivals by both kinds of statistics, follow the path between
    two parents, and write everything.
    """
    best, weights, size = done.best, soup.load(done.folder / soup.BEST), done.settings.end
    single = _single(plan, best, nursery)
    tables, rows = [], []
    for kind in STATISTICS:
        models = {
            "best": (best["architecture"], weights, {"image_size": best["size"]}),
            **_soups(done, nursery, kind),
            **single,
        }
        for model, (architecture, given, more) in models.items():
            found = _dressed(nursery, architecture, given, size, kind=kind)
            try:
                table = nursery.trainer(architecture).predict(
                    nursery.inputs, np.sort(nursery.parts["test"]), size, "test", weights=found
                )
            except nursery.failures as error:
                print(f"left out: {model}, {kind} statistics: {error}", flush=True)
                continue
            names = {"model": model, "statistics": kind}
            tables.append(table.assign(**names))
            mcc = _judged(nursery, architecture, found, size)
            rows.append(names | {"architecture": architecture, "validation_mcc": mcc, **more})
    path, kinship = _path(plan, done, nursery)
    files.write_csv(run.folder / "predictions.csv", pd.concat(tables, ignore_index=True))
    files.write_csv(run.folder / "models.csv", pd.DataFrame(rows))
    files.write_csv(run.folder / "path.csv", path)
    files.write_csv(run.folder / "history.csv", done.history)
    files.write_json(
        run.folder / "metrics.json",
        {
            "best": best,
            "kinship": kinship,
            "barrier": averaging.barrier(path) if len(path) else None,
        },
    )
    soup.save(run.folder / soup.BEST, weights)


def _dressed(nursery: soup.Nursery, architecture: str, weights: list, size: int, *, kind: str):
    """The weights with one kind of BatchNormalization statistics."""
    return weights if kind == STATISTICS[0] else nursery.recalibrate(architecture, weights, size)


def _soups(done: soup.Search, nursery: soup.Nursery, kind: str) -> dict:
    """The best network of the final population and its soups, all chosen by one kind of statistics:
    model -> (architecture, weights as averaged, what models.csv says).
    """
    rows, size = done.final_members(), done.settings.end
    if not rows:
        return {}
    architecture, members = rows[0]["architecture"], [done.weights(row) for row in rows]

    def score(weights):
        dressed = _dressed(nursery, architecture, weights, size, kind=kind)
        return _judged(nursery, architecture, dressed, size)

    scores = np.nan_to_num([score(member) for member in members], nan=-np.inf)
    made = {"last": (architecture, members[int(np.argmax(scores))], {"members": 1})}
    for name, (weights, shares) in soup.soups(members, score).items():
        made[name] = (architecture, weights, {"members": int(np.count_nonzero(shares))})
    return made


def _path(plan: Plan, done: soup.Search, nursery: soup.Nursery) -> tuple:
    """Scores between the two best members of the final population, and how many generations ago
    they were one.
    """
    rows, size = done.final_members(), done.settings.end
    if len(rows) < 2:
        return pd.DataFrame(columns=["share", "score", "recalibrated"]), None
    architecture, ends = rows[0]["architecture"], [done.weights(row) for row in rows[:2]]

    def curve(kind):
        def score(weights):
            dressed = _dressed(nursery, architecture, weights, size, kind=kind)
            return np.nan_to_num(_judged(nursery, architecture, dressed, size), nan=-1.0)

        return averaging.path(*ends, score, plan.points)

    raw, fresh = (curve(kind) for kind in STATISTICS)
    return raw.assign(recalibrated=fresh["score"]), done.kinship(rows[0], rows[1])


def _judged(nursery: soup.Nursery, architecture: str, weights, size: int) -> float:
    """Validation MCC; NaN for weights whose predictions are no numbers."""
    try:
        return nursery.fitness(architecture, weights, size)
    except nursery.failures:
        return np.nan


def _single(plan: Plan, best: dict, nursery: soup.Nursery) -> dict:
    """One network trained with the best genes for as many epochs as a lineage has, and the moving
    average of its weights; nothing if it fails.
    """
    settings, kept, doer = nursery.settings, [], nursery.trainer(best["architecture"])
    epochs = settings.generations * settings.epochs
    try:
        doer.train(
            best,
            nursery.inputs,
            nursery.parts["train"],
            epochs=epochs,
            size=settings.end,
            batch_size=settings.batch_size,
            seed=settings.seed,
            of_epochs=epochs if settings.cosine else None,
            decay_mode=settings.decay_mode,
            cosine_floor=settings.cosine_floor,
            watch=lambda epoch: kept.append(doer.model.get_weights()) or {},
        )
        mean = soup.moving_average(kept, plan.ema_momentum)
    except nursery.failures as error:
        print(f"left out: one training of the best genes: {error}", flush=True)
        return {}
    return {
        "single": (best["architecture"], kept[-1], {"members": 1}),
        "ema": (best["architecture"], mean, {"members": epochs}),
    }


def search_all(plan: Plan, loaded: dict) -> dict:
    """All searches: (published data set, experiment, arm) -> {seed: run}; one that fails is
    reported and left out.

    Parameters
    ----------
    loaded : dict
        Published data set -> what :func:`load` gave for its stand-in or itself.
    """
    runs = {}
    for key, name in plan.datasets:
        inputs, parts = loaded[key]
        for experiment, arm in itertools.product(plan.experiments, plan.arms):
            jobs = {
                seed: functools.partial(
                    search, plan, name, experiment, arm, seed=seed, inputs=inputs, parts=parts
                )
                for seed in range(plan.seed, plan.seed + plan.seeds)
            }
            runs[key, experiment, arm] = shared.attempted(jobs, (soup.AllFailed, soup.OtherStart))
    return {key: found for key, found in runs.items() if found}


def tested(
    run: record.Run,
    model: str = "best",  # noqa: PT028 - no test
    statistics: str | None = None,  # noqa: PT028
) -> pd.DataFrame:
    """Test predictions of the search's network or of one of its rivals (`MODELS`) by one kind of
    statistics, by default those that the search was judged by; empty if that was not made.
    """
    table, kind = run.predictions(), statistics or judged_by(run)
    chosen = table[(table["model"] == model) & (table["statistics"] == kind)]
    return chosen.drop(columns=["model", "statistics"]).reset_index(drop=True)


def judged_by(run: record.Run) -> str:
    """The kind of statistics by which a search judged its individuals."""
    return STATISTICS[bool(run.config["search"]["recalibrate"])]


tested.__test__ = False  # not a pytest function


def models(run: record.Run) -> pd.DataFrame:
    """What was compared: model, statistics, architecture, validation_mcc, members."""
    return pd.read_csv(run.folder / "models.csv")


def path_of(run: record.Run) -> pd.DataFrame:
    """Validation MCC between the two best networks of the final population: share, score,
    recalibrated.
    """
    return pd.read_csv(run.folder / "path.csv")
