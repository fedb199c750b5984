import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from kit.data.augment import mixing

SEEDS = [(s, 3) for s in range(8)]


def batch(count=6, side=(10, 14), classes=4):
    """Images of one colour, their number; targets one-hot."""
    images = (
        np.ones((count, *side, 2), np.float32)
        * np.arange(1, count + 1, dtype=np.float32)[:, None, None, None]
    )
    return images, np.eye(classes, dtype=np.float32)[np.arange(count) % classes]


@pytest.mark.parametrize("seed", SEEDS)
def test_mixup_mixes_images_and_labels_alike(seed):
    images, targets = batch()
    mixed, labels = (v.numpy() for v in mixing.mix(images, targets, seed, "mixup"))
    own = labels[0, 0]
    assert 0 < own < 1
    np.testing.assert_allclose(mixed, own * images + (1 - own) * np.roll(images, 1, 0), rtol=1e-6)
    np.testing.assert_allclose(
        labels, own * targets + (1 - own) * np.roll(targets, 1, 0), atol=1e-6
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_cutmix_labels_count_the_pixels(seed):
    images, targets = batch()
    mixed, labels = (v.numpy() for v in mixing.mix(images, targets, seed, "cutmix"))
    foreign = mixed != images
    np.testing.assert_array_equal(mixed, np.where(foreign, np.roll(images, 1, 0), images))
    np.testing.assert_allclose(
        labels,
        (1 - foreign.mean((1, 2, 3)))[:, None] * targets
        + foreign.mean((1, 2, 3))[:, None] * np.roll(targets, 1, 0),
        atol=1e-6,
    )
    rows, columns = np.any(foreign[0], (1, 2)), np.any(foreign[0], (0, 2))
    assert foreign[0].all(-1).sum() == rows.sum() * columns.sum()  # a box
    for side in (rows, columns):
        assert np.abs(np.diff(np.r_[0, side, 0])).sum() in (0, 2)


def test_the_box_is_cut_off_at_the_border():
    mask, own = mixing.box(tf.constant(0.75), tf.constant(0.0), tf.constant(0.5), 8, 16)
    expected = np.ones((8, 16))
    expected[:2, 4:12] = 0  # half of 8 rows about row 0, half of 16 columns about column 8
    np.testing.assert_array_equal(mask, expected)
    assert own == expected.mean()
    assert mixing.box(tf.constant(1.0), tf.constant(0.3), tf.constant(0.3), 8, 8)[1] == 1


def test_shares_are_beta_distributed():
    @tf.function
    def shares(alpha):
        return tf.map_fn(
            lambda s: mixing.share(tf.stack([s, 11]), alpha),
            tf.range(1000),
            fn_output_signature=tf.float32,
        )

    for alpha in (1.0, 0.4):
        drawn = shares(alpha)
        assert stats.kstest(drawn, "beta", args=(alpha, alpha)).pvalue > 1e-3


def test_choice_takes_each_method_half_of_the_time():
    images, targets = batch(4, (6, 6))

    @tf.function
    def kinds(seeds):
        def one(seed):
            mixed = [
                mixing.mix(images, targets, seed, method)[0]
                for method in ("choice", "cutmix", "mixup")
            ]
            return tf.stack([tf.reduce_all(mixed[0] == m) for m in mixed[1:]])

        return tf.map_fn(one, seeds, fn_output_signature=tf.bool)

    found = kinds(tf.stack([tf.range(400), tf.ones(400, tf.int32)], 1)).numpy()
    assert found.any(1).all()
    assert 160 < found[:, 0].sum() < 240


def test_permutation_pairs_every_image_once():
    images, targets = batch(8, classes=8)
    partners = set()
    for seed in SEEDS:
        labels = mixing.mix(images, targets, seed, "mixup", pairing="permutation")[1].numpy()
        np.testing.assert_allclose(labels.sum(0), 1, atol=1e-5)
        np.testing.assert_allclose(labels.sum(1), 1, atol=1e-5)
        partners.add(tuple(np.argmax(labels - np.diag(np.diag(labels)), axis=1)))
    assert len(partners) > 4


def test_seeds_decide_and_nothing_retraces():
    images, targets, traces = *batch(), itertools.count()

    @tf.function
    def step(images, targets, seed):
        next(traces)
        return mixing.mix(images, targets, seed)

    results = [step(images, targets, tf.constant(seed))[1].numpy() for seed in SEEDS]
    assert next(traces) == 1
    assert len({r.tobytes() for r in results}) == len(SEEDS)
    for seed, result in zip(SEEDS, results, strict=False):
        np.testing.assert_allclose(mixing.mix(images, targets, seed)[1], result, atol=1e-6)


def test_off_soft_labels_and_dtypes():
    images, targets = batch()
    mixed, labels = mixing.mix(images.astype(np.uint8), targets, SEEDS[0], "off")
    np.testing.assert_array_equal(mixed, images)
    np.testing.assert_array_equal(labels, targets)
    soft = np.full((6, 4), 0.25, np.float32)
    np.testing.assert_allclose(mixing.mix(images.astype(np.uint8), soft, SEEDS[0])[1], soft)


def test_bad_settings_are_refused():
    images, targets = batch()
    for wrong in (
        {"method": "mosaic"},
        {"alpha": 0},
        {"alpha": True},
        {"pairing": "next"},
        {"seed": 3},
    ):
        with pytest.raises(mixing.BadMixing):
            mixing.mix(images, targets, **{"seed": (1, 2), **wrong})
    for pair in ((images[0], targets), (images, targets[:, 0]), (images, targets[1:])):
        with pytest.raises(mixing.BadMixing, match="cannot be mixed"):
            mixing.mix(*pair, (1, 2))
