"""Candidates of the publication's searches whose architecture is known: the winners that were
released, and two that its training script names.

Only architectures, as the 29 choices of their genomes, read from the released files.
organ-58, synapse-190, fracture-125 and vessel-247, which the authors trained as well, cannot be
reconstructed from what they released.
"""

from dataclasses import dataclass

from kit.search.nas3d.space import PAPER, Network3D


@dataclass(frozen=True)
class Released:
    """A candidate of the publication's search.

    Attributes
    ----------
    data : str
        The data set that it was found on.
    number : int
        The search's number of it.
    levels : tuple of int
        The 29 choices of its genome.
    classes : int
    note : str
    """

    data: str
    number: int
    levels: tuple
    classes: int
    note: str

    @property
    def key(self) -> str:
        """What the publication calls the data set."""
        return self.data.removesuffix("mnist3d")

    @property
    def network(self) -> Network3D:
        """The architecture."""
        return PAPER.decode(PAPER.genome(self.levels))


def _released(data, number, edges, rest, classes, note) -> Released:
    return Released(
        f"{data}mnist3d",
        number,
        tuple(int(bit) for bit in edges if bit != " ") + tuple(int(n) for n in rest.split()),
        classes,
        note,
    )


_WINNER, _NAMED = (
    "released with weights",
    "named in the training script; known because it is a member of the opposite initial set of "
    "seed 42",
)
RELEASED = {
    "adrenal-90": _released(
        "adrenal", 90, "111000 00000 0110 001 01 0", "13 4 9 10 11 0 0 0", classes=2, note=_WINNER
    ),
    "nodule-197": _released(
        "nodule", 197, "110010 01110 1111 011 00 0", "3 4 5 5 11 1 1 0", classes=2, note=_WINNER
    ),
    "organ-72": _released(
        "organ", 72, "100110 10001 0110 110 01 1", "12 2 6 8 1 0 0 2", classes=11, note=_WINNER
    ),
    "synapse-223": _released(
        "synapse", 223, "011100 00101 1100 001 11 1", "3 12 2 0 6 1 0 1", classes=2, note=_WINNER
    ),
    "organ-32": _released(
        "organ", 32, "100010 00011 1011 110 01 1", "7 7 12 8 9 0 0 2", classes=11, note=_NAMED
    ),
    "synapse-26": _released(
        "synapse", 26, "100110 11101 0010 100 01 0", "10 12 14 6 4 1 0 2", classes=2, note=_NAMED
    ),
}
