"""Every notebook: its form, a run at the smoke profile, one run by nbmake, and a run by the runner
that is killed and goes on.
"""

import ast
import json
import os
import random
import subprocess
import sys
import time

import pandas as pd
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from kit import files as files_module
from kit import jobs, params, paths, runner
from kit.report import artefacts

NOTEBOOKS = sorted(paths.notebooks_dir().glob("*.ipynb"))
TRAINING = "10_br35h_cnn_vs_resnet50v2"
BY_NBMAKE = "00_data_audit"  # the cheapest that loads data, draws, and writes tables and figures


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)
def test_form(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    assert not any(c.get("outputs") or c.get("execution_count") for c in cells), (
        "outputs are not stripped"
    )
    assert len(cells) <= 25
    assert cells[0]["cell_type"] == "markdown"
    assert all(p.help for p in params.declared(notebook).values()), (
        "a parameter has no help comment"
    )
    for source in code:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 10, f"{node.name} belongs into kit/"
    assert not any(f in "\n".join(code) for f in ("/home/", "/tmp", "../", "C:\\")), (
        "a path of one machine"
    )


def test_every_published_artefact_has_a_notebook_name_that_the_design_lists():
    names = {
        "10_br35h_cnn_vs_resnet50v2",
        "20_cad_six_models",
        "30_lease_nas",
        "40_gencnn_ga",
        "50_astrocytes",
        "60_gensoup",
        "70_pbcnas_3d",
    }
    assert {e["notebook"] for e in artefacts.all_expected()} - {n.stem for n in NOTEBOOKS} <= names


def test_the_paper_profile_is_the_published_setting():
    from kit.published import papers

    values = params.resolve(paths.notebooks_dir() / f"{TRAINING}.ipynb", "paper")
    used = {
        "image_size": [values["image_size"]] * 2,
        "epochs": values["epochs"],
        "folds": values["folds"],
        "holdout_fraction": values["test_fraction"],
        "learning_rate": values["learning_rate"],
    }
    assert papers.departures(papers.load("br35h"), used) == []
    assert values["dataset"] == "br35h"
    assert values["backbone"] == "resnet50v2"


def test_the_paper_profile_of_the_cad_framework_is_the_published_setting():
    from kit.published import papers

    values = params.resolve(paths.notebooks_dir() / "20_cad_six_models.ipynb", "paper")
    used = {
        "preprocessing_final_size": values["image_size"],
        "preprocessing_final_size_nasnetlarge": values["large_size"],
        **{name: values[name] for name in ("epochs", "learning_rate", "batch_size")},
    }
    assert papers.departures(papers.load("cad"), used) == []
    assert values["dataset"] == "nickparvar"
    assert values["initial"] == "imagenet"
    assert not (values["images"])
    assert not (values["large_images"])
    assert not (values["bn_momentum"])
    assert not (values["random_epochs"])


def by_nbmake(folder, notebooks, *arguments):
    """Write notebooks with the parameters of profile smoke into `folder`, which is not the
    repository, and start pytest with nbmake there.
    """
    runner.install_kernel()
    for notebook in notebooks:
        filled = parameterize_notebook(
            load_notebook_node(str(notebook)), params.resolve(notebook, "smoke")
        )
        (folder / notebook.name).write_text(json.dumps(filled))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--rootdir={folder}",
        "--nbmake",
        f"--nbmake-kernel={runner.KERNEL}",
        "--nbmake-timeout=500",
        *arguments,
        *sorted(str(f) for f in folder.glob("*.ipynb")),
    ]
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "KIT_RESULTS": str(folder / "results")},
        capture_output=True,
        text=True,
    )


def test_every_notebook_runs_and_every_artefact_is_written(smoke, monkeypatch):
    monkeypatch.setenv("KIT_RESULTS", str(smoke.parent))
    for notebook in NOTEBOOKS:
        job = jobs.Job(notebook, "smoke", {})
        missing = [a for a in jobs.collect(job) if a["status"] != "written"]
        assert not missing, (notebook.stem, missing)
        status = files_module.read_json(job.status_file)
        assert status["state"] == "finished", status
        assert status["exit_code"] == 0, status
    assert (smoke / "index.html").stat().st_size > 10_000


def test_nbmake_finds_every_notebook(tmp_path):
    done = by_nbmake(tmp_path, NOTEBOOKS, "--collect-only")
    assert done.returncode == 0, done.stdout[-4000:]
    assert all(f"{notebook.name}::" in done.stdout for notebook in NOTEBOOKS)
    assert f"{len(NOTEBOOKS)} tests collected" in done.stdout


def test_nbmake_runs_a_notebook_outside_the_repository(smoke, tmp_path, monkeypatch):
    notebook = paths.notebooks_dir() / f"{BY_NBMAKE}.ipynb"
    done = by_nbmake(tmp_path, [notebook])
    assert done.returncode == 0, done.stdout[-4000:]
    assert "1 passed" in done.stdout, done.stdout[-4000:]
    monkeypatch.setenv("KIT_RESULTS", str(tmp_path / "results"))
    missing = [a for a in jobs.collect(jobs.Job(notebook, "smoke", {})) if a["status"] != "written"]
    assert not missing, missing
    tables = sorted((tmp_path / "results/smoke").glob("*/tables/*.csv"))
    assert len(tables) > 2
    for table in tables:
        assert (
            table.read_bytes()
            == (smoke / table.relative_to(tmp_path / "results/smoke")).read_bytes()
        ), table.name


def test_results_on_embedded_data_say_so_everywhere(smoke):
    for entry in files_module.read_json(smoke / "br35h" / "artefacts.json")["artefacts"]:
        if entry["kind"] == "table" and entry["status"] == "written":
            text = (smoke / "br35h" / "tables" / f"{entry['id']}.md").read_text()
            assert (
                "Embedded data set phantom-binary" in text and "stand-in" in text.lower()
            ) or "Stand-in" in text, entry["id"]
    verdicts = pd.read_csv(smoke / "summary" / "tables" / "table-verdicts.csv", dtype=str)
    kinds = {
        (paper.key, i): v.kind for paper in artefacts.all_papers() for i, v in paper.values.items()
    }
    judged = verdicts[verdicts["verdict"].isin(["supported", "contradicted", "undecided"])]
    assert "not comparable" in set(verdicts["verdict"])
    # counts of parameters, and splits that follow from printed class counts, depend on no data
    assert {kinds[row] for row in zip(judged["paper"], judged["value"], strict=True)} <= {"count"}


def test_stored_results_carry_what_a_verdict_needs(smoke):
    """Interval, images, seeds and level of every result that notebook 10 stores."""
    for value_id, entry in files_module.read_json(smoke / "br35h" / "values.json").items():
        if entry["kind"] == "result":
            needed = [entry[x] for x in ("low", "high", "n", "seeds", "level", "data")]
            assert None not in needed, value_id


def test_conclusions_of_the_example_are_answered_for_the_run(smoke):
    table = pd.read_csv(smoke / "summary" / "tables" / "table-conclusions.csv", dtype=str)
    mine = table[table["paper"] == "br35h"]
    assert len(mine) == 5
    assert not (mine["answer"] == "missing").any()
    assert mine["said"].str.startswith("In this run, on embedded data (phantom-binary)").all()
    assert (mine["verdict"] == "not comparable").all()


def results_of(folder):
    """What has to be the same in two runs: predictions, tables and splits of the training
    notebook.
    """
    files = [
        *folder.glob("br35h/runs/*/predictions.csv"),
        *folder.glob("br35h/tables/*"),
        *folder.glob("br35h/splits/*"),
    ]
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in files}


KILL_SEED = int(os.environ.get("KIT_KILL_SEED", 3))
# how far a run has come when it is killed: (file below its results folder, text, times that the
# text stands in the file)
STAGES = {
    "before training": ("br35h/figures/figure-1.png", None, 0),
    "in training": (f"notebooks/{TRAINING}.log", "epoch", random.Random(KILL_SEED).randint(2, 5)),
    "after training": ("br35h/tables/table-1.csv", None, 0),
}


def reached(folder, file, text, times):
    """True once the run that writes into `folder` has come so far."""
    path = folder / file
    return path.exists() and (text is None or path.read_text(encoding="utf-8").count(text) >= times)


class Killed:
    """Notebook 10 at profile smoke in a results folder of its own, killed at each stage in turn."""

    def __init__(self, home, data):
        self.home, self.folder, self.stages = home, home / "smoke", []
        self.command = [sys.executable, "-m", "kit.runner", "--profile", "smoke", "--only", "10"]
        self.environment = {**os.environ, "KIT_RESULTS": str(home), "KIT_DATA": str(data)}

    def whole(self):
        """The run from here to its end."""
        return subprocess.run(
            self.command, cwd=paths.ROOT, env=self.environment, capture_output=True, text=True
        )

    def at(self, stage):
        """Start the run and kill it once it has reached `stage`, and before that at the stages
        before it.
        """
        for name in list(STAGES)[len(self.stages) : list(STAGES).index(stage) + 1]:
            (self.folder / f"notebooks/{TRAINING}.log").unlink(missing_ok=True)  # of the run before
            process = subprocess.Popen(
                self.command,
                cwd=paths.ROOT,
                env=self.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            while not reached(self.folder, *STAGES[name]):
                assert process.poll() is None, "ended before it could be killed"
                time.sleep(0.05)
            process.kill()
            process.wait()
            self.stages.append(name)


@pytest.fixture(scope="module")
def killed(smoke, tmp_path_factory):
    return Killed(tmp_path_factory.mktemp("killed"), smoke.parents[1] / "data")


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_run_is_not_taken_for_a_finished_one(killed, stage, monkeypatch):
    killed.at(stage)
    monkeypatch.setenv("KIT_RESULTS", str(killed.home))
    job = jobs.Job(paths.notebooks_dir() / f"{TRAINING}.ipynb", "smoke", {})
    assert not job.status_file.exists()
    assert not jobs.up_to_date(job)
    assert any(a["status"] != "written" for a in jobs.collect(job))


def test_a_run_killed_at_three_stages_ends_as_an_uninterrupted_one(smoke, killed):
    killed.at("after training")
    assert killed.stages == list(STAGES)
    done = killed.whole()
    assert done.returncode == 0, done.stdout + done.stderr
    after, whole = results_of(killed.folder), results_of(smoke)
    assert sorted(after) == sorted(whole)
    assert len(whole) > 12
    assert [name for name in whole if after[name] != whole[name]] == []
    started = time.monotonic()
    again = killed.whole()
    assert again.returncode == 0
    assert "up to date" in again.stdout
    assert time.monotonic() - started < 30
