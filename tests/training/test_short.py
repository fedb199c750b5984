"""Short trainings: equal whatever came before, every gene a tensor, failures told, weights and
sizes handed over.
"""

from dataclasses import replace

import numpy as np
import pytest

from kit.data import images, registry
from kit.evaluation import metrics
from kit.training import optimizers, short, short_runs, train
from kit.training.short import Network
from kit.training.short_runs import Config

VALUES = {
    "loss": "label_smoothing",
    "optimizer": "Adam",
    "learning_rate": 1.0,
    "weight_decay": 1e-4,
}
NETWORK = Network("squeezenet_1.1", 10, weights=None)


@pytest.fixture(scope="module")
def inputs():
    registry.ensure("digits")
    return images.load("digits", 32, channels=3)


@pytest.fixture(scope="module")
def rows(inputs):
    picked = [np.flatnonzero(inputs.labels == c)[:6] for c in range(10)]
    return {
        "train": np.concatenate([p[:4] for p in picked]),
        "val": np.concatenate([p[4:] for p in picked]),
    }


@pytest.fixture(scope="module")
def trainer():
    return short.trainer(NETWORK)


def train_briefly(trainer, inputs, rows, values=VALUES, **options):
    settings = {"epochs": 1, "size": 32, "batch_size": 20, "seed": 3, **options}
    return trainer.train(values, inputs, rows["train"], **settings)


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_training_does_not_depend_on_those_before(trainer, inputs, rows):
    first = train_briefly(trainer, inputs, rows)
    other = train_briefly(
        trainer, inputs, rows, {**VALUES, "optimizer": "sgd", "loss": "sigmoid_cross_entropy"}
    )
    again = train_briefly(trainer, inputs, rows)
    assert same(first.weights, again.weights)
    assert not same(first.weights, other.weights)
    assert not same(first.weights, trainer.initial)
    assert first.history[0]["loss"] == again.history[0]["loss"]
    assert np.isfinite(first.history[0]["loss"])


def test_genes_and_sizes_need_no_new_trace(trainer, inputs, rows):
    train_briefly(trainer, inputs, rows)
    traced = trainer._step.experimental_get_tracing_count()
    for optimizer in ("RMSprop", "NAdam"):
        for size in (24, 40):
            train_briefly(
                trainer,
                inputs,
                rows,
                {**VALUES, "optimizer": optimizer, "loss": "logit penalty", "learning_rate": 0.01},
                size=size,
            )
    assert traced == trainer._step.experimental_get_tracing_count() == 1


def test_epochs_in_two_goes_with_a_new_optimizer_continue_data_and_rate(
    trainer, inputs, rows, monkeypatch
):
    """The second go draws what the second epoch draws, at its rate; only the optimizer's memory is
    new, and plain SGD has none.
    """
    monkeypatch.setitem(optimizers.SETTINGS, "code", optimizers.Settings())
    fresh = short.Trainer(NETWORK)
    values = {**VALUES, "optimizer": "sgd", "learning_rate": 0.1}
    whole = train_briefly(fresh, inputs, rows, values, epochs=2, of_epochs=2)
    half = train_briefly(fresh, inputs, rows, values, of_epochs=2)
    rest = train_briefly(
        fresh, inputs, rows, values, of_epochs=2, first_epoch=1, weights=half.weights
    )
    for a, b in zip(whole.weights, rest.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_failures_are_told(trainer, inputs, rows):
    with pytest.raises(train.Diverged, match="lower learning_rate"):
        train_briefly(
            trainer, inputs, rows, {**VALUES, "optimizer": "sgd", "learning_rate": 1e9}, epochs=3
        )
    with pytest.raises(optimizers.RefusedRule):
        train_briefly(trainer, inputs, rows, {**VALUES, "optimizer": "LBFGS"})
    with pytest.raises(short.BadShortTraining, match="not those"):
        train_briefly(trainer, inputs, rows, weights=trainer.initial[:-1])
    with pytest.raises(short.BadShortTraining, match="Str, Weak"):
        train_briefly(trainer, inputs, rows, factors=[(1, 1)] * 3)
    assert np.isfinite(
        train_briefly(trainer, inputs, rows).history[0]["loss"]
    )  # a failed one leaves nothing behind


def test_astrocytes_scale_and_released_ones_do_not(inputs, rows):
    control = train_briefly(short.trainer(NETWORK), inputs, rows, epochs=2)
    for mode, equal in (("released", True), ("algorithm", False)):
        found = train_briefly(
            short.trainer(replace(NETWORK, astrocytes=mode)),
            inputs,
            rows,
            epochs=2,
            factors=[(0.5, 0.75)] * 2,
        )
        assert same(control.weights, found.weights) == equal
        assert sum(found.tally) > 0


def test_a_last_batch_of_one_image_is_left_out():
    assert short._batches(41, 20) == [(0, 20), (20, 40)]
    assert short._batches(42, 20)[-1] == (40, 42)
    assert short._batches(1, 20) == [(0, 1)]


def test_recalibration_gives_the_statistics_of_the_images(inputs, rows):
    network = Network("mobilenetv3_small", 10, weights=None)
    doer = short.trainer(network)
    few = rows["train"][:8]
    doer.recalibrate(inputs, few, 32, weights=doer.initial)
    norm = next(layer for layer in doer._norms())
    first = np.array(norm.moving_mean)
    doer.recalibrate(inputs, few, 32, batch_size=4)
    np.testing.assert_allclose(
        first, np.array(norm.moving_mean), atol=1e-5
    )  # means average exactly over batches of equal size
    assert np.abs(first).max() > 1e-3
    assert norm.momentum == 0.9


def test_rates_are_those_of_the_table(trainer, inputs, rows):
    table = trainer.predict(inputs, rows["val"], 32, "val", weights=trainer.initial)
    assert len(table) == 20
    assert np.allclose(table.filter(like="score_").sum(axis=1), 1, atol=1e-5)
    assert short.rates(table)["accuracy"] == pytest.approx(metrics.correct(table).mean())


def test_a_run_is_kept_and_not_repeated(tmp_path, monkeypatch, inputs, rows):
    monkeypatch.setenv("KIT_RESULTS", str(tmp_path))
    config = Config(
        "astrocytes",
        "smoke",
        "exp3",
        NETWORK,
        VALUES,
        2,
        32,
        batch_size=20,
        watch=("val",),
        features="val",
        keep_weights=True,
    )
    run = short_runs.fit(config, inputs, rows)
    stamp = (run.folder / "status.json").stat().st_mtime_ns
    assert {"epoch", "loss", "seconds", "val_accuracy", "val_f1", "val_mcc"} <= set(run.history())
    assert len(run.history()) == 2
    with np.load(run.folder / "features.npz") as features:
        assert set(features) == {"1", "2"}
        assert features["2"].shape == (20, 512)
    assert run.metrics()["val"]["accuracy"] == pytest.approx(run.history()["val_accuracy"].iloc[-1])
    assert short_runs.fit(config, inputs, rows).folder == run.folder
    assert (run.folder / "status.json").stat().st_mtime_ns == stamp
    with pytest.raises(train.Diverged):
        short_runs.fit(
            replace(config, values={**VALUES, "optimizer": "sgd", "learning_rate": 1e9}, epochs=3),
            inputs,
            rows,
        )
    failed = [
        path for path in tmp_path.rglob("status.json") if "lower learning_rate" in path.read_text()
    ]
    assert len(failed) == 1
