"""Derived networks: the parameter counts of the original code, the reference's logits, dropped
paths, and sizes that the reference cannot take.
"""

import itertools

import numpy as np
import pytest
from reference_values import oracle as stored_values

from kit.search.nas2d import derived, genotype, ops
from kit.search.nas2d.genotype import LITERALS, PRIMITIVES, Genotype

# counted in the original code (tests/oracles/README.md), 36 channels: 10 classes without and with
# auxiliary head, 4 classes without and with
COUNTS = {
    ("DARTS_V1", 20): (3_169_414, 3_645_840, 3_165_952, 3_637_764),
    ("DARTS_V2", 20): (3_349_342, 3_825_768, 3_345_880, 3_817_692),
    ("PC_DARTS_cifar", 20): (3_634_678, 4_111_104, 3_631_216, 4_103_028),
    ("PC_DARTS_image", 20): (3_721_510, 4_197_936, 3_718_048, 4_189_860),
    ("PDARTS", 20): (3_433_798, 3_910_224, 3_430_336, 3_902_148),
    ("DARTS_V1", 12): (1_640_998, 2_117_424, 1_637_536, 2_109_348),
    ("DARTS_V2", 12): (1_732_654, 2_209_080, 1_729_192, 2_201_004),
    ("PC_DARTS_cifar", 12): (2_083_222, 2_559_648, 2_079_760, 2_551_572),
    ("PC_DARTS_image", 12): (2_093_302, 2_569_728, 2_089_840, 2_561_652),
    ("PDARTS", 12): (1_893_862, 2_370_288, 1_890_400, 2_362_212),
    ("DARTS_V1", 8): (1_094_950, 1_571_376, 1_091_488, 1_563_300),
    ("DARTS_V2", 8): (1_154_926, 1_631_352, 1_151_464, 1_623_276),
    ("PC_DARTS_cifar", 8): (1_527_958, 2_004_384, 1_524_496, 1_996_308),
    ("PC_DARTS_image", 8): (1_510_966, 1_987_392, 1_507_504, 1_979_316),
    ("PDARTS", 8): (1_343_206, 1_819_632, 1_339_744, 1_811_556),
}
SMALL = {  # (channels, cells): 4 classes without and with auxiliary head
    (16, 8): {
        "DARTS_V1": (231_348, 662_200),
        "DARTS_V2": (244_564, 675_416),
        "PC_DARTS_cifar": (334_196, 765_048),
        "PDARTS": (290_484, 721_336),
    },
    (16, 5): {
        "DARTS_V1": (121_556, 552_408),
        "DARTS_V2": (128_164, 559_016),
        "PC_DARTS_cifar": (220_820, 651_672),
        "PDARTS": (178_900, 609_752),
    },
    (4, 6): {
        "DARTS_V2": (11_984, 418_260),
        "PC_DARTS_cifar": (22_784, 429_060),
        "PDARTS": (18_000, 424_276),
    },
}


def all_of(operation):
    pairs = tuple((operation, source) for _ in range(4) for source in (0, 1))
    return Genotype(pairs, pairs)


def trained(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


@pytest.mark.parametrize(("name", "cells"), COUNTS)
def test_published_cells_have_the_parameters_of_the_oracle(name, cells):
    found = [
        derived.parameters(LITERALS[name], 36, cells, classes, auxiliary)
        for classes in (10, 4)
        for auxiliary in (False, True)
    ]
    assert tuple(found) == COUNTS[name, cells]


def test_small_networks_have_the_parameters_of_the_oracle():
    for (channels, cells), rows in SMALL.items():
        for name, expected in rows.items():
            assert (
                tuple(
                    derived.parameters(LITERALS[name], channels, cells, 4, auxiliary)
                    for auxiliary in (False, True)
                )
                == expected
            )


def test_the_parts_of_darts_v2_are_those_of_the_oracle():
    early, late = [26_532, 27_828, 29_124], [370_512, 411_984, 411_984]
    expected = {
        12: [*early, 29_124, 21_024, 97_128, 107_496, 107_496, 83_520, *late],
        20: [*early, *[29_124] * 3, 21_024, 97_128, *[107_496] * 5, 83_520, *late, *[411_984] * 3],
    }
    for cells, counts in expected.items():
        found = derived.parameters(LITERALS["DARTS_V2"], 36, cells, 4, True, parts=True)
        assert found == {"stem": 3132, "cells": counts, "classifier": 2308, "auxiliary": 471_812}


def test_no_cell_can_have_the_published_parameters_with_twelve_cells():
    bounds = {8: (491_728, 2_088_400), 12: (720_976, 2_898_256), 20: (1_366_672, 5_140_624)}
    for cells, expected in bounds.items():
        counts = [derived.parameters(all_of(operation), 36, cells) for operation in PRIMITIVES[1:]]
        assert (min(counts), max(counts)) == expected
        drawn = [
            derived.parameters(genotype.random_genotype(seed), 36, cells) for seed in range(50)
        ]
        assert expected[0] < min(drawn)
        assert max(drawn) < expected[1]
    shapes = derived.PRESETS
    assert (
        derived.parameters(all_of("sep_conv_5x5"), **shapes["paper_text"])
        < 3_570_000
        < derived.parameters(all_of("sep_conv_5x5"), **shapes["paper_params"])
    )


def test_multiply_accumulates_are_those_measured_in_the_original_code():
    """Measured in the original networks: 1.18 to 1.39 and 2.00 to 2.23 G at 64 pixels, over the
    cells searched on CIFAR-10.
    """
    for cells, low, high in ((12, 1.18, 1.39), (20, 2.00, 2.23)):
        counts = [
            derived.macs(cell, 64, 36, cells) / 1e9
            for name, cell in LITERALS.items()
            if name != "PC_DARTS_image"
        ]
        assert (round(min(counts), 2), round(max(counts), 2)) == (low, high)


def test_primitives_are_those_of_the_supernet():
    assert ops.PRIMITIVES == PRIMITIVES


@pytest.fixture(scope="module", params=["DARTS_V2", "PDARTS"])
def oracle(request):
    return LITERALS[request.param], stored_values("lease", f"derived_{request.param}")


def logits(model):
    import keras

    return keras.Model(
        model.input, [model.get_layer("logit").output, model.get_layer("aux_logit").output]
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 3e-5)])
def test_logits_are_those_of_the_reference(oracle, dtype, tolerance):
    cells, stored = oracle
    model = derived.network(cells, 32, 4, 6, 4, auxiliary=True, dtype=dtype)
    derived.from_torch(
        model, {key[2:]: value for key, value in stored.items() if key.startswith("w:")}
    )
    assert trained(model) == derived.parameters(cells, 4, 6, 4, auxiliary=True)
    x = stored["x"].transpose(0, 2, 3, 1).astype(dtype)
    for found, key in zip(logits(model)(x, training=True), ("logits", "aux"), strict=False):
        np.testing.assert_allclose(found, stored[key], atol=tolerance)
    mean = model.get_layer("stem_norm").moving_mean.numpy()
    np.testing.assert_allclose(
        mean, 0.1 * model.get_layer("stem")(x).numpy().mean((0, 1, 2)), atol=10 * tolerance
    )


def test_foreign_weights_are_refused(oracle):
    cells, stored = oracle
    weights = {key[2:]: value for key, value in stored.items() if key.startswith("w:")}
    with pytest.raises(derived.UnusableNetwork, match="shape"):
        derived.from_torch(derived.network(cells, 32, 8, 6, 4), weights)
    with pytest.raises(derived.UnusableNetwork, match=r"no weight 'cells\.6"):
        derived.from_torch(
            derived.network(cells, 32, 4, 7, 4), {**weights, "classifier.weight": np.zeros((4, 64))}
        )


@pytest.mark.parametrize(
    ("size", "channels", "width", "cells", "classes"),
    [(64, 3, 4, 3, 4), (33, 1, 6, 4, 2), (28, 3, 5, 5, 8), (8, 1, 2, 3, 4)],
)
def test_any_image_size_and_channel_count_with_auxiliary_head(
    size, channels, width, cells, classes
):
    drawn = genotype.random_genotype(size)
    model = derived.network(
        drawn, size, width, cells, classes, auxiliary=True, input_channels=channels
    )
    assert trained(model) == derived.parameters(
        drawn, width, cells, classes=classes, auxiliary=True, input_channels=channels
    )
    for training in (False, True):
        for output in model(
            np.random.default_rng(0).random((3, size, size, channels), np.float32),
            training=training,
        ):
            np.testing.assert_allclose(np.sum(output, 1), 1, atol=1e-5)
            assert output.shape == (3, classes)


def test_multiply_accumulates_are_those_of_the_graph():
    import tensorflow as tf

    for size, seed in ((32, 3), (27, 4)):
        drawn = genotype.random_genotype(seed)
        model = derived.network(drawn, size, 4, 6, 4)
        graph = (
            tf.function(lambda x, network=model: network(x))
            .get_concrete_function(tf.TensorSpec((1, size, size, 3)))
            .graph.get_operations()
        )
        convolutions = [o for o in graph if o.type in ("Conv2D", "DepthwiseConv2dNative")]
        # dilated convolutions lie between SpaceToBatchND and BatchToSpaceND: their batch axis is
        # part of the positions, and padded
        plain = [o for o in convolutions if o.inputs[0].op.type != "SpaceToBatchND"]
        total = sum(
            int(np.prod(o.outputs[0].shape[1:3])) * int(np.prod(o.inputs[1].shape)) for o in plain
        )
        dilated, side = 0, size
        for place in derived.plan(drawn, 4, 6):
            for operation, source in place.pairs:
                if operation.startswith("dil") and not (place.reduction and source < 2):
                    within = -(-side // 2) if place.reduction else side
                    dilated += int(operation[-1]) ** 2 * place.width * within**2
            side = -(-side // 2) if place.reduction else side
        assert total + dilated + 4 * 4 * 4 * 4 == derived.macs(drawn, size, 4, 6)


def outputs_of_one_cell(pairs, reduction, rate, count=400):
    import keras

    from kit.search.nas2d import cells as nas_cells

    keras.utils.set_random_seed(0)
    layer = nas_cells.Cell(pairs, 2, reduction, False)
    x = np.random.default_rng(0).random((1, 4, 4, 8), np.float32).repeat(count, 0)
    layer([x, x])
    with nas_cells.dropping(rate):
        return layer([x, x], training=True).numpy().reshape(count, -1, 8), layer


def test_paths_are_dropped_per_image_and_kept_ones_are_enlarged():
    pairs = [["avg_pool_3x3", 0], ["avg_pool_3x3", 1]] + [
        ["skip_connect", 0],
        ["skip_connect", 1],
    ] * 3
    free, _ = outputs_of_one_cell(pairs, False, None)
    found, _ = outputs_of_one_cell(pairs, False, 0.25)
    first, parts = found[..., :2], free[..., 2:4]
    np.testing.assert_allclose(
        found[..., 2:], free[..., 2:], atol=1e-6
    )  # the plain identity is never dropped
    values = {tuple(np.round(row.ravel()[:6], 4)) for row in first}
    assert len(values) == 4  # of the two pools both, the first, the second or none
    nothing = np.mean([np.allclose(row, 0) for row in first])
    assert abs(nothing - 0.25**2) < 0.05
    assert not np.allclose(parts, 0)
    assert abs(first.mean() - free[..., :2].mean()) < 0.15 * np.abs(free[..., :2]).mean()


def test_skip_connections_of_stride_two_are_dropped():
    pairs = [["skip_connect", 0], ["skip_connect", 1]] * 4
    found, layer = outputs_of_one_cell(pairs, True, 0.5)
    assert all(layer.dropped(place) for place in range(8))
    assert {
        len({tuple(np.round(row[:, 2 * node : 2 * node + 2].ravel(), 4)) for row in found})
        for node in range(4)
    } == {4}


def test_no_path_is_dropped_in_inference_or_without_a_rate():
    from kit.search.nas2d import cells as nas_cells

    pairs = LITERALS["DARTS_V2"].normal
    layer = nas_cells.Cell(pairs, 2, False, False)
    x = np.random.default_rng(0).random((3, 4, 4, 8), np.float32)
    before = layer([x, x]).numpy()
    with nas_cells.dropping(0.9):
        np.testing.assert_array_equal(layer([x, x]).numpy(), before)


def test_a_saved_network_gives_the_same_probabilities(tmp_path):
    import keras

    model = derived.network(LITERALS["PDARTS"], 16, 4, 4, 4)
    x = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
    model(x, training=True)  # the moving statistics leave their start
    model.save(tmp_path / "model.keras")
    np.testing.assert_allclose(
        keras.saving.load_model(tmp_path / "model.keras")(x), model(x), atol=1e-6
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"cells": 2}, "2 cells and 4 channels"),
        ({"channels": 1}, "1 channels"),
        ({"size": 7}, "7 pixels are too small"),
    ],
)
def test_networks_that_cannot_be_built_are_refused(change, sentence):
    with pytest.raises(derived.UnusableNetwork, match=sentence):
        derived.network(LITERALS["PDARTS"], **{"size": 16, "channels": 4, "cells": 3, **change})


def test_reduction_cells_stand_at_a_third_and_at_two_thirds():
    for cells, expected in {8: [2, 5], 12: [4, 8], 20: [6, 13]}.items():
        places = derived.plan(LITERALS["PDARTS"], 36, cells)
        assert [n for n, place in enumerate(places) if place.reduction] == expected
        assert [n for n, place in enumerate(places) if place.reduced_before] == [
            n + 1 for n in expected
        ]
        assert list(itertools.accumulate(place.reduction for place in places))[-1] == 2
        assert places[-1].width == 144
