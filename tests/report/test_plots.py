"""Every figure type from realistic saved data: what it says is checked on the artists, that nothing
is cut off or overlaps on the renderer.
"""

import io

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import _pylab_helpers

from kit.evaluation import metrics
from kit.report import plots


def history(fold=0, epochs=30, validation=True) -> pd.DataFrame:
    epoch = np.arange(1, epochs + 1)
    fall = np.exp(-epoch / 4)
    table = pd.DataFrame(
        {"epoch": epoch, "loss": 0.6 * fall * (1 + 0.1 * fold), "accuracy": 1 - 0.4 * fall}
    )
    return (
        table.assign(val_loss=0.5 * fall + 0.1, val_accuracy=0.97 - 0.3 * fall)
        if validation
        else table
    )


def predictions(n=600, shift=2.0, seed=0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    p = 1 / (1 + np.exp(-rng.normal(shift * (2 * labels - 1), 1.5)))
    return pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(n)],
            "group": np.arange(n) // 2,
            "label": labels,
            "score_0": 1 - p,
            "score_1": p,
        }
    )


BARS = pd.DataFrame(
    {
        "accuracy": [99.67, 98.0],
        "accuracy_low": [98.79, 96.54],
        "accuracy_high": [99.91, 98.85],
        "auc": [99.94, 99.51],
    },
    index=["CNN", "ResNet50V2"],
)
FOREST = pd.DataFrame(
    {
        "published": [97.66, 99.67],
        "ours": [97.1, np.nan],
        "low": [95.8, np.nan],
        "high": [98.0, np.nan],
        "leak_free": [95.0, np.nan],
    },
    index=[
        "Table 1, CNN, mean accuracy over the three folds of the cross-validation",
        "Graphic 4, CNN",
    ],
)
LAYERS = pd.DataFrame(
    [
        ("input", "Input", (None, 240, 240, 3), 0, True),
        ("resnet50v2", "Backbone ResNet50V2, 190 layers", (None, 8, 8, 2048), 23564800, False),
        ("flatten", "Flatten", (None, 131072), np.nan, True),
        ("dense", "Dense, ReLU", (None, 500), 65536500, True),
        ("probability", "Dense, sigmoid", (None, 1), 501, True),
    ],
    columns=["layer", "type", "output_shape", "parameters", "trainable"],
)
IMAGE = np.random.default_rng(0).integers(0, 256, (240, 240)).astype(np.uint8)
MAPS = [
    ("CNN", np.linspace(0, 1, 117 * 117).reshape(117, 117)),
    ("Transfer learning with a long name that wraps", np.eye(8)),
]

FIGURES = {
    "learning curves": lambda: plots.learning_curves(
        [history(k) for k in range(3)], ["fold 1", "fold 2", "fold 3"]
    ),
    "training curves only": lambda: plots.learning_curves(
        [history(0, 1, validation=False)], ["all images"]
    ),
    "roc": lambda: plots.roc_curves([("CNN", predictions()), ("ResNet50V2", predictions(shift=3))]),
    "bars": lambda: plots.metric_bars(BARS),
    "many bars": lambda: plots.metric_bars(pd.concat([BARS] * 4)),
    "confusion": lambda: plots.confusion_matrix(
        [[296, 7], [5, 292]], ["no tumour", "tumour"], title="hold-out"
    ),
    "shares": lambda: plots.confusion_matrix(
        np.eye(8, dtype=int) * 900, ["dyed-resection-margins"] * 8, normalise=True
    ),
    "100 classes": lambda: plots.confusion_matrix(np.eye(100), [str(k) for k in range(100)]),
    "reliability": lambda: plots.reliability(metrics.calibration(predictions(), positive=1), "CNN"),
    "groups": lambda: plots.group_sizes([0, 0, 1, 2, 3, 3, 3]),
    "images": lambda: plots.image_grid(
        [IMAGE, IMAGE[..., None], np.stack([IMAGE] * 3, -1), IMAGE / 255, IMAGE],
        ["a title that is longer than its image", *"bcde"],
    ),
    "heat maps": lambda: plots.heatmap_panel(
        IMAGE, MAPS, mask=np.hypot(*np.indices((240, 240)) - 120) < 30
    ),
    "forest": lambda: plots.forest(FOREST),
    "architecture": lambda: plots.architecture(LAYERS, "Transfer learning"),
}


def drawn_texts(fig) -> list:
    """Every text that a drawing of the figure really shows, ticks beyond the view and hidden axes
    left out.
    """
    seen, draw = [], mpl.text.Text.draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            mpl.text.Text, "draw", lambda self, *a, **k: (seen.append(self), draw(self, *a, **k))[1]
        )
        fig.draw_without_rendering()
    return [text for text in dict.fromkeys(seen) if text.get_visible() and text.get_text()]


def words(fig) -> str:
    return "\n".join(text.get_text() for text in drawn_texts(fig))


@pytest.fixture(scope="module")
def drawn():
    made = {
        name: plots.note(make(), "Embedded data: not comparable with published values. " * 3)
        for name, make in FIGURES.items()
    }
    return {name: (fig, drawn_texts(fig)) for name, fig in made.items()}


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_is_cut_off_or_overlaps(drawn, name):
    fig, shown = drawn[name]
    boxes = [(text.get_text(), text.get_window_extent()) for text in shown]
    assert len(boxes) >= 3
    for text, box in boxes:
        assert min(box.x0, box.y0) > -1, f"{text!r} is cut off"
        assert box.x1 < fig.bbox.x1 + 1, f"{text!r} is cut off"
        assert box.y1 < fig.bbox.y1 + 1, f"{text!r} is cut off"
    for number, (text, box) in enumerate(boxes):
        for other, other_box in boxes[:number]:
            slanted = (
                "dyed" in text and "dyed" in other
            )  # boxes of slanted labels overlap, their letters do not
            overlap = mpl.transforms.Bbox.intersection(box, other_box)
            assert slanted or overlap is None or min(overlap.width, overlap.height) < 1.5, (
                f"{text!r} overlaps {other!r}"
            )


def test_figures_leave_no_global_state(drawn):
    assert _pylab_helpers.Gcf.get_num_fig_managers() == 0
    assert all(isinstance(fig, plots.Figure) for fig, _ in drawn.values())


def test_callers_style_does_not_show():
    def png(fig):
        with io.BytesIO() as buffer:
            fig.savefig(buffer, format="png", dpi=60)
            return buffer.getvalue()

    plain, before = png(plots.metric_bars(BARS)), dict(mpl.rcParams)
    with mpl.rc_context(
        {
            "font.size": 30,
            "axes.facecolor": "black",
            "lines.linewidth": 9,
            "xtick.labelsize": 30,
            "axes.grid": True,
        }
    ):
        assert png(plots.metric_bars(BARS)) == plain
    assert dict(mpl.rcParams) == before


def test_a_notebook_shows_the_figure_without_pyplot():
    assert (
        plots.confusion_matrix([[1, 0], [0, 1]], ["no", "yes"])._repr_png_().startswith(b"\x89PNG")
    )


def test_learning_curves_have_four_panels_with_percent_and_distinct_lines():
    fig = FIGURES["learning curves"]()
    assert [ax.get_title() for ax in fig.axes] == [
        "(a) Training loss",
        "(b) Validation loss",
        "(c) Training accuracy",
        "(d) Validation accuracy",
    ]
    lines = fig.axes[3].lines
    assert (
        len({(line.get_linestyle(), line.get_marker()) for line in lines})
        == len({line.get_color() for line in lines})
        == 3
    )
    assert lines[0].get_ydata()[-1] == pytest.approx(100 * history()["val_accuracy"].iloc[-1])
    assert [ax.get_title() for ax in FIGURES["training curves only"]().axes] == [
        "(a) Training loss",
        "(b) Training accuracy",
    ]


def test_roc_shows_the_auc_its_interval_and_the_operating_point():
    data = predictions()
    fig = plots.roc_curves([("CNN", data)])
    result = metrics.binary_metrics(data)
    assert f"AUC {result['auc']:.4f}\n95 % interval" in words(fig)
    chance, _, point = fig.axes[0].lines[:3]
    assert np.ravel(chance.get_data()).tolist() == [0, 1, 0, 1]
    assert np.ravel(point.get_data()) == pytest.approx(
        [1 - result["specificity"], result["sensitivity"]]
    )


def test_metric_bars_say_where_a_cut_axis_starts():
    cut, whole = plots.metric_bars(BARS), plots.metric_bars(BARS / 2)
    assert "axis starts at 96)" in words(cut)
    assert cut.axes[0].get_ylim()[0] == 96
    assert "starts" not in words(whole)
    assert whole.axes[0].get_ylim()[0] == 0
    assert {"99.67", "98.00", "99.94", "99.51"} <= set(words(cut).split("\n"))
    tops = sorted(bar.get_y() + bar.get_height() for bar in cut.axes[0].patches)
    assert tops == pytest.approx([98.0, 99.51, 99.67, 99.94])
    assert len({bar.get_hatch() for bar in cut.axes[0].patches}) == 2


def test_missing_values_leave_a_gap_not_a_crash():
    table = BARS.assign(auc=[np.nan, 99.51])
    assert "nan" not in words(plots.metric_bars(table)).lower()


def test_confusion_cells_keep_counts_and_shares():
    fig = plots.confusion_matrix([[3, 1], [0, 0]], ["no", "yes"], normalise=True)
    assert {"75.0 %\n(3)", "25.0 %\n(1)", "0.0 %\n(0)"} <= {t.get_text() for t in fig.axes[0].texts}
    assert fig.axes[0].get_xlabel() == "Predicted class"
    assert fig.axes[0].get_ylabel() == "True class"


def test_forest_draws_what_is_there():
    ax = plots.forest(FOREST).axes[0]
    assert np.ravel(ax.lines[0].get_xdata()).tolist() == [97.66, 99.67]
    assert {"published", "ours, 95 % interval", "ours, leak-free test set"} == set(
        ax.get_legend_handles_labels()[1]
    )
    assert (
        "ours, leak-free test set"
        not in plots.forest(FOREST[["published", "ours", "low", "high"]])
        .axes[0]
        .get_legend_handles_labels()[1]
    )


def test_architecture_sums_parameters_and_marks_what_is_frozen():
    said = words(plots.architecture(LAYERS))
    assert "89,101,801 parameters, 65,537,001 of them trained" in said
    assert "Backbone ResNet50V2, 190 layers (frozen)" in said
    assert "8 × 8 × 2,048" in said
    assert "65,537,001 parameters" in words(
        plots.architecture(LAYERS.drop(columns="trainable").drop(index=1))
    )


def test_group_sizes_count_groups():
    bars = FIGURES["groups"]().axes[0].patches
    assert [bar.get_height() for bar in bars] == [2, 1, 1]


def test_note_makes_room_below():
    fig = FIGURES["bars"]()
    height = fig.get_figheight()
    plots.note(fig, "Reduced settings: 2 epochs. " * 10)
    fig.draw_without_rendering()
    assert fig.get_figheight() > height + 0.3
    assert fig.texts[-1].get_window_extent().y1 < fig.axes[0].get_tightbbox().y0


def test_a_figure_without_a_layout_gets_room_for_its_note_too():
    fig = mpl.figure.Figure()
    fig.subplots().set_xlabel("what the axis shows")
    plots.note(fig, "Reduced settings: 2 epochs. " * 10)
    fig.draw_without_rendering()
    assert fig.texts[-1].get_window_extent().y1 < fig.axes[0].get_tightbbox().y0


@pytest.mark.parametrize(
    "call",
    [
        lambda: plots.learning_curves([], []),
        lambda: plots.roc_curves([]),
        lambda: plots.metric_bars(BARS.iloc[:0]),
        lambda: plots.image_grid([], []),
        lambda: plots.confusion_matrix(np.eye(3), ["a", "b"]),
        lambda: plots.heatmap_panel(IMAGE, []),
        lambda: plots.forest(FOREST.iloc[:0]),
        lambda: plots.architecture(LAYERS.iloc[:0]),
        lambda: plots.group_sizes([]),
        lambda: plots.reliability(pd.DataFrame()),
    ],
)
def test_nothing_to_plot_gets_one_sentence(call):
    with pytest.raises(plots.NothingToPlot, match=r"^[A-Z].*\.$"):
        call()


def test_a_footer_has_the_house_style_whatever_the_callers():
    with mpl.rc_context({"font.family": ["serif"]}):
        fig = plots.note(plots.new_figure(4, 3), "Reduced settings.")
    assert fig.texts[-1].get_fontfamily() != ["serif"]
