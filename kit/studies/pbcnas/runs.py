"""The runs of PBC-NAS in 3D: searches and their controls, final trainings, the benchmark's ResNets,
transfer, and how well the proxy foretells.

The publication has one search a data set, of which three candidates were retrained with five seeds
each, and compares them with numbers that others published under another protocol. Here plain
differential evolution and random search get the same budget and the same books; the ResNets are
trained under both protocols; candidates of all ranks are retrained to see what a validation set of
24 to 47 volumes can tell; and the released architectures are trained beside the found ones. The
published transfer study leaves its protocol open; here the whole network is fine-tuned with a new
head, and the architecture alone is retrained beside it.
"""

import functools
import gc
from dataclasses import asdict, replace

import numpy as np

from kit import paths
from kit.data import inputs as data_inputs
from kit.data import registry, volumes
from kit.models import saved
from kit.models.torchfile import DamagedWeights
from kit.models.weights import WeightsUnavailable
from kit.search.evolution import plan as plans
from kit.search.evolution import workers
from kit.search.evolution.opposition_log import Candidate
from kit.search.nas3d import final, released_weights
from kit.search.nas3d import proxy as nas3d_proxy
from kit.search.nas3d import space as nas3d_space
from kit.search.nas3d.final import Recipe3D
from kit.search.nas3d.released import RELEASED
from kit.search.nas3d.space import Network3D, Space
from kit.studies import shared
from kit.studies.pbcnas import plan as pbcnas_plan
from kit.studies.pbcnas.plan import Plan
from kit.training import predictions, train

# --- data -----------------------------------------------------------------------------------------


def load(plan: Plan, name: str) -> tuple:
    """Volumes of a registered set, and row numbers of "train" (the plan's share), "val" and
    "test".
    """
    inputs = volumes.load(name, plan.edge)
    rows = {
        part: np.flatnonzero(inputs.index["split"] == part) for part in ("train", "val", "test")
    }
    rows["train"] = data_inputs.fewer(inputs.labels, rows["train"], plan.images)
    return inputs, rows


def examples(inputs: data_inputs.Inputs, parts: data_inputs.PartRows, most: int = 4) -> tuple:
    """Test volumes to look at, one after the other of each class: uint8 (k, edge, edge, edge), and
    the names of their classes.
    """
    labels, names = inputs.labels[parts["test"]], registry.get(inputs.name).display
    kinds = np.unique(labels)
    rows = [
        parts["test"][np.flatnonzero(labels == kind)[turn]]
        for turn in range(-(-most // len(kinds)))
        for kind in kinds
        if (labels == kind).sum() > turn
    ][:most]
    return np.asarray(inputs.x[np.sort(rows)])[..., 0], [
        names[label] for label in inputs.labels[np.sort(rows)]
    ]


# --- searches -------------------------------------------------------------------------------------


def search(plan: Plan, name: str, method: str, seed: int) -> plans.Result:
    """One search, or the finished one of the same settings and volumes; an interrupted one goes on
    with the same candidates.

    Raises
    ------
    kit.search.evolution.plan.AllFailed
    """
    space, proxy = (
        plan.space(name),
        {key: value for key, value in asdict(plan.proxy).items() if key != "seed"},
    )
    arguments = {
        "dataset": name,
        "fingerprint": registry.facts(name)["fingerprint"],
        "space": space,
        "proxy": proxy,
    }
    asked = plans.SpacePlan(
        genome=plans.numbers(nas3d_space.GENES),
        settings=plan.settings(method, seed),
        evaluate="pbcnas.proxy",
        arguments=arguments,
        space="pbcnas.space",
        space_arguments=space,
    )
    folder = (
        paths.results_dir()
        / plan.profile
        / "pbcnas"
        / "searches"
        / f"{method}-{name}-seed{seed}-{asked.key()[:10]}"
    )
    gc.collect()
    gc.freeze()  # the collection after each candidate need not look at what is there already
    try:
        return workers.run(asked, folder, plan.workers)
    finally:
        gc.unfreeze()


def search_all(plan: Plan) -> dict:
    """All searches: published data set -> {method: {seed: result}}; one whose candidates all failed
    is reported and left out.
    """
    found = {}
    for key, name in plan.datasets:
        for method in plan.searches:
            jobs = {
                seed: functools.partial(search, plan, name, method, seed) for seed in plan.seeds
            }
            kept = shared.attempted(
                jobs, plans.AllFailed, lambda _, method=method, name=name: f"{method} on {name}"
            )
            if kept:
                found.setdefault(key, {})[method] = kept
    return found


def ranked(result: plans.Result) -> list:
    """Candidates that a search trained, best first, the earlier of equals first."""
    algorithm = result.algorithm
    return sorted(
        (c for c in algorithm.log if c.trained and c.duplicate is None),
        key=algorithm.rank,
        reverse=True,
    )


def network_of(result: plans.Result, candidate: Candidate) -> Network3D:
    """The network of a candidate."""
    return Space(**result.plan.space_arguments).decode(candidate.genes)


# --- trainings ------------------------------------------------------------------------------------


def contestants(plan: Plan, searched: dict) -> dict:
    """Networks to be trained finally: (published data set, title) -> (network, weights of its proxy
    training or None).

    The best of the first seed's search by opposition are "found 1", "found 2", ...; a control gives
    its best; released networks follow.
    """
    chosen = {}
    for key, methods in searched.items():
        for method, seeds in methods.items():
            result = next(iter(seeds.values()))
            for place, candidate in enumerate(
                ranked(result)[: plan.finalists if method == "ode" else 1], 1
            ):
                folder = plans.trial_folder(result.folder, candidate.evaluation)
                warm = (
                    nas3d_proxy.weights(folder)
                    if plan.warm_start and (folder / nas3d_proxy.WEIGHTS).exists()
                    else None
                )
                chosen[key, f"found {place}" if method == "ode" else method] = (
                    network_of(result, candidate),
                    warm,
                )
    return chosen | {
        (key, name): (RELEASED[name].network, None)
        for name in plan.released
        for key in dict(plan.datasets)
        if RELEASED[name].key == key
    }


def train_all(plan: Plan, chosen: dict, loaded: dict) -> dict:
    """Final trainings of :func:`contestants`: (published data set, title) -> {seed: run}; those
    that fail are reported and left out.
    """
    names = dict(plan.datasets)

    def job(key, title, network, warm, seed):
        first = title == "found 1" and seed == plan.final_seeds[0]  # what transfer starts from
        return final.fit_network(
            network,
            plan.final,
            *loaded[key],
            warm=warm,
            biases=plan.proxy.biases,
            seed=seed,
            name=f"{names[key]}-{title.replace(' ', '')}-seed{seed}",
            profile=plan.profile,
            keep_weights=first,
        )

    jobs = {
        (key, title, seed): functools.partial(
            job, key=key, title=title, network=network, warm=warm, seed=seed
        )
        for (key, title), (network, warm) in chosen.items()
        for seed in plan.final_seeds
    }
    return _by_seed(train.attempted(jobs))


def train_resnets(plan: Plan, loaded: dict) -> dict:
    """The benchmark's networks: (published data set, "resnet18-3d (benchmark)") -> {seed: run}."""
    names = dict(plan.datasets)

    def job(key, network, protocol, seed):
        recipe = plan.final if protocol == "pbcnas" else plan.benchmark
        return final.fit_resnet(
            *pbcnas_plan.RESNETS[network],
            recipe,
            *loaded[key],
            width=plan.resnet_width,
            seed=seed,
            name=f"{names[key]}-{network}-{protocol}-seed{seed}".replace(".", "-"),
            profile=plan.profile,
        )

    jobs = {
        (key, f"{network} ({protocol})", seed): functools.partial(job, key, network, protocol, seed)
        for key in names
        for network in plan.resnets
        for protocol in plan.protocols
        for seed in plan.final_seeds
    }
    return _by_seed(train.attempted(jobs))


def _by_seed(runs: dict) -> dict:
    found = {}
    for (key, title, seed), run in runs.items():
        found.setdefault((key, title), {})[seed] = run
    return found


def explained(seeds: dict, inputs: data_inputs.Inputs, parts: data_inputs.PartRows) -> tuple:
    """A network to explain and what it says of a test volume of the last class, the first that it
    calls right if there is one.

    Parameters
    ----------
    seeds : dict
        Of :func:`train_all`; the first seed's run kept its weights.

    Returns
    -------
    model : keras.Model
    volume : numpy.ndarray
        float32 (1, edge, edge, edge, 1).
    said : str
        The class it calls, and the true one.
    """
    run, names = next(iter(seeds.values())), registry.get(inputs.name).display
    table = predictions.best_predictions(run, "test")
    called = table.filter(like="score_").to_numpy().argmax(axis=1)
    last = np.flatnonzero(table["label"] == len(names) - 1)
    place = next((n for n in last if called[n] == len(names) - 1), last[0])
    model = saved.load(run.folder / predictions.WEIGHTS["best"])
    return (
        model,
        inputs.batch(inputs.rows([table["image_id"].iloc[place]])),
        f"{names[called[place]]} (is {names[-1]})",
    )


def transfer(plan: Plan, chosen: dict, trained: dict, loaded: dict) -> dict:
    """Networks found on one set, on each of the sets: (source, target, kind) -> run of the first
    seed.

    The kind is "weights, rate 0.001" (fine-tuned, one for each rate) or "architecture" (retrained
    from new weights, for another set).
    """
    names, seed, jobs = dict(plan.datasets), plan.final_seeds[0], {}
    options = {"profile": plan.profile, "seed": seed}
    sources = (
        [key for key in names if seed in trained.get((key, "found 1"), {})]
        if plan.transfer_rates
        else []
    )
    for source in sources:
        network, start = chosen[source, "found 1"][0], trained[source, "found 1"][seed]
        for target in names:
            for rate in plan.transfer_rates:
                recipe = Recipe3D(
                    epochs=plan.transfer_epochs,
                    batch_size=plan.final.batch_size,
                    learning_rate=rate,
                )
                jobs[source, target, f"weights, rate {rate:g}"] = functools.partial(
                    final.fine_tune,
                    network,
                    start,
                    recipe,
                    *loaded[target],
                    name=f"{names[source]}-to-{names[target]}",
                    **options,
                )
            if target != source:
                jobs[source, target, "architecture"] = functools.partial(
                    final.fit_network,
                    network,
                    plan.final,
                    *loaded[target],
                    biases=plan.proxy.biases,
                    name=f"{names[source]}-cell-on-{names[target]}",
                    **options,
                )
    return train.attempted(jobs)


def foretold(plan: Plan, searched: dict, loaded: dict) -> dict:
    """Candidates of all ranks of the first search by opposition, retrained: published data set ->
    [(candidate, network, run), ...].
    """
    found = {}
    for key, methods in searched.items():
        if not plan.fidelity or "ode" not in methods:
            continue
        result = next(iter(methods["ode"].values()))
        order = ranked(result)
        picked = [
            order[n]
            for n in np.unique(
                np.linspace(0, len(order) - 1, min(plan.fidelity, len(order))).round().astype(int)
            )
        ]
        recipe = Recipe3D(
            epochs=plan.fidelity_epochs,
            batch_size=plan.final.batch_size,
            learning_rate=plan.final.learning_rate,
        )
        jobs = {
            n: functools.partial(
                final.fit_network,
                network_of(result, c),
                recipe,
                *loaded[key],
                biases=plan.proxy.biases,
                seed=plan.final_seeds[0],
                profile=plan.profile,
                name=f"{dict(plan.datasets)[key]}-candidate{c.number}",
            )
            for n, c in enumerate(picked)
        }
        found[key] = [
            (picked[n], network_of(result, picked[n]), run)
            for n, run in train.attempted(jobs).items()
        ]
    return found


def released_tests(plan: Plan) -> dict:
    """The released weights of the plan's released networks on the official test part, at 28 voxels:
    name -> run, or one sentence why there is none.
    """
    names, found = dict(plan.datasets), {}
    for name in plan.released:
        key = RELEASED[name].key
        if not names.get(key, "").startswith(RELEASED[name].data):
            found[name] = f"Not tested: {RELEASED[name].data} is not used here."
            continue
        try:
            path = released_weights.find(name)
            inputs, parts = load(replace(plan, edge=released_weights.EDGE), names[key])
            found[name] = released_weights.predicted(
                name,
                path,
                inputs,
                parts["test"],
                paths.results_dir() / plan.profile / "pbcnas" / "runs",
            )
        except (WeightsUnavailable, DamagedWeights) as error:
            found[name] = str(error)
    return found


# --- declarations ---------------------------------------------------------------------------------
