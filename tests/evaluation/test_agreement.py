"""Intervals of differences against statsmodels, scipy, scikit-learn and their own coverage."""

import numpy as np
import pytest
from scipy import stats as sps
from sklearn.metrics import roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from kit.evaluation import agreement
from kit.evaluation.stats import BadSample, Interval, corrected_resampled_t, delong


def rng(seed=0):
    return np.random.default_rng(seed)


# --- shares ---------------------------------------------------------------------------------------


def test_share_is_wilsons_interval_of_scipy_and_statsmodels():
    for _ in range(50):
        n = int(rng(_).integers(1, 2000))
        k = int(rng(_ + 1).integers(0, n + 1))
        found = agreement.share(k, n, 0.9)
        scipy = sps.binomtest(k, n).proportion_ci(0.9, method="wilson")
        assert (found.low, found.high) == pytest.approx((scipy.low, scipy.high), abs=1e-12)
        assert (found.low, found.high) == pytest.approx(
            proportion_confint(k, n, 0.1, "wilson"), abs=1e-12
        )


def test_share_difference_is_statsmodels_and_lies_near_the_score_interval():
    """Miettinen and Nurminen's interval, which statsmodels cannot solve for everything."""
    near = 0
    for seed in range(30):
        draw = rng(seed)
        n1, n2 = draw.integers(100, 2000, 2)
        k1, k2 = draw.binomial([n1, n2], [0.9, 0.85])
        found = agreement.share_difference(k1, n1, k2, n2)
        assert (found.low, found.high) == pytest.approx(
            confint_proportions_2indep(k1, n1, k2, n2, method="newcomb", compare="diff")
        )
        try:
            score = confint_proportions_2indep(k1, n1, k2, n2, method="score", compare="diff")
        except ValueError:
            continue
        near += (found.low, found.high) == pytest.approx(score, abs=0.005)
    assert near >= 20


@pytest.mark.parametrize(("k1", "k2"), [(0, 0), (40, 40), (0, 40), (40, 39)])
def test_share_difference_at_the_ends_stays_within_its_range(k1, k2):
    found = agreement.share_difference(k1, 40, k2, 40)
    assert -1 <= found.low <= found.estimate <= found.high <= 1
    assert found.low < found.high


def test_difference_of_two_wilson_intervals_is_newcombes():
    for seed in range(30):
        draw = rng(seed)
        n1, n2 = draw.integers(5, 500, 2)
        k1, k2 = draw.integers(0, n1 + 1), draw.integers(0, n2 + 1)
        a = agreement.difference(agreement.share(k1, n1), agreement.share(k2, n2))
        b = agreement.share_difference(k1, n1, k2, n2)
        assert (a.low, a.high) == pytest.approx((b.low, b.high), abs=1e-12)


def test_paired_ends_are_those_of_newcombes_article():
    """Statistics in Medicine 17 (1998) 2635: 36, 12, 2 and 0 of 50 give 0.0569 to 0.3404."""
    assert agreement.paired_ends(36, 12, 2, 0) == pytest.approx((0.0569, 0.3404), abs=5e-5)


def test_paired_without_correlation_is_the_independent_interval():
    """Rows and columns of the table independent: phi is 0."""
    low, high = agreement.paired_ends(72, 18, 8, 2)
    other = agreement.share_difference(90, 100, 80, 100)
    assert (low, high) == pytest.approx((other.low, other.high), abs=1e-12)


def test_paired_interval_excludes_zero_where_mcnemar_does():
    agreed = 0
    for seed in range(200):
        draw = rng(seed)
        a = draw.random(400) < 0.9
        b = np.where(draw.random(400) < 0.15, draw.random(400) < 0.6, a)
        found = agreement.paired_difference(a, b)
        table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
        p = mcnemar(table, exact=False, correction=False).pvalue
        agreed += (found.low > 0 or found.high < 0) == (p < 0.05)
    assert agreed >= 190


def test_paired_interval_covers_the_truth():
    truth, hits = 0.05, 0
    for seed in range(1000):
        draw = rng(seed).choice(4, 150, p=[0.85, 0.08, 0.03, 0.04])
        found = agreement.paired_difference(draw < 2, (draw == 0) | (draw == 2))
        hits += found.low <= truth <= found.high
    assert 0.93 <= hits / 1000 <= 0.985


def test_copies_count_once():
    correct = np.array([True, False, True, True, False, True, True, True] * 10)
    twice = np.repeat(correct, 2)
    groups = np.repeat(np.arange(80), 2)
    n = agreement.effective(160, twice.mean(), groups=groups)
    assert n == pytest.approx(80)
    one, other = agreement.share(n * twice.mean(), n), agreement.share(correct.sum(), 80)
    assert (one.low, one.high) == pytest.approx((other.low, other.high))
    wrong = np.arange(80) % 3 > 0
    a = agreement.paired_difference(twice, np.repeat(wrong, 2), groups)
    b = agreement.paired_difference(correct, wrong)
    assert (a.low, a.high) == pytest.approx((b.low, b.high))
    assert a.n == 160


def test_interval_of_shares_in_clusters_covers_the_truth():
    """Copies are answered alike: the plain interval is too short, the other one is not."""
    hits = plain = 0
    for seed in range(800):
        draw = rng(seed)
        sizes = draw.choice([1, 1, 1, 2, 6], 200)
        groups = np.repeat(np.arange(200), sizes)
        correct = (draw.random(200) < 0.85)[groups]
        p, n = correct.mean(), len(groups)
        k = agreement.effective(n, p, groups=groups)
        found, short = agreement.share(p * k, k), agreement.share(correct.sum(), n)
        hits += found.low <= 0.85 <= found.high
        plain += short.low <= 0.85 <= short.high
    assert hits / 800 > 0.93 > 0.9 > plain / 800


def test_the_spread_between_seeds_widens():
    assert agreement.effective(1000, 0.9) == 1000
    assert agreement.effective(1000, 0.9, groups=700) == 700
    few, many = (agreement.effective(1000, 0.9, seed_sd=0.02, seeds=s) for s in (3, 30))
    assert few < many < 1000
    assert agreement.effective(1000, 0.9, seed_sd=0.02, seeds=30, single=True) < many
    assert agreement.effective(1000, 1.0, seed_sd=0.02, seeds=3) < 1000
    assert agreement.seed_variance(0.02, 1) == 0
    assert agreement.seed_variance(0.02, 1000, of_mean=False) == pytest.approx(0.02**2, rel=0.01)


def test_at_level_scales_each_side():
    found = agreement.at_level(Interval(5, 4, 7, 0.95, 10, "x"), 0.9)
    assert (found.low, found.high) == pytest.approx((5 - 0.83920, 5 + 2 * 0.83920), abs=1e-4)
    back = agreement.at_level(found, 0.95)
    assert (back.low, back.high) == pytest.approx((4, 7))


# --- folds ----------------------------------------------------------------------------------------


def test_mean_over_folds_has_the_corrected_resampled_error():
    values, ratio = np.array([0.62, 0.58, 0.55, 0.64]), 0.25
    found = agreement.mean_over_folds(values, ratio)
    test = corrected_resampled_t(values - 0.5, ratio)
    error = test.estimate / test.statistic
    p = values.mean()
    half = sps.t.ppf(0.975, 3) * error / (p * (1 - p))
    assert np.log(found.high / (1 - found.high)) == pytest.approx(np.log(p / (1 - p)) + half)
    assert found.high - found.low == pytest.approx(2 * sps.t.ppf(0.975, 3) * error, rel=0.1)


def test_mean_over_folds_never_leaves_the_range():
    """A plain t interval of these three ends at 100.4 %."""
    folds = [0.999, 0.985, 0.995]
    plain = np.mean(folds) + sps.t.ppf(0.975, 2) * np.std(folds, ddof=1) / np.sqrt(3)
    found = agreement.mean_over_folds(folds, 0.5)
    assert plain > 1 > found.high > found.estimate > found.low > 0
    percent = agreement.mean_over_folds([99.9, 98.5, 99.5], 0.5, bounds=(0, 100))
    assert (percent.low, percent.high) == pytest.approx((100 * found.low, 100 * found.high))


def test_constant_folds_fall_back_on_the_images_or_stay_undefined():
    found = agreement.mean_over_folds([0.9, 0.9, 0.9], 0.5, n=300)
    assert (found.low, found.high) == pytest.approx(
        (agreement.share(270, 300).low, agreement.share(270, 300).high)
    )
    assert np.isnan(agreement.mean_over_folds([0.9, 0.9, 0.9], 0.5).low)
    assert agreement.mean_over_folds([1.0, 1.0], 0.5, n=40).high == 1


def test_mean_over_independent_runs_covers_the_truth():
    hits = 0
    for seed in range(1000):
        runs = rng(seed).beta(90, 10, 5)
        found = agreement.mean_over_folds(runs, 0.0)
        hits += found.low <= 0.9 <= found.high
    assert 0.93 <= hits / 1000 <= 0.975


# --- areas and variances --------------------------------------------------------------------------


def test_auc_is_that_of_sklearn_and_its_error_that_of_delongs_test():
    for seed in range(20):
        draw = rng(seed)
        labels = draw.random(80) < 0.4
        scores = np.round(draw.normal(size=80) + labels, 1)
        area, variance = agreement.placements(labels, scores)
        assert area == pytest.approx(roc_auc_score(labels, scores))
        noise = draw.normal(size=80) * 1e-9 + 0.5  # an uninformative rival with an error of its own
        other, other_variance = agreement.placements(labels, noise)
        test = delong(labels, scores, noise)
        covariance = (variance + other_variance - (test.estimate / test.statistic) ** 2) / 2
        assert test.estimate == pytest.approx(area - other)
        assert abs(covariance) <= np.sqrt(variance * other_variance) * (1 + 1e-9)
        found = agreement.auc(labels, scores)
        assert 0 < found.low < area < found.high < 1


def test_auc_interval_covers_the_truth():
    truth = sps.norm.cdf(2 / np.sqrt(2))
    hits = 0
    labels = np.arange(120) < 50
    for seed in range(600):
        found = agreement.auc(labels, rng(seed).normal(size=120) + 2 * labels)
        hits += found.low <= truth <= found.high
    assert 0.92 <= hits / 600 <= 0.98


def test_auc_of_a_perfect_ranking_has_an_interval():
    labels = np.arange(20) < 10
    for scores, side in ((labels, "high"), (~labels, "low")):
        found = agreement.auc(labels, scores)
        assert found.low < found.high
        assert getattr(found, side) == found.estimate


def test_variance_interval_is_the_chi_squares():
    draw = rng(3)
    hits = 0
    for _ in range(1000):
        found = agreement.variance(np.var(draw.normal(0, 3, 6), ddof=1), 5)
        hits += found.low <= 9 <= found.high
    assert 0.93 <= hits / 1000 <= 0.97
    one = agreement.variance(0.0912, 2)
    assert 2 * 0.0912 / one.low == pytest.approx(sps.chi2.ppf(0.975, 2))


def test_variance_ratio_agrees_with_the_f_test():
    for seed in range(100):
        draw = rng(seed)
        a, b = draw.normal(0, 2, 8), draw.normal(0, 1, 5)
        found = agreement.variance_ratio(a.var(ddof=1), 7, b.var(ddof=1), 4)
        p = sps.f.cdf(a.var(ddof=1) / b.var(ddof=1), 7, 4)
        assert (found.low > 1 or found.high < 1) == (2 * min(p, 1 - p) < 0.05)
    assert np.isnan(agreement.variance_ratio(1, 2, 0, 2).estimate)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: agreement.share(5, 4),
        lambda: agreement.share_difference(1, 2, 3, 2),
        lambda: agreement.paired_difference([True], [True, False]),
        lambda: agreement.mean_over_folds([0.5], 0.5),
        lambda: agreement.mean_over_folds([0.5, 1.5], 0.5),
        lambda: agreement.auc([1, 1, 1, 0], [1, 2, 3, 4]),
        lambda: agreement.variance(-1, 2),
        lambda: agreement.difference(
            agreement.share(1, 2, 0.9),
            agreement.share(1, 2, 0.95),
        ),
    ],
)
def test_bad_input_is_refused_with_one_sentence(wrong):
    with pytest.raises(BadSample) as caught:
        wrong()
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
