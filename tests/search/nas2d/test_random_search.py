import dataclasses

import numpy as np
import pandas as pd
import pytest

from kit import files
from kit.data import images as data_images
from kit.search.nas2d import genotype, random_search, retrain, search, supernet
from kit.search.nas2d.random_search import RandomSearch
from kit.search.nas2d.search_config import BadSearch, SearchConfig
from kit.training.train import Diverged
from tests.conftest import write_set


@pytest.fixture(scope="module")
def inputs(private_folders):
    write_set(private_folders / "data" / "trio", "trio", ("dark", "bright", "other"), 8, 16)
    return data_images.load("trio", 16)


@pytest.fixture(scope="module")
def parts(inputs):
    return search.halves(inputs, np.arange(len(inputs.index)))


def small(profile, **changes):
    return RandomSearch(
        "tests",
        profile,
        **{
            "budget": 1e15,
            "most": 2,
            "channels": 4,
            "cells": 3,
            "recipe": {"epochs": 1, "batch_size": 6},
            **changes,
        },
    )


def judged_by(accuracies, monkeypatch):
    """Candidates are not trained: the n-th gets the n-th accuracy; returns the list of those asked
    for.
    """
    asked = []

    def judge(config, number, cells, *_, **__):
        asked.append(number)
        return {
            "normal": random_search._compact(cells.normal),
            "accuracy": accuracies[number],
            "loss": 1.0 - 0.1 * number,
            "seconds": 1.0,
            "run": str(number),
        }

    monkeypatch.setattr(random_search, "_judge", judge)
    return asked


def test_a_candidate_is_trained_on_one_half_and_judged_on_the_other(inputs, parts):
    run = random_search.search(small("real", most=1), inputs, *parts)
    row = random_search.table(run).iloc[0]
    trained = files.read_json(run.folder.parent / row["run"] / "config.json")
    assert trained["parts"]["train"]["images"] == len(parts[0])
    assert trained["parts"]["validation"]["images"] == len(parts[1])
    predictions = pd.read_csv(run.folder.parent / row["run"] / "predictions.csv")
    assert set(predictions["image_id"]) == set(inputs.index["image_id"].iloc[parts[1]])
    assert row["accuracy"] == pytest.approx(
        np.mean(predictions.filter(like="score_").to_numpy().argmax(1) == predictions["label"])
    )
    assert search.found(run) == random_search.candidates(small("real"), inputs, parts[0])[0]
    assert run.finished


def test_the_most_accurate_wins_and_ties_go_to_the_lower_loss(inputs, parts, monkeypatch):
    asked = judged_by([0.5, 0.75, 0.75, np.nan], monkeypatch)
    run = random_search.search(small("best", most=4), inputs, *parts)
    assert asked == [0, 1, 2, 3]
    assert files.read_json(run.folder / search.CELLS)["candidate"] == 2
    random_search.search(small("best", most=4), inputs, *parts)
    assert len(asked) == 4


def test_a_search_none_of_whose_candidates_trains_fails_with_a_reason(inputs, parts, monkeypatch):
    judged_by([np.nan, np.nan], monkeypatch)
    with pytest.raises(Diverged, match="none of the 2 candidates"):
        random_search.search(small("none"), inputs, *parts)


def test_one_diverging_candidate_is_left_out(inputs, parts, monkeypatch, capsys):
    def diverge(*_, name, **__):
        raise Diverged(f"{name}: the loss is nan.")

    monkeypatch.setattr(retrain, "fit_cells", diverge)
    row = random_search._judge(small("x"), 3, genotype.LITERALS["DARTS_V2"], inputs, *parts)
    assert np.isnan(row["accuracy"])
    assert "left out: random-candidate3" in capsys.readouterr().out


def test_candidates_follow_from_the_seed_and_stop_at_the_budget(inputs, parts):
    first, again = (
        random_search.candidates(small("x", most=6), inputs, parts[0]) for _ in range(2)
    )
    other = random_search.candidates(small("x", most=6, seed=1), inputs, parts[0])
    assert first == again
    assert len(first) == 6
    assert not set(map(str, first)) & set(map(str, other))
    costs = np.cumsum(
        [random_search.candidate_cost(small("x"), cells, inputs, parts[0]) for cells in first]
    )
    within = random_search.candidates(small("x", most=6, budget=float(costs[3])), inputs, parts[0])
    assert within == first[:4]
    assert len(random_search.candidates(small("x", most=6, budget=0.0), inputs, parts[0])) == 1


def test_the_cost_of_a_search_counts_passes_images_and_stages(inputs, parts):
    shape = {"channels": 8, "cells": 3, "epochs": 4, "batch_size": 6}
    images, size = len(parts[0]), 16
    macs = supernet.macs(supernet.Space("darts", 8, 3, 3, 1), size)
    first = random_search.search_cost(
        SearchConfig(family="darts", order=1, **shape), inputs, parts[0]
    )
    second = random_search.search_cost(SearchConfig(family="darts", **shape), inputs, parts[0])
    limited = random_search.search_cost(
        SearchConfig(family="darts", steps=1, **shape), inputs, parts[0]
    )
    assert first == pytest.approx(3 * macs * images * 4 * 2)
    assert second == pytest.approx(2.5 * first)
    assert limited == pytest.approx(second * 6 / images)
    frozen = random_search.search_cost(
        SearchConfig(family="pcdarts", warm_up=3, **shape), inputs, parts[0]
    )
    assert frozen == pytest.approx(
        3 * supernet.macs(supernet.Space("pcdarts", 8, 3, 3, 1), size) * images * (3 + 2)
    )
    assert random_search.search_cost(SearchConfig(family="pdarts", **shape), inputs, parts[0]) > 0


def test_bad_settings_are_refused():
    with pytest.raises(BadSearch):
        RandomSearch(most=0)
    with pytest.raises(retrain.BadRecipe):
        RandomSearch(recipe={"epochs": 0})
    assert dataclasses.replace(RandomSearch(), seed=3).recipe["epochs"] == 5
    assert "budget" in str(RandomSearch())
