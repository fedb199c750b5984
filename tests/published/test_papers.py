"""The publications' files: complete, readable, and refused with one sentence where the schema is
broken.
"""

import copy
import math

import pytest
import yaml

from kit import paths
from kit.data import registry
from kit.errors import KitError
from kit.published import papers, schema

COUNTS = {
    "br35h": 10,
    "cad": 26,
    "lease": 8,
    "gencnn": 18,
    "astrocytes": 12,
    "gensoup": 7,
    "pbcnas": 15,
}


@pytest.mark.parametrize("key", COUNTS)
def test_artefact_counts(key):
    paper = papers.load(key)
    assert len(paper.artefacts) == COUNTS[key]
    assert all(a.notebook in paper.notebooks for a in paper.artefacts)
    assert set(paper.data) <= set(registry.names())


def test_keys_are_the_files():
    assert papers.keys() == sorted(COUNTS)


@pytest.mark.parametrize("key", COUNTS)
def test_every_value_is_a_number_with_its_rounding(key):
    paper = papers.load(key)
    assert paper.values
    assert all(v.id == value_id and math.isfinite(v.value) for value_id, v in paper.values.items())
    assert all(float(v.printed) == pytest.approx(v.value, abs=1e-12) for v in paper.values.values())
    assert not set(paper.values) & set(paper.recorded)


def test_known_values():
    paper = papers.load("br35h")
    fold = paper.values["table-1/cnn.fold1/accuracy"]
    assert (fold.value, fold.unit, fold.decimals, fold.n, fold.artefact, fold.row, fold.column) == (
        97.94,
        "%",
        2,
        800,
        "table-1",
        "cnn.fold1",
        "accuracy",
    )
    assert paper.number("claims/t-test.t").value == 0.3977
    assert paper.hyperparameters["learning_rate"] == 1e-4
    assert paper.hyperparameters["batch_size"] is None
    assert paper.artefact("graphic-4").kind == "figure"


KINDS = {
    "br35h": {
        "table-1/cnn.fold1/accuracy": "result",
        "graphic-4/cnn/auc": "repeat",
        "claims/t-test.p-above": "setting",
        "claims/time-per-fold.cnn": "cost",
        "claims/literature.naseer-2021": "citation",
    },
    "cad": {
        "figure-8/vgg19.glioma/glioma": "repeat",
        "table-4/vgg19.glioma/recall": "result",
        "table-5/vgg19/accuracy": "repeat",
        "table-5/mobilenetv2/accuracy": "result",
        "table-5/vgg19/parameters": "count",
        "figure-12/axis.accuracy/low": "axis",
        "figure-10/all-three/errors": "result",
        "figure-10/vgg19/errors": None,
    },
    "astrocytes": {"table-4-2/cifar-10.regnety-400mf/delta": "repeat"},
    "gencnn": {"table-3-5/cell-1/lr": "setting", "table-3-5/cell-1/validation_mcc": "result"},
}


@pytest.mark.parametrize("key", KINDS)
def test_kinds_of_printed_values(key):
    values = papers.load(key).values
    found = {i: values[i].kind if i in values else None for i in KINDS[key]}
    assert found == KINDS[key]


@pytest.mark.parametrize("key", COUNTS)
def test_every_printed_value_has_a_kind_and_no_recorded_one_has(key):
    paper = papers.load(key)
    assert {v.kind for v in paper.values.values()} <= set(schema.VALUE_KINDS)
    assert {v.kind for v in paper.recorded.values()} <= {""}
    cited = [i for i, v in paper.values.items() if v.kind == "citation"]
    assert all(paper.values[i].literature for i in cited)


def test_no_operation_count_is_stored_finer_than_printed():
    """The cells beside them hold the text as printed, "4.5 G": same digits, same magnitude."""
    paper, scale = papers.load("gencnn"), {"GFLOPs": "G", "MFLOPs": "M"}
    printed = {i: t.replace(" ", "") for i, t in paper.texts.items() if i.endswith("flops_printed")}
    assert len(printed) == 9
    for text_id, text in printed.items():
        entry = paper.values[text_id.replace("flops_printed", "flops")]
        assert f"{entry.printed}{scale[entry.unit]}" == text


def test_a_table_repeats_a_value_with_no_more_digits_than_it_prints():
    """Table 7 and the text of the CAD paper print 98.7 %, Tables 4 and 5 98.70 %."""
    values = papers.load("cad").values
    assert values["table-7/resnet50/accuracy"].printed == "98.7"
    assert values["claims/best-accuracy"].printed == "98.7"
    assert values["table-5/resnet50/accuracy"].printed == "98.70"


def _write(folder, change):
    raw = yaml.safe_load((paths.papers_dir() / "br35h.yml").read_text())
    raw = copy.deepcopy(raw)
    change(raw)
    path = folder / "br35h.yml"
    path.write_text(yaml.safe_dump(raw))
    return path


BREAKS = {
    "missing top-level keys checks": lambda raw: raw.pop("checks"),
    "unknown top-level keys extra": lambda raw: raw.update(extra=1),
    "key must equal the file name": lambda raw: raw.update(key="other"),
    "is used twice": lambda raw: raw["artefacts"].append(raw["artefacts"][0]),
    "must be a table or a figure": lambda raw: raw["artefacts"][1].update(kind="picture"),
    "names a notebook": lambda raw: raw["artefacts"][1].update(notebook="99_none"),
    "more than 2 decimals": lambda raw: raw["artefacts"][0]["blocks"][0]["rows"][
        "cnn.fold1"
    ].__setitem__(0, 97.941),
    "needs 3 cells": lambda raw: raw["artefacts"][0]["blocks"][0]["rows"]["cnn.fold1"].pop(),
    "must be a number": lambda raw: raw["artefacts"][0]["blocks"][0]["rows"][
        "cnn.fold1"
    ].__setitem__(0, True),
    "flat mapping": lambda raw: raw["hyperparameters"].update(nested={"a": 1}),
    "needs the keys issue, use, where": lambda raw: raw["slips"].append({"where": "here"}),
    "unknown fields": lambda raw: raw["claims"][0].update(vale=1),
    "accuracy needs a kind, one of result": lambda raw: raw["artefacts"][0]["blocks"][0].pop(
        "kind"
    ),
    "t-test.t needs a kind": lambda raw: raw["claims"][0].update(kind="number"),
    "relation of claim t-test.t": lambda raw: raw["claims"][0].update(relation="above"),
}


@pytest.mark.parametrize("message", BREAKS)
def test_broken_files_are_refused_with_one_sentence(tmp_path, message):
    with pytest.raises(papers.BadPaperFile, match=message) as caught:
        papers.read(_write(tmp_path, BREAKS[message]))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_unknown_names_are_kit_errors(tmp_path):
    with pytest.raises(papers.UnknownPaper, match="choose one of"):
        papers.load("nonsense")
    with pytest.raises(papers.UnknownValue, match="table-9"):
        papers.load("br35h").number("table-9/a/b")
    (tmp_path / "x.yml").write_text("a: [1,\n b")
    with pytest.raises(KitError, match="not valid YAML"):
        papers.read(tmp_path / "x.yml")


def test_notes_of_several_systems_name_the_system_where_they_differ():
    assert papers.shared(
        {
            "A": ["epochs 2 instead of 3", "size 1 instead of 9"],
            "B": ["size 4 instead of 9", "epochs 2 instead of 3"],
        }
    ) == ["epochs 2 instead of 3", "A: size 1 instead of 9", "B: size 4 instead of 9"]
    assert papers.shared({"A": [], "B": []}) == []
