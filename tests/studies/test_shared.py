"""What all studies share: trainings that fail, differences over seeds, cells and settings."""

from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from scipy import stats as sps

from kit.evaluation import stats
from kit.report import results as report_results
from kit.studies import shared

WORDS = shared.Words(better="up", worse="down", within="level", undecided="unknown")


def fail():
    raise FloatingPointError("the loss is nan")


def test_a_failed_job_is_reported_and_the_others_are_kept(capsys):
    jobs = {"a": lambda: 1, "b": fail, "c": lambda: 3}
    assert shared.attempted(jobs, FloatingPointError) == {"a": 1, "c": 3}
    assert capsys.readouterr().out == "left out: the loss is nan\n"
    shared.attempted(
        {("genetic", 2): fail}, (FloatingPointError,), lambda key: f"{key[0]} {key[1]}"
    )
    assert capsys.readouterr().out == "left out: genetic 2: the loss is nan\n"
    with pytest.raises(FloatingPointError):
        shared.attempted(jobs, KeyError)


@pytest.mark.parametrize(
    ("values", "answer"),
    [([2, 2.1, 1.9], "up"), ([-2, -2.1, -1.9], "down"), ([-1, 1, 0.5], "level"), ([1], "unknown")],
)
def test_an_answer_follows_the_interval(values, answer):
    found = shared.judged(values, WORDS)
    assert found["answer"] == answer
    assert found["difference"] == pytest.approx(np.mean(values))
    assert np.isnan(found["low"]) == (answer == "unknown")


def test_an_answer_needs_enough_seeds():
    assert shared.judged([2, 2.1], WORDS, least=3)["answer"] == "unknown"
    assert np.isnan(shared.judged([], WORDS)["difference"])


def test_differences_are_over_common_seeds():
    first, second = {0: 0.5, 1: 0.6, 2: 0.9}, {2: 0.7, 1: 0.5, 3: 0.1}
    found = shared.difference(first, second, scale=100)
    assert found["seeds"] == 2
    assert found["difference"] == pytest.approx(15)
    assert found["low"] == pytest.approx(stats.mean_t(np.array([10.0, 20.0])).low)
    assert shared.difference(first, {5: 1.0}) == {}


def test_a_difference_table_has_its_columns_without_lines_too():
    pairs = [({"what": "a − b"}, {0: 2.0}, {0: 1.0}), ({"what": "a − c"}, {0: 2.0}, {})]
    table = shared.difference_table(pairs, ["what"], column="difference (pp)")
    assert table["what"].tolist() == ["a − b"]
    assert table["answer"].tolist() == ["one seed: no answer"]
    empty = shared.difference_table([], ["what"], column="difference (pp)")
    assert empty.columns.tolist() == table.columns.tolist()


def test_rates_stand_on_all_images_and_on_leak_free_ones(monkeypatch):
    monkeypatch.setattr(report_results, "leak_free", lambda table, name, ids: table[:0])
    predictions = pd.DataFrame({"label": [0, 1]})

    def interval(table, metric):
        return stats.wilson(1, len(table)) if len(table) else None

    found = shared.result_table({"net": (predictions, "digits", [])}, ["accuracy"], interval)
    line = found.iloc[0]
    assert (line["row"], line["metric"], line["value"], line["n"]) == ("net", "accuracy", 0.5, 2)
    assert line["leak_free_n"] == 0
    assert np.isnan(line["leak_free"])


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-5, "1e-05"), (2.0, "2"), (3, "3"), ("SGD", "SGD"), ([0.5, 1.0, "x"], "0.5, 1, x")],
)
def test_settings_are_printed_plainly(value, text):
    assert shared.plain(value) == text
    table = shared.settings_table([("name", value)], ["setting", "here"])
    assert table.to_dict("records") == [{"setting": "name", "here": text}]


# --- evidence -------------------------------------------------------------------------------------


def test_differences_over_folds_know_that_folds_overlap():
    values = [0.4, 1.0, -0.2, 0.9]
    plain, folds = shared.over_folds(values), shared.over_folds(values, 1 / 3)
    expected = sps.t.interval(0.95, 3, np.mean(values), sps.sem(values))
    assert (plain.low, plain.high) == pytest.approx(expected)
    wider = np.sqrt((1 / 4 + 1 / 3) / (1 / 4))
    assert folds.high - folds.low == pytest.approx(wider * (plain.high - plain.low))
    even = shared.over_folds([-1.0, 1.0])
    assert even.estimate == 0
    assert even.high == pytest.approx(sps.t.ppf(0.975, 1) * 1.0)


@pytest.mark.parametrize("values", [[], [1.0], [0.5, 0.5, 0.5]])
def test_differences_that_allow_no_interval_have_none(values):
    assert not np.isfinite(shared.over_folds(values).low)


def test_ratios_are_geometric_means():
    found = shared.over_ratios([1, 2, 4.4], [2, 4, 8])
    assert found.estimate == pytest.approx((0.5 * 0.5 * 0.55) ** (1 / 3))
    assert 0 < found.low < found.estimate < found.high


def test_paired_shares_align_images_and_count_copies_once():
    draw = np.random.default_rng(0)
    n = 120
    label = draw.integers(0, 2, n)
    frames = []
    for rate in (0.95, 0.8):
        right = draw.random(n) < rate
        score = np.where(right, label, 1 - label).astype(float)
        frames.append(
            pd.DataFrame(
                {
                    "image_id": [f"i{i}" for i in range(n)],
                    "group": np.arange(n) // 2,
                    "label": label,
                    "score_0": 1 - score,
                    "score_1": score,
                }
            )
        )
    first, second = frames
    found = shared.paired_shares(first, second.sample(frac=1, random_state=0))
    assert found.low > 0
    single = shared.paired_shares(first.assign(group=range(n)), second)
    assert found.estimate == single.estimate
    assert found.high - found.low > single.high - single.low
    area = shared.paired_areas(first, second, 200)
    assert area.low < area.estimate < area.high
    assert shared.paired_areas(first[first.label == 1], second[second.label == 1]) is None


def test_evidence_without_an_interval_is_said_and_not_stored(capsys):
    class Out:
        stored: ClassVar[list] = []

        def evidence(self, *arguments, **more):
            self.stored.append((arguments, more))

    out = Out()
    shared.store_evidence(out, "x", shared.over_folds([1.0]))
    shared.store_evidence(out, "x", None)
    assert not out.stored
    assert capsys.readouterr().out.count("no evidence on x") == 2
    shared.store_evidence(out, "x", {"a": shared.over_folds([1, 2]), "b": None}, seeds=2)
    assert list(out.stored[0][0][1]) == ["a"]
    assert out.stored[0][1] == {"seeds": 2}
