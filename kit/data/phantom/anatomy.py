"""A synthetic head: tissue fractions at any point, from the MNI152 template and its grey- and
white-matter maps (nilearn ships them).

The template ends at the brain. Cerebrospinal fluid, skull, scalp, skull base, orbits, paranasal
sinuses, pituitary gland and the large vessels are added here as shells around the closed brain mask
and as ellipsoids at their usual MNI coordinates. The result is meant to carry a learning task with
the look of head MRI, not to stand for a patient.

All coordinates are MNI millimetres (x to the right, y to the front, z up), as float32 arrays of
shape (3, N).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import nilearn
import numpy as np
from scipy import ndimage

SELLA = (0.0, 3.0, -33.0)
"""Centre of the pituitary fossa in MNI millimetres."""

TISSUES = (
    "air",
    "csf",
    "grey",
    "white",
    "fat",
    "muscle",
    "bone",
    "marrow",
    "vitreous",
    "gland",
    "vessel",
    "dura",
)

# Signal per tissue, 0..1, in the order of TISSUES.
CONTRASTS = {
    "T1": (0.01, 0.14, 0.46, 0.62, 0.82, 0.36, 0.06, 0.62, 0.13, 0.56, 0.12, 0.25),
    "T1c": (0.01, 0.12, 0.38, 0.50, 0.70, 0.34, 0.06, 0.44, 0.12, 0.76, 0.80, 0.42),
    "T2": (0.01, 0.90, 0.52, 0.36, 0.62, 0.22, 0.04, 0.40, 0.95, 0.50, 0.07, 0.16),
    "FLAIR": (0.01, 0.08, 0.54, 0.42, 0.46, 0.26, 0.04, 0.32, 0.10, 0.55, 0.09, 0.20),
}
_CUT = 4  # lowest slices of the template, in which the brain stem fades out
_PAD = 44  # millimetres added below the template, for the neck: the last good slice repeated


@dataclass(frozen=True, eq=False)
class Template:
    """The volumes that slices are sampled from.

    Attributes
    ----------
    grey, white, brain : ndarray, uint8, 1 mm grid
        Tissue fractions times 255.
    hull, skin : ndarray, float32, 2 mm grid
        Signed distance in mm to the inner face of the skull and to the skin, negative inside.
    origin : ndarray, float32, (3, 1)
        Millimetre coordinates of voxel (0, 0, 0) of all grids.
    """

    grey: np.ndarray
    white: np.ndarray
    brain: np.ndarray
    hull: np.ndarray
    skin: np.ndarray
    origin: np.ndarray

    def at(self, name: str, points: np.ndarray) -> np.ndarray:
        """Sample one volume linearly at `points` (3, N); fractions 0..1 for the tissues, mm for the
        distances; float32 (N,).
        """
        volume = getattr(self, name)
        fine = volume.dtype == np.uint8
        voxel = (points - self.origin) * np.float32(1.0 if fine else 0.5)
        values = ndimage.map_coordinates(volume, voxel, np.float32, order=1, mode="nearest")
        return values * np.float32(1 / 255) if fine else values


def _load(kind: str) -> np.ndarray:
    folder = Path(nilearn.__file__).parent / "datasets" / "data"
    image: Any = nibabel.load(folder / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz")
    volume = np.asarray(image.dataobj)
    return np.pad(volume[:, :, _CUT:], ((0, 0), (0, 0), (_PAD + _CUT, 0)), mode="edge")


@functools.lru_cache(maxsize=1)
def template() -> Template:
    """Load the template once per process (about one second) and build the head around it."""
    t1, grey, white = (_load(kind) for kind in ("t1", "gm", "wm"))
    mask = t1 > 0
    origin = np.array([[-98.0], [-134.0], [-72.0 - _PAD]], np.float32)
    hull = _distance(_closed(mask[::2, ::2, ::2]), smooth=1.0)
    skin = _distance(_head(hull, origin), smooth=2.0)
    grey, white = _sharpened(grey, white, mask)
    return Template(
        grey, white, brain=mask.astype(np.uint8) * 255, hull=hull, skin=skin, origin=origin
    )


def _sharpened(grey, white, mask, power: float = 1.7):
    """Tissue fractions of the average brain raised towards those of one brain: p**k, normalised."""
    g, w = grey.astype(np.float32) / 255, white.astype(np.float32) / 255
    rest = np.clip(1 - g - w, 0, 1)
    g, w, rest = (np.power(part, np.float32(power)) for part in (g, w, rest))
    scale = np.where(mask, 255 / np.maximum(g + w + rest, 1e-6), 0)
    return (g * scale).astype(np.uint8), (w * scale).astype(np.uint8)


def _distance(mask, smooth: float) -> np.ndarray:
    """Signed distance in mm on the 2 mm grid, negative inside `mask`, smoothed by a Gaussian of
    `smooth` voxels.
    """
    distance = ndimage.distance_transform_edt(~mask) - ndimage.distance_transform_edt(mask)
    return ndimage.gaussian_filter(2 * distance.astype(np.float32), smooth)


def _closed(mask, radius_mm: float = 7.0, margin_mm: float = 1.5) -> np.ndarray:
    """Brain mask with its sulci closed, grown by `margin_mm` of subarachnoid space."""
    grown = ndimage.distance_transform_edt(~mask) * 2 <= radius_mm
    return ndimage.distance_transform_edt(grown) * 2 > radius_mm - margin_mm


def _head(hull, origin) -> np.ndarray:
    """Mask of everything inside the skin: the skull with its scalp, face, nose and neck."""
    x, y, z = (
        2 * np.arange(n, dtype=np.float32) + o
        for n, o in zip(hull.shape, origin.ravel(), strict=True)
    )
    points = np.broadcast_arrays(x[:, None, None], y[None, :, None], z[None, None, :])
    face = ellipsoid(points, (0, 34, -82), (64, 58, 78)) < 1
    nose = ellipsoid(points, (0, 92, -66), (13, 19, 24)) < 1
    neck = (np.hypot(points[0] / 56, (points[1] + 38) / 58) < 1 + 0.08 * np.sin(points[2] / 22)) & (
        points[2] < -50
    )
    return (hull < 13) | face | nose | neck


def ellipsoid(
    points: np.ndarray | Sequence[np.ndarray],
    centre: Sequence[float] | np.ndarray,
    radii: Sequence[float] | np.ndarray,
) -> np.ndarray:
    """Normalised radius: 0 at `centre`, 1 on the surface of the axis-parallel ellipsoid with
    `radii` (mm).
    """
    parts = (
        (p - np.float32(c)) / np.float32(r) for p, c, r in zip(points, centre, radii, strict=True)
    )
    return np.sqrt(sum(part * part for part in parts))


def ramp(distance: np.ndarray, soft: float) -> np.ndarray:
    """1 where `distance` is well below 0, 0 well above, linear over `soft` millimetres
    around it.
    """
    return np.clip(np.float32(0.5) - distance / np.float32(soft), 0, 1)


def smooth_field(
    rng: np.random.Generator, points: np.ndarray, wavelength: float, waves: int = 8
) -> np.ndarray:
    """Smooth random field of mean 0 and variance 1 at `points` (3, N): a sum of plane waves of
    about `wavelength` mm.
    """
    directions = rng.normal(size=(waves, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    vectors = directions * (2 * np.pi / wavelength) * rng.uniform(0.6, 1.4, size=(waves, 1))
    phases = rng.uniform(0, 2 * np.pi, size=waves)
    total = np.zeros(points.shape[1], np.float32)
    for (a, b, c), phase in zip(vectors.astype(np.float32), phases.astype(np.float32), strict=True):
        total += np.sin(a * points[0] + b * points[1] + c * points[2] + phase)
    return total * np.float32(np.sqrt(2 / waves))


def _both_sides(points, centre, radii):
    """`ellipsoid` for a structure and its mirror image: the left half is folded onto the right."""
    return ellipsoid((np.abs(points[0]), points[1], points[2]), centre, radii)


def tissues(
    points: np.ndarray, texture: np.ndarray, soft: float, skull: float, sampled: dict | None = None
) -> np.ndarray:
    """Tissue fractions at `points`.

    Parameters
    ----------
    points : ndarray, float32, (3, N)
    texture : ndarray, float32, (N,)
        Zero-mean field of unit variance that mottles muscle, marrow and air cells and places
        cortical vessels.
    soft : float
        Width in mm of the partial-volume transition, about one pixel.
    skull : float
        Thickness of the skull in mm.
    sampled : dict, optional
        Volumes of the template that have been sampled at `points` already: name -> what
        `Template.at` gave.

    Returns
    -------
    ndarray, float32, (len(TISSUES), N)
        Fractions that sum to 1.
    """
    head, sampled = template(), sampled or {}
    hull, skin, brain, grey, white = (
        sampled[name] if name in sampled else head.at(name, points)
        for name in ("hull", "skin", "brain", "grey", "white")
    )
    fractions = np.zeros((len(TISSUES), points.shape[1]), np.float32)
    _soft_parts(fractions, points, texture, skin, soft)
    _air_and_orbits(fractions, points, texture, soft)
    _skull(fractions, points, texture=texture, hull=hull, thickness=skull, soft=soft)
    _over(fractions, "air", 1 - ramp(skin, soft))
    _brain(fractions, points, texture=texture, hull=hull, parts=(brain, grey, white), soft=soft)
    return fractions


def _over(fractions, tissue, weight):
    """Lay `tissue` over what is there, with opacity `weight`."""
    fractions *= 1 - weight
    fractions[TISSUES.index(tissue)] += weight


def _soft_parts(fractions, points, texture, skin, soft):
    fractions[TISSUES.index("muscle")] = 1
    _over(fractions, "fat", np.clip(0.22 * texture - 0.08, 0, 0.6))
    _over(fractions, "fat", 0.9 * ramp(-skin - 6.5, soft + 1))
    _over(fractions, "muscle", 0.6 * ramp(-skin - 1.6, soft))


def _air_and_orbits(fractions, points, texture, soft):
    small = soft / 10
    _over(fractions, "fat", 0.9 * ramp(_both_sides(points, (29, 45, -36), (18, 27, 17)) - 1, small))
    muscle_cone = np.abs(_both_sides(points, (27, 36, -36), (10, 26, 10)) - 1)
    _over(fractions, "muscle", 0.8 * ramp(muscle_cone - 0.14, small))
    _over(fractions, "vitreous", ramp(_both_sides(points, (32, 60, -37), (12, 12, 12)) - 1, small))
    _over(fractions, "muscle", ramp(_both_sides(points, (32, 69, -37), (4.5, 2.2, 4.5)) - 1, small))
    _over(fractions, "bone", ramp(_both_sides(points, (10, 46, -40), (13, 26, 17)) - 1, small))
    cells = 0.25 * texture
    for centre, radii in (
        ((9, 17, -45), (9, 13, 8.5)),
        ((5, 45, -36), (5, 20, 11)),
        ((7, 58, -62), (4, 30, 20)),
        ((29, 50, -64), (13, 16, 17)),
        ((0, 8, -80), (9, 7, 26)),
    ):
        _over(fractions, "air", ramp(_both_sides(points, centre, radii) - 1 + 0.4 * cells, small))
    _over(
        fractions,
        "air",
        0.8 * ramp(_both_sides(points, (52, -32, -46), (9, 13, 15)) - 1 + 2 * cells, small),
    )


def _skull(fractions, points, texture, hull, thickness, soft):
    base = np.clip((-18 - points[2]) / 15, 0, 1)
    outer = thickness + 5 * base
    _over(fractions, "bone", ramp(hull - outer, soft) * (1 - fractions[TISSUES.index("air")]))
    middle = np.abs(hull - outer / 2 - 0.7) - (outer / 2 - 2.2)
    keep = 1 - fractions[TISSUES.index("air")]
    _over(
        fractions, "marrow", np.clip(0.75 + 0.2 * texture, 0, 1) * ramp(middle, soft + 0.5) * keep
    )


def _brain(fractions, points, texture, hull, parts, soft):
    (brain, grey, white), inside = parts, ramp(hull, soft)
    _over(fractions, "dura", 0.8 * ramp(np.abs(hull - 0.8) - 0.7, soft))
    _over(fractions, "csf", ramp(hull, soft))
    for tissue, part in (("grey", grey), ("white", white)):
        fractions[TISSUES.index(tissue)] += part * inside
    fractions[TISSUES.index("csf")] -= (grey + white) * inside
    np.maximum(fractions, 0, out=fractions)
    _dura_and_vessels(
        fractions, points, texture=texture, hull=hull, sulci=brain - grey - white, soft=soft
    )


def _dura_and_vessels(fractions, points, texture, hull, sulci, soft):
    x, y, z = points
    sinus = np.maximum(np.abs(x) - 4.5, np.abs(hull - 0.5) - 3.5)
    _over(fractions, "vessel", ramp(sinus, soft) * (z > -5) * np.clip((-y - z + 70) / 60, 0, 1))
    falx = np.maximum(np.abs(x + 0.8 * texture) - 0.6, 26 - np.hypot((y + 8) * 0.55, z - 8)) + 4 * (
        z < 8
    )
    _over(fractions, "dura", 0.6 * ramp(falx, soft) * (hull < 0))
    vessels = np.clip((texture - 1.3) * 3, 0, 1) * np.clip(sulci - 0.3, 0, 1) * (hull > -14)
    _over(fractions, "vessel", vessels)
    small = soft / 6
    _over(fractions, "vessel", ramp(_both_sides(points, (11, 2, -33), (3.6, 9, 5.5)) - 1, small))
    _over(fractions, "vessel", ramp(ellipsoid((x, y, z), (0, -17, -34), (2, 2, 16)) - 1, small))
    _over(fractions, "gland", ramp(ellipsoid(points, SELLA, (7, 5, 4)) - 1, small))
    _over(fractions, "gland", ramp(ellipsoid(points, (0, 1, -27), (1.5, 1.5, 5)) - 1, small))
