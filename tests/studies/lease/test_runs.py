"""The LeaSE paper's trainings: which search belongs to which method, notes of what is reduced,
subsets, and one small run from search to prediction.
"""

import dataclasses

import numpy as np
import pytest

from kit import params, paths
from kit.published import papers
from kit.search.nas2d import search
from kit.studies.lease import plan as lease_plan
from kit.studies.lease import runs, tables


@pytest.fixture(scope="module")
def plan(private_folders):
    return lease_plan.Plan(
        profile="leasetest",
        dataset="phantom4",
        image_size=32,
        images=24,
        channels=8,
        cells=3,
        pdarts_cells=(3, 3, 3),
        search_epochs=1,
        pdarts_epochs=1,
        search_batch=8,
        search_steps=1,
        pruning="mask",
        traced=False,
        audience_width=8,
        search_augmented=False,
        augmented=True,
        evaluation_cells=3,
        evaluation_channels=4,
        evaluation_epochs=1,
        evaluation_batch=24,
        baseline_width=0.125,
        random_candidates=1,
        random_epochs=1,
    )


@pytest.fixture(scope="module")
def images(plan):
    return runs.inputs_and_parts(plan)


def test_the_published_plan_is_the_papers():
    published = lease_plan.Plan(profile="x", dataset="sartaj")
    assert lease_plan.notes(published) == []
    configs = {method: runs.search_configs(published, method)[0] for method in lease_plan.SEARCHES}
    paper = papers.load("lease").hyperparameters
    assert all(
        c.batch_size == paper["search_batch_size"]
        and c.lr == paper["search_lr_initial"]
        and c.momentum == paper["search_momentum"]
        for c in configs.values()
    )
    assert configs["darts"].epochs == configs["pcdarts"].epochs == 50
    assert configs["pdarts"].cells == (5, 11, 17)
    assert configs["pdarts"].epochs == 25
    assert configs["lease-pcdarts.gamma0.1"].gamma == 0.1
    assert configs["lease-darts"].gamma == 1
    assert configs["darts"].lease is None
    assert [m for m, c in configs.items() if c.audience_only] == [
        "lease-darts.audience-only",
        "lease-pdarts.audience-only",
    ]
    assert [m for m, c in configs.items() if c.audience == "vgg13"] == [
        "lease-darts.vgg13",
        "lease-pdarts.vgg13",
    ]
    assert {c.family for m, c in configs.items() if "pcdarts" in m} == {"pcdarts"}
    assert configs["lease-pdarts"].order == 1
    assert configs["lease-darts"].order == 2


def test_every_reduction_is_named(plan):
    said = " | ".join(lease_plan.notes(plan))
    assert all(
        part in said
        for part in (
            "24 training images",
            "at most 1 steps",
            "audience of 8",
            "search cells 3",
            "evaluation epochs 1",
            "0.125",
            "3, 3, 3",
        )
    )


def test_seeds_go_through_split_search_and_training(plan, images, monkeypatch):
    """And random cells get as many as the method with most."""
    more = dataclasses.replace(plan, seeds={"pcdarts": 2})
    made = {"search": [], "random": [], "training": []}

    class Run:
        finished = True

    def record(kind, config, halves):
        made[kind].append((config.seed, halves[0].tolist()))
        return Run()

    monkeypatch.setattr(runs.search, "folder", lambda config, inputs, *halves: Run())
    monkeypatch.setattr(
        runs.search,
        "search",
        lambda config, inputs, *halves: record("search", config, halves),
    )
    monkeypatch.setattr(
        runs.random_search,
        "search",
        lambda config, inputs, *halves: record("random", config, halves),
    )
    monkeypatch.setattr(runs.search, "found", lambda run: None)
    monkeypatch.setattr(
        runs.retrain,
        "fit_cells",
        lambda *given, **named: made["training"].append((named["name"], named["seed"])),
    )
    inputs, parts = images
    searched = runs.search_all(more, ["pcdarts", "darts"], inputs, parts)
    assert {method: list(seeds) for method, seeds in searched.items()} == {
        "pcdarts": [0, 1],
        "darts": [0],
    }
    drawn = runs.random_all(more, inputs, parts)
    assert list(drawn) == [0, 1]
    halves = [search.halves(inputs, parts["train"], seed)[0].tolist() for seed in (0, 1)]
    assert halves[0] != halves[1]
    assert made["random"] == [(0, halves[0]), (1, halves[1])]
    assert made["search"] == [(0, halves[0]), (1, halves[1]), (0, halves[0])]
    runs.evaluate_all(more, {**searched, "random": drawn}, inputs, parts)
    assert made["training"] == [
        ("pcdarts-cells", 0),
        ("pcdarts-cells-seed1", 1),
        ("darts-cells", 0),
        ("random-cells", 0),
        ("random-cells-seed1", 1),
    ]


@pytest.mark.parametrize("profile", ["smoke", "quick", "cpu", "paper"])
def test_every_profile_takes_exact_derivatives(profile):
    declared = params.declared(paths.ROOT / "notebooks" / "30_lease_nas.ipynb")["mode"].default
    assert params.profile_values(profile, "30_lease_nas").get("mode", declared) == "exact"
    assert lease_plan.Plan(profile="x", dataset="sartaj").mode == "exact"


def test_seeds_make_further_searches(plan):
    more = dataclasses.replace(plan, seeds={"pcdarts": 3})
    assert [c.seed for c in runs.search_configs(more, "pcdarts")] == [0, 1, 2]
    assert len(runs.search_configs(more, "darts")) == 1


@pytest.mark.parametrize(
    "wrong",
    [{"seeds": {"dart": 2}}, {"seeds": {"darts": 0}}, {"images": -1}, {"random_budget": "nothing"}],
)
def test_a_bad_plan_is_one_sentence(wrong):
    with pytest.raises(lease_plan.BadPlan):
        lease_plan.Plan(profile="x", dataset="phantom4", **wrong)


def test_methods_are_chosen_by_name():
    assert lease_plan.methods(["all"], lease_plan.BASELINES) == list(lease_plan.BASELINES)
    with pytest.raises(lease_plan.BadPlan, match="lenet"):
        lease_plan.methods(["vgg13", "lenet"], lease_plan.BASELINES)


def test_a_share_keeps_the_proportions_and_takes_no_test_image(images):
    inputs, parts = images
    assert len(parts["train"]) == 24
    assert set(inputs.index["split"].iloc[parts["train"]]) == {"train"}
    everything = inputs.labels[inputs.index["split"] == "train"]
    np.testing.assert_allclose(
        np.bincount(inputs.labels[parts["train"]]) / 24,
        np.bincount(everything) / len(everything),
        atol=1 / 24,
    )


def test_from_search_to_prediction(plan, images):
    inputs, parts = images
    searched = runs.search_all(plan, ["pcdarts"], inputs, parts)
    evaluated = runs.evaluate_all(plan, searched, inputs, parts)
    run = evaluated["pcdarts"][0]
    assert (
        run.predictions("test")["image_id"].tolist()
        == inputs.index["image_id"].iloc[parts["test"]].tolist()
    )
    assert [tuple(pair) for pair in run.config["model"]["normal"]] == list(
        search.found(searched["pcdarts"][0]).normal
    )
    assert runs.parameters(run) > 1000
    baseline = runs.train_baselines(plan, ["vgg13"], inputs, parts)["vgg13"]
    assert runs.parameters(baseline) < 1e6
    assert len(baseline.history()) == 1
    random = runs.random_cells(plan, inputs, parts)
    assert search.found(random).normal
    assert runs.memory_needed(plan, "lease-pdarts", inputs).total > 2**29
    table = tables.search_table(searched)
    assert table["collapsed"].isin(["yes", "no"]).all()
    assert table["architecture"].str.contains("uniform").all()
    assert tables.cost_table(searched, {"pcdarts": run})["search (s)"].notna().all()
