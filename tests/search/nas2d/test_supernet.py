"""Supernets: counts, logits, losses and first and second derivatives of the original networks;
plain composition; behaviour.
"""

import numpy as np
import pytest
import tensorflow as tf
from reference_values import oracle

from kit.search.nas2d import ops, supernet
from kit.search.nas2d.supernet import EDGES, Space

PUBLISHED = [
    (Space("darts", 16, 8, 10), 1930618),
    (Space("darts"), 1929076),
    (Space("darts", 8, 5), 393436),
    (Space("darts", 4, 3), 72464),
    (Space("pcdarts", 16, 8, 10), 299578),
    (Space("pcdarts"), 298036),
    (Space("pcdarts", 16, 3), 90596),
    (Space("pdarts", 16, 5, 10), 1275834),
    (Space("pdarts", 16, 5), 1274292),
    (
        Space("pdarts", 16, 11, normal=((1, 3, 4, 5, 6),) * 14, reduce=((1, 3, 4, 5, 6),) * 14),
        2134932,
    ),
    (Space("pdarts", 16, 17, normal=((3, 4, 6),) * 14, reduce=((3, 4, 6),) * 14), 1859860),
]
MACS = {0: 1.201, 5: 0.226, 8: 0.747, 9: 1.36, 10: 1.16}  # 1e9 at 64 pixels


@pytest.mark.parametrize("number", range(len(PUBLISHED)))
def test_published_counts(number):
    space, expected = PUBLISHED[number]
    assert supernet.parameters(space) == expected
    if number in MACS:
        assert supernet.macs(space, 64) / 1e9 == pytest.approx(MACS[number], rel=5e-3)


def test_initial_values():
    space = Space("pcdarts", 16, 3)
    weights, shapes = supernet.initial_weights(space, 3), dict(supernet.weight_shapes(space))
    assert [weight.shape for weight in weights] == list(shapes.values())
    assert all(weight.dtype == np.float32 for weight in weights)
    bounds = {
        "stem/kernel": 27,
        "cell0/pre0": 48,
        "cell1/pre1": 64,
        "cell1/sep_conv_5x5/dw1": 25,
        "cell1/sep_conv_5x5/pw2": 8,
        "cell2/skip_connect/odd": 16,
        "cell2/pre0/even": 64,
    }
    for name, fan_in in bounds.items():
        weight = np.abs(weights[list(shapes).index(name)])
        assert 0.9 * fan_in**-0.5 < weight.max() <= fan_in**-0.5, name
    assert np.array_equal(weights[1], np.ones(48))
    assert not weights[2].any()
    assert all(
        np.array_equal(a, b)
        for a, b in zip(weights, supernet.initial_weights(space, 3), strict=True)
    )
    arch = supernet.initial_arch(space, 3, "float64")
    assert [part.shape for part in arch] == [(14, 8), (14, 8), (14,), (14,)]
    assert 5e-4 < np.std(arch[0]) < 2e-3
    assert [part.shape for part in supernet.initial_arch(PUBLISHED[-1][0], 0)] == [(14, 3)] * 2


def cross_entropy(logits, labels):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


CLOSE = {"rtol": 0, "atol": 1e-12}  # to the reference, in float64


@pytest.fixture(scope="module", params=[("darts", 4), ("pcdarts", 16)], ids=lambda given: given[0])
def original(request):
    """A tiny reference supernet: values, space, weights, architecture, both batches of images."""
    family, channels = request.param
    data, space = oracle("lease", f"{family}_tiny"), Space(family, channels, 3)
    weights = [tf.constant(weight) for weight in of_torch(space, data, "w:")]
    arch = [tf.constant(data[f"arch:{i}"]) for i in range(2 if family == "darts" else 4)]
    images = [tf.constant(data[f"x_{part}"].transpose(0, 2, 3, 1)) for part in ("train", "val")]
    return data, space, weights, arch, *images


def of_torch(space, data, prefix):
    return supernet.from_torch(
        space, {key[len(prefix) :]: data[key] for key in data if key.startswith(prefix)}
    )


def test_logits_and_gradients_of_the_original_network(original):
    data, space, weights, arch, train, _ = original
    with tf.GradientTape() as tape:
        tape.watch(weights)
        logits = supernet.forward(space, weights, arch, train)
        loss = cross_entropy(logits, data["y_train"])
    np.testing.assert_allclose(logits, data["logits_train"], **CLOSE)
    np.testing.assert_allclose(loss, data["loss_train"], **CLOSE)
    expected = of_torch(space, data, "gradtrain:")
    for ours, theirs in zip(tape.gradient(loss, weights), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, **CLOSE)


def test_first_architecture_gradient_of_the_original_network(original):
    data, space, weights, arch, _, val = original
    with tf.GradientTape() as tape:
        tape.watch(arch)
        loss = cross_entropy(supernet.forward(space, weights, arch, val), data["y_val"])
    np.testing.assert_allclose(loss, data["loss_val"], **CLOSE)
    for number, found in enumerate(tape.gradient(loss, arch)):
        np.testing.assert_allclose(found, data[f"dA_first_order:{number}"], **CLOSE)


def test_second_architecture_gradient_of_the_original_network(original):
    """Exact, through one virtual step."""
    data, space, weights, arch, train, val = original
    with tf.GradientTape() as outer:
        outer.watch(arch)
        with tf.GradientTape() as inner:
            inner.watch(weights)
            loss = cross_entropy(supernet.forward(space, weights, arch, train), data["y_train"])
        gradients = inner.gradient(loss, weights)
        moved = [
            weight - data["eta"] * (gradient + data["weight_decay"] * weight)
            for weight, gradient in zip(weights, gradients, strict=True)
        ]
        unrolled = cross_entropy(supernet.forward(space, moved, arch, val), data["y_val"])
    np.testing.assert_allclose(unrolled, data["loss_unrolled"], **CLOSE)
    for number, found in enumerate(outer.gradient(unrolled, arch)):
        np.testing.assert_allclose(found, data[f"dA_second_order_exact:{number}"], **CLOSE)


def cell_by_edges(space, cell, named, mixing, beta, states):
    """A cell as it is published: every operation of every edge by itself."""
    for node in range(4):
        total = 0
        for edge, (source, target) in enumerate(EDGES):
            if target == node:
                stride = 2 if cell.reduction and source < 2 else 1
                mixed = sum(
                    mixing[edge][primitive]
                    * ops.primitive(
                        ops.PRIMITIVES[primitive],
                        states[source][..., : cell.width],
                        edge_weights(space, cell, named, edge, primitive, stride),
                        stride,
                    )
                    for primitive in space.edge_ops(cell.reduction)[edge]
                )
                rest = states[source][..., cell.width :]
                if space.partial > 1:
                    rest = tf.nn.max_pool2d(rest, 2, 2, "VALID") if stride == 2 else rest
                    both = tf.concat([mixed, rest], -1)
                    mixed = beta[edge] * tf.reshape(
                        tf.transpose(tf.reshape(both, (*both.shape[:3], 4, -1)), (0, 1, 2, 4, 3)),
                        both.shape,
                    )
                total += mixed
        states.append(total)
    return tf.concat(states[2:], -1)


def edge_weights(space, cell, named, edge, primitive, stride):
    chosen, prefix = (
        supernet.members(space, cell, primitive),
        f"cell{cell.index}/{ops.PRIMITIVES[primitive]}/",
    )
    if edge not in chosen or (primitive == 3 and stride == 1):
        return ()
    place, wide, result = chosen.index(edge), cell.width, []
    for name, weight in named.items():
        if name.startswith(prefix):
            part = name[len(prefix) :]
            result.append(
                weight[:, :, place * wide : (place + 1) * wide]
                if part[:2] == "dw"
                else tf.reshape(weight[place], (1, 1, wide, wide))
                if part[:2] == "pw"
                else weight[:, :, place : place + 1]
            )
    return result


def plain_forward(space, weights, arch, x):
    """Logits with none of the supernet's short cuts."""
    named = {
        name: weight
        for (name, _), weight in zip(supernet.weight_shapes(space), weights, strict=True)
    }
    before_last = last = (
        ops.normalise(tf.nn.conv2d(x, named["stem/kernel"], 1, "SAME")) * named["stem/gain"]
        + named["stem/shift"]
    )
    for cell in supernet.cells_of(space):
        name, kept = f"cell{cell.index}", space.edge_ops(cell.reduction)
        alpha = tf.nn.softmax(arch[int(cell.reduction)])
        mixing = [
            {primitive: alpha[edge, column] for column, primitive in enumerate(kept[edge])}
            for edge in range(14)
        ]
        beta = (
            [tf.nn.softmax(part) for part in tf.split(arch[2 + int(cell.reduction)], [2, 3, 4, 5])]
            if len(arch) == 4
            else None
        )
        if cell.after_reduction:
            first = ops.primitive(
                "skip_connect",
                before_last,
                (named[f"{name}/pre0/even"], named[f"{name}/pre0/odd"]),
                2,
            )
        else:
            first = ops.normalise(ops.pointwise(tf.nn.relu(before_last), named[f"{name}/pre0"]))
        second = ops.normalise(ops.pointwise(tf.nn.relu(last), named[f"{name}/pre1"]))
        before_last, last = (
            last,
            cell_by_edges(space, cell, named, mixing, beta and tf.concat(beta, 0), [first, second]),
        )
    return (
        tf.matmul(tf.reduce_mean(last, (1, 2)), named["classifier/kernel"])
        + named["classifier/bias"]
    )


def uneven(columns, shift):
    """Different operations on every edge."""
    return tuple(
        tuple(
            sorted((edge * 3 + step * (1, 3, 5)[edge % 3] + shift) % 8 for step in range(columns))
        )
        for edge in range(14)
    )


CASES = [
    (Space("darts", 4, 3), 12),
    (Space("darts", 20, 3), 8),
    (Space("pcdarts", 8, 3, 5, 1), 16),
    (Space("pdarts", 6, 4, normal=uneven(5, 0), reduce=uneven(5, 2)), 8),
    (Space("pdarts", 4, 3, normal=uneven(3, 1), reduce=uneven(3, 4)), 20),
    (Space("pdarts", 4, 3, normal=((0,),) * 14, reduce=((3,),) * 14), 8),
]


@pytest.mark.parametrize(("space", "size"), CASES, ids=lambda case: getattr(case, "family", case))
def test_short_cuts_change_nothing(space, size):
    """Wide and narrow spaces, odd maps, pruned edges, empty states."""
    rng = np.random.default_rng(5)
    weights = [tf.constant(weight) for weight in supernet.initial_weights(space, 1, "float64")]
    arch = [
        tf.constant(rng.standard_normal(part.shape)) for part in supernet.initial_arch(space, 1)
    ]
    x = tf.constant(rng.random((2, size, size, space.input_channels)))
    expected = plain_forward(space, weights, arch, x)
    assert expected.shape == (2, space.classes)
    np.testing.assert_allclose(
        supernet.forward(space, weights, arch, x), expected, rtol=1e-9, atol=1e-10
    )


def test_float32_derivatives_agree_with_float64():
    space, found = Space("darts", 8, 3), {}
    x, labels = np.random.default_rng(0).random((4, 16, 16, 3)), [0, 1, 2, 3]
    for kind in ("float32", "float64"):
        weights, arch = (
            [tf.constant(part) for part in make(space, 2, kind)]
            for make in (supernet.initial_weights, supernet.initial_arch)
        )
        with tf.GradientTape() as tape:
            tape.watch([weights, arch])
            loss = cross_entropy(
                supernet.forward(space, weights, arch, tf.constant(x, kind)), labels
            )
        found[kind] = np.concatenate(
            [np.ravel(part) for part in tf.nest.flatten(tape.gradient(loss, [weights, arch]))]
        )
    assert np.linalg.norm(found["float32"] - found["float64"]) < 1e-3 * np.linalg.norm(
        found["float64"]
    )


def test_dropout_after_skips():
    space = Space("pdarts", 4, 3)
    weights, arch = supernet.initial_weights(space, 0), supernet.initial_arch(space, 0)
    x, seed = (
        np.random.default_rng(1).random((2, 16, 16, 3)).astype(np.float32),
        tf.constant([3, 4]),
    )
    weights, arch = (
        [tf.constant(weight) for weight in weights],
        [tf.constant(part) for part in arch],
    )
    none = supernet.forward(space, weights, arch, x)
    np.testing.assert_allclose(
        supernet.forward(space, weights, arch, x, tf.constant(0.0), seed), none, atol=1e-4
    )
    half = supernet.forward(space, weights, arch, x, tf.constant(0.5), seed)
    assert np.array_equal(half, supernet.forward(space, weights, arch, x, tf.constant(0.5), seed))
    assert np.abs(half - none).max() > 1e-3
    assert (
        np.abs(
            half - supernet.forward(space, weights, arch, x, tf.constant(0.5), tf.constant([3, 5]))
        ).max()
        > 1e-3
    )


def test_unusable_spaces():
    with pytest.raises(supernet.UnusableSpace, match="enas"):
        Space("enas")
    for wrong in (
        {"cells": 2},
        {"channels": 15},
        {"normal": ((0,),) * 13},
        {"reduce": ((0, 1),) * 13 + ((0,),)},
        {"normal": ((3, 1),) * 14},
        {"normal": ((8,),) * 14},
    ):
        with pytest.raises(supernet.UnusableSpace):
            Space("darts", **wrong)
    with pytest.raises(supernet.UnusableSpace, match="multiple of 8"):
        Space("pcdarts", 12)
    space = Space("darts", 4, 3)
    with pytest.raises(supernet.UnusableSpace, match="30 x 30"):
        supernet.forward(
            space,
            supernet.initial_weights(space, 0),
            supernet.initial_arch(space, 0),
            tf.zeros((1, 30, 30, 3)),
        )
