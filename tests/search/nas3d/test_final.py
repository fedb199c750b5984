"""Final trainings: the tested epoch, the warm start, fine-tuning, the benchmark's protocol."""

import keras
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from kit.data import volumes
from kit.search.nas3d import final, networks, proxy
from kit.search.nas3d.final import BadFinal, MeanAUC, Recipe3D
from kit.search.nas3d.space import Network3D
from kit.training import predictions

SMALL = Network3D(((0, 1, 0), (0, 0, 1), (0, 0, 0)), (0,), 1, 1, 8)
OPTIONS = {"profile": "test", "paper": "pbcnas"}


@pytest.fixture(scope="module")
def data(balls):
    inputs = volumes.load(balls, 8)
    return inputs, {
        part: np.flatnonzero(inputs.index["split"] == part) for part in ("train", "val", "test")
    }


@pytest.fixture(scope="module")
def trained(data):
    return final.fit_network(
        SMALL, Recipe3D(6, 8, 0.01), *data, name="small", seed=1, keep_weights=True, **OPTIONS
    )


def test_the_first_epoch_of_the_highest_accuracy_is_tested(trained, data):
    history, metrics = trained.history(), trained.metrics()
    assert metrics["best_epoch"] == history["val_accuracy"].idxmax() + 1
    assert metrics["trainable_parameters"] == sum(
        map(keras.ops.size, networks.build(SMALL, 2, 8).trainable_weights)
    )
    table = predictions.best_predictions(trained)
    test, val = table[table["part"] == "test"], table[table["part"] == "val"]
    assert len(test) == 14
    assert (val["label"] == (val["score_1"] > 0.5)).mean() == pytest.approx(
        history["val_accuracy"].max()
    )
    assert metrics["best"]["test"]["auc"] == pytest.approx(
        roc_auc_score(test["label"], test["score_1"])
    )


def test_a_warm_start_draws_kernels_only(trained, data):
    model = keras.models.load_model(trained.folder / "model.keras", compile=False)
    warm = [np.array(w) for w in model.get_weights()]
    made = {}
    original = final.fit
    final.fit = lambda make, *args, **options: made.setdefault("model", make())
    try:
        final.fit_network(SMALL, Recipe3D(), *data, warm=warm, name="warm", seed=4, **OPTIONS)
    finally:
        final.fit = original
    for layer in made["model"].layers:
        for new, old in zip(layer.weights, model.get_layer(layer.name).weights, strict=True):
            assert np.array_equal(new, old) == (new.name != "kernel")


def test_fine_tuning_keeps_all_but_the_head(trained, data):
    run = final.fine_tune(SMALL, trained, Recipe3D(1, 8, 1e-4), *data, name="tuned", **OPTIONS)
    assert run.config["model"]["source"] == trained.key
    assert len(run.history()) == 1
    other = Network3D(SMALL.matrix, (3,), 1, 1, 8)
    with pytest.raises(BadFinal, match="another network"):
        final.fine_tune(other, trained, Recipe3D(1, 8, 1e-4), *data, name="tuned", **OPTIONS)


def test_the_benchmarks_protocol(data):
    model = final.compiled(networks.build(SMALL, 2, 8), final.BENCHMARK, 64)
    assert [
        float(model.optimizer.learning_rate.__class__ and model.optimizer._learning_rate(step))
        for step in (100, 101, 151)
    ] == pytest.approx([1e-3, 1e-4, 1e-5])
    run = final.fit_network(
        SMALL, Recipe3D(2, 8, 0.01, (0.5,), "val_auc"), *data, name="benchmark", **OPTIONS
    )
    assert run.metrics()["best_epoch"] == run.history()["val_auc"].idxmax() + 1


@pytest.mark.parametrize("classes", [2, 3])
def test_area_under_the_curve(classes):
    rng = np.random.default_rng(0)
    labels, scores = rng.permutation(60) % classes, rng.dirichlet(np.ones(classes), 60)
    metric = MeanAUC(classes)
    for part in (slice(0, 25), slice(25, 60)):
        metric.update_state(
            labels[part, None] if classes == 2 else np.eye(classes)[labels[part]],
            scores[part].astype(np.float32),
        )
    expected = (
        roc_auc_score(labels, scores[:, 1])
        if classes == 2
        else roc_auc_score(labels, scores, multi_class="ovr")
    )
    assert float(metric.result()) == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("wrong", [{"best_by": "loss"}, {"drops": (1.5,)}])
def test_bad_recipes(wrong):
    with pytest.raises(BadFinal, match=next(iter(wrong))):
        Recipe3D(**wrong)


def test_the_proxy_and_the_final_training_share_adam():
    assert (
        final.compiled(networks.build(SMALL, 2, 8), Recipe3D(), 8).optimizer.epsilon
        == proxy.EPSILON
        == 1e-8
    )
