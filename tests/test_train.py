import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from kit import data, paths, record, split, train

MODEL = """
def build():
    import keras
    from keras import layers
    return keras.Sequential([layers.Input((24, 24, 1)), layers.Conv2D(8, 3, activation="relu"), layers.MaxPooling2D(4), layers.Flatten(),
                             layers.Dropout(0.3), layers.Dense(1, activation="sigmoid")])
"""
exec(MODEL)


@pytest.fixture(scope="module")
def inputs(discs):
    return data.load(discs, 24)


@pytest.fixture(scope="module")
def parts(inputs):
    rows = np.random.default_rng(0).permutation(len(inputs.index))
    return {"train": rows[:40], "validation": rows[40:50], "test": rows[50:]}


def config(profile, **changes):
    return train.TrainConfig("discs", profile, "tiny", {"name": "tiny"}, **{"epochs": 6, "batch_size": 8, "learning_rate": 1e-2, **changes})


@pytest.fixture(scope="module")
def whole(inputs, parts):
    return train.fit(config("whole"), build, inputs, parts)


def test_a_finished_run_has_every_file_of_the_contract(whole):
    names = {f.name for f in whole.folder.iterdir()} - {".lock"}
    assert names == {"config.json", "environment.json", "history.csv", "predictions.csv", "metrics.json", "model.keras", "status.json"}
    assert whole.config["parts"]["train"]["images"] == 40 and whole.config["data"]["fingerprint"]
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
    assert (again.folder / "predictions.csv").read_bytes() == (whole.folder / "predictions.csv").read_bytes()
    assert (other.folder / "predictions.csv").read_bytes() != (whole.folder / "predictions.csv").read_bytes()


def test_a_compiled_model_is_reused_for_the_same_architecture_and_changes_nothing(inputs, parts):
    def predictions(profile, **changes):
        return (train.fit(config(profile, epochs=2, **changes), build, inputs, parts).folder / "predictions.csv").read_bytes()

    predictions("warm", seed=3)
    model = train._LAST["model"]
    second = predictions("warm", seed=4)
    assert train._LAST["model"] is model
    train._LAST.clear()
    assert predictions("cold", seed=4) == second
    predictions("warm", learning_rate=1e-3)
    assert train._LAST["model"] is not model


def test_a_finished_run_is_not_repeated(whole, inputs, parts):
    before = (whole.folder / "status.json").stat().st_mtime_ns
    train.fit(config("whole"), lambda: pytest.fail("trained again"), inputs, parts)
    assert (whole.folder / "status.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("epoch", [1, 4])
def test_a_killed_run_ends_bit_identical(whole, inputs, parts, epoch):
    profile = f"killed{epoch}"
    script = MODEL + f"""
import os, signal
import numpy as np
from kit import data, train
keep = train.EpochKeeper.keep
def keep_then_die(self, *arguments):
    keep(self, *arguments)
    if len(self.rows) == {epoch}:
        os.kill(os.getpid(), signal.SIGKILL)
train.EpochKeeper.keep = keep_then_die
rows = np.random.default_rng(0).permutation(60)
config = train.TrainConfig("discs", {profile!r}, "tiny", {{"name": "tiny"}}, epochs=6, batch_size=8, learning_rate=1e-2)
train.fit(config, build, data.load("discs", 24), {{"train": rows[:40], "validation": rows[40:50], "test": rows[50:]}})
"""
    died = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr[-500:]
    resumed = train.fit(config(profile), build, inputs, parts)
    assert resumed.folder.name == whole.folder.name and resumed.status["resumed_at"] == epoch
    for name in ("predictions.csv", "metrics.json"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    columns = ["epoch", "loss", "val_loss", "accuracy"]
    assert resumed.history()[columns].equals(whole.history()[columns])


def test_a_nan_loss_ends_the_run_with_a_reason_and_leaves_others_alone(whole, inputs, parts):
    def build_broken():
        from keras import Sequential, initializers, layers
        return Sequential([layers.Input((24, 24, 1)), layers.Flatten(), layers.Dense(1, bias_initializer=initializers.Constant(np.nan))])

    with pytest.raises(train.Diverged, match="loss is nan in epoch 1; lower learning_rate"):
        train.fit(config("nan"), build_broken, inputs, parts)
    run = next((paths.results_dir() / "nan" / "discs" / "runs").iterdir())
    assert record.read_json(run / "status.json")["state"] == "failed" and not (run / "predictions.csv").exists()
    assert whole.finished


def test_an_empty_class_in_training_is_refused_before_anything_is_written(inputs):
    dark = np.flatnonzero(inputs.labels == 0)
    with pytest.raises(data.BadSplit, match="no image of class bright in the part 'train'"):
        train.fit(config("empty"), build, inputs, {"train": dark[:20], "test": dark[20:]})
    assert not (paths.results_dir() / "empty").exists()


def test_a_class_missing_in_test_is_trained_and_its_metrics_are_undefined(inputs):
    dark, bright = (np.flatnonzero(inputs.labels == c) for c in (0, 1))
    with pytest.warns(UserWarning):
        run = train.fit(config("one-class", epochs=1), build, inputs, {"train": np.r_[dark[:20], bright], "test": dark[20:]})
    assert np.isnan(run.metrics()["test"]["auc"]) and run.metrics()["test"]["n"] == 10


@pytest.mark.parametrize("change", [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"learning_rate": 50.0}])
def test_bad_settings_are_refused(change):
    with pytest.raises(train.BadConfig, match=next(iter(change))):
        config("bad", **change)


def test_cross_validation_trains_each_fold_and_tests_once(discs, inputs):
    parted = split.holdout_and_folds(discs, 12, 3, 0, stratified=True)
    folds, final = train.cross_validate(config("cv", epochs=1), build, inputs, parted)
    assert [len(f.predictions()) for f in folds] == [16, 16, 16]
    assert sorted(final.predictions()["image_id"]) == sorted(parted.parts["test"])
    assert final.config["parts"]["train"]["images"] == 48
    assert (final.folder / "model.keras").exists() and not (folds[0].folder / "model.keras").exists()


def test_epoch_streams_are_permutations_that_depend_on_the_epoch_only(inputs):
    rows = np.arange(10)
    def batches(first, count):
        return [x.numpy() for x, _ in data.epochs(inputs, rows, 4, seed=7, first_epoch=first).take(count)]
    both, second = batches(0, 6), batches(1, 3)
    assert [len(b) for b in both] == [4, 4, 2, 4, 4, 2]
    for a, b in zip(both[3:], second):
        assert np.array_equal(a, b)
    first_epoch = np.concatenate(both[:3])
    assert not np.array_equal(first_epoch, np.concatenate(second))
    assert np.array_equal(np.sort(first_epoch.sum((1, 2, 3))), np.sort(inputs.batch(rows).sum((1, 2, 3))))
