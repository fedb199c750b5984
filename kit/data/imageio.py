"""Reading image files, defensively: the one place where bytes from outside become pixels.

Data preparation, the loader, the audit and the app all read images through this module, so that
they agree on what is an image and on how it becomes 8-bit grey or RGB. The rules, none of which the
publications state:

* the content decides, not the suffix: a PNG called ``.jpg`` is read, and :func:`inspect` notes it;
* grey to RGB by replication, RGB to grey by the ITU-R 601-2 luma (PIL's ``L``), palettes through
  RGB, CMYK by PIL's plain conversion;
* 16-bit grey is scaled by its full range (65535 becomes 255), never by the image's own extremes, so
  that images stay comparable;
  of 16-bit colour the high byte is kept;
* transparency is composited on black, the background of MRI;
* the EXIF orientation is ignored, as PIL, Keras and TensorFlow do unless asked (OpenCV applies it);
  three images of Sign Language Digits
  carry one;
* refused: empty, truncated or damaged files, files that are no image, animations and multi-page
  files, 32-bit integer and float
  images (their range is unknown), and anything with more pixels than `max_pixels` (checked in the
  header, before decoding).
"""

import hashlib
import io
import struct
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from kit.errors import KitError

SUFFIXES = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".gif": "GIF",
    ".webp": "WEBP",
    ".pgm": "PPM",
    ".ppm": "PPM",
}
FORMATS = tuple(sorted(set(SUFFIXES.values())))
MAX_PIXELS = 50_000_000
MAGIC = (b"\xff\xd8", b"\x89PNG", b"BM", b"II*\0", b"MM\0*", b"GIF8", b"RIFF", b"P5", b"P6")
ORIENTATION = 0x0112
DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
)


class UnreadableImage(KitError):
    """An image file cannot be used; the subclasses say why."""


class EmptyImage(UnreadableImage):
    """The file has no bytes."""


class NotAnImage(UnreadableImage):
    """The content is none of the known image formats, whatever the name says."""


class DamagedImage(UnreadableImage):
    """The file is truncated or damaged."""


class AnimatedImage(UnreadableImage):
    """The file holds more than one picture."""


class ImageTooLarge(UnreadableImage):
    """The header announces more pixels than allowed: a decompression bomb, or a whole slide."""


class UnsupportedImage(UnreadableImage):
    """The pixels are 32-bit integers or floats, whose range is unknown."""


@dataclass(frozen=True)
class ImageFacts:
    """What :func:`inspect` found: size in pixels, PIL's format and mode, the file's SHA-256 and
    length, and remarks on conversions.
    """

    width: int
    height: int
    format: str
    mode: str
    sha256: str
    bytes: int
    notes: tuple = ()


def read_image(
    source: Path | str | bytes, channels: int = 3, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """Decode one image file.

    Parameters
    ----------
    source : path-like or bytes
        The file, or its content.
    channels : int
        1 for grey, 3 for RGB.
    max_pixels : int
        Largest width x height that is decoded.

    Returns
    -------
    numpy.ndarray
        uint8, 0..255; shape (height, width) for one channel, (height, width, 3) for three.

    Raises
    ------
    UnreadableImage
        One of its subclasses, if the file is empty, no image, damaged, animated, too large or of
        unknown range.
    ValueError
        If `channels` is neither 1 nor 3.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels}, must be 1 or 3")
    content, label = _content(source)
    image = _decode(content, label, max_pixels)
    return np.array(_plain(image, label).convert("L" if channels == 1 else "RGB"))


def inspect(path: Path | str, max_pixels: int = MAX_PIXELS) -> ImageFacts:
    """Decode one image file and tell what it is; raises as :func:`read_image` does."""
    content, label = _content(path)
    image = _decode(content, label, max_pixels)
    if image.mode in ("I", "F"):
        _plain(image, label)
    notes = _notes(image, Path(path).suffix.lower())
    return ImageFacts(
        image.width,
        image.height,
        format=image.format or "",
        mode=image.mode,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        notes=notes,
    )


def inspect_all(
    files: Iterable[Path], workers: int = 2, max_pixels: int = MAX_PIXELS
) -> tuple[list, dict]:
    """Inspect many files with a thread pool (PIL releases the interpreter lock while decoding).

    Returns
    -------
    facts : list of ImageFacts or None
        In the order of `files`; None where a file cannot be used.
    bad : dict
        File -> the sentence that says why.
    """
    files = list(files)

    def one(path):
        try:
            return inspect(path, max_pixels), None
        except UnreadableImage as error:
            return None, str(error)

    with ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(one, files))
    return [facts for facts, _ in results], {
        path: why for path, (_, why) in zip(files, results, strict=False) if why
    }


def _content(source) -> tuple[bytes, str]:
    if isinstance(source, (bytes, bytearray, memoryview)):
        content, label = bytes(source), "The image"
    else:
        label = str(source)
        try:
            content = Path(source).read_bytes()
        except OSError as error:
            raise UnreadableImage(
                f"{label} cannot be read ({error.strerror or error}); check the path and the "
                "permissions."
            ) from error
    if not content:
        raise EmptyImage(f"{label} is empty (0 bytes); fetch or export it again.")
    return content, label


def _decode(content: bytes, label: str, max_pixels: int) -> Image.Image:
    """Open, check and fully decode; PNG checksums are verified first, since PIL's decoder skips
    those of the pixel data.
    """
    image = _open(content, label, max_pixels)
    try:
        if image.format == "PNG":
            image.verify()
            image = _open(content, label, max_pixels)
        frames = getattr(image, "n_frames", 1)
        if frames == 1 or image.format == "MPO":
            image.load()
    except DECODER_ERRORS as error:
        raise DamagedImage(
            f"{label} is truncated or damaged ({_reason(error)}); fetch or export it again."
        ) from error
    if frames > 1 and image.format != "MPO":
        raise AnimatedImage(
            f"{label} holds {frames} pictures; export the one that is meant as a single image."
        )
    return image


def _open(content: bytes, label: str, max_pixels: int) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge(
            f"{label} announces far more than the {max_pixels / 1e6:.0f} million pixels allowed; "
            "shrink it first."
        ) from error
    except UnidentifiedImageError as error:
        if content.startswith(MAGIC):
            raise DamagedImage(
                f"{label} is truncated or damaged (its header is incomplete); fetch or export it "
                "again."
            ) from error
        raise NotAnImage(
            f"{label} is no image of a known format ({', '.join(FORMATS)}), whatever its name "
            "says; remove or convert it."
        ) from error
    except DECODER_ERRORS as error:
        raise DamagedImage(
            f"{label} is truncated or damaged ({_reason(error)}); fetch or export it again."
        ) from error
    if image.width * image.height > max_pixels:
        raise ImageTooLarge(
            f"{label} announces {image.width} x {image.height} pixels, more than the "
            f"{max_pixels / 1e6:.0f} million allowed; shrink it first."
        )
    return image


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".") or type(
        error
    ).__name__


def _plain(image: Image.Image, label: str) -> Image.Image:
    """Any mode to ``L`` or ``RGB`` by the rules of the module's text."""
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise UnsupportedImage(
                f"{label} has 32-bit pixels outside 0..65535; export it with 8 or 16 bits."
            )
        return Image.fromarray(np.rint(values / 257).astype(np.uint8))
    if image.mode == "F":
        raise UnsupportedImage(
            f"{label} has floating-point pixels of unknown range; export it with 8 or 16 bits."
        )
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert(
            "RGB"
        )
    return image if image.mode == "L" else image.convert("L" if image.mode == "1" else "RGB")


def _notes(image: Image.Image, suffix: str) -> tuple:
    kinds = {"CMYK": "CMYK", "P": "palette", "1": "1-bit", "I": "16-bit", "YCCK": "CMYK"}
    notes = [kinds[image.mode]] if image.mode in kinds else []
    notes += ["16-bit"] if image.mode.startswith("I;16") else []
    notes += ["transparency"] if image.has_transparency_data else []
    family = "JPEG" if image.format == "MPO" else image.format
    notes += [f"named {suffix} but {family}"] if SUFFIXES.get(suffix, family) != family else []
    turned = family == "JPEG" and image.getexif().get(ORIENTATION, 1) not in (0, 1)
    return tuple(notes + (["EXIF orientation ignored"] if turned else []))
