"""Drawn 3D cells: each edge is read from its source, nothing passes a box, the doubled input is
said, and the skeleton adds up.
"""

import io

import numpy as np
import pytest
from matplotlib.patches import FancyBboxPatch

from kit.report import style
from kit.search.nas3d import drawing, space
from kit.search.nas3d.released import RELEASED
from kit.search.nas3d.space import OPERATIONS, PAPER, Network3D

DIRECT = Network3D(((0, 1, 1), (0, 0, 1), (0, 0, 0)), (7,), 1, 2, 8)


def random_networks(count=8, seed=3):
    rng, found = np.random.default_rng(seed), [DIRECT]
    while len(found) < count:
        genes = rng.random(29)
        found += [PAPER.decode(genes)] if not PAPER.reason(genes) else []
    return found


def parts(ax):
    """Level lines, upright lines, boxes from input to output."""
    lines = [
        (line.get_xydata(), line.get_linestyle()) for line in ax.lines if len(line.get_xdata()) == 2
    ]
    level = [(xy, look) for xy, look in lines if xy[0, 1] == xy[1, 1]]
    upright = [(xy, look) for xy, look in lines if xy[0, 0] == xy[1, 0] and look != "None"]
    boxes = sorted(
        (patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)),
        key=lambda patch: patch.get_y(),
    )
    return level, upright, boxes


def holder(boxes, x, y):
    """Number of the box on whose border or in which a point lies."""

    def within(box):
        return (
            abs(x - box.get_x() - box.get_width() / 2) <= box.get_width() / 2 + 1e-6
            and abs(y - box.get_y() - box.get_height() / 2) <= box.get_height() / 2 + 1e-6
        )

    return next((k for k, box in enumerate(boxes) if within(box)), None)


@pytest.mark.parametrize("network", random_networks())
def test_the_lines_are_the_edges_of_the_matrix_and_one_residual(network):
    level, upright, boxes = parts(drawing.cells_figure([("", network)]).axes[0])
    last, found, residuals = len(network.matrix) - 1, np.zeros_like(network.matrix), 0
    assert len(boxes) == last + 1
    for xy, look in level:
        source = next(
            line
            for line, kind in upright
            if line[0, 0] == xy[0, 0]
            and kind == look
            and line[0, 1] < xy[0, 1] <= line[1, 1] + 1e-9
        )
        ends = holder(boxes, *source[0]), holder(boxes, *xy[1])
        if look == "--":
            residuals += ends == (0, last)
        else:
            found[ends] += 1
    assert residuals == 1
    assert (found == np.array(network.matrix)).all()


@pytest.mark.parametrize("network", random_networks())
def test_no_line_passes_a_box_and_no_level_is_shared(network):
    level, upright, boxes = parts(drawing.cells_figure([("", network)]).axes[0])
    assert len({xy[0, 1] for xy, _ in level}) == len(level)
    for xy, _ in [*level, *upright]:
        points = np.linspace(*xy, 201)
        for box in boxes:
            low, high = (
                np.array([box.get_x(), box.get_y()]) + 0.005,
                np.array([box.get_x() + box.get_width(), box.get_y() + box.get_height()]) - 0.005,
            )
            assert not ((points > low) & (points < high)).all(1).any()


def test_labels_say_the_operations_in_words():
    assert drawing.label(space.NAMES.index("conv5-norm-mish")) == "5×5×5 conv · norm · Mish"
    assert drawing.label(space.NAMES.index("relu-conv3")) == "ReLU · 3×3×3 conv"
    assert len({drawing.label(k) for k in range(len(OPERATIONS))}) == 15
    said = [
        text.get_text()
        for text in drawing.cells_figure([("", RELEASED["adrenal-90"].network)]).axes[0].texts
    ]
    assert [drawing.label(k) for k in RELEASED["adrenal-90"].network.operations] == [
        text for text in said if "conv" in text
    ]
    assert "1 cell a stack, 1 stack, 8 filters" in said


def test_an_input_that_counts_twice_is_said_and_only_then():
    def said(network):
        return [text.get_text() for text in drawing.cells_figure([("", network)]).axes[0].texts]

    assert drawing.TWICE in said(DIRECT)
    assert drawing.TWICE not in said(RELEASED["adrenal-90"].network)
    assert said(DIRECT).count("+") == 1
    assert "2 stacks, 8 → 16 filters" in " ".join(said(DIRECT))


def test_six_cells_are_lettered_fit_their_boxes_and_the_pdf_holds_no_bitmap():
    fig = drawing.cells_figure(
        [(f"{name}: the winner", released.network) for name, released in RELEASED.items()]
    )
    assert [ax.get_title("left")[:3] for ax in fig.axes] == [
        "(a)",
        "(b)",
        "(c)",
        "(d)",
        "(e)",
        "(f)",
    ]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == [
        "kernel of 3 voxels",
        "kernel of 5 voxels",
        "kernel of 7 voxels",
        "edge",
        "residual",
    ]
    with io.BytesIO() as buffer:
        fig.savefig(buffer, format="pdf")
        assert b"/Subtype /Image" not in buffer.getvalue()
        assert buffer.getvalue().startswith(b"%PDF")
    for ax in fig.axes:
        for text in ax.texts:
            extent = text.get_window_extent()
            holders = [
                box.get_window_extent()
                for box in ax.patches
                if box.get_window_extent().contains(*extent.get_points().mean(0))
            ]
            assert all(box.x0 < extent.x0 and extent.x1 < box.x1 for box in holders), (
                text.get_text()
            )


def test_the_skeleton_names_widths_edges_and_costs():
    network = Network3D(((0, 1, 0), (0, 0, 1), (0, 0, 0)), (3,), 2, 2, 8)
    ax = drawing.skeleton_figure(network, 11, title="two by two").axes[0]
    said = [text.get_text() for text in ax.texts]
    assert [text for text in said if text.startswith("Cell")] == [
        "Cell 1",
        "Cell 2",
        "Cell 3",
        "Cell 4",
    ]
    assert {"Stack 1", "Stack 2"} <= set(said)
    assert said.count("14³ × 16") == 2
    assert "14³ × 8" in said
    assert "11 logits" in said
    assert "16 → 11" in said
    assert "1×1×1 conv 8 → 16\nthen the cell" in said
    assert "1×1×1 conv 16 → 16\nthen the cell" in said
    assert f"{space.parameters(network, 11, dead=False):,} parameters" in ax.get_title("left")


def test_nothing_to_draw_is_refused():
    with pytest.raises(style.NothingToPlot, match="at least one cell"):
        drawing.cells_figure([])
