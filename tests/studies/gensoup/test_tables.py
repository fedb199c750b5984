"""Tables and figures of chapter 5 from small tables made by hand."""

import numpy as np
import pandas as pd
import pytest

from kit.published import papers
from kit.report import results as report_results
from kit.report.style import NothingToPlot
from kit.search.evolution import genome
from kit.studies.gensoup import answers, figures, tables
from kit.studies.gensoup import plan as gensoup_plan
from kit.studies.gensoup import runs as gensoup_runs

NAMES = {"kvasir-v2": "phantom8"}


def predictions(right: float, n=40, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    guess = np.where(rng.random(n) < right, labels, (labels + 1) % classes)
    scores = np.full((n, classes), 0.1)
    scores[np.arange(n), guess] = 0.7
    return pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(n)],
            "group": np.arange(n),
            "label": labels,
            "part": "test",
            **{f"score_{c}": scores[:, c] for c in range(classes)},
        }
    )


class FakeRun:
    """A finished search: its tables, without files."""

    def __init__(self, folder, quality, seed=0, mcc=0.5):
        self.config = {"data": {"name": "phantom8"}, "search": {"recalibrate": True}}
        self.folder, self.quality, self.seed, self.mcc = folder, quality, seed, mcc
        folder.mkdir(parents=True, exist_ok=True)
        names = ("best", "last", "uniform", "greedy")
        pd.concat(
            pd.DataFrame(
                {
                    "model": names,
                    "statistics": kind,
                    "architecture": "squeezenet_1.1",
                    "validation_mcc": [0.5, 0.4, 0.45, 0.6],
                    "images": [24, np.nan, np.nan, np.nan],
                    "members": [np.nan, 1, 3, 2],
                }
            )
            for kind in ("moving", "recalibrated")
        ).to_csv(folder / "models.csv", index=False)
        pd.DataFrame(
            {"share": [0, 0.5, 1], "score": [0.4, 0.1, 0.2], "recalibrated": [0.4, 0.3, 0.2]}
        ).to_csv(folder / "path.csv", index=False)

    def predictions(self):
        return pd.concat(
            [
                predictions(self.quality * share + 0.1 * k, seed=self.seed).assign(
                    model=name, statistics=kind
                )
                for kind, share in (("moving", 0.5), ("recalibrated", 1.0))
                for k, name in enumerate(("best", "last", "uniform", "greedy"))
            ]
        )

    def metrics(self):
        return {
            "best": {"architecture": "squeezenet_1.1", "fitness": self.mcc},
            "kinship": 1,
            "barrier": 0.2,
        }

    def history(self):
        return pd.DataFrame(
            {
                "generation": [0, 0, 1, 1],
                "fitness": [0.1, -1.0, 0.3, 0.2],
                "reason": [None, "LBFGS needs a closure", None, None],
                "optimizer": ["adam", "lbfgs", "sgd", "adam"],
                "inheritance": ["initial", None, "averaged", "elite"],
            }
        )


@pytest.fixture
def runs(tmp_path):
    return {
        ("kvasir-v2", "1", arm): {
            seed: FakeRun(tmp_path / f"{arm}{seed}", quality, seed, quality) for seed in (0, 1, 2)
        }
        for arm, quality in (("without", 0.4), ("with", 0.8))
    }


@pytest.fixture
def numbers(runs, monkeypatch):
    monkeypatch.setattr(
        report_results, "leak_free", lambda table, name, ids: table[~table["image_id"].isin(ids)]
    )
    return tables.result_table(runs, NAMES, {"kvasir-v2": ["i0", "i1"]}, 50)


def test_results_have_intervals_and_leak_free_values(numbers):
    line = numbers.set_index(["row", "metric"]).loc["kvasir-v2.with", "accuracy"]
    assert line["low"] < line["value"] < line["high"]
    assert (line["n"], line["leak_free_n"]) == (40, 38)
    assert 0 < line["value"] <= 1
    table = tables.wide(numbers, "1")
    assert set(table["data"]) == {"phantom8 (for KVASIR-v2)"}
    assert table["astrocytes"].tolist() == ["no", "yes"]
    assert table["thesis: accuracy"].tolist() == [0.9287, 0.9237]
    assert table["thesis: architecture"].tolist() == ["regnety-400mf", "shufflenetv2-x2.0"]
    assert tables.wide(numbers, "2").empty


def test_numbers_and_intervals_are_of_the_mean_over_seeds(runs, numbers):
    """Not of the first seed, and no mean beside the interval of the first."""
    line = numbers.set_index(["row", "metric"]).loc["kvasir-v2.with", "accuracy"]
    own = [
        float((t.filter(like="score_").to_numpy().argmax(1) == t["label"]).mean())
        for t in map(gensoup_runs.tested, runs["kvasir-v2", "1", "with"].values())
    ]
    assert line["value"] == pytest.approx(np.mean(own))
    assert line["sd"] == pytest.approx(np.std(own, ddof=1))
    assert line["low"] < np.mean(own) < line["high"]
    assert tables.wide(numbers, "1")["seeds"].tolist() == [3, 3]
    first = {key: {0: seeds[0]} for key, seeds in runs.items()}
    single = tables.result_table(first, NAMES, {"kvasir-v2": []}, 20)
    assert single["sd"].isna().all()
    assert single["seeds"].unique().tolist() == [1]


def test_values_have_ids_of_the_publication(numbers):
    class Writer(dict):
        paper = "gensoup"

        def value(self, value_id, ours, *rest, **more):
            assert value_id in papers.load("gensoup").values
            self[value_id] = ours

    out = Writer()
    tables.store({"kvasir-v2": out}, numbers)
    tables.store_claims({"kvasir-v2": out}, numbers)
    assert {
        f"table-5-3/kvasir-v2.{arm}/{metric}"
        for arm in ("with", "without")
        for metric in ("accuracy", "f1", "mcc")
    } <= set(out)
    assert not any("5-4" in key for key in out)
    assert (
        out["claims/best-kvasir.mcc"] == out["table-5-3/kvasir-v2.with/mcc"]
    )  # higher on the validation images
    assert out["claims/fewer-flops"] == pytest.approx(12.63e9 / 349_151_936)


def test_answers_follow_the_seeds(runs):
    scores = answers.test_mcc(runs)
    found = answers.difference_table(scores, NAMES, "with")
    assert found["seeds"].tolist() == [3]
    assert found["difference"].iloc[0] > 20
    assert found["answer"].iloc[0] == "beyond seed noise"
    assert "better beyond seed noise in 1" in answers.verdict(found, "Astrocytes")
    single = answers.difference_table(
        {key: {0: seeds[0]} for key, seeds in scores.items()}, NAMES, "with"
    )
    assert "cannot be said" in answers.verdict(single, "Astrocytes")
    assert "not compared" in answers.verdict(
        answers.difference_table(scores, NAMES, "copying"), "x"
    )


def test_comparisons_and_paths(runs):
    table = tables.model_table(runs)
    assert len(table) == 2 * 2 * 4  # arms, kinds of statistics, models
    assert (table["seeds"] == 3).all()
    assert (table["SD over seeds"] > 0).sum() >= 12  # the others make no error with any seed
    assert ((table["low"] <= table["test MCC"]) & (table["test MCC"] <= table["high"])).all()
    for kind, part in table.groupby("statistics"):
        one = part[part["model"] == tables.MODELS["greedy"]].iloc[0]
        runs_of = next(iter(runs.values())).values()
        own = [
            tables.interval(gensoup_runs.tested(run, "greedy", kind), "mcc", 2).estimate
            for run in runs_of
        ]
        assert one["test MCC"] == pytest.approx(np.mean(own))
    said = answers.averaging_verdict(
        table
    )  # the greedy soup is the best on the validation images, and better than the last one
    assert said.count("in 2 of 2 cases") == 2
    assert "By moving statistics" in said
    assert "By recalibrated statistics" in said
    assert len(tables.path_table(runs)) == 6
    assert tables.failures_table(runs)["LBFGS"].tolist() == [
        3,
        3,
    ]
    assert len(figures.models(table).axes) == 4  # arms and kinds of statistics


def test_settings_tables_are_the_papers():
    plan = gensoup_plan.Plan(profile="x")
    assert gensoup_plan.notes(plan) == []
    table = tables.settings_table(plan).set_index("setting")
    same = [
        name
        for name in table.index
        if name.startswith(("Generations", "Image size", "Population", "Crossover", "Mutation"))
    ]
    assert len(same) == 10
    assert (table.loc[same, "thesis"] == table.loc[same, "this run"]).all()
    assert plan.genome("with").names[-2:] == ("strong", "weak")
    assert len(plan.genome("without")) == 5


def test_every_reduction_is_named():
    plan = gensoup_plan.Plan(
        profile="x",
        datasets={"kvasir-v2": "phantom8"},
        images=80,
        architectures=("squeezenet_1.1", "efficientnet_lite0"),
        generations=(2, 3),
        mixing="off",
    )
    said = " | ".join(gensoup_plan.notes(plan))
    assert all(
        part in said
        for part in (
            "generations exp1 2",
            "generations exp2 3",
            "80 images",
            "without RegNet-Y-400MF",
            "with EfficientNet-Lite0",
            "CutMix",
        )
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"datasets": {"isic": "phantom8"}},
        {"experiments": ["3"]},
        {"arms": ["half"]},
        {"seeds": 0},
        {"generations": [2]},
    ],
)
def test_a_bad_plan_is_one_sentence(wrong):
    with pytest.raises(gensoup_plan.BadPlan):
        gensoup_plan.Plan(profile="x", **wrong)


def test_experiments_vary_one_thing_at_a_time():
    plan = gensoup_plan.Plan(profile="x")
    found = {
        name: (s.generations, s.cosine)
        for name in gensoup_plan.EXPERIMENTS
        for s in [plan.settings(name, "with", 0)]
    }
    assert found == {
        "1": (20, True),
        "2": (35, False),
        "1-constant": (20, False),
        "2-cosine": (35, True),
    }
    assert plan.settings("1", "copying", 0).inheritance == "better"


def test_the_encoding_shows_every_gene_and_its_value():
    words = " ".join(
        text.get_text()
        for text in figures.encoding(
            genome.chapter5(),
            [0.08, 0.31, 0.64, 0.42, 0.17, 0.55, 0.83],
            {"regnety_400mf": "RegNet-Y-400MF"},
        )
        .axes[0]
        .texts
    )
    assert all(symbol in words for symbol in figures.SYMBOLS.values())
    assert "RegNet-Y-400MF" in words
    assert "label smoothing" in words


def test_the_curve_is_the_best_of_each_generation(runs):
    histories = {
        arm: [run.history() for run in seeds.values()] for (_, _, arm), seeds in runs.items()
    }
    fig = figures.fitness({"KVASIR-v2": histories, "BreaKHis": {}}, (24, 32))
    assert len(fig.axes) == 1
    assert len(fig.axes[0].lines) == 6
    np.testing.assert_allclose(fig.axes[0].lines[0].get_ydata(), [0.1, 0.3])
    assert "32" in fig.axes[0].get_xticklabels()[1].get_text()
    with pytest.raises(NothingToPlot):
        figures.fitness({"a": {}}, (24,))


def test_paths_show_the_dip(runs):
    curve = gensoup_runs.path_of(runs["kvasir-v2", "1", "with"][0])
    fig = figures.paths({"a": curve, "b": curve, "none": curve.iloc[:0]})
    assert sum(bool(ax.lines) for ax in fig.axes) == 2
    assert fig.axes[0].lines[0].get_ydata().min() == pytest.approx(0.1)
