"""Forensics of the printed numbers: values computed apart from the kit, what each publication must
show, and silence on consistent numbers.
"""

import copy
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef

from kit.evaluation import stats
from kit.published import forensics, numbers, papers
from kit.published.checks import KINDS, BadCheck

CNN, TL = [97.94, 97.34, 97.70], [98.26, 97.78, 97.25]
SARTAJ = [100, 115, 105, 74]


@cache
def findings_of(key):
    return tuple(forensics.run(key))


def found(key, kind, severity=None):
    return [f for f in findings_of(key) if f.kind == kind and severity in (None, f.severity)]


def ids(findings):
    return {i for f in findings for i in f.value_ids}


def edited(key, checks, **values):
    """A copy of a publication with other checks and other printed values (ids with "__" for
    "/").
    """
    paper = papers.load(key)
    changed = {i: replace(v, value=values.get(i, v.value)) for i, v in paper.values.items()}
    return replace(paper, checks=tuple(checks), values=changed)


# --- numbers: rounding, proportions ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "how", "k"),
    [
        (97.25, "rounded", 778),
        (97.94, None, 784),
        (97.34, None, 779),
        (97.70, None, 782),
        (98.26, None, 786),
        (97.78, None, 782),
    ],
)
def test_fold_accuracies_over_800(value, how, k):
    assert numbers.reach(value, 2, 800) == (how, k)


@pytest.mark.parametrize(
    ("value", "k"),
    [
        (72.08, 945),
        (95.19, 1248),
        (97.18, 1274),
        (97.56, 1279),
        (98.55, 1292),
        (98.63, 1293),
        (98.70, 1294),
        (93.14, 1221),
    ],
)
def test_accuracies_over_1311(value, k):
    assert numbers.reach(value, 2, 1311) == ("rounded", k)
    assert numbers.reach(95.15, 2, 1311)[0] is None


def test_double_rounding_and_truncation():
    assert numbers.reach(88.33, 2, 394) == ("rounded twice", 348)
    assert numbers.reach(88.83, 2, 394) == ("rounded", 350)
    assert numbers.prints_as(0.941875, 0.9418, 4) == "truncated"
    assert numbers.prints_as(0.941875, 0.9419, 4) == "rounded"
    assert numbers.prints_as(0.5, 0.6, 1) is None


def test_ties_round_either_way():
    assert (
        numbers.prints_as(0.92875, 0.9287, 4) == numbers.prints_as(0.92875, 0.9288, 4) == "rounded"
    )


def test_smallest_common_denominator():
    assert numbers.common_denominators(CNN + TL, 2, 2, 3000)[0] == 2477
    assert numbers.common_denominators([50.0, 75.0], 2, 2, 10).tolist() == [4, 8]


# --- numbers: confusion matrices ------------------------------------------------------------------


def test_hold_out_confusion_matrices():
    assert numbers.reconstruct(98.00, 98.32, 97.69, 600) == [
        numbers.Confusion(297, 303, 292, 5, 296, 7)
    ]
    cnn = numbers.reconstruct(99.67, 100.0, 99.34, 600)
    assert {c.P for c in cnn} == {295, 296, 297, 298, 299}
    assert {(c.FN, c.FP) for c in cnn} == {(0, 2)}
    assert numbers.Confusion(297, 303, 297, 0, 301, 2) in cnn
    assert numbers.reconstruct(97.00, 98.32, 97.69, 600) == []


def test_reconstruct_finds_every_matrix_it_is_given():
    rng = np.random.default_rng(0)
    for _ in range(10):
        positives = int(rng.integers(10, 50))
        c = numbers.Confusion(
            positives,
            60 - positives,
            hits := int(rng.integers(0, positives + 1)),
            positives - hits,
            right := int(rng.integers(0, 61 - positives)),
            60 - positives - right,
        )
        printed = [round(100 * x, 2) for x in ((c.TP + c.TN) / 60, c.TP / c.P, c.TN / c.N)]
        assert c in numbers.reconstruct(*printed, 60)


def test_largest_negative_share():
    assert numbers.largest_negative_share(97.94, 97.94, 96.34) == pytest.approx(0.01 / 1.59)
    assert numbers.largest_negative_share(98.00, 98.00, 98.00) == 1.0


def test_recall_and_specificity_bounds():
    assert 100 * numbers.recall_bounds(43, SARTAJ).high == pytest.approx(90.65, abs=0.005)
    macro = numbers.specificity_bounds(47, SARTAJ)["macro"]
    assert macro.low == pytest.approx(1 - 47 / (4 * 279))
    assert macro.high == pytest.approx(1 - 47 / (4 * 320))


def test_bounds_hold_on_random_matrices():
    rng = np.random.default_rng(1)
    for _ in range(200):
        matrix = np.array([rng.multinomial(s, rng.dirichlet(np.ones(4))) for s in SARTAJ])
        errors, negatives = int(matrix.sum() - np.trace(matrix)), sum(SARTAJ) - np.array(SARTAJ)
        specificity = 1 - (matrix.sum(0) - np.diag(matrix)) / negatives
        weights = {"macro": np.full(4, 0.25), "support-weighted": np.array(SARTAJ) / sum(SARTAJ)}
        for name, w in weights.items():
            r = numbers.specificity_bounds(errors, SARTAJ)[name]
            assert r.low - 1e-12 <= (w * specificity).sum() <= r.high + 1e-12
        r = numbers.recall_bounds(errors, SARTAJ)
        assert r.low - 1e-12 <= (np.diag(matrix) / SARTAJ).mean() <= r.high + 1e-12


@pytest.mark.parametrize("classes", [2, 3, 8])
def test_balanced_mcc_bounds_hold_and_are_reached(classes):
    rng, each = np.random.default_rng(classes), 40
    true = np.repeat(np.arange(classes), each)
    for share in rng.uniform(0.4, 1, 60):
        guessed = np.where(rng.random(true.size) < share, true, rng.integers(0, classes, true.size))
        r = numbers.balanced_mcc((guessed == true).mean(), classes)
        assert r.low - 1e-9 <= matthews_corrcoef(true, guessed) <= r.high + 1e-9
    collapsed = np.where((true == 1) & (np.arange(true.size) % each < 10), 0, true)
    assert matthews_corrcoef(true, collapsed) == pytest.approx(
        numbers.balanced_mcc((collapsed == true).mean(), classes).high
    )
    turned = np.where(np.arange(true.size) % each < 10, (true + 1) % classes, true)
    assert matthews_corrcoef(true, turned) == pytest.approx(numbers.balanced_mcc(0.75, classes).low)


# --- numbers: means, spreads, t -------------------------------------------------------------------


def test_statistics_oracles():
    assert stats.paired_t(TL, CNN).statistic == pytest.approx(0.37060, abs=5e-6)
    assert stats.paired_t(TL, CNN).p == pytest.approx(0.74651, abs=5e-6)
    assert stats.pooled_t(TL, CNN).statistic == pytest.approx(0.30408, abs=5e-6)
    assert stats.welch_t(TL, CNN).df == pytest.approx(3.26745, abs=5e-6)
    assert stats.t_from_summary(97.76, 0.328, 3, 97.66, 0.287, 3).statistic == pytest.approx(
        0.39741, abs=5e-6
    )
    assert stats.t_from_summary(97.76, 0.3275, 3, 97.66, 0.2865, 3).statistic == pytest.approx(
        0.3981, abs=5e-5
    )
    assert stats.corrected_resampled_t(np.subtract(TL, CNN), 0.5).statistic == pytest.approx(
        0.23439, abs=5e-6
    )


@pytest.mark.parametrize("test", [stats.paired_t, stats.pooled_t, stats.welch_t])
def test_statistic_range_is_that_of_the_box(test):
    r = numbers.statistic_range(lambda a, b: test(a, b).statistic, (TL, CNN), 2)
    grid = [0.005 * np.array(signs) for signs in product((-1, 0, 1), repeat=6)]
    drawn = [test(TL + g[:3], CNN + g[3:]).statistic for g in grid]
    assert r.low - 1e-6 <= min(drawn) <= r.low + 1e-3
    assert r.high - 1e-3 <= max(drawn) <= r.high + 1e-6


def test_printed_means_narrow_the_range():
    statistic, means = (
        lambda a, b: stats.paired_t(a, b).statistic,
        [numbers.printed_range(97.76, 2), numbers.printed_range(97.66, 2)],
    )
    free, tied = (
        numbers.statistic_range(statistic, (TL, CNN), 2),
        numbers.statistic_range(statistic, (TL, CNN), 2, means),
    )
    assert free.high > 0.3977 > tied.high
    assert tied.high == pytest.approx(0.39736, abs=1e-5)


def test_variance_range():
    r = numbers.variance_range(CNN, 2)
    assert r.low < np.var(CNN, ddof=1) < r.high
    assert r.meets(numbers.printed_range(0.092, 3))
    assert not numbers.variance_range(CNN, 2, 0).meets(numbers.printed_range(0.092, 3))
    assert numbers.variance_range([1.0, 1.0, 1.0], 1).low == pytest.approx(0, abs=1e-12)


def test_change_range():
    assert numbers.change_range(0.9115, 0.9138, 4).meets(numbers.printed_range(0.25, 2))
    assert not numbers.change_range(0.6041, 0.6208, 4).meets(numbers.printed_range(0.46, 2))


# --- what each publication must show --------------------------------------------------------------


def test_br35h_sensitivity_is_the_accuracy():
    folds = {f"table-1/{m}.fold{i}/sensitivity" for m in ("cnn", "tl") for i in (1, 2, 3)}
    assert (
        folds
        <= ids(found("br35h", "identity", "impossible"))
        <= set(forensics.impossible_ids("br35h"))
    )
    assert "table-1/cnn.mean/sensitivity" in forensics.impossible_ids("br35h")


def test_br35h_fold_accuracies():
    reachable = "table-1/tl.fold3/accuracy"
    folds = {f"table-1/{m}.fold{i}/accuracy" for m in ("cnn", "tl") for i in (1, 2, 3)}
    assert ids(found("br35h", "fraction", "inconsistent")) == folds - {reachable}
    assert any(
        "2,477" in f.sentence and set(f.value_ids) == folds
        for f in found("br35h", "fraction", "unexplained")
    )


def test_br35h_hold_out():
    sentences = {f.value_ids[0].split("/")[1]: f.sentence for f in found("br35h", "confusion")}
    assert "P = 297, N = 303, TP = 292, FN = 5, TN = 296, FP = 7" in sentences["tl"]
    assert "one confusion matrix only" in sentences["tl"]
    assert "TP = 297, FN = 0, TN = 301, FP = 2" in sentences["cnn"]
    (fisher,) = found("br35h", "significance")
    assert "p = 0.0124" in fisher.sentence
    assert "0.0020 and 0.0129" in fisher.sentence
    assert ids(found("br35h", "outside")) == {"graphic-4/cnn/accuracy"}
    assert len(found("br35h", "order")) == 1


def test_br35h_t_test():
    (finding,) = found("br35h", "t_test", "inconsistent")
    for text in (
        "paired 0.3706",
        "pooled 0.3041",
        "Welch 0.3041",
        "0.2344",
        "gives it: t = 0.3974, df 4, p = 0.711",
    ):
        assert text in finding.sentence
    assert ids(found("br35h", "deviation")) == {"claims/t-test.cnn-sd", "claims/t-test.tl-sd"}


def test_br35h_variance_unit_and_time():
    assert len(found("br35h", "variance", "inconsistent")) == 6
    assert all("squared percentage points" in f.sentence for f in found("br35h", "variance"))
    (time,) = found("br35h", "missing_unit")
    assert "only 20 s would" in time.sentence


def test_cad_table_4_flags_exactly_the_oracle_rows():
    rows = {i.split("/")[1] for i in ids(found("cad", "report"))}
    assert rows == {
        "mobilenetv2.pituitary",
        "inceptionv3.notumor",
        "inceptionv3.pituitary",
        "xception.pituitary",
        "mobilenetv2",
    }
    assert ids(found("cad", "fraction")) == {
        "table-4/mobilenetv2/accuracy",
        "claims/mobilenetv2.accuracy",
    }
    assert {i.split("/")[1] for i in ids(found("cad", "harmonic"))} == {"mobilenetv2.pituitary"}


def test_cad_contradictions():
    same = ids(found("cad", "same"))
    assert {
        "claims/inceptionv3.prediction-time",
        "table-5/vgg19/training_time",
        "table-5/xception/training_time",
        "table-5/resnet50/training_time",
    } <= same
    assert not {"table-5/mobilenetv2/training_time", "table-5/nasnetlarge/training_time"} & same
    assert ids(found("cad", "matrix_metric")) == {
        "claims/augmentation.glioma-recall",
        "claims/augmentation.meningioma-precision",
    }
    assert ids(found("cad", "sum")) == {"claims/inceptionv3.meningioma-true.total"}


def test_impossible_is_for_what_no_data_can_give():
    """An n that is inferred and a second printed table prove a contradiction only."""
    for key, value_id in (
        ("br35h", "table-1/cnn.fold1/accuracy"),
        ("cad", "table-4/mobilenetv2.pituitary/precision"),
        ("cad", "table-4/inceptionv3.notumor/recall"),
        ("lease", "table-3/darts/parameters"),
        ("astrocytes", "table-4-8/breakhis.mobilenetv3-large/cnn_mcc"),
    ):
        assert value_id not in forensics.impossible_ids(key)
        assert value_id in forensics.inconsistent_ids(key)
    assert "table-4/mobilenetv2/accuracy" in forensics.impossible_ids("cad")
    assert (
        "a third of the 2400" in forensics.inconsistent_ids("br35h")["table-1/cnn.fold1/accuracy"]
    )


def test_what_a_printed_matrix_confirms_is_not_in_doubt():
    doubted = set(forensics.inconsistent_ids("cad")) | set(forensics.impossible_ids("cad"))
    assert "table-4/mobilenetv2.pituitary/precision" in doubted
    assert "table-4/mobilenetv2.pituitary/recall" not in doubted
    assert "table-4/mobilenetv2.pituitary/f1" not in doubted
    assert "table-5/mobilenetv2/accuracy" not in doubted


def test_a_stated_n_at_fault_puts_no_value_in_doubt():
    assert not any("table-4-2/breakhis" in i for i in forensics.inconsistent_ids("astrocytes"))


def test_a_wrong_unit_puts_no_variance_in_doubt():
    doubted = forensics.inconsistent_ids("br35h")
    assert "table-1/cnn.variance/accuracy" not in doubted
    assert {"claims/t-test.cnn-sd", "claims/t-test.t"} <= set(doubted)


def test_lease_accuracies():
    assert {
        papers.load("lease").values[i].value for i in ids(found("lease", "fraction", "impossible"))
    } == {89.60, 89.11, 88.87, 90.18, 90.17, 88.49, 88.56}
    assert {
        papers.load("lease").values[i].value for i in ids(found("lease", "fraction", "unexplained"))
    } == {88.33}
    (same,) = found("lease", "same")
    assert "88.87" in same.sentence
    assert "88.83" in same.sentence


def test_lease_macro_metrics_and_parameters():
    rows = [i.split("/")[1] for i in ids(found("lease", "specificity"))]
    assert len(rows) == 13
    assert "resnet101" not in rows
    assert len(found("lease", "specificity", "impossible")) == 11
    assert ids(found("lease", "recall")) == {"table-3/lease-pcdarts.gamma0.5/recall"}
    assert len(ids(found("lease", "bounds", "inconsistent"))) == 8
    assert ids(found("lease", "extreme")) == {"claims/best-auc"}
    assert len(found("lease", "less")) == 3


def test_thesis():
    assert {papers.load("gencnn").values[i].value for i in ids(found("gencnn", "bounds"))} == {
        0.1835,
        0.1771,
    }
    assert not found("gencnn", "sum")
    assert {f.value_ids[0] for f in found("astrocytes", "delta", "inconsistent")} == {
        "table-4-8/breakhis.mobilenetv3-large/delta"
    }
    assert ids(found("astrocytes", "order")) > {"table-4-8/cifar-100.mobilenetv3-large/cngn_mcc"}
    assert len(found("astrocytes", "order")) == 1
    assert "table-4-8/cifar-100.mobilenetv3-large/cngn_mcc" in ids(
        found("astrocytes", "balanced_mcc", "inconsistent")
    )
    assert {
        "table-4-8/cifar-100.mobilenetv3-large/cnn_mcc",
        "table-4-8/kvasir-v2.mobilenetv3-large/cnn_mcc",
    } == ids(found("astrocytes", "balanced_mcc", "unexplained"))
    assert all("n = 1,582" in f.sentence for f in found("astrocytes", "fraction"))
    assert len(found("astrocytes", "fraction")) == 2
    assert "together" in found("astrocytes", "steps")[0].sentence
    assert ids(found("gensoup", "ratio")) == {"claims/fewer-flops"}
    assert not found("gensoup", "balanced_mcc")


def test_pbcnas():
    flops, parameters = found("pbcnas", "ratio")
    assert "45.06" in flops.sentence
    assert "17.75 over 0.39" in flops.sentence
    assert "2557" in parameters.sentence
    assert ids(found("pbcnas", "sum")) == {"claims/medmnist.total"}


# --- consistent numbers give no finding -----------------------------------------------------------


def checks_of(key, kind):
    return [c for c in copy.deepcopy(papers.load(key).checks) if c["kind"] == kind]


def test_consistent_folds_are_silent():
    matrices = {
        "cnn.fold1": (391, 400, 385, 400),
        "cnn.fold2": (380, 400, 392, 400),
        "cnn.fold3": (388, 395, 390, 405),
    }
    values = {}
    for row, (tp, p, tn, n) in matrices.items():
        values |= {
            f"table-1/{row}/accuracy": round(100 * (tp + tn) / 800, 2),
            f"table-1/{row}/sensitivity": round(100 * tp / p, 2),
            f"table-1/{row}/specificity": round(100 * tn / n, 2),
        }
    acc = [values[f"table-1/{row}/accuracy"] for row in matrices]
    values |= {
        "table-1/cnn.mean/accuracy": round(np.mean(acc), 2),
        "claims/t-test.cnn-sd": round(np.std(acc, ddof=1), 3),
    }
    checks = [
        {"kind": "fraction", "values": ["table-1/cnn.fold*/accuracy"]},
        {"kind": "identity", "rows": ["table-1/cnn.fold*"], "negatives": 0.5},
        {
            "kind": "mean",
            "of": ["table-1/cnn.fold*/accuracy"],
            "printed": "table-1/cnn.mean/accuracy",
        },
        {
            "kind": "deviation",
            "of": ["table-1/cnn.fold*/accuracy"],
            "printed": "claims/t-test.cnn-sd",
        },
        {"kind": "confusion", "rows": [f"table-1/{row}" for row in matrices]},
    ]
    assert forensics.run(edited("br35h", checks, **values)) == []


@pytest.mark.parametrize("statistic", [stats.paired_t, stats.pooled_t])
def test_a_right_t_statistic_is_silent(statistic):
    t = round(statistic(TL, CNN).statistic, 4)
    assert (
        forensics.run(edited("br35h", checks_of("br35h", "t_test"), **{"claims/t-test.t": t})) == []
    )


def test_equal_sensitivity_accuracy_and_specificity_are_possible():
    same = {
        f"table-1/{m}.fold{i}/specificity": papers.load("br35h")
        .values[f"table-1/{m}.fold{i}/accuracy"]
        .value
        for m in ("cnn", "tl")
        for i in (1, 2, 3)
    }
    assert forensics.run(edited("br35h", checks_of("br35h", "identity"), **same)) == []


def test_corrected_cad_table_is_silent():
    values = {
        "table-4/mobilenetv2/accuracy": 95.19,
        "table-4/mobilenetv2.pituitary/precision": 0.88,
        "table-4/inceptionv3.notumor/precision": 0.99,
        "table-4/inceptionv3.notumor/recall": 0.99,
        "table-4/inceptionv3.pituitary/precision": 1.00,
        "table-4/inceptionv3.pituitary/recall": 0.98,
        "table-4/xception.pituitary/recall": 1.00,
        "claims/mobilenetv2.accuracy": 95.19,
    }
    checks = (
        checks_of("cad", "report") + checks_of("cad", "fraction") + checks_of("cad", "harmonic")
    )
    assert forensics.run(edited("cad", checks, **values)) == []


def test_impossible_triple_and_split_of_the_hold_out():
    wrong = edited("br35h", checks_of("br35h", "confusion"), **{"graphic-4/tl/accuracy": 99.00})
    assert [f.severity for f in forensics.run(wrong)] == ["impossible"]
    assert "graphic-4/tl/specificity" in forensics.impossible_ids(wrong)
    stratified = {
        "graphic-4/tl/sensitivity": 98.33,
        "graphic-4/tl/specificity": 97.67,
        "graphic-4/cnn/specificity": 99.33,
    }
    assert forensics.run(edited("br35h", checks_of("br35h", "confusion"), **stratified)) == []


def test_wrong_sum_and_long_step_are_found():
    assert not found("lease", "sum")
    wrong = edited("lease", checks_of("lease", "sum"), **{"table-2/total/train": 2871})
    assert {f.value_ids[0] for f in forensics.run(wrong)} == {
        "table-2/total/train",
        "claims/dataset.images",
    }
    jump = edited(
        "astrocytes",
        checks_of("astrocytes", "steps"),
        **{"table-4-3/regnety-400mf.epoch1/str": 0.25},
    )
    assert "table-4-3/regnety-400mf.epoch1/str" in {
        i for f in forensics.run(jump) for i in f.value_ids
    }


# --- the machinery --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["br35h", "cad", "lease", "gencnn", "astrocytes", "gensoup", "pbcnas"]
)
def test_findings_are_well_formed(key):
    findings, paper = findings_of(key), papers.load(key)
    assert findings
    assert all(
        f.severity in forensics.SEVERITIES and f.sentence.endswith(".") and f.value_ids
        for f in findings
    )
    assert all(
        paper.number(i) if i != "claims/one-at-a-time" else True
        for f in findings
        for i in f.value_ids
    )
    assert set(forensics.impossible_ids(key)) <= set(paper.values)
    table = forensics.table(findings)
    assert list(table.columns) == list(forensics.COLUMNS)
    assert len(table) == len(findings)


def test_every_kind_is_used():
    known = papers.keys()
    assert {c["kind"] for key in known for c in papers.load(key).checks} == set(KINDS)


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ({"kind": "nonsense"}, "does not exist"),
        ({"kind": "fraction", "valus": []}, "wrong parameters"),
        ({"kind": "fraction", "values": ["table-9/*"]}, "matches no number"),
    ],
)
def test_bad_checks_are_refused(check, words):
    with pytest.raises(BadCheck, match=words) as caught:
        forensics.run(edited("br35h", [check]))
    assert str(caught.value).count(". ") == 0


def test_command_line(capsys):
    assert forensics.main(["br35h"]) == 0
    assert "28 findings" in capsys.readouterr().out
    assert forensics.main(["nonsense"]) == 1
    assert "no publication" in capsys.readouterr().err
