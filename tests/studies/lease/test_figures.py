"""The LeaSE paper's figures: what is drawn is what the tables hold."""

import numpy as np
import pandas as pd
import pytest

from kit.report.style import NothingToPlot
from kit.studies.lease import figures


def history(seed=0, epochs=9):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "epoch": range(1, epochs + 1),
            "val_accuracy": rng.uniform(0.3, 0.9, epochs),
            "skips_normal": rng.integers(0, 5, epochs),
            "entropy_normal": rng.uniform(1, 2, epochs),
        }
    )


def test_the_scheme_names_all_four_stages():
    words = " ".join(text.get_text() for text in figures.scheme().axes[0].texts)
    assert all(name in words for name, _, _ in figures.STAGES)
    assert all(name in words for name in figures.OPERATIONS)


def test_convergence_draws_percent_and_skips_empty_panels():
    curves = {"DARTS": history(1), "LeaSE+DARTS": history(2)}
    fig = figures.convergence({"searched": curves, "none": {}, "designed": {"VGG-13": history(3)}})
    assert [ax.get_title() for ax in fig.axes if ax.lines] == ["(a) searched", "(b) designed"]
    np.testing.assert_allclose(
        fig.axes[0].lines[1].get_ydata(), 100 * curves["LeaSE+DARTS"]["val_accuracy"]
    )
    with pytest.raises(NothingToPlot, match="history"):
        figures.convergence({"none": {}})


def test_twelve_searches_differ_in_more_than_colour():
    fig = figures.search_progress({f"search {n}": history(n) for n in range(12)})
    looks = {
        (line.get_color(), line.get_linestyle(), line.get_marker()) for line in fig.axes[0].lines
    }
    assert len(looks) == 12
    with pytest.raises(NothingToPlot):
        figures.search_progress({})


def test_the_leak_figure_shows_both_values_of_every_method():
    lines = [
        {
            "metric": "accuracy",
            "title": name,
            "value": 70.0 + k,
            "low": 66,
            "high": 74 + k,
            "leak_free": 60.0,
            "leak_free_low": 50,
            "leak_free_high": 70,
            "n": 394,
            "leak_free_n": 135,
        }
        for k, name in enumerate(("a", "b"))
    ]
    fig = figures.leak(pd.DataFrame([*lines, {"metric": "auc", "title": "a"}]))
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == ["a", "b"]
    np.testing.assert_array_equal(fig.axes[0].containers[0].lines[0].get_xdata(), [70, 71])
    assert "n = 135" in fig.axes[0].get_legend().get_texts()[1].get_text()
