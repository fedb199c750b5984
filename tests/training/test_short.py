"""Short trainings: equal whatever came before, every gene a tensor, failures told, weights and
sizes handed over.
"""

from dataclasses import replace

import keras
import numpy as np
import pytest

from kit.data import images, registry
from kit.data.augment import crop_rotate
from kit.evaluation import metrics
from kit.models import astrocyte_readings
from kit.training import optimizers, short, short_network, short_runs, train
from kit.training.short import Network
from kit.training.short_runs import Config

VALUES = {
    "loss": "label_smoothing",
    "optimizer": "Adam",
    "learning_rate": 1.0,
    "weight_decay": 1e-4,
}
NETWORK = Network("squeezenet_1.1", 10, weights=None)
# what the fixture `tiny_networks` builds; the seed keeps it out of the way of others
TINY = Network("shufflenetv2_x1.0", 10, weights=None, seed=77)


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


@pytest.mark.parametrize(
    ("reading", "order"),
    [
        *((reading, "after") for reading in astrocyte_readings.READINGS),
        ("literal", "before"),
        ("undone", "before"),
    ],
)
def test_factors_of_one_change_nothing_bit_for_bit(reading, order, tiny_networks, inputs, rows):
    """Weights, training loss and recalibrated predictions are the twin's."""
    twin = short.trainer(TINY)
    control = train_briefly(twin, inputs, rows, batch_size=10)
    net = replace(TINY, astrocytes="algorithm", reading=reading, order=order)
    doer = short.trainer(net)
    found = train_briefly(doer, inputs, rows, batch_size=10, factors=[(1.0, 1.0)])
    assert same(control.weights, found.weights)
    assert control.history[0]["loss"] == found.history[0]["loss"]
    assert sum(found.tally) > 0
    fresh = [
        d.predict(
            inputs,
            rows["val"],
            32,
            weights=d.recalibrate(inputs, rows["train"], 32, batch_size=10, weights=w.weights),
        )
        for d, w in ((twin, control), (doer, found))
    ]
    assert fresh[0].equals(fresh[1])


def test_the_order_of_scaling_and_step_is_a_setting(tiny_networks, inputs, rows):
    """Four steps, of which the last one decides: the loss of these steps is the same in both
    orders, the weights are not, and both differ from those without astrocytes.
    """
    found = {
        order: train_briefly(
            short.trainer(replace(TINY, astrocytes="algorithm", order=order)),
            inputs,
            rows,
            batch_size=10,
            factors=[(0.5, 1.5)],
        )
        for order in ("after", "before")
    }
    assert found["after"].history[0]["loss"] == found["before"].history[0]["loss"]
    assert not same(found["after"].weights, found["before"].weights)
    with pytest.raises(short.BadShortTraining, match="order"):
        replace(TINY, order="never")


def test_statistics_lag_behind_kernels_scaled_on_the_last_step(
    tiny_networks, inputs, rows, tmp_path, monkeypatch
):
    """NG divides the epoch: evaluated by its moving statistics the network is another one than the
    one that was trained, and evaluated by statistics of its own it is again.
    """
    monkeypatch.setenv("KIT_RESULTS", str(tmp_path))
    assert astrocyte_readings.decisions_at_epoch_ends(4, 4, 3) == [1, 2, 3]
    assert astrocyte_readings.decisions_at_epoch_ends(5, 4, 9) == [4, 8]
    run = short_runs.fit(
        Config(
            "astrocytes",
            "smoke",
            "stale",
            replace(TINY, astrocytes="algorithm", reading="count"),
            VALUES,
            1,
            32,
            batch_size=10,
            factors=((3.0, 1.0),),
            watch=("val",),
            features="val",
            recalibrated=True,
        ),
        inputs,
        rows,
    )
    history, told = run.history(), run.metrics()
    assert {"val_accuracy", "val_accuracy_recalibrated"} <= set(history)
    assert set(run.predictions()["statistics"]) == set(short_runs.STATISTICS)
    stale, fresh = (short_runs.predictions(run, "val", kind) for kind in short_runs.STATISTICS)
    assert len(stale) == len(fresh) == 20
    scores = [f"score_{c}" for c in range(10)]
    # every filter is three times as large: stale statistics blow the activations up
    assert np.abs(stale[scores] - fresh[scores]).to_numpy().max() > 0.05
    assert told["val"] == short_network.rates(stale)
    assert told["val-recalibrated"] == short_network.rates(fresh)
    with np.load(run.folder / "features.npz") as features:
        assert set(features) == {"1", "1-recalibrated"}
        assert np.abs(features["1"]).mean() > 1.5 * np.abs(features["1-recalibrated"]).mean()


def test_a_last_batch_of_one_image_is_left_out():
    assert short_network.batches_of(41, 20) == [(0, 20), (20, 40)]
    assert short_network.batches_of(42, 20)[-1] == (40, 42)
    assert short_network.batches_of(1, 20) == [(0, 1)]


def test_recalibration_sees_what_training_sees(tiny_networks, inputs, rows):
    """The first layer's means are those of the augmented images in the epoch's batches, not of the
    plain ones.
    """
    doer = short.trainer(TINY)
    few = rows["train"][:12]
    doer.recalibrate(inputs, few, 32, batch_size=4, seed=5, epoch=2, weights=doer.initial)
    norm = doer._norms()[0]
    measured = np.array(norm.moving_mean), np.array(norm.moving_variance)
    order = np.random.default_rng([5, 2]).permutation(12)
    units = np.asarray(crop_rotate.draw(5, 2, 12))[order]
    before = keras.Model(doer.model.input, norm.input)
    outputs = [
        np.asarray(
            before(
                crop_rotate.augment(
                    inputs.x[few[order[i : i + 4]]], units[i : i + 4], 32, normalisation="imagenet"
                )
            ),
            np.float64,
        )
        for i in (0, 4, 8)
    ]
    means = [o.mean((0, 1, 2)) for o in outputs]
    np.testing.assert_allclose(measured[0], np.mean(means, 0), atol=2e-4)
    variances = [o.var((0, 1, 2)) for o in outputs]
    np.testing.assert_allclose(measured[1], np.mean(variances, 0), rtol=2e-3, atol=1e-5)
    plain = np.asarray(before(crop_rotate.prepare(inputs.x[few], 32, "imagenet")))
    assert np.abs(plain.mean((0, 1, 2)) - measured[0]).max() > 0.01
    assert norm.momentum == 0.9


def test_recalibration_changes_statistics_only_and_is_taken_back(tiny_networks, inputs, rows):
    doer = short.trainer(TINY)
    doer.load(None)
    before = doer.model.get_weights()
    with doer.recalibrated(inputs, rows["train"], 32, batch_size=10) as inside:
        moved = [not np.array_equal(a, b) for a, b in zip(before, inside, strict=True)]
    names = [w.path for w in doer.model.weights]
    assert {n.rsplit("/", 1)[1] for n, m in zip(names, moved, strict=True) if m} == {
        "moving_mean",
        "moving_variance",
    }
    assert same(before, doer.model.get_weights())


def test_rates_are_those_of_the_table(trainer, inputs, rows):
    table = trainer.predict(inputs, rows["val"], 32, "val", weights=trainer.initial)
    assert len(table) == 20
    assert np.allclose(table.filter(like="score_").sum(axis=1), 1, atol=1e-5)
    assert short_network.rates(table)["accuracy"] == pytest.approx(metrics.correct(table).mean())


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


def test_settings_of_the_text_and_of_the_released_code_are_parameters(tiny_networks, inputs, rows):
    """The cosine's floor, the jitter and the optimizer's settings change a training, and nothing
    else does.
    """
    sgd = {**VALUES, "optimizer": "sgd", "learning_rate": 0.5}
    options = {"epochs": 2, "of_epochs": 2}
    first = train_briefly(short.trainer(TINY), inputs, rows, sgd, **options)
    again = train_briefly(short.trainer(TINY), inputs, rows, sgd, **options, cosine_floor=0.1)
    assert same(first.weights, again.weights)
    for network, more in (
        (TINY, {"cosine_floor": 0.0}),
        (replace(TINY, brightness=0.0), {}),
        (replace(TINY, settings="text"), {}),
    ):
        other = train_briefly(short.trainer(network), inputs, rows, sgd, **options, **more)
        assert not same(first.weights, other.weights)


def test_the_best_epoch_is_kept_only_where_asked(
    tiny_networks, inputs, rows, tmp_path, monkeypatch
):
    monkeypatch.setenv("KIT_RESULTS", str(tmp_path))
    last = Config("gencnn", "smoke", "final", TINY, VALUES, 4, 32, batch_size=10)
    with pytest.raises(short_network.BadShortTraining, match="keep is 'best'"):
        replace(last, keep="best", watch=())
    told = {}
    for keep in ("last", "best"):
        run = short_runs.fit(replace(last, keep=keep), inputs, rows)
        told[keep] = run.metrics()["val"]["mcc"]
    history = run.history()["val_mcc"]
    assert told["last"] == pytest.approx(history.iloc[-1])
    assert told["best"] == pytest.approx(history.max())
