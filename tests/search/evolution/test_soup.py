"""Gen-Soup without images: averages against known numbers, inheritance, failures,
resume, and what stays on disk.
"""

import dataclasses
import json

import numpy as np
import pytest

from kit.errors import KitError
from kit.search.evolution import averaging, genome, plan, soup
from kit.search.evolution.genetic import Lineage
from kit.search.evolution.soup_settings import BadSchedule, SoupSettings, image_sizes


def test_equation_5_1():
    rs = np.random.RandomState(11)
    a, b = ([rs.randn(3, 2), rs.randn(2)] for _ in range(2))
    found = averaging.fitness_average(a, b, (0.9, 0.6))
    np.testing.assert_allclose(
        found[0].ravel(), [1.218093, -0.597885, -0.645235, -1.782285, 0.270902, 0.032698], atol=1e-6
    )
    np.testing.assert_allclose(found[1], [-0.844197, -0.258549], atol=1e-6)
    assert all(
        np.array_equal(x, y)
        for x, y in zip(averaging.fitness_average(a, b, (1, 0)), a, strict=True)
    )
    both_worst = averaging.fitness_average(a, b, (0, 0))
    np.testing.assert_allclose(
        both_worst[0].ravel(),
        [1.085253, -0.675838, -0.685402, -1.564526, 0.340699, 0.120780],
        atol=1e-6,
    )
    np.testing.assert_allclose(both_worst[1], [-0.921089, -0.402036], atol=1e-6)


@pytest.fixture(scope="module")
def kitchen():
    """Six linear models drawn around one, their scores, and the score."""
    rs = np.random.RandomState(12)
    w = rs.randn(8, 3)
    x = rs.randn(200, 8)
    y = np.argmax(x @ w + 0.8 * rs.randn(200, 3), 1)
    members = [
        [w + s * np.random.RandomState(100 + i).randn(8, 3)]
        for i, s in enumerate([0.6, 0.8, 1, 1.2, 1.5, 2])
    ]

    def score(weights):
        return float(np.mean(np.argmax(x @ weights[0], 1) == y))

    return members, [score(m) for m in members], score


def test_soups(kitchen):
    members, scores, score = kitchen
    np.testing.assert_allclose(scores, [0.755, 0.705, 0.665, 0.480, 0.625, 0.355])
    plain = averaging.uniform(members)
    assert score(plain) == pytest.approx(0.760)
    assert plain[0].sum() == pytest.approx(4.533039, abs=1e-6)
    mixed, ingredients, trials = averaging.greedy(members, score)
    assert ingredients == [0, 1, 2, 3]
    assert trials["member"].tolist() == [1, 2, 4, 3, 5]
    assert trials["kept"].tolist() == [True, True, False, True, False]
    np.testing.assert_allclose(trials["score"], [0.770, 0.780, 0.775, 0.795, 0.730])
    np.testing.assert_allclose(mixed[0][0], [0.794125, -0.351031, 0.976626], atol=1e-6)
    assert score(averaging.weighted(members, scores, "score")) == pytest.approx(0.785)
    np.testing.assert_allclose(
        averaging.proportions(scores),
        [0.274914, 0.240550, 0.213058, 0.085911, 0.185567, 0],
        atol=1e-6,
    )
    by_fitness = averaging.weighted(members, scores)
    assert score(by_fitness) == pytest.approx(0.800)
    assert by_fitness[0].sum() == pytest.approx(4.509297, abs=1e-6)


def test_a_tie_is_not_added_and_equal_networks_stay(kitchen):
    members, _, _ = kitchen
    same = [members[0]] * 3
    np.testing.assert_allclose(averaging.uniform(same)[0], members[0][0], atol=1e-12)
    assert averaging.greedy(same, lambda weights: 0.5)[1] == [0]
    np.testing.assert_allclose(
        averaging.uniform(members)[0], averaging.uniform(members[::-1])[0], atol=1e-12
    )


def test_a_greedy_soup_is_never_worse_than_its_best_ingredient(kitchen):
    """Members and soups are judged by one function, also where it ranks the members otherwise than
    the search did, as recalibration does.
    """
    members, _, score = kitchen

    def other(weights):
        return score([-weights[0]]) + score([weights[0] * np.linspace(0.2, 2, 3)])

    for judge in (score, other):
        made = soup.soups(members, judge)
        weights, shares = made["greedy"]
        ingredients = np.flatnonzero(shares)
        assert judge(weights) >= max(judge(members[k]) for k in ingredients)
        assert judge(members[ingredients[0]]) <= max(judge(m) for m in members)
        assert max(judge(m) for m in members) == max(judge(members[k]) for k in ingredients)


def test_a_member_without_numbers_counts_nothing(kitchen):
    """Its NaN neither enters the range of the others' scores nor the soup."""
    members, scores, score = kitchen
    broken = [*members, [np.full((8, 3), np.nan)]]

    def judge(weights):
        return score(weights) if np.isfinite(weights[0]).all() else np.nan

    for rule in ("normalised", "score"):
        shares = averaging.proportions([*scores, np.nan], rule)
        np.testing.assert_allclose(shares, [*averaging.proportions(scores, rule), 0])
    assert averaging.greedy(broken, judge)[1] == [0, 1, 2, 3]
    assert soup.soups(broken, judge)["weighted"][1][6] == 0


def test_integers_are_not_averaged_and_types_stay():
    a, b = [np.float32([1, 2]), np.int64([5])], [np.float32([3, 4]), np.int64([9])]
    mean = averaging.average([a, b], [0.5, 0.5])
    assert mean[0].dtype == np.float32
    assert mean[0].tolist() == [2, 3]
    assert mean[1].tolist() == [5]


@pytest.mark.parametrize(
    ("members", "shares"),
    [
        ([], []),
        ([[np.ones(2)], [np.ones(3)]], [0.5, 0.5]),
        ([[np.ones(2)]], [0.5]),
        ([[np.ones(2)]] * 2, [1.5, -0.5]),
    ],
)
def test_what_cannot_be_averaged_is_refused(members, shares):
    with pytest.raises(averaging.BadSoup):
        averaging.average(members, shares)


def test_path_and_barrier():
    curve = averaging.path([np.array([-1.0])], [np.array([1.0])], lambda w: float(w[0][0] ** 2), 5)
    assert curve["share"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert averaging.barrier(curve) == 1
    assert averaging.barrier(curve.assign(score=1 - curve["score"])) == 0


def test_averaged_variances_are_too_large():
    rs = np.random.RandomState(13)
    x, a, b = rs.randn(500, 4), rs.randn(4, 3), rs.randn(4, 3)
    mean = averaging.uniform([[(x @ a).var(0)], [(x @ b).var(0)]])[0]
    np.testing.assert_allclose(mean, [3.153572, 1.562803, 1.870243], atol=1e-6)
    np.testing.assert_allclose((x @ (a + b) / 2).var(0), [2.546749, 0.795216, 0.921705], atol=1e-6)


def test_schedules_of_both_experiments():
    assert sum(SoupSettings().population) == 380
    assert sum(SoupSettings(generations=35).population) == 530
    assert image_sizes(20) == (224, 232, 240, 247, 255, 263, 271, 279, 286, 294) + (302,) * 10
    assert image_sizes(35)[:25] == (
        224,
        227,
        230,
        233,
        236,
        240,
        243,
        246,
        249,
        252,
        255,
        258,
        261,
        265,
        268,
        271,
        274,
        277,
        280,
        283,
        286,
        290,
        293,
        296,
        299,
    )
    assert set(image_sizes(35)[25:]) == {302}
    assert image_sizes(3, 24, 32, 5) == (
        32,
        32,
        32,
    )
    with pytest.raises(BadSchedule):
        SoupSettings(inheritance="both")
    with pytest.raises(BadSchedule):
        SoupSettings(start=64, end=32)


class Broken(KitError):
    pass


class Toy:
    """Individuals are points that walk towards the origin by their learning rate; LBFGS fails."""

    failures = (Broken,)

    def __init__(self, offset=0.0):
        self.offset, self.trained = offset, []

    def start(self, architecture):
        return [np.full(3, 4.0 + self.offset + len(architecture), np.float32)]

    def train(self, values, weights, generation, seed):
        if values["optimizer"] == "lbfgs":
            raise Broken("LBFGS needs a closure; choose another optimizer.")
        weights = self.start(values["architecture"]) if weights is None else weights
        self.trained.append((generation, seed, weights[0].copy()))
        noise = np.random.default_rng(seed).normal(0, 0.05, 3)
        return [(weights[0] * (1 - 0.5 * values["learning_rate"]) + noise).astype(np.float32)], {
            "training_loss": 0.0
        }

    def fitness(self, architecture, weights, size):
        return float(1 - np.abs(weights[0]).mean() / 10)

    def recalibrate(self, architecture, weights, size):
        self.recalibrated = getattr(self, "recalibrated", 0) + 1
        return [w + 0.5 for w in weights]


SETTINGS = SoupSettings(
    generations=5, first=8, decrement=2, smallest=3, start=24, end=32, at_end=2, seed=4
)
GENOME = genome.chapter5(False, architectures=("a", "bb"))


def run(folder, nursery=None, settings=SETTINGS, until=None):
    return soup.Search(folder, settings, GENOME, nursery or Toy()).run(until)


def test_a_search_improves_shrinks_and_leaves_little(tmp_path):
    done = run(tmp_path)
    table = done.history
    assert table.groupby("generation").size().tolist() == [8, 6, 4, 3, 3]
    assert table.groupby("generation")["size"].first().tolist() == list(SETTINGS.sizes)
    tops = table.groupby("generation")["fitness"].max()
    assert tops.iloc[-1] > tops.iloc[0]
    assert done.best["fitness"] == tops.max()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "best.npz",
        "generation-004",
        "state.json",
    ]
    np.testing.assert_allclose(
        Toy().fitness("", soup.load(tmp_path / "best.npz"), 0), done.best["fitness"], atol=1e-6
    )
    failed = table[table["optimizer"] == "lbfgs"]
    assert len(failed)
    assert (failed["fitness"] == -1).all()
    assert failed["reason"].str.contains("closure").all()
    members = done.final_members()
    assert len({row["architecture"] for row in members}) == 1
    assert members[0]["fitness"] == max(row["fitness"] for row in members)


def test_offspring_inherit_as_the_text_says(tmp_path):
    nursery = Toy()
    search = run(tmp_path, nursery, until=2)
    kept = {row["individual"]: row for row in search.rows if row["generation"] == 1}
    before = {row["individual"]: row for row in search.rows if row["generation"] == 0}
    fresh = Toy()
    weights = {}
    for i, row in before.items():
        if not row["reason"]:
            seed = int(np.random.SeedSequence([SETTINGS.seed, 0, i]).generate_state(1)[0] % 2**31)
            weights[i] = fresh.train(row, None, 0, seed)[0]
    given = {seed: start for generation, seed, start in nursery.trained if generation == 1}
    ways = set()
    for i, row in kept.items():
        seed = int(np.random.SeedSequence([SETTINGS.seed, 1, i]).generate_state(1)[0] % 2**31)
        parents = [row["first"], row["second"]]
        better = max(parents, key=lambda p: before[p]["evaluation"])
        assert row["architecture"] == before[better]["architecture"]
        if seed not in given:
            continue
        ways.add(row["inheritance"])
        if row["inheritance"] == "averaged":
            expected = averaging.fitness_average(
                weights[parents[0]], weights[parents[1]], [before[p]["evaluation"] for p in parents]
            )
            np.testing.assert_allclose(given[seed], expected[0], atol=1e-6)
        elif row["inheritance"] in ("copied", "elite"):
            assert any(np.array_equal(given[seed], weights[p][0]) for p in parents if p in weights)
    assert {"averaged", "elite"} <= ways


def test_resume_is_the_same_search(tmp_path):
    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", until=2)
    halfway = soup.Search(tmp_path / "parts", SETTINGS, GENOME, Toy())
    halfway._individual(
        2, 0, GENOME.decode(halfway.algorithm.ask()[0])
    )  # killed within a generation
    nursery = Toy()
    again = run(tmp_path / "parts", nursery)
    assert again.history.equals(whole.history)
    assert min(generation for generation, _, _ in nursery.trained) == 2
    assert json.dumps(again.algorithm.state()) == json.dumps(whole.algorithm.state())
    assert (tmp_path / "parts/best.npz").exists()
    assert all(
        np.array_equal(a, b)
        for a, b in zip(
            soup.load(tmp_path / "parts/best.npz"),
            soup.load(tmp_path / "whole/best.npz"),
            strict=True,
        )
    )


def test_other_initial_weights_are_refused(tmp_path):
    run(tmp_path, until=2)
    with pytest.raises(soup.OtherStart, match="other initial weights"):
        run(tmp_path, Toy(offset=1.0))


@pytest.mark.parametrize("recalibrate", [True, False])
def test_all_individuals_are_recalibrated_or_none(recalibrate, tmp_path):
    """Not only the averaged ones; what is kept are the weights as they were trained."""
    nursery = Toy()
    done = run(tmp_path, nursery, dataclasses.replace(SETTINGS, recalibrate=recalibrate))
    trained = [row for row in done.rows if row["reason"] is None]
    assert getattr(nursery, "recalibrated", 0) == recalibrate * len(trained)
    for row in done.final_members():
        judged = done.weights(row)[0] + 0.5 * recalibrate
        assert row["fitness"] == pytest.approx(1 - np.abs(judged).mean() / 10, abs=1e-6)


def test_a_parent_of_share_zero_is_no_part_of_an_average(tmp_path):
    """The generation's worst has the share 0 beside any other: nothing is averaged then, the
    weights are the other parent's and the table says so.
    """
    search = run(tmp_path, settings=dataclasses.replace(SETTINGS, first=20), until=1)
    alike = [
        row["individual"]
        for row in search.rows
        if row["reason"] is None and row["architecture"] == "a"
    ]
    first, second = alike[:2]
    for shares, ways in (
        ((1.0, 0.0), "copied"),
        ((0.0, 1.0), "copied"),
        ((0.7, 0.3), "averaged"),
    ):
        search.algorithm.lineage = Lineage(
            ("offspring",),
            np.array([[first, second]]),
            np.array([shares]),
            np.array([int(shares[1] > shares[0])]),
        )
        weights, inheritance = search._inherited(1, 0, "a")
        assert inheritance == ways
        parents = [soup.load(search.file(0, k))[0] for k in (first, second)]
        np.testing.assert_allclose(weights[0], np.average(parents, 0, shares), rtol=1e-6)


def test_copying_the_better_parent_averages_nothing(tmp_path):
    done = run(tmp_path, settings=dataclasses.replace(SETTINGS, inheritance="better"))
    assert set(done.history["inheritance"].dropna()) <= {"initial", "copied", "elite"}


def test_a_search_in_which_all_fail_is_an_error(tmp_path):
    class Hopeless(Toy):
        def train(self, *_):
            raise Broken("no memory")

    with pytest.raises(plan.AllFailed, match="no memory"):
        run(tmp_path, Hopeless())


def test_kinship(tmp_path):
    done = run(tmp_path)
    members = done.final_members()
    assert done.kinship(members[0], members[0]) == 0
    distances = [done.kinship(members[0], other) for other in members[1:]]
    assert all(d is None or 1 <= d <= 4 for d in distances)
    with pytest.raises(soup.OtherStart):
        done.kinship(members[0], {**members[0], "ancestor": "another"})


def test_moving_average():
    trained = [[np.full(2, v)] for v in (0.0, 1.0, 2.0)]
    assert soup.moving_average(trained, 0.5)[0].tolist() == [1.25, 1.25]
    assert soup.moving_average(trained, 0.0)[0].tolist() == [2, 2]
