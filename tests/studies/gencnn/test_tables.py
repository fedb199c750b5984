"""Gen-CNN's tables: rows of the thesis, pairs over seeds, rank correlation, selection gap."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from kit.published import papers
from kit.report import results as report_results
from kit.studies.gencnn import answers, finals, plan, tables
from kit.studies.gencnn.plan import Plan
from kit.studies.gencnn.runs import Found


class Kept:
    """A writer that remembers."""

    paper = "gencnn"

    def __init__(self):
        self.said, self.missing, self.tables, self.figures = {}, {}, {}, {}

    def value(self, id, ours, *rest, exact=False, **more):
        assert id in papers.load("gencnn").values
        self.said[id] = (ours, exact)

    def failed(self, id, reason):
        self.missing[id] = reason


def outcomes():
    rows = [
        {
            "method": method,
            "seed": seed,
            "trainings": 8,
            "cost": 8.0,
            "failed": 0,
            "common": 8 if method == "genetic" else 4,
            "search": 0.9,
            "best_val_accuracy": 0.9,
            "best_val_mcc": 0.9,
            "best_test_accuracy": 0.8 + seed / 100,
            "best_test_mcc": 0.8,
            "final_val_accuracy": 0.9,
            "final_val_mcc": 0.9,
            "final_test_accuracy": base + seed / 100,
            "final_test_mcc": base + seed / 100,
        }
        for method, base in (("genetic", 0.9), ("random", 0.8), ("bees", 0.9 + 1e-9))
        for seed in range(3)
    ]
    return pd.DataFrame(rows)


def test_settings_that_the_text_does_not_state_are_named():
    table = tables.settings_table(Plan(profile="x")).set_index("setting")
    assert table.loc["rates and momenta of SGD and RMSprop", "this run"] == "PyTorch's defaults"
    assert table.loc["momentum of BatchNormalization", "this run"] == "the networks' own"
    assert table.loc["jitter of colours", "this run"] == "brightness 0.5"
    assert table.loc["weights of the final training", "this run"] == "last"
    changed = tables.settings_table(
        Plan(profile="x", optimizer_settings="code", bn_momentum=0.9, cosine_floor=0.0)
    ).set_index("setting")
    assert "momentum 0.9" in changed.loc["rates and momenta of SGD and RMSprop", "this run"]
    assert changed.loc["momentum of BatchNormalization", "this run"] == "0.9"
    assert changed["this run"].str.contains("cosine to 0 of").any()


def test_the_rule_gives_the_printed_table_3_2():
    """All rows but BreaKHis', whose folders held a file more: there it is one image off at most."""
    out, printed = Kept(), papers.load("gencnn").values
    table = tables.split_rule()
    tables.store_split(out, table)
    assert set(out.said) == {key for key in printed if key.startswith("table-3-2/")}
    off = {
        key: value - printed[key].value
        for key, (value, _) in out.said.items()
        if value != printed[key].value
    }
    assert all(
        "breakhis" in key and (abs(difference) == 1 or ".total/" in key)
        for key, difference in off.items()
    )
    assert not any(key.endswith("/all") for key in off)
    assert all(exact for _, exact in out.said.values())


def test_flops_are_counted_for_all_nine(private_folders):
    out = Kept()
    tables.store_architectures(out)
    assert len(out.said) == 9
    assert out.said["table-3-1/mobilenetv3-small/flops"][0] == pytest.approx(56.5104)
    table = tables.architecture_table(
        Plan(profile="x", architectures=("squeezenet_1.1",), weights=None)
    )
    assert len(table) == 10
    assert table["weights in this run"].tolist() == ["not searched"] * 9 + ["random"]
    assert table["FLOPs, printed"].tolist()[1] == "8.8 G"


def test_table_3_3_quotes_and_computes():
    table, out = tables.convergence_table(outcomes()).set_index("algorithm"), Kept()
    assert table.loc["PSO, quoted", "mean"] == 0.9816
    assert table.loc["Gen-CNN, as printed", "SD"] == 0.0138
    assert table.loc["Gen-CNN (genetic)", "mean"] == pytest.approx(0.91)
    assert table.loc["Gen-CNN (genetic)", "SD"] == pytest.approx(0.01)
    tables.store_convergence(out, outcomes())
    assert out.said["table-3-3/gen-cnn/mean"][0] == pytest.approx(0.91)
    assert set(out.said) == {
        "table-3-3/gen-cnn/mean",
        "table-3-3/gen-cnn/std",
    }


def test_differences_are_paired_by_seed():
    table = answers.against(outcomes()).set_index("comparison")
    assert table.loc["Gen-CNN (genetic) − Random search", "difference"] == pytest.approx(0.1)
    assert table.loc["Gen-CNN (genetic) − Random search", "answer"] == "better, beyond seed noise"
    only = answers.against(outcomes().query("seed == 0"))
    assert only["low"].isna().all()
    assert only["answer"].str.contains("no answer").all()
    noisy = pd.DataFrame(
        {
            "fitness": ["mcc", "mcc", "accuracy", "accuracy"],
            "seed": [1, 2, 1, 2],
            "test_mcc": [0.5, 0.7, 0.6, 0.5],
            "test_accuracy": [0.5, 0.7, 0.4, 0.5],
        }
    )
    assert answers.target_differences(noisy)["answer"].tolist() == ["within seed noise"] * 2
    assert answers.target_differences(answers.target_table({}))["seeds"].tolist() == [0, 0]


def test_rank_correlation_has_an_interval():
    x = np.arange(10.0)
    found = answers.rank_correlation(x, [0, 2, 1, 3, 5, 4, 6, 8, 7, 9])
    assert found.estimate == pytest.approx(1 - 6 * 6 / 990)
    assert found.low < found.estimate < found.high < 1
    half = 1.959964 * np.sqrt((1 + found.estimate**2 / 2) / 7)
    assert np.arctanh(found.high) - np.arctanh(found.low) == pytest.approx(2 * half)
    assert answers.rank_correlation(x[:3], x[:3]) is None
    assert answers.rank_correlation(x, np.ones(10)) is None
    assert answers.rank_correlation(x, -x).estimate == pytest.approx(-1)


def test_the_gap_is_of_the_same_network_and_noise_of_the_elites():
    gaps = answers.gap_table(answers.gap_lines(outcomes()))
    assert gaps["search"].tolist() == ["seed 0", "seed 1", "seed 2", "mean"]
    assert gaps["search-best − its test"].to_numpy() == pytest.approx([0.1] * 4)
    history = pd.DataFrame(
        {
            "generation": [0, 0, 1, 1],
            "individual": [0, 1, 0, 1],
            "origin": ["random", "random", "offspring", "elite"],
            "first": [-1, -1, 0, 1],
            "fitness": [0.1, 0.5, 0.2, 0.45],
            "reason": [None] * 4,
        }
    )
    one = Found("genetic", "digits", 0, 0.5, {}, {}, pd.DataFrame(), history)
    assert answers.remeasured([one]) == pytest.approx([-0.05])
    assert (
        answers.remeasured(
            [dataclasses.replace(one, history=history.assign(reason=["lost", "lost", None, None]))]
        ).size
        == 0
    )


def test_the_answers_are_computed():
    rivals, ranks = (
        answers.against(outcomes()),
        answers.fidelity_table(
            pd.DataFrame(
                {"fitness": range(5), "final_test_mcc": [0, 2, 1, 3, 4], "final_val_mcc": range(5)}
            )
        ),
    )
    gaps, none = (
        answers.gap_table(answers.gap_lines(outcomes())),
        answers.target_differences(answers.target_table({})),
    )
    said = answers.verdict(rivals, none, ranks, gaps, np.array([0.02, -0.02]))
    assert "beats 1 of 2 rivals" in said[0]
    assert "cannot be said" in said[1]
    assert "rho 0.90" in said[2]
    assert "+0.100" in said[3]
    assert "0.014" in said[3]
    silent = answers.verdict(
        rivals[:0],
        none,
        answers.fidelity_table(
            pd.DataFrame({"fitness": [], "final_test_mcc": [], "final_val_mcc": []})
        ),
        gaps[:0],
        np.array([]),
    )
    assert len(silent) == 3
    assert all("cannot be said" in line for line in silent)


@pytest.fixture(scope="module")
def results():
    rng = np.random.default_rng(0)
    labels = np.repeat(range(4), 20)
    scores = np.eye(4)[labels] * 0.5 + rng.dirichlet(np.ones(4), 80)
    predictions = pd.DataFrame(
        {
            "image_id": [f"i{n}" for n in range(80)],
            "group": range(80),
            "label": labels,
            "part": "test",
            **{f"score_{k}": scores[:, k] / scores.sum(1) for k in range(4)},
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            report_results,
            "leak_free",
            lambda table, name, ids: table[table["group"] > 9].reset_index(drop=True),
        )
        return predictions, finals.result_table({"kvasir-v2": (predictions, "digits", [])}, 50)


def test_comparisons_hold_citations_and_ours(results):
    predictions, long = results
    table, out = finals.comparison("kvasir-v2", long, "squeezenet_1.1"), Kept()
    assert table["reference"].tolist()[0] == "Escobar 2021"
    assert table["source"].tolist()[-2:] == ["thesis", "this run"]
    assert table["accuracy"].tolist()[-2] == 0.9413
    finals.store_comparison(out, "kvasir-v2", long, "squeezenet_1.1")
    accuracy = (
        predictions.filter(like="score_").to_numpy().argmax(1) == predictions["label"]
    ).mean()
    assert (
        out.said["table-3-6/gen-cnn/accuracy"][0]
        == pytest.approx(accuracy)
        == table["accuracy"].iloc[-1]
    )
    assert set(out.said) == {f"table-3-6/gen-cnn/{c}" for c in ("accuracy", "f1", "mcc", "flops")}
    assert table["leak-free n"].iloc[-1] == "70"
    assert finals.matrix(predictions).sum() == 80
    assert "this run" not in finals.comparison("breakhis", long[:0], "")["source"].tolist()
    assert finals.threshold_table(long).shape == (1, 5)


def test_a_failed_final_training_says_so():
    out = Kept()
    finals.show_role(Plan(profile="x", weights=None), out, "breakhis", pd.DataFrame(), None, None)
    assert out.missing == {
        "table-3-8": "the search found nothing",
        "figure-3-10": "the search found nothing",
    }


def test_settings_stand_beside_the_published_ones():
    table = tables.settings_table(Plan(profile="x", generations=3)).set_index("setting")
    assert table.loc["generations"].tolist()[:2] == ["25", "3"]
    assert (
        table.loc["crossover probability", "published"]
        == table.loc["crossover probability", "this run"].replace(".0", "")
        == "0, 0, 0, 0.9, 0.9"
    )
    assert plan.notes(Plan(profile="x")) == []
