"""kit.data.imageio: every kind of bad file gets its own sentence, every convertible one its defined
pixels.
"""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from kit.data import imageio

RNG = np.random.default_rng(5)
COLOUR = Image.fromarray(RNG.integers(0, 256, (40, 30, 3), dtype=np.uint8))
GREY = COLOUR.convert("L")


def encode(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunk(kind, content):
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png_of_size(width, height):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


JPEG, PNG = encode(COLOUR, "JPEG", quality=90), encode(COLOUR, "PNG")
FLIPPED = bytes(byte ^ 4 if i == len(PNG) // 2 else byte for i, byte in enumerate(PNG))
REFUSED = {
    "empty": (b"", imageio.EmptyImage, "0 bytes"),
    "page": (b"<html>404</html>", imageio.NotAnImage, "no image"),
    "postscript": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        imageio.NotAnImage,
        "no image",
    ),
    "jpeg cut in the header": (JPEG[:15], imageio.DamagedImage, "truncated"),
    "jpeg cut in half": (JPEG[: len(JPEG) // 2], imageio.DamagedImage, "truncated"),
    "png cut in half": (PNG[: len(PNG) // 2], imageio.DamagedImage, "truncated"),
    "png with one flipped bit": (FLIPPED, imageio.DamagedImage, "damaged"),
    "gif animation": (
        encode(
            COLOUR.convert("P"),
            "GIF",
            save_all=True,
            append_images=[COLOUR.rotate(90).convert("P")],
        ),
        imageio.AnimatedImage,
        "2 pictures",
    ),
    "png animation": (
        encode(COLOUR, "PNG", save_all=True, append_images=[COLOUR.rotate(90)]),
        imageio.AnimatedImage,
        "2 pictures",
    ),
    "two-page tiff": (
        encode(COLOUR, "TIFF", save_all=True, append_images=[COLOUR]),
        imageio.AnimatedImage,
        "2 pictures",
    ),
    "bomb": (png_of_size(60000, 60000), imageio.ImageTooLarge, "million"),
    "large": (png_of_size(9000, 9000), imageio.ImageTooLarge, "9000 x 9000"),
    "float": (
        encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"),
        imageio.UnsupportedImage,
        "floating",
    ),
    "int32": (
        encode(Image.fromarray(np.full((4, 4), 1 << 20, np.int32)), "TIFF"),
        imageio.UnsupportedImage,
        "32-bit",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_files_get_one_sentence_each(case, tmp_path):
    content, kind, words = REFUSED[case]
    (tmp_path / "x.jpg").write_bytes(content)
    for source in (content, tmp_path / "x.jpg"):
        with pytest.raises(kind, match=words) as caught:
            imageio.read_image(source)
        assert str(caught.value).count("\n") == 0
        assert len(str(caught.value)) < 400
    with pytest.raises(kind):
        imageio.inspect(tmp_path / "x.jpg")
    assert "x.jpg" in str(imageio.inspect_all([tmp_path / "x.jpg"])[1][tmp_path / "x.jpg"])


def test_shapes_and_plain_conversions():
    assert imageio.read_image(PNG, 3).tolist() == np.asarray(COLOUR).tolist()
    assert imageio.read_image(PNG, 1).tolist() == np.asarray(GREY).tolist()
    grey = imageio.read_image(encode(GREY, "PNG"), 3)
    assert grey.dtype == np.uint8
    assert grey.shape == (40, 30, 3)
    assert (grey == np.asarray(GREY)[..., None]).all()
    with pytest.raises(ValueError, match="must be 1 or 3"):
        imageio.read_image(PNG, 4)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_by_their_full_range(kind):
    values = np.array([[0, 257, 32896], [65535, 128, 129]], np.uint16)
    assert imageio.read_image(encode(Image.fromarray(values), kind), 1).tolist() == [
        [0, 1, 128],
        [255, 0, 1],
    ]


def test_transparency_is_composited_on_black():
    pixels = np.full((2, 2, 4), 200, np.uint8)
    pixels[0, :, 3] = (0, 255)
    pixels[1, :, 3] = 51
    for kind in ("PNG", "WEBP"):
        result = imageio.read_image(encode(Image.fromarray(pixels), kind, lossless=True), 3)[..., 0]
        assert result.tolist() == [[0, 200], [40, 40]]
    keyed = encode(Image.fromarray(np.array([[7, 90]], np.uint8)), "PNG", transparency=7)
    assert imageio.read_image(keyed, 1).tolist() == [[0, 90]]


def test_cmyk_and_palette_are_converted():
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = imageio.read_image(encode(cmyk, "TIFF"), 3)
    assert red[0, 0].tolist() == [255, 0, 0]
    palette = imageio.read_image(encode(COLOUR.convert("P"), "PNG"), 3)
    assert palette.tolist() == np.asarray(COLOUR.convert("P").convert("RGB")).tolist()


def test_orientation_is_ignored_and_noted(tmp_path):
    exif = Image.Exif()
    exif[imageio.ORIENTATION] = 6
    (tmp_path / "turned.jpg").write_bytes(encode(COLOUR, "JPEG", exif=exif))
    assert imageio.read_image(tmp_path / "turned.jpg").shape == (40, 30, 3)
    assert imageio.inspect(tmp_path / "turned.jpg").notes == ("EXIF orientation ignored",)


def test_content_decides_and_the_wrong_suffix_is_noted(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encode(COLOUR.convert("RGBA"), "PNG"))
    facts = imageio.inspect(tmp_path / "a.jpg")
    assert set(facts.notes) == {"transparency", "named .jpg but PNG"}
    assert (
        facts.width,
        facts.height,
    ) == (30, 40)
    assert imageio.read_image(tmp_path / "a.jpg").shape == (40, 30, 3)


def test_inspect_all_keeps_the_order_and_goes_on_after_bad_files(tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(20)]
    for number, path in enumerate(files):
        path.write_bytes(b"" if number == 7 else encode(GREY.crop((0, 0, 5 + number, 5)), "PNG"))
    facts, bad = imageio.inspect_all(files)
    assert list(bad) == [files[7]]
    assert facts[7] is None
    assert [fact.width for fact in facts if fact] == [5 + i for i in range(20) if i != 7]


def test_missing_file_is_named(tmp_path):
    with pytest.raises(imageio.UnreadableImage, match=r"nowhere\.png"):
        imageio.read_image(tmp_path / "nowhere.png")
