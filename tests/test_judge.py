"""The door for a reviewer who trains nothing."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from kit import judge
from kit.data import duplicates, registry
from kit.report import judging


def run(capsys, *arguments):
    code = judge.main(list(arguments))
    said = capsys.readouterr()
    return code, json.loads(said.out) if said.out else said.err


@pytest.mark.parametrize(
    ("claim", "n", "code", "answer"),
    [
        ("98.70", "1311", 0, "possible"),
        ("98.7 %", "1311", 0, "possible"),
        ("0.9870", "1311", 0, "possible"),
        ("95.15", "1311", 1, "impossible"),
        ("97.94", "800", 1, "impossible"),
        ("97.25", "800", 0, "possible"),
    ],
)
def test_a_printed_accuracy(capsys, claim, n, code, answer):
    found_code, found = run(capsys, "--claim", claim, "--n", n)
    assert (found_code, found["answer"]) == (code, answer)
    (line,) = found["findings"]
    k = round(line["value"] * int(n) / 100)
    exact = binomtest(k, int(n)).proportion_ci(method="wilson")
    assert (line["low"], line["high"]) == pytest.approx((100 * exact.low, 100 * exact.high))


def test_few_digits_leave_several_counts(capsys):
    _, found = run(capsys, "--claim", "98.7", "--n", "10000")
    assert "9865 to 9875 of 10000" in found["findings"][0]["sentence"]


def test_a_triple(capsys):
    rates = ["--claim", "98.00", "--sensitivity", "98.32", "--n", "600", "--specificity"]
    code, found = run(capsys, *rates, "97.69")
    assert code == 0
    assert "TP 292, FN 5, TN 296, FP 7 of 297 and 303" in found["findings"][-1]["sentence"]
    code, found = run(capsys, *rates, "99.99")
    assert (code, found["answer"]) == (1, "impossible")


def matrix_file(folder):
    path = folder / "matrix.csv"
    path.write_text("true,a,b\na,90,10\nb,5,95\n")
    return str(path)


def test_a_matrix(capsys, tmp_path):
    path = matrix_file(tmp_path)
    code, found = run(capsys, "--matrix", path, "--claim", "92.50")
    lines = {line["what"]: line for line in found["findings"]}
    assert code == 0
    assert lines["accuracy"]["value"] == 92.5
    assert lines["recall of a"]["value"] == 90
    assert lines["precision of b"]["value"] == pytest.approx(100 * 95 / 105)
    code, found = run(capsys, "--matrix", path, "--claim", "93.50")
    assert (code, found["answer"]) == (1, "inconsistent")


def test_a_matrix_without_images_of_a_class_gives_a_sentence():
    lines = judging.matrix(np.array([[4, 0], [0, 0]]), ["a", "b"])
    assert {f.what: f.sentence for f in lines}["recall of b"] == "Not defined: no images."


def test_a_table_of_rates(capsys, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(
        "class,precision,recall,f1,support\n"
        "glioma,0.96,0.92,0.94,300\n"
        "pituitary,1.00,1.00,0.94,300\n"
    )
    code, found = run(capsys, "--table", str(path))
    answers = {line["what"]: line["answer"] for line in found["findings"]}
    assert code == 1
    assert answers["F1 of glioma"] == "possible"
    assert answers["F1 of pituitary"] == "impossible"
    assert answers["recall of glioma"] == "possible"


@pytest.fixture
def someone(tmp_path, monkeypatch):
    """A data set of 400 training and 200 test images; 40 test images are copies of training images,
    20 more of another test image; and predictions of two models.
    """
    train = [f"train/{c}/{i}.png" for i in range(200) for c in "ab"]
    test = [f"test/{c}/{i}.png" for i in range(100) for c in "ab"]
    index = pd.DataFrame({"image_id": train + test})
    index["class_name"] = index["image_id"].str.split("/").str[1]
    groups = np.arange(600)
    groups[400:440] = np.arange(40)  # copies of training images
    groups[440:460] = groups[460:480]  # copies within the test set
    table = pd.DataFrame({"image_id": index["image_id"], "twin_group": groups})
    for level in ("exact_group", "pixel_group", "near_group"):
        table[level] = np.arange(600)
    monkeypatch.setattr(registry, "index", lambda name: index)
    monkeypatch.setattr(registry, "get", lambda name: type("D", (), {"classes": ("a", "b")}))
    monkeypatch.setattr(duplicates, "groups", lambda name: table)
    draw = np.random.default_rng(1)
    label = np.array([i.split("/")[1] == "b" for i in test]).astype(int)
    paths = []
    for name, rate in (("mine", 0.97), ("other", 0.80)):
        wrong = draw.random(200) > rate
        wrong[:40] = False
        path = tmp_path / f"{name}.csv"
        pd.DataFrame({"image_id": test, "predicted": np.where(wrong, 1 - label, label)}).to_csv(
            path, index=False
        )
        paths.append(str(path))
    return paths


def test_predictions_without_copies_by_class_and_against_another_model(capsys, someone):
    mine, other = someone
    arguments = ["--against", mine, "--other", other, "--dataset", "any", "--claim", "60.00"]
    code, found = run(capsys, *arguments)
    lines = {line["what"]: line for line in found["findings"]}
    assert code == 1
    whole, clean = lines["accuracy of the predictions"], lines["accuracy without copies"]
    assert whole["answer"] == "contradicted"
    assert (whole["n"], whole["groups"], clean["n"]) == (200, 180, 160)
    assert clean["value"] < whole["value"]
    assert {"recall of a", "recall of b", "balanced accuracy without copies"} <= set(lines)
    versus = lines["difference from the other model"]
    assert versus["low"] > 0
    assert "McNemar's exact p = 0.0" in versus["sentence"]


def test_predictions_are_found_by_file_name_and_by_score(capsys, someone, tmp_path):
    table = pd.read_csv(someone[0])
    table["image_id"] = table["image_id"].str.removeprefix("test/")
    path = tmp_path / "scores.csv"
    pd.DataFrame(
        {
            "image_id": ["test/" + i for i in table["image_id"]],
            "score_0": 1 - table["predicted"],
            "score_1": table["predicted"],
        }
    ).to_csv(path, index=False)
    _, one = run(capsys, "--against", someone[0], "--dataset", "any")
    _, two = run(capsys, "--against", str(path), "--dataset", "any")
    assert one["findings"] == two["findings"]


def test_predictions_need_no_data_set(capsys, tmp_path):
    path = tmp_path / "p.csv"
    pd.DataFrame(
        {
            "image_id": range(300),
            "label": ["a", "b"] * 150,
            "predicted": ["a", "b"] * 149 + ["a"] * 2,
        }
    ).to_csv(path, index=False)
    code, found = run(capsys, "--against", str(path), "--claim", "99.7")
    assert code in (0, 3)
    assert found["findings"][0]["value"] == pytest.approx(100 * 299 / 300)


def test_a_perfect_match_of_few_images_is_undecided(capsys, tmp_path):
    path = tmp_path / "p.csv"
    pd.DataFrame(
        {"image_id": range(100), "label": [0, 1] * 50, "predicted": [0, 1] * 45 + [0] * 10}
    ).to_csv(path, index=False)
    code, found = run(capsys, "--against", str(path), "--claim", "95.0")
    assert (code, found["answer"]) == (3, "undecided")


def test_csv_and_a_file(capsys, tmp_path):
    out = tmp_path / "judged.csv"
    arguments = ["--claim", "98.70", "--n", "1311", "--format", "csv", "--out", str(out)]
    assert judge.main(arguments) == 0
    table = pd.read_csv(out)
    assert list(table.columns) == list(judging.Finding.__annotations__)
    assert table.loc[0, "n"] == 1311
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "nothing to judge"),
        (["--claim", "98.7"], "nothing to judge"),
        (["--claim", "many", "--n", "3"], "is no rate"),
        (["--claim", "101.2", "--n", "3"], "between 0 and 100"),
        (["--claim", "98.7", "--n", "0"], "at least 1"),
        (["--claim", "98.7", "--n", "9", "--sensitivity", "1"], "A triple needs"),
        (["--matrix", "no.csv"], "cannot be read"),
        (["--against", "no.csv"], "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_and_code_2(capsys, arguments, words):
    assert judge.main(arguments) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_files_that_lack_something_say_what(tmp_path):
    for text, words in (
        ("image_id,label\n1,a\n", "needs a column predicted"),
        ("image_id,predicted\n1,a\n", "no column label"),
        ("image_id,label,predicted\n1,a,a\n1,a,a\n", "names an image twice"),
        ("label,predicted\na,a\n", "column image_id"),
    ):
        path = tmp_path / "p.csv"
        path.write_text(text)
        with pytest.raises(judging.BadClaim, match=words):
            judging.read_predictions(path)
