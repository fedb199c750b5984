"""One MRI-like image or volume at a time: a pure function of seed and class. `phantom_anatomy` has
the head, `lesions` the tumours.

What identifies an image besides its tumour must not identify its class. Orientation, contrast,
slice position, brightness, noise and all other nuisances are therefore drawn from a random stream
that does not know the class: two images of the same seed and of different classes show the same
slice of the same head. A pituitary adenoma can only be seen in slices through the sella, so slices
come from one of two regions, ``"sellar"`` (a slab of about 15 mm around the pituitary fossa) or
``"any"`` (the whole brain), and it is the data set that has to give every class the same mixture of
the two. A tumour changes the histogram; so the grey values of an image with a tumour are mapped by
an increasing curve to the histogram of the same slice without it, and only where grey values lie
tells the classes apart, not which there are.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import ndimage

from kit.data.phantom import anatomy as phantom_anatomy
from kit.data.phantom import lesions
from kit.errors import KitError

ORIENTATIONS = ("axial", "coronal", "sagittal")
CONTRASTS = tuple(phantom_anatomy.CONTRASTS)
CLASSES = {
    "notumor": {"none": 1.0},
    "no": {"none": 1.0},
    "normal": {"none": 1.0},
    "glioma": {"glioma_high": 0.65, "glioma_low": 0.35},
    "meningioma": {"meningioma_solid": 0.85, "meningioma_calcified": 0.15},
    "pituitary": {"adenoma_solid": 0.75, "adenoma_cystic": 0.25},
    "yes": {
        "glioma_high": 0.25,
        "glioma_low": 0.15,
        "metastases": 0.1,
        "meningioma_solid": 0.4,
        "meningioma_calcified": 0.1,
    },
    "yes@sellar": {
        "adenoma_solid": 0.68,
        "adenoma_cystic": 0.12,
        "meningioma_solid": 0.1,
        "glioma_high": 0.06,
        "glioma_low": 0.04,
    },
    "lesion": {"glioma_high": 0.5, "meningioma_solid": 0.5},
} | {kind: {kind: 1.0} for kind in lesions.KINDS}
"""Class name -> probabilities of the lesion kinds; ``<class>@<region>`` overrides it in one
region.
"""
_HEAD_CENTRE = np.array([0.0, -18.0, 2.0])
_AXES = {
    "axial": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "coronal": ((1, 0, 0), (0, 0, 1), (0, 1, 0)),
    "sagittal": ((0, -1, 0), (0, 0, 1), (1, 0, 0)),
}
_SLAB = {"axial": (-3.0, 9.0), "coronal": (-6.0, 6.0), "sagittal": (-6.0, 6.0)}
_WHOLE = {"axial": (0.0, 45.0), "coronal": (-60.0, 30.0), "sagittal": (-40.0, 40.0)}
CONSPICUITY = (0.85, 1.2)
"""Range of the factor between a lesion's difference from grey matter and its textbook value; sets
how hard the task is.
"""
MATCHED = 0.8
"""How far the histogram of an image with a lesion is brought to that of the same slice without it,
0 to 1.
"""
_SMOOTH = 110.0  # wavelength of the anatomical deformation, mm


class UnknownPhantom(KitError):
    """No embedded set, class or lesion kind of that name exists."""


@dataclass(frozen=True)
class Nuisance:
    """Everything about an image that does not depend on its class.

    Attributes
    ----------
    orientation, contrast, region : str
        One of `ORIENTATIONS` and `CONTRASTS`; ``"sellar"`` (slab around the pituitary fossa) or
        ``"any"`` (whole brain).
    position : float
        Signed distance of the slice from the sella (``"sellar"``) or from the MNI origin
        (``"any"``), mm along the slice normal.
    tilt_a, tilt_b, turn : float
        Obliquity about the two in-plane axes and rotation in the plane, degrees.
    shift_u, shift_v, fov, aspect : float
        Position of the field of view (mm), its width (mm), and the stretch of its height.
    mirrored : bool
    skull : float
        Thickness of the skull, mm.
    noise, brightness, gamma, bias : float
        Standard deviation of the Rician noise (full scale 1), mean over the head, exponent of the
        display curve, strength of the bias field.
    spots : float
        Amount of white-matter hyperintensities, which controls have as well.
    """

    orientation: str
    contrast: str
    region: str
    position: float
    tilt_a: float
    tilt_b: float
    turn: float
    shift_u: float
    shift_v: float
    fov: float
    aspect: float
    mirrored: bool
    skull: float
    noise: float
    brightness: float
    gamma: float
    bias: float
    spots: float


def draw_nuisance(
    rng: np.random.Generator,
    orientation: str | None = None,
    contrast: str | None = None,
    region: str = "sellar",
) -> Nuisance:
    """Draw the nuisance parameters; `orientation` and `contrast` are drawn unless given."""
    orientation = orientation or str(rng.choice(ORIENTATIONS))
    contrast = contrast or str(rng.choice(CONTRASTS))
    low, high = (_SLAB if region == "sellar" else _WHOLE)[orientation]
    tilt_a, tilt_b, turn = rng.normal(0, (2.5, 2.5, 3))
    return Nuisance(
        orientation,
        contrast,
        region,
        position=rng.uniform(low, high),
        tilt_a=tilt_a,
        tilt_b=tilt_b,
        turn=turn,
        shift_u=rng.normal(0, 3.5),
        shift_v=rng.normal(0, 3.5),
        fov=rng.uniform(206, 236),
        aspect=rng.uniform(0.96, 1.04),
        mirrored=bool(rng.random() < 0.5) and orientation != "sagittal",
        skull=rng.uniform(5, 8),
        noise=float(np.exp(rng.uniform(np.log(0.008), np.log(0.03)))),
        brightness=rng.uniform(0.26, 0.44),
        gamma=rng.uniform(0.85, 1.2),
        bias=rng.uniform(0.05, 0.22),
        spots=float(rng.random() < 0.3) * rng.uniform(0.2, 0.8),
    )


def slice_points(nuisance: Nuisance, size: int, seed: Sequence[int]) -> np.ndarray:
    """MNI coordinates of the pixels of a slice, deformed as the anatomy is: float32 (3, size *
    size), row by row from the top left.

    The deformation leaves the sella where it is, so that `Nuisance.position` stays the distance
    from it.
    """
    frame = _frame(nuisance)
    origin = (
        np.array(phantom_anatomy.SELLA if nuisance.region == "sellar" else (0.0, 0.0, 0.0))
        + nuisance.position * frame[2]
    )
    to_centre = frame[:2] @ (_HEAD_CENTRE - origin) + (nuisance.shift_u, nuisance.shift_v)
    steps = ((np.arange(size) + 0.5) / size - 0.5) * nuisance.fov
    v, u = np.meshgrid(
        -steps * nuisance.aspect, -steps if nuisance.mirrored else steps, indexing="ij"
    )
    angle = np.deg2rad(nuisance.turn)
    across = u * np.cos(angle) - v * np.sin(angle) + to_centre[0]
    up = u * np.sin(angle) + v * np.cos(angle) + to_centre[1]
    points = origin[:, None] + frame[0][:, None] * across.ravel() + frame[1][:, None] * up.ravel()
    return _deformed(points.astype(np.float32), seed)


def _frame(nuisance) -> np.ndarray:
    """Rows: unit vectors to the image's right, to its top, and along the slice normal."""
    right, top, normal = np.array(_AXES[nuisance.orientation], float)
    a, b = np.deg2rad(nuisance.tilt_a), np.deg2rad(nuisance.tilt_b)
    right = right * np.cos(a) + normal * np.sin(a)
    normal = normal * np.cos(a) - np.array(_AXES[nuisance.orientation][0]) * np.sin(a)
    return np.array(
        [right, top * np.cos(b) + normal * np.sin(b), normal * np.cos(b) - top * np.sin(b)]
    )


def _deformed(points, seed) -> np.ndarray:
    rng = np.random.default_rng([*seed, 11])
    sella = np.array(phantom_anatomy.SELLA, np.float32)[:, None]
    both = np.hstack([sella, points])
    scale = rng.uniform(0.96, 1.04, (3, 1)).astype(np.float32)
    waves = np.stack(
        [phantom_anatomy.smooth_field(rng, both, _SMOOTH, 5) for _ in range(3)]
    ) * np.float32(2.2)
    return sella + (points - sella) * scale + waves[:, 1:] - waves[:, :1]


def _scene(points, soft) -> lesions.Scene:
    head = phantom_anatomy.template()
    hull, brain, white = (head.at(name, points) for name in ("hull", "brain", "white"))

    def normal_at(point):
        probes = np.asarray(point, np.float32)[:, None] + np.float32(4) * np.hstack(
            [np.eye(3), -np.eye(3)]
        ).astype(np.float32)
        values = head.at("hull", probes)
        gradient = values[:3] - values[3:]
        return -gradient.astype(np.float64) / max(float(np.linalg.norm(gradient)), 1e-6)

    return lesions.Scene(points, hull, brain=brain, white=white, soft=soft, normal_at=normal_at)


def _lesion_in_view(kind, seed, scene, cell, least: float):
    """The lesion, grown until its mask covers `least` (mm squared or cubed); `cell` is the measure
    of one point.
    """
    for attempt in range(9):
        lesion = lesions.make(kind, [*seed, 23], scene, grow=1.15**attempt)
        if lesion.mask.sum() * cell >= least:
            break
    return lesion


def _signal(points, kind, nuisance, seed, soft, cell, least):
    """Noise-free signal (N,) and lesion mask (N,) at points inside the head."""
    rng = np.random.default_rng([*seed, 37])
    texture = 0.6 * phantom_anatomy.smooth_field(
        rng, points, 11
    ) + 0.8 * phantom_anatomy.smooth_field(rng, points, 6)
    table = np.array(phantom_anatomy.CONTRASTS[nuisance.contrast]) * rng.normal(
        1, 0.05, len(phantom_anatomy.TISSUES)
    )
    spots = phantom_anatomy.smooth_field(rng, points, 15)
    scene = _scene(points, soft)
    spot = (
        np.clip((spots - 1.9 + 0.6 * nuisance.spots) * 2, 0, 1) * scene.white * (nuisance.spots > 0)
    )
    layers = [(spot.astype(np.float32), "oedema")]

    def anatomy(where=slice(None), shift=0, sampled=None):
        fractions = phantom_anatomy.tissues(
            points[:, where] + shift, texture[where], soft, nuisance.skull, sampled
        )
        return np.einsum(
            "t,tn->n", table.astype(np.float32), fractions
        )  # no BLAS: its sums depend on its number of threads

    plain = anatomy(sampled={name: getattr(scene, name) for name in ("hull", "brain", "white")})
    control = _painted(plain, layers, nuisance.contrast, seed, points)
    if kind == "none":
        return control, np.zeros(len(control), bool)
    lesion = _lesion_in_view(kind, seed, scene, cell, least)
    moved = np.abs(lesion.shift).max(axis=0) > 0.1
    plain[moved] = anatomy(moved, lesion.shift[:, moved])
    return _matched(
        _painted(plain, layers + lesion.layers, nuisance.contrast, seed, points), control
    ), lesion.mask


def _matched(signal, control) -> np.ndarray:
    """`signal` mapped by an increasing curve to the grey-value distribution of `control`, the same
    head without the lesion.
    """
    levels = np.linspace(0, 1, 1025)
    seen, wanted = np.quantile(signal, levels), np.quantile(control, levels)
    matched = np.interp(signal, seen, wanted).astype(np.float32)
    return matched + np.float32(1 - MATCHED) * (signal - matched)


def _painted(signal, layers, contrast, seed, points):
    """Lay the lesion components over the signal, each a little weaker than in the textbook and
    mottled.
    """
    rng = np.random.default_rng([*seed, 41])
    strength = rng.uniform(*CONSPICUITY)
    mottle = 1 + np.float32(0.05) * phantom_anatomy.smooth_field(rng, points, 8)
    grey = phantom_anatomy.CONTRASTS[contrast][phantom_anatomy.TISSUES.index("grey")]
    for opacity, component in layers:
        value = grey + strength * (lesions.SIGNAL[contrast][component] - grey)
        signal = signal * (1 - opacity) + opacity * np.float32(value) * mottle
    return signal


def kind_of(rng: np.random.Generator, name: str, region: str = "sellar") -> str:
    """Lesion kind for a class (or the kind itself), drawn with the class's probabilities.

    Raises
    ------
    UnknownPhantom
        If `name` is neither a class nor a lesion kind.
    """
    chances = CLASSES.get(f"{name}@{region}") or CLASSES.get(name)
    if chances is None:
        raise UnknownPhantom(
            f"There is no phantom class {name!r}; known are "
            f"{', '.join(k for k in CLASSES if '@' not in k)}."
        )
    return str(rng.choice(list(chances), p=list(chances.values())))


def slice_image(
    seed: int | Sequence[int],
    name: str,
    *,
    size: int = 224,
    orientation: str | None = None,
    contrast: str | None = None,
    region: str = "sellar",
) -> tuple[np.ndarray, np.ndarray, dict]:
    """One slice. A pure function of its arguments; slices of the same seed share head, slice and
    nuisances whatever their class.

    Parameters
    ----------
    seed : int or sequence of int
    name : str
        A class of `CLASSES` or a lesion kind of `lesions.KINDS`.
    size : int
        Height and width in pixels.
    orientation, contrast : str, optional
        Drawn unless given.
    region : str
        ``"sellar"`` or ``"any"``, see `Nuisance`.

    Returns
    -------
    image : ndarray, uint8, (size, size)
    mask : ndarray, bool, (size, size)
        The lesion: solid part and dense oedema of a glioma, the body of the others; empty for
        controls.
    nuisance : dict
        The fields of `Nuisance`.
    """
    seed = [seed] if isinstance(seed, int | np.integer) else list(seed)
    nuisance = draw_nuisance(np.random.default_rng([*seed, 5]), orientation, contrast, region)
    kind = kind_of(np.random.default_rng([*seed, 7]), name, region)
    fine = size if size >= 192 else 2 * size
    points = slice_points(nuisance, fine, seed)
    inside = phantom_anatomy.template().at("skin", points) < 3
    pixel = nuisance.fov / fine
    signal = np.zeros(fine * fine, np.float32)
    mask = np.zeros(fine * fine, bool)
    signal[inside], mask[inside] = _signal(
        points[:, inside],
        kind,
        nuisance=nuisance,
        seed=seed,
        soft=max(1.0, pixel),
        cell=pixel**2,
        least=250.0,
    )
    image = _acquired(
        signal.reshape(fine, fine),
        inside.reshape(fine, fine),
        points=points,
        nuisance=nuisance,
        seed=seed,
        size=size,
    )
    mask = mask.reshape(size, fine // size, size, fine // size).mean(axis=(1, 3)) > 0.5
    return image, mask, asdict(nuisance)


def _acquired(signal, inside, points, nuisance, seed, size):
    """What the scanner and the exporting radiologist make of the signal: coil, blur, brightness,
    noise, display curve, 8 bits.
    """
    rng = np.random.default_rng([*seed, 53])
    coil = np.exp(
        nuisance.bias * phantom_anatomy.smooth_field(rng, points, 200, 4)
        - np.clip(-62 - points[2], 0, None) / 55
    )
    signal = ndimage.gaussian_filter(signal * coil.reshape(signal.shape), 0.55)
    block = signal.shape[0] // size
    signal, inside = (
        a.reshape(size, block, size, block).mean(axis=(1, 3))
        for a in (signal, inside.astype(np.float32))
    )
    signal *= nuisance.brightness / max(float(signal[inside > 0.5].mean()), 1e-3)
    noise = rng.normal(0, nuisance.noise, (2, size, size)).astype(np.float32)
    return _displayed(np.hypot(signal + noise[0], noise[1]), nuisance.gamma)


def _displayed(signal, gamma) -> np.ndarray:
    """8-bit grey values: a display curve with exponent `gamma` and a soft shoulder above 0.65, so
    that bright tissue keeps its texture.
    """
    shoulder = np.float32(0.65) + np.float32(0.35) * np.tanh(
        (signal - np.float32(0.65)) / np.float32(0.35)
    )
    return np.round(255 * np.where(signal < 0.65, signal, shoulder) ** np.float32(gamma)).astype(
        np.uint8
    )


VOXEL = 4.6
"""Edge of a voxel of `volume`, mm."""


def volume(
    seed: int | Sequence[int], name: str, *, size: int = 28, contrast: str | None = None
) -> tuple[np.ndarray, np.ndarray, dict]:
    """One volume: a cube of ``size * VOXEL`` mm from within the head, as the small 3D sets of
    MedMNIST show a region and not a body.

    Parameters
    ----------
    seed, name, contrast
        As for `slice_image`.
    size : int
        Voxels along each axis; the order of the axes is left to right, back to front, bottom to
        top.

    Returns
    -------
    image : ndarray, uint8, (size, size, size)
    mask : ndarray, bool, (size, size, size)
    nuisance : dict
    """
    seed = [seed] if isinstance(seed, int | np.integer) else list(seed)
    rng = np.random.default_rng([*seed, 5])
    nuisance = draw_nuisance(rng, "axial", contrast, "any")
    kind = kind_of(np.random.default_rng([*seed, 7]), name)
    axis = (np.arange(size) - (size - 1) / 2) * VOXEL
    centre = _HEAD_CENTRE + np.array([0, 0, 16]) + rng.uniform(-14, 14, 3)
    points = np.stack(
        [
            c + a.ravel()
            for c, a in zip(centre, np.meshgrid(axis, axis, axis, indexing="ij"), strict=True)
        ]
    )
    points = _deformed(points.astype(np.float32), seed)
    signal, mask = _signal(
        points, kind, nuisance=nuisance, seed=seed, soft=VOXEL, cell=VOXEL**3, least=12000.0
    )
    signal *= nuisance.brightness / signal.mean()
    noise = rng.normal(0, nuisance.noise, (2, signal.size)).astype(np.float32)
    display = _displayed(np.hypot(signal + noise[0], noise[1]), nuisance.gamma)
    shape = (size,) * 3
    return display.reshape(shape), mask.reshape(shape), asdict(nuisance)
