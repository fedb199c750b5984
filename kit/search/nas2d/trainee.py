"""A Keras model that trains as the reference's evaluation phase does: PyTorch's SGD, rates set per
epoch, dropped paths, a second loss.

Keras' SGD keeps the learning rate inside the momentum and decouples weight decay; here the rule is
`kit.training.rules.sgd`. Learning rate and drop-path rate are read from tables by the optimizer's
step counter, which is part of a run's state: a resumed run needs nothing else to go on identically.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import losses, metrics, optimizers

from kit.search.nas2d.cells import KIT, dropping
from kit.training import rules


@KIT
class PerEpoch(optimizers.schedules.LearningRateSchedule):
    """A value for each epoch, looked up by the number of steps taken; the last one holds on.

    Parameters
    ----------
    values : list of float
    steps : int
        Steps an epoch.
    """

    def __init__(self, values: Sequence[float], steps: int) -> None:
        self.values, self.steps = [float(value) for value in values], int(steps)

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """The value after `step` steps, float32 scalar tensor."""
        epoch = tf.cast(step, tf.int32) // self.steps
        return tf.constant(self.values, tf.float32)[tf.minimum(epoch, len(self.values) - 1)]

    def get_config(self) -> dict:
        """What the schedule is rebuilt from."""
        return {"values": self.values, "steps": self.steps}


@KIT
class SGD(optimizers.Optimizer):
    """Stochastic gradient descent as PyTorch computes it: clip the global norm, add L2, momentum
    without learning rate.

    Parameters
    ----------
    learning_rate : float or LearningRateSchedule
    momentum, decay, clip : float
    """

    def __init__(
        self,
        learning_rate: float | optimizers.schedules.LearningRateSchedule = 0.025,
        momentum: float = 0.9,
        decay: float = 3e-4,
        clip: float = 5.0,
        name: str = "sgd",
        **options: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name, **options)
        self.momentum, self.decay, self.clip = momentum, decay, clip

    def build(self, variables: list[keras.Variable]) -> None:
        """Make a zero buffer for each variable."""
        if not self.built:
            super().build(variables)
            self.buffers = self.add_optimizer_variables(variables, "buffer")

    def apply(
        self, grads: list[tf.Tensor], trainable_variables: list[keras.Variable] | None = None
    ) -> None:
        """Take one step."""
        variables = (
            self._trainable_variables if trainable_variables is None else list(trainable_variables)
        )
        self.build(variables)
        buffers = [self.buffers[self._get_variable_index(v)] for v in variables]
        rule = {"momentum": self.momentum, "decay": self.decay, "clip": self.clip}
        moved, pushed = rules.sgd(
            [v.value for v in variables],
            grads,
            [b.value for b in buffers],
            self._get_current_learning_rate(),
            **rule,
        )
        for variable, value in zip([*variables, *buffers], [*moved, *pushed], strict=True):
            variable.value.assign(value)
        self.iterations.value.assign_add(1)

    def get_config(self) -> dict:
        """What the optimizer is rebuilt from."""
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "decay": self.decay,
            "clip": self.clip,
        }


class Trainee(keras.Model):
    """A network in training; its output is the network's first, so that it predicts and is saved
    without the auxiliary head.

    Parameters
    ----------
    network : keras.Model
        Gives probabilities (N, classes), or (N, 1) of the positive class, and optionally those of
        an auxiliary head.
    recipe : dict
        Recorded with the model; `train` reuses compiled models of equal recipe.
    drop_path : PerEpoch or None
    auxiliary : float
        Weight of the second output's loss.
    """

    def __init__(
        self,
        network: keras.Model,
        recipe: dict,
        drop_path: PerEpoch | None = None,
        auxiliary: float = 0.4,
    ) -> None:
        super().__init__(network.inputs, network.outputs[0], name=network.name)
        self.network, self.recipe, self.drop_path, self.auxiliary = (
            network,
            dict(recipe),
            drop_path,
            auxiliary,
        )
        self.mean_loss, self.accuracy = metrics.Mean("loss"), metrics.Mean("accuracy")

    def get_config(self) -> dict:
        """Architecture and recipe, by which models that are ready to train are told apart."""
        return {"network": self.network.get_config(), "recipe": self.recipe}

    @property
    def metrics(self) -> list:
        """Loss (in training with L2 left out and the auxiliary head's added) and accuracy."""
        return [self.mean_loss, self.accuracy]

    def train_step(self, data: tuple) -> dict:
        """One step on (images, targets), from any of Keras' ways to train: ``train_on_batch`` adds
        sample weights, None or (N,).
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        rate = self.drop_path and self.drop_path(self.optimizer.iterations.value)
        with tf.GradientTape() as tape, dropping(rate):
            outputs = self.network(x, training=True)
            outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
            targets = _as_output(y, outputs[0])
            loss = _loss(targets, outputs[0], sample_weight)
            for extra in outputs[1:]:
                loss += self.auxiliary * _loss(targets, extra, sample_weight)
        rates = {"learning_rate": self.optimizer.learning_rate} | (
            {} if rate is None else {"drop_path": rate}
        )
        weights = self.trainable_variables
        gradients = tape.gradient(
            loss, [w.value for w in weights], unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        self.optimizer.apply(gradients, weights)
        return {**self._count(loss, targets, outputs[0], sample_weight), **rates}

    def test_step(self, data: tuple) -> dict:
        """Loss of the first output and accuracy on (images, targets)."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        output = self(x, training=False)
        targets = _as_output(y, output)
        loss = _loss(targets, output, sample_weight)
        return self._count(loss, targets, output, sample_weight)

    def _count(self, loss, targets, output, sample_weight=None) -> dict:
        count = tf.shape(targets)[0]
        self.mean_loss.update_state(loss, sample_weight=count)
        right = (
            keras.metrics.binary_accuracy(targets, output)
            if output.shape[-1] == 1
            else keras.metrics.categorical_accuracy(targets, output)
        )
        self.accuracy.update_state(right, sample_weight=sample_weight)
        return self.get_metrics_result()


def _as_output(y, output):
    """Targets in the form of the output: (N, 1) labels become one-hot for a network with two
    softmax units.
    """
    if y.shape[-1] == 1 and output.shape[-1] == 2:
        return tf.concat([1 - y, y], -1)
    return y


def _loss(targets, output, sample_weight=None):
    """Mean over the images; each times its weight, if there are weights, as Keras has it."""
    each = (
        losses.binary_crossentropy if output.shape[-1] == 1 else losses.categorical_crossentropy
    )(targets, output)
    if sample_weight is not None:
        each *= tf.cast(tf.reshape(sample_weight, [-1]), each.dtype)
    return tf.reduce_mean(each)
