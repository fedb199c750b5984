"""Every notebook: its form, a run by nbmake at the smoke profile, and a run by the runner that is killed and goes on."""

import ast
import json
import os
import random
import subprocess
import sys
import time

import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from kit import params, paths, record, report, runner

NOTEBOOKS = sorted(paths.notebooks_dir().glob("*.ipynb"))
TRAINING = "10_br35h_cnn_vs_resnet50v2"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)
def test_form(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    assert not any(c.get("outputs") or c.get("execution_count") for c in cells), "outputs are not stripped"
    assert len(cells) <= 25 and cells[0]["cell_type"] == "markdown"
    assert all(p.help for p in params.declared(notebook).values()), "a parameter has no help comment"
    for source in code:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 10, f"{node.name} belongs into kit/"
    assert not any(f in "\n".join(code) for f in ("/home/", "/tmp", "../", "C:\\")), "a path of one machine"


def test_every_published_artefact_has_a_notebook_name_that_the_design_lists():
    names = {"10_br35h_cnn_vs_resnet50v2", "20_cad_six_models", "30_lease_nas", "40_gencnn_ga", "50_astrocytes", "60_gensoup", "70_pbcnas_3d"}
    assert {e["notebook"] for e in report.all_expected()} - {n.stem for n in NOTEBOOKS} <= names


def test_the_paper_profile_is_the_published_setting():
    from kit import papers

    values = params.resolve(paths.notebooks_dir() / f"{TRAINING}.ipynb", "paper")
    used = {"image_size": [values["image_size"]] * 2, "epochs": values["epochs"], "folds": values["folds"], "holdout_fraction": values["test_fraction"],
            "learning_rate": values["learning_rate"]}
    assert papers.departures(papers.load("br35h"), used) == [] and values["dataset"] == "br35h" and values["backbone"] == "resnet50v2"


def test_the_paper_profile_of_the_cad_framework_is_the_published_setting():
    from kit import papers

    values = params.resolve(paths.notebooks_dir() / "20_cad_six_models.ipynb", "paper")
    used = {"preprocessing_final_size": values["image_size"], "preprocessing_final_size_nasnetlarge": values["large_size"],
            **{name: values[name] for name in ("epochs", "learning_rate", "batch_size")}}
    assert papers.departures(papers.load("cad"), used) == [] and values["dataset"] == "nickparvar"
    assert values["initial"] == "imagenet" and not (values["images"] or values["large_images"] or values["bn_momentum"] or values["random_epochs"])


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Results of all notebooks, run by nbmake one after the other, each in a folder that is not the repository."""
    runner.install_kernel()
    folder, results = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("results")
    for notebook in NOTEBOOKS:
        filled = parameterize_notebook(load_notebook_node(str(notebook)), params.resolve(notebook, "smoke"))
        (folder / notebook.name).write_text(json.dumps(filled))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={folder}", "--nbmake", f"--nbmake-kernel={runner.KERNEL}",
               "--nbmake-timeout=500", *sorted(str(f) for f in folder.glob("*.ipynb"))]
    done = subprocess.run(command, cwd=folder, env={**os.environ, "KIT_RESULTS": str(results)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    return results / "smoke"


@pytest.mark.timeout(1800)  # runs all notebooks
def test_nbmake_runs_every_notebook_and_every_artefact_is_written(smoke, monkeypatch):
    monkeypatch.setenv("KIT_RESULTS", str(smoke.parent))
    for notebook in NOTEBOOKS:
        job = runner.Job(notebook, "smoke", {})
        missing = [a for a in runner.collect(job) if a["status"] != "written"]
        assert not missing, (notebook.stem, missing)
    assert (smoke / "index.html").stat().st_size > 10_000


def test_results_on_embedded_data_say_so_everywhere(smoke):
    for entry in record.read_json(smoke / "br35h" / "artefacts.json")["artefacts"]:
        if entry["kind"] == "table" and entry["status"] == "written":
            text = (smoke / "br35h" / "tables" / f"{entry['id']}.md").read_text()
            assert "Embedded data set phantom-binary" in text and "stand-in" in text.lower() or "Stand-in" in text, entry["id"]
    verdicts = (smoke / "summary" / "tables" / "table-verdicts.csv").read_text()
    reproduced = [line for line in verdicts.splitlines() if ",reproduced," in line]
    free = ("/parameters,", "gencnn,table-3-2/", "pbcnas,claims/parameter-reduction,")  # counts of parameters, and splits that follow from printed class counts, depend on no data
    assert "not comparable" in verdicts and all(any(part in line for part in free) for line in reproduced)


def results_of(folder):
    """What has to be the same in two runs: predictions, tables and splits of the training notebook."""
    files = [*folder.glob("br35h/runs/*/predictions.csv"), *folder.glob("br35h/tables/*"), *folder.glob("br35h/splits/*")]
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in files}


def test_a_run_killed_at_random_moments_ends_as_an_uninterrupted_one(smoke, tmp_path):
    environment = {**os.environ, "KIT_RESULTS": str(tmp_path)}
    command = [sys.executable, "-m", "kit.runner", "--profile", "smoke", "--only", "10"]
    moments = random.Random(os.environ.get("KIT_KILL_SEED", 3))
    for _ in range(3):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(8, 25))
        process.kill()
        process.wait()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    killed, whole = results_of(tmp_path / "smoke"), results_of(smoke)
    assert sorted(killed) == sorted(whole) and len(whole) > 12
    assert [name for name in whole if killed[name] != whole[name]] == []
    started = time.monotonic()
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 0 and "up to date" in again.stdout and time.monotonic() - started < 30
