"""Gen-CNN's figures: what is drawn is what the search holds."""

import numpy as np
import pandas as pd
import pytest

from kit.report.style import NothingToPlot
from kit.search.evolution import genome
from kit.studies.gencnn import figures


def words(fig):
    return " ".join(text.get_text().replace("\n", " ") for ax in fig.axes for text in ax.texts)


def test_the_flow_names_every_step():
    assert all(heading in words(figures.flow()) for heading, _, _ in figures.STEPS)


def test_the_encoding_shows_bins_and_ranges():
    fig = figures.encoding(genome.chapter3())
    assert len(fig.axes[0].patches) == 9 + 5 + 4
    assert "1e-05" in words(fig)
    assert "label smoothing" in words(fig)
    assert "log" in words(figures.encoding(genome.chapter3(scale="log")))


def test_a_population_shows_values_genes_and_failures():
    space = genome.chapter3()
    table = pd.DataFrame(np.full((3, 5), 0.01), columns=[f"gene.{n}" for n in space.names]).assign(
        **space.decode(np.full(5, 0.01)),
        individual=range(3),
        fitness=[0.1, -1, 0.3],
        reason=[None, "lost", None],
    )
    said = words(figures.population(table, space))
    assert said.count("ConvNext-Tiny (0.01)") == 3
    assert "failed" in said
    assert "0.300" in said
    with pytest.raises(NothingToPlot):
        figures.population(table[:0], space)


def test_convergence_counts_what_was_paid():
    """Two half trainings cost one: the third evaluation of Hyperband stands at 1.5, drawn at 2."""
    whole, half = (
        pd.DataFrame({"best": [0.1, 0.4], "cost": 1.0}),
        pd.DataFrame({"best": [0.2, 0.3, 0.5], "cost": 0.5}),
    )
    fig = figures.convergence({"genetic": [whole, whole], "hyperband": [half]})
    np.testing.assert_array_equal(fig.axes[0].lines[0].get_ydata(), [0.1, 0.4])
    np.testing.assert_array_equal(fig.axes[0].lines[1].get_ydata(), [0.3, 0.5])
    with pytest.raises(NothingToPlot):
        figures.convergence({})


def test_fidelity_draws_each_individual():
    table = pd.DataFrame(
        {"fitness": [0.1, 0.2], "final_test_mcc": [0.3, 0.4], "final_val_mcc": [0.5, 0.6]}
    )
    fig = figures.fidelity(table)
    np.testing.assert_array_equal(fig.axes[0].lines[0].get_ydata(), [0.3, 0.4])
    with pytest.raises(NothingToPlot):
        figures.fidelity(table[:0])
