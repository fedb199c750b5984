"""What a short training is told of its network, and what it gives back."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Required, TypedDict

import numpy as np
import pandas as pd

from kit.data.inputs import Inputs
from kit.errors import KitError
from kit.evaluation import metrics


class BadShortTraining(KitError):
    """A setting of a short training is out of range, or weights of another network are
    handed over.
    """


@dataclass(frozen=True)
class Network:
    """What a traced step depends on.

    Attributes
    ----------
    architecture : str
        Key of `kit.models.architecture_catalog.ARCHITECTURES`.
    classes, channels : int
    weights : None, "auto", "imagenet" or path
        Initial weights, see :func:`kit.models.architectures.build`; the head is random and shared
        by all trainings.
    seed : int
        Of the random initial weights.
    bn_momentum : float or None
        Of every BatchNormalization; the networks' own need thousands of steps.
    augmentation : bool
        The thesis' augmentation on training images.
    brightness : float
        Of the augmentation's jitter, the only one of colours that the released code has.
    mixing : {"off", "choice", "cutmix", "mixup"}
        CutMix or MixUp of the batches (:func:`kit.data.augment.mixing.mix`).
    astrocytes : {"off", "algorithm", "released"}
    decisions : int
        NG, batches to a decision of the astrocytes.
    threshold : float
        AS, counter beyond which a filter is scaled.
    reading : str
        How Algorithm 3 is read, see :data:`kit.models.astrocyte_readings.READINGS`.
    order : {"after", "before"}
        Kernels are scaled after the optimizer's step, or before it as in the printed forward pass.
    settings : {"code", "text"}
        Nominal learning rates and momenta, see `kit.training.optimizers.SETTINGS`.
    """

    architecture: str
    classes: int
    channels: int = 3
    weights: str | None = "auto"
    seed: int = 0
    bn_momentum: float | None = 0.9
    augmentation: bool = True
    brightness: float = 0.5
    mixing: str = "off"
    astrocytes: str = "off"
    decisions: int = 4
    threshold: float = 2.0
    reading: str = "literal"
    order: str = "after"
    settings: str = "code"

    def __post_init__(self) -> None:
        if self.order not in ("after", "before"):
            raise BadShortTraining(
                f"There is no order {self.order!r} of scaling and step; choose after or before."
            )


class Values(TypedDict, total=False):
    """What a search decides of a training, as the genes of a candidate do: names of loss and
    optimizer, the factor a on the optimizer's nominal rate (eq. 3.1), weight decay, and the
    astrocytes' factors Str and Weak of all epochs.
    """

    loss: Required[str]
    optimizer: Required[str]
    learning_rate: Required[float]
    weight_decay: Required[float]
    strong: float
    weak: float


@dataclass(frozen=True, kw_only=True)
class Course:
    """What holds for all epochs of a training: images, batches, sides of the crop and before it,
    place of the loss, rate.
    """

    inputs: Inputs
    rows: np.ndarray
    batches: list
    seed: int
    sides: tuple
    loss: int
    rate: float
    of_epochs: int | None
    floor: float


@dataclass
class Trained:
    """Outcome of one training.

    Attributes
    ----------
    weights : list of numpy.ndarray
        As ``model.get_weights()``, moving statistics included.
    history : list of dict
        One an epoch: epoch (from 1), loss, seconds, and what `watch` gave.
    tally : list of int
        Decisions of the astrocytes: filters that met Str, Weak and neither.
    zeroed : int
        Filters whose kernel is zero everywhere at the end.
    """

    weights: list
    history: list
    tally: list = field(default_factory=list)
    zeroed: int = 0


def check_lengths(
    epochs: int, size: int, batch_size: int, images: int, factors: Sequence | None
) -> None:
    """Refuse a training that is too short or small, or has not one pair of factors an epoch.

    Raises
    ------
    BadShortTraining
    """
    if epochs < 1 or size < 8 or batch_size < 2 or images < 2:
        raise BadShortTraining(
            f"epochs {epochs}, size {size}, batch_size {batch_size} and {images} images; at "
            "least 1, 8, 2 and 2 are needed."
        )
    if factors is not None and len(factors) != epochs:
        raise BadShortTraining(
            f"factors has {len(factors)} rows for {epochs} epochs; give a pair (Str, Weak) for "
            "each."
        )


def batches_of(count: int, size: int) -> list:
    """Limits of the batches of an epoch; a last one of a single image is left out."""
    limits = [(start, min(start + size, count)) for start in range(0, count, size)]
    return limits[:-1] if len(limits) > 1 and limits[-1][1] - limits[-1][0] == 1 else limits


def rates(predictions: pd.DataFrame) -> dict:
    """Accuracy, macro rates, both F1 and MCC of a table of predictions
    (`kit.evaluation.metrics.overall_rates`); 0/0 counts as 0, as in the released code.
    """
    labels, scores = metrics.labels_and_scores(predictions)
    matrix = metrics.confusion(labels, scores.argmax(1), scores.shape[1])
    return {
        name: float(value)
        for name, value in metrics.overall_rates(metrics.totals(matrix), absent="zero").items()
    }
