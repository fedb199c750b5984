import numpy as np
import pytest

from kit.data import images
from kit.search.nas2d import search, search_step
from kit.search.nas2d.search_config import SearchConfig


@pytest.fixture(scope="module")
def inputs(discs):
    return images.load(discs, 16)


@pytest.mark.parametrize("family", ["pcdarts", "pdarts"])
def test_the_supernets_themselves_are_searched(family, inputs):
    shape = {
        "channels": 8 if family == "pcdarts" else 4,
        "cells": 3,
        "epochs": 1 if family == "pdarts" else 2,
        "steps": 1,
        "batch_size": 8,
        "pruning": "mask",
        "traced": False,
    }
    wanted = SearchConfig("tests", "real", family, family, **shape)
    before = search_step.explainer.kept()
    run = search.search(wanted, inputs, *search.halves(inputs, np.arange(len(inputs.index))))
    history = run.history()
    assert np.isfinite(history[["loss", "val_loss", "entropy_normal"]]).all(axis=None)
    assert history["arch_loss"].notna().any()
    assert len(search.snapshots(run)) == len(history)
    assert search.found(run) == search.snapshots(run)[-1][1]
    assert search_step.explainer.kept() == before + 1  # masked stages share one traced supernet
