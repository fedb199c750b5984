"""Time and memory of the networks of PBC-NAS in 3D, measured beside Table 5: milliseconds for a
volume, peak memory of a training step.

The publication gives neither. Both are of random weights and random volumes, which changes neither,
at the volume size of the run; each is measured once and kept beside the runs.
"""

import contextlib
from collections.abc import Iterator
from concurrent import futures
from typing import TYPE_CHECKING

import numpy as np

from kit import compat, files, kernels, paths, processes, record
from kit.evaluation import timing
from kit.search.nas3d import final, space
from kit.search.nas3d import networks as nas3d_networks
from kit.search.nas3d import resnet as nas3d_resnet
from kit.search.nas3d.final import Recipe3D
from kit.studies.pbcnas import plan as pbcnas_plan

if TYPE_CHECKING:
    import keras


def networks(plan: pbcnas_plan.Plan, chosen: dict) -> dict:
    """What time and memory are measured of: the first found network of each set and the ResNets;
    title -> arguments of :func:`made`.
    """
    names = dict(plan.datasets)
    found = {
        f"{names[key]}, found 1": {"network": space.to_json(network)}
        for (key, title), (network, _) in chosen.items()
        if title == "found 1"
    }
    return found | {
        nas3d_resnet.title(*pbcnas_plan.RESNETS[name]): {"resnet": name, "width": plan.resnet_width}
        for name in plan.resnets
    }


def made(
    edge: int, network: dict | None = None, resnet: str | None = None, width: float = 1.0
) -> "keras.Model":
    """A network of :func:`networks` for two classes, with random weights."""
    return (
        nas3d_networks.build(space.from_json(network), 2, edge)
        if network
        else nas3d_resnet.build(*pbcnas_plan.RESNETS[resnet], edge=edge, width=width)
    )


def latency(plan: pbcnas_plan.Plan, chosen: dict, volumes_timed: int = 5) -> dict:
    """Milliseconds for one volume by a compiled function: title ->
    [:class:`kit.evaluation.timing.Times`].
    """
    found, grey = (
        {},
        np.random.default_rng(0).random((volumes_timed, *[plan.edge] * 3, 1), np.float32),
    )
    for title, network in networks(plan, chosen).items():
        key = {
            "edge": plan.edge,
            "volumes": volumes_timed,
            "device": record.device_name(),
            **network,
        }
        file = _measurement(plan, key)
        if not file.exists():
            times = timing.compiled_times(made(plan.edge, **network), grey)
            files.write_json(
                file, {"title": title, **key, "ms": times.ms.tolist(), "first_ms": times.first_ms}
            )
        stored = files.read_json(file)
        found[title] = [
            timing.Times("compiled", stored["device"], np.array(stored["ms"]), stored["first_ms"])
        ]
    return found


def train_twice(edge: int, batch: int, graph: bool, network: dict) -> None:
    """Two training steps on random volumes, traced or layer by layer, to measure their memory."""
    rng, model = (
        np.random.default_rng(0),
        final.compiled(made(edge, **network), Recipe3D(epochs=1, batch_size=batch), batch, graph),
    )
    for _ in range(2):
        model.train_on_batch(rng.random((batch, *[edge] * 3, 1), np.float32), np.zeros(batch, int))


@contextlib.contextmanager
def memory(plan: pbcnas_plan.Plan, chosen: dict, loaded: dict) -> Iterator[dict]:
    """Measure the peak memory of training steps, on a processor in another process while the block
    runs; gives a dictionary, which is full after the block.

    Title -> bytes that a step of the final training adds to a process with TensorFlow; None: it
    failed, or the system does not tell.
    """
    found, waiting = {}, {}
    graph = any(final.traced(plan.final, len(parts["train"])) for _, parts in loaded.values())
    for title, network in networks(plan, chosen).items():
        step = {
            "edge": plan.edge,
            "batch": plan.final.batch_size,
            "graph": graph,
            "network": network,
        }
        file = _measurement(plan, step | {"device": record.device_name()})
        if file.exists():
            found[title] = files.read_json(file)["bytes"]
        else:
            waiting[title] = file, step
    asked = "kit.studies.pbcnas.costs:train_twice", [step for _, step in waiting.values()]
    with futures.ThreadPoolExecutor(1) as pool:
        early = None if compat.use_xla() else pool.submit(processes.peaks, *asked)
        yield found
        for (title, (file, step)), size in zip(
            waiting.items(), early.result() if early else processes.peaks(*asked), strict=True
        ):
            found[title] = size
            files.write_json(
                file, {"title": title, **step, "device": record.device_name(), "bytes": size}
            )


def _measurement(plan, key: dict):
    return (
        paths.results_dir()
        / plan.profile
        / "pbcnas"
        / "timings"
        / f"{files.digest(kernels.keyed(key))[:10]}.json"
    )
