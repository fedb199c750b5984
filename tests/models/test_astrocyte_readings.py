"""Readings of Algorithm 3: what each counts, when it decides and what it does to a kernel."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kit.models import astrocyte_readings as readings
from kit.models import astrocytes

SCALED = np.float32([0.5, 1.5, 1.0, 0.5])


def network():
    """One convolution of four filters: always on, always off below, silent, on."""
    conv = keras.layers.Conv2D(4, 3, padding="same", name="c")
    model = keras.Sequential([keras.layers.Input((6, 6, 2)), conv])
    kernel = np.random.default_rng(1).normal(size=(3, 3, 2, 4)).astype(np.float32) * 0.05
    conv.set_weights([kernel, np.float32([3, -3, 0.001, 3])])
    return model, conv, kernel


def batch(n=2):
    return np.random.default_rng(2).normal(size=(n, 6, 6, 2)).astype(np.float32) * 0.01


def after(reading, steps, decisions=2, threshold=0.5, factors=(0.5, 1.5), classes=10, tail=()):
    """Kernels after each of `steps` batches; then one an epoch's end if `tail`."""
    model, conv, kernel = network()
    unit = astrocytes.Astrocytes(
        model, decisions, threshold, layers=[conv], reading=reading, classes=classes
    )
    found = [kernel]
    for _ in range(steps):
        unit.after_step(unit.forward(batch())[1], *factors)
        found.append(np.array(conv.kernel))
    if tail:
        unit.end_epoch(*factors)
        found.append(np.array(conv.kernel))
    return unit, found


def test_every_reading_has_a_source_and_there_is_no_other():
    assert set(readings.READINGS) == set(readings.SOURCES)
    assert len(set(readings.READINGS.values())) == len(readings.READINGS)
    assert all(
        "Algorithm 3" in s or "section" in s or "Tables" in s or "model that" in s
        for s in readings.SOURCES.values()
    )
    with pytest.raises(astrocytes.BadAstrocytes, match="reading 'other'"):
        after("other", 1)
    with pytest.raises(astrocytes.BadAstrocytes, match="number of classes"):
        after("classes", 1, classes=None)


def test_activities_are_sum_mean_and_count():
    x = np.random.default_rng(0).normal(size=(5, 4, 3, 2)).astype(np.float32)
    x[..., 1][x[..., 1] < 0.3] = 0
    found = {
        a: np.asarray(readings.squash(readings.batch_sum(x, a), activity=a))
        for a in readings.ACTIVITIES
    }
    np.testing.assert_allclose(found["tanh"], np.tanh(x.sum(0)).max((0, 1)), rtol=1e-6)
    np.testing.assert_allclose(found["mean"], np.tanh(x.mean(0)).max((0, 1)), rtol=1e-6)
    np.testing.assert_array_equal(found["count"], (x != 0).sum((0, 1, 2)))


def test_the_literal_reading_scales_every_ng_batches():
    _, kernels = after("literal", 4)
    np.testing.assert_array_equal(kernels[1], kernels[0])
    np.testing.assert_allclose(kernels[2], kernels[0] * SCALED, rtol=1e-6)
    np.testing.assert_allclose(kernels[4], kernels[0] * SCALED**2, rtol=1e-6)


def test_a_count_never_acts_as_weak():
    unit, kernels = after("count", 2)
    np.testing.assert_allclose(kernels[2], kernels[0] * 0.5, rtol=1e-6)
    assert unit.state()["tally"].tolist() == [4, 0, 0]


def test_the_norm_of_the_layer_is_kept_and_the_proportions_are_not():
    _, kernels = after("norm", 2)
    assert np.linalg.norm(kernels[2]) == pytest.approx(np.linalg.norm(kernels[0]), rel=1e-6)
    ratio = kernels[2] / kernels[0]
    np.testing.assert_allclose(ratio[0, 0, 0] / ratio[0, 0, 0, 2], SCALED, rtol=1e-5)
    _, erased = after("norm", 2, factors=(0.0, 0.0))
    assert np.isfinite(erased[2]).all()


@pytest.mark.parametrize("factors", [(0.5, 1.5), (0.0, 1.0), (-0.25, 2.0)])
def test_undone_scaling_lasts_until_the_next_decision(factors):
    """Also from a factor of zero, which no division brings back."""
    model, conv, kernel = network()
    unit = astrocytes.Astrocytes(model, 2, 0.5, layers=[conv], reading="undone")
    for _ in range(2):
        unit.after_step(unit.forward(batch())[1], *factors)
    changed = np.array(conv.kernel)
    assert not np.allclose(changed, kernel)
    conv.kernel.assign_add(tf.ones_like(kernel) * 0.01)  # what the optimizer learns stays
    for _ in range(2):
        unit.after_step(unit.forward(batch())[1], 1.0, 1.0)
    np.testing.assert_allclose(conv.kernel, kernel + 0.01, atol=1e-6)
    other = astrocytes.Astrocytes(model, 2, 0.5, layers=[conv], reading="undone")
    for _ in range(2):
        unit.after_step(unit.forward(batch())[1], *factors)
    other.restore(unit.state())
    assert all(np.array_equal(a, other.state()[k]) for k, a in unit.state().items())
    unit.reset()
    assert not any(np.any(a) for a in unit.state().values())


def test_one_decision_an_epoch():
    unit, kernels = after("epoch", 5, tail=True)
    assert all(np.array_equal(k, kernels[0]) for k in kernels[:6])
    np.testing.assert_allclose(kernels[6], kernels[0] * SCALED, rtol=1e-6)
    assert unit.state()["tick"] == 0
    _, literal = after("literal", 1, tail=True)
    np.testing.assert_array_equal(literal[2], literal[0])  # only this reading decides there


@pytest.mark.parametrize(("classes", "tally"), [(10, 4 * 6), (3, 0)])
def test_k_as_the_number_of_classes_never_scales(classes, tally):
    """With at least NG classes every batch decides, on counters that cannot pass 2; with fewer
    none does.
    """
    unit, kernels = after("classes", 6, decisions=4, threshold=2.0, classes=classes)
    assert all(np.array_equal(k, kernels[0]) for k in kernels)
    assert unit.state()["tally"].tolist() == [0, 0, tally]


@pytest.mark.parametrize("reading", readings.READINGS)
def test_factors_of_one_leave_every_bit(reading):
    _, kernels = after(reading, 6, factors=(1.0, 1.0), tail=True)
    assert all(k.tobytes() == kernels[0].tobytes() for k in kernels)


def test_decisions_that_fall_on_the_end_of_an_epoch_are_told():
    assert readings.decisions_at_epoch_ends(20, 4, 3) == [1, 2, 3]
    assert readings.decisions_at_epoch_ends(176, 4, 2) == [1, 2]
    assert readings.decisions_at_epoch_ends(18, 4, 5) == [2, 4]
    assert readings.decisions_at_epoch_ends(19, 4, 3) == []


def test_fit_decides_once_an_epoch_through_the_schedule():
    model, conv, _ = network()
    x, y = batch(8), np.zeros((8, 6, 6, 4), np.float32)
    wrapped = astrocytes.astrocyte_model(
        model, layers=[conv], decisions=1, threshold=0.5, reading="epoch"
    )
    wrapped.compile(keras.optimizers.SGD(0.0), "mse")
    before = np.array(conv.kernel)
    wrapped.fit(
        x,
        y,
        batch_size=2,
        epochs=1,
        verbose=0,
        callbacks=[astrocytes.AstrocyteSchedule([(0.5, 1.5)])],
    )
    np.testing.assert_allclose(conv.kernel, before * SCALED, rtol=1e-6)
