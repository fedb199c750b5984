"""Artificial astrocytes: every few batches the filters of each convolution are scaled by how active
they were (thesis chapter 4, Algorithm 3).

A counter a filter adds up max over the map of tanh(sum over the batch of the raw convolution
output), bias included, before normalisation and activation. After `decisions` training batches the
kernel of a filter is multiplied by Str if its counter is above the threshold, by Weak if below
minus the threshold, and the counters start again. The released code differs from the thesis: it
scales a copy, so that no weight ever changes (mode "released" does the same: it counts and leaves
the network bit for bit as without astrocytes); it handles square maps only; calling it again to
change the factors wraps every convolution once more. The printed algorithm scales within the
forward pass; here the kernels are scaled after the optimizer's step unless asked otherwise. Nothing
is wrapped or renamed: the convolutions are listened to during the training pass, whatever class of
model they are in, so checkpoints stay what they were and nothing is needed at inference. Counters
are float32 under every precision; under a distribution strategy the batch sums are added over the
replicas before tanh, so that the replicas decide as one.
"""

import itertools
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kit.errors import KitError
from kit.models.astrocyte_readings import READINGS, batch_sum, factors, scaled, squash
from kit.models.convolutions import (
    CONVOLUTIONS,
    convolutions,
    factor_shape,
    filters_last,
    kernel_of,
    listening,
)

MODES = ("algorithm", "released", "off")
ORDERS = ("after", "before")


class BadAstrocytes(KitError):
    """A setting of the astrocytes is out of range, or the model has no convolution that they could
    watch.
    """


def _in_replica() -> bool:
    return tf.distribute.has_strategy() and not tf.distribute.in_cross_replica_context()


def _over_replicas(tensors) -> list:
    """Sum each tensor over the replicas, as one vector: of several tensors in one call TensorFlow
    2.21 gave the first one's sum for all.
    """
    tensors = [tf.cast(t, tf.float32) for t in tensors]
    together = tf.concat([tf.reshape(t, [-1]) for t in tensors], 0)
    together = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, together)
    return [
        tf.reshape(part, tf.shape(t))
        for part, t in zip(tf.split(together, [tf.size(t) for t in tensors]), tensors, strict=False)
    ]


class Astrocytes:
    """The astrocytes of one model: counters, decisions and the scaling of its kernels.

    Create it within the strategy's scope where there is one. The counters outlive epochs;
    evaluation does not touch them.

    Parameters
    ----------
    model : keras.Model
        Built. Any class of model; of a layer that is called more than once every call adds an
        increment.
    decisions : int
        Training batches to a decision (NG).
    threshold : float
        Counter beyond which a filter is scaled (AS), at least 0.
    mode : {"algorithm", "released", "off"}
        Scale the kernels; count only, as the released code does; or nothing at all.
    layers : list of keras.layers.Layer or str, optional
        Exactly these convolutions (or their names) instead of :func:`convolutions`.
    reading : str
        Key of :data:`kit.models.astrocyte_readings.READINGS`. Of reading "epoch" :meth:`decide` is
        to be called after each epoch; reading "classes" needs `classes`.
    classes : int, optional
        Of the classifier.

    Attributes
    ----------
    layers : list of keras.layers.Layer
    counters : keras.Variable
        float32, the filters of all layers in a row.
    tick : keras.Variable
        int32, batches since the last decision.
    tally : keras.Variable
        int32 (3,): filters that met Str, Weak and neither, over all decisions.

    Raises
    ------
    BadAstrocytes
    """

    def __init__(
        self,
        model: keras.Model,
        decisions: int = 4,
        threshold: float = 2.0,
        mode: str = "algorithm",
        layers: Sequence[str | keras.Layer] | None = None,
        reading: str = "literal",
        classes: int | None = None,
    ) -> None:
        _check_choice("mode", mode, MODES)
        _check_choice("reading", reading, READINGS)
        if READINGS[reading].every == "classes" and not classes:
            raise BadAstrocytes('The reading "classes" of Algorithm 3 needs the number of classes.')
        if (
            isinstance(decisions, bool)
            or not isinstance(decisions, (int, np.integer))
            or decisions < 1
        ):
            raise BadAstrocytes(
                f"Astrocytes decide after {decisions!r} batches; give a whole number of at least 1."
            )
        if not threshold >= 0:
            raise BadAstrocytes(
                f"The astrocytes' threshold is {threshold!r}; give a number of at least 0."
            )
        self.model, self.mode = model, mode
        self.decisions, self.threshold = int(decisions), float(threshold)
        self.layers = convolutions(model) if layers is None else _chosen(model, layers)
        if not self.layers:
            raise BadAstrocytes(
                f"Model {model.name!r} has no convolution for astrocytes; give `layers`, or a "
                "model with convolutions before its head."
            )
        unbuilt = [layer.name for layer in self.layers if not layer.built]
        if unbuilt:
            raise BadAstrocytes(
                f"Convolution {unbuilt[0]!r} has no kernel yet; build the model before its "
                "astrocytes."
            )
        self._widths = [int(np.prod(factor_shape(layer))) for layer in self.layers]
        self.counters = _variable(sum(self._widths), "float32", "counters")
        self.tick, self.tally = _variable((), "int32", "tick"), _variable(3, "int32", "tally")
        self.reading, self._lent = READINGS[reading], []
        # batches to a decision of this reading; None: none in the course of an epoch
        self._due = {"batches": self.decisions, "epoch": None}.get(
            self.reading.every, 1 if (classes or 0) >= self.decisions else None
        )
        if self.reading.undo:
            if tf.distribute.has_strategy():
                raise BadAstrocytes(
                    'The reading "undone" of Algorithm 3 runs on one device only; leave the '
                    "distribution strategy out."
                )
            self._lent = [
                _variable(tuple(kernel_of(layer).shape), "float32", f"lent_{i}")
                for i, layer in enumerate(self.layers)
            ]

    @tf.autograph.experimental.do_not_convert
    def forward(self, inputs: tf.Tensor, training: bool = True) -> tuple[tf.Tensor, list]:
        """Call the model and collect what its convolutions give.

        Returns
        -------
        outputs : tf.Tensor
            As the model gives them.
        conv_outputs : list
            For :meth:`after_step`: a list of raw outputs for each of `layers`; empty in mode "off".

        Raises
        ------
        BadAstrocytes
            If a watched convolution takes no part in the pass, or runs in a graph of its own (a
            loop).
        """
        if self.mode == "off":
            return self.model(inputs, training=training), []
        with listening(self.layers) as taken:
            outputs = self.model(inputs, training=training)
        for layer in self.layers:
            if id(layer) not in taken:
                raise BadAstrocytes(
                    f"Convolution {layer.name!r} took no part in the training pass; give `layers` "
                    "without it."
                )
            if not tf.executing_eagerly() and any(
                t.graph is not tf.compat.v1.get_default_graph() for t in taken[id(layer)]
            ):
                raise BadAstrocytes(
                    f"Convolution {layer.name!r} runs in a loop or function of its own; give "
                    "`layers` without it."
                )
        return outputs, [taken[id(layer)] for layer in self.layers]

    @tf.autograph.experimental.do_not_convert
    def after_step(
        self, conv_outputs: list, strong: float | tf.Tensor, weak: float | tf.Tensor
    ) -> None:
        """Count one training batch and, when it is time, scale the kernels; call it after the
        optimizer's step, or before it for the printed order.

        Parameters
        ----------
        conv_outputs : list
            From :meth:`forward`, or one raw output a layer.
        strong, weak : float or scalar tensor
            Factors Str and Weak; any real number.
        """
        if self.mode == "off":
            return
        self.counters.assign_add(tf.concat(self._steps(conv_outputs), 0))
        self.tick.assign_add(1)
        if self._due is None:
            return
        due = tf.convert_to_tensor(self.tick.value) >= self._due
        if _in_replica():  # no merge of replicas is possible within a condition
            self._decide(strong, weak, due)
        else:
            tf.cond(due, lambda: self._decide(strong, weak, True), lambda: False)

    def _steps(self, conv_outputs) -> list:
        """What a batch adds to the counters: a vector for each of `layers`."""
        activity = self.reading.activity
        totals = [[batch_sum(t, activity) for t in tf.nest.flatten(e)] for e in conv_outputs]
        if _in_replica():
            flat = _over_replicas(tf.nest.flatten(totals))
            count = tf.distribute.get_replica_context().num_replicas_in_sync
            flat = [t / count for t in flat] if activity == "mean" else flat
            totals = tf.nest.pack_sequence_as(totals, flat)
        first = [layer.data_format == "channels_first" for layer in self.layers]
        return [
            sum(tf.cast(squash(t, f, activity), tf.float32) for t in entry)
            for entry, f in zip(totals, first, strict=True)
        ]

    def end_epoch(self, strong: float | tf.Tensor, weak: float | tf.Tensor) -> None:
        """Decide now if the reading has one decision an epoch; arguments as of
        :meth:`after_step`.
        """
        if self.mode != "off" and self.reading.every == "epoch":
            self._decide(strong, weak, True)

    def _decide(self, strong, weak, due):
        counters, due = tf.convert_to_tensor(self.counters.value), tf.convert_to_tensor(due)
        above, below = (
            tf.reduce_sum(tf.cast(mask, tf.int32))
            for mask in (counters > self.threshold, counters < -self.threshold)
        )
        self.tally.assign_add(
            tf.stack([above, below, sum(self._widths) - above - below]) * tf.cast(due, tf.int32)
        )
        if self.mode == "algorithm":
            self._scale(tf.where(due, factors(counters, strong, weak, self.threshold), 1.0))
        self.counters.assign(tf.where(due, 0.0, counters))
        self.tick.assign(tf.where(due, 0, tf.convert_to_tensor(self.tick.value)))
        return True

    def _scale(self, all_factors):
        def new(variable, part, layer):
            part = tf.reshape(part, factor_shape(layer))
            return scaled(tf.convert_to_tensor(variable), part, self.reading.keep_norm)

        def everywhere(strategy, all_factors):
            for layer, i in zip(self.layers, itertools.accumulate(self._widths), strict=False):

                def update(variable, given, layer=layer, i=i):
                    return variable.assign(
                        new(variable, given[i - int(np.prod(factor_shape(layer))) : i], layer)
                    )

                strategy.extended.update(kernel_of(layer).value, update, args=(all_factors,))

        if _in_replica():
            tf.distribute.get_replica_context().merge_call(everywhere, args=(all_factors,))
            return
        for i, (layer, part) in enumerate(
            zip(self.layers, tf.split(all_factors, self._widths), strict=True)
        ):
            kernel = tf.convert_to_tensor(kernel_of(layer).value)
            if self._lent:  # what the last decision added goes first
                lent = tf.cast(self._lent[i].value, kernel.dtype)
                kernel = tf.where(lent == 0, kernel, kernel - lent)
            after = new(kernel, part, layer)
            if self._lent:
                self._lent[i].assign(tf.cast(after - kernel, tf.float32))
            kernel_of(layer).assign(after)

    def reset(self) -> None:
        """Start the counters, the tick and the tally from zero."""
        for variable in (self.counters, self.tick, self.tally, *self._lent):
            variable.assign(np.zeros(variable.shape, variable.dtype))

    def state(self) -> dict:
        """Counters, tick and tally as NumPy arrays; :meth:`restore` takes them back, for an exact
        resume.
        """
        return {
            "counters": np.array(self.counters),
            "tick": np.array(self.tick),
            "tally": np.array(self.tally),
            **{f"lent-{i}": np.array(lent) for i, lent in enumerate(self._lent)},
        }

    def restore(self, state: dict) -> None:
        """Take back what :meth:`state` gave.

        Raises
        ------
        BadAstrocytes
            If it was taken from another model.
        """
        lent = {f"lent-{i}": variable for i, variable in enumerate(self._lent)}
        own = {name: getattr(self, name) for name in ("counters", "tick", "tally")} | lent
        for name, variable in own.items():
            value = np.asarray(state[name])
            if tuple(variable.shape) != value.shape:
                raise BadAstrocytes(
                    f"The stored astrocytes have {name} of shape {value.shape}, the model's "
                    f"{tuple(variable.shape)}; restore the same model."
                )
            variable.assign(value)

    def zeroed(self) -> dict:
        """Number of filters whose kernel is zero everywhere, by layer name."""
        return {layer.name: int((~filters_last(layer).any(axis=0)).sum()) for layer in self.layers}


def _check_choice(what: str, given: str, known) -> None:
    if given not in known:
        raise BadAstrocytes(
            f"There is no astrocyte {what} {given!r}; choose among {', '.join(known)}."
        )


def _chosen(model, layers) -> list:
    """Layers by object or name."""
    by_name = {layer.name: layer for layer in model._flatten_layers(include_self=True)}
    chosen = [by_name.get(layer) if isinstance(layer, str) else layer for layer in layers]
    for layer, asked in zip(chosen, layers, strict=False):
        if not isinstance(layer, CONVOLUTIONS):
            raise BadAstrocytes(
                f"{getattr(asked, 'name', asked)!r} is no convolution of model {model.name!r}; "
                "name convolution layers."
            )
    return chosen


def _variable(shape, dtype, name):
    return keras.Variable(
        np.zeros(shape, dtype),
        dtype=dtype,
        trainable=False,
        autocast=False,
        aggregation="only_first_replica",
        name=f"astrocyte_{name}",
    )


class AstrocyteModel(keras.Model):
    """A network that ``fit`` trains with astrocytes; made by :func:`astrocyte_model`.

    Its weights are the network's and the astrocytes' state. Store the network alone for inference.

    Attributes
    ----------
    network : keras.Model
    astrocytes : Astrocytes
    strong, weak : keras.Variable
        Float32 factors of the current epoch.
    """

    def __init__(
        self,
        network: keras.Model,
        astrocytes: Astrocytes,
        strong: float,
        weak: float,
        order: str,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.network, self.astrocytes, self.order = network, astrocytes, order
        self.strong, self.weak = (
            keras.Variable(float(v), dtype="float32", trainable=False, autocast=False, name=n)
            for v, n in ((strong, "astrocyte_strong"), (weak, "astrocyte_weak"))
        )
        self.counters, self.tick, self.tally = (
            astrocytes.counters,
            astrocytes.tick,
            astrocytes.tally,
        )
        self._pass = threading.local()

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Call the network; within a training step its convolutions are listened to."""
        if not (training and getattr(self._pass, "running", False)):
            return self.network(inputs, training=training)
        outputs, taken = self.astrocytes.forward(inputs)
        if self.order == "before":
            self.astrocytes.after_step(taken, self.strong.value, self.weak.value)
        self._pass.taken = taken
        return outputs

    def train_step(self, data: tuple) -> dict:
        """Keras' own training step, followed by the astrocytes."""
        self._pass.running = True
        try:
            logs = super().train_step(data)
            if self.order == "after":
                self.astrocytes.after_step(self._pass.taken, self.strong.value, self.weak.value)
        finally:
            self._pass.running, self._pass.taken = False, None
        return logs


def astrocyte_model(
    model: keras.Model,
    strong: float = 1.0,
    weak: float = 1.0,
    order: str = "after",
    **settings: Any,
) -> AstrocyteModel:
    """A model for ``compile`` and ``fit`` that shares its weights with `model` and trains it with
    astrocytes.

    Parameters
    ----------
    model : keras.Model
        Built.
    strong, weak : float
        Str and Weak until an :class:`AstrocyteSchedule` changes them.
    order : {"after", "before"}
        Scale after the optimizer's step, or within the forward pass as Algorithm 3 is printed (its
        gradients are those of the unscaled kernels).
    settings
        Of :class:`Astrocytes`.

    Raises
    ------
    BadAstrocytes
    """
    _check_choice("order", order, ORDERS)
    return AstrocyteModel(
        model,
        Astrocytes(model, **settings),
        strong,
        weak,
        order,
        name=f"{model.name}_with_astrocytes",
    )


class AstrocyteSchedule(keras.callbacks.Callback):
    """Callback that sets Str and Weak at the begin of each epoch.

    Parameters
    ----------
    factors : sequence of pairs
        (Str, Weak) of each epoch (rows of the thesis's Tables 4.3 to 4.6).

    Raises
    ------
    BadAstrocytes
        At the begin of a training that is longer than the schedule, or of a model without
        astrocytes.
    """

    def __init__(self, factors: Iterable[tuple[float, float]]) -> None:
        super().__init__()
        self.factors = [(float(strong), float(weak)) for strong, weak in factors]

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Check model and length."""
        if not isinstance(self.model, AstrocyteModel):
            raise BadAstrocytes(
                "This model has no astrocytes to schedule; make it with astrocyte_model."
            )
        if self.params.get("epochs", 0) > len(self.factors):
            raise BadAstrocytes(
                f"The astrocytes' schedule has {len(self.factors)} epochs, the training "
                f"{self.params['epochs']}; give factors for each."
            )

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Assign the factors of this epoch."""
        for variable, value in zip(
            (self.model.strong, self.model.weak), self.factors[epoch], strict=False
        ):
            variable.assign(value)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Let astrocytes decide that do so once an epoch."""
        self.model.astrocytes.end_epoch(*self.factors[epoch])
