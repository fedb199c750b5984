"""Genes in [0, 1] and what they stand for: the encoding of Gen-CNN and Gen-Soup (thesis sections
3.2 and 5.1, Figures 3.2 and 5.1).

As in the thesis, every gene is a number in [0, 1]: a categorical one is cut into bins of equal
width, a continuous one is mapped affinely onto its range, so that nine in ten learning-rate scales
lie above 0.1; a logarithmic map is offered beside it. The released code decodes a category by
rounding an affine map, which differs from equal bins for genes within 0.0001 of an edge; here the
bins are KerasTuner's (``prob_to_value``), so that both give the same values. The thesis prints
three orders of the genes; an order matters because the probabilities of crossover and mutation are
vectors (Tables 3.4 and 5.1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from kit.errors import KitError
from kit.models import architecture_catalog
from kit.training import names as training_names

if TYPE_CHECKING:
    import keras_tuner

ORDERS = {
    "table-3.4": ("architecture", "loss", "optimizer", "learning_rate", "weight_decay"),
    "code": ("architecture", "loss", "optimizer", "weight_decay", "learning_rate"),
    "figure-3.2": ("architecture", "learning_rate", "weight_decay", "loss", "optimizer"),
}
LEARNING_RATES = {"text": (1e-5, 1.0), "code": (1e-6, 1.0)}
WEIGHT_DECAY = (1e-9, 0.1)
FACTORS = (0.5, 1.5)


class BadGenome(KitError):
    """A gene has no values, an impossible range, or the genes given do not fit the genome."""


@dataclass(frozen=True)
class Gene:
    """One gene.

    Attributes
    ----------
    name : str
        Key of the decoded value.
    values : tuple of str
        What a categorical gene chooses from; empty for a continuous one.
    low, high : float
        Range of a continuous gene.
    scale : str
        "linear" (thesis) or "log".

    Raises
    ------
    BadGenome
    """

    name: str
    values: tuple = ()
    low: float = 0.0
    high: float = 1.0
    scale: str = "linear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        if self.scale not in ("linear", "log"):
            raise BadGenome(
                f'The scale of gene "{self.name}" is "{self.scale}"; choose linear or log.'
            )
        if not self.values and not (
            self.low < self.high and (self.scale == "linear" or self.low > 0)
        ):
            raise BadGenome(
                f'Gene "{self.name}" needs low < high (and low > 0 on a log scale), not '
                f"{self.low:g} and {self.high:g}."
            )

    def decode(self, gene: float) -> str | float:
        """Value of a gene in [0, 1]: an entry of `values`, or a float in [low, high]."""
        gene = float(gene)
        if not 0.0 <= gene <= 1.0:  # NaN too
            raise BadGenome(f'Gene "{self.name}" is {gene}, which is not in [0, 1].')
        if self.values:
            return self.values[min(math.floor(gene / (1 / len(self.values))), len(self.values) - 1)]
        if self.scale == "log":
            return self.low * math.pow(self.high / self.low, gene)
        return gene * (self.high - self.low) + self.low

    def encode(self, value: str | float) -> float:
        """Gene in [0, 1] that decodes to `value`; the middle of its bin for a category."""
        if self.values:
            if value not in self.values:
                raise BadGenome(
                    f'"{value}" is no value of gene "{self.name}"; choose one of '
                    f"{', '.join(self.values)}."
                )
            return (self.values.index(value) + 0.5) / len(self.values)
        if not self.low <= value <= self.high:
            raise BadGenome(
                f'Gene "{self.name}" ranges from {self.low:g} to {self.high:g}; {value:g} lies '
                "outside."
            )
        if self.scale == "log":
            return min(max(math.log(value / self.low) / math.log(self.high / self.low), 0.0), 1.0)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Genome:
    """Genes in a fixed order.

    Attributes
    ----------
    genes : tuple of Gene
    """

    genes: tuple

    def __post_init__(self) -> None:
        object.__setattr__(
            self,
            "genes",
            tuple(gene if isinstance(gene, Gene) else Gene(**gene) for gene in self.genes),
        )
        if not self.genes or len(set(self.names)) != len(self.genes):
            raise BadGenome(
                "A genome needs at least one gene and no name twice, not: "
                f"{', '.join(self.names) or 'none'}."
            )

    def __len__(self) -> int:
        return len(self.genes)

    @property
    def names(self) -> tuple:
        """Names of the genes, in order."""
        return tuple(gene.name for gene in self.genes)

    def decode(self, row: ArrayLike) -> dict:
        """Values of one individual, by name.

        Parameters
        ----------
        row : array-like
            (genes,) floats in [0, 1].

        Raises
        ------
        BadGenome
            If there are more or fewer numbers than genes, or one is not in [0, 1].
        """
        row = np.asarray(row, float)
        if row.shape != (len(self),):
            raise BadGenome(
                f"An individual of this genome has {len(self)} genes, not an array of shape "
                f"{row.shape}."
            )
        return {gene.name: gene.decode(value) for gene, value in zip(self.genes, row, strict=True)}

    def encode(self, values: dict) -> np.ndarray:
        """The inverse of :meth:`decode`: (genes,) floats; entries of `values` that are no gene are
        left out.
        """
        return np.array([gene.encode(values[gene.name]) for gene in self.genes])

    def hyperparameters(self) -> "keras_tuner.HyperParameters":
        """The same space as ``keras_tuner.HyperParameters``."""
        import keras_tuner

        space = keras_tuner.HyperParameters()
        for gene in self.genes:
            if gene.values:
                space.Choice(gene.name, list(gene.values))
            else:
                space.Float(gene.name, gene.low, gene.high, sampling=gene.scale)
        return space


def chapter3(
    order: str = "table-3.4",
    rates: str = "text",
    scale: str = "linear",
    architectures: Sequence[str] = architecture_catalog.TABLE_3_1,
) -> Genome:
    """The five genes of Gen-CNN (Table 3.1 and section 3.2).

    Parameters
    ----------
    order : str
        "table-3.4", "code" or "figure-3.2".
    rates : str
        Range of the factor on the optimizer's nominal learning rate: "text" [1e-5, 1] or "code"
        [1e-6, 1].
    scale : str
        "linear" (thesis) or "log", of learning rate and weight decay.
    architectures : sequence of str
        Names that the first gene chooses from.
    """
    return _ordered(
        ORDERS[order], architectures, training_names.OPTIMIZERS_3, LEARNING_RATES[rates], scale
    )


def chapter5(
    astrocytes: bool = True,
    scale: str = "linear",
    architectures: Sequence[str] = architecture_catalog.TABLE_5_2,
) -> Genome:
    """The genes of Gen-Soup (Table 5.2): five, and with astrocytes the factors Str and Weak, all in
    the order of Table 3.4: in that of Table 5.1's caption its probabilities of crossover would
    blend loss and optimizer, and never the rates.
    """
    plain = _ordered(
        ORDERS["table-3.4"],
        architectures,
        training_names.OPTIMIZERS_5,
        LEARNING_RATES["text"],
        scale,
    )
    factors = (
        Gene("strong", low=FACTORS[0], high=FACTORS[1]),
        Gene("weak", low=FACTORS[0], high=FACTORS[1]),
    )
    return Genome(plain.genes + factors * astrocytes)


def _ordered(order, architectures, optimizers, rates, scale) -> Genome:
    genes = {
        "architecture": Gene("architecture", tuple(architectures)),
        "loss": Gene("loss", training_names.LOSSES),
        "optimizer": Gene("optimizer", optimizers),
        "learning_rate": Gene("learning_rate", low=rates[0], high=rates[1], scale=scale),
        "weight_decay": Gene(
            "weight_decay", low=WEIGHT_DECAY[0], high=WEIGHT_DECAY[1], scale=scale
        ),
    }
    return Genome(tuple(genes[name] for name in order))
