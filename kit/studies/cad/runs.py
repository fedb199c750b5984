"""The trainings of the CAD framework: its six networks, the seventh that starts from weights at
hand, and both ablations.

The recipe of the authors' notebooks (everything trainable, Adam 1e-4, batches of 32, 25 epochs, no
callback, last epoch's weights; the rates are in the paper's Table 3) is the default. Departures:
the weights of the epoch with the smallest validation loss are evaluated beside the last ones,
because single epochs of the authors' logs collapse; a network whose ImageNet weights cannot be had
starts at random and may be given another learning rate; and a quick look can train on few images,
without tracing a graph. Every departure stands in the run's configuration and in :func:`notes`.
"""

import contextlib
import functools
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kit import files, kernels, paths, record
from kit import processes as processes_module
from kit.data import images, preprocess, registry
from kit.data import inputs as data_inputs
from kit.evaluation import timing
from kit.models import backbones, macs
from kit.studies import shared
from kit.studies.cad import plan as cad_plan
from kit.studies.cad.plan import BadPlan, Plan
from kit.training import train

if TYPE_CHECKING:
    import keras


def prepared(plan: Plan, size: int, chain: str = "cad") -> data_inputs.Inputs:
    """All images of the plan's data set at one size.

    Parameters
    ----------
    plan : Plan
    size : int
    chain : {"cad", "original", "coloured"}
        The whole chain; only resized; resized and in BONE colours (both for the ablation "no
        preprocessing").
    """
    if chain not in cad_plan.CHAINS:
        raise BadPlan(f"There is no chain {chain!r}; choose one of {', '.join(cad_plan.CHAINS)}.")
    if chain != "cad":
        return images.prepared(
            plan.dataset,
            {"chain": chain},
            lambda path: preprocess.uncropped(path, size, coloured=chain == "coloured"),
            size,
        )
    tag = {
        "chain": "cad",
        "mode": plan.crop,
        "jpeg_round_trip": True,
        "upsample": plan.upsample or None,
    }
    return images.prepared(
        plan.dataset,
        tag,
        lambda path: preprocess.cad(path, size, plan.crop, True, plan.upsample or None).image,
        size,
    )


def run(plan: Plan, name: str, chain: str = "cad", augmented: bool = True) -> record.Run:
    """Train one network, or return its finished run.

    Parameters
    ----------
    plan : Plan
    name : str
        Key of ``kit.models.backbone_catalog.BACKBONES``.
    chain : str
        See :func:`prepared`; other than "cad" retrains without preprocessing.
    augmented : bool
        False leaves augmentation out (the paper's ablation).

    Returns
    -------
    record.Run
        With predictions of the parts "validation" and "test" by the last weights and, in
        predictions_best.csv, by the best.
    """
    config, inputs, rows = _job(plan, name, chain, augmented)
    classes, start = len(registry.get(plan.dataset).classes), plan.start(name).weights
    return train.fit(
        config,
        lambda: backbones.fine_tuned(
            name,
            plan.size(name),
            classes,
            plan.dropout,
            start,
            bn_momentum=plan.bn_momentum or None,
        ),
        inputs,
        rows,
    )


def _job(plan: Plan, name: str, chain: str, augmented: bool) -> tuple:
    """Configuration, images and parts of a training."""
    inputs, parts = prepared(plan, plan.size(name), chain), plan.parts()
    chosen = {
        "train": _subset(plan, parts["train"], plan.limit(name)),
        "validation": _subset(plan, parts["val"], plan.limit(name)),
        "test": parts["test"],
    }
    rows = {part: inputs.rows(ids) for part, ids in chosen.items()}
    epochs, rate = plan.schedule(name)
    options = {
        "backbone": name,
        "input_size": plan.size(name),
        "dropout": plan.dropout,
        "weights": plan.start(name).weights,
        "bn_momentum": plan.bn_momentum or None,
    }
    config = train.TrainConfig(
        "cad",
        plan.profile,
        "-".join([name] + [chain] * (chain != "cad") + ["noaug"] * (not augmented)),
        options,
        epochs=epochs,
        batch_size=plan.batch_size,
        learning_rate=rate,
        loss="categorical_crossentropy",
        seed=plan.seed,
        augmentation=asdict(plan.augmentation()) if augmented else None,
        augmenter=plan.augmenter,
        keep_best=True,
        keep_weights=not plan.limit(name)
        or (augmented and name in (cad_plan.EXPLAINED, cad_plan.SERVED)),
        graph=len(rows["train"]) * epochs > 8 * plan.batch_size,
    )
    return config, inputs, rows


def _subset(plan: Plan, ids: list, count: int) -> list:
    """`count` of `ids` (0: all): the first image of each class, then the first others."""
    if not count or count >= len(ids):
        return list(ids)
    label = registry.index(plan.dataset).set_index("image_id")["label"].loc[list(ids)]
    needed = label.drop_duplicates().index[:count].tolist()
    others = [i for i in ids if i not in set(needed)]
    return needed + others[: count - len(needed)]


def run_all(
    plan: Plan,
    names: Sequence[str],
    chain: str = "cad",
    augmented: bool = True,
    timed: Sequence[str] = (),
    processes: int = 1,
    next_in_line: Sequence[str] = (),
) -> dict:
    """Runs of several networks, name -> run; one that diverges or runs out of memory is reported
    and left out, the others are not touched.

    Parameters
    ----------
    plan, chain, augmented : see :func:`run`
    names : sequence of str
    timed : sequence of str
        With image ids, :func:`measure` follows each training while the network is in memory: making
        NASNetLarge anew takes longer.
    processes : {1, 2}
        2 shares the networks with a second process, which is worth its memory where they see few
        images; the results are the same.
    next_in_line : sequence of str
        Networks that will be asked for without augmentation; the second process trains them too.
    """
    if processes > 1:
        jobs = [(name, chain, augmented) for name in names] + [
            (name, chain, False) for name in next_in_line
        ]
        _share(plan, [job for job in jobs if not train.is_finished(*_job(plan, *job))], timed)
    jobs = {
        name: functools.partial(_run_and_time, plan, (name, chain, augmented), timed)
        for name in names
    }
    return shared.attempted(jobs, (train.Diverged, train.OutOfMemory))


def _run_and_time(plan: Plan, job: tuple, timed) -> record.Run:
    found = run(plan, *job)
    if len(timed):
        measure(plan, job[0], timed, model=train.in_memory(found))
    return found


def _share(plan: Plan, jobs: list, timed) -> None:
    """Work through the trainings from one end here and from the other in a second process."""
    queue = sorted(jobs, key=lambda job: plan.limit(job[0]) or float("inf"))
    if len(queue) > 1:
        with processes_module.running(
            "kit.studies.cad.runs:attempt", plan=asdict(plan), jobs=queue[::-1], timed=list(timed)
        ):
            attempt(asdict(plan), queue, list(timed))


def attempt(plan: dict, jobs: list, timed: list) -> None:
    """Train and time networks; leaves those that fail, or that another process works on, to
    :func:`run_all`.
    """
    settings = Plan(**{**plan, "whole": tuple(plan["whole"])})
    for job in jobs:
        with contextlib.suppress(files.FolderBusy, train.Diverged, train.OutOfMemory):
            _run_and_time(settings, tuple(job), timed)


def tested(run: record.Run, weights: str = "last") -> pd.DataFrame:  # noqa: PT028 (no test)
    """Test predictions of a run with the weights of its "last" or "best" epoch."""
    return run.predictions("test") if weights == "last" else train.best_predictions(run, "test")


def measure(
    plan: Plan,
    name: str,
    image_ids: Sequence[str],
    repeats: int = 1,
    model: "keras.Model | None" = None,
) -> tuple[dict, list]:
    """Size and speed of one network, measured once and stored beside the runs.

    Parameters
    ----------
    plan : Plan
    name : str
    image_ids : sequence of str
        Images whose predictions are timed, one at a time.
    repeats : int
    model : keras.Model, optional
        The network; None makes one with random weights, which do not change the time.

    Returns
    -------
    size : dict
        parameters and macs of one image (counts), device.
    times : list of kit.evaluation.timing.Times
        Of the three protocols.
    """
    key = {
        "name": name,
        "size": plan.size(name),
        "images": list(image_ids),
        "repeats": repeats,
        "device": record.device_name(),
        "upsample": plan.upsample,
    }
    file = (
        paths.results_dir()
        / plan.profile
        / "cad"
        / "timings"
        / f"{name}-{files.digest(kernels.keyed(key))[:10]}.json"
    )
    if not file.exists():
        files.write_json(file, {**key, **_measured(plan, name, image_ids, repeats, model)})
    stored = files.read_json(file)
    times = [
        timing.Times(t["protocol"], t["device"], np.array(t["ms"]), t["first_ms"])
        for t in stored["times"]
    ]
    return {part: stored[part] for part in ("parameters", "macs", "device")}, times


def _measured(
    plan: Plan,
    name: str,
    image_ids: Sequence[str],
    repeats: int,
    model: "keras.Model | None",
) -> dict:
    """What :func:`measure` stores: parameters, macs and the times of the three protocols."""
    root = registry.root(plan.dataset)
    model = model or backbones.fine_tuned(
        name, plan.size(name), len(registry.get(plan.dataset).classes), plan.dropout, None
    )

    def prepare(content: bytes) -> np.ndarray:
        upsample = plan.upsample or None
        return preprocess.cad(content, plan.size(name), plan.crop, True, upsample).image

    contents = [(root / i).read_bytes() for i in image_ids]
    found = timing.all_protocols(model, contents, prepare, repeats)
    return {
        "parameters": model.count_params(),
        "macs": macs.macs(model),
        "times": [
            {
                "protocol": t.protocol,
                "device": t.device,
                "ms": t.ms.tolist(),
                "first_ms": t.first_ms,
            }
            for t in found
        ],
    }


def costs(sizes: dict, runs: dict) -> pd.DataFrame:
    """Argument of :func:`kit.studies.cad.tables.cost_table`: index = name; parameters, macs,
    seconds of training, device.
    """
    rows = {
        name: {**sizes[name], "seconds": float(runs[name].history()["seconds"].sum())}
        for name in sizes
        if name in runs
    }
    return pd.DataFrame.from_dict(rows, orient="index")[["parameters", "macs", "seconds", "device"]]


def unprepared(plan: Plan, finished: record.Run, name: str, chain: str) -> pd.DataFrame:
    """Test predictions of a finished run on images without the chain (the paper's ablation,
    evaluation only).
    """
    inputs = prepared(plan, plan.size(name), chain)
    return train.predict(finished, inputs, inputs.rows(plan.parts()["test"]), chain)


def over_seeds(plan: Plan, runs: dict, seeds: int) -> dict:
    """Further trainings of finished networks: other initial weights, batch order, dropout masks and
    augmentation, on the same split, which the article fixes.

    Parameters
    ----------
    plan : Plan
    runs : dict
        Name -> run with the plan's own seed.
    seeds : int
        Trainings a network in all; the seeds follow the plan's.

    Returns
    -------
    dict
        Name -> list of runs; fewer where one diverged or ran out of memory.
    """
    if seeds < 1:
        raise BadPlan(f"seeds is {seeds}; it must be 1 or more.")
    found = {name: [run] for name, run in runs.items()}
    for number in range(1, seeds):
        for name, again in run_all(replace(plan, seed=plan.seed + number), list(runs)).items():
            found[name].append(again)
    return found
