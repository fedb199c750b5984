"""The trainings of the CAD framework: its six networks, the seventh that starts from weights at hand, and both ablations.

The paper's recipe (card section 4: everything trainable, Adam 1e-4, batches of 32, 25 epochs, no callback, last epoch's weights) is the
default. Departures: the weights of the epoch with the smallest validation loss are evaluated beside the last ones, because single epochs of the
authors' logs collapse; a network whose ImageNet weights cannot be had starts at random and may be given another learning rate; and a quick look can
train on few images, without tracing a graph. Every departure stands in the run's configuration and in :func:`notes`.
"""

import contextlib
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from kit import backbones, beside, cad, data, papers, paths, preprocess, record, registry, timing, train, weights
from kit.errors import KitError

CHAINS = ("cad", "original", "coloured")
EXPLAINED, SERVED = "resnet50", "efficientnet_lite0"  # networks whose weights are needed even if they saw few images


class BadPlan(KitError):
    """A setting of the CAD trainings is out of range."""


@dataclass(frozen=True)
class Plan:
    """What is trained, on what, and how.

    Attributes
    ----------
    profile, dataset : str
    image_size, large_size : int
        Side of the input in pixels, and NASNetLarge's; a network that needs more gets its smallest size.
    upsample : int
        Enlarge smaller images to this side before the crop (see :func:`kit.preprocess.cad`); 0 leaves them.
    epochs, batch_size, learning_rate, dropout, seed
        As published (25, 32, 1e-4, 0.4), for networks that start from ImageNet weights.
    initial : {"auto", "imagenet", "random"}
        Weights the paper's networks start from; the seventh has its own weights in any case.
    random_epochs, random_learning_rate
        Of networks that start at random; 0 takes those of the others.
    images, large_images, seventh_images : int
        Training images of the paper's networks, of NASNetLarge, and of networks that are not in the paper; 0 takes all. Less is for looking at
        the machinery.
    limited_epochs : int
        Epochs of networks trained on fewer images; 0 takes those of the others.
    whole : tuple of str
        Paper's networks that are trained on all images nevertheless.
    bn_momentum : float
        Of every BatchNorm layer; 0 leaves each network's own.
    augmenter : {"fused", "keras_generator"}
    """

    profile: str
    dataset: str
    image_size: int = 200
    large_size: int = 331
    upsample: int = 0
    epochs: int = 25
    batch_size: int = 32
    learning_rate: float = 1e-4
    dropout: float = 0.4
    initial: str = "auto"
    random_epochs: int = 0
    random_learning_rate: float = 0.0
    images: int = 0
    large_images: int = 0
    seventh_images: int = 0
    limited_epochs: int = 0
    whole: tuple = ()
    bn_momentum: float = 0.0
    augmenter: str = "fused"
    seed: int = 0

    def __post_init__(self):
        if self.initial not in ("auto", "imagenet", "random"):
            raise BadPlan(f"initial is {self.initial!r}; choose auto, imagenet or random.")
        for name in self.whole:
            backbones.entry(name)
        for name in ("images", "large_images", "seventh_images", "limited_epochs", "random_epochs", "upsample"):
            if getattr(self, name) < 0:
                raise BadPlan(f"{name} is {getattr(self, name)}; it must be 0 or more.")

    def size(self, name: str) -> int:
        """Side of a network's input in pixels."""
        return max(self.large_size if name == "nasnetlarge" else self.image_size, backbones.entry(name).smallest)

    def start(self, name: str):
        """What a network starts from, see :func:`kit.weights.initialisation`."""
        wanted = {"random": None}.get(self.initial, self.initial)
        return weights.initialisation(name, wanted if backbones.entry(name).in_paper else "auto")

    def limit(self, name: str) -> int:
        """Most training images of a network; 0 for all."""
        if name in self.whole:
            return 0
        if not backbones.entry(name).in_paper:
            return self.seventh_images
        return self.large_images if name == "nasnetlarge" else self.images

    def schedule(self, name: str) -> tuple[int, float]:
        """Epochs and learning rate of a network."""
        pretrained = self.start(name).weights
        epochs = self.epochs if pretrained else self.random_epochs or self.epochs
        rate = self.learning_rate if pretrained else self.random_learning_rate or self.learning_rate
        return self.limited_epochs or epochs if self.limit(name) else epochs, rate


def prepared(plan: Plan, size: int, chain: str = "cad") -> data.Inputs:
    """All images of the plan's data set at one size.

    Parameters
    ----------
    plan : Plan
    size : int
    chain : {"cad", "original", "coloured"}
        The whole chain; only resized; resized and in BONE colours (both for the ablation "no preprocessing").
    """
    if chain not in CHAINS:
        raise BadPlan(f"There is no chain {chain!r}; choose one of {', '.join(CHAINS)}.")
    if chain != "cad":
        return data.prepared(plan.dataset, {"chain": chain}, lambda path: preprocess.uncropped(path, size, coloured=chain == "coloured"), size)
    tag = {"chain": "cad", "mode": "safe", "jpeg_round_trip": True, "upsample": plan.upsample or None}
    return data.prepared(plan.dataset, tag, lambda path: preprocess.cad(path, size, "safe", True, plan.upsample or None).image, size)


def notes(plan: Plan, name: str) -> list[str]:
    """What a network's training does otherwise than the publication states."""
    epochs, rate = plan.schedule(name)
    size_key = "preprocessing_final_size_nasnetlarge" if name == "nasnetlarge" else "preprocessing_final_size"
    found = papers.departures(papers.load("cad"), {"epochs": epochs, "learning_rate": rate, "batch_size": plan.batch_size, "dropout_rate": plan.dropout, size_key: plan.size(name)})
    found += [f"trained on {plan.limit(name)} images"] * bool(plan.limit(name)) + [f"BatchNorm momentum {plan.bn_momentum:g}"] * bool(plan.bn_momentum)
    return [line.replace("preprocessing final", "input").replace(" nasnetlarge", "") for line in found]


def stand_in(plan: Plan, name: str) -> str | None:
    """The sentence that results must carry where a network did not start from ImageNet weights."""
    return plan.start(name).stand_in


def run(plan: Plan, name: str, chain: str = "cad", augmented: bool = True) -> record.Run:
    """Train one network, or return its finished run.

    Parameters
    ----------
    plan : Plan
    name : str
        Key of ``kit.backbones.BACKBONES``.
    chain : str
        See :func:`prepared`; other than "cad" retrains without preprocessing.
    augmented : bool
        False leaves augmentation out (the paper's ablation).

    Returns
    -------
    record.Run
        With predictions of the parts "validation" and "test" by the last weights and, in predictions_best.csv, by the best.
    """
    config, inputs, rows = _job(plan, name, chain, augmented)
    classes, start = len(registry.get(plan.dataset).classes), plan.start(name).weights
    return train.fit(config, lambda: backbones.fine_tuned(name, plan.size(name), classes, plan.dropout, start, bn_momentum=plan.bn_momentum or None), inputs, rows)


def _job(plan: Plan, name: str, chain: str, augmented: bool) -> tuple:
    """Configuration, images and parts of a training."""
    inputs, parts = prepared(plan, plan.size(name), chain), cad.published_parts(plan.dataset)
    chosen = {"train": _subset(plan, parts["train"], plan.limit(name)), "validation": _subset(plan, parts["val"], plan.limit(name)), "test": parts["test"]}
    rows = {part: inputs.rows(ids) for part, ids in chosen.items()}
    epochs, rate = plan.schedule(name)
    options = {"backbone": name, "input_size": plan.size(name), "dropout": plan.dropout, "weights": plan.start(name).weights, "bn_momentum": plan.bn_momentum or None}
    config = train.TrainConfig(
        "cad", plan.profile, "-".join([name] + [chain] * (chain != "cad") + ["noaug"] * (not augmented)), options, epochs=epochs, batch_size=plan.batch_size,
        learning_rate=rate, loss="categorical_crossentropy", seed=plan.seed, augmentation={} if augmented else None, augmenter=plan.augmenter, keep_best=True,
        keep_weights=not plan.limit(name) or (augmented and name in (EXPLAINED, SERVED)), graph=len(rows["train"]) * epochs > 8 * plan.batch_size)
    return config, inputs, rows


def _subset(plan: Plan, ids: list, count: int) -> list:
    """`count` of `ids` (0: all): the first image of each class, then the first others."""
    if not count or count >= len(ids):
        return list(ids)
    label = registry.index(plan.dataset).set_index("image_id")["label"].loc[list(ids)]
    needed = label.drop_duplicates().index[:count].tolist()
    others = [i for i in ids if i not in set(needed)]
    return needed + others[: count - len(needed)]


def run_all(plan: Plan, names, chain: str = "cad", augmented: bool = True, timed=(), processes: int = 1, next_in_line=()) -> dict:
    """Runs of several networks, name -> run; one that diverges or runs out of memory is reported and left out, the others are not touched.

    Parameters
    ----------
    plan, chain, augmented : see :func:`run`
    names : sequence of str
    timed : sequence of str
        With image ids, :func:`measure` follows each training while the network is in memory: making NASNetLarge anew takes longer.
    processes : {1, 2}
        2 shares the networks with a second process, which is worth its memory where they see few images; the results are the same.
    next_in_line : sequence of str
        Networks that will be asked for without augmentation; the second process trains them too.
    """
    if processes > 1:
        jobs = [(name, chain, augmented) for name in names] + [(name, chain, False) for name in next_in_line]
        _share(plan, [job for job in jobs if not train.is_finished(*_job(plan, *job))], timed)
    finished = {}
    for name in names:
        try:
            finished[name] = _run_and_time(plan, (name, chain, augmented), timed)
        except (train.Diverged, train.OutOfMemory) as error:
            print(f"left out: {error}", flush=True)
    return finished


def _run_and_time(plan: Plan, job: tuple, timed) -> record.Run:
    found = run(plan, *job)
    if len(timed):
        measure(plan, job[0], timed, model=train.in_memory(found))
    return found


def _share(plan: Plan, jobs: list, timed) -> None:
    """Work through the trainings from one end here and from the other in a second process."""
    queue = sorted(jobs, key=lambda job: plan.limit(job[0]) or float("inf"))
    if len(queue) > 1:
        with beside.running("kit.cad_training:attempt", plan=asdict(plan), jobs=queue[::-1], timed=list(timed)):
            attempt(asdict(plan), queue, list(timed))


def attempt(plan: dict, jobs: list, timed: list) -> None:
    """Train and time networks; leaves those that fail, or that another process works on, to :func:`run_all`."""
    settings = Plan(**{**plan, "whole": tuple(plan["whole"])})
    for job in jobs:
        with contextlib.suppress(record.FolderBusy, train.Diverged, train.OutOfMemory):
            _run_and_time(settings, tuple(job), timed)


def tested(run: record.Run, weights: str = "last") -> pd.DataFrame:
    """Test predictions of a run with the weights of its "last" or "best" epoch."""
    return run.predictions("test") if weights == "last" else train.best_predictions(run, "test")


def measure(plan: Plan, name: str, image_ids, repeats: int = 1, model=None) -> tuple[dict, list]:
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
    times : list of kit.timing.Times
        Of the three protocols.
    """
    key = {"name": name, "size": plan.size(name), "images": list(image_ids), "repeats": repeats, "device": record.device_name(), "upsample": plan.upsample}
    file = paths.results_dir() / plan.profile / "cad" / "timings" / f"{name}-{record.digest(key)[:10]}.json"
    if not file.exists():
        root = registry.root(plan.dataset)
        model = model or backbones.fine_tuned(name, plan.size(name), len(registry.get(plan.dataset).classes), plan.dropout, None)
        prepare = lambda content: preprocess.cad(content, plan.size(name), "safe", True, plan.upsample or None).image  # noqa: E731
        found = timing.all_protocols(model, [(root / i).read_bytes() for i in image_ids], prepare, repeats)
        record.write_json(file, {**key, "parameters": model.count_params(), "macs": backbones.macs(model),
                                 "times": [{"protocol": t.protocol, "device": t.device, "ms": t.ms.tolist(), "first_ms": t.first_ms} for t in found]})
    stored = record.read_json(file)
    times = [timing.Times(t["protocol"], t["device"], np.array(t["ms"]), t["first_ms"]) for t in stored["times"]]
    return {part: stored[part] for part in ("parameters", "macs", "device")}, times


def costs(sizes: dict, runs: dict) -> pd.DataFrame:
    """Argument of :func:`kit.cad.cost_table`: index = name; parameters, macs, seconds of training, device."""
    rows = {name: {**sizes[name], "seconds": float(runs[name].history()["seconds"].sum())} for name in sizes if name in runs}
    return pd.DataFrame.from_dict(rows, orient="index")[["parameters", "macs", "seconds", "device"]]


def unprepared(plan: Plan, finished: record.Run, name: str, chain: str):
    """Test predictions of a finished run on images without the chain (the paper's ablation, evaluation only)."""
    inputs = prepared(plan, plan.size(name), chain)
    return train.predict(finished, inputs, inputs.rows(cad.published_parts(plan.dataset)["test"]), chain)

