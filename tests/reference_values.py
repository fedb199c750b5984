"""Values that published code computed, kept in ``tests/oracles``, whose README says where each file
is from.
"""

import functools
import json
import math

import numpy as np

from kit import paths

FOLDER = paths.ROOT / "tests" / "oracles"


@functools.cache
def oracle(paper: str, name: str):
    """
    The values of one file.

    Parameters
    ----------
    paper : str
        Folder below ``tests/oracles``.
    name : str
        Name of the file without its ending.

    Returns
    -------
    dict
        Arrays of an npz file by key, or the object of a JSON file. A file that names a network's
        weights also gets ``w:<name>`` for each of them and, where it holds a flat vector of
        gradients, ``gradtrain:<name>``.
    """
    file = FOLDER / paper / f"{name}.json"
    if file.exists():
        return json.loads(file.read_text(encoding="utf-8"))
    with np.load(file.with_suffix(".npz")) as stored:
        values = dict(stored)
    if "weight_names" in values:
        values |= _by_weight(values)
    return values


def _by_weight(values: dict) -> dict:
    """Weights of the network that a file names, from their formula, and its gradients, tensor by
    tensor.
    """
    made, start = {}, 0
    shapes = [tuple(shape[shape > 0].tolist()) for shape in values["weight_shapes"]]
    for place, (name, shape) in enumerate(
        zip(values["weight_names"].astype(str), shapes, strict=True), start=1
    ):
        made[f"w:{name}"] = weight(place, shape, gain=len(shape) == 1 and name.endswith("weight"))
        if "gradients" in values:
            size = math.prod(shape)
            made[f"gradtrain:{name}"] = values["gradients"][start : start + size].reshape(shape)
            start += size
    return made


def weight(place: int, shape: tuple, gain: bool = False) -> np.ndarray:
    """
    Weight of a reference network, which is no random draw but a formula.

    Parameters
    ----------
    place : int
        Its place among the weights of the original network, counted from 1.
    shape : tuple
        Its shape in the original network: outputs first.
    gain : bool
        Whether it is the factor of a normalisation, which lies around 1.

    Returns
    -------
    ndarray
        float64, scaled by the root of the number of inputs of an output.
    """
    if gain:
        return 1 + 0.1 * np.sin(np.arange(shape[0]))
    i = np.arange(1, math.prod(shape) + 1, dtype=float)
    wave = np.sin(0.7 * place + 1.3 * i + 0.11 * i * cosines()[: i.size])
    return (wave / np.sqrt(i.size // shape[0])).reshape(shape)


@functools.cache
def cosines(count: int = 400_000, bits: int = 200) -> np.ndarray:
    """
    The cosines of 0.5, 1, 1.5 and so on, rounded correctly, hence the same on every machine.

    The formula multiplies them by up to 40,000 before it takes the sine, so that the last bit of
    a mathematical library's cosine would show in the logits. Integers of `bits` binary places
    carry the recurrence cos((n + 1) a) = 2 cos(a) cos(n a) - cos((n - 1) a) without loss.
    """
    one = term = 1 << bits
    half, n = 0, 0
    while term:  # the power series of cos(0.5)
        half += term if n % 4 == 0 else -term
        n += 2
        term //= 4 * n * (n - 1)
    before, now, made = one, half, []
    for _ in range(count):
        made.append(now / one)
        before, now = now, (half * now >> (bits - 1)) - before
    return np.array(made)
