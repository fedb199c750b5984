"""One epoch of a search: which batches, which steps in which order, and what is measured.

As in the reference codes an architecture step comes before each weight step, on a batch of the
second half that is drawn anew for each step. The LeaSE paper lists the architecture last in its
cycle, which shifts the same cycle; both are settings.
"""

import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from kit.data import registry
from kit.data.augment import autoaugment
from kit.data.inputs import Inputs
from kit.search.nas2d import lease, search_state, search_step, supernet
from kit.search.nas2d.search_config import SearchConfig
from kit.search.nas2d.search_state import DELTA, LECTURE, STEP, TRAIN, VALIDATION, State
from kit.search.nas2d.search_step import Kind, Rates
from kit.training import rules
from kit.training.rules import AdamState
from kit.training.train import Diverged

FEW_STEPS = 64  # steps of warm-up below which the audience learns by the step that is traced anyway


@dataclass(frozen=True)
class Task:
    """A search and the data that it is run on; `rows_a` train the weights, `rows_b` judge the
    architecture.
    """

    config: SearchConfig
    inputs: Inputs
    rows_a: np.ndarray
    rows_b: np.ndarray

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return int(self.inputs.x.shape[1])

    @property
    def classes(self) -> int:
        """Classes of the data set."""
        return len(registry.get(self.inputs.name).classes)

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        whole = -(-len(self.rows_a) // self.config.batch_size)
        return min(whole, self.config.steps or whole)

    def space(self, stage: int, survivors: tuple | None = None) -> supernet.Space:
        """The supernet of a stage; with masked pruning it keeps all operations."""
        shown = None if self.config.pruning == "mask" else survivors
        return self.config.space(stage, self.classes, int(self.inputs.x.shape[-1]), shown)

    def kind(self, space: supernet.Space) -> Kind:
        """The key of the steps' graphs in a stage."""
        config, own = self.config, {}
        if config.lease is not None:
            options = tuple(sorted(search_state.audience_options(config, space).items()))
            own = {
                "lease": config.lease,
                "audience": config.audience,
                "separate": config.separate,
                "options": options,
            }
        return Kind(
            space,
            size=self.size,
            scale=float(self.inputs.scale),
            sgd=(config.momentum, config.decay, config.clip),
            adam=(config.arch_betas, config.arch_decay, config.arch_clip),
            order=config.order,
            mode=config.mode,
            traced=config.traced,
            **own,
        )

    def batch(self, rows: np.ndarray, epoch: int, augmented: bool = True) -> tuple:
        """uint8 images (n, H, W, C) and int32 labels (n,) of some rows, augmented by (seed, epoch,
        row) if the search asks for it.
        """
        images = np.ascontiguousarray(self.inputs.x[rows])
        if augmented and self.config.augmentation is not None:
            images = autoaugment.batch(
                images, rows, epoch, self.config.augmentation, self.config.seed
            )
        return tf.constant(images), tf.constant(self.inputs.labels[rows].astype(np.int32))


def learning_rates(task: Task, stage: int, within: int) -> dict:
    """The rates of an epoch, number `within` (from 0) of its stage, as
    :class:`kit.search.nas2d.search_step.Rates` without the seed.
    """
    config, asked = task.config, task.config.lease

    def anneal(low, high):
        return rules.cosine(within, config.epochs, high, low)

    skip = (
        rules.skip_rate(within, config.skip_rates[stage], config.epochs, config.warm_up)
        if config.family == "pdarts"
        else 0.0
    )
    return {
        "lr": anneal(config.lr_min, config.lr),
        "audience_lr": anneal(asked.audience_lr_min, asked.audience_lr) if asked else 0.0,
        "arch_lr": config.arch_lr,
        "skip_rate": skip,
        "gamma": config.gamma if asked else 0.0,
        "own": 0.0 if config.audience_only else 1.0,
        "moving": float(within >= config.warm_up),
    }


def train_epoch(task: Task, space: supernet.Space, state: State, stage: int, within: int) -> dict:
    """Take one epoch's steps, in place; the means of what the steps measure.

    Raises
    ------
    kit.training.train.Diverged
        If a loss or the architecture is no finite number.
    """
    config, rates, key = (
        task.config,
        learning_rates(task, stage, within),
        (task.config.seed, state.epoch),
    )
    numbers, kind = (
        {name: tf.constant(value, tf.float32) for name, value in rates.items()},
        task.kind(space),
    )
    totals, images = {}, 0
    batches = search_state.order(task.rows_a, config.batch_size, config.steps, TRAIN, *key)
    lectures = (
        search_state.order(task.rows_a, config.batch_size, config.steps, LECTURE, *key)
        if config.lease and config.lease.batches == "separate"
        else batches
    )
    for number, (rows, told) in enumerate(zip(batches, lectures, strict=True)):
        seed = Rates(**numbers, seed=tf.constant(search_state.words(STEP, *key, number)))
        facts = _step(task, kind, state, rows=rows, told=told, rates=seed, number=number)
        _check(config, state, facts, number)
        images += len(rows)
        for name, value in facts.items():
            totals.setdefault(name, []).append(value * (len(rows) if name == "loss" else 1))
    means = {name: float(np.mean(values)) for name, values in totals.items()} | {
        "loss": sum(totals["loss"]) / images,
        "accuracy": sum(totals["correct"]) / images,
    }
    return {name: value for name, value in means.items() if name != "correct"}


def _step(task, kind, state, rows, told, rates, number) -> dict:
    """One cycle; python floats of what it measures."""
    train = task.batch(rows, state.epoch)
    last = task.config.lease is not None and task.config.lease.order == "architecture_last"
    facts = (
        {} if last else _arch(task, kind, state, train=train, told=told, rates=rates, number=number)
    )
    state.weights, state.buffers, loss, correct = search_step.weight_step(kind_of_weights(kind))(
        state.weights, state.buffers, state.arch, train, rates
    )
    if last:
        facts = _arch(task, kind, state, train=train, told=told, rates=rates, number=number)
    return {
        "loss": float(loss),
        "correct": float(correct),
        **{name: float(value) for name, value in facts.items()},
    }


def kind_of_weights(kind: Kind) -> Kind:
    """What of `kind` the weight step and the measurement depend on, so that all methods
    share them.
    """
    return Kind(kind.space, kind.size, kind.scale, kind.sgd, kind.adam, traced=kind.traced)


def _arch(task, kind, state, train, told, rates, number) -> dict:
    config, searching = task.config, float(rates.moving) > 0
    if (config.lease is None and not searching) or (
        config.lease is not None and not (searching or config.lease.warm_up_audience)
    ):
        return {}
    moments = AdamState(tf.constant(state.updates, tf.int64), state.first, state.second)
    key = (VALIDATION, config.seed, state.epoch, number)
    val = task.batch(search_state.drawn(task.rows_b, config.batch_size, *key), state.epoch)
    if config.lease is None:
        state.arch, moments, facts = search_step.arch_step(kind)(
            weights=state.weights,
            buffers=state.buffers,
            arch=state.arch,
            moments=moments,
            train=train,
            val=val,
            rates=rates,
        )
    else:
        moments, facts = _lease(
            task,
            kind,
            state,
            moments=moments,
            batches=(train, val),
            told=told,
            rates=rates,
            number=number,
        )
    state.updates, state.first, state.second = int(moments.step), moments.first, moments.second
    return facts


def _lease(task, kind, state, moments, batches, told, rates, number):
    config, (train, val) = task.config, batches
    lecture = train if config.lease.batches == "same" else task.batch(told, state.epoch)
    delta, place = _delta(task, state, lecture, told, number)
    if float(rates.moving) > 0 or (kind.traced and config.warm_up * task.steps < FEW_STEPS):
        state.arch, moments, state.audience, state.audience_buffers, after, facts = (
            search_step.lease_step(kind)(
                weights=state.weights,
                buffers=state.buffers,
                arch=state.arch,
                moments=moments,
                told=state.audience,
                told_buffers=state.audience_buffers,
                train=train,
                val=val,
                lecture=lecture,
                delta=delta,
                rates=rates,
            )
        )
    else:
        state.audience, state.audience_buffers, after, facts = search_step.teach_step(kind)(
            weights=state.weights,
            buffers=state.buffers,
            arch=state.arch,
            told=state.audience,
            told_buffers=state.audience_buffers,
            train=train,
            lecture=lecture,
            delta=delta,
            rates=rates,
        )
    if place is not None:
        state.deltas[0][place] = after.numpy()
    return moments, facts


def _delta(task, state, lecture, told, number):
    """Perturbations before their step, and the places they are kept at, if they are."""
    settings, key = task.config.lease, (task.config.seed, state.epoch)
    if settings.initial != "kept":
        return lease.initial_delta(
            tf.zeros(lecture[0].shape),
            settings,
            tf.constant(search_state.words(DELTA, *key, number)),
        ), None
    if not state.deltas:
        shape = (len(task.rows_a), *task.inputs.x.shape[1:])
        state.deltas = [
            lease.initial_delta(
                tf.zeros(shape), settings, tf.constant(search_state.words(DELTA, key[0]))
            ).numpy()
        ]
    place = np.searchsorted(np.sort(task.rows_a), told)
    return tf.constant(state.deltas[0][place]), place


def _check(config, state, facts, number) -> None:
    bad = next(
        (
            name
            for name in ("loss", "arch_loss", "arch_gradient", "audience_loss")
            if not math.isfinite(facts.get(name, 0.0))
        ),
        None,
    )
    if bad:
        raise Diverged(
            f"{config.name}: {bad} is {facts[bad]} in step {number + 1} of epoch "
            f"{state.epoch + 1}; lower lr ({config.lr}) or arch_lr ({config.arch_lr})."
        )


def measure(task: Task, space: supernet.Space, state: State) -> dict:
    """Loss and accuracy on the second half, images not augmented, with the statistics of batches
    that mix the classes and are the same in every epoch.
    """
    step, losses, correct, images = (
        search_step.measure_step(kind_of_weights(task.kind(space))),
        0.0,
        0.0,
        0,
    )
    for rows in search_state.order(
        task.rows_b, task.config.batch_size, task.config.steps, VALIDATION, task.config.seed
    ):
        loss, right = step(state.weights, state.arch, task.batch(rows, 0, augmented=False))
        losses, correct, images = (
            losses + float(loss) * len(rows),
            correct + float(right),
            images + len(rows),
        )
    return {"val_loss": losses / images, "val_accuracy": correct / images}
