"""Memory of a search step, estimated before the search starts, and which knob to turn when it does
not fit.

Users of these methods ask for this most: the published codes stop with an out-of-memory error after
minutes, and a second-order or LeaSE step needs several times what a first-order step does. The
estimate counts what the forward pass of the supernet (as :mod:`kit.search.nas2d.supernet` computes
it) keeps for its gradient, from the geometry of the cells, without tracing anything. Two things are
measured, not derived: the factors `PASSES` for steps that hold more than one pass at a time, and
`FRESH`, what the gradients in flight add. Estimated and measured (resident memory beyond
TensorFlow's own, two cores, TensorFlow 2.21, 3 cells, 32 px, MiB): DARTS, 8 channels, batch 32:
first order 680 and 657, finite differences 1,020 and 996, exact second order 2,720 and 2,801;
PC-DARTS, 16 channels, batch 32: first order 480 and 507, LeaSE exact 3,960 and 3,927; LeaSE on
DARTS, batch 16: exact 3,160 and 3,242, by finite differences 1,860 and 1,891. The estimate is of
memory on a CPU; a GPU holds the same activations, its workspace differs.
"""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tensorflow as tf

from kit import processes
from kit.search.nas2d import audience as audiences
from kit.search.nas2d import hypergradient, supernet
from kit.search.nas2d import lease as nas_lease
from kit.training.predictions import OutOfMemory

FLOAT = 4
PROGRAM = 680 * 2**20  # the interpreter with TensorFlow, before any graph
EDGE_GRAPH = 300_000  # bytes of graph for every operation on every edge, and pass
FRESH = 1.25  # gradients in flight and the allocator's reserve, as a factor on the activations
PASSES = {
    "first": 1.0,
    "finite": 1.5,
    "exact": 4.0,
    "lease_finite": 8.0,  # equation 12 alone is a difference
    "lease_exact": 8.0,
}  # activations held at a time, in those of one pass
COPIES = {
    "first": 3,
    "finite": 6,
    "exact": 5,
    "lease_finite": 8,
    "lease_exact": 8,
}  # weights: themselves, momentum, gradients, virtual ones
HELD = 3  # passes of the audience alive at a time
HEADROOM = 0.9  # share of the free memory that a step may take


class TooLarge(OutOfMemory):
    """A search step needs more memory than there is."""


@dataclass(frozen=True)
class Estimate:
    """What a search step needs, in bytes.

    Attributes
    ----------
    space : kit.search.nas2d.supernet.Space
    size, batch : int
    kind : str
        Key of `PASSES`.
    audience : tuple
        (name, options) of the audience, or empty.
    program, weights, activations, audience_activations : int
        Interpreter and graph; weights with optimiser state, gradients and virtual copies; what all
        passes through the supernet keep at a time; the same of the audience.
    """

    space: supernet.Space
    size: int
    batch: int
    kind: str
    audience: tuple
    program: int
    weights: int
    activations: int
    audience_activations: int

    @property
    def step(self) -> int:
        """What the step adds to a process that has loaded TensorFlow."""
        return self.total - PROGRAM

    @property
    def total(self) -> int:
        """Peak of the process, in bytes."""
        return self.program + self.weights + self.activations + self.audience_activations

    def __str__(self) -> str:
        rows = [
            ("program and graph", self.program),
            ("weights and optimiser", self.weights),
            ("activations", self.activations),
        ]
        rows += [("activations of the audience", self.audience_activations)] * bool(self.audience)
        return "\n".join(
            f"{name:<28} {_words(value):>8}" for name, value in [*rows, ("together", self.total)]
        )


def _words(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def estimate(
    space: supernet.Space,
    size: int,
    batch: int,
    order: int = 1,
    mode: str = "exact",
    lease: bool | nas_lease.LeaseSettings = False,
    audience: str = "resnet18",
    audience_options: dict | None = None,
) -> Estimate:
    """Estimate the peak memory of an architecture step, which is the dearest of a search.

    Parameters
    ----------
    space : kit.search.nas2d.supernet.Space
    size : int
        Side of the images in pixels.
    batch : int
        Images of a training batch; the validation batch is as large.
    order : {1, 2}
        Of the explainer's architecture gradient.
    mode : {"exact", "finite"}
        How second derivatives are taken.
    lease : bool or settings
        Anything true: a step of LeaSE, with an audience.
    audience, audience_options
        As in :func:`kit.search.nas2d.audience.weight_shapes`.

    Returns
    -------
    Estimate
    """
    kind = f"lease_{mode}" if lease else "first" if order == 1 else mode
    told = (audience, dict(audience_options or {})) if lease else ()
    own = (
        sum(
            math.prod(shape)
            for _, shape in audiences.weight_shapes(
                told[0], space.classes, size, **_all(told[1], space)
            )
        )
        if lease
        else 0
    )
    shown = audience_floats(told[0], size, **told[1]) * HELD if lease else 0
    return Estimate(
        space,
        size=size,
        batch=batch,
        kind=kind,
        audience=told,
        program=PROGRAM + round(graph(space, PASSES[kind])),
        weights=FLOAT * COPIES[kind] * (supernet.parameters(space) + own),
        activations=round(FLOAT * batch * activation_floats(space, size) * PASSES[kind] * FRESH),
        audience_activations=round(FLOAT * batch * shown * FRESH),
    )


def graph(space: supernet.Space, passes: float) -> float:
    """Bytes of the graph of so many passes through a supernet."""
    operations = sum(len(ops) for reduction in (False, True) for ops in space.edge_ops(reduction))
    return EDGE_GRAPH * (operations // 2) * space.cells * passes


def _all(options: dict, space) -> dict:
    return {"input_channels": space.input_channels, **options}


def activation_floats(space: supernet.Space, size: int) -> int:
    """Numbers per image that one forward pass keeps for its gradient."""
    area, total = size * size, 0
    total += area * (space.input_channels + 3 * space.channels)
    for cell in supernet.cells_of(space):
        total += _cell_floats(space, cell, area)
        area //= 4 if cell.reduction else 1
    return total


def _cell_floats(space, cell, area: int) -> int:
    """Of one cell whose inputs have `area` pixels."""
    small = area // 4 if cell.reduction else area
    kept = cell.last * area + (
        2 * cell.before_last * area if cell.after_reduction else 0
    )  # rectified input; sub-lattices of the larger one
    kept += (
        4 * cell.channels * area
    )  # both preprocessed states, before and after their normalisation
    kept += supernet.NODES * cell.channels * small
    if space.partial > 1:
        kept += (supernet.NODES + 1) * (cell.channels - cell.width) * small  # what passes by
    return kept + sum(
        _state_floats(space, cell, source, area, small) for source in range(supernet.NODES + 1)
    )


def _state_floats(space, cell, source: int, area: int, small: int) -> int:
    """Of everything that leaves one state."""
    halved = cell.reduction and source < 2
    edges = [space.edge_ops(cell.reduction)[edge] for edge in supernet.LEAVING[source]]
    count = [sum(primitive in edge for edge in edges) for primitive in range(8)]
    inside, out = cell.width * (area if halved else small), cell.width * small
    separable, dilated = count[4] + count[5], count[6] + count[7]
    kept = inside * (2 if space.partial > 1 else 1)  # rectified; its share of the channels
    kept += (
        2 * out * (bool(count[1]) + bool(count[2]))
    )  # pools, and their copy in the common input of a 1x1 convolution
    kept += (2 * out + out * count[3] if halved else out) * bool(count[3]) + (
        2 * out * count[3] if space.family == "pdarts" and not halved else 0
    )
    kept += inside * halved * (bool(count[4]) + bool(count[5])) + out * bool(
        dilated
    )  # padded, and split into sub-lattices
    return kept + out * (
        5 * separable + 2 * dilated
    )  # input of every convolution and every normalisation


def audience_floats(name: str, size: int, width: int = 64, stem: str = "3x3", **_: Any) -> int:
    """Numbers per image that one forward pass of an audience keeps, roughly: three maps a
    convolution with BatchNorm, one without.
    """
    if name == "vgg13":
        return sum(
            size * size // 4 ** (number // 2) * width * multiple
            for number, multiple in enumerate(audiences.CONVOLUTIONS)
        )
    side = size if stem == "3x3" else size // 4
    return (
        3
        * width
        * (
            side * side * (1 if stem == "3x3" else 4)
            + sum(
                side * side // 4**stage * multiple * 4
                for stage, multiple in enumerate(audiences.STAGES)
            )
        )
    )


def available() -> int:
    """Free memory in bytes, for this process and within its control group where there is one."""
    free = psutil.virtual_memory().available
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        try:
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such group, or no limit
            continue
    return (
        free + psutil.Process().memory_info().rss
    )  # what is held already counts in the estimate's program


def advice(needed: Estimate, limit: int | None = None) -> list:
    """Knobs that would make a step fit, each by itself; where none does without ruining the search,
    several together.

    Returns
    -------
    list of (str, Estimate)
        The gentlest first; empty if nothing helps.
    """
    limit = available() * HEADROOM if limit is None else limit
    single = [(words, changed) for words, changed in _knobs(needed, 16) if changed.total <= limit]
    if single:
        return single
    words, together = {}, needed
    for knob, least in (
        ("mode", 0),
        ("batch_size", 16),
        ("channels", 0),
        ("cells", 0),
        ("batch_size", 2),
    ):
        for said, changed in _knobs(together, least):
            if said.split("=")[0] == knob and together.total > limit:
                words[knob], together = said, changed
    return [(" and ".join(words.values()), together)] if together.total <= limit else []


def _knobs(needed: Estimate, least: int) -> list:
    space, batches = needed.space, []
    batch = needed.batch // 2
    while batch >= max(2, least):
        batches.append((f"batch_size={batch}", _again(needed, batch=batch)))
        batch //= 2
    result = (
        [("mode='finite'", _again(needed, kind=needed.kind.replace("exact", "finite")))]
        if needed.kind == "exact"
        else []
    )
    result += batches
    if needed.kind in ("exact", "finite"):
        result.append(("order=1", _again(needed, kind="first")))
    channels = space.channels // 2
    if channels % (2 * space.partial) == 0 and channels:
        result.append(
            (f"channels={channels}", _again(needed, space=replace(space, channels=channels)))
        )
    if space.cells > 3:
        result.append(
            (
                f"cells={max(3, space.cells // 2)}",
                _again(needed, space=replace(space, cells=max(3, space.cells // 2))),
            )
        )
    return result


def _again(needed: Estimate, space=None, batch=None, kind=None) -> Estimate:
    kind = kind or needed.kind
    name, options = needed.audience or ("resnet18", {})
    return estimate(
        space or needed.space,
        needed.size,
        batch or needed.batch,
        order=1 if kind == "first" else 2,
        mode="finite" if kind.endswith("finite") else "exact",
        lease=bool(needed.audience),
        audience=name,
        audience_options=options,
    )


def check(needed: Estimate, limit: int | None = None) -> None:
    """Refuse a step that does not fit.

    Parameters
    ----------
    needed : Estimate
    limit : int, optional
        Bytes that the process may take; None: 90 % of what is free.

    Raises
    ------
    TooLarge
        One sentence with the knobs that would make it fit.
    """
    limit = available() * HEADROOM if limit is None else limit
    if needed.total <= limit:
        return
    space, knobs, seen = needed.space, [], set()
    for words, changed in advice(needed, limit):
        knob = words.split("=")[0]
        if knob not in seen:  # of several batch sizes the largest that fits
            seen.add(knob)
            knobs.append(f"{words} ({_words(changed.total)})")
    way = f"set {' or '.join(knobs)}" if knobs else "use smaller images, or another machine"
    network = (
        f"{space.family}, {space.channels} channels, {space.cells} cells, {needed.size} px, "
        f"batch {needed.batch}, {_KINDS[needed.kind]}"
    )
    raise TooLarge(
        f"A search step ({network}) needs about {_words(needed.total)} of memory and "
        f"{_words(limit)} may be used; {way}."
    )


_KINDS = {
    "first": "first order",
    "finite": "second order by finite differences",
    "exact": "exact second order",
    "lease_finite": "LeaSE with equation 12 by finite differences",
    "lease_exact": "LeaSE with exact derivatives",
}


def measured(needed: Estimate) -> int:
    """Bytes that the step really adds to a process that has loaded TensorFlow: run it in a process
    of its own, twice.

    Raises
    ------
    TooLarge
        If that process does not end well.
    """
    found = processes.peaks(
        "kit.search.nas2d.memory:take_steps", [{**asdict(needed), "space": asdict(needed.space)}]
    )[0]
    if found is None:
        raise TooLarge("The measured step did not end well; try a smaller one.")
    return found


def take_steps(**facts: Any) -> None:
    """Take the step of an `Estimate`, given by its fields, twice."""
    space, kind, rng = supernet.Space(**facts["space"]), facts["kind"], np.random.default_rng(0)
    weights, arch = supernet.initial_weights(space, 0), supernet.initial_arch(space, 0)
    told = facts["audience"] and audiences.initial_weights(
        facts["audience"][0], space.classes, facts["size"], 0, **_all(facts["audience"][1], space)
    )
    shape = (facts["batch"], facts["size"], facts["size"], space.input_channels)
    batches = [
        (
            rng.random(shape, np.float32),
            rng.integers(0, space.classes, facts["batch"]).astype(np.int32),
        )
        for _ in range(2)
    ]
    step = tf.function(_step(space, kind, facts["audience"]))
    for _ in range(2):
        step(
            *(
                tf.nest.map_structure(tf.constant, value)
                for value in (weights, list(told), arch, *batches)
            )
        )


def _step(space, kind: str, audience):
    def explainer(weights, arch, x):
        return supernet.forward(space, weights, arch, x)

    def step(weights, told, arch, train, val):
        if kind == "first":
            return hypergradient.derivatives(
                lambda: hypergradient.cross_entropy(explainer(weights, arch, train[0]), train[1]),
                weights,
            )[1]
        mode = kind.removeprefix("lease_")
        if not audience:
            return hypergradient.second_order(
                explainer, weights, arch, train, val, lr=0.025, mode=mode
            ).gradients
        settings = nas_lease.LeaseSettings()
        start = nas_lease.initial_delta(train[0], settings, [0, 0])
        return nas_lease.lease_gradient(
            explainer,
            lambda w, x: audiences.forward(audience[0], w, x),
            weights=weights,
            audience_weights=told,
            arch=arch,
            train=train,
            val=val,
            delta0=start,
            settings=settings,
            gamma=1.0,
            lr=0.025,
            audience_lr=0.025,
            order=1 if space.family != "darts" else 2,
            mode=mode,
        ).gradients

    return step
