"""One small Gen-Soup search on images: from settings to tables, kept and not repeated, resumed to
the same result.
"""

from dataclasses import replace

import numpy as np
import pytest

from kit.data import registry
from kit.evaluation import metrics
from kit.search.evolution import soup
from kit.studies.gensoup import plan as gensoup_plan
from kit.studies.gensoup import runs as gensoup_runs
from kit.studies.gensoup import tables
from kit.training import short


@pytest.fixture(scope="module")
def plan(private_folders):
    registry.ensure("digits")
    return gensoup_plan.Plan(
        profile="souptest",
        datasets={"breakhis": "digits"},
        experiments=("1",),
        arms=("with",),
        decoded_size=32,
        images=100,
        architectures=("squeezenet_1.1",),
        weights=None,
        generations=(2, 3),
        first=4,
        decrement=1,
        smallest=2,
        start=24,
        end=32,
        at_end=1,
        mixing="off",
        points=3,
        seed=2,
    )


@pytest.fixture(scope="module")
def loaded(plan):
    return {key: gensoup_runs.load(plan, name) for key, name in plan.datasets}


def test_a_search_from_settings_to_tables(plan, loaded):
    inputs, parts = loaded["breakhis"]
    assert {part: len(rows) for part, rows in parts.items()} == {"train": 60, "val": 20, "test": 20}
    runs = gensoup_runs.search_all(plan, loaded)
    run = runs["breakhis", "1", "with"][2]
    history = run.history()
    assert history.groupby("generation").size().tolist() == [4, 3]
    assert history["size"].unique().tolist() == [24, 32]
    assert (history.loc[history["optimizer"] == "lbfgs", "fitness"] == -1).all()
    assert {
        "strong",
        "weak",
        "zeroed",
    } <= set(history)
    best = run.metrics()["best"]
    assert best["fitness"] == pytest.approx(history["fitness"].max())
    table = gensoup_runs.tested(run)
    assert (
        table["image_id"].tolist() == inputs.index["image_id"].iloc[np.sort(parts["test"])].tolist()
    )
    again = short.trainer(
        replace(gensoup_runs.network(plan, "digits", "with"), architecture=best["architecture"])
    )
    anew = again.predict(
        inputs, np.sort(parts["test"]), 32, "test", weights=soup.load(run.folder / "best.npz")
    )
    raw = gensoup_runs.tested(run, statistics="moving")
    assert metrics.correct(anew).tolist() == metrics.correct(raw).tolist()
    compared = gensoup_runs.models(run).set_index(["statistics", "model"])["validation_mcc"]
    for kind in ("moving", "recalibrated"):
        if (kind, "greedy") in compared:
            assert compared[kind, "greedy"] >= compared[kind, "last"]
    assert not (run.folder / "search").exists()
    assert {"best"} <= set(gensoup_runs.models(run)["model"]) <= set(gensoup_runs.MODELS)
    stamp = (run.folder / "status.json").stat().st_mtime_ns
    assert gensoup_runs.search_all(plan, loaded)["breakhis", "1", "with"][2].folder == run.folder
    assert (run.folder / "status.json").stat().st_mtime_ns == stamp
    found = tables.result_table(
        runs,
        {"breakhis": "digits"},
        {"breakhis": inputs.index["image_id"].iloc[parts["train"]].tolist()},
        20,
    )
    assert found["row"].unique().tolist() == ["breakhis.with"]
    assert len(tables.model_table(runs)) == len(gensoup_runs.models(run))


def test_an_interrupted_search_on_images_ends_the_same(plan, loaded, tmp_path):
    inputs, parts = loaded["breakhis"]
    settings, genes = plan.settings("1", "with", 2), plan.genome("with")
    nursery = soup.Nursery(gensoup_runs.network(plan, "digits", "with"), inputs, parts, settings)
    soup.Search(tmp_path, settings, genes, nursery).run(until=1)
    rest = soup.Search(tmp_path, settings, genes, nursery).run()
    whole = gensoup_runs.run_of(plan, "digits", "1", "with", 2, inputs, parts).history()
    np.testing.assert_allclose(rest.history["fitness"], whole["fitness"])
    np.testing.assert_allclose(
        rest.history["training_loss"].dropna(), whole["training_loss"].dropna(), rtol=1e-6
    )
