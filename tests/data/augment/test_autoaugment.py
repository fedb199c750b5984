import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from kit.data import batches
from kit.data import images as data_images
from kit.data.augment import affine, autoaugment
from kit.data.augment.autoaugment import AutoAugment
from kit.training import train

OPERATIONS = sorted({name for pair in autoaugment.SUB_POLICIES for name, _, _ in pair} | {"ShearX"})

PUBLISHED = """Invert .1 - / Contrast .2 6; Rotate .7 2 / TranslateX .3 9;
Sharpness .8 1 / Sharpness .9 3; ShearY .5 8 / TranslateY .7 9;
AutoContrast .5 - / Equalize .9 -; ShearY .2 7 / Posterize .3 7;
Color .4 3 / Brightness .6 7; Sharpness .3 9 / Brightness .7 9;
Equalize .6 - / Equalize .5 -; Contrast .6 7 / Sharpness .6 5;
Color .7 7 / TranslateX .5 8; Equalize .3 - / AutoContrast .4 -;
TranslateY .4 3 / Sharpness .2 6; Brightness .9 6 / Color .2 8;
Solarize .5 2 / Invert 0 -; Equalize .2 - / AutoContrast .6 -;
Equalize .2 - / Equalize .6 -; Color .9 9 / Equalize .6 -;
AutoContrast .8 - / Solarize .2 8; Brightness .1 3 / Color .7 0;
Solarize .4 5 / AutoContrast .9 -; TranslateY .9 9 / TranslateY .7 9;
AutoContrast .9 - / Solarize .8 3; Equalize .8 - / Invert .1 -;
TranslateY .7 9 / AutoContrast .9 -"""


def picture(channels=3, seed=0, size=33):
    """Noise in a part of the grey levels, each channel another, beside a flat part."""
    rng = np.random.default_rng(seed)
    image = np.stack(
        [rng.integers(20 + 15 * c, 190 - 20 * c, (size, size - 4)) for c in range(channels)],
        axis=-1,
    ).astype(np.uint8)
    image[:9] = 77
    return image


def by_pillow(image, operation, value, fill=0):
    """The definition of every operation in the published codes."""
    plain = Image.fromarray(image.squeeze())
    colour = (fill,) * image.shape[-1]
    width, height = plain.size
    shift = {
        "ShearX": (1, value, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, value, 1, 0),
        "TranslateX": (1, 0, -value, 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, -value),
    }
    known = {
        "Invert": lambda: ImageOps.invert(plain),
        "Posterize": lambda: ImageOps.posterize(plain, int(value)),
        "Solarize": lambda: ImageOps.solarize(plain, value),
        "AutoContrast": lambda: ImageOps.autocontrast(plain),
        "Equalize": lambda: ImageOps.equalize(plain),
        "Rotate": lambda: plain.rotate(value, fillcolor=colour),
    }
    if operation in shift:
        changed = plain.transform(
            (width, height), Image.Transform.AFFINE, shift[operation], fillcolor=colour
        )
    else:
        changed = (
            known[operation]()
            if operation in known
            else getattr(ImageEnhance, operation)(plain).enhance(value)
        )
    return np.asarray(changed).reshape(image.shape)


@pytest.mark.parametrize("encoding", autoaugment.ENCODINGS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations_are_pillows_to_the_last_bit(operation, channels, encoding):
    for level, seed in ((0, 0), (3, 1), (7, 2), (9, 3)):
        image = picture(channels, seed)
        for value in autoaugment.amount(operation, level, encoding, image.shape):
            assert np.array_equal(
                autoaugment.apply(image, operation, value, 9), by_pillow(image, operation, value, 9)
            ), (operation, value)


@pytest.mark.parametrize("operation", ["AutoContrast", "Equalize"])
def test_flat_full_and_nearly_flat_images_keep_to_pillow(operation):
    flat, full = np.full((8, 8, 3), 40, np.uint8), np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    nearly = flat.copy()
    nearly[0, 0] = 41, 200, 0
    for image in (flat, full, nearly, np.zeros((4, 4, 1), np.uint8), np.repeat(full, 3, axis=-1)):
        assert np.array_equal(autoaugment.apply(image, operation), by_pillow(image, operation, 0))


def test_the_policy_is_the_published_one():
    written = [
        [part.split() for part in pair.split("/")]
        for pair in PUBLISHED.replace("\n", " ").split(";")
    ]
    assert (
        tuple(
            tuple(
                (name, float(chance), None if level == "-" else int(level))
                for name, chance, level in pair
            )
            for pair in written
        )
        == autoaugment.SUB_POLICIES
    )
    assert len(written) == 25
    assert all(
        (level is None) == (name in autoaugment.LEVELLESS)
        for pair in autoaugment.SUB_POLICIES
        for name, _, level in pair
    )


@pytest.mark.parametrize(
    ("operation", "level", "torchvision", "google"),
    [
        ("Rotate", 2, (-20 / 3, 20 / 3), (-6, 6)),
        ("ShearY", 9, (-0.3, 0.3), (-0.27, 0.27)),
        ("TranslateX", 9, (-29, 29), (-18, 18)),
        ("TranslateY", 3, (-4, 4), (-3, 3)),
        ("Sharpness", 9, (0.1, 1.9), (1.72, 1.72)),
        ("Color", 0, (1, 1), (0.1, 0.1)),
        ("Posterize", 7, (5, 5), (2, 2)),
        ("Posterize", 9, (4, 4), (1, 1)),
        ("Solarize", 3, (170, 170), (180, 180)),
        ("Solarize", 9, (0, 0), (26, 26)),
        ("Equalize", None, (0, 0), (0, 0)),
    ],
)
def test_levels_mean_what_the_two_codes_say(operation, level, torchvision, google):
    shape = (32, 64, 3)  # a shift follows its own side
    assert autoaugment.amount(operation, level, "torchvision", shape) == pytest.approx(torchvision)
    assert autoaugment.amount(operation, level, "google", shape) == pytest.approx(google)


def test_a_row_is_the_same_in_any_batch_and_another_in_another_epoch():
    images, rows = (
        np.stack([picture(seed=s) for s in range(12)]),
        np.array([5, 1030, 7, 0, 2, 3, 4, 6, 8, 9, 10, 11]),
    )
    whole = autoaugment.batch(images, rows, 3, {"cutout": 16}, seed=4)
    parts = [
        autoaugment.batch(images[[i]], rows[[i]], 3, {"cutout": 16}, seed=4)[0] for i in range(12)
    ]
    assert np.array_equal(whole, parts)
    assert whole.dtype == np.uint8
    for other in (
        autoaugment.batch(images, rows, 2, {"cutout": 16}, 4),
        autoaugment.batch(images, rows, 3, {"cutout": 16}, 5),
    ):
        assert not np.array_equal(whole, other)
    assert autoaugment.batch(images[:0], [], 0).shape == (0, *images.shape[1:])


@pytest.mark.parametrize("encoding", autoaugment.ENCODINGS)
def test_a_batch_is_what_was_drawn(encoding):
    images = np.stack([picture(seed=s) for s in range(80)])
    drawn, out = (
        autoaugment.draw(1, 2, 80),
        autoaugment.batch(images, np.arange(80), 2, {"encoding": encoding}, seed=1),
    )
    for image, result, row in zip(images, out, drawn.itertuples(), strict=True):
        for (name, chance, level), value, positive in zip(
            autoaugment.SUB_POLICIES[row.policy],
            (row.chance_1, row.chance_2),
            (row.positive_1, row.positive_2),
            strict=False,
        ):
            if value < chance:
                image = by_pillow(
                    image,
                    name,
                    autoaugment.amount(name, level, encoding, image.shape)[int(positive)],
                )
        assert np.array_equal(image, result)


def test_draws_are_uniform():
    drawn = autoaugment.draw(0, 0, 20000)
    counts = np.bincount(drawn["policy"], minlength=25)
    assert len(counts) == 25
    assert ((counts - 800) ** 2 / 800).sum() < 51
    for name in ("chance_1", "chance_2", "positive_1", "positive_2", "row", "column"):
        assert drawn[name].mean() == pytest.approx(0.5, abs=0.015)
    assert (
        abs(
            drawn[["policy", "chance_1", "chance_2", "positive_1", "positive_2", "row", "column"]]
            .corr()
            .to_numpy()
            - np.eye(7)
        ).max()
        < 0.03
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_cutout_fills_a_square_that_grows_with_the_image(channels):
    for size, side in ((32, 16), (64, 32)):
        image, centres = np.full((1, size, size, channels), 255, np.uint8), []
        for row in range(200):
            out = image[0].copy()
            unit = autoaugment.draw(0, 0, row + 1).iloc[row]
            autoaugment._cut(out, unit["row"], unit["column"], AutoAugment(cutout=16, fill=3))
            hit = np.argwhere((out == 3).all(axis=-1))
            (top, left), (bottom, right) = hit.min(0), hit.max(0)
            assert len(hit) == (bottom - top + 1) * (right - left + 1)
            assert side // 2 <= bottom - top + 1 <= side
            assert (out[..., 0] != 255).sum() == len(hit)
            centres.append((int(unit["row"] * size), int(unit["column"] * size)))
            assert top == max(0, centres[-1][0] - side // 2)
            assert right == min(size, centres[-1][1] + side // 2) - 1
    assert len(set(centres)) > 150


def test_colour_enhancement_leaves_grey_alone():
    grey = np.repeat(picture(1), 3, axis=-1)
    assert np.array_equal(autoaugment.apply(grey, "Color", 1.9), grey)


def test_examples_and_table():
    images = np.stack([picture(seed=s) for s in range(3)])
    shown = autoaugment.examples(images, {}, seed=2, versions=4)
    assert shown.shape == (3, 4, *images.shape[1:])
    assert np.array_equal(shown[:, 2], autoaugment.batch(images, np.arange(3), 2, {}, 2))
    table = autoaugment.table("torchvision", 64)
    assert len(table) == 25
    assert table.loc[2, "second"] == "TranslateX -29 or 29 (0.3)"
    assert table.loc[1, "first"] == "Invert (0.1)"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoding": "keras"}, "encoding is 'keras'"),
        ({"fill": 256}, "fill is 256"),
        ({"fill": True}, "fill is True"),
        ({"cutout": -1}, "cutout is -1"),
        ({"cutout": "16"}, "cutout is '16'"),
        ({"cutout": float("nan")}, "cutout is nan"),
        ({"rotation": 3}, "no setting 'rotation'; choose among encoding, fill, cutout"),
        (7, "augmentation is 7"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(affine.BadAugmentation, match=message):
        AutoAugment.of(settings)


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((1, 8, 8, 3), np.float32),
        np.zeros((1, 8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
    ],
)
def test_only_grey_and_colour_images_are_taken(x):
    with pytest.raises(affine.BadAugmentation, match="give uint8 images of 1 or 3 channels"):
        autoaugment.batch(x, np.arange(len(x)), 0)


def test_the_stream_shows_the_plain_streams_images_augmented(discs):
    inputs, rows = data_images.load(discs, 24), np.array([40, 3, 17, 22, 50])
    plain = [
        np.concatenate(p)
        for p in zip(
            *((x.numpy(), y.numpy()) for x, y in batches.epochs(inputs, rows, 3, 7, 2).take(2)),
            strict=False,
        )
    ]
    changed = [
        np.concatenate(p)
        for p in zip(
            *(
                (x.numpy(), y.numpy())
                for x, y in batches.epochs(
                    inputs, rows, 3, 7, 2, {"cutout": 8}, "autoaugment"
                ).take(2)
            ),
            strict=False,
        )
    ]
    order = [
        next(r for r in rows if np.array_equal(np.rint(image * 255), inputs.x[r]))
        for image in plain[0]
    ]
    expected = autoaugment.batch(
        np.ascontiguousarray(inputs.x[order]), order, 2, {"cutout": 8}, seed=7
    )
    assert np.array_equal(plain[1], changed[1])
    assert np.array_equal(
        changed[0], np.multiply(expected, np.float32(inputs.scale), dtype=np.float32)
    )


def test_a_training_configuration_spells_the_settings_out():
    config = train.TrainConfig(
        "p", "smoke", "n", augmentation={"cutout": 16}, augmenter="autoaugment"
    )
    assert config.augmentation == {"encoding": "torchvision", "fill": 0, "cutout": 16}
    with pytest.raises(affine.BadAugmentation, match="autoaugment has no setting 'rotation'"):
        train.TrainConfig("p", "smoke", "n", augmentation={"rotation": 5}, augmenter="autoaugment")
