"""Metrics of a confusion matrix that fills batch by batch, for training loops and
``model.compile``.

Keras has no multi-class MCC, and its specificity and F1 are others than the thesis'. Here a K x K
matrix is counted and every rate comes from it by `kit.evaluation.metrics.overall_rates`, so a
streamed value equals the one of a finished table of predictions, however the images were batched.
As in the released code of the thesis, 0/0 counts as 0 (absent classes lower the macro averages);
unlike there, nothing is added to the denominators, so a perfect prediction has an F1 of 1 and not
of 0.999999.

A label outside of the classes, or a prediction that holds nan, is not dropped: the rates are nan
from then on, until the state is reset.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from kit.errors import KitError
from kit.evaluation import metrics


class BadBatch(KitError):
    """Labels or predictions of a batch do not fit the classes."""


@keras.saving.register_keras_serializable(package="kit")
class ConfusionMatrix(keras.metrics.Metric):
    """Confusion matrix of all batches since the last reset; rows are true classes, columns
    predicted ones.

    ``result()`` is the (K, K) float64 tensor. Logs of ``model.fit`` take scalars only: compile with
    :class:`MCC` and the other subclasses of :class:`Rate`.

    Parameters
    ----------
    classes : int
        K, at least 2.
    name, dtype
        As for every Keras metric.

    Raises
    ------
    BadBatch
        By ``update_state``, for shapes that do not fit; by :meth:`rates`, for labels outside of
        0..K-1 and predictions that hold nan.
    """

    def __init__(
        self, classes: int, name: str | None = None, dtype: str | keras.DTypePolicy | None = None
    ) -> None:
        super().__init__(name=name or "confusion", dtype=dtype)
        if classes < 2:
            raise BadBatch(
                f"A confusion matrix of {classes} classes says nothing; give at least 2."
            )
        self.classes = int(classes)
        self.matrix = self.add_variable(
            (self.classes, self.classes), "zeros", "float64", name="matrix"
        )

    def update_state(
        self,
        y_true: keras.KerasTensor,
        y_pred: keras.KerasTensor,
        sample_weight: keras.KerasTensor | None = None,
    ) -> None:
        """Count a batch.

        Parameters
        ----------
        y_true : (N, K) one-hot or soft, whose highest entry is the label, or (N,) or (N, 1) labels
            0..K-1
        y_pred : (N, K)
            Logits or probabilities; the class with the highest is predicted, the lower one of
            equals.
        sample_weight : (N,), optional
            What an image counts instead of 1.
        """
        labels, predicted, valid = self._classes_of(
            ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        )
        weight = (
            1.0 if sample_weight is None else ops.cast(ops.reshape(sample_weight, (-1,)), "float64")
        )
        weight = ops.where(valid, weight * ops.ones(ops.shape(labels), "float64"), np.nan)
        rows, columns = (ops.one_hot(k, self.classes, dtype="float64") for k in (labels, predicted))
        self.matrix.assign_add(ops.matmul(ops.transpose(rows), columns * weight[:, None]))

    def _classes_of(self, y_true, y_pred):
        """Labels, predicted classes, int32 (N,), and whether both can be counted."""
        if len(y_pred.shape) != 2 or y_pred.shape[-1] != self.classes:
            raise BadBatch(
                f"Predictions have the shape {tuple(y_pred.shape)}; {self.classes} classes need "
                f"(N, {self.classes}) logits or probabilities."
            )
        if len(y_true.shape) == 2 and y_true.shape[-1] == self.classes:
            labels = ops.argmax(y_true, -1)
        elif len(y_true.shape) == 1 or (len(y_true.shape) == 2 and y_true.shape[-1] == 1):
            labels = ops.reshape(y_true, (-1,))
        else:
            raise BadBatch(
                f"Targets have the shape {tuple(y_true.shape)}; {self.classes} classes need (N, "
                f"{self.classes}) one-hot or (N,) labels."
            )
        labels = ops.cast(labels, "int32")
        known = ops.logical_and(labels >= 0, labels < self.classes)
        return (
            labels,
            ops.cast(ops.argmax(y_pred, -1), "int32"),
            ops.logical_and(known, ops.logical_not(ops.any(ops.isnan(y_pred), -1))),
        )

    def result(self) -> keras.KerasTensor:
        """The matrix, float64 (K, K)."""
        return ops.convert_to_tensor(self.matrix)

    def rates(self) -> dict[str, float]:
        """All rates of `kit.evaluation.metrics.overall_rates` so far, as floats; outside of graphs
        only.
        """
        matrix = np.asarray(self.matrix)
        if not np.isfinite(matrix).all():
            raise BadBatch(
                f"A label outside of 0..{self.classes - 1} or a prediction that is nan was "
                "counted; reset the metric and check the batches."
            )
        return {
            name: float(rate)
            for name, rate in metrics.overall_rates(metrics.totals(matrix), absent="zero").items()
        }

    def get_config(self) -> dict[str, Any]:
        """What the metric is made again from."""
        return {**super().get_config(), "classes": self.classes}


@keras.saving.register_keras_serializable(package="kit")
class Rate(ConfusionMatrix):
    """One rate of the confusion matrix as a scalar, for ``model.compile(metrics=[...])``.

    Parameters
    ----------
    classes : int
    rate : str
        A name of `kit.evaluation.metrics.overall_rates`; also the default name, so that the logs
        say ``val_mcc``.
    name, dtype
        As for every Keras metric.

    Raises
    ------
    kit.evaluation.metrics.UnknownMetric
        If there is no such rate.
    """

    rate: Any = None

    def __init__(
        self,
        classes: int,
        rate: str | None = None,
        name: str | None = None,
        dtype: str | keras.DTypePolicy | None = None,
    ) -> None:
        rate = rate or type(self).rate
        if rate not in set(metrics.MULTICLASS) - {"macro_auc"}:
            raise metrics.UnknownMetric(
                f"No rate of a confusion matrix is called {rate!r}; choose from "
                f"{', '.join(sorted(metrics.MULTICLASS))}."
            )
        super().__init__(classes, name=name or rate, dtype=dtype)
        self.rate = rate

    def result(self) -> keras.KerasTensor:
        """The rate, float64 scalar; nan after a batch that could not be counted."""
        matrix = ops.convert_to_tensor(self.matrix)
        t = metrics.Totals(ops.diagonal(matrix), ops.sum(matrix, -1), ops.sum(matrix, -2))
        value = metrics.overall_rates(t, absent="zero", xp=ops)[self.rate]
        return ops.where(ops.all(ops.isfinite(matrix)), value, np.nan)

    def get_config(self) -> dict[str, Any]:
        """What the metric is made again from."""
        return {**super().get_config(), "rate": self.rate}


def _named(name: str, rate: str, text: str):
    made = type(
        name,
        (Rate,),
        {"rate": rate, "__doc__": f"{text}; see :class:`Rate`.", "__module__": __name__},
    )
    return keras.saving.register_keras_serializable(package="kit")(made)


MCC = _named(
    "MCC",
    "mcc",
    "Matthews' correlation coefficient of all classes (eq. 2.66, Gorodkin's), 0 where its "
    "denominator is 0",
)
MacroF1 = _named(
    "MacroF1", "macro_f1", "Mean of the classes' F1, which the released code of the thesis computes"
)
F1OfMacros = _named(
    "F1OfMacros", "f1_of_macros", "Harmonic mean of macro precision and macro recall (eq. 2.65)"
)
MacroPrecision = _named(
    "MacroPrecision", "macro_precision", "Mean of the classes' precision (eq. 2.63)"
)
MacroRecall = _named("MacroRecall", "macro_recall", "Mean of the classes' recall (eq. 2.64)")
MacroSpecificity = _named(
    "MacroSpecificity",
    "macro_specificity",
    "Mean of TN / (TN + FP) (eq. 2.62, whose printed denominator is wrong)",
)
