"""One training step in place of a training, and what the whole training would take; see
:mod:`kit.rehearsal`.

Memory is measured in a process of its own, since an allocator keeps what it once got: a fresh
process builds the network from its configuration, takes two steps and predicts one batch. It uses
Adam whatever the training uses, which keeps two numbers a weight; the measured time of a step is
that of the training itself. Operations are counted by TensorFlow's profiler over the forward pass;
a step is taken for three of them.
"""

import importlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from kit import files, processes, rehearsal
from kit.data.inputs import Inputs, PartRows
from kit.record import Run
from kit.training.config import TrainConfig
from kit.training.predictions import OutOfMemory

if TYPE_CHECKING:
    import keras

SHARE = 0.85  # of the free memory that a measured step may take
EPOCHS = 2  # one step each: the first is traced, the second timed
_FOUND: dict = {}  # signature -> what was measured, in this process


class Parts(dict):
    """Row numbers by part, cut to what a rehearsal needs, and what they were."""

    planned: dict


def shortened(config: TrainConfig, inputs: Inputs, parts: PartRows) -> tuple[TrainConfig, Parts]:
    """The training that stands for `config`.

    Returns
    -------
    TrainConfig
        Of two epochs.
    Parts
        One batch of "train", two images a class of the others.
    """
    classes = len(np.unique(inputs.labels))
    few = Parts(
        {
            part: rehearsal.few(
                inputs.labels,
                rows,
                config.batch_size if part == "train" else rehearsal.PREDICTED * classes,
            )
            for part, rows in parts.items()
        }
    )
    few.planned = {
        "epochs": config.epochs,
        "batch": config.batch_size,
        "images": len(parts["train"]),
        "steps": config.epochs * -(-len(parts["train"]) // config.batch_size),
        "predicted": sum(len(rows) for part, rows in parts.items() if part != "train")
        + (config.epochs * len(parts["validation"]) if "validation" in parts else 0),
        "seed": config.seed,
    }
    return replace(config, epochs=min(EPOCHS, config.epochs)), few


def fitting(name: str, network: "keras.Model", shape: tuple, batch: int) -> dict:
    """Measure a step of a network in a process of its own, at the largest batch that ends well.

    Parameters
    ----------
    name : str
        Of the training, for the sentence if nothing fits.
    network : keras.Model
    shape : tuple of int
        Of one input, without the batch axis.
    batch : int
        Published; halved until the step fits.

    Returns
    -------
    dict
        signature, parameters, batch (that fits), peak (bytes that the step adds to a process with
        TensorFlow loaded), flops (of one image's forward pass, floating point operations) and
        predict_seconds (one image, in a batch).

    Raises
    ------
    kit.training.predictions.OutOfMemory
        If not even a batch of two does.
    """
    text = network.to_json()
    signature = files.digest([_unnamed(json.loads(text)), list(shape), batch])[:16]
    if signature not in _FOUND:
        known = [
            {**r, "batch": r["batch_here"]}
            for r in rehearsal.written("trainings")
            if r["signature"] == signature
        ]
        _FOUND[signature] = known[0] if known else _measured(name, text, shape, batch)
    keys = ("parameters", "batch", "peak", "flops", "predict_seconds")
    return {"signature": signature} | {key: _FOUND[signature][key] for key in keys}


def _unnamed(config):
    """A network's configuration without names and seeds, which number themselves anew."""
    if isinstance(config, dict):
        return {k: _unnamed(v) for k, v in config.items() if k not in ("name", "seed")}
    if isinstance(config, list):
        return [_unnamed(v) for v in config]
    return None if isinstance(config, str) and config[-1:].isdigit() else config


def _measured(name: str, text: str, shape: tuple, batch: int) -> dict:
    folder = rehearsal.folder() / "plan" / "measured"
    files.write_text(folder / "network.json", text)
    modules = sorted({m for m in _modules(json.loads(text)) if m.startswith("kit.")})
    size = batch
    while size >= 2:
        asked = {"folder": str(folder), "shape": list(shape), "batch": size, "modules": modules}
        (folder / "step.json").unlink(missing_ok=True)
        peak = processes.peaks("kit.training.rehearsed:take_steps", [asked])[0]
        facts = files.read_json(folder / "step.json", default=None)
        if facts:
            return {**facts, "batch": size, "peak": peak}
        size //= 2
    raise OutOfMemory(
        f"{name}: a step at {shape} does not end well in a process of its own, not even with two "
        "images; use a machine with more memory."
    )


def _modules(config):
    if isinstance(config, dict):
        if isinstance(config.get("module"), str):
            yield config["module"]
        if isinstance(config.get("registered_name"), str):
            yield config["registered_name"]
        for value in config.values():
            yield from _modules(value)
    elif isinstance(config, list):
        for value in config:
            yield from _modules(value)


def take_steps(folder: str, shape: list, batch: int, modules: list) -> None:
    """Two training steps and two predictions of the network in `folder`, whose facts go there."""
    import keras

    _within_memory()
    for module in modules:
        importlib.import_module(module)
    model = keras.models.model_from_json((Path(folder) / "network.json").read_text())
    facts = {"parameters": int(model.count_params()), "flops": operations(model, shape)}
    model.compile(keras.optimizers.Adam(1e-4), _distance)
    rng = np.random.default_rng(0)
    x = rng.random((batch, *shape), np.float32)
    targets = [np.zeros((batch, *output.shape[1:]), np.float32) for output in model.outputs]
    for _ in range(2):
        model.train_on_batch(x, targets if len(targets) > 1 else targets[0])
    for _ in range(2):
        started = time.perf_counter()
        model.predict_on_batch(x)
        facts["predict_seconds"] = (time.perf_counter() - started) / batch
    files.write_json(Path(folder) / "step.json", facts)


def _within_memory() -> None:
    """Let a step that is too large end with an error, and this process die before any other where
    the limit comes too late; on systems other than Linux the system decides.
    """
    if sys.platform != "linux":
        return
    Path("/proc/self/oom_score_adj").write_text("1000")
    process = psutil.Process()
    held = process.memory_info().data
    limit = held + int(SHARE * psutil.virtual_memory().available)
    process.rlimit(psutil.RLIMIT_DATA, (limit, limit))


def _distance(targets, outputs):
    """A loss that any output can have: what is measured is the network, not what it learns."""
    import keras

    return keras.ops.mean(keras.ops.square(targets - outputs))


def operations(model: "keras.Model", shape: Sequence[int]) -> float:
    """Floating point operations of one image's forward pass, multiplications and additions apart.

    Parameters
    ----------
    model : keras.Model
    shape : sequence of int
        Of one input, without the batch axis.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2_as_graph,
    )

    traced = tf.function(lambda x: model(x, training=False)).get_concrete_function(
        tf.TensorSpec((1, *shape), tf.float32)
    )
    _, graph = convert_variables_to_constants_v2_as_graph(traced)
    with tf.Graph().as_default() as counted:
        tf.graph_util.import_graph_def(graph, name="")
        options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
        options["output"] = "none"
        found = tf.compat.v1.profiler.profile(counted, options=options)
    return float(found.total_float_ops)


class Watch:
    """What a rehearsed training takes, while it runs.

    Parameters
    ----------
    run : record.Run
    config : TrainConfig
        Shortened.
    network : keras.Model
    parts : Parts
    """

    def __init__(self, run: Run, config: TrainConfig, network: "keras.Model", parts: Parts) -> None:
        self.run, self.planned = run, parts.planned
        self.seconds: list[float] = []
        inner = getattr(network, "network", network)
        self.facts = fitting(config.name, inner, tuple(network.input_shape[1:]), config.batch_size)
        self.config = replace(config, batch_size=self.facts["batch"])
        self.parts = Parts({**parts, "train": parts["train"][: self.facts["batch"]]})
        self.parts.planned = parts.planned

    def callback(self) -> "keras.callbacks.Callback":
        """Times each step, as a Keras callback."""
        import keras

        watch = self

        class Timer(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None):
                self.started = time.perf_counter()

            def on_train_batch_end(self, batch, logs=None):
                watch.seconds.append(time.perf_counter() - self.started)

        return Timer()

    def write_down(self) -> None:
        """Keep the facts for the plan."""
        if self.seconds:
            settle(self.config.name, self.run.folder.name, self.planned, self.facts, self.seconds)


def settle(name: str, run: str, planned: dict, facts: dict, seconds: list) -> None:
    """Write a rehearsed training down: the published amount of work and what a step takes here."""
    scale = planned["batch"] / facts["batch"]  # of a batch that had to be reduced
    rehearsal.write_down(
        "trainings",
        name,
        {
            **planned,
            **facts,
            "batch": planned["batch"],
            "batch_here": facts["batch"],
            "run": run,
            "step_seconds": min(seconds) * scale,
            "traced_seconds": seconds[0],
        },
    )


@dataclass(frozen=True, kw_only=True)
class Short:
    """One of many short trainings of a search, cut to one step an epoch.

    Attributes
    ----------
    rows : numpy.ndarray
        Training images, one batch.
    epochs, batch : int
        What is left of them.
    name, run : str
    planned, facts : dict
        See :func:`settle`.
    """

    rows: np.ndarray
    epochs: int
    batch: int
    name: str
    run: str
    planned: dict
    facts: dict

    def write_down(self, seconds: list) -> None:
        """Keep the facts for the plan; `seconds` of each step."""
        settle(self.name, self.run, self.planned, self.facts, seconds)


def short(
    name: str,
    network: "keras.Model",
    inputs: Inputs,
    rows: np.ndarray,
    *,
    values: Mapping[str, Any],
    of: dict,
) -> Short:
    """What stands for a short training (:meth:`kit.training.short.Trainer.train`).

    Parameters
    ----------
    name : str
        Of the architecture.
    network : keras.Model
    inputs : kit.data.inputs.Inputs
    rows : numpy.ndarray
        Training images.
    values : dict
        Of the candidate; trainings that differ by them are counted apart.
    of : dict
        epochs, size, batch and seed.
    """
    epochs, size, batch = of["epochs"], of["size"], of["batch"]
    shape = (size, size, network.input_shape[-1])
    facts = fitting(name, network, shape, batch)
    planned = {
        "epochs": epochs,
        "batch": batch,
        "images": len(rows),
        "steps": epochs * -(-len(rows) // batch),
        "predicted": 0,
        "seed": of["seed"],
    }
    return Short(
        rows=rehearsal.few(inputs.labels, rows, facts["batch"]),
        epochs=min(EPOCHS, epochs),
        batch=facts["batch"],
        name=f"{name}-{size}px",
        run=files.digest([{k: str(v) for k, v in values.items()}, of, len(rows)])[:10],
        planned=planned,
        facts=facts,
    )
