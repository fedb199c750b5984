import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kit.data import preprocess
from kit.evaluation import metrics
from kit.report import panels
from kit.report.style import Figure, NothingToPlot, note
from kit.studies.cad import figures, published_tables

NAMES = [published_tables.TITLES[m] for m in published_tables.MODELS]


def drawn(fig):
    """The figure after it was drawn with a footer, as the notebooks save it."""
    assert isinstance(fig, Figure)
    note(fig, "Embedded data set, not the published data.").draw_without_rendering()
    return fig


def texts(fig):
    return " ".join(t.get_text() for t in fig.findobj(lambda artist: hasattr(artist, "get_text")))


@pytest.fixture
def scan():
    """A grey ellipse on black: uint8 (120, 140, 3), head in rows 20..100 and columns 30..110."""
    y, x = np.mgrid[:120, :140]
    inside = ((y - 60) / 40) ** 2 + ((x - 70) / 40) ** 2 < 1
    return np.dstack([np.where(inside, 150, 0)] * 3).astype(np.uint8)


@pytest.fixture
def prepared(scan):
    return preprocess.cad(scan, 64).image


@pytest.fixture
def history():
    epoch = np.arange(1, 8)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "accuracy": epoch / 8,
            "loss": 1 / epoch,
            "val_accuracy": [0.2, 0.3, 0.9, 0.8, 0.5, 0.4, 0.6],
            "val_loss": [3, 2, 0.2, 0.5, 1, 1, 0.9],
        }
    )


def test_images_are_shown_in_true_colours(prepared):
    """Prepared images are blue, green, red with blue the brightest; the picture that is drawn has
    red first and blue still the brightest.
    """
    shown = drawn(figures.class_samples({"glioma": prepared})).axes[0].images[0].get_array()
    assert np.array_equal(shown, prepared[..., ::-1])
    assert (shown[..., 2] >= shown[..., 0]).all()
    assert shown[..., 2].max() > shown[..., 0].max() - 1
    assert np.array_equal(figures.rgb(prepared[..., 0]), prepared[..., 0])


def test_figures_of_the_data(scan, prepared):
    drawn(figures.class_samples(dict.fromkeys(published_tables.CLASSES, scan)))
    fig = drawn(figures.prepared_grid([prepared] * 8, [f"Tr-{i}" for i in range(8)]))
    assert len(fig.axes) == 8
    assert fig.axes[0].get_xlim() == (0, 64)
    assert "x (pixels)" in texts(fig)
    fig = drawn(
        figures.augmented_pairs([prepared] * 4, [prepared[:, ::-1]] * 4, published_tables.CLASSES)
    )
    assert "(d) pituitary" in texts(fig)
    assert "(d′) augmented" in texts(fig)
    with pytest.raises(NothingToPlot):
        figures.augmented_pairs([prepared], [])


def test_crop_steps_show_the_crop_of_the_chain(scan):
    fig = drawn(figures.crop_steps(scan, "Tr-me_0001.jpg", blur=3))
    box = preprocess.crop_box(scan)
    assert np.array_equal(fig.axes[3].images[0].get_array(), preprocess.crop(scan, box)[..., ::-1])
    assert all(
        word in texts(fig)
        for word in (
            "left",
            "right",
            "top",
            "bottom",
            f"{box.right - box.left} × {box.bottom - box.top} px",
        )
    )
    with pytest.raises(NothingToPlot):
        figures.crop_steps(np.zeros((50, 50), np.uint8))


def test_resnet50_stages_have_the_known_shapes_and_parameters():
    """Those of Keras' ResNet50: 23,595,908 with the head, 9,472 in the first convolution, 50, 50,
    25, 13 and 7 pixels.
    """
    table = figures.resnet50_stages().set_index("name")
    assert table["parameters"].sum() == 23_595_908
    assert table.loc["conv1_relu", "parameters"] == 9_472 + 4 * 64
    shapes = {
        "conv1_relu": (100, 100, 64),
        "pool1_pool": (50, 50, 64),
        "conv2_block3_out": (50, 50, 256),
        "conv3_block4_out": (25, 25, 512),
        "conv4_block6_out": (13, 13, 1024),
        "conv5_block3_out": (7, 7, 2048),
    }
    assert {name: table.loc[name, "output_shape"] for name in shapes} == shapes
    assert "23,595,908 parameters" in texts(drawn(figures.stages_diagram()))


def test_diagrams(prepared):
    counts = {"train": 4569, "val": 1143, "test": 1311}
    words = texts(
        drawn(
            figures.framework(
                counts, {"original": prepared, "crop": prepared}, {"stage 5": prepared}
            )
        )
    )
    assert "7,023 images" in words
    assert "331 × 331 × 3" in words
    assert "batch 32, 25 epochs" in words
    assert "2 epochs" in texts(drawn(figures.framework(counts, training=["2 epochs"])))
    assert "1.28 million" in texts(drawn(figures.transfer_scheme()))


def test_confusion_panels_print_every_count():
    fig = drawn(
        figures.confusion_panels(
            {
                published_tables.TITLES[m]: published_tables.published_matrix(m)
                for m in published_tables.MODELS
            },
            published_tables.CLASSES,
        )
    )
    counts = [t.get_text() for t in fig.axes[0].texts]
    assert counts == [str(n) for n in published_tables.published_matrix("resnet50").ravel()]
    assert len(fig.axes) == 7
    assert "(f) Xception" in texts(fig)


def test_misclassified_images_stand_in_rows_of_models(prepared):
    fig = drawn(
        figures.misclassified(
            {"ResNet-50": [(prepared, "Te-no_0045 as glioma")] * 4, "Xception": []}
        )
    )
    assert len(fig.axes) == 8
    assert "none" in texts(fig)
    assert fig.axes[0].get_ylabel() == "ResNet-50"
    drawn(figures.misclassified({"ResNet-50": []}))


def test_venn_prints_regions_and_sums():
    counts = pd.DataFrame({"images": [5, 4, 7, 3, 2, 1, 6], "distinct": [5, 4, 7, 3, 2, 1, 4]})
    fig = drawn(figures.venn(counts, NAMES[:3]))
    assert [t.get_text() for t in fig.axes[0].texts if t.get_text().isdigit()] == [
        "5",
        "4",
        "7",
        "3",
        "2",
        "1",
        "6",
    ]
    assert "(4 distinct)" in texts(fig)
    assert f"{NAMES[0]}: 16 errors" in texts(fig)
    assert f"{NAMES[2]}: 16 errors" in texts(fig)
    circles = [p for p in fig.axes[0].patches if p.get_fill()]
    places = [t.get_position() for t in fig.axes[0].texts if t.get_text().isdigit()]
    inside = [
        tuple(bool(np.hypot(*np.subtract(p, c.center)) < c.radius) for c in circles) for p in places
    ]
    assert inside == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
        (True, True, False),
        (True, False, True),
        (False, True, True),
        (True,) * 3,
    ]


def test_curves(history):
    fig = drawn(
        figures.model_curves(
            {
                **dict.fromkeys(NAMES, history),
                "seventh": history.drop(columns=["val_loss", "val_accuracy"]),
            }
        )
    )
    assert len(fig.axes) == 16
    assert len(fig.axes[0].lines) == 2
    assert "(g) seventh" in texts(fig)
    fig = drawn(figures.curves_with_best(history, "without augmentation"))
    assert "smallest validation loss, epoch 3" in texts(fig)
    assert "accuracy there 90.0 %, at the end 60.0 %" in texts(fig)


@pytest.fixture
def scatter():
    accuracy = [98.70, 97.18, 95.19, 98.55, 97.56, 98.63, 98.6]
    table = pd.DataFrame(
        {
            "model": [*NAMES, "EfficientNet-Lite0 (not in the paper)"],
            "accuracy": accuracy,
            "ms": [90.1, 128.6, 40.6, 53.7, 329.1, 84.9, 38.0],
            "parameters": [23.6, 20.0, 2.26, 21.8, 84.9, 20.9, 3.4],
        }
    )
    return table.assign(accuracy_low=table["accuracy"] - 0.8, accuracy_high=table["accuracy"] + 0.6)


@pytest.mark.parametrize(("column", "log"), [("parameters", False), ("ms", False), ("ms", True)])
def test_scatter_names_cover_neither_each_other_nor_points(scatter, column, log):
    fig = drawn(figures.accuracy_scatter(scatter, column, "Cost (unit)", log))
    ax, renderer = fig.axes[0], fig.canvas.get_renderer()
    areas = [t.get_window_extent(renderer) for t in ax.texts if t.get_text()]
    assert len(areas) == 7
    assert not [1 for i, a in enumerate(areas) for b in areas[:i] if a.overlaps(b)]
    points = ax.transData.transform(scatter[[column, "accuracy"]].to_numpy())
    assert not [1 for a in areas for x, y in points if a.contains(x, y)]
    frame = ax.get_window_extent(renderer)
    assert all(
        frame.x0 <= a.x0 and a.x1 <= frame.x1 and frame.y0 <= a.y0 and a.y1 <= frame.y1
        for a in areas
    )
    with pytest.raises(NothingToPlot):
        figures.accuracy_scatter(scatter.assign(**{column: np.nan}), column, "Cost")


def test_bars_of_original_and_prepared_images():
    rows = [
        {"row": m, "metric": c, "value": v, "low": v - 1, "high": v + 1}
        for m in published_tables.MODELS
        for c, v in (("original", 72.08), ("preprocessed", 95.19))
    ]
    fig = drawn(figures.original_and_prepared(pd.DataFrame(rows), published_tables.TITLES))
    assert len([p for p in fig.axes[0].patches if p.get_height() > 1]) == 12
    assert "72.08" in texts(fig)
    assert "Original" not in texts(fig)


def test_reliability_panels():
    score = np.linspace(0.3, 0.99, 80)
    table = pd.DataFrame(
        {"label": (score < 0.6).astype(int), "score_0": score, "score_1": 1 - score}
    )
    fig = drawn(
        figures.reliability_panels({name: metrics.calibration(table) for name in NAMES[:4]})
    )
    assert f"ECE {100 * metrics.calibration(table).ece:.1f} %" in texts(fig)
    assert "Confidence (mean of the bin)" in texts(fig)


def test_heat_maps_lie_over_their_own_image(prepared):
    maps = [np.linspace(0, 1, n * n).reshape(n, n) for n in (50, 25, 13, 7, 7)]
    fig = drawn(
        figures.heat_maps(
            [("prepared", prepared, None)]
            + [(f"stage {k}", prepared, m) for k, m in enumerate(maps, 1)]
        )
    )
    assert len(fig.axes) == 7
    assert [len(ax.images) for ax in fig.axes[:6]] == [1, 2, 2, 2, 2, 2]
    base, heat = fig.axes[5].images
    assert np.array_equal(base.get_array(), prepared[..., ::-1])
    assert heat.get_extent() == base.get_extent()
    assert np.array_equal(heat.get_array(), maps[-1])


def test_screens_of_the_application(tmp_path):
    for name, size in (("a", (80, 50)), ("b", (80, 60)), ("c", (60, 90))):
        Image.new("RGB", size, (200, 30, 10)).save(tmp_path / f"{name}.png")
    fig = drawn(figures.app_montage([(tmp_path / f"{name}.png", f"page {name}") for name in "abc"]))
    assert tuple(fig.axes[0].images[0].get_array()[0, 0]) == (
        200,
        30,
        10,
    )
    assert "(c) page c" in texts(fig)


@pytest.mark.parametrize(
    "call",
    [
        lambda: figures.class_samples({}),
        lambda: figures.app_montage([]),
        lambda: figures.heat_maps([]),
        lambda: figures.confusion_panels({}, published_tables.CLASSES),
        lambda: figures.model_curves({}),
        lambda: figures.reliability_panels({}),
        lambda: figures.prepared_grid([]),
        lambda: figures.misclassified({}),
        lambda: panels.venn(pd.DataFrame(), []),
    ],
)
def test_nothing_to_draw_is_one_sentence(call):
    with pytest.raises(NothingToPlot):
        call()
