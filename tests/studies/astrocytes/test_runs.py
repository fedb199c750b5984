"""The astrocyte experiments: plans, parts, the greedy search and its resume, and one small case
from training to the tables.
"""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from kit.published import papers
from kit.studies.astrocytes import evidence, search, similarity_tables
from kit.studies.astrocytes import plan as astrocytes_plan
from kit.studies.astrocytes import runs as astrocytes_runs
from kit.studies.astrocytes import tables as astrocytes_tables
from kit.training import short, short_network
from kit.training.train import Diverged


@pytest.fixture(scope="module")
def plan(private_folders):
    return astrocytes_plan.Plan(
        profile="astrotest",
        datasets={"cifar-10": "digits"},
        architectures={"shufflenetv2-x1.5": "mobilenetv3_small"},
        image_size=32,
        images=64,
        evaluated=40,
        batch_size=16,
        learning_rate=1.0,
        mixing="off",
        weights=None,
        grid=(0.5, 1.0),
        exp1_repetitions=1,
        exp1_epochs=1,
        exp2_epochs=2,
        exp3_repetitions=2,
        exp3_epochs=1,
        arms=("found", "released"),
    )


@pytest.fixture(scope="module")
def loaded(plan):
    return astrocytes_runs.inputs_and_parts(plan)


@pytest.fixture(scope="module")
def case(plan):
    return astrocytes_plan.cases(plan)[0]


def test_the_published_plan_is_the_thesis():
    published = astrocytes_plan.Plan(profile="x")
    assert astrocytes_plan.notes(published) == []
    assert len(astrocytes_plan.cases(published)) == 12
    assert {case.row for case in astrocytes_plan.cases(published)} == {
        key.split("/")[1]
        for key in papers.load("astrocytes").values
        if key.startswith("table-4-7/")
    }
    table = astrocytes_tables.settings_table(published).set_index("setting")
    stated = table.iloc[: len(astrocytes_tables.SETTINGS)]
    assert stated.eval("published == here").all()
    assert table.loc["optimizer", "here"] == "Adam"
    assert table.loc["scheduler, experiment 3", "published"] == "cosine annealing"
    assert {"cosine's floor", "momentum of BatchNormalization", "jitter of colours"} <= set(
        table.index
    )


def test_every_reduction_and_stand_in_is_named(plan, case):
    said = " | ".join(astrocytes_plan.notes(plan))
    assert all(
        part in said
        for part in (
            "64 training images",
            "40 validation",
            "batch size 16",
            "Str of Experiment 1",
            "learning rate 0.001 instead of 0.0001",
            "without CIFAR-100",
            "RegNet",
        )
    )
    assert "in place of CIFAR-10" in astrocytes_plan.stand_in(plan)
    assert "Shufflenet" in astrocytes_plan.stand_in(plan, [case])
    assert astrocytes_plan.titles(plan)["cifar-10"] == "UCI optical handwritten digits for CIFAR-10"


@pytest.mark.parametrize(
    "wrong",
    [
        {"datasets": {"mnist": "digits"}},
        {"architectures": {}},
        {"arms": ("none",)},
        {"grid": (0.5, 1.5)},
        {"exp3_epochs": 11},
        {"exp1_epochs": 0},
        {"exp2_epochs": 2, "exp3_epochs": 3},
        {"judged_by": "test"},
        {"architectures": {"shufflenetv2-x1.5": "squeezenet_1.1"}},  # no BatchNormalization
    ],
)
def test_a_bad_plan_is_one_sentence(wrong):
    with pytest.raises(astrocytes_plan.BadAstrocytePlan):
        astrocytes_plan.Plan(profile="x", **wrong)


def test_parts_are_disjoint_shares_of_every_class(loaded):
    inputs, parts = loaded["digits"]
    assert [len(parts[name]) for name in ("train", "val", "test")] == [64, 40, 40]
    assert len(np.unique(np.concatenate(list(parts.values())))) == 144
    assert all(set(inputs.labels[rows]) == set(range(10)) for rows in parts.values())
    assert (
        max(np.bincount(inputs.labels[parts["train"]]))
        - min(np.bincount(inputs.labels[parts["train"]]))
        <= 1
    )
    copies, tests = astrocytes_runs.copies(loaded)["digits"]
    assert 0 <= copies <= tests == 40


def test_published_factors_are_the_tables(case):
    assert astrocytes_runs.published_factors(case, 3) == [(1.0, 0.75), (1.25, 0.75), (1.5, 0.5)]


def test_the_nine_candidates_begin_with_the_centre():
    points = search.candidates((1.25, 0.5), 0.25)
    assert points[0] == (1.25, 0.5)
    assert len(set(points)) == 9
    assert set(points[1:5]) == {(1.0, 0.5), (1.5, 0.5), (1.25, 0.25), (1.25, 0.75)}
    assert points[1] == (1.0, 0.5)
    assert {x for x, _ in points} == {1.0, 1.25, 1.5}
    assert {y for _, y in points} == {
        0.25,
        0.5,
        0.75,
    }


class Doer:
    """Stands in for a trainer: the accuracy of a candidate is known, and so is what it started
    from.
    """

    def __init__(self):
        self.initial = [np.zeros(2, np.float32)]
        self.calls, self.stop, self.artefact = [], None, False

    def train(self, values, inputs, rows, *, seed, first_epoch, weights, factors, **rest):
        self.calls.append((first_epoch, seed, factors, float(weights[0][0])))
        if len(self.calls) == self.stop:
            raise KeyboardInterrupt
        pair = factors[0] if factors else (1.0, 1.0)
        if pair[0] == 1.25:
            raise Diverged("too far")
        self.last = -abs(pair[0] - 0.25) - abs(pair[1] - 1.25) if factors else float(seed == 4)
        self.stale = pair != (1.0, 1.0)
        return short.Trained([np.full(2, len(self.calls), np.float32)], [{"loss": 1.0}])

    def recalibrate(self, *arguments, weights, **rest):
        return ["fresh"]

    def predict(self, inputs, rows, size, part, weights):
        """By moving statistics every scaled network is at chance."""
        stale = not isinstance(weights[0], str) and self.stale and self.artefact
        return pd.DataFrame({"accuracy": [-9.0 if stale else self.last], "part": part})


@pytest.fixture
def doer(monkeypatch):
    found = Doer()
    monkeypatch.setattr(short, "trainer", lambda network: found)
    monkeypatch.setattr(
        short_network, "rates", lambda table: {"accuracy": 5.0 + table["accuracy"][0]}
    )
    return found


def test_the_search_goes_to_the_best_of_nine_and_on_from_its_weights(plan, case, loaded, doer):
    run = search.search(
        dataclasses.replace(plan, profile="greedy", exp2_epochs=3, exp3_epochs=1), case, loaded
    )
    assert search.chosen(run) == [(0.75, 1.25), (0.5, 1.25), (0.25, 1.25)]
    starts = [start for epoch, _, _, start in doer.calls]
    assert starts[:9] == [0.0] * 9
    assert len(set(starts[9:18])) == 1
    assert starts[9] > 0
    assert [seed for _, seed, _, _ in doer.calls[:9]] == list(range(9))
    history = run.history()
    assert len(history) == 27
    assert history["chosen"].sum() == 3
    assert history[history["strong"] == 1.25]["val_accuracy"].isna().all()
    assert run.metrics()["best_epoch"] == 3


@pytest.mark.parametrize(
    ("judged_by", "chosen"),
    [("moving", [(1, 1)] * 2), ("recalibrated", [(0.75, 1.25), (0.5, 1.25)])],
)
def test_the_search_is_judged_by_the_statistics_asked_for(
    plan, case, loaded, doer, judged_by, chosen
):
    """Where moving statistics are those of other kernels, the search by them never leaves (1, 1);
    both columns are kept.
    """
    doer.artefact = True
    asked = dataclasses.replace(plan, profile=f"by-{judged_by}", judged_by=judged_by)
    run = search.search(asked, case, loaded)
    assert search.chosen(run) == chosen
    history = run.history()
    assert (history["val_accuracy_recalibrated"] > history["val_accuracy"]).any()
    assert set(run.predictions()["statistics"]) == {"moving", "recalibrated"}


def test_the_control_chooses_among_seeds(plan, case, loaded, doer):
    run = search.search(
        dataclasses.replace(plan, profile="control"), case, loaded, astrocytes=False
    )
    history = run.history()
    assert history[history["chosen"] == 1]["candidate"].tolist() == [4, 4]
    assert {factors for _, _, factors, _ in doer.calls} == {None}
    luck = search.luck({"control": run})
    assert luck["gain (pp)"].iloc[0] == pytest.approx(100 * (1 - 1 / 9))


def test_an_interrupted_search_goes_on_with_the_next_epoch(plan, case, loaded, doer):
    chosen = dataclasses.replace(plan, profile="whole", exp2_epochs=3)
    whole = search.search(chosen, case, loaded).history()
    first = len(doer.calls)
    doer.stop = first + 12
    with pytest.raises(KeyboardInterrupt):
        search.search(dataclasses.replace(chosen, profile="broken"), case, loaded)
    doer.stop, before = None, len(doer.calls)
    resumed = search.search(dataclasses.replace(chosen, profile="broken"), case, loaded)
    assert doer.calls[before][0] == 1
    assert resumed.history().equals(whole)
    assert not (resumed.folder / "state.npz").exists()


def test_all_nine_diverged_is_an_error(plan, case, loaded, doer, monkeypatch):
    monkeypatch.setattr(doer, "train", lambda *a, **k: (_ for _ in ()).throw(Diverged("far")))
    with pytest.raises(search.SearchFailed, match="epoch 1"):
        search.search(dataclasses.replace(plan, profile="failed"), case, loaded)


def test_from_training_to_the_answer(tiny_networks, plan, case, loaded):
    grid = evidence.grid_table({case: astrocytes_runs.grid_runs(plan, case, loaded)})
    assert len(grid) == 8
    assert set(grid["statistics"]) == {"moving", "recalibrated"}
    assert grid["accuracy"].between(0, 1).all()
    results = {case: astrocytes_runs.arm_runs(plan, case, loaded, [(0.5, 0.75), (1, 1)])}
    assert {arm: len(runs) for arm, runs in results[case].items()} == {
        "off": 2,
        "found": 2,
        "released": 1,
    }
    assert "in 1 the weights are the same" in evidence.released_sentence(results)
    assert evidence.diverged_sentence(plan, results).startswith("No training")
    assert "1 of 2 in the arm found" in evidence.diverged_sentence(
        plan, {case: {**results[case], "found": {0: None}}}
    )
    triggers = evidence.trigger_table(results)
    assert triggers["arm"].tolist() == ["found", "released"]
    assert np.allclose(
        triggers[["above, Str (%)", "below, Weak (%)", "neither (%)"]].sum(axis=1), 100
    )
    scores = astrocytes_tables.score_table(results, loaded)
    for kind in ("moving", "recalibrated"):
        own = scores[scores["statistics"] == kind]
        assert (
            own.query("arm == 'off' and seed == 0")["accuracy"].iloc[0]
            == own.query("arm == 'released'")["accuracy"].iloc[0]
        )
    similar = similarity_tables.similarity_table(results, "released")
    twin = similar[similar["kind"] == "astrocytes"].iloc[0]
    assert twin["pwcca"] == pytest.approx(1, abs=1e-6)
    assert twin["cka"] == pytest.approx(1)
    assert twin["of_channels"] == 6
    assert twin["channels"] == 6
    assert set(similar["kind"]) == {"astrocytes", "seeds"}
    assert set(astrocytes_tables.curve_table(results, "found")["arm"]) == {"CNN", "CNGN"}
