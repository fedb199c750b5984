"""The figures of PBC-NAS in 3D from made-up data: what is drawn is what the tables hold, and no
text is cut off or overlaps.
"""

import functools

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from kit.evaluation import metrics
from kit.report import slices
from kit.report.style import NothingToPlot, note
from kit.search.evolution.opposition import ODE
from kit.search.evolution.opposition_settings import Box, ODESettings
from kit.search.nas3d.space import PAPER, Space
from kit.studies.pbcnas import figures
from tests.report.test_plots import drawn_texts

ORGANS = [
    "liver",
    "kidney-right",
    "kidney-left",
    "femur-right",
    "femur-left",
    "bladder",
    "heart",
    "lung-right",
    "lung-left",
    "spleen",
    "pancreas",
]
SETS = [
    "OrganMNIST3D",
    "NoduleMNIST3D",
    "FractureMNIST3D",
    "AdrenalMNIST3D",
    "VesselMNIST3D",
    "SynapseMNIST3D",
]


@functools.lru_cache
def search(seed, algorithm="ode", jumping=0.9):
    search = ODE(
        ODESettings(population=6, budget=30, seed=seed, algorithm=algorithm, jumping=jumping),
        Box(4),
    )
    while not search.finished:
        candidate = search.ask()[0]
        search.tell(
            candidate.evaluation,
            None if candidate.evaluation == 3 else float(1 - np.abs(candidate.genes - 0.3).mean()),
        )
    return search.history()


def networks(count, seed=0, space=PAPER):
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        genes = rng.random(29)
        found += [] if space.reason(genes) else [space.decode(genes)]
    return found


def predictions(classes=2, n=220, seed=0):
    rng = np.random.default_rng(seed)
    labels, scores = rng.integers(0, classes, n), rng.normal(size=(n, classes))
    scores = np.exp(scores + 2 * np.eye(classes)[labels])
    scores /= scores.sum(1, keepdims=True)
    return pd.DataFrame(
        {
            "image_id": [f"test/{k}" for k in range(n)],
            "group": range(n),
            "label": labels,
            **{f"score_{k}": scores[:, k] for k in range(classes)},
        }
    )


def history(seed=0, epochs=40):
    rng, epoch = np.random.default_rng(seed), np.arange(1, epochs + 1)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "loss": 0.6 * 0.8**epoch,
            "accuracy": 1 - 0.4 * 0.9**epoch,
            "val_loss": 0.5 + 0.01 * epoch,
            "val_accuracy": rng.uniform(0.7, 0.9, epochs),
        }
    )


def results():
    rng, rows = np.random.default_rng(0), []
    for data in SETS[:2]:
        rows += [
            {
                "data": data,
                "title": "",
                "kind": "candidate",
                "accuracy": rng.uniform(60, 90),
                "parameters": 10 ** rng.uniform(4, 7),
                "macs": 10 ** rng.uniform(8, 10.5),
            }
            for _ in range(20)
        ]
        rows += [
            {
                "data": data,
                "title": f"found network #{k}",
                "kind": "found",
                "accuracy": 80 + k,
                "low": 75,
                "high": 88,
                "parameters": 18026 * k,
                "macs": 4e8 * k,
            }
            for k in (1, 2, 3)
        ]
        rows += [
            {
                "data": data,
                "title": "ResNet-18 3D",
                "kind": "ResNet",
                "accuracy": 76.0,
                "parameters": 33140802,
                "macs": 17749103616,
            }
        ]
    return pd.DataFrame(rows)


def fidelity_table():
    fitness = np.array([0.5, 0.625, 0.75, 0.875, 1.0])
    data = ["OrganMNIST3D"] * 5 + ["NoduleMNIST3D"] * 5
    return pd.DataFrame(
        {
            "data": data,
            "fitness": [*fitness, *fitness],
            "accuracy": [*(fitness / 2 + 0.3), *fitness[::-1]],
            "auc": [*fitness / 1.2, *[0.8] * 5],
        }
    )


OUTCOMES = {
    "OrganMNIST3D": figures.Outcome(
        {"found network #1, seed 143": predictions(11)}, ORGANS, history(), 12
    ),
    "FractureMNIST3D": figures.Outcome(
        {"found": predictions(3)},
        ["buckle rib fracture", "nondisplaced rib fracture", "displaced rib fracture"],
        None,
    ),
    "AdrenalMNIST3D": figures.Outcome(
        {"found network #1": predictions(), "ResNet-18 3D": predictions(seed=1)},
        ["normal", "hyperplasia"],
        history(1),
        40,
    ),
}
VOLUMES = np.random.default_rng(0).integers(0, 256, (2, 12, 10, 8), dtype=np.uint8)
TRANSFER = pd.DataFrame(
    [[0.9, 0.8, np.nan], [0.7, 0.95, 0.6]], ["OrganMNIST3D", "NoduleMNIST3D"], SETS[:3]
)
FIGURES = {
    "convergence": lambda: figures.convergence(
        {
            name: {"ODE": [search(1), search(2)], "random search": [search(3, "random")]}
            for name in SETS
        }
    ),
    "one search": lambda: figures.convergence(
        {
            "phantom3d, the embedded stand-in for AdrenalMNIST3D, made from an MRI template": {
                "ODE": [search(1)]
            }
        }
    ),
    "trade-off": lambda: figures.trade_off(results()),
    "frequencies": lambda: figures.frequencies(
        {name: networks(5, k) for k, name in enumerate(SETS)}
    ),
    "fidelity": lambda: figures.fidelity(fidelity_table()),
    "outcomes": lambda: figures.outcomes(OUTCOMES),
    "training": lambda: figures.training_curves(
        {f"seed {k}": history(k) for k in (0, 42, 143)}, {"seed 0": 7, "seed 42": 12}
    ),
    "slices": lambda: figures.slices({name: (VOLUMES, ["normal", "hyperplasia"]) for name in SETS}),
    "montage": lambda: figures.montage(
        VOLUMES[0],
        np.eye(6)[None].repeat(6, 0),
        "AdrenalMNIST3D test/12: hyperplasia, seen as hyperplasia (93 %)",
    ),
    "transfer": lambda: figures.transfer({"AUC": TRANSFER, "Accuracy (%)": 100 * TRANSFER}),
}


@pytest.fixture(scope="module")
def drawn():
    return {name: make() for name, make in FIGURES.items()}


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_is_cut_off_or_overlaps(drawn, name):
    fig = drawn[name]
    shown = drawn_texts(note(fig, "Embedded data: not comparable with published values."))
    boxes = [
        (text.get_text(), text.get_window_extent())
        for text in shown
        if text.get_rotation() in (0, 90)
    ]
    assert len(boxes) >= 3
    for number, (text, box) in enumerate(boxes):
        assert min(box.x0, box.y0) > -1, f"{text!r} is cut off"
        assert box.x1 < fig.bbox.x1 + 1, f"{text!r} is cut off"
        assert box.y1 < fig.bbox.y1 + 1, f"{text!r} is cut off"
        for other, other_box in boxes[:number]:
            overlap = mpl.transforms.Bbox.intersection(box, other_box)
            assert overlap is None or min(overlap.width, overlap.height) < 1.5, (
                f"{text!r} overlaps {other!r}"
            )


def test_what_a_search_had_counts_only_trained_models():
    told = search(1)
    table = figures.trained(told)
    fitness = [
        row.fitness
        for row in sorted(told.itertuples(), key=lambda row: row.evaluation)
        if row.evaluation >= 0 and row.fitness > 0
    ]  # the failed one has -1, dropped ones none
    assert table["models"].tolist() == list(range(1, 31))
    assert told["failed"].sum() == 1
    assert told["fitness"].isna().any()
    np.testing.assert_array_equal(table["best"], np.maximum.accumulate(fitness))
    assert table["mean"].isna().tolist() == [True] * 4 + [False] * 26
    assert table["mean"].iloc[[5, 29]].tolist() == pytest.approx(
        [np.mean(fitness[:6]), np.mean(fitness[10:])]
    )


def test_convergence_draws_median_range_and_jumps(drawn):
    fig, tables = drawn["convergence"], [figures.trained(search(seed)) for seed in (1, 2)]
    ax = fig.axes[0]
    assert len(fig.axes) == 6
    assert ax.get_title() == "(a) OrganMNIST3D (1–2 searches each)"
    np.testing.assert_allclose(
        ax.lines[0].get_ydata(), 50 * (tables[0]["best"] + tables[1]["best"])
    )
    assert len(ax.collections) == 1  # the band of the two searches; one search has none
    jumps = [line for line in ax.lines if line.get_gid() == "jumps"]
    told = search(1)
    starts = told.index[told["phase"] == "jump"].to_series().groupby(told["generation"]).first()
    expected = [
        (told.loc[: first - 1, "evaluation"].notna() & ~told.loc[: first - 1, "failed"]).sum()
        for first in starts
    ]
    assert list(jumps[0].get_xdata())[: len(expected)] == expected
    assert expected
    assert not len(jumps[1].get_xdata())
    assert {line.get_linestyle() for line in ax.lines[::3]} == {"-", "--"}
    with pytest.raises(NothingToPlot, match="one trained model"):
        figures.convergence({"empty": {"ODE": []}})


def test_trade_off_draws_both_costs_and_names_every_network(drawn):
    fig, table = drawn["trade-off"], results()
    assert [ax.get_xscale() for ax in fig.axes] == ["log"] * 4
    assert fig.axes[2].get_xlabel() == "Parameters (log scale)"
    first = table[table["data"] == SETS[0]]
    np.testing.assert_array_equal(
        fig.axes[1].lines[0].get_xydata(),
        first.loc[first["kind"] == "candidate", ["macs", "accuracy"]],
    )
    said = [text.get_text() for text in fig.legends[0].get_texts()]
    assert said == [
        "candidates (validation accuracy, proxy training)",
        *(f"found network #{k} (test)" for k in (1, 2, 3)),
        "ResNet-18 3D (test)",
    ]
    handles = fig.legends[0].legend_handles
    assert len({(handle.get_color(), handle.get_marker()) for handle in handles}) == 5
    with pytest.raises(NothingToPlot, match="no kind guess"):
        figures.trade_off(table.assign(kind="guess"))


def test_frequencies_stand_beside_what_chance_gives(drawn):
    ax, found = drawn["frequencies"].axes[0], networks(5, 0)
    labels = [text.get_text() for text in ax.get_yticklabels()]
    widths = dict(zip(labels, (bar.get_width() for bar in ax.patches), strict=True))
    used = [index for network in found for index in network.operations]
    assert widths["3×3×3 conv · norm · ReLU"] == pytest.approx(100 * used.count(0) / len(used))
    assert widths["kernel 7×7×7"] == pytest.approx(
        100 * np.mean([index % 3 == 2 for index in used])
    )
    assert widths["2 cells a stack"] == 100 * np.mean([network.cells == 2 for network in found])
    narrow = Space(operations=(0, 3, 4), filters=(8,), stacks=(1,))
    ax = figures.frequencies({"": networks(3, 0, narrow)}, narrow).axes[0]
    assert [line.get_xdata().tolist() for line in ax.lines] == [
        pytest.approx(x) for x in ([100 / 3] * 3, [200 / 3, 100 / 3], [100], [50, 50], [100])
    ]


def test_fidelity_says_the_rank_correlation_of_each_set(drawn):
    said = [text.get_text() for text in drawn["fidelity"].axes[0].get_legend().get_texts()]
    assert said == [
        "OrganMNIST3D: Spearman 1.00, Kendall 1.00 (n = 5)",
        "NoduleMNIST3D: Spearman -1.00, Kendall -1.00 (n = 5)",
    ]
    assert "undefined (n = 5)" in drawn["fidelity"].axes[1].get_legend().get_texts()[1].get_text()
    alone = figures.fidelity(fidelity_table().iloc[:5].drop(columns=["data", "auc"]))
    assert [ax.get_title() for ax in alone.axes] == ["Spearman 1.00, Kendall 1.00 (n = 5)"]


def test_outcomes_draw_each_class_against_the_rest_and_the_chosen_epoch(drawn):
    axes = np.reshape(drawn["outcomes"].axes, (3, 3))
    assert len(axes[0, 0].lines) == 12
    assert len(axes[2, 0].lines) == 3
    assert not axes[1, 2].axison
    auc = metrics.binary_metrics(predictions(), 1)["auc"]
    assert axes[2, 0].get_legend().get_texts()[0].get_text() == f"found network #1: {auc:.3f}"
    mean = metrics.multiclass_metrics(predictions(11))["macro_auc"]
    assert f"(mean {mean:.3f})" in axes[0, 0].get_legend().get_title().get_text()
    counts = [int(text.get_text()) for text in axes[0, 1].texts]
    table = predictions(11)
    np.testing.assert_array_equal(
        np.reshape(counts, (11, 11)),
        metrics.confusion(table["label"], table.filter(like="score").to_numpy().argmax(1), 11),
    )
    star = next(line for line in axes[0, 2].lines if line.get_gid() == "chosen")
    assert np.ravel(star.get_xydata()).tolist() == [12, 100 * history()["val_accuracy"][11]]
    for ax in (axes[0, 2], axes[2, 2]):  # the legend lies below the curves
        top = ax.get_legend().get_window_extent().transformed(ax.transData.inverted()).y1
        assert top < min(line.get_ydata().min() for line in ax.lines)
    with pytest.raises(NothingToPlot, match="Epoch 41"):
        figures.outcomes({"": OUTCOMES["OrganMNIST3D"]._replace(chosen=41)})


def test_training_curves_mark_the_chosen_epochs_only(drawn):
    fig = drawn["training"]
    stars = [line.get_xdata() for line in fig.axes[0].lines if line.get_gid() == "chosen"]
    assert [int(np.ravel(x)[0]) for x in stars] == [7, 12]
    assert fig.axes[0].get_yscale() == "log"
    assert {"seed 0: epoch 7", "seed 42: epoch 12", "seed 143", "chosen epoch"} <= {
        text.get_text() for text in fig.legends[0].get_texts()
    }
    assert "chosen epoch" not in [
        text.get_text()
        for text in figures.training_curves({"a": history(epochs=1)}, {}).legends[0].get_texts()
    ]


def test_slices_are_the_central_ones_with_their_planes(drawn):
    images = [ax for ax in drawn["slices"].axes if ax.images]
    assert len(images) == 6 * 2 * 3
    assert [ax.get_xlabel() for ax in images[-3:]] == [
        "height × width",
        "depth × width",
        "depth × height",
    ]
    for ax, expected in zip(
        images[:3], (VOLUMES[0][6], VOLUMES[0][:, 5], VOLUMES[0][:, :, 4]), strict=True
    ):
        np.testing.assert_allclose(ax.images[0].get_array(), expected / 255)
    with pytest.raises(NothingToPlot, match="2 volumes and 1 names"):
        figures.slices({"x": (VOLUMES, ["one"])})


def test_a_montage_shows_numbered_slices_and_the_enlarged_heat_map(drawn):
    titles = [ax.get_title() for ax in drawn["montage"].axes if ax.get_title()]
    places = slices.central_places(12, 7)
    assert titles == [f"depth {place + 1} of 12" for place in places]
    assert places == [
        0,
        2,
        4,
        6,
        7,
        9,
        11,
    ]
    heat = np.zeros((6, 5, 4))
    heat[3] = 1
    fig = figures.montage(VOLUMES[0], heat, count=12)
    shown = [ax.images[1].get_array().max() for ax in fig.axes if len(ax.images) == 2]
    assert len(shown) == 12
    assert [value > 0.5 for value in shown] == [place in (6, 7) for place in range(12)]
    across = figures.montage(VOLUMES[0][..., None], axis=2, count=3)
    assert [ax.get_title() for ax in across.axes] == [
        "width 2 of 8",
        "width 5 of 8",
        "width 7 of 8",
    ]
    assert across.axes[0].images[0].get_array().shape == (12, 10)
    with pytest.raises(NothingToPlot, match="three axes"):
        figures.montage(VOLUMES[0, 0])


def test_transfer_frames_the_own_set_and_marks_what_was_not_run(drawn):
    ax = drawn["transfer"].axes[0]
    texts = sorted(ax.texts, key=lambda text: text.get_position()[::-1])  # row by row
    assert [text.get_text() for text in texts] == [
        "0.900",
        "0.800",
        "–",
        "0.700",
        "0.950",
        "0.600",
    ]
    assert [(int(patch.get_x()), int(patch.get_y())) for patch in ax.patches] == [(0, 0), (1, 1)]


@pytest.mark.parametrize(
    "call",
    [
        lambda: figures.trade_off(results().iloc[:0]),
        lambda: figures.frequencies({"x": []}),
        lambda: figures.outcomes({}),
        lambda: figures.fidelity(fidelity_table()[["fitness"]]),
        lambda: figures.training_curves({}, {}),
        lambda: figures.slices({}),
        lambda: figures.transfer({}),
    ],
)
def test_nothing_to_plot_gets_one_sentence(call):
    with pytest.raises(NothingToPlot, match=r"^[A-Z].*\.$"):
        call()
