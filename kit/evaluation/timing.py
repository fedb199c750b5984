"""Time of one prediction, the CAD paper's Table 6, by three protocols.

The authors time the second of two ``model.predict`` calls on each prepared image; reading,
cropping, filtering and colouring are left out and so is the device, which must have been a
processor. ``predict`` here does the same. Most of such a time is the overhead of `model.predict`,
so that Table 6 says little about small networks; ``compiled`` therefore times one compiled function
that is used again for every image, and ``end to end`` adds all that lies between a file's bytes and
the probabilities. The two run every image once, after a few untimed images in place of one before
each. The clock is monotonic and stops when the result is in main memory. Medians are reported
beside the published minimum, maximum and mean: one interruption by the machine moves the last two.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kit import record
from kit.errors import KitError

if TYPE_CHECKING:
    import keras

WARM_UP = 3
Call = Callable[[np.ndarray], np.ndarray]  # one prepared image -> probabilities


class NothingToTime(KitError):
    """No images, or no repetition, to time."""


@dataclass(frozen=True)
class Times:
    """Times of single-image predictions.

    Attributes
    ----------
    protocol : str
        "predict", "compiled" or "end to end".
    device : str
        What the predictions ran on.
    ms : numpy.ndarray
        float64 (repeats, images), milliseconds.
    first_ms : float
        The very first call of this protocol in milliseconds; it holds the tracing of the graph
        unless the model was run this way before.
    """

    protocol: str
    device: str
    ms: np.ndarray
    first_ms: float


def predict_times(
    model: "keras.Model",
    images: np.ndarray | Sequence[np.ndarray],
    repeats: int = 1,
    before_each: bool = True,
) -> Times:
    """Time ``model.predict`` on one image after the other, as the paper did.

    Parameters
    ----------
    model : keras.Model
    images : float array (N, S, S, 3)
        Prepared inputs.
    repeats : int
        Rounds through all images.
    before_each : bool
        Run every image once untimed just before it is timed, as published; False warms up on the
        first image alone.

    Raises
    ------
    NothingToTime
    """
    return _measure(
        "predict",
        lambda image: model.predict(image, verbose=0),
        _singles(images),
        repeats,
        before_each,
    )


def compiled_call(model: "keras.Model", xla: bool = False) -> Call:
    """Compile a model's inference on one image; keep the function and use it again, each new one is
    traced anew.

    Parameters
    ----------
    model : keras.Model
        Of one input of fixed size.
    xla : bool
        Compile with XLA: faster on GPUs, slow to compile.

    Returns
    -------
    callable
        float32 (1, S, S, 3) -> numpy.ndarray (1, classes). It sees later changes of the weights.
    """
    import tensorflow as tf

    shape = (1, *model.inputs[0].shape[1:])
    function = tf.function(
        lambda image: model(image, training=False),
        input_signature=[tf.TensorSpec(shape, tf.float32)],
        jit_compile=xla,
        autograph=False,
    )
    return lambda image: function(tf.convert_to_tensor(image, tf.float32)).numpy()


def compiled_times(
    model: "keras.Model",
    images: np.ndarray | Sequence[np.ndarray],
    repeats: int = 1,
    call: Call | None = None,
) -> Times:
    """Time a compiled function on one image after the other.

    Parameters
    ----------
    model, images, repeats : see :func:`predict_times`
    call : callable, optional
        From :func:`compiled_call`, to share its compilation; None compiles.

    Raises
    ------
    NothingToTime
    """
    return _measure("compiled", call or compiled_call(model), _singles(images), repeats)


def end_to_end_times(
    model: "keras.Model",
    contents: Sequence[bytes],
    prepare: Callable[[bytes], np.ndarray],
    repeats: int = 1,
    call: Call | None = None,
) -> Times:
    """Time all that happens to an image between its file's bytes and its probabilities; reading
    from disk is left out.

    Parameters
    ----------
    model, repeats, call : see :func:`compiled_times`
    contents : sequence of bytes
        Image files.
    prepare : callable
        bytes -> uint8 (S, S, 3), for example ``lambda data: preprocess.cad(data, 200,
        "safe").image``; divided by 255 here.

    Raises
    ------
    NothingToTime
    """
    call = call or compiled_call(model)
    return _measure(
        "end to end",
        lambda data: call(np.asarray(prepare(data), np.float32)[None] / np.float32(255)),
        list(contents),
        repeats,
    )


def _singles(images) -> list:
    images = np.asarray(images, np.float32)
    return [images[number : number + 1] for number in range(len(images))]


def _measure(protocol: str, run, items: list, repeats: int, before_each: bool = False) -> Times:
    if not items or repeats < 1:
        raise NothingToTime(
            f"{len(items)} images and {repeats} repetitions were given to time {protocol!r}; give "
            "at least one of each."
        )
    first = _milliseconds(run, items[0])
    for number in range(WARM_UP):
        run(items[number % len(items)])
    times = np.empty((repeats, len(items)))
    for turn in range(repeats):
        for number, item in enumerate(items):
            if before_each:
                run(item)
            times[turn, number] = _milliseconds(run, item)
    return Times(protocol, record.device_name(), times, first)


def _milliseconds(run, item) -> float:
    start = time.perf_counter_ns()
    run(item)
    return (time.perf_counter_ns() - start) / 1e6


def all_protocols(
    model: "keras.Model",
    contents: Sequence[bytes],
    prepare: Callable[[bytes], np.ndarray],
    repeats: int = 1,
) -> list:
    """Time the three protocols on the same images, which are prepared once for the first two.

    Parameters
    ----------
    model, contents, prepare, repeats : see :func:`end_to_end_times`

    Returns
    -------
    list of Times
        predict, compiled, end to end.

    Raises
    ------
    NothingToTime
    """
    images = [np.asarray(prepare(data), np.float32) / np.float32(255) for data in contents]
    call = compiled_call(model)
    return [
        predict_times(model, images, repeats),
        compiled_times(model, images, repeats, call),
        end_to_end_times(model, contents, prepare, repeats, call),
    ]


def timing_table(times: dict) -> pd.DataFrame:
    """Table 6 with all protocols.

    Parameters
    ----------
    times : dict of str to list of Times
        By model.

    Returns
    -------
    pandas.DataFrame
        Columns model, protocol, device, images, repeats, min, max, mean, median, first
        (milliseconds but for the counts), sorted by protocol in the order given and then by mean,
        as published.
    """
    rows = [
        {
            "model": model,
            "protocol": one.protocol,
            "device": one.device,
            "images": one.ms.shape[1],
            "repeats": one.ms.shape[0],
            "min": one.ms.min(),
            "max": one.ms.max(),
            "mean": one.ms.mean(),
            "median": float(np.median(one.ms)),
            "first": one.first_ms,
        }
        for model, measured in times.items()
        for one in measured
    ]
    order = {row["protocol"]: number for number, row in reversed(list(enumerate(rows)))}
    return pd.DataFrame(sorted(rows, key=lambda row: (order[row["protocol"]], row["mean"])))
