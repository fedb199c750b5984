"""Conclusions of the publications: stated before the run, answered by intervals."""

import numpy as np
import pytest

from kit import files, paths
from kit.evaluation.answers import DIRECTIONS
from kit.evaluation.stats import Interval
from kit.published import conclusions as published
from kit.published import papers
from kit.report import artefacts, conclusions, entries

NOTEBOOK = "10_br35h_cnn_vs_resnet50v2"


def interval(estimate, low, high, n=400):
    return Interval(estimate, low, high, 0.95, n, "test")


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_RESULTS", str(tmp_path))
    monkeypatch.setenv("KIT_DATA", str(tmp_path / "data"))
    files.write_json(tmp_path / "data/br35h/dataset.json", {"embedded": False, "fingerprint": "x"})
    return artefacts.Artefacts("br35h", "p", NOTEBOOK, "phantom-binary")


def line(name="auc"):
    return next(c for c in conclusions.table("br35h", "p") if c["conclusion"] == name)


@pytest.mark.parametrize("key", papers.keys())
def test_each_publication_has_five_to_twelve_testable_conclusions(key):
    paper = papers.load(key)
    assert 5 <= len(paper.conclusions) <= 12
    for c in paper.conclusions:
        assert c.text.endswith(".")
        assert c.direction in DIRECTIONS
        assert len(c.test) > 20
        assert c.notebook in paper.notebooks
        assert all(i in paper.values for pair in c.printed for i in pair)


def test_without_evidence_it_is_missing_and_says_why(out):
    assert line()["answer"] == line()["verdict"] == "missing"
    assert line()["said"] == f"Notebook {NOTEBOOK} has not run."
    status = paths.results_dir() / f"p/notebooks/{NOTEBOOK}.status.json"
    files.write_json(status, {"state": "finished"})
    assert "has run but stored no such evidence" in line()["said"]


@pytest.mark.parametrize(
    ("ends", "answer"),
    [((0.2, 1.8), "supported"), ((-1.8, -0.2), "contradicted"), ((-0.5, 1.5), "undecided")],
)
def test_embedded_data_answer_for_the_run_and_not_for_the_publication(out, ends, answer):
    out.evidence("auc", interval(sum(ends) / 2, *ends), seeds=3, groups=390)
    found = line()
    assert found["answer"] == answer
    assert found["said"].startswith(
        f"In this run, on embedded data (phantom-binary): {answer}. AUC of the transfer model minus"
    )
    assert "n = 400; 3 seeds" in found["said"]
    assert ("would have been seen" in found["said"]) == (answer == "undecided")
    assert found["verdict"] == "not comparable"
    assert "embedded data" in found["why"]


def test_the_published_experiment_is_a_verdict(out):
    out.evidence("auc", interval(1.0, 0.2, 1.8), data="br35h")
    assert line()["verdict"] == line()["answer"] == "supported"
    reduced = artefacts.Artefacts("br35h", "p", NOTEBOOK, "br35h", reductions=["2 epochs"])
    reduced.evidence("auc", interval(1.0, 0.2, 1.8))
    assert line()["verdict"] == "not comparable"
    assert "with reduced settings: supported" in line()["said"]


def test_equality_and_ratios(out):
    out.evidence("no-difference", interval(0.1, -0.4, 0.6))
    assert line("no-difference")["answer"] == "supported"
    out.evidence("no-difference", interval(0.1, -4, 4.2))
    assert line("no-difference")["answer"] == "undecided"
    out.evidence("faster", interval(0.4, 0.3, 0.5, n=3))
    assert line("faster")["answer"] == "supported"
    out.evidence("faster", interval(0.9, 0.7, 1.1, n=3))
    assert line("faster")["answer"] == "undecided"
    assert "over" in line("faster")["said"]
    out.evidence("faster", Interval(0.4, 0.3, 0.5, 0.95, 3, "t of the logarithm"))
    assert "pairs = 3; 1 seed" in line("faster")["said"]


def test_each_of_several_parts_has_to_hold(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_RESULTS", str(tmp_path))
    lease = artefacts.Artefacts("lease", "p", "30_lease_nas", "digits")
    lease.evidence(
        "each-base-improves", {"DARTS": interval(3, 1, 5), "PC-DARTS": interval(0, -2, 2)}
    )
    found = next(c for c in conclusions.table("lease", "p") if c["conclusion"].startswith("each"))
    assert found["answer"] == "undecided"
    assert "DARTS +3 pp (+1 to +5, supported)" in found["said"]


def test_only_known_conclusions_with_finite_intervals_are_stored(out):
    with pytest.raises(artefacts.UnknownArtefact, match="did you mean 'faster'"):
        out.evidence("fastr", interval(1, 0, 2))
    for wrong in (interval(1, np.nan, 2), interval(np.inf, 0, 2), {}):
        with pytest.raises(entries.BadEvidence):
            out.evidence("faster", wrong)
    assert not (out.folder / "evidence.json").exists()


def test_what_the_printed_numbers_say_themselves():
    lease = papers.load("lease")
    each = next(c for c in lease.conclusions if c.id == "each-base-improves")
    said = published.as_printed(lease, each)
    assert said.startswith("As printed, the first is above the second in 3 of 3 comparisons")
    assert "they show it in 0 of 3" in said
    cad = papers.load("cad")
    helps = next(c for c in cad.conclusions if c.id == "augmentation-helps")
    assert "they show it in 1 of 1" in published.as_printed(cad, helps)
    assert (
        published.as_printed(cad, next(c for c in cad.conclusions if c.id == "convergence")) == ""
    )


def test_stored_results_carry_interval_n_seeds_and_level(out):
    out.value("table-1/cnn.fold1/accuracy", 97.9, n=entries.Sample(800, 780, seeds=3, seed_sd=0.2))
    stored = files.read_json(out.folder / "values.json")["table-1/cnn.fold1/accuracy"]
    assert stored["low"] < 97.9 < stored["high"]
    assert (stored["n"], stored["groups"], stored["seeds"]) == (800, 780, 3)
    assert stored["level"] == entries.LEVEL
    assert stored["kind"] == "result"
    out.value("graphic-3/cnn/auc", 99.0, n=600)  # no share: no interval is made up
    assert files.read_json(out.folder / "values.json")["graphic-3/cnn/auc"]["low"] is None
