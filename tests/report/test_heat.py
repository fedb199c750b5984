"""Matrices as cells: what stands in them, where, and in which colour."""

import matplotlib as mpl
import numpy as np
import pytest

from kit.report import heat
from kit.report.style import new_figure


def drawn(values, **more):
    ax = new_figure(3, 3).add_subplot()
    names = [f"c{i}" for i in range(len(values[0]))], [f"r{i}" for i in range(len(values))]
    mesh = heat.cells(ax, values, heat.texts_of(values, ".1f"), names, limits=(0, 10), **more)
    return ax, mesh


def test_every_cell_has_its_text_and_an_empty_one_a_dash():
    ax, mesh = drawn([[0, 5], [10, np.nan]])
    told = {text.get_position(): text.get_text() for text in ax.texts}
    assert told == {(0.5, 0.5): "0.0", (1.5, 0.5): "5.0", (0.5, 1.5): "10.0", (1.5, 1.5): "–"}
    assert mesh.get_clim() == (0, 10)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["r0", "r1"]


def test_text_stands_out_from_its_cell():
    ax, _ = drawn([[0, 10]])
    light, dark = (mpl.colors.to_rgb(text.get_color()) for text in ax.texts)
    assert sum(light) < 1 < 2.9 < sum(dark)


def test_names_can_be_slanted_and_left_out():
    ax, _ = drawn([[0, 10]])
    heat.slant(ax)
    assert {label.get_rotation() for label in ax.get_xticklabels()} == {40}
    bare = new_figure(3, 3).add_subplot()
    heat.cells(bare, [[1.0]], [["1"]], ((), ()), limits=(0, 1))
    assert bare.get_xticklabels() == bare.get_yticklabels() == []


@pytest.mark.parametrize("empty", ["–", "×"])
def test_numbers_become_texts(empty):
    texts = heat.texts_of([[1234, np.nan]], ",.0f", empty)
    assert texts.tolist() == [["1,234", empty]]
