"""Settings of Gen-Soup, and the sizes of its images by generation."""

from dataclasses import dataclass

from kit.errors import KitError
from kit.search.evolution.genetic import CROSSOVER_5, MUTATION_5, GASettings, shrinking
from kit.search.evolution.genome import Genome

INHERITANCE = ("average", "better")


class BadSchedule(KitError):
    """Settings of Gen-Soup that contradict each other."""


@dataclass(frozen=True, kw_only=True)
class SoupSettings:
    """Settings of a search; the defaults are Table 5.1's, experiment 1.

    Attributes
    ----------
    generations : int
        20 in experiment 1, 35 in experiment 2.
    cosine : bool
        The rate falls by a cosine over the epochs of the search (experiment 1), or is constant
        (experiment 2).
    first, decrement, smallest : int
        Population.
    start, end, at_end : int
        Side of the images in the first generation and at the end, in pixels, and the generations
        that have the latter.
    epochs : int
        A generation.
    batch_size : int
        Not stated in the thesis.
    inheritance : {"average", "better"}
        Eq. 5.1, or the better parent's weights as they are, which tells what averaging is worth.
    recalibrate : bool
        Judge every individual by statistics that the training pipeline measures anew, averaged or
        not; False judges all by the moving statistics that training left.
    cosine_floor : float
        What the cosine falls to, as a fraction of the rate; not stated.
    decay_mode : str
        See :func:`kit.training.optimizers.decayed`.
    crossover, mutation : tuple of float
        By gene in the order of chapter 3 (see
        :func:`kit.search.evolution.genome.chapter5`); without astrocytes the first five count.
    opponents : int
        Of the tournament.
    seed : int

    Raises
    ------
    BadSchedule
    """

    generations: int = 20
    cosine: bool = True
    first: int = 50
    decrement: int = 5
    smallest: int = 10
    start: int = 224
    end: int = 302
    at_end: int = 10
    epochs: int = 1
    batch_size: int = 32
    inheritance: str = "average"
    recalibrate: bool = False
    decay_mode: str = "l2_all"
    cosine_floor: float = 0.1
    crossover: tuple = CROSSOVER_5
    mutation: tuple = MUTATION_5
    opponents: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if (
            min(self.generations, self.first, self.smallest, self.at_end, self.epochs) < 1
            or self.decrement < 0
            or self.start < 8
            or self.end < self.start
        ):
            raise BadSchedule(
                "Gen-Soup needs at least one generation, individual and epoch, and images of at "
                "least 8 pixels that do not shrink."
            )
        if self.inheritance not in INHERITANCE:
            raise BadSchedule(
                f"inheritance is {self.inheritance!r}; choose one of {', '.join(INHERITANCE)}."
            )

    @property
    def population(self) -> tuple:
        """Individuals of every generation."""
        return shrinking(self.generations, self.first, self.decrement, self.smallest)

    @property
    def sizes(self) -> tuple:
        """Side of the images in every generation."""
        return image_sizes(self.generations, self.start, self.end, self.at_end)

    def genetic(self, genome: Genome) -> GASettings:
        """Settings of the genetic algorithm; the architecture is the better parent's."""
        n = len(genome)
        return GASettings(
            self.generations,
            self.population,
            self.crossover[:n],
            self.mutation[:n],
            opponents=self.opponents,
            dominant=(genome.names.index("architecture"),),
            seed=self.seed,
        )


def image_sizes(generations: int, start: int = 224, end: int = 302, at_end: int = 10) -> tuple:
    """Side of the images by generation: a rounded line from `start` to `end`, which the last
    `at_end` generations have; no constant step in whole pixels fits both experiments.
    """
    growing = generations - at_end
    return tuple(
        round(start + (end - start) * min(1.0, g / growing)) if growing > 0 else end
        for g in range(generations)
    )
