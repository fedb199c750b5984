"""How far the architecture gradient that a search moves by is from the exact one, measured at its
start.

The publication approximates second derivatives by central differences and does not say how good
they are. In float32, with ReLU and BatchNorm in between, the whole chain by differences pointed
elsewhere than the exact one at any radius (cosine of -0.16 at the published radius in a supernet of
8 channels and 4 cells); Adam remembers such steps for hundreds of updates. So each search that
takes a second derivative compares its own gradient, on its first batch, with the exact one, writes
cosine and ratio of norms down, and one that is further off than `LEAST` is no search by LeaSE.

Exact derivatives have rounding errors too, and the perturbations are small differences of
predictions: a search that lays out its steps (those of more than a few) also compares with float64,
and warns if float32 loses what it should follow. Cosines from 0.53 (P-DARTS, batches of 4) to 0.998
were seen.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from kit import files
from kit.errors import KitError
from kit.search.nas2d import lease, search_loop, search_state, search_step

if TYPE_CHECKING:
    from kit.search.nas2d.search_loop import Task
    from kit.search.nas2d.search_state import State

LEAST = 0.7  # cosine below which a gradient is not that of the method
CHECKED = 32  # images at most: in float64 they take the memory of 64 in float32
NAME = "hypergradient.json"
REMEMBERED = 8  # pairs of gradients, a few kilobytes each
_MEASURED: dict = {}


class NotLease(KitError):
    """The architecture gradient of a search is not that of LeaSE."""


def measure(task: "Task", state: "State") -> dict | None:
    """Compare the gradient of a search that has not begun with the exact one.

    Parameters
    ----------
    task : kit.search.nas2d.search_loop.Task
    state : kit.search.nas2d.search_state.State
        From :func:`kit.search.nas2d.search_state.begin`, before any step.

    Returns
    -------
    dict or None
        mode, images, and cosine and norm_ratio (ours over exact) of the whole gradient with the
        exact one in the same precision, which in the mode "exact" is the same computation; with
        LeaSE also audience_cosine and audience_norm_ratio of the audience's term alone; and where
        steps are traced all of these once more with the ending _float64. None for a number where a
        gradient vanishes; None instead of all for a search that takes no second derivative.
    """
    config = task.config
    if config.lease is None and config.order == 1:
        return None
    kind, given, about = task.kind(task.space(0)), *_start(task, state)
    ours, *exact = _gradients(kind, given, about)
    own, gamma = (float(getattr(given["rates"], name)) for name in ("own", "gamma"))
    found = {"mode": config.mode, "images": len(given["train"][1])}
    for ending, theirs in zip(("", "_float64"), exact, strict=False):
        if config.lease is None:
            compared = {"": (ours, theirs)}
        else:
            whole = [own * explainer + gamma * audience for explainer, audience in (ours, theirs)]
            compared = {"": whole, "audience_": (ours[1], theirs[1])}
        for prefix, pair in compared.items():
            numbers = _agreement(*pair)
            found |= {f"{prefix}{name}{ending}": value for name, value in numbers.items()}
    return found


def _gradients(kind, given: dict, about: tuple) -> list:
    """Ours, the exact ones in float32 and, of traced searches, in float64: flat float64 arrays, or
    with LeaSE pairs of the explainer's and the audience's. Searches that differ in gamma alone
    begin alike and share them.
    """
    key = (kind, *about)
    if key not in _MEASURED:
        found = [_taken(kind, given)]
        found.append(_taken(kind, given, reference=True) if kind.mode == "finite" else found[0])
        if kind.traced:
            found.append(_taken(kind, _doubled(given), reference=True))
        while len(_MEASURED) >= REMEMBERED:
            _MEASURED.pop(next(iter(_MEASURED)))
        _MEASURED[key] = found
    return _MEASURED[key]


def _taken(kind, given, reference=False):
    if kind.lease is None:
        return _flat(search_step.second_order(kind, **given, reference=reference).gradients)
    apart = replace(kind, separate=True)
    found = search_step.lease_gradient(apart, **given, reference=reference)
    return _flat(found.explainer), _flat(found.audience)


def refuse(name: str, found: dict | None, gamma: float) -> None:
    """Stop a search by LeaSE whose gradient is not that of the method.

    Parameters
    ----------
    name : str
        Of the search.
    found : dict or None
        From :func:`measure`.
    gamma : float
        Weight of the audience; without any, its term does not matter.

    Raises
    ------
    NotLease
    """
    if found is None or "audience_cosine" not in found or gamma == 0:
        return
    cosines = [found["cosine"], found["audience_cosine"]]
    if None in cosines:
        raise NotLease(
            f"{name}: the audience's part of the architecture gradient is exactly zero, so this is "
            "not LeaSE; choose settings of LeaSE under which the audience has a say."
        )
    if min(cosines) < LEAST:
        raise NotLease(
            f"{name}: the architecture gradient is not that of LeaSE (cosine with the exact one "
            f"{min(cosines):.2f}, below {LEAST}); set mode to exact."
        )


def sentence(name: str, found: dict) -> str:
    """What was measured, to print; with a warning where float32 loses the gradient."""
    said = [
        f"{what}{_said(found[f'{key}cosine{ending}'])}, norm x "
        f"{_said(found[f'{key}norm_ratio{ending}'])}{where}"
        for ending, where in (("", ""), ("_float64", " (against float64)"))
        for what, key in (("cosine ", ""), ("the audience's term ", "audience_"))
        if f"{key}cosine{ending}" in found
    ]
    low = [
        value
        for key, value in found.items()
        if key.endswith("cosine_float64") and value is not None and value < LEAST
    ]
    warning = "; float32 loses it here: take larger batches" if low else ""
    return (
        f"{name}: hypergradient ({found['mode']}) against the exact one on {found['images']} "
        f"images: {'; '.join(said)}{warning}"
    )


def _said(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _start(task, state) -> tuple:
    """Arguments of the first architecture step, on `CHECKED` images at most and without dropout;
    and what they follow from, apart from the weights of the two terms.
    """
    config, key = task.config, (task.config.seed, 0)
    most = min(config.batch_size, CHECKED)
    rows = search_state.order(task.rows_a, most, 1, search_state.TRAIN, *key)[0]
    val = search_state.drawn(task.rows_b, most, search_state.VALIDATION, *key, 0)
    within = min(config.warm_up, config.epochs - 1)
    rates = search_loop.learning_rates(task, 0, within) | {"skip_rate": 0.0}
    words = tf.constant(search_state.words(search_state.STEP, *key, 0))
    train = task.batch(rows, 0)
    given = {
        **{
            name: [tf.constant(array) for array in getattr(state, name)]
            for name in ("weights", "buffers", "arch")
        },
        "train": train,
        "val": task.batch(val, 0),
        "rates": search_step.Rates(
            **{name: tf.constant(value, tf.float32) for name, value in rates.items()}, seed=words
        ),
    }
    shared = tuple(value for name, value in rates.items() if name not in ("gamma", "own"))
    images = files.digest([task.inputs.facts, rows.tolist(), val.tolist()])
    about = (config.seed, shared, str(config.augmentation), images)
    if config.lease is None:
        return given, about
    seed = tf.constant(search_state.words(search_state.DELTA, *key, 0))
    delta = lease.initial_delta(tf.zeros(train[0].shape), config.lease, seed)
    told = [tf.constant(array) for array in state.audience]
    return given | {"told": told, "lecture": train, "delta": delta}, about


def _doubled(value):
    """Everything that is float32 in float64; the values stay."""
    return tf.nest.map_structure(
        lambda t: tf.cast(t, tf.float64) if t.dtype == tf.float32 else t, value
    )


def _flat(gradients) -> np.ndarray:
    return np.concatenate([np.asarray(g, "f8").ravel() for g in gradients])


def _agreement(ours: np.ndarray, exact: np.ndarray) -> dict:
    lengths = np.linalg.norm(ours), np.linalg.norm(exact)
    if not min(lengths) > 0:
        return {"cosine": None, "norm_ratio": None}
    return {
        "cosine": float(ours @ exact / np.prod(lengths)),
        "norm_ratio": float(lengths[0] / lengths[1]),
    }
