"""Many short trainings of one network through one traced step: what the genetic search, the
astrocyte experiments and Gen-Soup are made of.

The thesis trains each individual as a program of its own. Here everything that a gene or a schedule
changes (loss, optimizer, learning rate, weight decay, the astrocytes' factors, the image size) is a
tensor, so that a network is built and traced once for hundreds of trainings. A training depends on
its settings, its seed and the images alone, not on what the process did before: weights, optimizer,
dropout masks and astrocytes start afresh or from what is handed over. Otherwise as the released
code trains: the augmentation of `kit.data.augment.crop_rotate`, torch's optimizers
(`kit.training.optimizers`), no epoch selected. Departure: a last batch of a single image is left
out, because batch normalisation cannot use it.
"""

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from kit import compat, record, rehearsal
from kit.data.augment import crop_rotate, mixing
from kit.data.inputs import Inputs
from kit.models import architectures
from kit.models.astrocytes import Astrocytes
from kit.training import losses, optimizers
from kit.training import predictions as training_predictions
from kit.training import rehearsed as training_rehearsed
from kit.training.config import Diverged
from kit.training.short_network import (
    BadShortTraining,
    Course,
    Network,
    Trained,
    Values,
    batches_of,
    check_lengths,
)

KEPT = 16  # trainers that a process holds at most


class Trainer:
    """A network, its initial weights and its traced steps; get one by :func:`trainer`.

    Parameters
    ----------
    network : Network
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        self.normalisation = images = "imagenet" if network.channels == 3 else "0..1"
        self.model = architectures.build(
            network.architecture,
            network.classes,
            size=None,
            channels=network.channels,
            head_seed=network.seed,
            weights=network.weights,
            seed=network.seed,
            images=images,
            bn_momentum=network.bn_momentum,
        )
        self.initial = self.model.get_weights()
        self.optimizer = optimizers.Switched(settings=network.settings)
        self.optimizer.build(self.model.trainable_variables)
        self.astrocytes = (
            None
            if network.astrocytes == "off"
            else Astrocytes(
                self.model,
                network.decisions,
                network.threshold,
                network.astrocytes,
                reading=network.reading,
                classes=network.classes,
            )
        )
        pixels, size = (
            tf.TensorSpec((None, None, None, network.channels), tf.uint8),
            tf.TensorSpec((), tf.int32),
        )
        targets, pair, scalar = (
            tf.TensorSpec((None, network.classes)),
            tf.TensorSpec((2,)),
            tf.TensorSpec((), tf.int32),
        )
        units, seed = tf.TensorSpec((None, len(crop_rotate.COLUMNS))), tf.TensorSpec((2,), tf.int32)
        self._step = tf.function(
            self._train_step,
            input_signature=[pixels, targets, units, size, size, scalar, pair, seed],
            autograph=False,
        )
        self._scores, self._pooled = (
            tf.function(step, input_signature=[pixels, size], autograph=False)
            for step in (self._predict_step, self._feature_step)
        )
        self._moments = tf.function(
            self._moment_step,
            input_signature=[pixels, targets, units, size, size, seed],
            autograph=False,
        )

    # --- traced ---

    def _fed(self, pixels, targets, units, size, resized, seed) -> tuple:
        """Images and targets as the network is trained on them."""
        if self.network.augmentation:
            x = crop_rotate.augment(
                pixels,
                units,
                size,
                resized,
                crop_rotate.ThesisAugmentation(brightness=self.network.brightness),
                normalisation=self.normalisation,
            )
        else:
            x = crop_rotate.prepare(pixels, size, self.normalisation)
        return mixing.mix(x, targets, seed, self.network.mixing)

    def _train_step(self, pixels, targets, units, size, resized, loss_index, factors, seed):
        x, targets = self._fed(pixels, targets, units, size, resized, seed)
        with tf.GradientTape() as tape:
            logits, heard = (
                self.astrocytes.forward(x)
                if self.astrocytes
                else (self.model(x, training=True), [])
            )
            loss = tf.reduce_mean(losses.selected(loss_index, targets, logits))
        variables = self.model.trainable_variables
        gradients = tape.gradient(loss, variables)  # of the kernels that made the outputs
        if self.astrocytes and self.network.order == "before":
            self.astrocytes.after_step(heard, factors[0], factors[1])
        self.optimizer.apply(gradients, variables)
        if self.astrocytes and self.network.order == "after":
            self.astrocytes.after_step(heard, factors[0], factors[1])
        return loss

    def _predict_step(self, pixels, size):
        x = crop_rotate.prepare(pixels, size, self.normalisation)
        return tf.nn.softmax(tf.cast(self.model(x, training=False), tf.float32))

    def _feature_step(self, pixels, size):
        x = crop_rotate.prepare(pixels, size, self.normalisation)
        return tf.cast(self._feature_model(x, training=False), tf.float32)

    @functools.cached_property
    def _feature_model(self):
        return architectures.feature_model(self.model)

    def _moment_step(self, pixels, targets, units, size, resized, seed):
        """A pass in training mode after which the moving statistics are those of the batch."""
        norms = self._norms()
        kept = [layer.momentum for layer in norms]
        for layer in norms:
            layer.momentum = 0.0  # read while the step is traced
        try:
            self.model(self._fed(pixels, targets, units, size, resized, seed)[0], training=True)
        finally:
            for layer, momentum in zip(norms, kept, strict=True):
                layer.momentum = momentum
        return tf.shape(pixels)[0]

    def _norms(self) -> list:
        return [
            layer
            for layer in self.model._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization)
        ]

    # --- used from outside ---

    def load(self, weights: list | None) -> None:
        """Put weights into the network; None: the initial ones.

        Raises
        ------
        BadShortTraining
            If they are another network's.
        """
        weights = self.initial if weights is None else weights
        if [np.shape(w) for w in weights] != [w.shape for w in self.initial]:
            raise BadShortTraining(
                f"The weights handed over are not those of {self.network.architecture}; give what "
                "an earlier training of it returned."
            )
        self.model.set_weights(weights)

    def train(  # noqa: PLR0913 - a candidate's values, and what a search decides of its training
        self,
        values: Values,
        inputs: Inputs,
        rows: np.ndarray,
        *,
        epochs: int,
        size: int,
        resized: int | None = None,
        batch_size: int = 32,
        seed: int = 0,
        first_epoch: int = 0,
        of_epochs: int | None = None,
        cosine_floor: float = 0.1,
        decay_mode: str = "l2_all",
        weights: list | None = None,
        factors: Sequence[tuple[float, float]] | None = None,
        watch: Callable[[int], dict] | None = None,
    ) -> Trained:
        """Train, beginning with `weights`, a new optimizer and silent astrocytes.

        Parameters
        ----------
        values : Values
            strong and weak if the astrocytes shall scale by the same factors in all epochs.
        inputs : kit.data.inputs.Inputs
            uint8 images of any side.
        rows : array of int
            Training images.
        epochs, size : int
            Length, and side in pixels.
        resized : int, optional
            Side that images are stretched to before a random crop of `size`; default 31/28 of it,
            as 124 is to 112.
        batch_size : int
        seed : int
            Of order, augmentation, mixing and dropout; those of epoch e follow from (seed, e).
        first_epoch : int
            Epochs that came before.
        of_epochs : int, optional
            Epochs of the cosine, which falls step by step; None keeps the rate.
        cosine_floor : float
            What it falls to, as a fraction of the rate; a tenth in the released code.
        decay_mode : str
            See :func:`kit.training.optimizers.decayed`.
        weights : list of numpy.ndarray, optional
            Default: the initial ones.
        factors : sequence of pairs, optional
            (Str, Weak) of each of these epochs; stands above `values`.
        watch : callable, optional
            (epoch from 1) -> dict for the history, after each epoch.

        Raises
        ------
        BadShortTraining, kit.training.train.Diverged, kit.training.predictions.OutOfMemory
        kit.training.optimizers.RefusedRule, kit.training.optimizers.UnknownRule,
        kit.training.losses.UnknownLoss
        """
        rows = np.asarray(rows)
        check_lengths(epochs, size, batch_size, len(rows), factors)
        rehearsed = None
        if rehearsal.active():
            asked = {"epochs": epochs, "size": size, "batch": batch_size, "seed": seed}
            rehearsed = training_rehearsed.short(
                self.network.architecture, self.model, inputs, rows, values=values, of=asked
            )
            rows, epochs, batch_size = rehearsed.rows, rehearsed.epochs, rehearsed.batch
            factors = factors if factors is None else factors[:epochs]
        loss, rate = self._begin(values, decay_mode, weights)
        pairs = (
            factors
            if factors is not None
            else [(values.get("strong", 1.0), values.get("weak", 1.0))] * epochs
        )
        resized = crop_rotate.resized_side(size) if resized is None else resized
        course = Course(
            inputs=inputs,
            rows=rows,
            batches=batches_of(len(rows), batch_size),
            seed=seed,
            sides=(size, resized),
            loss=loss,
            rate=rate,
            of_epochs=of_epochs,
            floor=cosine_floor,
        )
        with training_predictions.memory(self.network.architecture, batch_size):
            history = [
                self._timed_epoch(course, first_epoch + number, pair, values)
                | (watch(first_epoch + number + 1) if watch else {})
                for number, pair in enumerate(pairs)
            ]
        if rehearsed:
            rehearsed.write_down([row["seconds"] for row in history])
        tally = np.array(self.astrocytes.tally).tolist() if self.astrocytes else []
        return Trained(
            self.model.get_weights(),
            history,
            tally,
            sum(self.astrocytes.zeroed().values()) if self.astrocytes else 0,
        )

    def _begin(self, values, decay_mode, weights) -> tuple:
        """Put weights, optimizer and astrocytes at the start of a training; returns the place of
        the loss and the learning rate.
        """
        loss = losses.index(values["loss"])
        rule = tuple(optimizers.RULES)[optimizers.rule_index(values["optimizer"])]
        rate = float(values["learning_rate"]) * optimizers.NOMINAL_LR[self.network.settings][rule]
        self.load(weights)
        self.optimizer.reset()
        self.optimizer.configure(rule, rate, float(values["weight_decay"]), decay_mode)
        if self.astrocytes:
            self.astrocytes.reset()
        return loss, rate

    def _timed_epoch(self, course: Course, epoch: int, pair, values: Values) -> dict:
        """One pass over the images as the history tells it; raises Diverged."""
        started = time.perf_counter()
        found = self._epoch(course, epoch, pair)
        if not math.isfinite(found):
            raise Diverged(
                f"{self.network.architecture}: the loss is {found} in epoch {epoch + 1}; "
                f"lower learning_rate ({values['learning_rate']:.3g})."
            )
        seconds = round(time.perf_counter() - started, 3)
        return {"epoch": epoch + 1, "loss": found, "seconds": seconds}

    def _epoch(self, course: Course, epoch: int, pair) -> float:
        """One pass over the images, astrocytes scaling by `pair`; returns the mean loss."""
        pair, total, seen = tf.constant(pair, tf.float32), 0.0, 0
        length = len(course.batches)
        fed = self._fed_batches(
            course.inputs,
            course.rows,
            course.batches,
            seed=course.seed,
            epoch=epoch,
            sides=course.sides,
        )
        for step, (batch, count) in enumerate(fed):
            if course.of_epochs:
                self.optimizer.configure(
                    learning_rate=course.rate
                    * optimizers.cosine(
                        epoch * length + step, course.of_epochs * length, course.floor
                    )
                )
            value = float(self._step(**batch, loss_index=course.loss, factors=pair))
            total, seen = total + value * count, seen + count
            if not math.isfinite(value):
                return value
        if self.astrocytes:
            self.astrocytes.end_epoch(pair[0], pair[1])
        return total / seen

    def predict(
        self,
        inputs: Inputs,
        rows: np.ndarray,
        size: int,
        part: str = "test",
        batch_size: int = 128,
        weights: list | None = None,
    ) -> pd.DataFrame:
        """Predictions of the network as it is, or with other weights.

        Returns
        -------
        pandas.DataFrame
            See :func:`kit.record.prediction_table`.

        Raises
        ------
        kit.training.train.Diverged
            If the weights have become so large that a score is no number.
        """
        if weights is not None:
            self.load(weights)
        rows = rehearsal.predicted(inputs.labels, rows)
        scores = self._over(self._scores, inputs, rows, size, batch_size)
        if not np.isfinite(scores).all():
            raise Diverged(
                f"{self.network.architecture}: the predictions are not finite; lower learning_rate."
            )
        return record.prediction_table(inputs.index.iloc[rows], scores, part)

    def features(
        self,
        inputs: Inputs,
        rows: np.ndarray,
        size: int,
        batch_size: int = 128,
        weights: list | None = None,
    ) -> np.ndarray:
        """The last feature maps, averaged over space: float32 (N, C); the layer is the one
        that the thesis compares.
        """
        if weights is not None:
            self.load(weights)
        return self._over(
            self._pooled, inputs, rehearsal.predicted(inputs.labels, rows), size, batch_size
        )

    def recalibrate(
        self,
        inputs: Inputs,
        rows: np.ndarray,
        size: int,
        *,
        batch_size: int,
        seed: int = 0,
        epoch: int = 0,
        resized: int | None = None,
        weights: list | None = None,
    ) -> list:
        """Measure the moving statistics of all BatchNormalization layers anew, as averages of
        weights and kernels that were scaled need it; returns the new weights.

        The network sees what it would see in an epoch of training, augmented, mixed, in that
        epoch's order and batches, with dropout; nothing but the statistics changes. Each batch's
        mean and variance count by its number of images.

        Parameters
        ----------
        inputs, rows, size, batch_size, resized : see :meth:`train`
        seed, epoch : int
            Whose order, augmentation, mixing and dropout are drawn.
        weights : list of numpy.ndarray, optional
            Default: those that the network has.
        """
        if weights is not None:
            self.load(weights)
        norms = self._norms()
        variables = [v for layer in norms for v in (layer.moving_mean, layer.moving_variance)]
        if variables:
            rows = rehearsal.predicted(inputs.labels, rows)
            resized = crop_rotate.resized_side(size) if resized is None else resized
            batches, sides = batches_of(len(rows), batch_size), (size, resized)
            with training_predictions.memory(self.network.architecture, batch_size):
                training_predictions.assign_means(
                    variables,
                    (
                        (self._moments(**batch), count)[1]
                        for batch, count in self._fed_batches(
                            inputs, rows, batches, seed=seed, epoch=epoch, sides=sides
                        )
                    ),
                )
        return self.model.get_weights()

    @contextlib.contextmanager
    def recalibrated(self, *args: Any, **kwargs: Any) -> Iterator[list]:
        """Within, the network is as :meth:`recalibrate` makes it; afterwards as it was."""
        kept = self.model.get_weights()
        try:
            yield self.recalibrate(*args, **kwargs)
        finally:
            self.load(kept)

    def _fed_batches(self, inputs: Inputs, rows, batches: list, *, seed, epoch, sides):
        """Arguments of a step for each batch of an epoch, and the number of its images; the order,
        the draws and the dropout masks of an epoch follow from (seed, epoch).
        """
        compat.reseed(self.model, seed, epoch)
        order = np.random.default_rng([seed, epoch]).permutation(len(rows))
        units = tf.gather(crop_rotate.draw(seed, epoch, len(rows)), order)
        size, resized = (tf.constant(side, tf.int32) for side in sides)
        labels, eye = inputs.labels[rows], np.eye(self.network.classes, dtype=np.float32)
        for step, (start, end) in enumerate(batches):
            chosen = order[start:end]
            drawn = tf.constant([(seed * 1_000_003 + epoch) % 2**31, step], tf.int32)
            yield (
                {
                    "pixels": inputs.x[rows[chosen]],
                    "targets": eye[labels[chosen]],
                    "units": units[start:end],
                    "size": size,
                    "resized": resized,
                    "seed": drawn,
                },
                len(chosen),
            )

    def _over(self, function, inputs, rows, size, batch_size) -> np.ndarray:
        rows = np.asarray(rows)
        if not len(rows):
            raise BadShortTraining("There is no image to predict; give at least one row.")
        with training_predictions.memory(self.network.architecture, batch_size):
            found = [
                function(inputs.x[rows[i : i + batch_size]], tf.constant(size, tf.int32)).numpy()
                for i in range(0, len(rows), batch_size)
            ]
        return np.concatenate(found)


@functools.lru_cache(maxsize=KEPT)
def trainer(network: Network) -> Trainer:
    """The trainer of a network, made and traced once a process."""
    compat.same_bits()
    return Trainer(network)
