"""Notebook 70's runs and tables, from the search to the answers, on balls of 8 voxels."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from kit.published import papers
from kit.search.evolution import opposition
from kit.search.nas3d.final import Recipe3D
from kit.search.nas3d.proxy import Proxy
from kit.studies.pbcnas import costs as pbcnas_costs
from kit.studies.pbcnas import plan as pbcnas_plan
from kit.studies.pbcnas import runs as pbcnas_runs
from kit.studies.pbcnas import search_tables, setup_tables, size_tables, tables

SHORT = Recipe3D(epochs=1, batch_size=24, learning_rate=0.01)


@pytest.fixture(scope="module")
def plan(balls):
    return pbcnas_plan.Plan(
        profile="test",
        datasets={"adrenal": balls},
        edge=8,
        images=0,
        searches=("ode", "random"),
        population=3,
        budget=3,
        operations=(9, 12),
        stacks=(1,),
        cells=(1,),
        filters=(8,),
        most_gmacs=0.02,
        proxy=Proxy(fraction=1, epochs=1, batch_size=24, learning_rate=0.01),
        finalists=2,
        released=("adrenal-90",),
        final=SHORT,
        benchmark=replace(SHORT, best_by="val_auc"),
        final_seeds=(0, 1),
        resnets=("resnet18-3d",),
        resnet_width=0.0625,
        protocols=("pbcnas",),
        transfer_rates=(0.001,),
        transfer_epochs=1,
        fidelity=2,
        fidelity_epochs=1,
    )


@pytest.fixture(scope="module")
def done(plan, balls):
    loaded = {"adrenal": pbcnas_runs.load(plan, balls)}
    searched = pbcnas_runs.search_all(plan)
    chosen = pbcnas_runs.contestants(plan, searched)
    trained = pbcnas_runs.train_all(plan, chosen, loaded)
    runs = {**trained, **pbcnas_runs.train_resnets(plan, loaded)}
    return loaded, searched, chosen, trained, runs, tables.result_table(runs, plan, loaded, 50)


def test_search_and_final_trainings(plan, done):
    loaded, searched, chosen, trained, runs, long = done
    assert set(searched["adrenal"]) == {"ode", "random"}
    assert all(
        r.algorithm.books.trained == 3
        for seeds in searched["adrenal"].values()
        for r in seeds.values()
    )
    order = pbcnas_runs.ranked(searched["adrenal"]["ode"][42])
    assert [c.fitness for c in order] == sorted((c.fitness for c in order), reverse=True)
    assert len(loaded["adrenal"][1]["train"]) == 24
    assert list(chosen) == [
        ("adrenal", row) for row in ("found 1", "found 2", "random", "adrenal-90")
    ]
    assert chosen["adrenal", "found 1"][0] == pbcnas_runs.network_of(
        searched["adrenal"]["ode"][42], order[0]
    )
    assert {row for _, row in runs} == {
        "found 1",
        "found 2",
        "random",
        "adrenal-90",
        "resnet18-3d (pbcnas)",
    }
    assert set(trained["adrenal", "found 1"]) == {0, 1}
    first = long[(long["row"] == "found 1") & (long["metric"] == "accuracy")].iloc[0]
    assert first["seeds"] == 2
    assert first["low"] <= first["value"] <= first["high"]
    history = [run.history() for run in runs["adrenal", "found 1"].values()]
    assert first["validation"] == np.mean([h["val_accuracy"].max() for h in history])
    assert first["n"] == 14
    assert first["leak_free_n"] == 13
    with pytest.raises(Exception, match="another network"):
        pbcnas_runs.final.fine_tune(
            chosen["adrenal", "adrenal-90"][0],
            trained["adrenal", "found 1"][0],
            SHORT,
            *loaded["adrenal"],
            name="x",
            profile="test",
        )


def test_tables(plan, done):
    loaded, searched, chosen, trained, runs, long = done
    wide = tables.wide(long)
    assert [
        tables.title(row)
        for row in ("found 1", "adrenal-90", "auto-sklearn", "resnet18-2.5d (benchmark)")
    ] == [
        "found, first",
        "released, adrenal-90",
        "auto-sklearn",
        "ResNet-18 (2.5D), benchmark's protocol",
    ]
    assert wide["source"].tolist() == ["this run"] * 5 + ["MedMNIST v2"] * 8
    assert wide[wide["network"] == "ResNet-50 (3D)"]["AUC"].tolist() == [
        papers.load("pbcnas").values["table-4/resnet50-3d.adrenal/auc"].value
    ]
    costs = search_tables.cost_table(searched, plan)
    assert costs["hours"].tolist() == pytest.approx(
        [seeds[42].history["seconds"].sum() / 3600 for seeds in searched["adrenal"].values()]
    )
    assert (costs["hours"] > 0).all()
    assert (
        costs[
            ["trained", "infeasible", "too costly", "duplicates", "failed", "left at the end"]
        ].sum(axis=1)
        == costs["candidates"]
    ).all()
    assert costs["trained"].tolist() == [3, 3]
    assert (costs["candidates"] >= 6).any()
    control = search_tables.control_table(searched, long, plan).set_index("search")
    assert (
        control.loc["random search", "accuracy"]
        == long[(long["row"] == "random") & (long["metric"] == "accuracy")]["mean"].item()
    )
    data = setup_tables.data_table(plan, loaded)
    assert data[["train", "val", "test", "proxy train", "proxy val"]].iloc[0].tolist() == [
        24,
        12,
        14,
        24,
        12,
    ]
    rows = size_tables.trade_off_rows(searched, long, chosen, plan)
    assert rows["kind"].value_counts().to_dict() == {
        "candidate": 3,
        "found": 3,
        "released": 1,
        "ResNet": 1,
    }
    assert rows[["parameters", "macs"]].notna().all(axis=None)
    moved = search_tables.transfer_table(
        pbcnas_runs.transfer(plan, chosen, trained, loaded), trained, plan
    )
    assert moved["kind"].tolist() == ["own training", "weights, rate 0.001"]
    retrained = search_tables.fidelity_rows(pbcnas_runs.foretold(plan, searched, loaded), plan)
    few = search_tables.validation_table(searched, loaded, plan).iloc[0]
    assert few["validation volumes"] == 12
    assert few["low"] < few["accuracy of the best"] <= few["high"]
    assert 1 <= few["of the same fitness"] <= few["candidates"] == 3
    assert 1 <= few["of the same accuracy"] <= few["within the interval"] <= few["candidates"]
    assert len(retrained) == 2
    assert np.isnan(search_tables.fidelity_table(retrained)["Spearman"]).all()
    assert "hundredths over 2 seeds" in tables.verdict(tables.differences(runs, plan, "random"))
    assert "Nothing to compare" in tables.verdict(tables.differences(runs, plan, "de"))


def test_time_and_memory_are_measured_once_and_kept(plan, done, monkeypatch):
    loaded, _, chosen = done[:3]
    with pbcnas_costs.memory(plan, chosen, loaded) as peaks:
        assert peaks == {}
    assert list(peaks) == ["balls, found 1", "ResNet-18 (3D)"]
    assert all(5e6 < size < 1e9 for size in peaks.values())
    monkeypatch.setattr(pbcnas_costs.processes, "peaks", lambda *_: [])
    times = pbcnas_costs.latency(plan, chosen)
    monkeypatch.setattr(pbcnas_costs, "made", None)
    with pbcnas_costs.memory(plan, chosen, loaded) as again:
        pass
    assert again == peaks
    assert [one.ms.tolist() for (one,) in pbcnas_costs.latency(plan, chosen).values()] == [
        one.ms.tolist() for (one,) in times.values()
    ]
    table = size_tables.speed_table(times, {**peaks, "ResNet-18 (3D)": None}, plan).set_index(
        "network"
    )
    assert table.loc["balls, found 1", "training step of 24 (MB)"] == peaks["balls, found 1"] / 1e6
    assert table["training step of 24 (MB)"].isna().tolist().count(True) == 1
    assert (table["fastest (ms)"] <= table["volume (ms)"]).all()
    assert (table["voxels"] == "8 × 8 × 8").all()


def test_what_is_looked_at(plan, done):
    loaded, _, _, trained, _, _ = done
    volumes, names = pbcnas_runs.examples(*loaded["adrenal"])
    assert volumes.shape == (4, 8, 8, 8)
    assert sorted(names) == ["large", "large", "small", "small"]
    model, volume, said = pbcnas_runs.explained(trained["adrenal", "found 1"], *loaded["adrenal"])
    assert volume.shape == (1, 8, 8, 8, 1)
    assert said.endswith("(is large)")
    assert model.predict(volume, verbose=0).sum() == pytest.approx(1, abs=1e-5)


def test_a_second_call_trains_nothing(plan, done, monkeypatch):
    monkeypatch.setattr(pbcnas_runs.train, "_train", lambda *a, **k: pytest.fail("trained again"))
    monkeypatch.setattr("kit.search.nas3d.proxy.judge", lambda *a: pytest.fail("judged again"))
    again = pbcnas_runs.search_all(plan)
    assert again["adrenal"]["ode"][42].history.equals(done[1]["adrenal"]["ode"][42].history)
    assert set(pbcnas_runs.train_all(plan, done[2], done[0])) == set(done[3])


def test_printed_reductions_follow_from_the_released_networks(tmp_path):
    stored = {}
    out = type(
        "Out", (), {"value": lambda self, key, ours, **more: stored.update({key: (ours, more)})}
    )()
    size_tables.store_reductions(out)
    assert stored["claims/flops-reduction"][0] == pytest.approx(45.06, abs=0.005)
    assert stored["claims/parameter-reduction"][0] == pytest.approx(211.43, abs=0.005)
    table = size_tables.complexity_table({}, pbcnas_plan.Plan(profile="x")).set_index("network")
    assert table.loc["released, organ-72", "times fewer MACs than ResNet-18 (3D)"] == pytest.approx(
        0.94, abs=0.005
    )
    assert len(table) == 12


def test_rank_correlations():
    rows = pd.DataFrame(
        {
            "data": ["a"] * 6,
            "fitness": [1, 2, 3, 4, 5, 6],
            "auc": [1, 3, 2, 4, 6, 5],
            "accuracy": [2.0] * 6,
        }
    )
    table = search_tables.fidelity_table(rows).set_index("with test")
    assert table.loc["AUC", "Spearman"] == spearmanr(rows["fitness"], rows["auc"]).statistic
    assert table.loc["AUC", "low"] < table.loc["AUC", "Spearman"]
    assert np.isnan(table.loc["accuracy", "Spearman"])


def test_the_defaults_are_the_published_settings():
    plan = pbcnas_plan.Plan(profile="paper")
    assert pbcnas_plan.notes(plan) == []
    assert len(plan.datasets) == 6
    assert "population 5 instead of 20" in pbcnas_plan.notes(replace(plan, population=5))
    assert (
        setup_tables.modes_table(plan)["this run"].tolist()
        == setup_tables.modes_table(plan)["clean"].tolist()
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"datasets": {"lung": "x"}},
        {"searches": ("grid",)},
        {"searches": ("random",)},
        {"resnets": ("resnet34-3d",)},
        {"edge": 3},
        {"final_seeds": ()},
        {"released": ("organ-58",)},
    ],
)
def test_bad_plans(wrong):
    with pytest.raises(pbcnas_plan.BadPlan):
        pbcnas_plan.Plan(profile="x", **wrong)


@pytest.mark.parametrize(
    ("classes", "volumes", "auc", "accuracy"),
    [
        (2, 298, 0.8110795454545455, 0.738255033557047),
        (3, 240, 0.7742701255672487, 0.5958333333333333),
        (11, 610, 0.7072267995639817, 0.2360655737704918),
    ],
)
def test_auc_and_accuracy_are_those_of_medmnists_evaluator(classes, volumes, auc, accuracy):
    """Values of medmnist 3.0.2's getAUC and getACC on the same scores, some of which are equal,
    four of them at one half.
    """
    rng = np.random.RandomState(11)
    for size, count in ((2, 298), (3, 240), (11, 610)):
        labels, scores = rng.randint(0, size, count), rng.normal(size=(count, size))
        if size == classes:
            break
    scores[np.arange(count), labels] += 0.7
    chances = np.exp(scores - scores.max(1, keepdims=True))
    chances = np.round(chances / chances.sum(1, keepdims=True), 2)
    if classes == 2:
        chances[:, 0] = 1 - chances[:, 1]
    table = pd.DataFrame(
        {
            "image_id": np.arange(volumes).astype(str),
            "label": labels,
            **{f"score_{k}": chances[:, k] for k in range(classes)},
        }
    )
    assert (tables.rate(table, "auc"), tables.rate(table, "accuracy")) == pytest.approx(
        (auc, accuracy), abs=1e-12
    )


def test_counts_of_the_published_set_hold_whatever_the_settings():
    calls = []

    class Writer:
        def value(self, value_id, ours, *, data, exact):
            calls.append((value_id, ours, exact))

    table = pd.DataFrame(
        [{"train": 1188, "val": 98, "test": 298, "proxy train": 297, "proxy val": 24, "classes": 2}]
    )
    for name, fraction in (("phantom3d", 4), ("adrenalmnist3d-64", 4), ("adrenalmnist3d-64", 8)):
        setup_tables.store_data(
            {"adrenal": Writer()},
            table,
            pbcnas_plan.Plan(
                profile="test", datasets={"adrenal": name}, edge=14, proxy=Proxy(fraction=fraction)
            ),
        )
    assert len(calls) == 12
    assert calls[3] == (
        "table-1/adrenal/proxy_train",
        297,
        True,
    )
    assert {value_id.split("/")[2] for value_id, _, exact in calls if not exact} == {
        "proxy_train",
        "proxy_val",
    }


def chosen(validation, test, best_by="val_accuracy"):
    """A stand-in for a final training: what validation said at its best epoch."""

    class Run:
        def __init__(self):
            self.config = {"best_by": best_by}

        def history(self):
            return pd.DataFrame(
                {"epoch": [1, 2], best_by: [0.1, validation[0]], "val_loss": [9, validation[1]]}
            )

        def metrics(self):
            return {"best_epoch": 2}

        def test(self):
            labels = np.repeat([0, 1], 50)
            said = np.where(np.arange(100) < test, labels, 1 - labels)
            return pd.DataFrame(
                {
                    "image_id": [f"v{n}" for n in range(100)],
                    "group": range(100),
                    "label": labels,
                    "score_0": 1.0 - said,
                    "score_1": 1.0 * said,
                }
            )

    return Run()


def test_no_test_result_chooses_a_run(plan, done, monkeypatch):
    """Of the first three seeds validation chooses; a better test result of another, or of a seed
    beyond the third, changes nothing.
    """
    monkeypatch.setattr(
        tables.training_predictions, "best_predictions", lambda run, part: run.test()
    )
    monkeypatch.setattr(tables.results, "leak_free", lambda table, *_: table)
    runs = {
        ("adrenal", "found 1"): {
            0: chosen((0.8, 0.5), 70),
            1: chosen((0.9, 0.4), 60),
            2: chosen((0.9, 0.6), 95),
            3: chosen((0.99, 0.1), 99),
        },
        ("adrenal", "found 2"): {0: chosen((0.7, 0.5), 98), 1: chosen((0.8, 0.5), 97)},
        ("adrenal", "resnet18-3d (benchmark)"): {
            0: chosen((0.7, 0.5), 50, "val_auc"),
            1: chosen((0.8, 0.9), 55, "val_auc"),
        },
    }
    long = tables.result_table(runs, plan, {"adrenal": done[0]["adrenal"]}, 20)
    accuracy = long[long["metric"] == "accuracy"].set_index("row")
    assert accuracy["by_validation"].tolist() == [0.60, 0.97, 0.55]
    assert accuracy.loc["found 1", "mean"] == pytest.approx(0.81)
    assert tables.chosen_by_validation(long).loc["adrenal", "accuracy"] == 0.60
    assert "accuracy, best of 3 by validation" in tables.wide(long)
    stored = {}
    out = type("Out", (), {"value": lambda self, key, ours, **_: stored.update({key: ours})})()
    everywhere = pd.concat([long.assign(key=key) for key in pbcnas_plan.KEYS])
    tables.store(dict.fromkeys(pbcnas_plan.KEYS, out), everywhere, plan)
    assert stored["table-4/ours-3.average/accuracy"] == pytest.approx(0.60)


def test_biases_and_warm_start_stand_in_the_settings():
    def said(**changes):
        table = setup_tables.settings_table(pbcnas_plan.Plan(profile="x", **changes))
        return table.set_index("setting")

    usual = said()
    assert "square root" in usual.loc["Biases at the start", "released code"]
    assert usual.loc["Biases at the start", "this run"] == "zero"
    assert usual.loc["Final: initial weights", "this run"] == "all new"
    as_released = said(warm_start=True, mode="paper", proxy=Proxy(biases="torch"))
    row = as_released.loc["Biases at the start"]
    assert row["released code"].startswith(row["this run"])
    assert "warm start" in as_released.loc["Final: initial weights", "this run"]
    assert as_released.loc["Infeasible genomes of the initial set", "this run"].startswith("kept")
    assert usual.loc["Infeasible genomes of the initial set", "this run"] == "drawn anew"
    by_loss = said(proxy=Proxy(judge="loss", validation="all"))
    assert by_loss.loc["Objective", "this run"].startswith("lowest validation loss")
    assert by_loss.loc["Proxy: validation volumes", "this run"] == "all"
    departures = pbcnas_plan.notes(
        pbcnas_plan.Plan(profile="x", proxy=Proxy(judge="loss", validation="all"))
    )
    assert len(departures) == 2


def test_the_first_members_can_be_trained_and_are_each_seed_s_own():
    """Released, one in three of the first members was infeasible; with a cap on the cost, seven of
    eight.
    """
    small = pbcnas_plan.Plan(
        profile="x", edge=14, population=8, filters=(8, 16), most_gmacs=0.15, seeds=(42, 43)
    )
    space = pbcnas_runs.Space(**{**small.space("adrenalmnist3d"), "edge": 14})

    def first(seed, **changes):
        search = opposition.ODE(replace(small.settings("ode", seed), **changes), space)
        return [c for c in search.log if c.phase == "init"]

    kept = first(42, infeasible="kept")
    members = {seed: first(seed) for seed in small.seeds}
    assert sum(c.feasible for c in kept) < 8
    for found in members.values():
        assert len(found) == 8
        assert all(c.feasible and space.cost(c.genes) <= 0.15e9 for c in found)
    assert not any(np.array_equal(a.genes, b.genes) for a in members[42] for b in members[43])
    assert small.settings("ode", 42).infeasible == "redrawn"
    assert replace(small, mode="paper").settings("ode", 42).infeasible == "kept"
