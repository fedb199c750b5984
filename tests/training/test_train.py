import inspect
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from kit import files, paths, record
from kit.data import batches as batches_module
from kit.data import images, split
from kit.data import inputs as data_inputs
from kit.data.augment import affine
from kit.training import predictions as training_predictions
from kit.training import train
from tests.conftest import write_set


def build():
    import keras
    from keras import layers

    return keras.Sequential(
        [
            layers.Input((24, 24, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.MaxPooling2D(4),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


@pytest.fixture(scope="module")
def inputs(discs):
    return images.load(discs, 24)


@pytest.fixture(scope="module")
def parts(inputs):
    rows = np.random.default_rng(0).permutation(len(inputs.index))
    return {"train": rows[:40], "validation": rows[40:50], "test": rows[50:]}


def config(profile, **changes):
    return train.TrainConfig(
        "discs",
        profile,
        "tiny",
        {"name": "tiny"},
        **{"epochs": 6, "batch_size": 8, "learning_rate": 1e-2, **changes},
    )


@pytest.fixture(scope="module")
def whole(inputs, parts):
    return train.fit(config("whole"), build, inputs, parts)


def test_a_finished_run_has_every_file_of_the_contract(whole):
    names = {f.name for f in whole.folder.iterdir()} - {".lock"}
    assert names == {
        "config.json",
        "environment.json",
        "history.csv",
        "predictions.csv",
        "metrics.json",
        "model.keras",
        "status.json",
    }
    assert whole.config["parts"]["train"]["images"] == 40
    assert whole.config["data"]["fingerprint"]
    assert list(whole.history()["epoch"]) == [1, 2, 3, 4, 5, 6]
    assert whole.predictions().groupby("part").size().to_dict() == {"test": 10, "validation": 10}


def test_the_model_learns_and_the_saved_model_gives_the_saved_scores(whole, inputs, parts):
    import keras

    assert whole.history()["loss"].iloc[-1] < 0.95 * whole.history()["loss"].iloc[0]
    model = keras.saving.load_model(whole.folder / "model.keras")
    scores = model.predict(inputs.batch(parts["test"]), verbose=0)[:, 0]
    saved = whole.predictions().query("part == 'test'")
    assert list(saved["image_id"]) == list(inputs.index["image_id"].iloc[parts["test"]])
    np.testing.assert_allclose(saved["score_1"], scores, atol=1e-6)


def test_the_same_seed_gives_identical_bytes_and_another_does_not(whole, inputs, parts):
    again = train.fit(config("again"), build, inputs, parts)
    other = train.fit(config("again", seed=1), build, inputs, parts)
    assert (again.folder / "predictions.csv").read_bytes() == (
        whole.folder / "predictions.csv"
    ).read_bytes()
    assert (other.folder / "predictions.csv").read_bytes() != (
        whole.folder / "predictions.csv"
    ).read_bytes()


def test_a_compiled_model_is_reused_for_the_same_architecture_and_changes_nothing(inputs, parts):
    def predictions(profile, **changes):
        return (
            train.fit(config(profile, epochs=2, **changes), build, inputs, parts).folder
            / "predictions.csv"
        ).read_bytes()

    predictions("warm", seed=3)
    model = train._LAST["model"]
    second = predictions("warm", seed=4)
    assert train._LAST["model"] is model
    train._LAST.clear()
    assert predictions("cold", seed=4) == second
    predictions("warm", learning_rate=1e-3)
    assert train._LAST["model"] is not model


def test_the_first_step_is_traced_once(monkeypatch):
    import keras

    traced, original = [], keras.Model.compute_loss
    monkeypatch.setattr(
        keras.Model, "compute_loss", lambda *a, **k: (traced.append(1), original(*a, **k))[1]
    )
    model = train._compiled(config("trace", seed=3), build())
    model.train_on_batch(np.zeros((2, 24, 24, 1), np.float32), np.zeros((2, 1), np.float32))
    assert len(traced) == 1


def test_the_network_trained_last_can_be_had_without_loading(inputs, parts):
    import keras

    first, second = (
        train.fit(config("memory", seed=seed), build, inputs, parts) for seed in (21, 22)
    )
    assert train.in_memory(first) is None
    x = inputs.x[:2].astype(np.float32) * inputs.scale
    np.testing.assert_array_equal(
        train.in_memory(second).predict(x, verbose=0),
        keras.saving.load_model(second.folder / "model.keras").predict(x, verbose=0),
    )


def test_a_model_that_is_compiled_already_keeps_its_optimizer_and_losses(inputs, parts):
    def build_compiled():
        import keras

        model = build()
        model.compile(
            keras.optimizers.SGD(0.0), "binary_crossentropy", metrics=["accuracy"], run_eagerly=True
        )
        return model

    run = train.fit(config("compiled", epochs=2), build_compiled, inputs, parts)
    assert type(train._LAST["model"].optimizer).__name__ == "SGD"
    assert train._LAST["model"].run_eagerly
    assert run.history()["val_loss"].nunique() == 1  # at rate 0 nothing is learnt


def test_a_finished_run_is_not_repeated(whole, inputs, parts):
    before = (whole.folder / "status.json").stat().st_mtime_ns
    train.fit(config("whole"), lambda: pytest.fail("trained again"), inputs, parts)
    assert (whole.folder / "status.json").stat().st_mtime_ns == before


DEADLY = """
import os, signal, sys
import keras, numpy as np
from kit.data import images
from kit.training import train

def die(builder, name, epoch, settings):
    keep = train.EpochKeeper.keep
    def keep_then_die(self, *arguments):
        keep(self, *arguments)
        if len(self.rows) == epoch:
            os.kill(os.getpid(), signal.SIGKILL)
    train.EpochKeeper.keep = keep_then_die
    rows = np.random.default_rng(0).permutation(60)
    settings |= {"epochs": 6, "batch_size": 8}
    config = train.TrainConfig("discs", name, "tiny", {"name": "tiny"}, **settings)
    parts = {"train": rows[:40], "validation": rows[40:50], "test": rows[50:]}
    train.fit(config, builder, images.load("discs", 24), parts)

for case in CASES:
    child = os.fork()
    if child == 0:
        try:
            die(globals()[case[0]], *case[1:])
        finally:
            os._exit(1)
    print("ended", case[1], os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def killed(discs):
    """Exit codes by profile of runs that were killed in training; one process imports TensorFlow
    for all and forks one for each.
    """
    cases = [("build", f"killed{epoch}", epoch, {"learning_rate": 1e-2}) for epoch in (1, 4)]
    cases.append(("build_normed", "normed-killed", 3, {"learning_rate": 5e-2, **AUGMENTED}))
    builders = "\n".join(map(inspect.getsource, (build, build_normed)))
    done = subprocess.run(
        [sys.executable, "-c", f"{builders}\nCASES = {cases!r}\n{DEADLY}"],
        capture_output=True,
        text=True,
    )
    codes = {
        line.split()[1]: int(line.split()[2])
        for line in done.stdout.splitlines()
        if line.startswith("ended ")
    }
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(codes) == len(cases), done.stderr[-2000:]
    return codes


@pytest.mark.parametrize("epoch", [1, 4])
def test_a_killed_run_ends_bit_identical(killed, whole, inputs, parts, epoch):
    profile = f"killed{epoch}"
    assert killed[profile] == -signal.SIGKILL
    resumed = train.fit(config(profile), build, inputs, parts)
    assert resumed.folder.name == whole.folder.name
    assert resumed.status["resumed_at"] == epoch
    for name in ("predictions.csv", "metrics.json"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    columns = ["epoch", "loss", "val_loss", "accuracy"]
    assert resumed.history()[columns].equals(whole.history()[columns])


def test_a_nan_loss_ends_the_run_with_a_reason_and_leaves_others_alone(whole, inputs, parts):
    def build_broken():
        from keras import Sequential, initializers, layers

        return Sequential(
            [
                layers.Input((24, 24, 1)),
                layers.Flatten(),
                layers.Dense(1, bias_initializer=initializers.Constant(np.nan)),
            ]
        )

    with pytest.raises(train.Diverged, match="loss is nan in epoch 1; lower learning_rate"):
        train.fit(config("nan"), build_broken, inputs, parts)
    run = next((paths.results_dir() / "nan" / "discs" / "runs").iterdir())
    assert files.read_json(run / "status.json")["state"] == "failed"
    assert not (run / "predictions.csv").exists()
    assert whole.finished


def test_an_empty_class_in_training_is_refused_before_anything_is_written(inputs):
    dark = np.flatnonzero(inputs.labels == 0)
    with pytest.raises(data_inputs.BadSplit, match="no image of class bright in the part 'train'"):
        train.fit(config("empty"), build, inputs, {"train": dark[:20], "test": dark[20:]})
    assert not (paths.results_dir() / "empty").exists()


def test_a_class_missing_in_test_is_trained_and_its_metrics_are_undefined(inputs):
    dark, bright = (np.flatnonzero(inputs.labels == c) for c in (0, 1))
    with pytest.warns(
        UserWarning, match="the AUC and the rates of the other classes are undefined"
    ):
        run = train.fit(
            config("one-class", epochs=1),
            build,
            inputs,
            {"train": np.r_[dark[:20], bright], "test": dark[20:]},
        )
    assert np.isnan(run.metrics()["test"]["auc"])
    assert run.metrics()["test"]["n"] == 10


@pytest.mark.parametrize(
    "change", [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"learning_rate": 50.0}]
)
def test_bad_settings_are_refused(change):
    with pytest.raises(train.BadConfig, match=next(iter(change))):
        config("bad", **change)


def test_cross_validation_trains_each_fold_and_tests_once(discs, inputs):
    parted = split.holdout_and_folds(discs, 12, 3, 0, stratified=True)
    folds, final = train.cross_validate(config("cv", epochs=1), build, inputs, parted)
    assert [len(f.predictions()) for f in folds] == [16, 16, 16]
    assert sorted(final.predictions()["image_id"]) == sorted(parted.parts["test"])
    assert final.config["parts"]["train"]["images"] == 48
    assert (final.folder / "model.keras").exists()
    assert not (folds[0].folder / "model.keras").exists()


def test_epoch_streams_are_permutations_that_depend_on_the_epoch_only(inputs):
    rows = np.arange(10)

    def batches(first, count):
        return [
            x.numpy()
            for x, _ in batches_module.epochs(inputs, rows, 4, seed=7, first_epoch=first).take(
                count
            )
        ]

    both, second = batches(0, 6), batches(1, 3)
    assert [len(b) for b in both] == [4, 4, 2, 4, 4, 2]
    for a, b in zip(both[3:], second, strict=False):
        assert np.array_equal(a, b)
    first_epoch = np.concatenate(both[:3])
    assert not np.array_equal(first_epoch, np.concatenate(second))
    assert np.array_equal(
        np.sort(first_epoch.sum((1, 2, 3))), np.sort(inputs.batch(rows).sum((1, 2, 3)))
    )


# ---- augmentation, best epoch, BatchNorm, predictions on other inputs


def build_normed():
    import keras
    from keras import layers

    return keras.Sequential(
        [
            layers.Input((24, 24, 1)),
            layers.Conv2D(8, 3, use_bias=False),
            layers.BatchNormalization(momentum=0.999),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.3),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


AUGMENTED = {"augmentation": {"rotation": 10}, "keep_best": True, "recalibrate_batchnorm": True}
OUTCOME = ("predictions.csv", "predictions_best.csv", "metrics.json")


def die_after(monkeypatch, epochs):
    keep = train.EpochKeeper.keep

    def keep_then_die(self, *arguments):
        keep(self, *arguments)
        if len(self.rows) == epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(train.EpochKeeper, "keep", keep_then_die)


@pytest.fixture(scope="module")
def normed(inputs, parts):
    return train.fit(config("normed", learning_rate=5e-2, **AUGMENTED), build_normed, inputs, parts)


def toy(settings):
    made = data_inputs.Inputs(
        "x",
        pd.DataFrame({"image_id": [f"{n}.png" for n in range(6)]}),
        np.zeros((6, 2, 2, 1), np.uint8),
        1 / 255,
        {"name": "x", "size": 2},
    )
    asked = train.TrainConfig(
        "br35h", "quick", "cnn", epochs=3, batch_size=8, learning_rate=1e-3, seed=4, **settings
    )
    return train.run_key(asked, made, {"train": np.arange(4), "test": np.arange(4, 6)})


@pytest.mark.parametrize(
    "settings", [{}, {"augmenter": "keras_generator"}, {"keep_best": False, "augmentation": None}]
)
def test_runs_from_before_these_settings_existed_keep_their_key(settings):
    assert (
        files.digest(toy(settings))
        == "4423e7b6f091d5861a1806c4a390e88672239022411fc6940238acdb7c3f2a27"
    )  # computed by the code of that time


def test_each_setting_that_is_used_changes_the_key():
    used = [
        {},
        {"augmentation": {}},
        {"augmentation": {}, "augmenter": "keras_generator"},
        {"keep_best": True},
        {"recalibrate_batchnorm": True},
    ]
    assert len({files.digest(toy(s)) for s in used}) == 5
    assert toy({"augmentation": {}}) == toy(
        {"augmentation": {"rotation": 10, "horizontal_flip": True}}
    )


def test_bad_augmentation_settings_are_refused(inputs, parts):
    with pytest.raises(affine.BadAugmentation, match="no setting 'zoom'"):
        config("bad", augmentation={"zoom": 2})
    with pytest.raises(
        train.BadConfig, match="augmenter is 'torch'; choose one of fused, keras_generator"
    ):
        config("bad", augmenter="torch")
    with pytest.raises(train.BadConfig, match="keep_best needs a part 'validation'"):
        train.fit(
            config("bad", keep_best=True),
            build,
            inputs,
            {"train": parts["train"], "test": parts["test"]},
        )
    features = images.with_features(
        inputs, {"network": "coarse"}, lambda block: block.mean((1, 2), keepdims=True)
    )
    with pytest.raises(affine.BadAugmentation, match="not cached features"):
        train.fit(config("bad", augmentation={}), build, features, parts)
    assert not (paths.results_dir() / "bad").exists()


def test_augmentation_changes_the_training_and_the_seed_repeats_it(whole, inputs, parts):
    first, again = (
        train.fit(config(p, augmentation={}), build, inputs, parts)
        for p in ("augmented", "augmented-again")
    )
    assert (first.folder / "predictions.csv").read_bytes() == (
        again.folder / "predictions.csv"
    ).read_bytes()
    assert not np.allclose(first.history()["loss"], whole.history()["loss"])
    assert first.config["augmentation"] == {
        "rotation": 10,
        "width_shift": 0.05,
        "height_shift": 0.05,
        "horizontal_flip": True,
    }


def test_an_augmented_run_killed_in_training_ends_bit_identical(killed, normed, inputs, parts):
    assert killed["normed-killed"] == -signal.SIGKILL
    resumed = train.fit(
        config("normed-killed", learning_rate=5e-2, **AUGMENTED), build_normed, inputs, parts
    )
    assert resumed.status["resumed_at"] == 3
    for name in OUTCOME:
        assert (resumed.folder / name).read_bytes() == (normed.folder / name).read_bytes(), name


def test_an_interrupted_run_with_the_published_generator_ends_identical(inputs, parts, monkeypatch):
    settings = {"augmentation": {}, "augmenter": "keras_generator", "epochs": 4, "keep_best": True}
    left_alone = train.fit(config("generator", **settings), build, inputs, parts)
    with monkeypatch.context() as patch:
        die_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train.fit(config("generator-killed", **settings), build, inputs, parts)
    resumed = train.fit(config("generator-killed", **settings), build, inputs, parts)
    assert resumed.status["resumed_at"] == 2
    for name in OUTCOME:
        assert (resumed.folder / name).read_bytes() == (left_alone.folder / name).read_bytes(), name


def test_the_best_epochs_weights_are_those_that_a_run_of_that_length_ends_with(inputs, parts):
    run = train.fit(config("best", learning_rate=0.3, keep_best=True), build, inputs, parts)
    best = run.metrics()["best_epoch"]
    assert best == int(run.history()["val_loss"].argmin()) + 1
    assert best < 6
    shorter = train.fit(config("best-short", learning_rate=0.3, epochs=best), build, inputs, parts)
    assert train.best_predictions(run).equals(shorter.predictions())
    assert not train.best_predictions(run).equals(run.predictions())
    assert {
        **run.metrics()["best"],
        "trainable_parameters": run.metrics()["trainable_parameters"],
    } == shorter.metrics()
    plain = train.fit(config("best-plain", learning_rate=0.3), build, inputs, parts)
    assert plain.predictions().equals(run.predictions())
    assert {
        k: run.metrics()[k] for k in ("validation", "test", "trainable_parameters")
    } == plain.metrics()
    assert (run.folder / "model_best.keras").exists()
    assert not list(run.folder.glob("*.npz"))


def test_the_best_epoch_survives_a_kill_after_a_later_worse_one(inputs, parts, monkeypatch):
    whole = train.fit(config("best", learning_rate=0.3, keep_best=True), build, inputs, parts)
    with monkeypatch.context() as patch:
        die_after(patch, whole.metrics()["best_epoch"] + 1)
        with pytest.raises(KeyboardInterrupt):
            train.fit(
                config("best-killed", learning_rate=0.3, keep_best=True), build, inputs, parts
            )
    resumed = train.fit(
        config("best-killed", learning_rate=0.3, keep_best=True), build, inputs, parts
    )
    for name in OUTCOME:
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


@pytest.mark.parametrize(
    ("losses", "best"),
    [([0.5, 0.3, 0.3], 2), ([np.nan, 0.9, 1.0], 2), ([np.nan, np.nan], 1), ([0.2], 1)],
)
def test_ties_go_to_the_earlier_epoch_and_nan_never_wins(tmp_path, losses, best):
    keeper = train.EpochKeeper(record.Run(tmp_path, "x", {}), config("x"))
    keeper.rows = [{"val_loss": v} for v in losses]
    assert keeper.best_epoch() == best


def test_recalibrated_statistics_are_those_of_the_training_pipeline(normed, inputs, parts):
    """Augmentation, batches and order of one epoch more, for both weights."""
    import keras

    stream = batches_module.epochs(
        inputs,
        parts["train"],
        batch_size=8,
        seed=config("normed").seed,
        first_epoch=config("normed").epochs,
        augment=AUGMENTED["augmentation"],
    )
    fed = [np.array(x) for x, _ in stream.take(5)]
    for name in training_predictions.WEIGHTS.values():
        model = keras.saving.load_model(normed.folder / name)
        convolution, norm = model.layers[1:3]  # after the input layer
        maps = [convolution(x).numpy() for x in fed]
        means = np.mean([m.mean((0, 1, 2)) for m in maps], axis=0)
        np.testing.assert_allclose(norm.moving_mean, means, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            norm.moving_variance, np.mean([m.var((0, 1, 2)) for m in maps], axis=0), rtol=1e-3
        )
        plain = convolution(inputs.batch(np.sort(parts["train"]))).numpy()
        assert np.abs(plain.mean((0, 1, 2)) / means - 1).max() > 3e-4  # beyond rtol above
        assert norm.momentum == 0.999


def test_without_recalibration_the_statistics_lag_behind(normed, inputs, parts):
    import keras

    plain = train.fit(
        config("lagging", learning_rate=5e-2, augmentation={"rotation": 10}),
        build_normed,
        inputs,
        parts,
    )
    lagging, calibrated = (
        keras.saving.load_model(r.folder / "model.keras").layers[2].moving_variance.numpy()
        for r in (plain, normed)
    )
    assert np.abs(lagging - 1).max() < 0.1 < np.abs(calibrated - 1).max()


def test_frozen_norms_are_left_alone(inputs):
    model = build_normed()
    model.layers[1].trainable = False
    training_predictions.recalibrate(model, [(inputs.batch(np.arange(8)), None)])
    assert model.layers[1].moving_mean.numpy().max() == 0


@pytest.mark.parametrize("weights", ["last", "best"])
def test_a_finished_model_predicts_other_inputs_and_remembers(
    normed, inputs, parts, weights, monkeypatch
):
    same = train.predict(normed, inputs, parts["test"], "again", weights)
    stored = normed.predictions() if weights == "last" else train.best_predictions(normed)
    stored = stored.query("part == 'test'").reset_index(drop=True)
    assert same["image_id"].equals(stored["image_id"])
    assert (same["part"] == "again").all()
    np.testing.assert_allclose(same["score_1"], stored["score_1"], atol=1e-6)
    upside_down = data_inputs.Inputs(
        inputs.name,
        inputs.index,
        inputs.x[:, ::-1],
        inputs.scale,
        {**inputs.facts, "upside": "down"},
    )
    other = train.predict(normed, upside_down, parts["test"], "again", weights)
    assert len(list(normed.folder.glob(f"predicted-again-{weights}-*.csv"))) == 2
    monkeypatch.setattr(training_predictions, "_predict", lambda *a: pytest.fail("predicted again"))
    assert train.predict(normed, upside_down, parts["test"], "again", weights).equals(other)


def test_many_images_are_predicted_in_a_graph_even_where_training_ran_layer_by_layer(
    inputs, parts, monkeypatch
):
    import keras

    seen, original = [], keras.Model.predict
    monkeypatch.setattr(
        keras.Model,
        "predict",
        lambda self, *a, **k: (seen.append(self.run_eagerly), original(self, *a, **k))[1],
    )
    rows = [
        train.fit(
            config("layerwise", graph=False, epochs=1, batch_size=size), build, inputs, parts
        ).predictions()
        for size in (1, 8)
    ]
    assert seen == [False, True]  # 20 images: more than four batches of 2, fewer than four of 16
    model = train._LAST["model"]
    assert model.run_eagerly
    assert len(rows[0]) == len(rows[1])


def test_weights_that_were_not_kept_are_named(whole, inputs, parts):
    with pytest.raises(
        training_predictions.NoWeights,
        match=r"has no model_best\.keras; train it with keep_weights=True and keep_best=True",
    ):
        train.predict(whole, inputs, parts["test"], "x", "best")
    with pytest.raises(training_predictions.NoWeights, match="choose one of last, best"):
        train.predict(whole, inputs, parts["test"], "x", "median")
    with pytest.raises(training_predictions.NoWeights, match=r"predictions_best\.csv is absent"):
        train.best_predictions(whole)


def test_a_deleted_best_model_is_trained_again(inputs, parts):
    asked = config("deleted", epochs=1, keep_best=True)
    run = train.fit(asked, build, inputs, parts)
    (run.folder / "model_best.keras").unlink()
    train.fit(asked, build, inputs, parts)
    assert (run.folder / "model_best.keras").exists()


def test_running_out_of_memory_is_one_sentence_and_a_failed_run(inputs, parts):
    def build_huge():
        import keras
        import tensorflow as tf

        class Huge(keras.layers.Layer):
            def call(self, x):
                return x + tf.reduce_mean(tf.random.uniform(tf.constant([2**46], tf.int64)))

        return keras.Sequential(
            [keras.layers.Input((24, 24, 1)), Huge(), keras.layers.Flatten(), keras.layers.Dense(1)]
        )

    with pytest.raises(
        train.OutOfMemory, match="batch of 8 do not fit into memory; lower batch_size"
    ):
        train.fit(config("huge"), build_huge, inputs, parts)
    run = next((paths.results_dir() / "huge" / "discs" / "runs").iterdir())
    assert files.read_json(run / "status.json")["state"] == "failed"


def test_other_errors_of_tensorflow_pass_through():
    import tensorflow as tf

    with pytest.raises(tf.errors.InvalidArgumentError), training_predictions.memory("x", 8):
        tf.reshape(tf.zeros(3), (2, 2))
    with (
        pytest.raises(train.OutOfMemory, match="x: the model"),
        training_predictions.memory("x", 8),
    ):
        raise tf.errors.InternalError(
            None, None, "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes"
        )


def test_four_classes_train_with_one_hot_targets(private_folders):
    import keras
    from keras import layers

    write_set(private_folders / "data" / "four", "four", ("a", "b", "c", "d"), 6, 16)
    inputs = images.load("four", 16, channels=3)
    parts = {
        "train": np.arange(0, 24, 2),
        "validation": np.arange(1, 24, 4),
        "test": np.arange(3, 24, 4),
    }
    asked = config(
        "four", epochs=2, loss="categorical_crossentropy", augmentation={}, keep_best=True
    )
    run = train.fit(
        asked,
        lambda: keras.Sequential(
            [layers.Input((16, 16, 3)), layers.Flatten(), layers.Dense(4, activation="softmax")]
        ),
        inputs,
        parts,
    )
    assert list(run.predictions().columns[-4:]) == [f"score_{c}" for c in range(4)]
    assert run.metrics()["best"]["test"]["n"] == 6
