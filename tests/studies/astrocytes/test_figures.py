"""The astrocyte chapter's figures: what is drawn is what the tables hold."""

import numpy as np
import pandas as pd
import pytest

from kit.report.style import NothingToPlot
from kit.studies.astrocytes import figures

TITLES = {"cifar-10": "CIFAR-10", "a": "Net A", "b": "Net B"}


def grid(broken=False):
    return pd.DataFrame(
        [
            {
                "row": f"cifar-10.{n}",
                "title": f"CIFAR-10, {n}",
                "strong": s,
                "weak": w,
                "repetition": 0,
                "epoch": e,
                "accuracy": np.nan if broken and s < w else 0.1 * s + 0.01 * e,
            }
            for n in "ab"
            for s in (0.5, 1.0, 1.5)
            for w in (0.5, 1.0, 1.5)
            for e in (1, 2)
        ]
    )


def test_heat_maps_write_every_cell_and_frame_the_control():
    fig = figures.heat_maps(grid())
    maps = [ax for ax in fig.axes if ax.texts]
    assert len(maps) == 4
    assert [t.get_text() for t in maps[0].texts] == ["6.0", "11.0", "16.0"] * 3
    assert [t.get_text() for t in maps[0].get_xticklabels()] == ["0.5", "1", "1.5"]
    assert maps[0].patches[0].get_xy() == (1, 1)  # cells are one wide, from 0
    np.testing.assert_allclose(maps[0].collections[0].get_array()[0], [-5, 0, 5], atol=1e-9)
    assert sum(t.get_text() == "×" for t in figures.heat_maps(grid(True)).axes[0].texts) == 3


def test_accuracy_is_drawn_with_and_without_astrocytes():
    table = pd.DataFrame(
        [
            {
                "dataset": "cifar-10",
                "network": n,
                "arm": a,
                "seed": s,
                "epoch": e,
                "accuracy": 0.5 + 0.1 * s,
            }
            for n in "ab"
            for a in ("CNN", "CNGN")
            for s in (0, 1)
            for e in (1, 2)
        ]
    )
    ax = figures.accuracy_by_epoch(table, TITLES).axes[0]
    assert len({(line.get_linestyle(), line.get_marker()) for line in ax.lines}) == 4
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 55)


def test_similarity_has_its_floor():
    table = pd.DataFrame(
        [
            {
                "dataset": "cifar-10",
                "network": "a",
                "kind": k,
                "seed": 0,
                "epoch": e,
                "pwcca": 0.8,
                "cka": 0.6,
                "floor": 0.37,
                "images": 50,
            }
            for k in ("astrocytes", "seeds")
            for e in (1, 2)
        ]
    )
    fig = figures.similarity_by_epoch(table, TITLES)
    assert [0.37, 0.37] in [list(line.get_ydata()) for line in fig.axes[0].lines]
    assert "n = 50" in fig.axes[0].get_title()
    assert [0.0, 0.0] in [
        list(line.get_ydata())
        for line in figures.similarity_by_epoch(table, TITLES, "cka").axes[0].lines
    ]


def test_paths_start_at_one_and_differences_keep_their_place():
    fig = figures.search_paths({"x": [(1.25, 0.75)]})
    assert [list(ax.lines[0].get_ydata()) for ax in fig.axes] == [[1, 1.25], [1, 0.75]]
    table = pd.DataFrame(
        [
            {
                "row": "r",
                "statistics": "moving",
                "arm": "zero",
                "difference (pp)": -3.0,
                "low": -4.0,
                "high": -2.0,
                "sd of a seed (pp)": 1.0,
            },
            {
                "row": "s",
                "statistics": "recalibrated",
                "arm": "zero",
                "difference (pp)": 1.0,
                "low": np.nan,
                "high": np.nan,
                "sd of a seed (pp)": np.nan,
            },
        ]
    )
    ax = figures.differences(table, {"zero": "Str = 0"}).axes[0]
    assert ax.patches[0].get_width() == pytest.approx(2 * 1.96 * 2**0.5)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["r, moving", "s, recalibrated"]


def test_empty_tables_are_refused():
    for draw in (
        lambda e: figures.accuracy_by_epoch(e, {}),
        lambda e: figures.similarity_by_epoch(e, {}),
        lambda e: figures.differences(e, {}),
        figures.heat_maps,
        figures.search_paths,
    ):
        with pytest.raises(NothingToPlot):
            draw(pd.DataFrame() if draw is not figures.search_paths else {})
