"""Tests of the folds and the hold-out that the Br35H paper prints, computed apart from the kit (its
Table 1 and Graphic 4), and scipy or brute force for the rest.
"""

import time

import numpy as np
import pandas as pd
import pytest
from scipy import stats as sps

from kit.evaluation import metrics, resampling, stats

CNN, TRANSFER = [97.94, 97.34, 97.70], [98.26, 97.78, 97.25]
CNN_SPECIFICITY, TRANSFER_SPECIFICITY = [96.34, 97.40, 98.03], [98.48, 98.22, 98.74]


def predictions(n=600, seed=0, groups=None) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    p = 1 / (1 + np.exp(-rng.normal(2.5 * labels - 1.25, 1.2)))
    group = np.arange(n) if groups is None else groups
    return pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(n)],
            "group": group,
            "label": labels,
            "score_0": 1 - p,
            "score_1": p,
        }
    )


# --- the folds of Table 1 -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folds", "mean", "variance", "sd"),
    [
        (CNN, 97.66, 0.0912, 0.3020),
        (TRANSFER, 97.7633, 0.2552, 0.5052),
        (CNN_SPECIFICITY, 97.2567, 0.7294, None),
        (TRANSFER_SPECIFICITY, 98.48, 0.0676, None),
    ],
)
def test_fold_summaries(folds, mean, variance, sd):
    interval = stats.mean_t(folds)
    recovered = ((interval.high - interval.low) / 2 / sps.t.ppf(0.975, 2)) * np.sqrt(3)
    assert interval.estimate == pytest.approx(mean, abs=5e-5)
    assert recovered**2 == pytest.approx(variance, abs=5e-5)
    assert sd is None or recovered == pytest.approx(sd, abs=5e-5)


def test_paired_t_oracle():
    result = stats.paired_t(TRANSFER, CNN)
    assert (result.statistic, result.p, result.df) == (
        pytest.approx(0.37060, abs=5e-6),
        pytest.approx(0.74651, abs=5e-6),
        2,
    )
    assert result.estimate == pytest.approx(0.10333, abs=5e-6)


def test_independent_t_oracles():
    pooled, welch = stats.pooled_t(TRANSFER, CNN), stats.welch_t(TRANSFER, CNN)
    assert (pooled.statistic, pooled.df, pooled.p) == (
        pytest.approx(0.30408, abs=5e-6),
        4,
        pytest.approx(0.77623, abs=5e-6),
    )
    assert (welch.statistic, welch.df, welch.p) == pytest.approx(
        (0.30408, 3.26745, 0.77942), abs=5e-6
    )


def test_t_from_the_papers_text():
    pooled, welch = (
        stats.t_from_summary(97.76, 0.328, 3, 97.66, 0.287, 3, equal_var)
        for equal_var in (True, False)
    )
    assert (pooled.statistic, pooled.p) == pytest.approx((0.39741, 0.71136), abs=5e-6)
    assert (welch.statistic, welch.p) == pytest.approx((0.39741, 0.71170), abs=5e-6)
    upper = stats.t_from_summary(97.76, 0.3275, 3, 97.66, 0.2865, 3).statistic
    assert upper == pytest.approx(0.3981, abs=5e-5)
    assert pooled.statistic < 0.3977 < upper


def test_corrected_resampled_t_and_wilcoxon_oracles():
    corrected = stats.corrected_resampled_t(np.subtract(TRANSFER, CNN), 1 / 2)
    assert (corrected.statistic, corrected.df) == (pytest.approx(0.23439, abs=5e-6), 2)
    assert corrected.p == pytest.approx(2 * sps.t.sf(0.23439, 2), abs=1e-5)
    assert stats.wilcoxon(TRANSFER, CNN).p == 1.0


# --- intervals and tests of the Br35H paper's hold-out and folds ----------------------------------


@pytest.mark.parametrize(("k", "low", "high"), [(598, 98.79, 99.91), (588, 96.54, 98.85)])
def test_wilson_of_the_hold_out(k, low, high):
    interval = stats.wilson(k, 600).scaled(100)
    assert (round(interval.low, 2), round(interval.high, 2), interval.n) == (low, high, 600)
    assert interval.estimate == pytest.approx(k / 6)


def test_fisher_and_mcnemar_bounds_of_the_hold_out():
    assert stats.fisher(2, 600, 12, 600).p == pytest.approx(0.012, abs=5e-4)
    bounds = stats.mcnemar_bounds(2, 12, 600)
    assert (round(bounds.p_low, 3), round(bounds.p_high, 3)) == (0.002, 0.013)
    assert (bounds.shared_low, bounds.shared_high) == (2, 0)


def test_cad_papers_top_models_are_indistinguishable():
    assert stats.fisher(17, 1311, 19, 1311).p == pytest.approx(0.87, abs=5e-3)


# --- against scipy --------------------------------------------------------------------------------


def test_t_tests_agree_with_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 9), rng.normal(0.5, 2, 9)
    for ours, theirs in (
        (stats.paired_t(a, b), sps.ttest_rel(a, b)),
        (stats.pooled_t(a, b[:6]), sps.ttest_ind(a, b[:6])),
        (stats.welch_t(a, b[:6]), sps.ttest_ind(a, b[:6], equal_var=False)),
    ):
        assert (ours.statistic, ours.p, ours.df) == pytest.approx(
            (theirs.statistic, theirs.pvalue, theirs.df), rel=1e-12
        )
    interval, theirs = stats.mean_t(a, 0.9), sps.ttest_1samp(a, 0).confidence_interval(0.9)
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), rel=1e-12)


def test_mcnemar_counts_discordant_images_only():
    a, b = (
        np.array([1] * 90 + [1] * 8 + [0] * 1 + [0] * 5),
        np.array([1] * 90 + [0] * 8 + [1] * 1 + [0] * 5),
    )
    result = stats.mcnemar_exact(a, b)
    assert result.statistic == 8
    assert result.p == pytest.approx(2 * sps.binom.cdf(1, 9, 0.5), rel=1e-12)
    assert result.estimate == pytest.approx(7 / 104)
    assert stats.mcnemar_exact(a, a).p == 1.0


def test_holm():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.5, np.nan, 0.9])[[0, 2]] == pytest.approx([1.0, 1.0])
    assert np.isnan(stats.holm([0.5, np.nan, 0.9])[1])


def test_delong_matches_brute_force():
    rng = np.random.default_rng(6)
    labels = rng.integers(0, 2, 60)
    a, b = (
        np.round(labels + rng.normal(0, 1, 60), 1),
        np.round(0.5 * labels + rng.normal(0, 1, 60), 1),
    )
    kernel = np.stack(
        [
            (s[labels == 1][:, None] > s[labels == 0])
            + 0.5 * (s[labels == 1][:, None] == s[labels == 0])
            for s in (a, b)
        ]
    )
    v10, v01 = kernel.mean(2), kernel.mean(1)
    covariance = np.cov(v10) / v10.shape[1] + np.cov(v01) / v01.shape[1]
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    result = stats.delong(labels, a, b)
    assert result.estimate == pytest.approx(kernel[0].mean() - kernel[1].mean(), abs=1e-12)
    assert result.statistic == pytest.approx(result.estimate / error, abs=1e-10)
    assert np.isnan(stats.delong(labels, a, 2 * a).p)


# --- bootstrap ------------------------------------------------------------------------------------


def test_bootstrap_of_accuracy_agrees_with_the_normal_interval():
    data = predictions(2000)
    interval = resampling.bootstrap(data, "accuracy", by_group=False, resamples=4000)
    a = metrics.binary_metrics(data)["accuracy"]
    half = 1.96 * np.sqrt(a * (1 - a) / 2000)
    assert interval.estimate == pytest.approx(a, abs=1e-12)
    assert interval.n == 2000
    assert (interval.low, interval.high) == pytest.approx((a - half, a + half), abs=1.5e-3)


def test_bootstrap_agrees_with_scipys_for_auc():
    data = predictions(200, seed=3)
    ours = resampling.bootstrap(data, "auc", by_group=False, resamples=4000)
    rows = (data["label"].to_numpy(), data["score_1"].to_numpy())

    def auc(labels, scores, axis=-1):
        return metrics.weighted_auc(labels, scores, np.ones((1, len(labels))))[0]

    theirs = sps.bootstrap(
        rows,
        auc,
        paired=True,
        vectorized=False,
        n_resamples=3000,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=5e-3)


def test_named_metric_and_callable_draw_alike():
    data = predictions(120, groups=np.repeat(np.arange(40), 3))
    named = resampling.bootstrap(data, "mcc", resamples=60, seed=5)
    called = resampling.bootstrap(
        data, lambda t: metrics.binary_metrics(t)["mcc"], resamples=60, seed=5
    )
    assert (named.low, named.high) == pytest.approx((called.low, called.high), abs=1e-12)


def test_copies_widen_the_grouped_interval_only():
    single = predictions(150, seed=1)
    copied = pd.concat([single] * 4, ignore_index=True).assign(
        image_id=lambda t: [f"c{k}" for k in range(len(t))]
    )
    plain, grouped = resampling.bootstrap(copied, by_group=False), resampling.bootstrap(copied)
    alone = resampling.bootstrap(single)
    width = lambda interval: interval.high - interval.low  # noqa: E731
    assert width(grouped) == pytest.approx(width(alone), rel=0.05)
    assert grouped.n == alone.n == 150
    assert width(plain) == pytest.approx(width(alone) / 2, rel=0.12)


def test_stratified_draws_keep_the_classes():
    data = predictions(100)
    seen = []
    resampling.bootstrap(
        data, lambda t: seen.append(t["label"].sum()) or 0.0, resamples=20, stratified=True
    )
    assert set(seen) == {data["label"].sum()}
    pairs = data.assign(
        group=pd.factorize(data["label"].astype(str) + (np.arange(100) // 7).astype(str))[0]
    )
    a = resampling.bootstrap(pairs, "auc", stratified=True)
    assert a.low < a.estimate < a.high
    assert a.undefined == 0


def test_bootstrap_is_seeded_and_fast():
    data = predictions(600, groups=np.arange(600) // 2)
    assert (
        resampling.bootstrap(data, "auc", seed=1)
        == resampling.bootstrap(data, "auc", seed=1)
        != resampling.bootstrap(data, "auc", seed=2)
    )
    for metric in ("accuracy", "auc"):
        began = time.process_time()
        resampling.bootstrap(data, metric, resamples=2000)
        assert time.process_time() - began < 2


def test_large_tables_are_drawn_in_chunks(monkeypatch):
    data, sizes, whole = predictions(4001), [], metrics.reweighted
    monkeypatch.setattr(
        metrics,
        "reweighted",
        lambda *a, **k: lambda weights: sizes.append(weights.shape) or whole(*a, **k)(weights),
    )
    interval = resampling.bootstrap(data, resamples=1500)
    assert [rows for rows, _ in sizes] == [999, 501, 1]  # two chunks, then the point estimate
    wilson = stats.wilson(round(interval.estimate * 4001), 4001)
    assert (interval.low, interval.high) == pytest.approx((wilson.low, wilson.high), abs=2e-3)


def test_undefined_resamples_are_counted_and_left_out():
    few = predictions(12, seed=2).assign(label=[1] + [0] * 11)
    interval = resampling.bootstrap(few, "auc", resamples=1000)
    assert interval.undefined == pytest.approx(1000 * (11 / 12) ** 12, rel=0.2)
    none = resampling.bootstrap(few.assign(label=0), "auc", resamples=50)
    assert none.undefined == 50
    assert np.isnan([none.estimate, none.low, none.high]).all()


def test_paired_difference_uses_the_same_images():
    a = predictions(400)
    b = a.sample(frac=1, random_state=0)
    same = resampling.bootstrap_difference(a, b, "auc", resamples=200)
    assert (same.low, same.high) == pytest.approx((0, 0), abs=1e-12)
    worse = a.assign(score_1=np.random.default_rng(0).random(400)).assign(
        score_0=lambda t: 1 - t["score_1"]
    )
    assert resampling.bootstrap_difference(a, worse, "auc", resamples=500).low > 0.2
    with pytest.raises(stats.BadSample, match="same images"):
        resampling.bootstrap_difference(a, b.iloc[1:])


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: stats.wilson(3, 2), "0 <= k <= n"),
        (lambda: stats.wilson(0, 0), "0 <= k <= n"),
        (lambda: stats.mean_t([1.0]), "At least 2 finite"),
        (lambda: stats.paired_t([1, 2, 3], [1, 2]), "equal length"),
        (lambda: stats.pooled_t([1, np.nan], [1, 2]), "1 of 2 given are finite"),
        (lambda: stats.corrected_resampled_t([1, 2], -1), "cannot be negative"),
        (lambda: stats.t_from_summary(1, 1, 1, 1, 1, 3), "two values"),
        (lambda: stats.mcnemar_bounds(7, 1, 5), "Error counts"),
        (lambda: stats.fisher(7, 5, 1, 5), "Error counts"),
        (lambda: stats.delong([0, 1], [0, 1], [0, 1]), "two images of each class"),
        (lambda: resampling.bootstrap(predictions(20).drop(columns="group")), "no column group"),
        (lambda: resampling.bootstrap(predictions(20).iloc[:0]), "is empty"),
        (lambda: resampling.bootstrap(predictions(20).iloc[:0], len), "is empty"),
    ],
)
def test_bad_input_gets_one_sentence(call, sentence):
    with pytest.raises((stats.BadSample, metrics.BadPredictions), match=sentence):
        call()


def test_tests_without_variation_are_undefined_and_say_so():
    for result in (
        stats.paired_t([1, 2, 3], [0, 1, 2]),
        stats.pooled_t([1, 1], [2, 2]),
        stats.welch_t([1, 1], [2, 2]),
        stats.wilcoxon([1, 2], [1, 2]),
    ):
        assert np.isnan(result.p)
        assert "undefined" in result.note


def test_t_tests_on_constant_folds_are_undefined_not_certain():
    """Rounding of floats made the spread 1e-16 and p 8e-57."""
    a, b = [0.1 + 0.2, 0.3, 0.3], [0.5, 0.5, 0.4 + 0.1]
    for test in (stats.pooled_t, stats.welch_t, stats.paired_t):
        found = test(a, b)
        assert np.isnan(found.p)
        assert np.isnan(found.statistic)
        assert "undefined" in found.note
    assert np.isnan(stats.corrected_resampled_t(np.subtract(a, b), 0.5).p)
    assert stats.welch_t([1, 1, 1], [1, 2, 3]).p < 1
