"""Genotype parsers against what the parsers of the original code give, the file format, and what is
refused.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from kit import files
from kit.search.nas2d import genotype
from kit.search.nas2d.genotype import LITERALS, SKIP, Genotype, cell

EDGE, OPERATION = np.mgrid[:14, :8]
ALPHAS = [
    np.sin(1.3 * EDGE + 2.1 * OPERATION + 0.4 * EDGE * OPERATION),
    np.cos(0.7 * EDGE + 1.9 * OPERATION + 0.3 * EDGE * OPERATION),
]
BETAS = [np.sin(2.2 * np.arange(14) + 0.5), np.cos(1.7 * np.arange(14) + 0.2)]
KEPT = {
    "s0": (
        "13467 02357 01246 01357 12467 02356 03467 01256 12347 34567 01234 01234 01567 12345",
        "02356 02457 13456 13456 02457 01356 01457 12367 23456 01267 01234 01234 34567 01237",
    ),
    "s1": (
        "136 037 146 157 147 025 347 256 127 345 234 234 156 123",
        "035 247 135 146 045 156 145 167 234 267 034 234 345 037",
    ),
    "s2": ("1 7 4 7 1 2 7 2 2 5 2 2 1 3", "5 4 1 1 4 6 1 6 4 2 3 2 5 3"),
}
REDUCE_OF_BONUS = cell("sep5:0 sep3:1 max:1 skip:2 skip:2 skip:3 skip:0 skip:4")


def digits(text):
    return tuple(tuple(int(d) for d in word) for word in text.split())


def stage_alphas(stage, kept, bonus):
    """The oracle's formulas; `bonus` is added to the skip column wherever it survives."""
    edge, column = np.mgrid[:14, : len(kept[0][0])]
    phase = (1.3 + 0.2 * stage) * edge + 2.1 * column + 0.4 * edge * column + stage
    return [
        wave(phase) + bonus * (np.array(columns) == SKIP)
        for wave, columns in zip((np.sin, np.cos), kept, strict=False)
    ]


def three_stages(bonus=0.0):
    kept, history = [genotype._survivors(None)[0]] * 2, {}
    for stage, count in enumerate((5, 3, 1)):
        alphas = stage_alphas(stage, kept, bonus)
        history[f"s{stage}"] = (alphas, kept)
        kept = [
            genotype.keep_operations(a, k, count, final=stage == 2)
            for a, k in zip(alphas, kept, strict=False)
        ]
        history[f"s{stage} kept"] = kept
    return history


def test_literals_are_the_published_cells():
    assert sorted(LITERALS) == [
        "DARTS_V1",
        "DARTS_V2",
        "PC_DARTS_cifar",
        "PC_DARTS_image",
        "PDARTS",
    ]
    assert LITERALS["DARTS_V2"].normal == (
        ("sep_conv_3x3", 0),
        ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 0),
        ("sep_conv_3x3", 1),
        ("sep_conv_3x3", 1),
        ("skip_connect", 0),
        ("skip_connect", 0),
        ("dil_conv_3x3", 2),
    )
    assert LITERALS["PDARTS"].reduce == (
        ("avg_pool_3x3", 0),
        ("sep_conv_5x5", 1),
        ("sep_conv_3x3", 0),
        ("dil_conv_5x5", 2),
        ("max_pool_3x3", 0),
        ("dil_conv_3x3", 1),
        ("dil_conv_3x3", 1),
        ("dil_conv_5x5", 3),
    )
    assert {
        name: genotype.skip_connections(found)["normal"] for name, found in LITERALS.items()
    } == {"DARTS_V1": 3, "DARTS_V2": 2, "PC_DARTS_cifar": 1, "PC_DARTS_image": 2, "PDARTS": 2}


def test_darts_parser():
    found = genotype.derive("darts", ALPHAS)
    assert found.normal == cell("sep5:1 max:0 sep3:2 sep3:0 sep5:0 skip:3 dil5:3 skip:4")
    assert found.reduce == cell("skip:0 sep5:1 dil3:1 dil5:0 sep3:1 sep5:2 skip:3 sep5:1")


def test_pcdarts_parser():
    found = genotype.derive("pcdarts", ALPHAS + BETAS)
    assert found.normal == cell("sep5:1 max:0 sep5:1 sep3:2 dil5:1 max:2 dil5:3 dil5:0")
    assert found.reduce == cell("skip:0 sep5:1 dil3:1 max:2 sep5:2 dil3:3 dil5:2 sep5:1")


def test_darts_ties_go_to_the_lower_index():
    assert genotype.derive("darts", [np.zeros((14, 8))] * 2).normal == cell("max:0 max:1 " * 4)


def test_pdarts_stages_keep_the_operations_of_the_oracle():
    history = three_stages()
    for stage, expected in KEPT.items():
        assert history[f"{stage} kept"] == [digits(text) for text in expected], stage
    alphas, kept = history["s2"]
    found = genotype.final_cells(alphas, *kept)
    assert found.normal == cell("max:0 dil5:1 sep3:0 max:2 avg:0 avg:2 max:3 skip:4")
    assert found.reduce == cell("sep5:0 sep3:1 max:0 sep3:2 dil3:0 max:1 avg:0 sep5:3")
    assert (
        genotype.derive("pdarts", alphas, SimpleNamespace(normal=kept[0], reduce=kept[1])) == found
    )


def test_pdarts_skip_restriction_of_the_oracle():
    history = three_stages(bonus=1.5)
    assert history["s1 kept"][0] == digits(
        "136 037 234 135 136 035 347 356 137 345 234 234 356 123"
    )
    alphas, kept = history["s2"]
    free = genotype.final_cells(alphas, *kept)
    assert free.normal == cell("max:0 skip:1 skip:0 skip:2 skip:0 skip:2 skip:3 skip:4")
    assert free.reduce == REDUCE_OF_BONUS
    expected = {
        7: "max:0 skip:1 skip:0 skip:2 skip:0 skip:2 skip:3 skip:4",
        4: "max:0 dil5:1 skip:0 sep5:1 skip:0 skip:2 sep5:0 skip:4",
        2: "max:0 dil5:1 skip:0 sep5:1 dil5:1 skip:2 sep5:0 avg:1",
        0: "max:0 dil5:1 sep5:1 max:2 dil5:1 dil5:3 sep5:0 avg:1",
    }
    for most, text in expected.items():
        assert genotype.restrict_skips(alphas, *kept, most=most) == Genotype(
            cell(text), REDUCE_OF_BONUS
        ), most
    assert genotype.derive(
        "pdarts", alphas, SimpleNamespace(normal=kept[0], reduce=kept[1])
    ).normal == cell(expected[2])


def test_none_is_never_chosen_however_large_its_weight():
    flood = np.zeros((14, 8))
    flood[:, 0] = 50
    for family, arch in (
        ("darts", [flood] * 2),
        ("pcdarts", [flood] * 2 + BETAS),
        ("pdarts", [flood] * 2),
    ):
        genotype.derive(family, arch)  # a Genotype refuses none
    assert genotype.keep_operations(flood, None, 5)[0][0] == 0
    assert genotype.keep_operations(flood, None, 1, final=True)[0] != (0,)


def test_an_unknown_family_is_named():
    with pytest.raises(genotype.UnknownFamily, match="'enas'; choose one of darts"):
        genotype.derive("enas", ALPHAS)


def test_cells_survive_their_file_and_other_codes_can_read_it(tmp_path):
    for name, found in LITERALS.items():
        genotype.to_json(found, tmp_path / "cells.json", method=name, seed=3)
        assert genotype.from_json(tmp_path / "cells.json") == found
    stored = json.loads((tmp_path / "cells.json").read_text())
    assert stored["normal"][0] == ["skip_connect", 0]
    assert stored["normal_concat"] == [2, 3, 4, 5]
    assert stored["seed"] == 3


@pytest.mark.parametrize(
    ("stored", "sentence"),
    [
        ({"a": 1}, "holds no cells"),
        ([1, 2], "holds no cells"),
        ({"normal": [["max_pool_3x3", 0]], "reduce": []}, "has 1 pairs; it must have 8"),
        ({"normal": [["conv_7x7", 0]] * 8, "reduce": []}, "'conv_7x7'; choose among max_pool_3x3"),
        ({"normal": [["none", 0]] * 8, "reduce": []}, "operation 'none'"),
        (
            {"normal": [["max_pool_3x3", 2]] * 8, "reduce": []},
            "Node 0 of the normal cell reads state 2; only 0 to 1",
        ),
        ({"normal": 5, "reduce": []}, "give eight pairs"),
        (
            {
                "normal": [["max_pool_3x3", 0]] * 8,
                "normal_concat": [4, 5],
                "reduce": [["max_pool_3x3", 0]] * 8,
            },
            "joins the states",
        ),
    ],
)
def test_files_without_usable_cells_are_refused(tmp_path, stored, sentence):
    files.write_json(tmp_path / "cells.json", stored)
    with pytest.raises(genotype.BadGenotype, match=sentence):
        genotype.from_json(tmp_path / "cells.json")


def test_random_cells_follow_the_seed_and_use_everything():
    drawn = [genotype.random_genotype(seed) for seed in range(60)]
    assert drawn[3] == genotype.random_genotype(3)
    assert len(set(drawn)) == 60
    assert {operation for found in drawn for operation, _ in found.normal + found.reduce} == set(
        genotype.PRIMITIVES[1:]
    )
    assert all(
        found.normal[n][1] < found.normal[n + 1][1] for found in drawn for n in range(0, 8, 2)
    )


def test_collapse_is_warned_of_and_published_cells_are_not():
    assert all(genotype.collapse(found) is None for found in LITERALS.values())
    full = Genotype(
        cell("sep3:0 skip:1 skip:0 skip:2 skip:0 skip:2 sep3:3 sep3:4"), LITERALS["PDARTS"].reduce
    )
    assert genotype.collapse(full).startswith(
        "5 of the 8 operations of the normal cell are skip connections"
    )
    assert genotype.collapse(full, most=5) is None
