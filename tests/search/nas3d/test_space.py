"""The genome, its networks and their costs against the released code (tests/oracles/README.md)."""

import itertools
import json

import numpy as np
import pytest
from reference_values import oracle

from kit.search.nas3d import space as nas3d_space
from kit.search.nas3d.released import RELEASED
from kit.search.nas3d.space import OPERATIONS, BadNetwork, Infeasible, Network3D, Space

P0 = np.random.RandomState(42).uniform(size=(20, 29))
START = dict(enumerate(P0)) | {21 + n: 1 - x for n, x in enumerate(P0)}
INFEASIBLE = {
    "disconnected": {2, 30, 37, 38},
    "no operation": {10, 27, 40},
    "too many edges": {3, 5, 9, 16, 19, 23, 35},
}
EDGES_PARAMETERS = {  # number: edges after pruning, parameters with dead weights for 2 classes
    0: (4, 600450),
    1: (3, 44266),
    4: (7, 31994),
    6: (5, 76330),
    7: (6, 1019442),
    8: (6, 304658),
    11: (3, 220442),
    12: (6, 285026),
    13: (4, 960738),
    14: (4, 60346),
    15: (2, 71858),
    17: (3, 35730),
    18: (7, 712050),
    21: (5, 78706),
    22: (5, 280322),
    24: (4, 10018),
    25: (4, 562210),
    26: (7, 1016226),
    28: (3, 7474),
    29: (5, 70434),
    31: (9, 6359202),
    32: (5, 156866),
    33: (4, 160874),
    34: (6, 89242),
    36: (6, 64610),
    39: (3, 32594),
}


def operation(index, filters=8, cells=1, stacks=1):
    return Network3D(((0, 1, 0), (0, 0, 1), (0, 0, 0)), (index,), cells, stacks, filters)


def test_operations():
    assert len(OPERATIONS) == 15
    assert [op.kernel for op in OPERATIONS] == [3, 5, 7] * 5
    assert [op.norm for op in OPERATIONS] == [True] * 9 + [False] * 6
    assert [nas3d_space.NAMES[n] for n in (0, 4, 8, 9, 13)] == [
        "conv3-norm-relu",
        "conv5-norm-mish",
        "norm-mish-conv7",
        "relu-conv3",
        "mish-conv5",
    ]
    counts = {
        0: (1752, 6960, 27744),
        1: (8024, 32048, 128096),
        2: (21976, 87856, 351328),
        9: (1736, 6928, 27680),
        10: (8008, 32016, 128032),
        14: (21960, 87824, 351264),
    }
    assert {
        index: tuple(OPERATIONS[index].parameters(c) for c in (8, 16, 32)) for index in counts
    } == counts


def test_levels_at_their_edges():
    assert [
        nas3d_space.level(*pair) for pair in [(0.5, 2), (0.4999999, 2), (1, 15), (1 / 3, 3), (0, 3)]
    ] == [1, 0, 14, 1, 0]
    for wrong in (np.zeros(28), np.full(29, 1.1), np.full(29, np.nan)):
        with pytest.raises(BadNetwork):
            nas3d_space.decode(wrong)


def test_first_candidate():
    assert nas3d_space.levels(P0[0]) == (
        0,
        1,
        1,
        1,
        0,
        0,
        0,
        1,
        1,
        1,
        0,
        1,
        1,
        0,
        0,
        0,
        0,
        1,
        0,
        0,
        1,
        2,
        4,
        5,
        6,
        11,
        0,
        1,
        1,
    )
    matrix, operations = nas3d_space.raw(P0[0])
    assert matrix.sum() == 10
    assert operations == (2, 4, 5, 6, 11)
    assert nas3d_space.prune(matrix, operations)[2] == (0, 2, 3, 6)
    assert nas3d_space.decode(P0[0]) == Network3D(
        ((0, 1, 1, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 0, 0)), (4, 5), 1, 2, 16
    )


def test_the_forty_initial_candidates():
    told = {number: nas3d_space.reason(x) for number, x in START.items()}
    assert {
        reason: {n for n, r in told.items() if r == reason} for reason in INFEASIBLE
    } == INFEASIBLE
    networks = {
        number: nas3d_space.decode(x) for number, x in START.items() if told[number] is None
    }
    assert {
        n: (net.edges, nas3d_space.parameters(net, 2)) for n, net in networks.items()
    } == EDGES_PARAMETERS
    assert nas3d_space.parameters(networks[32], 11) == 157163
    assert networks[32] == RELEASED["organ-32"].network
    assert networks[26] == RELEASED["synapse-26"].network
    with pytest.raises(Infeasible, match="too many edges"):
        nas3d_space.decode(START[9])


def test_the_forty_against_the_file():
    for item in oracle("pbcnas", "p0_seed42")["items"]:
        x = START[item["number"]]
        assert nas3d_space.levels(x) == tuple(item["config"])
        assert nas3d_space.raw(x)[0].sum() == item["raw_edges"]
        if item["status"] == "ok":
            matrix, operations, kept = nas3d_space.prune(*nas3d_space.raw(x))
            assert (list(kept), matrix.sum(), list(operations)) == (
                item["kept_vertices"],
                item["pruned_edges"],
                item["pruned_ops"],
            )
    for name, told in oracle("pbcnas", "models").items():
        x, short = np.array(told["chromosome"]), f"{name.split('mnist')[0]}-{told['solNo']}"
        assert nas3d_space.levels(x) == tuple(told["config"]) == RELEASED[short].levels
        assert nas3d_space.raw(x)[0].tolist() == told["org_matrix"]
        assert (
            nas3d_space.decode(x)
            == Network3D(
                told["matrix"], told["ops"], told["cells"], told["stacks"], told["filters"]
            )
            == RELEASED[short].network
        )


@pytest.mark.parametrize(
    ("name", "operations", "shape", "total", "dead", "macs"),
    [
        ("adrenal-90", (4, 9, 10), (1, 1, 8, 5), 18042, 16, 393906704),
        ("nodule-197", (3, 4, 5), (2, 2, 8, 6), 318010, 88, 2092113440),
        ("organ-72", (12, 2, 8, 1), (1, 1, 32, 9), 859819, 64, 18856241504),
        ("synapse-223", (12, 2, 0, 6), (2, 1, 16, 9), 218226, 304, 4774999072),
        ("organ-32", (7, 9), (1, 1, 32, 5), 157163, 64, 3435751776),
        ("synapse-26", (10, 14, 6), (2, 1, 32, 7), 1016226, 1120, 22273026112),
    ],
)
def test_released_networks(name, operations, shape, total, dead, macs):
    released = RELEASED[name]
    net = released.network
    assert net.operations == operations
    assert (net.cells, net.stacks, net.filters, net.edges) == shape
    assert nas3d_space.parameters(net, released.classes) == total
    assert nas3d_space.parameters(net, released.classes, dead=False) == total - dead
    assert nas3d_space.macs(net, released.classes) == macs
    assert nas3d_space.from_json(json.loads(json.dumps(nas3d_space.to_json(net)))) == net


def test_adrenal_cell_is_the_published_one():
    edges = {
        (a, b)
        for a, row in enumerate(RELEASED["adrenal-90"].network.matrix)
        for b, on in enumerate(row)
        if on
    }
    assert edges == {(0, 1), (0, 2), (1, 3), (2, 4), (3, 4)}


def test_extremes_of_the_space():
    smallest = operation(9)
    assert (nas3d_space.parameters(smallest, 2), nas3d_space.macs(smallest, 2)) == (2010, 42674704)
    chain = Network3D(np.eye(7, k=1, dtype=int), (2,) * 5, 2, 2, 32)
    assert (nas3d_space.parameters(chain, 2), nas3d_space.macs(chain, 2)) == (
        17572962,
        115689498752,
    )
    assert (
        nas3d_space.parameters(operation(0), 2, channels=3)
        == nas3d_space.parameters(operation(0), 2) + 2 * 27 * 8 + 2 * 8
    )
    assert (
        nas3d_space.macs(operation(9, stacks=2), 2, edge=9)
        == 27 * 8 * 9**3 + 27 * 64 * 9**3 + 64 * (8 * 16 + 27 * 256) + 32
    )


def test_rates_over_the_space():
    """Rates measured with the released code over 100,000 genomes; here 6,000, whose standard errors
    are below 0.01.
    """
    genomes = np.random.default_rng(5).random((6000, 29))
    told = [nas3d_space.reason(x) for x in genomes]
    rates = {reason: told.count(reason) / len(told) for reason in {*told}}
    assert rates == pytest.approx(
        {None: 0.665, "too many edges": 0.195, "no operation": 0.071, "disconnected": 0.069},
        abs=0.03,
    )
    networks = [
        nas3d_space.decode(x) for x, reason in zip(genomes, told, strict=True) if reason is None
    ]
    assert np.mean([net.edges for net in networks]) == pytest.approx(5.38, abs=0.15)
    assert np.mean([net.matrix[0][-1] for net in networks]) == pytest.approx(0.479, abs=0.03)
    assert np.bincount([len(net.operations) for net in networks])[1:] / len(
        networks
    ) == pytest.approx([0.224, 0.304, 0.336, 0.133, 0.004], abs=0.03)


def at(levels, **changes):
    levels = list(levels)
    for place, value in changes.items():
        levels[int(place[1:])] = value
    return nas3d_space.PAPER.genome(levels)


def test_the_phenotype_key_sees_what_is_built():
    base = RELEASED["adrenal-90"].levels
    assert nas3d_space.levels(at(base)) == base
    assert (
        nas3d_space.key(at(base))
        == nas3d_space.key(at(base, g21=3))
        != nas3d_space.key(at(base, g22=3))
    )  # vertex 1 is pruned, vertex 2 not
    assert nas3d_space.key(at(base)) != nas3d_space.key(at(base, g28=1))
    assert nas3d_space.key(START[2]) is None
    assert nas3d_space.key(at(base), "paper") == nas3d_space.key(at(base, g28=1, g26=1), "paper")
    with pytest.raises(BadNetwork):
        nas3d_space.key(at(base), "genotype")


def test_the_order_of_vertices_does_not_count():
    net = RELEASED["organ-72"].network
    matrix, same = np.array(net.matrix), set()
    for inner in itertools.permutations(range(1, 5)):
        order = [0, *inner, 5]
        if not np.tril(matrix[np.ix_(order, order)]).any():
            same.add(
                Network3D(
                    matrix[np.ix_(order, order)],
                    tuple(net.operations[v - 1] for v in inner),
                    1,
                    1,
                    32,
                )
            )
    assert len(same) == 2
    assert len({nas3d_space.canonical(other) for other in same}) == 1
    assert nas3d_space.canonical(net) in same
    assert nas3d_space.canonical(
        Network3D(net.matrix, net.operations[::-1], 1, 1, 32)
    ) != nas3d_space.canonical(net)


def dense_distance(a, b):
    """The released code's distance on its dense codes, written from its description: Hamming
    distance over itself plus the intersection.
    """
    universe = {side: sorted(a[side] | b[side], key=str) for side in (0, 1)}
    one, two = (
        np.array([item in code[side] for side in (0, 1) for item in universe[side]])
        for code in (a, b)
    )
    apart, common = (one != two).sum(), (one & two).sum()
    return apart / (apart + common)


def test_the_paper_key_is_a_distance_of_zero():
    genomes = [at(np.random.default_rng(n).integers(0, 2, 29)) for n in range(12)]
    codes = [nas3d_space.key(x, "paper") for x in [*genomes, *genomes[:3]]]
    for a, b in itertools.combinations(codes, 2):
        assert (a == b) == (dense_distance(a, b) == 0)
    direct = np.zeros((7, 7), int)
    direct[0, 6] = direct[0, 1] = 1
    assert nas3d_space.paths(direct, (3,) * 5) == {()}
    assert nas3d_space.degrees(direct, (3,) * 5) == {
        ("input", "out", 2),
        ("output", "in", 1),
        (3, "in", 1),
    }


def test_a_narrowed_space():
    space = Space(operations=(0, 1, 9), filters=(8,), stacks=(1,), edge=12)
    x = np.full(29, 0.99)
    x[:21] = nas3d_space.PAPER.genome(RELEASED["adrenal-90"].levels)[:21]
    assert space.decode(x).operations == (9, 9, 9)
    assert (
        space.decode(x).stacks,
        space.decode(x).filters,
    ) == (1, 8)
    assert space.cost(x) == nas3d_space.macs(space.decode(x), 2, 12)
    assert space.levels(space.genome(space.levels(x))) == space.levels(x)
    for wrong in ({"filters": ()}, {"operations": (15,)}, {"stacks": (9,)}):
        with pytest.raises(BadNetwork):
            Space(**wrong)


def test_networks_that_cannot_be():
    good = nas3d_space.to_json(operation(3))
    for wrong in (
        {"matrix": [[0, 1, 1], [0, 0, 0], [0, 0, 0]]},
        {"operations": ["conv4"]},
        {"cells": 0},
        {"matrix": [[0, 1], [0, 0]]},
        {"operations": []},
    ):
        with pytest.raises(BadNetwork):
            nas3d_space.from_json({**good, **wrong})
    with pytest.raises(BadNetwork):
        nas3d_space.from_json({"cells": 1})
