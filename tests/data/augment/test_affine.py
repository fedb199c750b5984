import numpy as np
import pandas as pd
import pytest
from scipy import ndimage, stats

from kit.benchmarks import augmentation
from kit.data import batches as batches_module
from kit.data import images as data_images
from kit.data.augment import affine

PAPER = affine.Augmentation()
ORACLE = {
    0: (0.97627, 4.30379, 2.05527, False),
    1: (-1.65956, 4.40649, -9.99771, True),
    2: (-1.28016, -9.48148, 0.99325, True),
}


@pytest.fixture(scope="module")
def generator():
    return affine.keras_generator(PAPER)


def drawn_by_keras(generator, seed, shape):
    p = generator.get_random_transform(shape, seed=seed)
    return pd.DataFrame(
        [
            {
                "theta": p["theta"],
                "row_shift": p["ty"],
                "column_shift": p["tx"],
                "flip": bool(p["flip_horizontal"]),
            }
        ]
    )


def pictures(shape, seed=0):
    """Noise, the hardest case for interpolation, and a smooth picture."""
    noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return [noise, ndimage.gaussian_filter(noise.astype(float), (3, 3, 0)).astype(np.uint8)]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_generator_draws_what_the_oracle_says(generator, seed):
    drawn = drawn_by_keras(generator, seed, (200, 200, 3)).iloc[0]
    np.testing.assert_allclose(
        drawn[["theta", "column_shift", "row_shift"]].astype(float), ORACLE[seed][:3], atol=1e-4
    )  # printed with 5 decimals
    assert drawn["flip"] == ORACLE[seed][3]
    assert generator.mean is None
    assert generator.fill_mode == "nearest"


@pytest.mark.parametrize("shape", [(200, 200, 3), (61, 61, 1)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fused_pixels_are_the_generators_border_included(generator, shape, seed):
    parameters = drawn_by_keras(generator, seed, shape)
    for picture in pictures(shape):
        published = generator.apply_transform(
            picture.astype(np.float32) / 255, affine.keras_parameters(parameters.iloc[0])
        )
        ours = affine.warp(picture[None], affine.matrices(parameters, shape), 1 / 255)[0]
        assert ours.dtype == np.float32
        assert np.abs(ours - published).max() < 0.02 / 255


def test_large_angles_and_shifts_agree_too(generator):
    parameters = pd.DataFrame(
        {
            "theta": [77.0, 0.0],
            "row_shift": [-20.0, 0.0],
            "column_shift": [13.5, 0.0],
            "flip": [True, False],
        }
    )
    picture = pictures((50, 50, 3))[0]
    ours = affine.warp(np.stack([picture, picture]), affine.matrices(parameters, picture.shape))
    published = generator.apply_transform(
        picture.astype(np.float32), affine.keras_parameters(parameters.iloc[0])
    )
    assert np.abs(ours[0] - published).max() < 0.02
    assert np.array_equal(ours[1], picture)


def test_parameters_have_the_published_distribution(generator):
    drawn = affine.draw(PAPER, 0, 0, 4000, (200, 200, 3))
    np.random.seed(0)  # noqa: NPY002 - Keras' generator draws from NumPy's global state
    keras = pd.concat([drawn_by_keras(generator, None, (200, 200, 3)) for _ in range(2000)])
    for name, limit in (("theta", 10), ("row_shift", 10), ("column_shift", 10)):
        assert stats.kstest(drawn[name], "uniform", (-limit, 2 * limit)).pvalue > 0.01
        assert stats.ks_2samp(drawn[name], keras[name]).pvalue > 0.01
        assert drawn[name].abs().max() <= limit
    assert stats.binomtest(int(drawn["flip"].sum()), 4000).pvalue > 0.01
    assert abs(drawn.astype(float).corr().to_numpy() - np.eye(4)).max() < 0.06


def test_what_is_drawn_depends_on_seed_epoch_and_image_only():
    first = affine.draw(PAPER, 3, 5, 10, (20, 20))
    assert first.equals(affine.draw(PAPER, 3, 5, 40, (20, 20)).head(10))
    assert not np.isclose(first["theta"], affine.draw(PAPER, 3, 6, 10, (20, 20))["theta"]).any()
    assert not np.isclose(first["theta"], affine.draw(PAPER, 4, 5, 10, (20, 20))["theta"]).any()


@pytest.mark.parametrize(
    ("settings", "axis"), [({"width_shift": 0.2}, 1), ({"height_shift": 0.2}, 0)]
)
def test_both_augmenters_shift_along_the_axis_that_the_setting_names(settings, axis):
    one_way = affine.Augmentation(
        **{"rotation": 0, "width_shift": 0, "height_shift": 0, "horizontal_flip": False, **settings}
    )
    stripes = np.repeat(np.arange(0, 240, 4, dtype=np.uint8)[:, None], 60, axis=1)[..., None]
    along, across = (
        (stripes, stripes.swapaxes(0, 1)) if axis == 0 else (stripes.swapaxes(0, 1), stripes)
    )
    pair = np.stack([along, across])
    published, _ = next(affine.generator_batches(pair, np.array([0, 1]), 1.0, 2, one_way, 0))
    for moved in (published, affine.examples(pair, one_way, 1)[:, 0]):
        same = [np.abs(image - across.astype(np.float32)).max() < 1e-3 for image in moved]
        assert sum(same) == 1
        assert not any(np.abs(image - along.astype(np.float32)).max() < 1e-3 for image in moved)


def test_nothing_asked_for_changes_nothing():
    still = affine.Augmentation(0, 0, 0, False)
    picture = pictures((30, 30, 3))[0]
    assert np.array_equal(affine.examples(picture[None], still)[0, 0], picture)


def test_examples_are_versions_that_differ_and_keep_the_grey_levels():
    images = np.stack(pictures((48, 48, 3)))
    versions = affine.examples(images, PAPER, seed=1, versions=3)
    assert versions.shape == (2, 3, 48, 48, 3)
    assert versions.dtype == np.uint8
    assert not np.array_equal(versions[1, 0], versions[1, 1])
    assert np.array_equal(versions, affine.examples(images, PAPER, seed=1, versions=3))
    assert abs(versions[1].mean() - images[1].mean()) < 3


@pytest.mark.parametrize(
    "settings",
    [
        {"rotation": -1},
        {"rotation": 181},
        {"rotation": float("nan")},
        {"rotation": "10"},
        {"rotation": True},
        {"width_shift": 1},
        {"height_shift": 1.0},
        {"height_shift": -0.1},
        {"width_shift": None},
        {"horizontal_flip": 1},
        {"horizontal_flip": "false"},
    ],
)
def test_bad_settings_are_named(settings):
    with pytest.raises(affine.BadAugmentation, match=f"{next(iter(settings))} is"):
        affine.Augmentation.of(settings)


def test_unknown_settings_are_named():
    with pytest.raises(affine.BadAugmentation, match="no setting 'zoom'; choose among rotation"):
        affine.Augmentation.of({"zoom": 0.1})
    with pytest.raises(affine.BadAugmentation, match="give a dictionary"):
        affine.Augmentation.of(True)


def test_features_cannot_be_augmented():
    with pytest.raises(affine.BadAugmentation, match="float16"):
        affine.check_images(np.zeros((2, 7, 7, 64), np.float16))


@pytest.fixture(scope="module")
def inputs(discs):
    return data_images.load(discs, 24)


@pytest.mark.parametrize("augmenter", batches_module.AUGMENTERS)
def test_a_stream_started_later_goes_on_exactly(inputs, augmenter):
    rows = np.arange(5, 31)

    def batches(first, count):
        return [
            (x.numpy(), y.numpy())
            for x, y in batches_module.epochs(inputs, rows, 8, 7, first, {}, augmenter).take(count)
        ]

    both, second = batches(0, 8), batches(1, 4)
    assert [len(y) for _, y in both] == [8, 8, 8, 2] * 2
    assert both[0][0].dtype == np.float32
    for (x, y), (u, v) in zip(both[4:], second, strict=True):
        assert np.array_equal(x, u)
        assert np.array_equal(y, v)
    assert not np.array_equal(both[0][0], both[4][0])


def test_the_fused_stream_shows_the_plain_streams_images_warped_by_what_was_drawn(inputs):
    rows = np.array([40, 3, 17, 22])
    plain = [
        np.concatenate(p)
        for p in zip(
            *(
                (x.numpy(), y.numpy())
                for x, y in batches_module.epochs(inputs, rows, 3, 7, 2).take(2)
            ),
            strict=False,
        )
    ]
    fused = [
        np.concatenate(p)
        for p in zip(
            *(
                (x.numpy(), y.numpy())
                for x, y in batches_module.epochs(inputs, rows, 3, 7, 2, PAPER).take(2)
            ),
            strict=False,
        )
    ]
    assert np.array_equal(plain[1], fused[1])
    drawn = affine.draw(PAPER, 7, 2, 60, inputs.x.shape[1:])
    for before, after in zip(plain[0], fused[0], strict=False):
        row = next(r for r in rows if np.array_equal(np.rint(before * 255), inputs.x[r]))
        expected = affine.warp(
            inputs.x[[row]], affine.matrices(drawn.iloc[[row]], inputs.x.shape[1:]), inputs.scale
        )[0]
        assert np.array_equal(after, expected)
        assert not np.allclose(after, before, atol=0.02)


def test_the_generators_stream_shows_every_image_with_its_label(inputs):
    rows, still = (
        np.arange(20, 40),
        {"rotation": 0, "width_shift": 0, "height_shift": 0, "horizontal_flip": False},
    )
    x, y = (
        np.concatenate(p)
        for p in zip(
            *(
                (a.numpy(), b.numpy())
                for a, b in batches_module.epochs(
                    inputs, rows, 8, 7, 0, still, "keras_generator"
                ).take(3)
            ),
            strict=False,
        )
    )
    order = [
        next(r for r in rows if np.array_equal(np.rint(image * 255), inputs.x[r])) for image in x
    ]
    assert sorted(order) == list(rows)
    assert order != list(rows)
    assert np.array_equal(y[:, 0], inputs.labels[order])


def test_the_fused_warp_is_several_times_faster():
    table = augmentation.affine(size=200, images=64, rounds=2)
    assert list(table.index) == ["keras_generator", "fused"]
    assert table.loc["keras_generator", "ratio"] == 1
    assert table.loc["fused", "ratio"] > 3  # 13 on an idle machine; loaded ones must not fail
