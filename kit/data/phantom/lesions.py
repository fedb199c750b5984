"""Synthetic brain lesions with the published appearance of three tumour types, as layers over the
synthetic head of `phantom_anatomy`.

* glioma: intra-axial and infiltrating; high grade with a ring-enhancing irregular rim, a necrotic
  core and finger-like oedema, low grade
  diffuse, without enhancement;
* meningioma: extra-axial, on the dura with a broad base, homogeneous, with a cerebrospinal-fluid
  cleft and a dural tail; some calcified;
* pituitary adenoma: sellar, rounded, growing upwards through the diaphragm; some cystic;
* metastases: two to four small rings with oedema.

Shapes are three-dimensional, so that any slice or volume through the same lesion agrees.
Coordinates are MNI millimetres.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kit.data.phantom.anatomy import SELLA, ellipsoid, ramp, smooth_field

KINDS = (
    "none",
    "glioma_high",
    "glioma_low",
    "metastases",
    "meningioma_solid",
    "meningioma_calcified",
    "adenoma_solid",
    "adenoma_cystic",
)

# Signal of lesion components on the scale of phantom_anatomy.CONTRASTS.
SIGNAL = {
    "T1": {
        "oedema": 0.34,
        "rim": 0.42,
        "core": 0.12,
        "diffuse": 0.22,
        "solid": 0.28,
        "calcified": 0.06,
        "adenoma": 0.30,
        "cyst": 0.80,
        "tail": 0.3,
        "csf": 0.12,
    },
    "T1c": {
        "oedema": 0.33,
        "rim": 0.98,
        "core": 0.14,
        "diffuse": 0.24,
        "solid": 0.96,
        "calcified": 0.2,
        "adenoma": 0.88,
        "cyst": 0.18,
        "tail": 0.9,
        "csf": 0.12,
    },
    "T2": {
        "oedema": 0.90,
        "rim": 0.62,
        "core": 0.98,
        "diffuse": 0.88,
        "solid": 0.86,
        "calcified": 0.06,
        "adenoma": 0.84,
        "cyst": 0.95,
        "tail": 0.2,
        "csf": 0.95,
    },
    "FLAIR": {
        "oedema": 0.94,
        "rim": 0.74,
        "core": 0.28,
        "diffuse": 0.92,
        "solid": 0.86,
        "calcified": 0.1,
        "adenoma": 0.82,
        "cyst": 0.66,
        "tail": 0.3,
        "csf": 0.07,
    },
}


@dataclass(frozen=True, eq=False)
class Scene:
    """The points that are to be rendered and what the template says there.

    Attributes
    ----------
    points : ndarray, float32, (3, N)
    hull, brain, white : ndarray, float32, (N,)
        Distance to the inner face of the skull (mm, negative inside), brain fraction and
        white-matter fraction.
    soft : float
        Width in mm of a sharp transition, about one pixel.
    normal_at : callable
        ``normal_at(point)`` gives the unit vector from the skull inwards at a point, (3,).
    """

    points: np.ndarray
    hull: np.ndarray
    brain: np.ndarray
    white: np.ndarray
    soft: float
    normal_at: object


@dataclass(frozen=True, eq=False)
class Lesion:
    """Layers ``(opacity (N,), component)`` from bottom to top, bool mask (N,) of the whole lesion,
    and the mass effect.

    `shift` (3, N) is added to the points before the anatomy is looked up: tissue beside a growing
    mass is pressed outwards.
    """

    layers: list
    mask: np.ndarray
    shift: np.ndarray


def make(kind: str, seed: int | Sequence[int], scene: Scene, grow: float = 1.0) -> Lesion:
    """Draw one lesion that crosses the scene.

    Parameters
    ----------
    kind : str
        One of `KINDS` except ``"none"``.
    seed : int or sequence of int
    scene : Scene
    grow : float
        Factor on all radii; the caller raises it until enough of the lesion is in view.
    """
    rng = np.random.default_rng(seed)
    maker = {
        "glioma": _glioma,
        "metastases": _metastases,
        "meningioma": _meningioma,
        "adenoma": _adenoma,
    }[kind.split("_")[0]]
    return maker(rng, kind, scene, grow)


def _pick(rng, scene, score) -> np.ndarray:
    """One of the points where `score` is positive, else the point where it is highest; (3,)."""
    candidates = np.flatnonzero(score > 0)
    chosen = candidates[rng.integers(len(candidates))] if len(candidates) else int(np.argmax(score))
    return scene.points[:, chosen].astype(np.float64)


def _rho(scene, centre, radii, axes=None) -> np.ndarray:
    """Normalised radius around `centre`; the rows of `axes`, where given, are the directions of
    `radii`.
    """
    moved = scene.points - np.asarray(centre, np.float32)[:, None]
    return ellipsoid(
        moved if axes is None else np.einsum("ij,jn->in", axes.astype(np.float32), moved),
        (0, 0, 0),
        radii,
    )


def _push(scene, centre, rho, amount) -> np.ndarray:
    moved = np.asarray(centre, np.float32)[:, None] - scene.points
    return moved * (np.float32(amount) * np.exp(-(rho**2) / 3) * ramp(scene.hull + 3, 6))


def _glioma(rng, kind, scene, grow):
    return _one_glioma(rng, kind.endswith("low"), scene, rng.uniform(14, 26) * grow)


def _one_glioma(rng, diffuse, scene, radius):
    depth = np.minimum(scene.brain - 0.7, -(scene.hull + 0.6 * radius + 2) / 20) * (
        scene.points[2] > -55
    )
    centre = _pick(rng, scene, depth)
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rho = _rho(scene, centre, radius * rng.uniform(0.75, 1.25, 3), axes)
    rough = 0.24 * smooth_field(rng, scene.points, 1.9 * radius) + 0.12 * smooth_field(
        rng, scene.points, 0.8 * radius
    )
    distance = radius * (rho - 1 + rough * rng.uniform(0.7, 1.3))
    tissue = scene.brain * ramp(scene.hull + 1.5, 3)
    fingers = smooth_field(rng, scene.points, 16)
    reach = radius * rng.uniform(0.25, 0.9)
    oedema = (
        np.clip((reach * (0.8 + 0.35 * fingers) - distance) / 5, 0, 1)
        * (0.12 + 0.88 * scene.white)
        * tissue
    )
    if diffuse:
        layers, solid = (
            [(0.7 * oedema, "oedema"), (ramp(distance, 5) * tissue, "diffuse")],
            distance < 0,
        )
    else:
        rim = radius * rng.uniform(0.22, 0.42)
        layers = [
            (oedema, "oedema"),
            (ramp(distance, scene.soft + 1) * tissue, "rim"),
            (ramp(distance + rim * (1 + 0.25 * fingers), scene.soft + 1.5) * tissue, "core"),
        ]
        solid = distance < 0
    mask = (solid | (oedema > 0.5)) & (tissue > 0.5)
    return Lesion(layers, mask, _push(scene, centre, rho, 0.22))


def _metastases(rng, kind, scene, grow):
    parts = [
        _one_glioma(rng, False, scene, rng.uniform(6, 10) * grow) for _ in range(rng.integers(2, 5))
    ]
    return Lesion(
        [layer for part in parts for layer in part.layers],
        np.any([p.mask for p in parts], axis=0),
        sum(p.shift for p in parts),
    )


def _meningioma(rng, kind, scene, grow):
    radius = rng.uniform(14, 24) * grow
    border = np.minimum(1.5 - np.abs(scene.hull + 2), (scene.points[2] + 52) / 10)
    base = _pick(rng, scene, border)
    inward = scene.normal_at(base)
    axes = np.linalg.qr(np.column_stack([inward, rng.normal(size=(3, 2))]))[0].T
    centre = base + inward * radius * rng.uniform(0.2, 0.55)
    rho = _rho(
        scene,
        centre,
        (radius, radius * rng.uniform(0.9, 1.3), radius * rng.uniform(0.9, 1.3)),
        axes,
    )
    distance = radius * (rho - 1 + 0.07 * smooth_field(rng, scene.points, 1.3 * radius))
    inside = ramp(scene.hull - 0.5, scene.soft)
    body = ramp(distance, scene.soft + 0.3) * inside
    white = (
        np.clip(1 - distance / (radius * rng.uniform(0.3, 1.1)), 0, 1)
        * scene.white
        * inside
        * (rng.random() < 0.4)
    )
    tail = ramp(np.abs(scene.hull - 0.6) - 1.0, scene.soft) * np.clip(2.2 - rho, 0, 1)
    layers = [
        (np.clip(1.5 * white, 0, 1), "oedema"),
        (0.8 * ramp(distance - 1.8, scene.soft) * inside, "csf"),
        (0.9 * tail, "tail"),
        (body, "solid"),
    ]
    if kind.endswith("calcified"):
        lumps = 0.9 * smooth_field(rng, scene.points, 0.9 * radius) - 8 * (rho - 0.75)
        layers.append((np.clip(lumps, 0, 1) * body, "calcified"))
    return Lesion(layers, body > 0.5, _push(scene, centre, rho, 0.3))


def _adenoma(rng, kind, scene, grow):
    radius = rng.uniform(11, 20) * grow
    lower = np.array(SELLA) + np.array([rng.normal(0, 1.5), rng.normal(0, 1), 0.25 * radius])
    rise = [rng.normal(0, 1.5), rng.normal(0, 1.5), radius * rng.uniform(0.5, 1.0)]
    upper = lower + np.array(rise)
    low = _rho(scene, lower, (radius * rng.uniform(0.9, 1.2), 0.9 * radius, 0.85 * radius))
    high = _rho(scene, upper, np.array([0.8, 0.8, 0.8]) * radius * rng.uniform(0.75, 1.1))
    rho = np.minimum(low, high)
    distance = radius * (rho - 1 + 0.06 * smooth_field(rng, scene.points, 1.4 * radius))
    body = ramp(distance, scene.soft + 0.3)
    layers = [(0.6 * ramp(distance - 1.2, scene.soft) * scene.brain, "csf"), (body, "adenoma")]
    if kind.endswith("cystic"):
        hole = _rho(
            scene,
            (lower + upper) / 2 + rng.normal(0, 0.15 * radius, 3),
            np.array([0.65, 0.6, 0.75]) * radius,
        )
        layers.append((ramp(radius * (hole - 1), scene.soft + 0.5) * body, "cyst"))
    return Lesion(layers, body > 0.5, _push(scene, (lower + upper) / 2, rho, 0.25))
