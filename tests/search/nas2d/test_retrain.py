"""The evaluation phase on tiny networks: schedules, PyTorch's SGD, resuming with dropped paths,
both kinds of network, and honest failures.
"""

from dataclasses import replace

import keras
import numpy as np
import pytest

from kit import files, paths
from kit.data import images
from kit.search.nas2d import derived, genotype, retrain
from kit.search.nas2d.retrain import Recipe
from kit.training import predictions, rules, train
from tests.training.test_train import die_after

RECIPE = Recipe(epochs=4, batch_size=20, drop_path=0.4)
CELLS = genotype.Genotype(
    genotype.cell("sep3:0 skip:1 max:0 skip:2 avg:1 skip:2 skip:0 dil3:4"),
    genotype.cell("max:0 skip:1 avg:0 sep5:2 skip:2 skip:3 max:0 skip:4"),
)


@pytest.fixture(scope="module")
def inputs(discs):
    return images.load(discs, 16)


@pytest.fixture(scope="module")
def parts(inputs):
    rows = np.random.default_rng(0).permutation(len(inputs.index))
    return {"train": rows[:40], "test": rows[40:]}


def fit(inputs, parts, profile, recipe=RECIPE, cells=CELLS, **options):
    options = {
        "name": "tiny",
        "paper": "lease",
        "watch": "test",
        "keep_weights": False,
        "graph": False,
        **options,
    }
    return retrain.fit_cells(
        cells, recipe, inputs, parts, channels=2, cells=3, profile=profile, **options
    )


@pytest.fixture(scope="module")
def whole(inputs, parts):
    return fit(inputs, parts, "nas-whole", keep_weights=True)


def test_a_run_records_what_was_trained_and_both_schedules(whole):
    history = whole.history()
    np.testing.assert_allclose(
        history["learning_rate"], [rules.cosine(epoch, 4, 0.025) for epoch in range(4)], rtol=1e-6
    )
    np.testing.assert_allclose(history["drop_path"], [0, 0.1, 0.2, 0.3], rtol=1e-6)
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "seconds"} <= set(history)
    assert len(whole.predictions()) == 20
    assert whole.config["model"]["normal"][0] == ("sep_conv_3x3", 0)
    assert whole.config["model"]["recipe"]["auxiliary"] == 0.4


def test_the_saved_network_has_no_auxiliary_head_and_gives_the_saved_scores(whole, inputs, parts):
    import keras

    model = keras.saving.load_model(whole.folder / "model.keras")
    assert not [layer.name for layer in model.layers if layer.name.startswith("aux")]
    assert "cell_2" in [layer.name for layer in model.layers]
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == derived.parameters(
        CELLS, 2, 3, 2, input_channels=1
    )
    scores = model.predict(inputs.batch(parts["test"]), verbose=0)
    np.testing.assert_allclose(whole.predictions()[["score_0", "score_1"]], scores, atol=1e-5)
    again = predictions.predict(whole, inputs, parts["test"], "again")
    np.testing.assert_allclose(again["score_1"], scores[:, 1], atol=1e-5)


@pytest.mark.parametrize("graph", [False, True])
def test_an_interrupted_run_ends_identical_with_its_dropped_paths(
    inputs, parts, monkeypatch, graph
):
    recipe = replace(RECIPE, epochs=2)
    alone = fit(inputs, parts, f"nas-alone-{graph}", recipe, graph=graph)
    train._LAST.clear()
    with monkeypatch.context() as patch:
        die_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            fit(inputs, parts, f"nas-killed-{graph}", recipe, graph=graph)
    train._LAST.clear()  # as in a new process
    resumed = fit(inputs, parts, f"nas-killed-{graph}", recipe, graph=graph)
    assert resumed.status["resumed_at"] == 1
    assert (resumed.folder / "predictions.csv").read_bytes() == (
        alone.folder / "predictions.csv"
    ).read_bytes()
    assert resumed.history().drop(columns="seconds").equals(alone.history().drop(columns="seconds"))


def test_dropped_paths_change_the_training(whole, inputs, parts):
    without = fit(inputs, parts, "nas-without", replace(RECIPE, drop_path=0.0))
    assert "drop_path" not in without.history()
    assert without.history()["loss"][0] == pytest.approx(
        whole.history()["loss"][0], rel=1e-5
    )  # the rate of the first epoch is 0
    assert abs(without.history()["loss"][3] - whole.history()["loss"][3]) > 1e-3


def test_a_compiled_network_serves_several_seeds(inputs, parts):
    recipe = replace(RECIPE, epochs=1)
    fit(inputs, parts, "nas-seeds", recipe, seed=1)
    model = train._LAST["model"]
    warm = fit(inputs, parts, "nas-seeds", recipe, seed=2)
    assert train._LAST["model"] is model
    train._LAST.clear()
    assert (
        fit(inputs, parts, "nas-seeds-cold", recipe, seed=2)
        .predictions()
        .equals(warm.predictions())
    )


def test_steps_are_those_of_the_reference(inputs, parts):
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(3)
    network = derived.network(CELLS, 16, 2, 3, 2, auxiliary=True, input_channels=1)
    trainee = retrain.compiled(network, replace(RECIPE, drop_path=0.0), 1, graph=False)
    x, y = (
        tf.constant(inputs.batch(parts["train"][:8])),
        tf.constant(inputs.labels[parts["train"][:8], None].astype(np.float32)),
    )
    variables = trainee.trainable_variables
    weights, buffers = (
        [tf.identity(v.value) for v in variables],
        [tf.zeros_like(v.value) for v in variables],
    )
    trainee.optimizer.build(variables)
    for epoch in range(2):
        with tf.GradientTape() as tape:
            main, extra = network(x, training=True)
            loss = sum(
                w * -tf.reduce_mean(tf.math.log(tf.where(y == 1, p[:, 1:], p[:, :1])))
                for w, p in ((1, main), (0.4, extra))
            )
        gradients = tape.gradient(loss, [v.value for v in variables], unconnected_gradients="zero")
        weights, buffers = rules.sgd(weights, gradients, buffers, rules.cosine(epoch, 4, 0.025))
        trainee.train_step((x, y))
        for mine, variable in zip(weights, variables, strict=True):
            np.testing.assert_allclose(mine, variable.value, atol=2e-6)


def test_hand_designed_networks_train_by_the_same_recipe(inputs, parts):
    large = images.load(inputs.name, 32)
    run = retrain.fit_baseline(
        "vgg13",
        replace(RECIPE, epochs=1),
        large,
        parts,
        build_options={"width": 0.05},
        name="vgg13",
        profile="nas-baseline",
        watch="test",
        keep_weights=False,
        graph=False,
    )
    assert run.config["model"]["network"] == "vgg13"
    assert run.history()["learning_rate"][0] == pytest.approx(0.025)
    assert "drop_path" not in run.history()
    assert len(run.predictions()) == 20


def test_few_steps_run_without_tracing(inputs, parts):
    run = retrain.fit_cells(
        CELLS,
        replace(RECIPE, epochs=1),
        inputs,
        parts,
        channels=2,
        cells=3,
        profile="nas-few",
        name="auto",
        watch="test",
        keep_weights=False,
    )
    assert run.config["graph"] is False


def test_a_diverging_run_ends_with_a_reason_and_leaves_others_alone(
    whole, inputs, parts, monkeypatch
):
    from kit.search.nas2d import trainee as nas2d_trainee

    monkeypatch.setattr(nas2d_trainee, "_loss", lambda _, output, weights: np.nan * output[0, 0])
    with pytest.raises(train.Diverged, match="loss is nan in epoch 1"):
        fit(inputs, parts, "nas-nan")
    folder = next((paths.results_dir() / "nas-nan" / "lease" / "runs").iterdir())
    assert files.read_json(folder / "status.json")["state"] == "failed"
    assert whole.finished


def test_running_out_of_memory_is_said_in_one_sentence(inputs, parts, monkeypatch):
    import tensorflow as tf

    from kit.search.nas2d import trainee as nas2d_trainee

    def full(targets, output, sample_weight):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")

    monkeypatch.setattr(nas2d_trainee, "_loss", full)
    with pytest.raises(predictions.OutOfMemory, match="lower batch_size or the image size"):
        fit(inputs, parts, "nas-oom")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"drop_path": 1.0}, "drop_path is 1.0; it must be below 1"),
        ({"clip": 0}, "clip is 0"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"auxiliary": -1}, "auxiliary is -1"),
    ],
)
def test_bad_recipes_are_refused(change, sentence):
    with pytest.raises(retrain.BadRecipe, match=sentence):
        replace(RECIPE, **change)


@pytest.mark.parametrize("weights", [None, (1.0, 3.0, 0.0, 2.0)])
def test_keras_own_ways_to_train_work(weights):
    """train_on_batch hands over three things, of which the third may be nothing."""
    rng = np.random.default_rng(0)
    x, y = rng.random((4, 16, 16, 3), np.float32), np.eye(2, dtype="f4")[[0, 1, 1, 0]]
    shape = {"size": 16, "channels": 2, "cells": 3, "classes": 2, "input_channels": 3}
    recipe = replace(RECIPE, drop_path=0.0, auxiliary=0.0)

    def made():
        keras.utils.set_random_seed(0)
        network = derived.network(CELLS, auxiliary=False, **shape)
        return retrain.compiled(network, recipe, steps=1, graph=False)

    one, other = made(), made()
    weights = None if weights is None else np.array(weights, "f4")
    before = one.trainable_weights[0].numpy()
    each = -np.log(one(x, training=True).numpy()[np.arange(4), y.argmax(1)])
    told = one.train_on_batch(x, y, sample_weight=weights, return_dict=True)
    share = np.ones(4) if weights is None else weights
    assert told["loss"] == pytest.approx((each * share).mean(), rel=1e-4)
    assert not np.array_equal(one.trainable_weights[0].numpy(), before)
    assert len(one.test_on_batch(x, y, sample_weight=weights)) == 2
    if weights is None:  # the same step as fit takes
        other.fit(x, y, batch_size=4, epochs=1, shuffle=False, verbose=0)
        for a, b in zip(one.trainable_weights, other.trainable_weights, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6)
