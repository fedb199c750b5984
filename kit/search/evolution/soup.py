"""Gen-Soup, chapter 5 of the thesis: a genetic algorithm whose individuals go on training, and
whose offspring inherit their parents' averaged weights.

No code of chapter 5 is public; what the text leaves open is settled here, and each choice is a
setting: all individuals of an architecture start from the same weights, head included; moving
statistics are averaged with the weights and may be measured anew; if they are, every individual of
the search is judged by its own recalibrated statistics, averaged or not; every generation has a new
optimizer; the elite trains on like the others; the cosine falls over all epochs of the search;
images grow by a rounded line and stay at full size for the last generations. An individual that
diverges, does not fit into memory or needs an optimizer that cannot run gets the worst fitness with
its reason and leaves no weights: whoever descends from it takes the other parent's, or begins anew.

Each individual is on disk when it is done, and the algorithm after each generation, so that an
interrupted search goes on to the same result; the weights of at most two generations and of the
best individual are kept.
"""

import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from kit import files
from kit.data.inputs import Inputs, PartRows
from kit.errors import KitError
from kit.search.evolution import averaging
from kit.search.evolution.genetic import GeneticAlgorithm
from kit.search.evolution.genome import Genome
from kit.search.evolution.plan import AllFailed
from kit.search.evolution.soup_settings import SoupSettings
from kit.training import predictions, short, short_network
from kit.training import train as train_module
from kit.training.optimizers import RefusedRule

STATE, BEST = "state.json", "best.npz"


class OtherStart(KitError):
    """Weights on disk do not descend from the initial weights at hand."""


class Nursery:
    """Trains and judges individuals on images, each architecture by its one traced network.

    Parameters
    ----------
    network : kit.training.short.Network
        Its architecture is replaced by the individual's.
    inputs : kit.data.inputs.Inputs
    parts : mapping
        Row numbers of "train", "val" and what else is to be predicted later.
    settings : SoupSettings
    """

    def __init__(
        self, network: short.Network, inputs: Inputs, parts: PartRows, settings: SoupSettings
    ) -> None:
        self.network, self.inputs, self.parts, self.settings = network, inputs, parts, settings
        self.failures = (train_module.Diverged, predictions.OutOfMemory, RefusedRule)

    def trainer(self, architecture: str) -> short.Trainer:
        """The trainer of an architecture."""
        return short.trainer(replace(self.network, architecture=architecture))

    def start(self, architecture: str) -> list:
        """Weights that all individuals of an architecture descend from."""
        return self.trainer(architecture).initial

    def train(
        self, values: dict, weights: list | None, generation: int, seed: int
    ) -> tuple[list, dict]:
        """Weights after the generation's epochs, and what to note (no name of a gene):
        training_loss, decisions of the astrocytes, zeroed filters.
        """
        given = self.settings
        done = self.trainer(values["architecture"]).train(
            values,
            self.inputs,
            self.parts["train"],
            epochs=given.epochs,
            size=given.sizes[generation],
            batch_size=given.batch_size,
            seed=seed,
            first_epoch=generation * given.epochs,
            of_epochs=given.generations * given.epochs if given.cosine else None,
            decay_mode=given.decay_mode,
            cosine_floor=given.cosine_floor,
            weights=weights,
        )
        strong, weak, neither = done.tally or (0, 0, 0)
        return done.weights, {
            "training_loss": done.history[-1]["loss"],
            "strong_decisions": strong,
            "weak_decisions": weak,
            "no_decisions": neither,
            "zeroed": done.zeroed,
        }

    def fitness(self, architecture: str, weights: list | None, size: int) -> float:
        """MCC on the validation images."""
        doer = self.trainer(architecture)
        return short_network.rates(
            doer.predict(self.inputs, self.parts["val"], size, "val", weights=weights)
        )["mcc"]

    def recalibrate(self, architecture: str, weights: list | None, size: int) -> list:
        """The same weights with moving statistics that the training pipeline measures anew."""
        return self.trainer(architecture).recalibrate(
            self.inputs,
            self.parts["train"],
            size,
            batch_size=self.settings.batch_size,
            seed=self.settings.seed,
            weights=weights,
        )


class Search:
    """A search in a folder; :meth:`run` begins it or goes on.

    Parameters
    ----------
    folder : path-like
    settings : SoupSettings
    genome : kit.search.evolution.genome.Genome
        With a gene "architecture".
    nursery : Nursery
        Or anything with its methods and `failures`, the errors that an individual may fail with.

    Attributes
    ----------
    algorithm : GeneticAlgorithm
    rows : list of dict
        One an individual: values, fitness, reason, how it came to its weights ("initial", "elite",
        "averaged" or "copied"), size, training_loss, ancestor.
    """

    def __init__(
        self, folder: Path | str, settings: SoupSettings, genome: Genome, nursery: Nursery
    ) -> None:
        self.folder, self.settings, self.genome, self.nursery = (
            Path(folder),
            settings,
            genome,
            nursery,
        )
        state = files.read_json(self.folder / STATE, default=None)
        self.algorithm = (
            GeneticAlgorithm.from_state(state["algorithm"])
            if state
            else GeneticAlgorithm(settings.genetic(genome))
        )
        self.rows, self._ancestors = state["rows"] if state else [], {}

    def run(self, until: int | None = None) -> "Search":
        """Search to the end, or until so many generations are told.

        Raises
        ------
        AllFailed
            If no individual of the whole search could be trained.
        OtherStart
        """
        while not self.algorithm.finished and (until is None or self.algorithm.generation < until):
            self._generation()
        if self.algorithm.finished and self.algorithm.best is None:
            raise AllFailed(
                f"No individual could be trained; the first failed so: {self.rows[0]['reason']}"
            )
        return self

    def _generation(self) -> None:
        g, algorithm = self.algorithm.generation, self.algorithm
        found = [
            self._individual(g, i, self.genome.decode(genes))
            for i, genes in enumerate(algorithm.ask())
        ]
        algorithm.tell([row["fitness"] for row in found], [row["reason"] for row in found])
        for row, evaluation in zip(found, algorithm.told[-1]["evaluations"], strict=True):
            self.rows.append({**row, "evaluation": float(evaluation)})
        best = algorithm.best
        if best and best["generation"] == g:
            with files.atomic_write(self.folder / BEST) as temporary:
                shutil.copyfile(self.file(g, best["individual"]), temporary)
        files.write_json(self.folder / STATE, {"algorithm": algorithm.state(), "rows": self.rows})
        for earlier in range(g):
            shutil.rmtree(self._place(earlier), ignore_errors=True)

    def _individual(self, g: int, i: int, values: dict) -> dict:
        note = self.file(g, i).with_suffix(".json")
        stored = files.read_json(note, default=None)
        if stored:
            return stored
        started, lineage = time.perf_counter(), self.algorithm.lineage
        row = {
            "generation": g,
            "individual": i,
            **values,
            "size": self.settings.sizes[g],
            "origin": lineage.origin[i],
            "first": int(lineage.parents[i, 0]),
            "second": int(lineage.parents[i, 1]),
            "share": float(lineage.shares[i, 0]),
            "fitness": None,
            "reason": None,
        }
        try:
            row["ancestor"] = self._ancestor(values["architecture"])
            weights, row["inheritance"] = self._inherited(g, i, values["architecture"])
            seed = int(
                np.random.SeedSequence([self.settings.seed, g, i]).generate_state(1)[0] % 2**31
            )
            weights, more = self.nursery.train(values, weights, g, seed)
            row |= more | {"fitness": self._fitness(values["architecture"], weights, row["size"])}
            save(self.file(g, i), weights)
        except self.nursery.failures as error:
            row |= {"fitness": None, "reason": str(error)}
        files.write_json(note, row | {"seconds": round(time.perf_counter() - started, 3)})
        return files.read_json(note)

    def _fitness(self, architecture: str, weights: list, size: int) -> float:
        """By recalibrated statistics if the settings say so: of all individuals or of none. The
        weights that are kept have those of training.
        """
        if self.settings.recalibrate:
            weights = self.nursery.recalibrate(architecture, weights, size)
        return float(self.nursery.fitness(architecture, weights, size))

    def _inherited(self, g: int, i: int, architecture: str) -> tuple[list | None, str]:
        """Initial weights of an individual (None: the architecture's own) and how it came
        to them.
        """
        lineage, parents = self.algorithm.lineage, {}
        for row, share in zip(lineage.parents[i].tolist(), lineage.shares[i], strict=True):
            if g and self._alive(g - 1, row, architecture):
                parents[row] = parents.get(row, 0.0) + float(share)
        # a parent of share 0 gives nothing: the other one's weights are copied
        parents = {row: share for row, share in parents.items() if share > 0} or parents
        if not parents:
            return None, "initial"
        better = int(lineage.parents[i, lineage.better[i]])
        if len(parents) == 1 or self.settings.inheritance == "better":
            chosen = better if better in parents else next(iter(parents))
            return load(self.file(g - 1, chosen)), "elite" if lineage.origin[
                i
            ] == "elite" else "copied"
        mixed = averaging.average(
            [load(self.file(g - 1, row)) for row in parents], list(parents.values())
        )
        return mixed, "averaged"

    def _alive(self, g: int, i: int, architecture: str) -> bool:
        """Whether an individual of the generation before left weights of this architecture; they
        must descend from the same start.
        """
        note = files.read_json(self.file(g, i).with_suffix(".json"))
        if note["reason"] or note["architecture"] != architecture:
            return False
        if note["ancestor"] != self._ancestor(architecture):
            raise OtherStart(
                f"The search in {self.folder} began with other initial weights of {architecture}; "
                "delete the folder to begin anew."
            )
        return True

    def _ancestor(self, architecture: str) -> str:
        if architecture not in self._ancestors:
            self._ancestors[architecture] = digest(self.nursery.start(architecture))
        return self._ancestors[architecture]

    def _place(self, g: int) -> Path:
        return self.folder / f"generation-{g:03d}"

    def file(self, g: int, i: int) -> Path:
        """Where the weights of an individual are, as long as its generation is kept."""
        return self._place(g) / f"{i:03d}.npz"

    @property
    def history(self) -> pd.DataFrame:
        """One row an individual told; a failed one has the worst fitness."""
        table = pd.DataFrame(self.rows)
        return table.assign(
            fitness=table["fitness"].astype(float).fillna(self.settings.genetic(self.genome).worst)
        ).drop(columns="seconds")

    @property
    def best(self) -> dict:
        """The row of the individual with the highest fitness of the whole search."""
        found = self.algorithm.best
        return next(
            row
            for row in self.rows
            if (row["generation"], row["individual"]) == (found["generation"], found["individual"])
        )

    def final_members(self) -> list[dict]:
        """Rows of the last generation's individuals that have the architecture of its best, best
        first: what a soup can be made of.
        """
        last = [
            row
            for row in self.rows
            if row["generation"] == self.settings.generations - 1 and row["reason"] is None
        ]
        ordered = sorted(last, key=lambda row: (-row["fitness"], row["individual"]))
        return [row for row in ordered if row["architecture"] == ordered[0]["architecture"]]

    def weights(self, row: dict) -> list:
        """Weights of an individual of the last generation."""
        return load(self.file(row["generation"], row["individual"]))

    def kinship(self, first: dict, second: dict) -> int | None:
        """Generations back to the latest individual from which both inherit weights; None if they
        share the initial weights only.

        Raises
        ------
        OtherStart
            If they do not even share those.
        """
        if first["ancestor"] != second["ancestor"]:
            raise OtherStart(
                "The two networks do not descend from the same initial weights; their average "
                "means nothing."
            )
        a, b = {first["individual"]}, {second["individual"]}
        rows = {(row["generation"], row["individual"]): row for row in self.rows}
        for g in range(first["generation"], -1, -1):
            if a & b:
                return first["generation"] - g
            a, b = (
                {p for i in group for p in self._weight_parents(rows, g, i)} for group in (a, b)
            )
        return None

    def _weight_parents(self, rows, g: int, i: int) -> list:
        """Parents whose weights went into an individual's; a parent of share 0 has no part."""
        row = rows[g, i]
        if g == 0 or row.get("inheritance") in (None, "initial"):
            return []
        both = [
            p
            for p in {row["first"], row["second"]}
            if not rows[g - 1, p]["reason"]
            and rows[g - 1, p]["architecture"] == row["architecture"]
        ]
        return (
            both
            if row["inheritance"] == "averaged"
            else sorted(both, key=lambda p: -rows[g - 1, p]["fitness"])[:1]
        )


def save(path: Path | str, weights: list) -> None:
    """Write weights as npz with the arrays "0", "1", ..., atomically."""
    with files.atomic_write(path) as temporary:
        np.savez(temporary, **{str(k): w for k, w in enumerate(weights)})


def load(path: Path | str) -> list[np.ndarray]:
    """Weights that :func:`save` wrote."""
    with np.load(path) as arrays:
        return [arrays[str(k)] for k in range(len(arrays.files))]


def digest(weights: list[np.ndarray]) -> str:
    """Sixteen hex digits that tell weights apart."""
    total = hashlib.sha256()
    for array in weights:
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:16]


def soups(members: list[list[np.ndarray]], score_of: Callable) -> dict:
    """The three soups of a population and what they consist of: name -> (weights, shares).

    Parameters
    ----------
    members : list of lists of numpy.ndarray
    score_of : callable
        Weights -> fitness, NaN where they give no numbers; it judges members and soups alike.
    """
    n = len(members)
    stirred, ingredients, _ = averaging.greedy(members, score_of)
    scores = [score_of(member) for member in members]
    by_fitness = averaging.proportions(scores if np.isfinite(scores).any() else [0.0] * n)
    return {
        "uniform": (averaging.uniform(members), [1 / n] * n),
        "greedy": (stirred, [(k in ingredients) / len(ingredients) for k in range(n)]),
        "weighted": (averaging.average(members, by_fitness), by_fitness.tolist()),
    }


def moving_average(trained: list, momentum: float) -> list:
    """Exponential moving average of one training's weights over its epochs, as
    ``keras.callbacks.SwapEMAWeights`` takes it over steps, but of moving statistics as well.

    Parameters
    ----------
    trained : list of lists of numpy.ndarray
        Weights after each epoch.
    momentum : float
        In [0, 1).
    """
    mean = trained[0]
    for weights in trained[1:]:
        mean = averaging.average([mean, weights], [momentum, 1 - momentum])
    return mean
