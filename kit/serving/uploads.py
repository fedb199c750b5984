"""From the bytes of an uploaded file to pixels: JPEG, PNG and DICOM, checked before anything is
decoded, and never written to disk.

The authors' application opens whatever arrives with PIL and fails on grey, palette and transparent
images; it knows no DICOM. Here JPEG and PNG follow the rules of :mod:`kit.data.imageio`. Of DICOM
one grey frame is read, and turned into 8 bits as a viewer would show it: modality rescale, then the
window or VOI table of the file (the first one), then MONOCHROME1 inverted; without a window the
frame's darkest and brightest values become 0 and 255, and a note says so. Everything else, with one
sentence each, is refused.
"""

import io
import warnings
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from PIL import Image

from kit.data import imageio
from kit.errors import KitError

MAX_BYTES = 20_000_000
MAX_PIXELS = 25_000_000
SUFFIXES = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "DICOM": (".dcm", ".dicom", ".ima", "")}
# its data set is compressed as a whole and would be unpacked before its size could be checked
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_UNREADABLE = (
    "is truncated, damaged, or compressed in a way that is not supported here; export it "
    "again as uncompressed DICOM or as PNG."
)


class UploadTooLarge(KitError):
    """The file has more bytes than the application takes."""


class WrongKind(KitError):
    """The content is neither JPEG, PNG nor DICOM."""


class UnfitDicom(KitError):
    """A DICOM file without exactly one grey picture, or a damaged one."""


@dataclass(frozen=True)
class Upload:
    """One uploaded picture.

    Attributes
    ----------
    name : str
        File name without folders.
    kind : str
        "JPEG", "PNG" or "DICOM", by the content.
    pixels : numpy.ndarray
        uint8 (H, W, 3) in the order blue, green, red, as :func:`kit.data.preprocess.cad` takes it.
    notes : tuple of str
        What was converted, and what is unusual.
    """

    name: str
    kind: str
    pixels: np.ndarray
    notes: tuple = ()


def read_upload(
    content: bytes, name: str, max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS
) -> Upload:
    """Check and decode one uploaded file.

    Parameters
    ----------
    content : bytes
    name : str
        Its name, for sentences and notes only: the content decides what it is.
    max_bytes, max_pixels : int
        Limits of the file's length, and of width x height.

    Raises
    ------
    UploadTooLarge, WrongKind, UnfitDicom, kit.data.imageio.UnreadableImage
        One sentence that names the file.
    """
    name = PurePath(name).name or "The file"
    if len(content) > max_bytes:
        raise UploadTooLarge(
            f"{name} has {len(content) / 1e6:.1f} MB, more than the {max_bytes / 1e6:.0f} MB "
            "allowed; export the slice alone or shrink it."
        )
    kind = kind_of(content, name)
    if kind == "DICOM":
        grey, notes = _dicom(content, name, max_pixels)
        pixels = np.repeat(grey[..., None], 3, axis=2)
    else:
        pixels, notes = _picture(content, name, max_pixels)
    suffix = PurePath(name).suffix.lower()
    notes += (
        []
        if suffix in SUFFIXES[kind] or (kind == "DICOM" and suffix.strip(".").isdigit())
        else [f"named {suffix or 'without suffix'} but {kind}"]
    )
    return Upload(name, kind, pixels, tuple(notes))


def kind_of(content: bytes, name: str = "The file") -> str:
    """ "JPEG", "PNG" or "DICOM", by the first bytes.

    Raises
    ------
    WrongKind, kit.data.imageio.EmptyImage
    """
    if not content:
        raise imageio.EmptyImage(f"{name} is empty (0 bytes); export it again.")
    starts = {
        "JPEG": content[:3] == b"\xff\xd8\xff",
        "PNG": content[:8] == b"\x89PNG\r\n\x1a\n",
        "DICOM": content[128:132] == b"DICM",
    }
    for kind, found in starts.items():
        if found:
            return kind
    raise WrongKind(
        f"{name} holds no JPEG, PNG or DICOM picture, whatever its name says; export the slice in "
        "one of these formats."
    )


def _picture(content: bytes, name: str, max_pixels: int) -> tuple[np.ndarray, list]:
    try:
        rgb = imageio.read_image(content, channels=3, max_pixels=max_pixels)
    except imageio.UnreadableImage as error:
        raise type(error)(str(error).replace("The image", name, 1)) from error
    with Image.open(io.BytesIO(content)) as header:
        depth = {"P": "palette", "1": "1-bit", "CMYK": "CMYK", "YCCK": "CMYK", "I": "16-bit"}.get(
            header.mode, "16-bit" if header.mode.startswith("I;16") else ""
        )
        notes = [f"{depth} converted to 8-bit"] if depth else []
        notes += ["transparency laid on black"] if header.has_transparency_data else []
        notes += (
            ["EXIF orientation ignored"]
            if header.format == "JPEG"
            and header.getexif().get(imageio.ORIENTATION, 1) not in (0, 1)
            else []
        )
    return np.ascontiguousarray(rgb[..., ::-1]), notes


def _dicom(content: bytes, name: str, max_pixels: int) -> tuple[np.ndarray, list]:
    import pydicom

    if _DEFLATED in content:
        raise UnfitDicom(
            f"{name} is a deflated DICOM file, whose size cannot be checked; export it again as "
            "uncompressed DICOM or as PNG."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = pydicom.dcmread(io.BytesIO(content))
            _check(data, name, max_pixels)
            return _eight_bits(data), _remarks(data)
    except KitError:
        raise
    except (
        Exception
    ) as error:  # what a hostile or damaged file makes the decoders raise is open-ended
        raise UnfitDicom(f"{name} {_UNREADABLE}") from error


def _check(data, name: str, max_pixels: int) -> None:
    """Everything that can be known before the pixels are decoded."""
    if "PixelData" not in data or not data.get("Rows") or not data.get("Columns"):
        raise UnfitDicom(
            f"{name} is a DICOM file without an 8- or 16-bit picture (modality "
            f"{data.get('Modality') or 'not stated'}); choose an image of the series."
        )
    frames = int(data.get("NumberOfFrames") or 1)
    if frames != 1:
        raise UnfitDicom(
            f"{name} holds {frames} frames; export the slice that is meant as a single frame."
        )
    if data.Rows * data.Columns > max_pixels:
        raise imageio.ImageTooLarge(
            f"{name} announces {data.Columns} x {data.Rows} pixels, more than the "
            f"{max_pixels / 1e6:.0f} million allowed; shrink it first."
        )
    photometric = str(data.get("PhotometricInterpretation") or "not stated")
    if data.get("SamplesPerPixel", 1) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise UnfitDicom(
            f"{name} is no grey picture (photometric interpretation {photometric}); export the MR "
            "slice itself, not a colour capture of it."
        )


def _eight_bits(data) -> np.ndarray:
    """The frame as a viewer shows it: uint8 (H, W)."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    stored = data.pixel_array
    if stored.shape != (data.Rows, data.Columns):
        raise ValueError("the decoded frame has another size than the header says")
    values = apply_modality_lut(stored, data).astype(np.float64)
    if data.get("VOILUTSequence"):
        shown = apply_voi_lut(np.rint(values).astype(np.int64), data).astype(float) / (
            2 ** int(data.VOILUTSequence[0].LUTDescriptor[2]) - 1
        )
    elif _windowed(data):
        # two values beyond every window tell the ends of the range that the window maps to
        ends = np.concatenate([values.ravel(), [-1e12, 1e12]])
        mapped = apply_voi_lut(ends, data)
        shown = _between(mapped[:-2], *mapped[-2:]).reshape(values.shape)
    else:
        shown = _between(values, values.min(), values.max())
    if not np.isfinite(shown).all():
        raise ValueError("the frame has values that are no numbers")
    grey = np.rint(255 * np.clip(shown, 0, 1)).astype(np.uint8)
    return 255 - grey if data.PhotometricInterpretation == "MONOCHROME1" else grey


def _windowed(data) -> bool:
    return data.get("WindowCenter") is not None and data.get("WindowWidth") is not None


def _between(values, low: float, high: float) -> np.ndarray:
    """Scale so that `low` becomes 0 and `high` 1; a frame of one value becomes zeros."""
    return (values - low) / (high - low) if high > low else np.zeros_like(values, dtype=float)


def _remarks(data) -> list:
    notes = (
        []
        if data.get("VOILUTSequence") or _windowed(data)
        else ["no window in the file: scaled between its darkest and brightest value"]
    )
    notes += ["MONOCHROME1 inverted"] if data.PhotometricInterpretation == "MONOCHROME1" else []
    modality = str(data.get("Modality") or "")
    return notes + ([] if modality == "MR" else [f"modality {modality or 'not stated'}, not MR"])
