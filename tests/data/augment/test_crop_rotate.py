import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import stats

from kit.data.augment import crop_rotate

STILL = crop_rotate.ThesisAugmentation(rotation=0, vertical_flip=0, horizontal_flip=0, brightness=0)
MIDDLE = np.array([[0.0, 0.0, 0.5, 0.9, 0.9, 0.5]], np.float32)  # no turn, no flips, brightness 1


def noise(count=4, side=31, seed=0, channels=3):
    return np.random.default_rng(seed).integers(
        0, 256, (count, side, side, channels), dtype=np.uint8
    )


def published(image, unit, size, resized, rotation=90):
    """The released chain, step by step with Pillow, on an image that has the resized side already:
    float (size, size, C).
    """
    top, left = (int(u * (resized - size + 1)) for u in unit[:2])
    crop = Image.fromarray(image[top : top + size, left : left + size])
    picture = crop.rotate(
        (2 * unit[2] - 1) * rotation, Image.Resampling.NEAREST, expand=False, fillcolor=0
    )
    if unit[3] < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if unit[4] < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.clip(np.asarray(picture, float) * (0.5 + unit[5]), 0, 255)


@pytest.mark.parametrize("size", [27, 28])
def test_the_fused_pixels_are_those_of_the_published_chain(size):
    images, units = noise(16), crop_rotate.draw(3, 1, 16).numpy()
    ours = crop_rotate.augment(images, units, size, 31, normalisation="none").numpy()
    for image, unit, mine in zip(images, units, ours, strict=False):
        differs = np.abs(mine - published(image, unit, size, 31)).max(-1) > 0.01
        assert differs.mean() < 0.005  # a source on the border of two pixels may round either way


def test_right_angles_are_exact_and_positive_angles_turn_left():
    image = noise(1, 9)
    for angle, turns in ((1.0, 1), (0.0, -1)):
        unit = MIDDLE.copy()
        unit[0, 2] = angle
        np.testing.assert_array_equal(
            crop_rotate.augment(image, unit, 9, 9, normalisation="none")[0],
            np.rot90(image[0], turns),
        )


def test_flips_crops_and_brightness():
    image = noise(1, 12)
    for column, axis in ((3, 0), (4, 1)):
        unit = MIDDLE.copy()
        unit[0, column] = 0.49
        np.testing.assert_array_equal(
            crop_rotate.augment(image, unit, 12, 12, normalisation="none")[0],
            np.flip(image[0], axis),
        )
    unit = MIDDLE.copy()
    unit[0, :2], unit[0, 5] = (0.99999994, 0.5), 1.0
    expected = np.clip(image[0, 2:, 1:11] * 1.5, 0, 255)
    np.testing.assert_array_equal(
        crop_rotate.augment(image, unit, 10, 12, normalisation="none")[0], expected
    )
    assert expected.max() == 255  # clipped somewhere
    unit[0, 5] = 0.0
    np.testing.assert_array_equal(
        crop_rotate.augment(image, unit, 10, 12, normalisation="none")[0], image[0, 2:, 1:11] * 0.5
    )


def test_the_corners_of_a_turned_image_are_black_before_normalisation():
    image = np.full((1, 16, 16, 3), 200, np.uint8)
    unit = MIDDLE.copy()
    unit[0, 2] = 0.75  # 45 degrees
    out = crop_rotate.augment(image, unit, 16, 16, normalisation="imagenet")[0].numpy()
    np.testing.assert_allclose(out[0, 0], -np.array(crop_rotate.MEAN) / crop_rotate.STD, rtol=1e-5)
    np.testing.assert_allclose(
        out[8, 8], (200 / 255 - np.array(crop_rotate.MEAN)) / crop_rotate.STD, rtol=1e-5
    )


@pytest.mark.parametrize(("side", "size"), [(60, 24), (24, 40), (60, 59)])
def test_evaluation_resizes_as_pillow_does(side, size):
    image = noise(2, side)
    expected = np.stack(
        [
            np.asarray(Image.fromarray(i).resize((size, size), Image.Resampling.BILINEAR))
            for i in image
        ]
    )
    np.testing.assert_allclose(
        crop_rotate.prepare(image, size, "none"), expected, atol=1.01
    )  # Pillow rounds after each axis
    np.testing.assert_allclose(
        crop_rotate.prepare(image, size), crop_rotate.prepare(image, size, "none") / 255, atol=1e-6
    )


def test_without_anything_to_draw_the_crop_is_the_resized_image():
    images = noise(3, 50)
    np.testing.assert_allclose(
        crop_rotate.augment(images, crop_rotate.draw(0, 0, 3), 32, 32, STILL),
        crop_rotate.prepare(images, 32),
        atol=1e-6,
    )


def test_resized_sides_of_the_thesis():
    assert [crop_rotate.resized_side(s) for s in (112, 224, 32, 64, 302)] == [124, 248, 35, 71, 334]
    assert int(crop_rotate.resized_side(tf.constant(112))) == 124


def test_draws_belong_to_seed_epoch_and_image():
    table = crop_rotate.draw(1, 2, 50).numpy()
    np.testing.assert_array_equal(table[:20], crop_rotate.draw(1, 2, 20))
    np.testing.assert_array_equal(
        table, tf.function(crop_rotate.draw)(tf.constant(1), tf.constant(2), tf.constant(50))
    )
    for other in ((1, 3), (2, 2), (2, 1)):
        assert not np.isclose(table, crop_rotate.draw(*other, 50)).any(0).all()
    images = noise(6)
    order = [4, 1, 5]
    whole = crop_rotate.augment(images, table[:6], 28)
    np.testing.assert_array_equal(
        crop_rotate.augment(images[order], table[order], 28), whole.numpy()[order]
    )


def test_draws_are_uniform_and_independent():
    table = crop_rotate.draw(7, 0, 4000).numpy()
    assert all(stats.kstest(column, "uniform").pvalue > 1e-3 for column in table.T)
    assert np.abs(np.corrcoef(table.T) - np.eye(6)).max() < 0.07
    rows, _, inside = crop_rotate.sources(table, 1, 13)
    assert np.bincount(np.ravel(rows), minlength=13).min() > 4000 / 13 * 0.75
    assert bool(tf.reduce_all(inside))


def test_sizes_are_tensors_and_trace_once():
    images, units, traces = noise(4, 40), crop_rotate.draw(0, 0, 4), itertools.count()

    @tf.function
    def both(size):
        next(traces)
        return crop_rotate.augment(
            images, units, size, normalisation="imagenet"
        ), crop_rotate.prepare(images, size)

    for size in (24, 28, 33):
        augmented, plain = both(tf.constant(size))
        np.testing.assert_allclose(
            augmented, crop_rotate.augment(images, units, size, normalisation="imagenet"), atol=2e-5
        )
        np.testing.assert_allclose(plain, crop_rotate.prepare(images, size), atol=1e-6)
    assert next(traces) == 1


def test_within_tf_data():
    data = (
        tf.data.Dataset.from_tensor_slices((noise(6), crop_rotate.draw(0, 0, 6)))
        .batch(3)
        .map(lambda x, u: crop_rotate.augment(x, u, 28))
    )
    np.testing.assert_array_equal(
        np.concatenate(list(data.as_numpy_iterator())),
        crop_rotate.augment(noise(6), crop_rotate.draw(0, 0, 6), 28),
    )


def test_one_channel_and_float_images():
    grey = noise(2, 31, channels=1)
    out = crop_rotate.augment(grey, crop_rotate.draw(0, 0, 2), 28)
    assert out.shape == (2, 28, 28, 1)
    np.testing.assert_array_equal(
        out, crop_rotate.augment(grey.astype(np.float32), crop_rotate.draw(0, 0, 2), 28)
    )


def test_bad_inputs_are_refused():
    images, units = noise(2), crop_rotate.draw(0, 0, 2)
    for wrong in (
        {"rotation": 181},
        {"brightness": -0.1},
        {"vertical_flip": True},
        {"horizontal_flip": "half"},
    ):
        with pytest.raises(crop_rotate.BadThesisAugmentation):
            crop_rotate.ThesisAugmentation(**wrong)
    with pytest.raises(crop_rotate.BadThesisAugmentation, match="normalisation"):
        crop_rotate.augment(images, units, 28, normalisation="zscore")
    with pytest.raises(crop_rotate.BadThesisAugmentation, match="does not fit"):
        crop_rotate.augment(images, units, 28, 20)
    with pytest.raises(crop_rotate.BadThesisAugmentation, match="no images"):
        crop_rotate.prepare(images[0], 28)
    with pytest.raises(crop_rotate.BadThesisAugmentation, match="no images"):
        crop_rotate.prepare(images.astype(np.int64), 28)
    with pytest.raises(crop_rotate.BadThesisAugmentation, match="ImageNet"):
        crop_rotate.prepare(noise(2, channels=4), 28, "imagenet")
