"""The differential evolution against the traces of the released code (tests/oracles/README.md), its
repaired mode, resume, and a function that it optimises.
"""

import json

import numpy as np
import pytest
from reference_values import oracle
from scipy.optimize import differential_evolution

from kit.search.evolution.genetic import OutOfTurn
from kit.search.evolution.opposition import BUDGET, EXHAUSTED, ODE, run
from kit.search.evolution.opposition_settings import BadSettings, Box, ODESettings
from kit.search.nas3d import space as nas3d_space

PAPER = ODESettings(mode="paper")
# generation: trained, number, best fitness, best number, mean fitness, sum of genes, infeasible,
# duplicates
TRACES = {
    "A": [
        (42, 60, 0.2812045523, 32, 0.2364477629, 310.83383772, 18, 0),
        (55, 80, 0.2929969187, 61, 0.2480117482, 315.7150442, 25, 0),
        (70, 100, 0.3059092148, 81, 0.2580627856, 317.01781679, 30, 0),
        (85, 120, 0.3735026506, 114, 0.2719961019, 318.91186737, 35, 0),
        (116, 160, 0.3830713032, 131, 0.2954392657, 325.93611733, 44, 0),
        (151, 200, 0.3830713032, 131, 0.320467078, 326.89493889, 49, 0),
        (183, 240, 0.4643385313, 201, 0.3506026079, 333.51593843, 57, 0),
        (200, 260, 0.4643385313, 201, 0.3640475812, 333.20909691, 60, 0),
    ],
    "B": [
        (44, 60, 0.8571428571, 54, 0.5928571429, 295.8449403, 16, 0),
        (58, 80, 0.8571428571, 77, 0.65, 300.08653785, 22, 0),
        (73, 100, 0.8571428571, 96, 0.6928571429, 299.37347116, 27, 0),
        (88, 120, 0.8571428571, 117, 0.6928571429, 302.67280619, 32, 0),
        (119, 160, 0.8571428571, 81, 0.7714285714, 296.38047259, 41, 0),
        (151, 200, 0.8571428571, 161, 0.8571428571, 305.15970468, 49, 0),
        (180, 237, 0.8571428571, 161, 0.8571428571, 305.15970468, 57, 3),
        (195, 257, 0.8571428571, 257, 0.8571428571, 301.24610532, 62, 3),
        (201, 277, 0.8571428571, 257, 0.8571428571, 301.24610532, 62, 3),
    ],
}
BEST = {
    "A": (201, "011111 01011 0111 111 11 0", (11, 9, 10, 11, 10, 1, 0, 1)),
    "B": (257, "010101 01011 1101 000 01 0", (8, 9, 2, 6, 2, 1, 0, 0)),
}


def stub_a(x):
    return 1 / (1 + ((x - 0.7) ** 2).sum())


def stub_b(x):
    net = nas3d_space.decode(x)
    return (10 * net.edges + len(set(net.operations))) % 7 / 7


STUBS = {"A": stub_a, "B": stub_b}


def traced(name):
    """The search, and the sum of its population's genes after every generation."""
    search, sums = ODE(PAPER, nas3d_space.PAPER), {}
    while not search.finished:
        candidate = search.ask()[0]
        search.tell(candidate.evaluation, STUBS[name](candidate.genes))
        sums.setdefault(
            search.books.generations[-1]["generation"] if search.books.generations else -1,
            sum(member.genes.sum() for member in search.population),
        )
    return search, sums


@pytest.mark.parametrize("name", ["A", "B"])
def test_traces_of_the_released_code(name):
    search, sums = traced(name)
    ends = search.books.generations[1:]
    assert [g["generation"] for g in ends] == list(range(len(TRACES[name])))
    assert [g["generation"] for g in ends if g["jumped"]] == [4, 5, 6]
    for told, (trained, number, best, best_number, mean, genes, infeasible, duplicates) in zip(
        ends, TRACES[name], strict=True
    ):
        last = max(
            c.number
            for c in search.log
            if c.number is not None and c.generation <= told["generation"]
        )
        assert (
            told["trained"],
            last,
            told["best"],
            told["infeasible"],
            told["duplicates"],
            len(told["population"]),
        ) == (trained, number, best_number, infeasible, duplicates, 20)
        assert [told["best_fitness"], np.mean(told["fitness"])] == pytest.approx(
            [best, mean], abs=6e-11
        )
        assert sums[told["generation"]] == pytest.approx(genes, abs=6e-9)
    number, edges, rest = BEST[name]
    assert search.best.number == number
    assert nas3d_space.levels(search.best.genes) == (
        *(int(bit) for bit in edges.replace(" ", "")),
        *rest,
    )
    assert search.ended == BUDGET
    final = oracle("pbcnas", "de_trace_seed42")[name]["final"]
    assert search.best.genes.tolist() == final["best_chrom"]
    assert search.best.fitness == final["best"]


def test_first_candidates_of_trace_a():
    search, _ = traced("A")
    start, by_number = search.books.generations[0], {c.number: c for c in search.log}
    assert start["population"] == [
        32,
        18,
        13,
        26,
        21,
        31,
        6,
        17,
        24,
        28,
        8,
        7,
        4,
        33,
        25,
        0,
        11,
        36,
        14,
        1,
    ]
    assert start["trained"] == 26
    assert start["infeasible"] == 14
    assert start["fitness"][:3] == pytest.approx([0.28120455, 0.27805872, 0.27061841], abs=5e-9)
    assert start["fitness"][-1] == pytest.approx(0.19074724, abs=5e-9)
    assert search.books.generations[1]["population"] == [
        32,
        18,
        13,
        26,
        45,
        31,
        6,
        17,
        24,
        28,
        8,
        52,
        4,
        33,
        55,
        56,
        57,
        36,
        59,
        1,
    ]
    assert by_number[41].genes == pytest.approx(
        [
            0.71200248,
            0.45077334,
            0.28540408,
            0.33980262,
            0.37454012,
            0.4247186,
            0.23974149,
            0.44564595,
            0.38827925,
            0.58039994,
            0.76835247,
            0.64402732,
            0.24215389,
            0.95071431,
            0.73199394,
            0.97372165,
            0.59865848,
            0.14453942,
            0.12719244,
            0.82461286,
            0.90216584,
            0.93296037,
            0.64612558,
            0.15601864,
            0.7787044,
            0.60149527,
            0.45970786,
            0.36490635,
            0.95469599,
        ],
        abs=5e-9,
    )
    assert by_number[42].genes[[0, 1, 2, 3, 4, -1]] == pytest.approx(
        [0.15599452, 0.84211892, 0.16182511, 0.09582104, 0.4148195, 0.70807258], abs=5e-9
    )
    assert by_number[43].genes[[0, 1, 2, 3, -1]] == pytest.approx(
        [0.29608591, 0.49898023, 0.22921706, 0.84437886, 0.89552323], abs=5e-9
    )
    assert [by_number[n].fitness for n in (41, 42, 43)] == pytest.approx(
        [0.2780068629, 0.1922765857, 0.2592788593], abs=6e-11
    )
    assert (by_number[41].phase, by_number[41].parents, by_number[41].generation) == (
        "trial",
        (32, 32, 36, 0),
        0,
    )
    assert by_number[21].parents == (0,)
    assert 20 not in by_number
    assert {c.phase for c in search.log if c.number in range(121, 161)} == {
        "trial",
        "jump",
    }


def test_random_streams():
    streams = ODE(PAPER, Box(29)).streams
    fresh = np.random.RandomState(42)
    assert [fresh.choice(np.arange(20), 3, replace=False).tolist() for _ in range(5)] == [
        [0, 17, 15],
        [19, 16, 15],
        [10, 7, 0],
        [0, 18, 6],
        [5, 2, 10],
    ]
    masks = ["".join(map(str, (streams["crossover"].rand(29) < 0.5).astype(int))) for _ in range(3)]
    assert masks == [
        "10001110001001111011011110100",
        "10110001101111010100100000011",
        "11110110101001100001110011110",
    ]
    assert streams["repair"].uniform(size=5) == pytest.approx(
        [0.374540, 0.950714, 0.731994, 0.598658, 0.156019], abs=6e-7
    )
    draws = [streams["jumping"].uniform() for _ in range(20)]
    assert draws[:11] == pytest.approx(
        [0.3745, 0.9507, 0.7320, 0.5987, 0.1560, 0.1560, 0.0581, 0.8662, 0.6011, 0.7081, 0.0206],
        abs=5e-5,
    )
    assert [n for n, draw in enumerate(draws) if draw < 0.3] == [4, 5, 6, 10, 13, 14, 15, 19]
    assert (
        len({stream.get_state()[1][0] for stream in ODE(ODESettings(), Box(2)).streams.values()})
        == 5
    )


def searched(settings, space=nas3d_space.PAPER, function=stub_a):
    return run(ODE(settings, space), function)


def test_the_repaired_mode():
    search = searched(ODESettings(budget=70, seed=3))
    trained = [c for c in search.log if c.trained]
    assert len(trained) == 70 == search.books.trained
    assert search.best.fitness == max(c.fitness for c in trained)
    assert search.ended == BUDGET
    evaluations = [c.evaluation for c in search.log if c.evaluation is not None]
    assert [c.number for c in search.log] == list(range(len(search.log)))
    assert evaluations == list(range(len(evaluations)))
    assert {c.fitness for c in search.log if not c.feasible and not c.dropped} == {-1.0}
    assert all(c.reason for c in search.log if not c.feasible)
    keys = [nas3d_space.key(c.genes) for c in trained]
    assert len(set(keys)) == len(keys)
    exact = searched(ODESettings(budget=10, seed=3))
    assert exact.books.trained == 10
    assert len(exact.books.generations) == 1
    assert any(c.dropped for c in exact.log)


def test_the_last_model_counts():
    class Late:
        """Better and better, so that the one that ends the search is the best."""

        def __init__(self):
            self.n = 0

        def __call__(self, x):
            self.n += 1
            return self.n / 1000

    assert searched(ODESettings(budget=45, population=10), Box(4), Late()).best.evaluation == 44
    forgetful = searched(
        ODESettings(budget=44, population=10, mode="paper", opposite_jumping=False), Box(4), Late()
    )
    assert forgetful.books.trained == 45
    assert forgetful.best.evaluation == 43


class Grid:
    """Two genes of three values each; nothing is infeasible."""

    genes = 2

    def reason(self, x):
        return None

    def key(self, x, kind):
        return tuple(np.minimum((np.asarray(x) * 3).astype(int), 2).tolist())

    def cost(self, x):
        return self.key(x, "")[0]


@pytest.mark.parametrize("cached", ["keep", "swap"])
@pytest.mark.parametrize("algorithm", ["ode", "random"])
def test_duplicates_are_not_trained_and_an_exhausted_space_ends_the_search(cached, algorithm):
    search = searched(
        ODESettings(population=5, budget=50, cached=cached, patience=4, algorithm=algorithm),
        Grid(),
        lambda x: Grid().key(x, "")[1],
    )
    assert search.ended == EXHAUSTED
    assert search.books.trained <= 9
    assert search.books.duplicates > 0
    for c in search.log:
        if c.duplicate is not None:
            known = search.log[c.duplicate]
            assert c.fitness == known.fitness
            assert c.evaluation is None
            assert cached == "keep" or (c.genes == known.genes).all()
            assert Grid().key(c.genes, "") == Grid().key(known.genes, "")
    kept = [
        c
        for c in search.log
        if c.duplicate is not None and (c.genes != search.log[c.duplicate].genes).any()
    ]
    assert bool(kept) == (cached == "keep")
    assert (
        searched(
            ODESettings(population=5, budget=50, dedup="none"), Grid(), lambda x: x[0]
        ).books.trained
        == 50
    )


def test_a_cap_on_the_cost_rejects():
    search = searched(ODESettings(budget=40, most_cost=2e9, seed=1))
    rejected = [c for c in search.log if c.rejected]
    assert rejected
    assert search.books.rejected == sum(not c.dropped for c in rejected)
    assert all(c.fitness == -1 and not c.feasible and "above 2e+09" in c.reason for c in rejected)
    assert all(nas3d_space.PAPER.cost(c.genes) <= 2e9 for c in search.log if c.trained)


def test_failures_get_a_reason_and_are_not_counted():
    search = ODE(ODESettings(population=6, budget=20, worst=(-5, -7)), Box(3))
    while not search.finished:
        c = search.ask()[0]
        fails = c.evaluation % 3 == 0
        search.tell(
            c.evaluation,
            float("nan") if fails and c.evaluation % 2 else 1.0,
            "out of memory" if fails and not c.evaluation % 2 else None,
        )
    failed = [c for c in search.log if c.failed]
    assert search.books.trained == 20
    assert search.books.failed == len(failed) > 5
    assert {c.reason for c in failed} == {"the fitness is not finite", "out of memory"}
    assert {(c.generation < 0, c.fitness) for c in failed} == {
        (True, -5.0),
        (False, -7.0),
    }
    assert search.best.fitness == 1.0
    with pytest.raises(OutOfTurn):
        search.ask()
    with pytest.raises(OutOfTurn):
        ODE(ODESettings(), Box(2)).tell(41, 0.5)


def test_ties_decide_between_equals():
    def judged(x):
        return 0.5, -abs(x[0] - 0.3)

    with_ties, without = (
        searched(ODESettings(population=8, budget=200, tie_break=flag), Box(2), judged)
        for flag in (True, False)
    )
    assert abs(with_ties.best.genes[0] - 0.3) < 0.02
    assert without.best.evaluation == 0
    assert np.mean([abs(c.genes[0] - 0.3) for c in with_ties.population]) < 0.05


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mode": "paper"},
        {"algorithm": "random"},
        {"opposite_init": False, "opposite_jumping": False},
    ],
)
def test_resumed_at_any_candidate_it_is_the_same_search(changes):
    settings = ODESettings(**{"budget": 45, "population": 8, "jumping": 0.6, "seed": 5, **changes})
    whole, search = searched(settings), ODE(settings, nas3d_space.PAPER)
    while not search.finished:
        search = ODE.from_state(json.loads(json.dumps(search.state())), nas3d_space.PAPER)
        c = search.ask()[0]
        search.tell(c.evaluation, stub_a(c.genes))
    assert json.dumps(search.state()) == json.dumps(whole.state())
    table = whole.history()
    assert len(table) == len(whole.log)
    assert table["gene_28"].between(0, 1).all()
    assert set(table["phase"]) <= {"init", "opposite-init", "trial", "jump", "random"}
    if changes.get("opposite_init") is False:
        assert set(table["phase"]) == {"init", "trial"}


@pytest.mark.parametrize("mode", ["paper", "clean"])
@pytest.mark.parametrize("budget", [30, 57])
def test_told_in_any_order_it_is_the_same_search_and_trains_nothing_more(mode, budget):
    settings = ODESettings(mode=mode, budget=budget, population=8, jumping=0.6, seed=5)

    def failing(candidate):
        return None if candidate.evaluation % 7 == 3 else stub_a(candidate.genes)

    def told(choose):
        search, trained = ODE(settings, nas3d_space.PAPER), []
        while not search.finished:
            c = choose(search.ask())
            trained.append(c.evaluation)
            search.tell(c.evaluation, failing(c))
        return search, sorted(trained)

    draw = np.random.default_rng(1)
    (first, ordered), (mixed, shuffled) = (
        told(lambda ready: ready[0]),
        told(lambda ready: ready[draw.integers(len(ready))]),
    )
    assert json.dumps(first.state()) == json.dumps(mixed.state())
    assert ordered == shuffled


def sphere(x):
    return 1 - ((x - 0.3) ** 2).sum()


def test_it_optimises_as_well_as_scipy():
    budget, found = 1200, {"ode": [], "de": [], "random": []}
    kinds = {
        "ode": {},
        "de": {"opposite_init": False, "opposite_jumping": False},
        "random": {"algorithm": "random"},
    }
    for seed in range(2):
        for kind, changes in kinds.items():
            found[kind].append(
                1
                - searched(
                    ODESettings(budget=budget, seed=seed, worst=(-100, -100), **changes),
                    Box(6),
                    sphere,
                ).best.fitness
            )
        start = np.random.default_rng(seed).random((20, 6))
        best = differential_evolution(
            lambda x: 1 - sphere(x),
            [(0, 1)] * 6,
            strategy="rand1bin",
            mutation=0.5,
            recombination=0.5,
            maxiter=59,
            popsize=1,
            init=start,
            updating="deferred",
            polish=False,
            tol=0,
            rng=seed,
        )
        found.setdefault("scipy", []).append(best.fun)
        assert best.nfev == budget
    errors = {kind: np.exp(np.mean(np.log(values))) for kind, values in found.items()}
    assert errors["de"] < 1e-4 < errors["random"]
    assert abs(np.log10(errors["de"] / errors["scipy"])) < 2
    assert errors["ode"] < 1e-3


def test_mistakes():
    for wrong in (
        {"mode": "fast"},
        {"population": 2},
        {"population": 3, "exclude_target": True},
        {"budget": 0},
        {"jumping": 1.5},
        {"worst": (-1, float("nan"))},
        {"algorithm": "swarm"},
        {"stop": "late"},
    ):
        with pytest.raises(BadSettings):
            ODESettings(**wrong)
    excluded = searched(ODESettings(population=6, budget=40, exclude_target=True), Box(3), sphere)
    assert all(c.parents[0] not in c.parents[1:] for c in excluded.log if c.phase == "trial")
    assert any(
        c.parents[0] in c.parents[1:]
        for c in searched(ODESettings(population=6, budget=40), Box(3), sphere).log
        if c.phase == "trial"
    )
