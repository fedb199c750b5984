import json

import numpy as np
import pytest

from kit.search.evolution import genetic, operators
from kit.search.evolution.genetic import BadSettings, GASettings, GeneticAlgorithm, OutOfTurn

POPULATION = np.random.RandomState(42).rand(5, 5)
MCC = [0.30, 0.72, 0.55, 0.10, 0.64]


def sphere(genes):
    """Best at 0.3 in every gene."""
    return (1 - ((genes - 0.3) ** 2).sum(1)).tolist()


def run(settings, fitness=sphere, generations=None):
    search = GeneticAlgorithm(settings)
    for _ in range(generations or settings.generations):
        search.tell(fitness(search.ask()))
    return search


def begun_with(settings, genes):
    """A search whose first generation is given, with the random stream at its start."""
    search = GeneticAlgorithm(settings)
    search._genes = np.array(genes)
    search._bits.state = GeneticAlgorithm(settings)._bits.state
    if settings.legacy_index:
        search._bits.state = np.random.RandomState(settings.seed).get_state(legacy=False)
    return search


def test_oracle_of_the_released_code():
    """Oracle 4.1, from numpy.random.seed(123): two opponents, its index draws, its order of
    draws.
    """
    search = begun_with(genetic.released(2, 5, seed=123), POPULATION)
    search.tell(MCC)
    assert search.told[0]["evaluations"] == pytest.approx(
        [0.322581, 1, 0.725806, 0, 0.870968], abs=5e-7
    )
    assert search.ask() == pytest.approx(
        np.array(
            [
                [0.155995, 0.737995, 0.531551, 0.601115, 0.708073],
                [0.361789, 0.630976, 0.866176, 0.601115, 0.708073],
                [0.155995, 0.058084, 0.414826, 0.601115, 0.708073],
                [0.826341, 0.058084, 0.417022, 0.601115, 0.708073],
                [0.155995, 0.058084, 0.866176, 0.601115, 0.708073],
            ]
        ),
        abs=5e-7,
    )
    assert search.lineage.origin[-1] == "elite"
    assert search.lineage.parents[-1].tolist() == [1, 1]


@pytest.mark.parametrize(("opponents", "rows"), [(2, [1, 1, 1, 1, 4]), (1, [1, 1, 2, 2, 1])])
def test_selection_of_the_released_code(opponents, rows):
    search = begun_with(genetic.released(1, 5, opponents=opponents, seed=123), POPULATION)
    assert search._select(operators.normalised(MCC), 5).tolist() == rows


def test_legacy_index_draws_the_last_half_as_often():
    search = GeneticAlgorithm(genetic.released(1, 5, seed=0))
    counts = np.bincount(search._indices(90_000, 5), minlength=5) / 90_000
    assert counts == pytest.approx([2 / 9] * 4 + [1 / 9], abs=0.005)
    fair = np.bincount(GeneticAlgorithm(GASettings(1, 5))._indices(90_000, 5), minlength=5) / 90_000
    assert fair == pytest.approx([0.2] * 5, abs=0.005)


def test_oracle_of_the_text():
    """Oracle 4.2: Algorithms 1 and 2 with explicit draws."""
    evaluations, draws = operators.normalised(MCC), np.random.RandomState(7)
    rows = operators.tournament(evaluations, range(5), [[1], [3], [2], [0], [2]])
    assert rows.tolist() == [1, 1, 2, 0, 4]
    assert evaluations[rows] == pytest.approx([1, 1, 0.725806, 0.322581, 0.870968], abs=5e-7)
    second = rows[[2, 0, 4, 1, 3]]
    uc, um, uv = draws.rand(5, 5), draws.rand(5, 5), draws.rand(5, 5)
    children = operators.offspring(
        POPULATION[rows],
        POPULATION[second],
        operators.shares(evaluations[rows], evaluations[second]),
        uc < genetic.CROSSOVER_3,
        um < genetic.MUTATION_3,
        uv,
    )
    assert children[:4] == pytest.approx(
        np.array(
            [
                [0.422374, 0.058084, 0.866176, 0.437611, 0.708073],
                [0.001427, 0.058084, 0.709394, 0.601115, 0.708073],
                [0.020584, 0.969910, 0.053129, 0.296352, 0.331413],
                [0.374540, 0.964971, 0.731994, 0.598658, 0.573425],
            ]
        ),
        abs=5e-7,
    )
    assert POPULATION[rows[np.argmax(evaluations[rows])]] == pytest.approx(
        [0.155995, 0.058084, 0.866176, 0.601115, 0.708073], abs=5e-7
    )


def test_ties_go_to_the_opponent_or_stay():
    assert operators.tournament([1, 1], [0], [[1]], "opponent").tolist() == [1]
    assert operators.tournament([1, 1], [0], [[1]], "self").tolist() == [0]


def test_two_worst_parents_blend_to_their_mean():
    assert operators.shares([0, 0, 1], [0, 1, 0]).tolist() == [[0.5, 0.5], [0, 1], [1, 0]]
    assert (
        operators.offspring(
            [[0.2]], [[0.8]], operators.shares([0], [0]), [[True]], [[False]], [[0.0]]
        )[0, 0]
        == 0.5
    )


def test_a_generation_that_ties_is_all_best():
    search = GeneticAlgorithm(GASettings(2, 6, seed=3))
    search.tell([0.4] * 6)
    assert search.told[0]["evaluations"].tolist() == [1] * 6
    assert np.isfinite(search.ask()).all()
    assert np.all(search.lineage.shares[:-1] == 0.5)


def test_one_failure_does_not_flatten_the_selection():
    """Equation 3.4 is over those that succeeded: with the -1 of a failed one in it, the better of
    two parents would hardly count more than the other.
    """
    fitness = np.append(np.random.default_rng(0).uniform(0.5, 0.7, 49), np.nan)
    told = {}
    for name, values, reasons in (
        ("with", fitness, [None] * 49 + ["it diverged"]),
        ("without", fitness[:49], None),
    ):
        search = genetic.GeneticAlgorithm(genetic.GASettings(2, len(values), seed=1))
        search.tell(values, reasons)
        told[name] = search.told[0]["evaluations"]
    np.testing.assert_array_equal(told["with"][:49], told["without"])
    assert told["with"][49] == 0
    pairs = np.random.default_rng(1).integers(49, size=(400, 2))
    better = operators.shares(*told["with"][pairs].T).max(1).mean()
    flat = operators.normalised(np.nan_to_num(fitness, nan=-1.0))
    assert better > 0.6 > operators.shares(*flat[pairs].T).max(1).mean()
    np.testing.assert_array_equal(operators.normalised([np.nan, np.nan]), [0, 0])
    np.testing.assert_array_equal(operators.normalised([0.3, np.nan, 0.3]), [1, 0, 1])
    np.testing.assert_array_equal(operators.normalised([0.3, 0.9, 0.5], [0, 1, 0]), [0, 0, 1])


def test_what_failed_is_worst_and_says_why():
    search = GeneticAlgorithm(GASettings(2, 4))
    search.tell([np.nan, None, 0.9, 0.2], [None, "out of memory", None, "diverged"])
    assert search.told[0]["fitness"].tolist() == [-1, -1, 0.9, -1]
    assert search.told[0]["reasons"] == [genetic.NOT_FINITE, "out of memory", None, "diverged"]
    assert search.best["individual"] == 2
    assert not set(search.lineage.parents[-1]) - {2}
    nothing = GeneticAlgorithm(GASettings(2, 2))
    nothing.tell([np.inf, -np.inf])
    assert nothing.best is None
    assert np.isfinite(nothing.ask()).all()


def test_a_single_individual_stays():
    search = run(GASettings(3, 1))
    assert np.ptp(np.vstack([e["genes"] for e in search.told]), axis=0).max() == 0


@pytest.mark.parametrize(
    "settings",
    [
        GASettings(8, 10, seed=1),
        genetic.released(8, 10, seed=1),
        GASettings(8, genetic.shrinking(8, 20, 3, 5), seed=1),
    ],
)
def test_the_best_is_always_kept_and_genes_stay_in_range(settings):
    search = run(settings)
    for before, after in zip(search.told, search.told[1:], strict=False):
        assert (after["genes"][-1] == before["genes"][np.argmax(before["fitness"])]).all()
        assert after["fitness"].max() >= before["fitness"].max()
        assert after["genes"].min() >= 0
        assert after["genes"].max() <= 1
        assert len(after["genes"]) <= len(before["genes"])


def test_it_searches():
    searches = [run(GASettings(12, 16, seed=seed)) for seed in range(10)]
    found = [search.best["fitness"] for search in searches]
    drawn = [max(sphere(np.random.default_rng(seed).random((12 * 16, 5)))) for seed in range(10)]
    assert np.mean(found) > np.mean(drawn) + 0.01
    assert all(
        best > search.told[0]["fitness"].max() for best, search in zip(found, searches, strict=True)
    )


def test_categories_are_inherited_never_blended():
    settings = GASettings(2, 40, mutation=(0,) * 5, seed=5)
    search = run(settings, generations=1)
    before, children = search.told[0]["genes"], search.ask()
    first, second = search.lineage.parents.T
    assert (children[:, :3] == before[first, :3]).all()
    blend = (
        search.lineage.shares[:, :1] * before[first] + search.lineage.shares[:, 1:] * before[second]
    )
    crossed = np.isclose(children[:, 3:], blend[:, 3:], atol=1e-12)
    assert (crossed | (children[:, 3:] == before[first, 3:])).all()
    assert 0.75 < np.mean(crossed) <= 1


def test_crossover_and_mutation_happen_as_often_as_asked():
    n = 4000
    search = run(GASettings(2, n, seed=6), generations=1)
    kept = search.ask()[:-1] == search.told[0]["genes"][search.lineage.parents[:-1, 0]]
    assert 1 - kept[:, :3].mean(0) == pytest.approx([0.4] * 3, abs=0.03)
    assert (~kept[:, 3:]).mean() > 0.8


def test_dominant_genes_come_from_the_better_parent():
    search = run(GASettings(2, 30, (0,) * 5, (0,) * 5, dominant=(0,), seed=7), generations=1)
    before, lineage = search.told[0], search.lineage
    better = lineage.parents[np.arange(30), lineage.better]
    assert (search.ask()[:, 0] == before["genes"][better, 0]).all()
    assert (search.ask()[:, 1] == before["genes"][lineage.parents[:, 0], 1]).all()
    other = lineage.parents[np.arange(30), 1 - lineage.better]
    assert (before["evaluations"][better] >= before["evaluations"][other]).all()
    assert 0 < lineage.better.sum() < 29


def test_seeds_decide():
    assert (
        run(GASettings(3, 6, seed=1)).told[-1]["genes"]
        == run(GASettings(3, 6, seed=1)).told[-1]["genes"]
    ).all()
    assert (
        run(GASettings(3, 6, seed=1)).told[0]["genes"]
        != run(GASettings(3, 6, seed=2)).told[0]["genes"]
    ).any()


@pytest.mark.parametrize(
    "settings",
    [
        GASettings(5, 6, seed=4),
        genetic.released(5, 6, seed=4),
        GASettings(5, (8, 6, 4, 4, 2), dominant=(0,), seed=4),
    ],
)
def test_resumed_from_json_it_is_the_same_search(settings):
    whole, part = run(settings), run(settings, generations=2)
    part.ask()
    part = GeneticAlgorithm.from_state(json.loads(json.dumps(part.state())))
    assert part.settings == settings
    while not part.finished:
        part.tell(sphere(part.ask()))
    assert json.dumps(part.state()) == json.dumps(whole.state())
    assert part.history().equals(whole.history())
    assert part.best["genes"].tolist() == whole.best["genes"].tolist()


def test_history_has_a_row_for_everyone():
    search = GeneticAlgorithm(GASettings(2, (3, 2)))
    search.tell([0.1, 0.5, None])
    search.tell([0.2, 0.4])
    table = search.history(["a", "b", "c", "d", "e"])
    assert table["generation"].tolist() == [0, 0, 0, 1, 1]
    assert table["origin"].tolist() == ["random"] * 3 + ["offspring", "elite"]
    assert table["reason"].notna().tolist() == [False, False, True, False, False]
    assert table.loc[4, list("abcde")].tolist() == table.loc[1, list("abcde")].tolist()


def test_population_of_gen_soup():
    """Oracle 6.4: 380 and 530 trainings of one epoch."""
    assert genetic.shrinking(20)[:10] == (50, 45, 40, 35, 30, 25, 20, 15, 10, 10)
    assert [sum(genetic.shrinking(g)) for g in (20, 35)] == [380, 530]


@pytest.mark.parametrize(
    "settings",
    [
        {"generations": 0},
        {"individuals": 0},
        {"individuals": (3, 4, 4)},
        {"individuals": (3,)},
        {"crossover": (0.5,)},
        {"mutation": (0, 0, 0, 0, 2)},
        {"opponents": 0},
        {"ties": "both"},
        {"dominant": (5,)},
        {"worst": float("nan")},
    ],
)
def test_bad_settings(settings):
    with pytest.raises(BadSettings):
        GASettings(**{"generations": 3, "individuals": 4, **settings})


def test_out_of_turn():
    search = GeneticAlgorithm(GASettings(1, 3))
    with pytest.raises(OutOfTurn):
        search.tell([1.0, 2.0])
    search.tell([1.0, 2.0, 3.0])
    with pytest.raises(OutOfTurn):
        search.ask()
