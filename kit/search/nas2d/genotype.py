"""Cells: what a search ends with, how it is read off the architecture weights, and the file that it
is kept in.

The three families read their weights in three ways, as their authors'
code does: DARTS keeps the two strongest edges of a node, PC-DARTS first multiplies by the weight of
the edge, P-DARTS prunes operations stage by stage and then limits the skip connections of the
normal cell. The publication prints its cells as pictures only; here they are small JSON files with
the field names of the authors' ``Genotype``, so that other people's code can read them. The warning
of collapse is our own: the publication does not speak of it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from kit import files
from kit.errors import KitError

if TYPE_CHECKING:
    from kit.search.nas2d.space import Space

PRIMITIVES = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
SHORT = (
    "none",
    "max",
    "avg",
    "skip",
    "sep3",
    "sep5",
    "dil3",
    "dil5",
)  # the same, for drawings and compact notation
NONE, SKIP = PRIMITIVES.index("none"), PRIMITIVES.index("skip_connect")
NODES = 4  # intermediate nodes of a cell; states 0 and 1 are its inputs, 2 to 5 the nodes
EDGES = tuple(
    (node, source) for node in range(NODES) for source in range(2 + node)
)  # 14, node by node, predecessors ascending
SKIPS_OF_PUBLISHED_CELLS = 3  # the most in a normal cell of `LITERALS`; P-DARTS allows 2


class BadGenotype(KitError):
    """A cell that cannot be built, or a file that holds no cells."""


class UnknownFamily(KitError):
    """A search space that is none of DARTS, PC-DARTS and P-DARTS."""


@dataclass(frozen=True)
class Genotype:
    """A normal and a reduction cell.

    Attributes
    ----------
    normal, reduce : tuple of (str, int)
        Two pairs (operation, predecessor) for each of the four nodes in turn; predecessor 0 is
        c_{k-2}, 1 is c_{k-1}, 2 to 5 the nodes.
    concat : tuple of int
        States whose channels the cell's output joins.

    Raises
    ------
    BadGenotype
        If there are not eight pairs, an operation is unknown or ``none``, or a predecessor comes
        after its node.
    """

    normal: tuple
    reduce: tuple
    concat: ClassVar[tuple] = (2, 3, 4, 5)

    def __post_init__(self) -> None:
        for name in ("normal", "reduce"):
            object.__setattr__(self, name, _checked(getattr(self, name), name))


def _checked(cell, name: str) -> tuple:
    try:
        pairs = tuple((str(operation), int(source)) for operation, source in cell)
    except (TypeError, ValueError):
        raise BadGenotype(
            f"The {name} cell is {cell!r}; give eight pairs (operation, predecessor)."
        ) from None
    if len(pairs) != 2 * NODES:
        raise BadGenotype(
            f"The {name} cell has {len(pairs)} pairs; it must have {2 * NODES}, two a node."
        )
    for place, (operation, source) in enumerate(pairs):
        if operation not in PRIMITIVES[1:]:
            raise BadGenotype(
                f"The {name} cell names the operation {operation!r}; choose among "
                f"{', '.join(PRIMITIVES[1:])}."
            )
        if not 0 <= source < 2 + place // 2:
            raise BadGenotype(
                f"Node {place // 2} of the {name} cell reads state {source}; only 0 to "
                f"{1 + place // 2} come before it."
            )
    return pairs


def cell(text: str) -> tuple:
    """A cell from the compact notation ``"sep3:1 skip:0 ..."``: `SHORT` name, colon,
    predecessor.
    """
    parts = [part.split(":") for part in text.split()]
    return tuple((PRIMITIVES[SHORT.index(word)], int(source)) for word, source in parts)


# published cells, facts from the repositories of DARTS, PC-DARTS and P-DARTS; searched on CIFAR-10
# but for PC_DARTS_image
LITERALS = {
    "DARTS_V1": Genotype(
        cell("sep3:1 sep3:0 skip:0 sep3:1 skip:0 sep3:1 sep3:0 skip:2"),
        cell("max:0 max:1 skip:2 max:0 max:0 skip:2 skip:2 avg:0"),
    ),
    "DARTS_V2": Genotype(
        cell("sep3:0 sep3:1 sep3:0 sep3:1 sep3:1 skip:0 skip:0 dil3:2"),
        cell("max:0 max:1 skip:2 max:1 max:0 skip:2 skip:2 max:1"),
    ),
    "PC_DARTS_cifar": Genotype(
        cell("sep3:1 skip:0 sep3:0 dil3:1 sep5:0 sep3:1 avg:0 dil3:1"),
        cell("sep5:1 max:0 sep5:1 sep5:2 sep3:0 sep3:3 sep3:1 sep3:2"),
    ),
    "PC_DARTS_image": Genotype(
        cell("skip:1 sep3:0 sep3:0 skip:1 sep3:1 sep3:3 sep3:1 dil5:4"),
        cell("sep3:0 skip:1 dil5:2 max:1 sep3:2 sep3:1 sep5:0 sep3:3"),
    ),
    "PDARTS": Genotype(
        cell("skip:0 dil3:1 skip:0 sep3:1 sep3:1 sep3:3 sep3:0 dil5:4"),
        cell("avg:0 sep5:1 sep3:0 dil5:2 max:0 dil3:1 dil3:1 dil5:3"),
    ),
}


def softmax(weights: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in float64."""
    shifted = np.exp(np.asarray(weights, np.float64) - np.max(weights, axis=-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def derive(family: str, arch: list, space: "Space | None" = None) -> Genotype:
    """Read both cells off the architecture weights.

    Parameters
    ----------
    family : {"darts", "pcdarts", "pdarts"}
    arch : list of array-like
        alpha of the normal and of the reduction cell, (14, columns) each, and for PC-DARTS beta of
        both, (14,) each.
    space : kit.search.nas2d.supernet.Space, optional
        Only its `normal` and `reduce` are read: per edge the indices of the operations that
        survived (P-DARTS); None means all eight.

    Returns
    -------
    Genotype
        For P-DARTS with at most two skip connections in the normal cell.

    Raises
    ------
    UnknownFamily
    """
    alphas = arch[:2]
    if family == "darts":
        return Genotype(*(strongest(softmax(alpha)) for alpha in alphas))
    if family == "pcdarts":
        return Genotype(
            *(
                strongest(softmax(alpha) * edge_weights(beta)[:, None])
                for alpha, beta in zip(alphas, arch[2:], strict=True)
            )
        )
    if family == "pdarts":
        return restrict_skips(alphas, *_survivors(space))
    raise UnknownFamily(
        f"There is no search space {family!r}; choose one of darts, pcdarts, pdarts."
    )


def _survivors(space) -> tuple:
    every = (tuple(range(len(PRIMITIVES))),) * len(EDGES)
    return tuple(getattr(space, name, None) or every for name in ("normal", "reduce"))


def edge_weights(beta: np.ndarray) -> np.ndarray:
    """PC-DARTS' edge normalisation: softmax of (14,) betas over the edges that enter the
    same node.
    """
    beta, nodes = np.asarray(beta, np.float64), np.array([node for node, _ in EDGES])
    return np.concatenate([softmax(beta[nodes == node]) for node in range(NODES)])


def strongest(weights: np.ndarray) -> tuple:
    """DARTS' rule: per node the two edges with the largest weight of an operation
    other than ``none``, strongest first.

    Parameters
    ----------
    weights : numpy.ndarray
        (14, 8), float; ties go to the lower index.
    """
    weights, pairs = np.delete(weights, NONE, axis=1), []
    for node in range(NODES):
        edges = [number for number, (end, _) in enumerate(EDGES) if end == node]
        best = sorted(edges, key=lambda edge: -weights[edge].max())[:2]  # sorting is stable
        pairs += [(PRIMITIVES[1:][weights[edge].argmax()], EDGES[edge][1]) for edge in best]
    return tuple(pairs)


def keep_operations(
    alpha: np.ndarray, survivors: tuple | None, keep: int, final: bool = False
) -> tuple:
    """P-DARTS: of each edge's operations the `keep` with the largest softmax weight.

    Parameters
    ----------
    alpha : array-like
        (14, columns), one column a surviving operation, in primitive order.
    survivors : sequence of 14 tuples of int, or None
        Primitive indices of the columns; None means all eight.
    keep : int
        5 and 3 after the first two stages, 1 after the last.
    final : bool
        ``none`` goes first, whatever its weight: the rule of the last stage; in the others it
        counts like any operation.

    Returns
    -------
    tuple of 14 tuples of int
        Primitive indices, ascending.
    """
    weights, kept = softmax(alpha), []
    for row, columns in zip(weights, survivors or _survivors(None)[0], strict=True):
        value = [
            -1.0 if final and index == NONE else weight
            for weight, index in zip(row, columns, strict=True)
        ]
        order = np.argsort(-np.array(value), kind="stable")[:keep]
        kept.append(tuple(sorted(columns[place] for place in order)))
    return tuple(kept)


def final_cells(alphas: list, normal: tuple | None, reduce: tuple | None) -> Genotype:
    """P-DARTS after the last stage, skip connections not limited.

    One operation an edge, ``none`` excluded; node 1 keeps both edges, the others the two with the
    largest weight, predecessors ascending.

    Parameters
    ----------
    alphas : list of two array-like
        (14, columns) of the normal and the reduction cell.
    normal, reduce : sequences of 14 tuples of int, or None
        Primitive indices of the columns.
    """
    every = _survivors(None)[0]
    return Genotype(
        *(
            _pruned(_table(alpha, kept or every))
            for alpha, kept in zip(alphas, (normal, reduce), strict=False)
        )
    )


def _table(alpha, survivors) -> np.ndarray:
    """Softmax weights by primitive, (14, 8): 0 for ``none``, -1 for operations that did not
    survive.
    """
    table = np.full((len(EDGES), len(PRIMITIVES)), -1.0)
    for row, weights, columns in zip(table, softmax(alpha), survivors, strict=True):
        row[list(columns)] = np.where(np.array(columns) == NONE, 0.0, weights)
    return table


def _pruned(table) -> tuple:
    choice, pairs = table[:, 1:].argmax(1) + 1, []
    for node in range(NODES):
        edges = [number for number, (end, _) in enumerate(EDGES) if end == node]
        best = sorted(edges, key=lambda edge: (table[edge].max(), edge))[-2:]
        pairs += [(PRIMITIVES[choice[edge]], EDGES[edge][1]) for edge in sorted(best)]
    return tuple(pairs)


def restrict_skips(
    alphas: list, normal: tuple | None, reduce: tuple | None, most: int = 2
) -> Genotype:
    """P-DARTS' final cells with at most `most` skip connections in the normal cell; arguments as
    for `final_cells`.

    While there are too many, the one with the smallest weight loses it, and operations and edges
    are picked anew.
    """
    found = final_cells(alphas, normal, reduce)
    table = _table(alphas[0], normal or _survivors(None)[0])
    while skip_connections(found)["normal"] > most:
        present = [edge for edge, pair in _placed(found.normal) if pair[0] == PRIMITIVES[SKIP]]
        table[min(present, key=lambda edge: table[edge, SKIP]), SKIP] = 0.0
        found = Genotype(_pruned(table), found.reduce)
    return found


def _placed(pairs) -> list:
    """(edge number, pair) of a cell's pairs."""
    return [(EDGES.index((place // 2, pair[1])), pair) for place, pair in enumerate(pairs)]


def skip_connections(genotype: Genotype) -> dict:
    """Number of skip connections, 0 to 8, in the "normal" and in the "reduce" cell."""
    return {
        name: sum(operation == PRIMITIVES[SKIP] for operation, _ in getattr(genotype, name))
        for name in ("normal", "reduce")
    }


def collapse(genotype: Genotype, most: int = SKIPS_OF_PUBLISHED_CELLS) -> str | None:
    """One sentence of warning where skip connections dominate the normal cell, the known way in
    which such searches collapse; else None.

    Skip connections let gradients through from the start and so win over convolutions that are not
    trained yet; cells full of them have few parameters and generalise badly (P-DARTS, section 3.3
    of its paper, limits them to two for this reason).

    Parameters
    ----------
    genotype : Genotype
    most : int
        Skip connections among the eight operations that are not warned of; published normal cells
        have one to three.
    """
    count = skip_connections(genotype)["normal"]
    if count <= most:
        return None
    return (
        f"{count} of the 8 operations of the normal cell are skip connections (published cells "
        f"have 1 to {SKIPS_OF_PUBLISHED_CELLS}): the search has probably "
        "collapsed; take the cells of an earlier epoch, search for fewer epochs, or limit the skip "
        "connections."
    )


def random_genotype(seed: int) -> Genotype:
    """Two cells drawn uniformly: per node two different predecessors, ascending, and for each an
    operation other than ``none``.
    """
    rng = np.random.default_rng([seed, 30])

    def draw() -> tuple:
        pairs = []
        for node in range(NODES):
            sources = sorted(rng.choice(2 + node, 2, replace=False))
            pairs += [
                (PRIMITIVES[rng.integers(1, len(PRIMITIVES))], int(source)) for source in sources
            ]
        return tuple(pairs)

    return Genotype(draw(), draw())


def to_json(genotype: Genotype, path: Path | str, **facts: Any) -> None:
    """Write the cells as a small JSON file with the field names of the authors' ``Genotype``:
    normal, normal_concat, reduce, reduce_concat.

    Parameters
    ----------
    genotype : Genotype
    path : path-like
    **facts
        Further JSON values worth keeping with the cells (method, seed, epoch, data); ignored when
        the file is read.
    """
    concat = list(genotype.concat)
    files.write_json(
        path,
        {
            "normal": genotype.normal,
            "normal_concat": concat,
            "reduce": genotype.reduce,
            "reduce_concat": concat,
            **facts,
        },
    )


def from_json(path: Path | str) -> Genotype:
    """Read cells from a file that `to_json` or anyone else wrote.

    Raises
    ------
    BadGenotype
        If the file holds no cells of this kind.
    kit.files.DamagedRecord
        If it cannot be read.
    """
    stored = files.read_json(path)
    if not isinstance(stored, dict) or not {"normal", "reduce"} <= set(stored):
        raise BadGenotype(
            f'{path} holds no cells; it needs "normal" and "reduce", each a list of eight '
            "[operation, predecessor]."
        )
    for name in ("normal_concat", "reduce_concat"):
        if tuple(stored.get(name, Genotype.concat)) != Genotype.concat:
            raise BadGenotype(
                f"{path} joins the states {stored[name]}; only cells that join "
                f"{list(Genotype.concat)} can be built."
            )
    return Genotype(stored["normal"], stored["reduce"])
