"""Proxy training: subsets, the early-stop rule, fitness, failures."""

from dataclasses import replace

import numpy as np
import pytest

from kit.data import registry, volumes
from kit.search.nas3d import proxy as nas3d_proxy
from kit.search.nas3d.proxy import BadProxy, Patience, Proxy
from kit.search.nas3d.space import PAPER, Network3D
from kit.training.train import Diverged

SMALL = Network3D(((0, 1, 0), (0, 0, 1), (0, 0, 0)), (9,), 1, 1, 8)


@pytest.mark.parametrize(
    ("sizes", "train", "val"),
    [  # drawn as the released code draws them, from Python's random at 42
        ((971, 161), [654, 114, 25, 759, 281], [102, 95, 112, 132, 115]),
        ((1158, 165), [228, 51, 563, 501, 457], [141, 109, 143, 2, 28]),
        ((1027, 103), [228, 51, 563, 501, 1026], [51, 85, 83, 47, 56]),
        ((1188, 98), [228, 51, 563, 501, 457], [90, 54, 71, 1, 14]),
        ((1335, 191), [1309, 228, 51, 563, 501], [67, 41, 113, 141, 180]),
        ((1230, 177), [228, 51, 563, 501, 457], [41, 113, 141, 109, 143]),
    ],
)
def test_the_released_subsets(sizes, train, val):
    drawn = nas3d_proxy.subset(sizes)
    assert [part[:5].tolist() for part in drawn] == [train, val]
    assert [len(part) for part in drawn] == [n // 4 for n in sizes]


@pytest.mark.parametrize(
    ("losses", "epochs"),
    [
        ((1.0, 0.9, 0.95, 0.96, 0.97, 0.98, 0.99, 2, 2), 7),
        ((1.0, 0.9, 0.95, 0.9, 0.95, 0.95, 0.95, 0.95, 0.95, 2), 9),
    ],
)
def test_when_to_stop(losses, epochs):
    rule = Patience(5)
    assert next(epoch for epoch, loss in enumerate(losses, 1) if rule.stop(loss)) == epochs


def test_a_candidate_is_judged_the_same_twice(balls):
    inputs, proxy = (
        volumes.load(balls, 8),
        Proxy(1, epochs=12, patience=12, learning_rate=0.02, batch_size=16, seed=3),
    )
    rows = nas3d_proxy.parts(inputs, proxy)
    assert {part: len(r) for part, r in rows.items()} == {"train": 24, "val": 12}
    assert set(inputs.index["split"].iloc[rows["val"]]) == {"val"}
    one, two = (
        nas3d_proxy.judge(SMALL, inputs, rows, proxy),
        nas3d_proxy.judge(SMALL, inputs, rows, proxy),
    )
    assert one.fitness == one.history["val_accuracy"].max() > 0.9
    assert one.lowest_loss == one.history["val_loss"].min()
    assert one.history.drop(columns="seconds").equals(two.history.drop(columns="seconds"))
    assert len(one.history) == 12
    for a, b in zip(one.weights, two.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_diverging_candidate_fails_with_the_reason(balls):
    inputs = replace(volumes.load(balls, 8), scale=float("inf"))
    with pytest.raises(Diverged, match="in epoch 1; lower learning_rate"):
        nas3d_proxy.judge(SMALL, inputs, nas3d_proxy.parts(inputs, Proxy(1)), Proxy(1, epochs=2))


def test_what_a_candidate_of_a_search_leaves(balls, tmp_path):
    genes = PAPER.genome((1,) + (0,) * 10 + (1,) + (0,) * 9 + (9, 0, 0, 0, 0, 0, 0, 0))
    while PAPER.reason(genes):
        genes = np.random.default_rng(1).uniform(size=29)
    settings = {
        "dataset": balls,
        "fingerprint": registry.facts(balls)["fingerprint"],
        "space": {"edge": 8, "operations": [9], "filters": [8]},
        "proxy": {"fraction": 2, "epochs": 2, "batch_size": 8},
    }
    fitness, loss, size = nas3d_proxy.evaluate(
        {"search": {"genes": genes.tolist(), "seed": 5}}, tmp_path, **settings
    )
    assert 0 <= fitness <= 1
    assert loss < 0
    assert size < -1000
    assert [a.shape for a in nas3d_proxy.weights(tmp_path)][:2] == [(3, 3, 3, 1, 8), (8,)]
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 3
    with pytest.raises(BadProxy, match="has changed"):
        nas3d_proxy.evaluate(
            {"search": {"genes": genes.tolist(), "seed": 5}},
            tmp_path,
            **{**settings, "fingerprint": "other"},
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"judge": "auc"},
        {"validation": "none"},
        {"biases": "ones"},
        {"fraction": 0},
        {"epochs": 0},
        {"patience": 0},
        {"learning_rate": 0.0},
    ],
)
def test_bad_settings(wrong):
    with pytest.raises(BadProxy, match=next(iter(wrong))):
        Proxy(**wrong)


def test_judged_by_loss_on_all_validation_volumes(balls, tmp_path):
    inputs = volumes.load(balls, 8)
    everything = nas3d_proxy.parts(inputs, Proxy(4, validation="all"))
    assert len(everything["val"]) == (inputs.index["split"] == "val").sum() == 12
    assert len(everything["train"]) == 6
    genes = PAPER.genome((1,) + (0,) * 10 + (1,) + (0,) * 9 + (9, 0, 0, 0, 0, 0, 0, 0))
    while PAPER.reason(genes):
        genes = np.random.default_rng(1).uniform(size=29)

    def judged(**proxy):
        return nas3d_proxy.evaluate(
            {"search": {"genes": genes.tolist(), "seed": 5}},
            tmp_path,
            dataset=balls,
            fingerprint=registry.facts(balls)["fingerprint"],
            space={"edge": 8, "operations": [9], "filters": [8]},
            proxy={"fraction": 1, "epochs": 2, "batch_size": 8, **proxy},
        )

    accuracy, loss, size = judged()
    likelihood, ties, same_size = judged(judge="loss")
    assert likelihood == pytest.approx(np.exp(loss))
    assert (ties, same_size) == (accuracy, size)
    assert nas3d_proxy.accuracy(likelihood, (ties, size), "loss") == accuracy
    assert nas3d_proxy.accuracy(accuracy, (loss, size), "accuracy") == accuracy
    assert nas3d_proxy.likelihood(0.3) > nas3d_proxy.likelihood(0.4) > 0 > -1  # failures: -1
