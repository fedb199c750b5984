"""The streamed confusion matrix against six tables computed apart, against a finished table of
predictions, and within Keras.
"""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from sklearn.metrics import matthews_corrcoef

from kit.evaluation import metrics
from kit.training import streaming


def drawn():
    """Labels, predicted classes and number of classes of the cases M1 to M6."""
    first, second = np.random.RandomState(7), np.random.RandomState(8)
    labels = first.randint(0, 4, 60)
    cases = {"M1": (labels, np.where(first.rand(60) < 0.7, labels, first.randint(0, 4, 60)), 4)}
    labels = second.choice(3, 90, p=[0.8, 0.15, 0.05])
    cases["M2"] = labels, np.where(second.rand(90) < 0.6, labels, 0), 3
    labels = np.array([0] * 5 + [1] * 3 + [2] * 2)
    cases |= {
        "M3": (labels, 0 * labels, 3),
        "M4": (labels, labels, 3),
        "M5": (np.zeros(6, int), np.array([0, 0, 0, 1, 2, 0]), 3),
    }
    return cases | {"M6": (np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0]), 2)}


CASES = drawn()
MATRICES = {
    "M1": [[18, 1, 0, 1], [1, 7, 0, 1], [1, 0, 10, 1], [1, 4, 2, 12]],
    "M2": [[73, 0, 0], [7, 5, 0], [2, 0, 3]],
}
COLUMNS = (
    "accuracy",
    "macro_specificity",
    "macro_precision",
    "macro_recall",
    "f1_of_macros",
    "macro_f1",
    "mcc",
)
RATES = {
    "M1": [0.783333, 0.928031, 0.768452, 0.785673, 0.776967, 0.770983, 0.708378],
    "M2": [0.900000, 0.823529, 0.963415, 0.672222, 0.791898, 0.760057, 0.657691],
    "M3": [0.500000, 0.666667, 0.166667, 0.333333, 0.222222, 0.222222, 0.0],
    "M4": [1, 1, 1, 1, 1, 1, 1],
    "M5": [0.666667, 0.555556, 0.333333, 0.222222, 0.266667, 0.266667, 0.0],
    "M6": [0, 0, 0, 0, 0, 0, -1],
}
NAMED = {
    "mcc": streaming.MCC,
    "macro_f1": streaming.MacroF1,
    "f1_of_macros": streaming.F1OfMacros,
    "macro_precision": streaming.MacroPrecision,
    "macro_recall": streaming.MacroRecall,
    "macro_specificity": streaming.MacroSpecificity,
}


def scores(predicted, classes):
    """Logits whose highest entry is the predicted class."""
    return (
        np.random.RandomState(0).uniform(-1, 1, (len(predicted), classes))
        + 5 * np.eye(classes)[predicted]
    )


@pytest.mark.parametrize("case", CASES)
def test_rates_of_the_oracle(case):
    labels, predicted, classes = CASES[case]
    metric = streaming.ConfusionMatrix(classes)
    metric.update_state(labels, scores(predicted, classes))
    np.testing.assert_array_equal(
        metric.result(), MATRICES.get(case, metrics.confusion(labels, predicted, classes))
    )
    rates = metric.rates()
    np.testing.assert_allclose([rates[name] for name in COLUMNS], RATES[case], atol=1e-6)


def test_scalars_within_a_graph_equal_the_rates():
    made = [NAMED[name](3) if name in NAMED else streaming.Rate(3, name) for name in COLUMNS]

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 3], tf.float64)]
    )
    def update(y, z):
        for metric in made:
            metric.update_state(y, z)
        return [metric.result() for metric in made]

    for case in ("M2", "M3", "M4", "M5"):
        labels, predicted, _ = CASES[case]
        np.testing.assert_allclose(update(labels, scores(predicted, 3)), RATES[case], atol=1e-6)
        for metric in made:
            metric.reset_state()
    assert [metric.name for metric in made] == list(COLUMNS)


@pytest.mark.parametrize("rate", sorted(set(metrics.MULTICLASS) - {"macro_auc"}))
def test_every_rate_equals_that_of_the_finished_table(rate):
    labels, predicted, classes = CASES["M2"]
    z = scores(predicted, classes)
    metric = streaming.Rate(classes, rate)
    metric.update_state(labels, z)
    table = pd.DataFrame({"label": labels, **{f"score_{k}": z[:, k] for k in range(classes)}})
    assert float(metric.result()) == pytest.approx(
        metrics.multiclass_metrics(table, absent="zero")[rate], abs=1e-12
    )
    assert metric.rates()[rate] == pytest.approx(float(metric.result()), abs=1e-12)


def test_batches_add_up_exactly_and_a_reset_forgets():
    labels, predicted, classes = CASES["M1"]
    z, metric = scores(predicted, classes), streaming.MCC(classes)
    for _ in range(2):
        metric.reset_state()
        for start in range(0, 60, 7):
            metric.update_state(labels[start : start + 7], z[start : start + 7])
        np.testing.assert_array_equal(metric.matrix, MATRICES["M1"])
    assert float(metric.result()) == pytest.approx(matthews_corrcoef(labels, predicted), abs=1e-12)


def test_counts_stay_exact_beyond_float32():
    metric = streaming.ConfusionMatrix(2)
    metric.matrix.assign([[2.0**24, 0], [0, 0]])
    metric.update_state([0], [[1.0, 0]])
    assert float(metric.result()[0, 0]) == 2**24 + 1


@pytest.mark.parametrize("form", ["int", "column", "float", "one_hot", "soft"])
def test_forms_of_labels_and_predictions(form):
    labels, predicted, classes = CASES["M1"]
    one_hot = np.eye(classes)[labels]
    forms = {
        "int": labels,
        "column": labels[:, None],
        "float": labels.astype("float32"),
        "one_hot": one_hot,
        "soft": 0.6 * one_hot + 0.1,
    }
    probabilities = np.exp(scores(predicted, classes))
    metric = streaming.ConfusionMatrix(classes)
    metric.update_state(
        forms[form], (probabilities / probabilities.sum(1, keepdims=True)).astype("float16")
    )
    np.testing.assert_array_equal(metric.result(), MATRICES["M1"])


def test_sample_weights_count_instead_of_one():
    metric = streaming.ConfusionMatrix(2)
    metric.update_state([0, 1, 1], [[1.0, 0], [1.0, 0], [0.0, 1]], sample_weight=[2.0, 0.5, 0.25])
    np.testing.assert_array_equal(metric.result(), [[2, 0], [0.5, 0.25]])


@pytest.mark.parametrize(
    ("labels", "predictions"),
    [([3], [[1.0, 0, 0]]), ([-1], [[1.0, 0, 0]]), ([0], [[1.0, np.nan, 0]])],
)
def test_what_cannot_be_counted_is_not_dropped(labels, predictions):
    scalar, matrix = streaming.MCC(3), streaming.ConfusionMatrix(3)
    for metric in (scalar, matrix):
        metric.update_state([0, 1, 2], np.eye(3))
        metric.update_state(labels, predictions)
    assert np.isnan(float(scalar.result()))
    with pytest.raises(streaming.BadBatch, match=r"0\.\.2"):
        matrix.rates()
    scalar.reset_state()
    scalar.update_state([0, 1, 2], np.eye(3))
    assert float(scalar.result()) == pytest.approx(1)


def test_shapes_and_names_are_checked():
    metric = streaming.ConfusionMatrix(3)
    for labels, predictions in (([0], [[1.0, 0]]), ([0], [1.0]), ([[0.0, 1]], [[1.0, 0, 0]])):
        with pytest.raises(streaming.BadBatch, match="3 classes"):
            metric.update_state(labels, predictions)
    with pytest.raises(streaming.BadBatch, match="at least 2"):
        streaming.MCC(1)
    for name in ("macro_auc", None):
        with pytest.raises(metrics.UnknownMetric):
            streaming.Rate(3, name)


def test_before_the_first_batch_the_mcc_is_zero():
    assert float(streaming.MCC(3).result()) == 0


def test_fit_logs_it_compiled_and_the_model_comes_back(tmp_path):
    keras.utils.set_random_seed(0)
    labels = np.random.RandomState(3).randint(0, 3, 50)
    x = scores(labels, 3).astype("float32")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        "adam",
        loss,
        metrics=[streaming.MCC(3), streaming.Rate(3, "macro_recall")],
        jit_compile=True,
    )
    logs = model.fit(
        x, labels, validation_data=(x, labels), batch_size=16, epochs=2, verbose=0
    ).history
    want = matthews_corrcoef(labels, model.predict(x, verbose=0).argmax(1))
    assert logs["val_mcc"][-1] == pytest.approx(want, abs=1e-6)
    assert set(logs) == {"loss", "mcc", "macro_recall", "val_loss", "val_mcc", "val_macro_recall"}
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.evaluate(x, labels, verbose=0, return_dict=True)["mcc"] == pytest.approx(
        want, abs=1e-6
    )
