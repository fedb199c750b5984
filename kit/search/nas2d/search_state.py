"""What a search is made of between two steps, and the file that lets a killed search go on.

The reference codes save weights but neither the optimizer's moments nor the random state, so that a
resumed search is another search. Here the whole state is a set of lists of arrays, written
atomically after every epoch, and everything random follows from (seed, stage, epoch, step).
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kit import files
from kit.search.nas2d import audience, genotype, supernet

if TYPE_CHECKING:
    from kit.search.nas2d.search_config import SearchConfig

LISTS = ("weights", "buffers", "arch", "first", "second", "audience", "audience_buffers", "deltas")
MASKED = -1e3  # the softmax of it is exactly 0 in float32
TRAIN, LECTURE, VALIDATION, STEP, DELTA, INITIAL = range(
    0x5EA0, 0x5EA6
)  # keep the random streams apart


@dataclass
class State:
    """Arrays of a search in progress; lists of float32 tensors or arrays.

    Attributes
    ----------
    weights, buffers : list
        Explainer's weights and momentum buffers, as :func:`kit.search.nas2d.supernet.weight_shapes`
        orders them.
    arch, first, second : list
        Architecture weights and Adam's moments.
    updates : int
        Adam's steps so far.
    audience, audience_buffers : list
        Empty without LeaSE.
    deltas : list
        One array, the perturbation of every image of the first half, where LeaSE keeps them; else
        empty.
    survivors : tuple or None
        P-DARTS: (normal, reduce), per edge the primitive indices that are left.
    epoch : int
        Epochs done, over all stages.
    rows, snapshots : list of dict
        History and cells, one an epoch.
    """

    weights: list
    buffers: list
    arch: list
    first: list
    second: list
    audience: list
    audience_buffers: list
    deltas: list = field(default_factory=list)
    updates: int = 0
    survivors: tuple | None = None
    epoch: int = 0
    rows: list = field(default_factory=list)
    snapshots: list = field(default_factory=list)


def words(*key: int) -> np.ndarray:
    """int32 (2,) seed of TensorFlow's stateless functions from any number of integers of at least
    0.
    """
    return (np.random.SeedSequence(list(key)).generate_state(2) >> 1).astype(np.int32)


def number(*key: int) -> int:
    """One integer seed from several."""
    return int(words(*key)[0])


def order(rows: np.ndarray, batch_size: int, steps: int, *key: int) -> list[np.ndarray]:
    """One epoch's batches of row numbers: a permutation that follows from `key` alone, cut after
    `steps` batches (0: none); the last may be smaller.
    """
    shuffled = np.random.default_rng(key).permutation(np.sort(rows))
    batches = [shuffled[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    if (
        len(batches) > 1 and len(batches[-1]) < 2
    ):  # the batch statistics of a single image are no statistics
        batches.pop()
    return batches[: steps or None]


def drawn(rows: np.ndarray, batch_size: int, *key: int) -> np.ndarray:
    """A fresh search batch, without replacement, as the reference code re-shuffles for
    every step.
    """
    return np.random.default_rng(key).permutation(np.sort(rows))[:batch_size]


def begin(
    config: "SearchConfig",
    space: supernet.Space,
    size: int,
    stage: int,
    earlier: State | None = None,
    survivors: tuple | None = None,
) -> State:
    """A new stage: fresh explainer weights and architecture; the audience, the history and the
    snapshots of `earlier` go on.

    Parameters
    ----------
    config : kit.search.nas2d.search_config.SearchConfig
    space : kit.search.nas2d.supernet.Space
    size : int
        Side of the images in pixels.
    stage : int
        From 0.
    earlier : State, optional
    survivors : tuple, optional
        P-DARTS, see :class:`State`.
    """
    weights = supernet.initial_weights(space, number(INITIAL, config.seed, stage, 0))
    arch = [
        np.array(a) for a in supernet.initial_arch(space, number(INITIAL, config.seed, stage, 1))
    ]
    if survivors is not None and config.pruning == "mask":
        arch = [_masked(alpha, kept) for alpha, kept in zip(arch, survivors, strict=True)]
    if earlier is not None:
        told = {
            "audience": earlier.audience,
            "audience_buffers": earlier.audience_buffers,
            "deltas": earlier.deltas,
            "epoch": earlier.epoch,
            "rows": earlier.rows,
            "snapshots": earlier.snapshots,
        }
    else:
        listeners = (
            []
            if config.lease is None
            else audience.initial_weights(
                config.audience,
                space.classes,
                size,
                number(INITIAL, config.seed, 0, 2),
                **audience_options(config, space),
            )
        )
        told = {"audience": listeners, "audience_buffers": zeros(listeners)}
    return State(
        weights, zeros(weights), arch, zeros(arch), zeros(arch), survivors=survivors, **told
    )


def audience_options(config: "SearchConfig", space: supernet.Space) -> dict:
    """Keyword arguments that the functions of :mod:`kit.search.nas2d.audience` take besides name,
    classes, size and seed.
    """
    return {**config.audience_options, "input_channels": space.input_channels}


def zeros(arrays: list) -> list:
    """Zeros of the same shapes."""
    return [np.zeros_like(a) for a in arrays]


def _masked(alpha: np.ndarray, kept) -> np.ndarray:
    out = np.full_like(alpha, MASKED)
    for row, values, columns in zip(out, alpha, kept, strict=True):
        row[list(columns)] = values[list(columns)]
    return out


def columns(alpha: np.ndarray, kept: tuple) -> np.ndarray:
    """The surviving columns of a masked alpha, (14, n)."""
    return np.stack(
        [
            np.asarray(row)[list(columns)]
            for row, columns in zip(np.asarray(alpha), kept, strict=True)
        ]
    )


def visible_arch(config: "SearchConfig", state: State) -> list:
    """Architecture weights as NumPy arrays, without masked columns."""
    arch = [np.asarray(a) for a in state.arch]
    if state.survivors is not None and config.pruning == "mask":
        arch = [columns(alpha, kept) for alpha, kept in zip(arch, state.survivors, strict=True)]
    return arch


@dataclass(frozen=True)
class _Kept:
    normal: tuple | None
    reduce: tuple | None


def cells(config: "SearchConfig", state: State) -> tuple[genotype.Genotype, genotype.Genotype]:
    """The cells as they are now: with P-DARTS' restriction of skip connections (what a search ends
    with), and without (what it prefers).
    """
    arch = visible_arch(config, state)
    if config.family != "pdarts":
        found = genotype.derive(config.family, arch)
        return found, found
    kept = _Kept(*(state.survivors or (None, None)))
    free = genotype.final_cells(arch, kept.normal, kept.reduce)
    limited = (
        free
        if config.most_skips is None
        else genotype.restrict_skips(arch, kept.normal, kept.reduce, config.most_skips)
    )
    return limited, free


def distance(first: list, second: list) -> float:
    """Euclidean distance of two lists of arrays of the same shapes."""
    return float(np.sqrt(sum(np.square(b - a).sum() for a, b in zip(first, second, strict=True))))


def save(file: Path, state: State) -> None:
    """Write the state atomically."""
    arrays = {
        f"{name}{n}": np.asarray(a) for name in LISTS for n, a in enumerate(getattr(state, name))
    }
    told = {
        "counts": {name: len(getattr(state, name)) for name in LISTS},
        "updates": int(state.updates),
        "survivors": state.survivors,
        "epoch": state.epoch,
        "rows": state.rows,
        "snapshots": state.snapshots,
    }
    with files.atomic_write(file) as temporary:
        np.savez(temporary, told=json.dumps(told), **arrays)


def load(file: Path) -> State:
    """Read a state.

    Raises
    ------
    kit.files.DamagedRecord
    """
    try:
        with np.load(file) as stored:
            told = json.loads(str(stored["told"]))
            lists = {
                name: [stored[f"{name}{n}"] for n in range(told["counts"][name])] for name in LISTS
            }
    except (OSError, ValueError, KeyError) as error:
        raise files.DamagedRecord(
            f"{file} cannot be read ({error}); delete it and run again."
        ) from error
    survivors = told["survivors"] and tuple(
        tuple(tuple(edge) for edge in cell) for cell in told["survivors"]
    )
    return State(
        **lists,
        updates=told["updates"],
        survivors=survivors,
        epoch=told["epoch"],
        rows=told["rows"],
        snapshots=told["snapshots"],
    )
