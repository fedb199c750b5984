"""Published numbers against ours, and the calibration of the rule: what reruns of the published
experiment would be called, if the published numbers were true.
"""

from collections import Counter
from functools import cache

import numpy as np
import pytest
from scipy import stats as sps
from sklearn.metrics import f1_score

from kit.evaluation import agreement, answers
from kit.published import comparison, numbers, papers
from kit.published.comparison import Ours

RERUNS, KEYS = 2000, papers.keys()
SHARES = [
    (key, i)
    for key in KEYS
    for i, v in papers.load(key).values.items()
    if v.kind == "result" and v.n and v.column not in comparison.NO_SHARES
]


def published(key, value_id):
    paper = papers.load(key)
    return paper, paper.number(value_id)


@cache
def answer(key, value_id, k):
    paper, number = published(key, value_id)
    one = comparison.size_of_one(number)
    return comparison.compare(paper, number, Ours(one * k / number.n, n=number.n))


def truth(number):
    one = comparison.size_of_one(number)
    return numbers.reach(number.value, number.decimals, number.n, one)[1] / number.n


def rates(key, value_id, p):
    """Shares of the answers over simulated reruns with true share p."""
    _, number = published(key, value_id)
    draws = np.random.default_rng(17).binomial(number.n, p, RERUNS)
    counted = Counter()
    for k, times in Counter(draws.tolist()).items():
        counted[answer(key, value_id, k).kind] += times / RERUNS
    return counted


@cache
def distinct():
    """One value of every printed share and number of images: the others are judged alike."""
    kept = {}
    for key, i in SHARES:
        _, v = published(key, i)
        kept.setdefault((v.value, v.unit, v.n, v.decimals), (key, i))
    return list(kept.values())


def test_there_are_shares_to_calibrate():
    assert len(SHARES) > 90
    assert {key for key, _ in SHARES} == {
        "br35h",
        "cad",
        "lease",
        "gencnn",
        "astrocytes",
        "gensoup",
    }


def test_a_rerun_at_the_published_truth_is_rarely_contradicted(record_property):
    supported = {}
    for key, i in distinct():
        found = rates(key, i, truth(published(key, i)[1]))
        assert found["contradicted"] <= 0.05, (key, i, found)
        supported[key, i] = found["supported"]
    by_n = {}
    for (key, i), share in supported.items():
        by_n.setdefault(published(key, i)[1].n, []).append(share)
    report = {n: round(float(np.mean(shares)), 3) for n, shares in sorted(by_n.items())}
    record_property("supported, by n", report)
    print("share of perfect reruns that is supported, by n:", report)
    # few images cannot show that two results are equal to a point; many can, near 0 or 1 at once
    assert report[10000] > report[1311] > report[394]


def test_a_rerun_beyond_the_margin_is_contradicted_where_n_allows(record_property):
    """Shifted by twice the margin; and the same with as many images as it takes."""
    allowed, left = 0, []
    for key, i in distinct():
        _, v = published(key, i)
        p = truth(v)
        margin = answers.margin_of(agreement.share(p * v.n, v.n))
        shift = 2 * (margin.below if p > 2 * margin.below else margin.above)
        if not answers.allows(p, v.n, shift):
            left.append(i)
            continue
        allowed += 1
        found = rates(key, i, p - shift if p > shift else p + shift)
        assert found["contradicted"] >= 0.8, (key, i, found)
    record_property("numbers whose n allows it", allowed)
    print("numbers whose n allows it:", allowed, "of", len(distinct()), left)
    assert allowed > 0.9 * len(distinct())


def test_what_ten_images_allow():
    assert answers.allows(0.9, 1000, 0.05)
    assert not answers.allows(0.9, 10, 0.05)
    assert not answers.allows(0.9, 1000, 0.01)


def test_a_difference_of_half_a_margin_is_rarely_contradicted():
    for key, i in distinct():
        _, v = published(key, i)
        p = truth(v)
        margin = answers.margin_of(agreement.share(p * v.n, v.n))
        shift = (margin.below if p > margin.below else margin.above) / 2
        found = rates(key, i, p - shift if p > shift else p + shift)
        assert found["contradicted"] <= 0.1, (key, i, found)


def test_rates_of_a_printed_matrix_are_calibrated():
    """Precision, recall and F1 have no n in print: reruns drawn from the rows of Figure 8."""
    paper, labels = papers.load("cad"), ("glioma", "meningioma", "notumor", "pituitary")
    matrix = np.array(
        [[paper.number(f"figure-8/vgg19.{a}/{b}").value for b in labels] for a in labels], int
    )
    draw = np.random.default_rng(5)
    reruns = np.stack(
        [draw.multinomial(row.sum(), row / row.sum(), RERUNS) for row in matrix], axis=1
    )
    hits = reruns[:, range(4), range(4)]
    found = {
        "precision": hits / reruns.sum(axis=1),
        "recall": hits / reruns.sum(axis=2),
        "f1": 2 * hits / (reruns.sum(axis=1) + reruns.sum(axis=2)),
    }
    rows = np.repeat(np.arange(4), matrix.sum(axis=1))
    columns = np.concatenate([np.repeat(np.arange(4), row) for row in matrix])
    exact = f1_score(rows, columns, average=None)
    assert np.allclose(2 * np.diag(matrix) / (matrix.sum(0) + matrix.sum(1)), exact)
    for metric, values in found.items():
        for c, label in enumerate(labels):
            number = paper.number(f"table-4/vgg19.{label}/{metric}")
            error = 1.96 * values[:, c].std()
            kinds = Counter(
                comparison.compare(
                    paper, number, Ours(x, x - error, min(1.0, x + error), n=1311)
                ).kind
                for x in values[:400, c]
            )
            assert kinds["contradicted"] <= 0.05 * 400, (label, metric, kinds)


def test_an_area_under_the_curve_is_calibrated():
    paper, number = published("br35h", "graphic-3/tl/auc")
    labels = np.arange(600) < 297
    shift = sps.norm.ppf(number.value / 100) * np.sqrt(2)
    kinds = {}
    for distance in (shift, shift - 1.2):
        counted = Counter()
        for seed in range(300):
            scores = np.random.default_rng(seed).normal(size=600) + distance * labels
            mine = agreement.auc(labels, scores).scaled(100)
            ours = Ours(mine.estimate, mine.low, mine.high, n=600)
            counted[comparison.compare(paper, number, ours).kind] += 1
        kinds[distance] = counted
    assert kinds[shift]["contradicted"] <= 0.05 * 300
    assert kinds[shift - 1.2]["contradicted"] >= 0.8 * 300


def test_means_and_variances_of_folds_are_calibrated():
    mean = published("br35h", "table-1/cnn.mean/accuracy")
    variance = published("br35h", "table-1/cnn.variance/accuracy")
    spread = np.sqrt(variance[1].value)
    answers_ = {"mean": Counter(), "variance": Counter()}
    for seed in range(RERUNS):
        folds = np.random.default_rng(seed).normal(mean[1].value, spread, 3).clip(0, 99.99)
        ours = agreement.mean_over_folds(folds, 0.5, bounds=(0, 100))
        found = comparison.compare(*mean, Ours(ours.estimate, ours.low, ours.high, n=2400))
        answers_["mean"][found.kind] += 1
        ours = Ours(folds.var(ddof=1))
        answers_["variance"][comparison.compare(*variance, ours).kind] += 1
    assert all(kinds["contradicted"] <= 0.05 * RERUNS for kinds in answers_.values())


# --- single facts ---------------------------------------------------------------------------------


def test_the_papers_own_fold_variance_is_not_refuted():
    """0.0912 is the variance of its printed folds, 0.092 what it prints."""
    found = comparison.compare(*published("br35h", "table-1/cnn.variance/accuracy"), Ours(0.0912))
    assert found.kind == "undecided"
    far = comparison.compare(*published("br35h", "table-1/cnn.variance/accuracy"), Ours(92.0))
    assert far.kind == "contradicted"
    constant = comparison.compare(*published("br35h", "table-1/cnn.variance/accuracy"), Ours(0.0))
    assert constant is None


def test_copies_and_seeds_widen_the_interval():
    args = published("cad", "table-4/vgg19/accuracy")
    plain = comparison.compare(*args, Ours(97.0, n=1311)).interval
    copies = comparison.compare(*args, Ours(97.0, n=1311, groups=1000)).interval
    seeds = comparison.compare(*args, Ours(97.0, n=1311, seeds=3, seed_sd=0.5)).interval
    assert plain.high - plain.low < copies.high - copies.low
    assert plain.high - plain.low < seeds.high - seeds.low
    other = published("br35h", "graphic-3/tl/auc")
    plain = comparison.compare(*other, Ours(99.0, 98, 99.5, n=600)).interval
    seeds = comparison.compare(*other, Ours(99.0, 98, 99.5, n=600, seeds=3, seed_sd=0.5)).interval
    assert plain.high - plain.low < seeds.high - seeds.low


def test_noise_between_seeds_supports_nothing():
    """The margin is a point or the published interval; our own spread never widens it."""
    args = published("br35h", "graphic-3/tl/auc")
    found = comparison.compare(*args, Ours(99.5, 99, 99.8, n=600, seeds=3, seed_sd=2.0))
    assert found.margin.largest == pytest.approx(1.0)
    assert found.kind == "undecided"


def test_counts_of_images_are_shares_of_the_test_set():
    paper, number = published("cad", "figure-10/all-three/errors")
    near = comparison.compare(paper, number, Ours(8, n=1311))
    assert near.margin.largest == pytest.approx(13.11, abs=0.6)
    assert near.kind == "supported"
    assert comparison.compare(paper, number, Ours(705, n=1311)).kind == "contradicted"


def test_no_error_no_answer():
    assert comparison.compare(*published("br35h", "graphic-3/tl/auc"), Ours(99.5)) is None
