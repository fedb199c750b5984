import os
import re
from dataclasses import replace

import pytest

from kit.errors import KitError
from kit.search.nas2d import memory, supernet
from kit.training.predictions import OutOfMemory

DARTS = supernet.Space("darts", 16, 8)
GIB = 2**30


@pytest.mark.skipif(
    not os.environ.get("KIT_MEASURE"),
    reason="minutes, and the peak depends on the machine; set KIT_MEASURE=1 to measure",
)
@pytest.mark.parametrize(
    ("space", "size", "batch", "settings"),
    [
        (supernet.Space("darts", 8, 3), 32, 48, {"order": 1}),
        (supernet.Space("pcdarts", 16, 3), 32, 64, {"order": 1}),
        (supernet.Space("pdarts", 8, 3), 32, 48, {"order": 1}),
        (supernet.Space("darts", 8, 3), 32, 32, {"order": 2}),
        (supernet.Space("darts", 8, 3), 32, 32, {"order": 2, "mode": "finite"}),
        (
            supernet.Space("pcdarts", 8, 3),
            32,
            32,
            {"order": 1, "lease": True, "audience_options": {"width": 16}},
        ),
        (
            supernet.Space("pcdarts", 8, 3),
            32,
            32,
            {"order": 1, "lease": True, "audience": "vgg13", "audience_options": {"width": 16}},
        ),
    ],
)
def test_estimates_agree_with_the_measured_peak(space, size, batch, settings):
    needed = memory.estimate(space, size, batch, **settings)
    assert memory.measured(needed) == pytest.approx(needed.step, rel=0.35)


@pytest.mark.parametrize("family", ["darts", "pcdarts", "pdarts"])
def test_activations_grow_with_pixels_channels_and_surviving_operations(family):
    space = supernet.Space(family, 16, 6)
    floats = memory.activation_floats(space, 32)
    assert memory.activation_floats(space, 64) == 4 * floats
    assert memory.activation_floats(replace(space, channels=32), 32) == pytest.approx(
        2 * floats, rel=0.02
    )
    few = ((0, 3, 5),) * 14
    assert memory.activation_floats(replace(space, normal=few, reduce=few), 32) < 0.7 * floats


def test_partial_channels_and_fewer_passes_need_less():
    darts, partial = (
        memory.estimate(supernet.Space(family, 16, 8), 64, 64) for family in ("darts", "pcdarts")
    )
    assert 0.2 < partial.activations / darts.activations < 0.5
    kinds = [
        memory.estimate(DARTS, 64, 64, order=order, mode=mode, lease=lease).total
        for order, mode, lease in (
            (1, "exact", False),
            (2, "finite", False),
            (2, "exact", False),
            (2, "exact", True),
        )
    ]
    assert kinds == sorted(kinds)
    assert len(set(kinds)) == 4
    assert (
        memory.estimate(DARTS, 64, 64, order=1, mode="exact", lease=True).total == kinds[-1]
    )  # the chain of LeaSE is of second order anyway


def test_the_audience_counts():
    small, large = (
        memory.estimate(DARTS, 64, 64, lease=True, audience_options={"width": width})
        for width in (16, 64)
    )
    assert large.audience_activations == 4 * small.audience_activations
    assert large.weights > small.weights
    vgg = memory.estimate(DARTS, 64, 64, lease=True, audience="vgg13")
    assert 0 < vgg.audience_activations < large.audience_activations
    assert "of the audience" in str(vgg)
    assert memory.estimate(DARTS, 64, 64).audience_activations == 0


@pytest.mark.parametrize(
    ("settings", "knobs"),
    [
        ({"order": 2}, {"mode", "batch_size", "order"}),
        ({"order": 2, "mode": "finite"}, {"batch_size", "order"}),
        ({"order": 1}, {"batch_size", "channels", "cells"}),
    ],
)
def test_the_refusal_names_knobs_that_make_it_fit(settings, knobs):
    needed = memory.estimate(DARTS, 64, 64, **settings)
    limit = int(needed.total * 0.75)
    with pytest.raises(memory.TooLarge, match=r"16 channels, 8 cells, 64 px, batch 64") as refused:
        memory.check(needed, limit)
    assert isinstance(refused.value, (KitError, OutOfMemory))
    assert str(refused.value).count("\n") == 0
    named = set(re.findall(r"(\w+)=", str(refused.value)))
    assert knobs <= named | {"order", "mode", "channels", "cells"}
    assert "batch_size" in named
    assert all(changed.total <= limit for _, changed in memory.advice(needed, limit))
    memory.check(memory.estimate(DARTS, 64, 32, **settings), limit)


def test_where_no_knob_does_several_are_named_together_and_where_none_do_smaller_images():
    needed = memory.estimate(DARTS, 64, 64, order=2)
    ((words, changed),) = memory.advice(needed, 3 * GIB)
    assert words.startswith("mode='finite' and batch_size=")
    assert changed.total <= 3 * GIB
    assert changed.space.channels < 16
    assert memory.advice(needed, GIB // 2) == []
    with pytest.raises(memory.TooLarge, match="use smaller images"):
        memory.check(needed, GIB // 2)


def test_what_fits_passes_and_the_free_memory_is_a_number_of_bytes():
    memory.check(memory.estimate(supernet.Space("pcdarts", 8, 3), 16, 2), GIB * 2)
    assert GIB // 8 < memory.available() < 2**50
