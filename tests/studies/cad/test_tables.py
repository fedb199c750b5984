import hashlib
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest
from conftest import shared_data
from sklearn.metrics import classification_report

from kit import files, record
from kit.data import registry
from kit.evaluation import stats, timing
from kit.published import forensics, papers
from kit.report import artefacts, results
from kit.studies.cad import errors, published_tables, split
from kit.studies.cad import tables as cad_tables

FLAGGED = {
    "mobilenetv2.pituitary",
    "inceptionv3.notumor",
    "inceptionv3.pituitary",
    "xception.pituitary",
}
ACCURACIES = {
    "resnet50": 98.7033,
    "vgg19": 97.1777,
    "mobilenetv2": 95.1945,
    "inceptionv3": 98.5507,
    "nasnetlarge": 97.5591,
    "xception": 98.6270,
    "resnet50-noaug": 93.1350,
}


def predictions(labels, said, ids=None, groups=None, confidence=0.9):
    """A table in which the model gives `confidence` to class `said`."""
    said = np.asarray(said)
    scores = np.full((len(said), 4), (1 - confidence) / 3)
    scores[np.arange(len(said)), said] = confidence
    ids = [f"Testing/i{n:04d}.jpg" for n in range(len(said))] if ids is None else ids
    table = pd.DataFrame(
        {
            "image_id": ids,
            "group": range(len(said)) if groups is None else groups,
            "label": labels,
            "part": "test",
        }
    )
    return table.assign(**{f"score_{k}": scores[:, k] for k in range(4)})


def from_matrix(matrix):
    """The predictions behind a confusion matrix."""
    true, said = np.repeat([(t, s) for t in range(4) for s in range(4)], np.ravel(matrix), axis=0).T
    return predictions(true, said)


@pytest.fixture(scope="module")
def published():
    return {model: from_matrix(published_tables.published_matrix(model)) for model in ACCURACIES}


@pytest.fixture(scope="module")
def full_report(published):
    return cad_tables.report_table(
        published, next(iter(published.values()))["image_id"][216:], resamples=60
    )


@pytest.fixture
def mini(private_folders):
    """A registered four-class set of hash values only: 5 training files of each class (one of them
    absent) and 3 test files, with copies.
    """
    root, rows = private_folders / "data" / "mini4", []
    for label, c in enumerate(published_tables.CLASSES):
        names = [("Training", "train", f"Tr-{i}") for i in range(5)] + [
            ("Testing", "test", f"Te-{i}") for i in range(3)
        ]
        rows += [(f"{folder}/{c}/{n}.jpg", part, label, c, f"{c}-{n}") for folder, part, n in names]
    table = (
        pd.DataFrame(rows, columns=registry.INDEX_COLUMNS)
        .assign(bytes=1)
        .set_index("image_id", drop=False)
    )
    table.loc["Testing/notumor/Te-1.jpg", "sha256"] = table.loc[
        "Testing/notumor/Te-0.jpg", "sha256"
    ]
    table.loc["Testing/glioma/Te-0.jpg", "sha256"] = table.loc["Training/glioma/Tr-2.jpg", "sha256"]
    manifest = table[table["image_id"] != "Training/notumor/Tr-3.jpg"]
    files.write_csv(root / "manifest.csv", manifest)
    entry = {
        "title": "mini",
        "task": "multiclass",
        "kind": "images",
        "classes": list(published_tables.CLASSES),
        "layout": {"train": "Training", "test": "Testing"},
        "counts": {f"Training/{c}": 5 for c in published_tables.CLASSES},
    }
    files.write_json(
        root / "dataset.json",
        {
            "name": "mini4",
            "embedded": False,
            "incomplete": ["Training/notumor/Tr-3.jpg"],
            "entry": entry,
            "fingerprint": record.fingerprint(manifest),
        },
    )
    return "mini4", table


# --- split ----------------------------------------------------------------------------------------


def test_an_absent_file_is_dropped_from_its_side_and_moves_no_other(mini):
    name, table = mini
    whole = split.cad_split(table[table["split"] == "train"].reset_index(drop=True))
    parts = split.published_parts(name)
    assert [i for i in whole["train"] + whole["val"] if i not in parts["train"] + parts["val"]] == [
        "Training/notumor/Tr-3.jpg"
    ]
    assert all(
        parts[p] == [i for i in whole[p] if i != "Training/notumor/Tr-3.jpg"]
        for p in ("train", "val")
    )
    assert parts["test"] == sorted(i for i in table["image_id"] if i.startswith("Testing"))


def test_unknown_names_are_refused(mini, discs, private_folders):
    with pytest.raises(split.NoPublishedSplit, match="no separate training"):
        split.published_parts(discs)
    facts = private_folders / "data" / "mini4" / "dataset.json"
    files.write_json(facts, files.read_json(facts) | {"incomplete": []})
    with pytest.raises(
        split.NoPublishedSplit, match="4 known file names of training class notumor instead of 5"
    ):
        split.published_parts("mini4")


def test_leak_free_images_have_no_copy_in_the_training_folder(mini):
    free = split.leak_free_ids(mini[0], "byte")
    assert len(free) == 11
    assert "Testing/glioma/Te-0.jpg" not in free
    assert "Testing/notumor/Te-1.jpg" in free


@pytest.fixture(scope="module")
def real_set(private_folders):
    """The 7,023-image set as names and hashes, from its archive."""
    archive = shared_data() and shared_data() / "brain-tumor-mri-dataset-224px.zip"
    if not archive or not archive.exists():
        pytest.skip("the archive of the 7,023-image set is not here")
    with zipfile.ZipFile(archive) as file:
        names = [n for n in file.namelist() if n.endswith(".jpg") and ".ipynb" not in n]
        hashes = [hashlib.sha256(file.read(n)).hexdigest() for n in names]
    ids = ["/".join(n.split("/")[-3:]) for n in names]
    rows = [
        {
            "image_id": i,
            "split": "train" if i.startswith("Tr") else "test",
            "label": published_tables.CLASSES.index(i.split("/")[1]),
            "class_name": i.split("/")[1],
        }
        for i in ids
    ]
    manifest, root = (
        pd.DataFrame(rows).assign(sha256=hashes),
        private_folders / "data" / "nickparvar",
    )
    files.write_csv(root / "manifest.csv", manifest)
    absent = [f"Training/notumor/Tr-no_{n}.jpg" for n in (1011, 1012, 1019, 1020)]
    files.write_json(
        root / "dataset.json",
        {
            "name": "nickparvar",
            "embedded": False,
            "incomplete": absent,
            "fingerprint": record.fingerprint(manifest),
        },
    )
    yield "nickparvar"
    shutil.rmtree(root)  # other tests expect it to be absent


def test_real_set_has_the_published_counts(real_set):
    """Table 2 of the paper but for the absent files, 1,095 images that are not in training, 61
    validation images with a copy in training.
    """
    parts, free, group = (
        split.published_parts(real_set),
        split.leak_free_ids(real_set, "byte"),
        split.copies(real_set, "byte"),
    )
    counts = {
        part: pd.Series(ids)
        .str.split("/")
        .str[1]
        .value_counts()
        .reindex(published_tables.CLASSES)
        .tolist()
        for part, ids in parts.items()
    }
    assert counts == {
        "train": [1060, 1072, 1275, 1158],
        "val": [261, 267, 316, 299],
        "test": [300, 306, 405, 300],
    }
    assert pd.Series(free).str.split("/").str[1].value_counts().to_dict() == {
        "glioma": 300,
        "meningioma": 200,
        "notumor": 300,
        "pituitary": 295,
    }
    assert group.loc[parts["val"]].isin(group.loc[parts["train"]]).sum() == 61


def test_the_three_common_errors_of_figure_9_are_one_image(real_set):
    """Te-no_0045, _0050 and _0054 are byte copies of each other, and their copies in training all
    lie in val.
    """
    ids = [f"Testing/notumor/Te-no_{n}.jpg" for n in ("0045", "0050", "0054", "0095")]
    tables = {
        m: predictions([2] * 4, [0, 0, 0, 2 if m == "inceptionv3" else 0], ids)
        for m in published_tables.BEST
    }
    table = errors.missed_by_all(real_set, tables, level="byte")
    assert table["image_id"].tolist() == ids[:3]
    assert table["distinct"].tolist() == [1, 1, 1]
    assert table["copies_in_training"].unique().tolist() == [
        "Tr-no_0191.jpg (val) Tr-no_0235.jpg (val) Tr-no_0279.jpg (val)"
    ]
    assert errors.venn_counts(tables, split.copies(real_set, "byte")).loc[
        "resnet50+xception+inceptionv3"
    ].tolist() == [3, 1]


# --- values known from the published matrices -----------------------------------------------------


def test_recomputed_table_4_flags_exactly_the_known_rows():
    table = published_tables.recomputed_report()
    wrong = table[~table["agrees"]]
    assert set(wrong[wrong["metric"] != "accuracy"]["row"]) == FLAGGED
    assert wrong[wrong["metric"] == "accuracy"]["row"].tolist() == ["mobilenetv2"]
    found = {i for f in forensics.run("cad") if f.kind == "report" for i in f.value_ids}
    assert {f"table-4/{r.row}/{r.metric}" for r in wrong.itertuples()} == found
    assert len(table) == 7 * (5 * 3 + 1)


def test_accuracies_of_the_published_matrices(full_report):
    at = full_report[full_report["metric"] == "accuracy"].set_index("row")
    assert at["value"].round(4).to_dict() == ACCURACIES
    ends = {m: (round(at.loc[m, "low"], 2), round(at.loc[m, "high"], 2)) for m in at.index}
    assert ends["resnet50"] == (97.93, 99.19)
    assert ends["mobilenetv2"] == (93.90, 96.23)
    assert ends["resnet50-noaug"] == (91.64, 94.38)


@pytest.mark.parametrize("model", ["mobilenetv2", "resnet50-noaug"])
def test_class_metrics_equal_scikit_learn(published, full_report, model):
    table = published[model]
    said = table[[f"score_{k}" for k in range(4)]].to_numpy().argmax(1)
    theirs = classification_report(
        table["label"], said, target_names=published_tables.CLASSES, output_dict=True
    )
    ours = full_report.set_index(["row", "metric"])
    for c in (*published_tables.CLASSES, "weighted"):
        for metric, name in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            row = ours.loc[(f"{model}.{c}", metric)]
            assert row["value"] == pytest.approx(
                theirs["weighted avg" if c == "weighted" else c][name], abs=1e-6
            )
            assert row["low"] <= row["value"] + 1e-9
            assert row["high"] >= row["value"] - 1e-9
            assert row["n"] > 0


def test_leak_free_column_is_the_bound_of_the_card(published):
    """If all 216 copies are right, ResNet-50's errors give 98.45 % on the other 1,095."""
    for model, value in {"resnet50": 98.45, "vgg19": 96.62, "mobilenetv2": 94.25}.items():
        table = published[model]
        right = table["label"].to_numpy() == table[
            [f"score_{k}" for k in range(4)]
        ].to_numpy().argmax(1)
        line = cad_tables.accuracy_table(
            {(model, "accuracy"): table}, table["image_id"].drop(np.flatnonzero(right)[:216])
        ).iloc[0]
        assert (round(line["leak_free"], 2), line["leak_free_n"]) == (value, 1095)


def test_fisher_and_the_rate_of_the_unprocessed_images():
    assert stats.fisher(17, 1311, 19, 1311).p == pytest.approx(0.87, abs=5e-3)
    assert stats.fisher(17, 1311, 32, 1311).p == pytest.approx(0.042, abs=1e-3)
    assert stats.fisher(17, 1311, 90, 1311).p < 1e-12
    raw = cad_tables.accuracy(predictions([0] * 1311, [0] * 945 + [1] * 366))
    assert (round(raw.estimate, 2), round(raw.low, 2), round(raw.high, 2)) == (72.08, 69.59, 74.44)


def test_rates_without_images_or_predictions():
    table = predictions([0, 0, 1], [1, 1, 1])
    assert cad_tables.class_interval(table, "precision", 0).estimate == 0
    assert cad_tables.class_interval(table, "recall", 0).estimate == 0
    assert cad_tables.class_interval(table, "f1", 3) is None
    assert cad_tables.class_interval(table[:0], "recall", 0) is None
    assert cad_tables.accuracy(table[:0]) is None


# --- tables ---------------------------------------------------------------------------------------


def test_counts_of_table_2(mini, monkeypatch):
    real = split.leak_free_ids
    monkeypatch.setattr(split, "leak_free_ids", lambda name, level="byte": real(name, "byte"))
    table = cad_tables.count_table(mini[0])
    assert table.index.tolist() == ["glioma", "meningioma", "pituitary", "notumor", "total"]
    assert table.loc["total"].tolist() == [
        int(table.loc["total", "train"]),
        19 - int(table.loc["total", "train"]),
        12,
        11,
        11,
    ]


def test_table_1_and_7_are_the_printed_ones():
    first, last = (
        published_tables.published_table("table-1"),
        published_tables.published_table("table-7"),
    )
    assert len(first) == 7
    assert first.loc["wang-2024", "images_second_set"] == 3064
    assert first.loc["zhu-2023", "models"] == "RBEBT"
    assert last.loc["rasheed-2023", "prediction_time"] == 830
    assert last.loc["resnet50", "accuracy"] == 98.7
    assert len(last) == 8


def test_settings_stand_beside_the_published_ones():
    table = cad_tables.settings_table({"epochs": 3, "augmentation_rotation_range": 10})
    assert table.loc["epochs"].tolist() == ["epochs", "25", "3"]
    assert pd.isna(table.loc["loss", "used"])
    assert len(table) == 9
    with pytest.raises(papers.UnknownValue):
        cad_tables.settings_table({"epoch": 3})


@pytest.fixture
def costs():
    return pd.DataFrame(
        {
            "parameters": [23595908, 2263108],
            "macs": [3.9e9, 2.9e8],
            "seconds": [120.0, 60.0],
            "device": "CPU",
        },
        ["resnet50", "mobilenetv2"],
    )


@pytest.fixture
def times():
    rows = [
        (m, p, ms)
        for m, base in (("resnet50", 20.0), ("mobilenetv2", 10.0))
        for p, add in (("call", -5), ("predict", 0))
        for ms in (base + add, base + add + 3)
    ]
    return pd.DataFrame(rows, columns=["model", "protocol", "ms"])


def test_cost_and_time_tables(costs, times, full_report):
    five, six = cad_tables.cost_table(costs, full_report), cad_tables.time_table(times)
    assert five.loc["resnet50", ["parameters", "training_time"]].tolist() == [
        23.595908,
        2.0,
    ]
    assert five.loc["resnet50", "accuracy"] == pytest.approx(98.7033, abs=1e-4)
    assert list(zip(six.index, six["protocol"], strict=False)) == [
        ("mobilenetv2", "predict"),
        ("resnet50", "predict"),
        ("mobilenetv2", "call"),
        ("resnet50", "call"),
    ]
    assert six.iloc[0][["min", "max", "avg", "median", "n"]].tolist() == [10, 13, 11.5, 11.5, 2]
    measured = {
        m: [
            timing.Times(p, "CPU", part["ms"].to_numpy()[None], 99.0)
            for p, part in own.groupby("protocol")
        ]
        for m, own in times.groupby("model")
    }
    pd.testing.assert_frame_equal(cad_tables.time_table(measured), six)
    seven = cad_tables.comparison_table(full_report, five, six)
    assert seven.index[-1] == "resnet50.ours"
    assert seven.loc["resnet50.ours", "prediction_time"] == 21.5
    assert seven.loc["resnet50.ours", "training_time"] == 2.0
    assert seven["source"].value_counts().to_dict() == {
        "literature": 7,
        "published": 1,
        "this run": 1,
    }


def test_printed_class_report_has_a_row_a_class(full_report):
    table = cad_tables.class_report(full_report)
    assert len(table) == 35
    assert table.loc["resnet50.glioma", "precision"] == pytest.approx(0.9801, abs=5e-5)
    assert table.loc["resnet50.weighted", "95 % interval"] == "97.93 to 99.19"
    assert pd.isna(table.loc["resnet50.glioma", "accuracy %"])


# --- errors ---------------------------------------------------------------------------------------


@pytest.fixture
def three():
    """Three models on ten no-tumour and two glioma images; the first three names are one image that
    all miss.
    """
    labels, ids = (
        [2] * 10 + [0] * 2,
        [f"Testing/notumor/{n}.jpg" for n in range(10)]
        + ["Testing/glioma/0.jpg", "Testing/glioma/1.jpg"],
    )
    wrong = {
        "resnet50": {0: 0, 1: 0, 2: 0, 3: 0, 10: 1},
        "xception": {0: 0, 1: 0, 2: 0, 3: 1},
        "inceptionv3": {0: 0, 1: 0, 2: 0, 11: 2},
    }
    tables = {
        m: predictions(labels, [said.get(i, label) for i, label in enumerate(labels)], ids)
        for m, said in wrong.items()
    }
    return tables, pd.Series([0, 0, 0, *range(3, 12)], ids, name="copy")


def test_copies_count_once(three):
    tables, copy_of = three
    counts = errors.venn_counts(tables, copy_of)
    assert counts.loc["resnet50+xception+inceptionv3"].tolist() == [3, 1]
    assert counts.loc["resnet50+xception"].tolist() == [1, 1]
    assert counts.loc["inceptionv3", "images"] == 1
    assert counts.loc["xception", "images"] == 0
    assert counts["images"].sum() == 6
    assert len(counts) == 7
    table = errors.error_table(tables, copy_of, copy_of.index[3:])
    assert table.loc[
        "resnet50", ["errors", "distinct", "errors_copied", "errors_leak_free"]
    ].tolist() == [5, 3, 3, 2]
    assert table.loc["resnet50", ["rate_copied %", "rate_leak_free %"]].tolist() == pytest.approx(
        [100, 200 / 9]
    )


def test_missed_images_name_the_wrong_class(three):
    table = errors.missed(three[0])
    assert table["wrong"].tolist() == [3, 3, 3, 2, 1, 1]
    assert table.loc[3, ["resnet50", "xception"]].tolist() == [0, 1]
    assert pd.isna(table.loc[3, "inceptionv3"])


def test_images_missed_by_all_show_their_training_copies(mini):
    ids = [
        "Testing/glioma/Te-0.jpg",
        "Testing/notumor/Te-0.jpg",
        "Testing/notumor/Te-1.jpg",
        "Testing/notumor/Te-2.jpg",
    ]
    tables = {m: predictions([0, 2, 2, 2], [1, 0, 0, 2], ids) for m in published_tables.BEST}
    table = errors.missed_by_all("mini4", tables, level="byte")
    parts = split.published_parts("mini4")
    assert table["image_id"].tolist() == ids[:3]
    assert table["distinct"].tolist() == [1, 2, 2]
    home = "val" if "Training/glioma/Tr-2.jpg" in parts["val"] else "train"
    assert table["copies_in_training"].tolist() == [f"Tr-2.jpg ({home})", "", ""]


def test_pairs_have_mcnemar_with_holm(three):
    tables, copy_of = three
    tests = errors.pair_tests(tables)
    row = tests.set_index(["first", "second"]).loc[("resnet50", "inceptionv3")]
    assert (row["only_first_right"], row["only_second_right"], row["n"]) == (1, 2, 12)
    assert row["p"] == pytest.approx(1.0)
    assert (tests["p_holm"] >= tests["p"]).all()
    assert errors.pair_tests(tables, copy_of)["n"].tolist() == [10, 10, 10]
    big = {
        "a": predictions([0] * 40, [0] * 40),
        "b": predictions([0] * 40, [0] * 30 + [1] * 10),
        "c": predictions([0] * 40, [0] * 40),
    }
    tests = errors.pair_tests(big)
    assert tests["p"].tolist() == pytest.approx([2 / 2**10, 1, 2 / 2**10])
    assert tests["p_holm"].tolist() == pytest.approx([6 / 2**10, 1, 6 / 2**10])
    with pytest.raises(stats.BadSample):
        errors.pair_tests({"a": big["a"], "b": big["b"][:5]})


def test_calibration_of_an_overconfident_model():
    table = predictions([0] * 10, [0] * 6 + [1] * 4, confidence=0.85)
    row = errors.calibration_table({"resnet50": table}, table["image_id"][:6]).loc["resnet50"]
    assert row[
        ["confidence %", "accuracy %", "ECE %", "ECE % (leak-free)"]
    ].tolist() == pytest.approx([85, 60, 25, 15])


def test_convergence_is_the_first_epoch_at_the_level():
    histories = {
        "vgg19": pd.DataFrame({"epoch": [1, 2, 3], "val_accuracy": [0.5, 0.96, 0.9]}),
        "xception": pd.DataFrame({"epoch": [1], "val_accuracy": [0.2]}),
    }
    table = errors.convergence(histories)
    assert table.loc["vgg19", ["first epoch at 0.95", "best epoch", "best %"]].tolist() == [
        2,
        2,
        96,
    ]
    assert pd.isna(table.iloc[1]["first epoch at 0.95"])


# --- values ---------------------------------------------------------------------------------------


class Notebook(dict):
    """Stands in for the writers: keeps values by id and refuses ids that the paper does not
    print.
    """

    paper = "cad"

    def value(
        self,
        value_id,
        ours,
        interval=None,
        leak_free=None,
        leak_free_interval=None,
        n=None,
        exact=False,
    ):
        assert value_id in papers.load("cad").values
        self[value_id] = ours, interval, leak_free, n, exact


def test_every_published_number_of_the_figures_and_tables_is_written(
    published, full_report, costs, times
):
    out = Notebook()
    writers = dict.fromkeys(published, out)
    five, six = cad_tables.cost_table(costs, full_report), cad_tables.time_table(times)
    results.store(writers, "table-4", full_report)
    cad_tables.store_wide(writers, "table-5", five, exact=["parameters"])
    cad_tables.store_times(writers, six)
    cad_tables.store_comparison(writers, cad_tables.comparison_table(full_report, five, six))
    ablation = cad_tables.accuracy_table(
        {
            (m, c): published[m]
            for m in published_tables.MODELS
            for c in ("original", "preprocessed")
        },
        [],
    )
    results.store(writers, "figure-14", ablation)
    errors.store_matrices(writers, published)
    errors.store_errors(writers, published)
    errors.store_claims(writers, full_report, ablation)
    values = papers.load("cad").values
    wanted = [
        v for v in values if v.split("/")[0] in ("table-4", "figure-8", "figure-10", "figure-15")
    ] + [v for v in values if "-predicted." in v or "-true." in v]
    assert set(wanted) - set(out) == set()
    for value_id in [v for v in wanted if v.split("/")[0] in ("figure-8", "figure-15")] + [
        "figure-10/resnet50/errors",
        "figure-9/resnet50/no_tumour_as_glioma",
    ]:
        assert out[value_id][0] == values[value_id].value
    assert out["table-5/resnet50/parameters"][4]
    assert not out["table-5/resnet50/accuracy"][4]
    assert out["table-5/resnet50/accuracy"][1] is not None
    assert out["table-6/resnet50/avg"][0] == 21.5
    assert out["table-7/resnet50/accuracy"][0] == pytest.approx(98.7033, abs=1e-4)
    assert not [v for v in out if values[v].literature]
    assert out["claims/preprocessing.gain-mean"][0] == 0


def test_values_reach_the_results_folder(full_report):
    out = artefacts.Artefacts("cad", "test", "20_cad_six_models", None)
    results.store(dict.fromkeys(ACCURACIES, out), "table-4", full_report)
    out.table("table-4", cad_tables.class_report(full_report))
    stored = files.read_json(out.folder / "values.json")
    assert stored["table-4/resnet50/accuracy"]["low"] == pytest.approx(97.93, abs=5e-3)
    assert "table-4/vgg19.weighted/f1" in stored
