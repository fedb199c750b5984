"""Four answers to a difference and its interval."""

import numpy as np
import pytest
from scipy import stats as sps
from statsmodels.stats.weightstats import ttost_paired

from kit.evaluation import answers
from kit.evaluation.agreement import share
from kit.evaluation.stats import Interval


def interval(estimate, low, high):
    return Interval(estimate, low, high, 0.95, 100, "x")


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [
        (-0.009, 0.009, "supported"),
        (0.001, 0.009, "supported"),  # not zero, but within the margin
        (0.011, 0.03, "contradicted"),
        (-0.03, -0.011, "contradicted"),
        (0.002, 0.03, "contradicted"),  # not zero, and larger than the margin
        (0.002, 0.017, "undecided"),  # not zero, but no larger than the margin
        (-0.002, 0.06, "undecided"),  # large, but perhaps zero
        (-0.03, 0.03, "undecided"),
    ],
)
def test_equal(low, high, kind):
    assert answers.equal(interval((low + high) / 2, low, high), 0.01).kind == kind


def test_equal_is_two_one_sided_tests_at_five_percent():
    for seed in range(60):
        draw = np.random.default_rng(seed)
        a = draw.normal(0.0, 1, 40)
        b = a + draw.normal(0.1, 0.8, 40)
        d = a - b
        error = d.std(ddof=1) / np.sqrt(40)
        both = [
            Interval(
                d.mean(),
                *(d.mean() + s * sps.t.ppf((1 + c) / 2, 39) * error for s in (-1, 1)),
                c,
                40,
                "t",
            )
            for c in (0.95, 0.90)
        ]
        p = ttost_paired(a, b, -0.3, 0.3)[0]
        assert (answers.equal(both[0], 0.3, both[1]).kind == "supported") == (p < 0.05)


@pytest.mark.parametrize(
    ("low", "high", "above", "below", "different"),
    [
        (0.02, 0.05, "supported", "contradicted", "supported"),
        (-0.05, -0.02, "contradicted", "supported", "supported"),
        (-0.02, 0.05, "undecided", "undecided", "undecided"),
        (-0.004, 0.005, "undecided", "undecided", "contradicted"),
    ],
)
def test_directions_are_tested_by_the_interval(low, high, above, below, different):
    found = interval((low + high) / 2, low, high)
    assert answers.directed(found, "above").kind == above
    assert answers.directed(found, "below").kind == below
    assert answers.directed(found, "different").kind == different


@pytest.mark.parametrize(
    ("relation", "value", "kind"),
    [
        (">", 0.05, "supported"),
        ("<", 0.05, "contradicted"),
        (">", 0.3, "undecided"),
        ("<", 0.9, "supported"),
    ],
)
def test_a_relation_to_a_printed_value(relation, value, kind):
    assert answers.related(interval(0.31, 0.1, 0.6), relation, value).kind == kind


def test_what_could_have_been_seen():
    found = answers.equal(interval(0.0, -0.0196, 0.0196), 0.01)
    assert found.detectable == pytest.approx((1.95996 + 0.84162) * 0.01, abs=1e-5)
    wide = answers.equal(interval(0.0, -0.0196, 0.0196), 0.05)
    assert wide.detectable == pytest.approx(0.05 + 0.84162 * 0.01, abs=1e-5)
    assert not found.beyond_chance
    assert answers.equal(interval(0.02, 0.001, 0.039), 0.01).beyond_chance


def test_margin_is_a_point_or_the_published_interval():
    assert answers.margin_of(None) == answers.Margin(0.01, 0.01)
    assert answers.margin_of(share(9900, 10000)) == answers.Margin(0.01, 0.01)
    wide = share(350, 394)
    found = answers.margin_of(wide)
    assert (found.below, found.above) == pytest.approx(
        (wide.estimate - wide.low, wide.high - wide.estimate)
    )
    assert found.largest == found.below > found.above
    empty = interval(0.9, float("nan"), float("nan"))
    assert answers.margin_of(empty) == answers.Margin(0.01, 0.01)


def test_the_two_sides_of_a_margin_differ():
    sides = answers.Margin(0.05, 0.01)
    assert answers.equal(interval(-0.02, -0.04, 0.0), sides).kind == "supported"
    assert answers.equal(interval(0.02, 0.0, 0.04), sides).kind == "undecided"
    assert answers.equal(interval(0.02, 0.001, 0.039), sides).kind == "contradicted"
    assert answers.equal(interval(-0.04, -0.07, -0.01), sides).kind == "undecided"


def test_each_of_several():
    fine, bad = interval(0.03, 0.01, 0.05), interval(-0.02, -0.038, -0.002)
    assert answers.together(answers.every({"a": fine, "b": fine}, "above")) == "supported"
    assert answers.together(answers.every({"b": bad}, "above")) == "contradicted"
    # beyond zero alone, but not at a level divided by three
    three = answers.every({"a": fine, "b": bad, "c": fine}, "above")
    assert three["b"].kind == "undecided"
    assert answers.together(three) == "undecided"
    worse = interval(-0.06, -0.08, -0.04)
    assert answers.together(answers.every({"a": fine, "b": worse}, "above")) == "contradicted"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: answers.directed(interval(0, -1, 1), "better"),
        lambda: answers.equal(interval(0, -1, 1), 0),
        lambda: answers.every({}, "above"),
    ],
)
def test_bad_questions(wrong):
    with pytest.raises(answers.BadQuestion) as caught:
        wrong()
    assert str(caught.value).endswith(".")
