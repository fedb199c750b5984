"""PyTorch's optimizers on one flat vector, and a Keras optimizer that switches between them while
the graph runs.

The thesis trains with PyTorch and lets a gene choose the optimizer. Keras' optimizers of the same
names follow other rules (epsilon inside the root, the rate inside the momentum buffer, decoupled
weight decay, another accumulator at the start) and Keras has no RAdam, ASGD and Rprop. A step here
equals PyTorch's to rounding. Hundreds of short trainings must not trace a graph each, so
:class:`Switched` holds rule, rate and weight decay in variables.

Differences on purpose: ASGD's average is not kept, because PyTorch never copies it into the model;
Rprop, which takes no weight decay in PyTorch, gets the penalty's gradient like the others, as eq.
2.60 of the thesis asks; LBFGS, which is in the thesis' list, is refused (see :func:`rule_index`).
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from kit.errors import KitError
from kit.training.rules import Scalar, scalar
from kit.training.update_rules import RULES, Settings, Vector, like

DECAY_MODES = ("l2_all", "l2_no_bias", "decoupled", "none_for_adam")
BIASES = (
    "bias",
    "beta",
)  # names of the variables that eq. 2.60 leaves out; beta is the bias of a batch normalisation
_TORCH_LR = {
    "adam": 1e-3,
    "sgd": 1e-3,
    "adamax": 2e-3,
    "rmsprop": 1e-2,
    "adamw": 1e-3,
    "adagrad": 1e-2,
    "asgd": 1e-2,
    "nadam": 2e-3,
    "radam": 1e-3,
    "rprop": 1e-2,
}
NOMINAL_LR = {"text": _TORCH_LR, "code": _TORCH_LR | {"sgd": 1e-2, "rmsprop": 1e-3}}


class UnknownRule(KitError):
    """No optimizer, weight-decay mode or group of settings has this name."""


class RefusedRule(KitError):
    """The optimizer is known, but cannot run here."""


class BadProgress(KitError):
    """A position before the start of a schedule, or a schedule without length."""


# what the thesis says ("default values of PyTorch") and what its released code does
SETTINGS = {"text": Settings(), "code": Settings(sgd_momentum=0.9, rmsprop_momentum=0.9)}


def rule_index(name: str) -> int:
    """Place of an optimizer in `RULES`, in any case and spelling of PyTorch or Keras ("NAdam",
    "RMSprop").

    Raises
    ------
    RefusedRule
        For LBFGS: it evaluates the loss several times a step and assumes the loss of the full
        batch, so it cannot run in a step on one batch. A search gives such an individual the worst
        fitness.
    UnknownRule
    """
    spelled = str(name).lower()
    if spelled == "lbfgs":
        raise RefusedRule(
            "LBFGS evaluates the full loss several times a step and cannot run on single batches; "
            "give it the worst fitness."
        )
    return _place(spelled, tuple(RULES), "optimizer")


def _place(name: str, names: tuple, what: str) -> int:
    if name not in names:
        raise UnknownRule(f"No {what} is called {name!r}; choose from {', '.join(names)}.")
    return names.index(name)


def cosine(step: Scalar, total: Scalar, minimum: float = 0.1) -> Scalar:
    """Factor of the learning rate after `step` of `total` steps: a cosine from 1 to `minimum`,
    which it keeps from there on, as in the thesis' released code.

    Parameters
    ----------
    step, total : int or float, or scalar tensors
        In the same unit, steps or epochs; `step` counts from 0.
    minimum : float

    Returns
    -------
    float, or float64 scalar tensor if `step` or `total` is a tensor

    Raises
    ------
    BadProgress
        For numbers: if `step` is negative or `total` is not positive.
    """
    if tf.is_tensor(step) or tf.is_tensor(total):
        part = tf.minimum(scalar(step, tf.float64) / scalar(total, tf.float64), 1.0)
        return minimum + (1 - minimum) * (1 + tf.cos(math.pi * part)) / 2
    if step < 0 or total <= 0:
        raise BadProgress(
            f"Step {step} of {total} is not part of a schedule; steps count from 0 and there is at "
            "least one."
        )
    return minimum + (1 - minimum) * (1 + math.cos(math.pi * min(step / total, 1))) / 2


# --- weight decay ---------------------------------------------------------------------------------


def decayed(
    theta: Vector,
    gradient: Vector,
    biases: int,
    rule: int | tf.Tensor,
    mode: int | tf.Tensor,
    lr: Scalar,
    weight_decay: Scalar,
) -> tuple[Vector, Vector]:
    """Apply weight decay to the parameters or to their gradient, before the rule.

    Parameters
    ----------
    theta, gradient : (n,) float
    biases : int
        How many of the parameters are biases, the last ones; only "l2_no_bias" looks at it.
    rule, mode : int32 scalar
        Places in `RULES` and `DECAY_MODES`. "l2_all": gradient + decay * theta, what PyTorch's
        ``weight_decay`` does; "l2_no_bias": the gradient of eq. 2.60, decay * |theta without
        biases| ** 2, so twice as strong; "decoupled": theta shrinks by lr * decay; "none_for_adam":
        as "l2_all", but nothing for Adam, as in the released code. AdamW shrinks theta in every
        mode, as in PyTorch.
    lr, weight_decay : float scalar

    Returns
    -------
    theta, gradient : (n,) float
    """
    mode, rule = tf.cast(mode, tf.int32), tf.cast(rule, tf.int32)
    without_bias = tf.equal(mode, DECAY_MODES.index("l2_no_bias"))
    exempt = tf.equal(mode, DECAY_MODES.index("none_for_adam")) & tf.equal(rule, rule_index("adam"))
    shrinks = tf.equal(mode, DECAY_MODES.index("decoupled")) | tf.equal(rule, rule_index("adamw"))
    strength = like(weight_decay, theta) * tf.where(
        exempt, like(0.0, theta), tf.where(without_bias, like(2.0, theta), like(1.0, theta))
    )
    of_biases = tf.where(without_bias, tf.zeros_like(strength), strength)
    each = tf.concat(
        [tf.fill([theta.shape[0] - biases], strength), tf.fill([biases], of_biases)], 0
    )
    shrunk, charged = (
        (lambda: (theta * (1 - like(lr, theta) * each), gradient)),
        (lambda: (theta, gradient + each * theta)),
    )
    return tf.cond(shrinks, shrunk, charged)


# --- the Keras optimizer --------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="kit")
class Switched(keras.optimizers.Optimizer):
    """An optimizer whose rule, learning rate and weight decay are variables, so that one traced
    step serves them all.

    Gradients and parameters are joined into one vector, one ``tf.switch_case`` takes the step, and
    the parts are assigned. Variables `rule` and `decay_mode` (int32, places in `RULES` and
    `DECAY_MODES`), `learning_rate`, `weight_decay` and three slots as long as all parameters
    together are saved and restored with the model. A parameter without gradient stays as it is.

    Parameters
    ----------
    rule, decay_mode : str
        See `RULES` and :func:`decayed`.
    learning_rate, weight_decay : float
    settings : {"code", "text"}
        See `SETTINGS`; fixed, not a variable.
    **options
        As for every Keras optimizer (``global_clipnorm``, ``name``, ...).

    Raises
    ------
    UnknownRule, RefusedRule
    """

    def __init__(
        self,
        rule: str = "adam",
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        decay_mode: str = "l2_all",
        settings: str = "code",
        **options: Any,
    ) -> None:
        _place(settings, tuple(SETTINGS), "group of settings")
        number, mode = rule_index(rule), _place(decay_mode, DECAY_MODES, "weight-decay mode")
        super().__init__(learning_rate=learning_rate, **options)
        self.settings = settings
        self.rule = self._number(number, "rule", "int32")
        self.decay_mode = self._number(mode, "decay_mode", "int32")
        self.weight_decay = self._number(weight_decay, "weight_decay", "float32")
        self.slots: list[keras.Variable] = []

    def _number(self, value, name, dtype):
        return self.add_variable(
            (), keras.initializers.Constant(value), dtype, "only_first_replica", name=name
        )

    def configure(
        self,
        rule: str | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        decay_mode: str | None = None,
    ) -> None:
        """Set what is given, by name, from outside of the graph; the memory stays (see
        :meth:`reset`).

        Raises
        ------
        UnknownRule, RefusedRule
        """
        if rule is not None:
            self.rule.assign(rule_index(rule))
        if decay_mode is not None:
            self.decay_mode.assign(_place(decay_mode, DECAY_MODES, "weight-decay mode"))
        if learning_rate is not None:
            self.learning_rate = learning_rate
        if weight_decay is not None:
            self.weight_decay.assign(weight_decay)

    def reset(self) -> None:
        """Forget all steps, as a new optimizer: zero the slots and the count of steps."""
        for variable in [self._iterations, *self.slots]:
            variable.assign(tf.zeros(variable.shape, variable.dtype))

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Make the slots for these parameters."""
        if self.built:
            return
        super().build(variables)
        self.order = sorted(
            range(len(variables)), key=lambda k: variables[k].name in BIASES
        )  # biases last; stable
        self.sizes = [math.prod(variables[k].shape) for k in self.order]
        self.biases = sum(math.prod(v.shape) for v in variables if v.name in BIASES)
        self.precision = "float64" if any(v.dtype == "float64" for v in variables) else "float32"
        self.slots = [
            self.add_variable((sum(self.sizes),), "zeros", self.precision, name=f"slot_{k}")
            for k in range(3)
        ]

    def get_config(self) -> dict[str, Any]:
        """What the optimizer is made again from, with the present values of its variables."""
        rule, mode, decay = (
            int(self.rule.numpy()),
            int(self.decay_mode.numpy()),
            float(self.weight_decay.numpy()),
        )
        return {
            **super().get_config(),
            "rule": tuple(RULES)[rule],
            "decay_mode": DECAY_MODES[mode],
            "weight_decay": decay,
            "settings": self.settings,
        }

    def _apply_weight_decay(self, variables):
        """Nothing: :func:`decayed` does it within the step."""

    def _distributed_tf_update_step(self, distribution, grads_and_vars, learning_rate):
        known = {
            self._get_variable_index(variable): gradient for gradient, variable in grads_and_vars
        }
        slots, variables = (
            [slot.value for slot in self.slots],
            [self._trainable_variables[k].value for k in self.order],
        )
        gradients = [known.get(k) for k in self.order]
        # given to update() as arguments, distributed values arrive as those of the device
        distribution.extended.update(
            slots[0], self._step, args=(slots[1:], variables, gradients, learning_rate), group=False
        )

    def _step(self, slot, slots, variables, gradients, lr):
        slots, lr = [slot, *slots], tf.cast(tf.convert_to_tensor(lr), self.precision)
        gradient = self._join(
            [
                tf.zeros_like(v) if g is None else g
                for v, g in zip(variables, gradients, strict=True)
            ]
        )
        rule, mode, decay = (
            tf.convert_to_tensor(v) for v in (self.rule, self.decay_mode, self.weight_decay)
        )
        theta, gradient = decayed(
            self._join(variables),
            gradient,
            biases=self.biases,
            rule=rule,
            mode=mode,
            lr=lr,
            weight_decay=tf.cast(decay, self.precision),
        )
        theta, memory = self._switch(
            rule, theta, gradient, [tf.convert_to_tensor(s) for s in slots], lr
        )
        for slot, value in zip(slots, memory, strict=True):
            slot.assign(value)
        for variable, given, part in zip(
            variables, gradients, tf.split(theta, self.sizes), strict=True
        ):
            if given is not None:
                variable.assign(tf.cast(tf.reshape(part, variable.shape), variable.dtype))

    def _join(self, tensors):
        return tf.concat([tf.cast(tf.reshape(t, [-1]), self.precision) for t in tensors], 0)

    def _switch(self, number, theta, gradient, slots, lr):
        step, settings = tf.convert_to_tensor(self.iterations) + 1, SETTINGS[self.settings]
        branches = [
            lambda rule=rule: rule(theta, gradient, slots, step=step, lr=lr, settings=settings)
            for rule in RULES.values()
        ]

        def broken():  # a number that is no rule must not pass for the last one
            return theta * float("nan"), slots

        return tf.switch_case(number, branches, default=broken)
