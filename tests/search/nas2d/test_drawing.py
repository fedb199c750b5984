"""Drawn cells: the right operation before the right node, read from the right state, no line
through a box, and vector graphics.
"""

import io

import numpy as np
import pytest
from matplotlib.patches import FancyBboxPatch

from kit.report import style
from kit.search.nas2d import drawing, genotype
from kit.search.nas2d.genotype import LITERALS


def parts(figure):
    ax = figure.axes[0]
    lines = [line.get_xydata() for line in ax.lines if len(line.get_xdata()) == 2]
    dots = {
        (round(line.get_xdata()[0], 6), round(line.get_ydata()[0], 6))
        for line in ax.lines
        if len(line.get_xdata()) == 1
    }
    boxes = {text.get_text(): [] for text in ax.texts}
    for text in ax.texts:
        boxes[text.get_text()].append(text.get_position())
    return lines, dots, boxes, [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)]


@pytest.mark.parametrize("seed", range(6))
def test_every_operation_is_read_from_its_predecessor_and_lines_pass_no_box(seed):
    cell = genotype.random_genotype(seed).normal
    lines, dots, boxes, patches = parts(drawing.cell_figure(cell))
    assert len(dots) == 8
    assert set(boxes) >= {
        "$c_{k-2}$",
        "$c_{k-1}$",
        "0",
        "1",
        "2",
        "3",
        "$c_{k}$",
    }
    for place, (operation, source) in enumerate(cell):
        label = {"skip_connect": "skip"}.get(
            operation, f"{operation[:3]} {operation[-1]}×{operation[-1]}"
        )
        node_x, node_y = boxes[str(place // 2)][0]
        above = place % 2 == 0
        level = [
            (x, y)
            for x, y in boxes[label]
            if abs(y - node_y) < 0.45 and (y > node_y) == above and x < node_x
        ]
        assert level, (label, place)
        source_x = boxes[
            "$c_{k-2}$" if source == 0 else "$c_{k-1}$" if source == 1 else str(source - 2)
        ][0][0]
        assert (round(source_x, 6), round(level[0][1], 6)) in dots
    for patch in patches:
        left, low = patch.get_x(), patch.get_y()
        right, high = left + patch.get_width(), low + patch.get_height()
        for (x0, y0), (
            x1,
            y1,
        ) in lines:  # a line may end at or in a box, but not enter and leave it
            inside = [left < x < right and low < y < high for x, y in ((x0, y0), (x1, y1))]
            middle = np.linspace((x0, y0), (x1, y1), 201)
            crosses = (
                (middle[:, 0] > left + 0.01)
                & (middle[:, 0] < right - 0.01)
                & (middle[:, 1] > low + 0.01)
                & (middle[:, 1] < high - 0.01)
            ).any()
            assert not crosses or any(inside)


def test_six_cells_are_lettered_and_the_pdf_holds_no_bitmap():
    cells = [
        (f"{name} {kind}", getattr(LITERALS[name], kind))
        for name in ("DARTS_V1", "PC_DARTS_cifar", "PDARTS")
        for kind in ("normal", "reduce")
    ]
    figure = drawing.cells_figure(cells)
    assert [ax.get_title("left")[:3] for ax in figure.axes] == [
        "(a)",
        "(b)",
        "(c)",
        "(d)",
        "(e)",
        "(f)",
    ]
    with io.BytesIO() as buffer:
        figure.savefig(buffer, format="pdf")
        assert b"/Subtype /Image" not in buffer.getvalue()
        assert buffer.getvalue().startswith(b"%PDF")


def test_the_legend_names_what_is_drawn_and_nothing_else():
    figure = drawing.genotype_figure(LITERALS["DARTS_V2"], "DARTS V2")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "separable convolution, twice",
        "dilated separable convolution",
        "maximum of 3×3",
        "skip connection",
    ]
    assert figure.axes[1].get_title("left") == "(b) DARTS V2: reduction cell"


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(style.NothingToPlot, match="at least one cell"):
        drawing.cells_figure([])
    with pytest.raises(genotype.BadGenotype, match="3 pairs"):
        drawing.cell_figure([("skip_connect", 0)] * 3)
