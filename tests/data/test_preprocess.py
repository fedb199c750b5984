"""The CAD framework's chain: cases A to G, known from the authors' code, on drawn images, and
its boxes and colours on four real files.
"""

import hashlib
import io
import zipfile

import cv2
import numpy as np
import pytest
from conftest import shared_data
from PIL import Image

from kit import paths
from kit.data import imageio, preprocess

REAL = {  # file: box at 224 px, box at 512 px (bicubic), mean BGR, pixel [100, 100]
    "Training/meningioma/Tr-me_0476.jpg": (
        (20, 221, 34, 200),
        (44, 507, 78, 458),
        (76.15, 57.99, 56.36),
        (106, 77, 77),
    ),
    "Testing/glioma/Te-gl_0010.jpg": (
        (43, 200, 39, 190),
        (60, 459, 86, 443),
        (65.25, 49.04, 48.01),
        (71, 52, 52),
    ),
    "Testing/pituitary/Te-pi_0294.jpg": (
        (16, 223, 14, 209),
        (37, 511, 32, 480),
        (81.19, 62.12, 60.33),
        (101, 73, 73),
    ),
    "Testing/notumor/Te-no_0045.jpg": (
        (30, 214, 21, 194),
        (70, 490, 48, 444),
        (85.29, 65.21, 63.63),
        (112, 81, 81),
    ),
}


@pytest.fixture
def dot():
    """Only a white dot of radius 1 on black, which the opening removes."""
    return cv2.circle(np.zeros((260, 300, 3), np.uint8), (20, 20), 1, (255, 255, 255), -1)


@pytest.fixture
def head(dot):
    """A grey ellipse with the dot and a smaller, brighter rectangle beside it."""
    image = cv2.ellipse(dot, (150, 130), (80, 60), 0, 0, 360, (120, 120, 120), -1)
    return cv2.rectangle(image, (250, 200), (270, 215), (200, 200, 200), -1)


def block(value: int, rows=slice(20, 80), columns=slice(30, 70), shape=(100, 100, 3)) -> np.ndarray:
    image = np.zeros(shape, np.uint8)
    image[rows, columns] = value
    return image


def test_a_the_head_is_cropped_and_coloured(head):
    assert preprocess.crop_box(head) == (70, 190, 70, 230)
    assert preprocess.crop(head, preprocess.crop_box(head)).shape == (120, 160, 3)
    made = preprocess.cad(head, jpeg_round_trip=False)
    assert made.image.shape == (200, 200, 3)
    assert made.image.dtype == np.uint8
    assert made.box == (70, 190, 70, 230)
    assert (made.kept, made.note) == (False, "")
    assert made.image[100, 100].tolist() == [137, 113, 105]
    assert made.image[0, 0].tolist() == [
        0,
        0,
        0,
    ]
    np.testing.assert_allclose(made.image.mean((0, 1)), [108.890, 89.644, 83.384], atol=0.0006)


def test_b_without_an_outline_faithful_stops_and_safe_keeps_the_image(dot):
    assert preprocess.crop_box(dot) is None
    assert preprocess.outline(preprocess.head_mask(dot)) is None
    with pytest.raises(preprocess.NoHead, match="brighter than 45; use mode='safe'"):
        preprocess.cad(dot)
    made = preprocess.cad(dot, mode="safe", jpeg_round_trip=False)
    whole = preprocess.resize(
        preprocess.bone(preprocess.denoise(preprocess.resize(dot, 256)[..., 0])), 200
    )
    assert made.kept
    assert made.box is None
    assert made.note.endswith("the whole image is kept")
    assert np.array_equal(made.image, whole)


@pytest.mark.parametrize(
    ("value", "box"), [(45, None), (46, (21, 78, 31, 68)), (200, (19, 80, 29, 70))]
)
def test_c_the_threshold_is_strict_and_follows_the_blur(value, box):
    assert preprocess.crop_box(block(value)) == box


def test_c_d_the_last_row_and_column_are_lost():
    assert preprocess.crop(block(200), preprocess.crop_box(block(200))).shape == (61, 41, 3)
    white = np.full((64, 64, 3), 255, np.uint8)
    assert preprocess.crop_box(white) == (0, 63, 0, 63)
    assert preprocess.crop_box(white).area == 63 * 63


def test_e_the_filter_is_a_cross_of_five_pixels():
    noise = np.random.default_rng(0).integers(0, 256, (64, 48), dtype=np.uint8)
    assert np.array_equal(preprocess.denoise(noise), cv2.bilateralFilter(noise, 3, 50, 50))
    impulse = np.zeros((9, 9), np.uint8)
    impulse[4, 4] = 60
    assert set(zip(*np.nonzero(preprocess.denoise(impulse)), strict=False)) == {
        (4, 4),
        (3, 4),
        (5, 4),
        (4, 3),
        (4, 5),
    }


def test_f_the_colours_are_bone_in_bgr():
    table = preprocess.bone(np.arange(256, dtype=np.uint8)[:, None]).reshape(256, 3)
    assert hashlib.md5(table.tobytes()).hexdigest() == "0897415451a510655bdedb8fe5804b9f"
    assert table.astype(int).sum(axis=0).tolist() == [35180, 32133, 29593]
    assert table[[0, 32, 128, 224, 255]].tolist() == [
        [0, 0, 0],
        [39, 28, 28],
        [144, 123, 112],
        [228, 228, 212],
        [255, 255, 255],
    ]


@pytest.mark.parametrize("size", [200, 331])
def test_g_blue_is_never_darker_than_green_nor_green_than_red(size):
    image = np.random.default_rng(1).integers(0, 256, (90, 70), dtype=np.uint8)
    made = preprocess.cad(image, size).image.astype(int)
    assert made.shape == (size, size, 3)
    assert (made[..., 0] >= made[..., 1]).all()
    assert (made[..., 1] >= made[..., 2]).all()


def test_the_extreme_points_lie_on_the_box(head):
    points = preprocess.extreme_points(preprocess.outline(preprocess.head_mask(head)))
    assert (
        points["top"][1],
        points["bottom"][1],
        points["left"][0],
        points["right"][0],
    ) == preprocess.crop_box(head)


def test_a_file_its_bytes_and_its_pixels_give_the_same(head, tmp_path):
    file, buffer = tmp_path / "head.png", io.BytesIO()
    head[100:140, 120:180] = (150, 90, 60)  # blue, green, red
    Image.fromarray(head[..., ::-1]).save(file)
    Image.fromarray(head[..., ::-1]).save(buffer, "PNG")
    made = [preprocess.cad(source) for source in (file, str(file), buffer.getvalue(), head)]
    assert all(
        np.array_equal(made[0].image, other.image) and made[0].box == other.box for other in made
    )
    grey = head[..., 1].copy()
    assert np.array_equal(preprocess.cad(grey).image, preprocess.cad(np.dstack([grey] * 3)).image)


def test_grey_is_made_with_red_and_blue_exchanged():
    blue, red = block(0), block(0)
    blue[20:80, 30:70, 0], red[20:80, 30:70, 2] = (
        200,
        200,
    )  # 0.299 x 200 = 60 is above the threshold, 0.114 x 200 = 23 is not
    assert preprocess.crop_box(blue) is not None
    assert preprocess.crop_box(red) is None


@pytest.mark.parametrize("mode", preprocess.MODES)
def test_a_small_crop_is_used_faithfully_and_refused_safely(mode):
    image = block(200, slice(10, 30), slice(10, 30))
    made = preprocess.cad(image, mode=mode)
    assert made.note.startswith("the crop is 4.4 % of the image")
    assert made.kept == (mode == "safe")
    assert (made.box is None) == made.kept
    assert (made.image[-1, -1] == 0).all() == made.kept


def test_an_empty_crop_is_no_crop():
    assert preprocess.crop_box(np.full((1, 40, 3), 255, np.uint8)) is None


def test_the_jpeg_round_trip_changes_little_but_something():
    image = np.random.default_rng(2).normal(120, 4, (256, 256)).clip(60, 200).astype(np.uint8)
    with_it, without = (
        preprocess.cad(image, jpeg_round_trip=on).image.astype(int) for on in (True, False)
    )
    assert 0 < np.abs(with_it - without).mean() < 3


def test_small_images_are_enlarged_before_the_crop_and_large_ones_left(head):
    made = preprocess.cad(head, upsample=600)
    assert np.abs(np.array(made.box) - 2 * np.array((70, 190, 70, 230))).max() <= 2
    assert preprocess.enlarge(head, 300) is head
    assert preprocess.enlarge(head, 600).shape == (
        520,
        600,
        3,
    )
    assert np.array_equal(preprocess.cad(head, upsample=300).image, preprocess.cad(head).image)


def test_uncropped_only_resizes(head):
    assert np.array_equal(preprocess.uncropped(head, 130), cv2.resize(head, (130, 130)))
    coloured = preprocess.uncropped(head, 130, coloured=True)
    assert np.array_equal(coloured, preprocess.bone(cv2.resize(head, (130, 130))[..., 0]))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8), np.uint16),
        np.zeros((0, 8), np.uint8),
        np.zeros((2, 8, 8, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(array):
    with pytest.raises(preprocess.UnfitImage, match="it needs uint8"):
        preprocess.cad(array, mode="safe")


def test_unknown_modes_and_unreadable_files_are_refused(head, tmp_path):
    with pytest.raises(preprocess.UnknownMode, match="faithful, safe"):
        preprocess.cad(head, mode="fast")
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(imageio.NotAnImage, match=r"text\.jpg"):
        preprocess.cad(tmp_path / "text.jpg")


@pytest.fixture(scope="module")
def archive():
    file = (shared_data() or paths.ROOT) / "brain-tumor-mri-dataset-224px.zip"
    if not file.exists():
        pytest.skip("the 224 px copy of the 7,023-image set is not beside the checkout")
    with zipfile.ZipFile(file) as opened:
        yield opened


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_boxes_and_colours_of_real_files(archive, name):
    content = archive.read(name)
    native, enlarged, mean, centre = REAL[name]
    made = preprocess.cad(content)
    assert np.abs(np.subtract(made.box, native)).max() <= 1
    np.testing.assert_allclose(made.image.mean((0, 1)), mean, atol=0.5)
    np.testing.assert_allclose(made.image[100, 100].astype(int), centre, atol=3)
    large = preprocess.enlarge(preprocess.read(content), 512, cv2.INTER_CUBIC)
    assert np.abs(np.subtract(preprocess.crop_box(large), enlarged)).max() <= 1
    assert np.abs(np.subtract(preprocess.cad(content, upsample=512).box, enlarged)).max() <= 1
    difference = np.abs(
        made.image.astype(int) - preprocess.cad(content, jpeg_round_trip=False).image
    )
    assert 0.20 < difference.mean() < 0.25


@pytest.mark.real
def test_real_files_are_read_as_opencv_reads_them(archive):
    names = [n for n in archive.namelist() if n.endswith(".jpg")][::70]
    for name in names:
        content = archive.read(name)
        assert np.array_equal(
            preprocess.read(content),
            cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR),
        ), name
        preprocess.cad(content)
    assert len(names) > 95
