"""The rehearsal of a profile: one step a training, what it costs written down, and the plan that
follows.
"""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from kit import files, paths, processes, rehearsal, rehearse, runner
from kit.data import registry
from kit.models import weights
from kit.training import rehearsed, train

FACTS = {
    "name": "cnn-fold1",
    "notebook": "10_br35h_cnn_vs_resnet50v2",
    "signature": "a",
    "run": "r1",
    "epochs": 30,
    "batch": 32,
    "batch_here": 32,
    "images": 1600,
    "steps": 1500,
    "predicted": 3600,
    "seed": 0,
    "parameters": 1000,
    "flops": 2e9,
    "peak": 3 * 2**30,
    "step_seconds": 0.9,
    "traced_seconds": 5.0,
    "predict_seconds": 0.01,
}


@pytest.fixture
def rehearsing(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv(rehearsal.SIGN, "1")
    monkeypatch.setenv("KIT_NOTEBOOK", FACTS["notebook"])
    monkeypatch.setattr(rehearsed, "_FOUND", {})
    return tmp_path / "results" / "rehearsal"


def note(**facts):
    facts = FACTS | facts
    rehearsal.write_down("trainings", facts.pop("name"), facts)


def test_few_rows_hold_every_class_in_their_order():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 0])
    assert rehearsal.few(labels, np.arange(8), 3).tolist() == [0, 4, 6]
    assert rehearsal.few(labels, np.arange(8), 5).tolist() == [0, 1, 4, 5, 6]
    assert rehearsal.few(labels, np.array([7, 5]), 9).tolist() == [7, 5]


def test_a_training_becomes_one_batch_and_the_plan_knows_the_whole(images, rehearsing):
    inputs, parts = images
    config = train.TrainConfig("p", "rehearsal", "n", epochs=30, batch_size=4)
    short, few = rehearsed.shortened(config, inputs, parts)
    assert short == replace(config, epochs=2)
    assert len(few["train"]) == 4
    assert set(inputs.labels[few["train"]]) == set(inputs.labels)
    assert few.planned["steps"] == 30 * -(-len(parts["train"]) // 4)
    watched = len(parts["validation"])
    assert few.planned["predicted"] == len(parts["test"]) + watched + 30 * watched


@pytest.fixture
def images(private_folders):
    from kit.data import images as data_images

    inputs = data_images.load("phantom-binary", 16, channels=1)
    rows = np.arange(len(inputs.index))
    return inputs, {"train": rows[::2], "validation": rows[1::4], "test": rows[3::4]}


def network():
    import keras

    shape = keras.layers.Input((16, 16, 1))
    x = keras.layers.Conv2D(3, 3, name="conv")(shape)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(shape, keras.layers.Dense(1, activation="sigmoid")(x))


def test_a_rehearsed_training_leaves_a_run_and_its_cost(images, rehearsing, monkeypatch):
    inputs, parts = images
    asked = []

    def peaks(function, arguments):
        asked.append(arguments[0]["batch"])
        if arguments[0]["batch"] > 4:  # does not fit
            return [None]
        rehearsed.take_steps(**arguments[0])
        return [123]

    monkeypatch.setattr(rehearsed.processes, "peaks", peaks)
    config = train.TrainConfig("p", "rehearsal", "n", epochs=5, batch_size=8, keep_weights=False)
    run = train.fit(config, network, inputs, parts)
    assert len(run.history()) == 2
    assert len(run.predictions()) == 8
    again = train.fit(replace(config, name="m", seed=1), network, inputs, parts)
    assert again.finished
    assert asked == [8, 4]  # the second is the same network: nothing is measured again
    facts = rehearsal.written("trainings")
    assert [f["name"] for f in facts] == ["m", "n"]
    assert facts[0]["batch"] == 8
    assert facts[0]["batch_here"] == 4
    assert facts[0]["peak"] == 123
    assert facts[0]["parameters"] == 3 * 9 + 3 + 3 + 1
    assert facts[0]["flops"] > 2 * 14 * 14 * 27
    table = rehearse.plan()
    assert table["trainings"].tolist() == [2]
    assert table["seeds"].tolist() == [2]
    assert table["steps"].tolist() == [2 * 5 * -(-len(parts["train"]) // 8)]
    assert "smaller batch" in rehearse.describe(table)


def test_memory_and_operations_are_measured_in_a_process_of_its_own(rehearsing):
    found = rehearsed.fitting("n", network(), (16, 16, 1), 4)
    assert found["batch"] == 4
    assert found["parameters"] == 34
    assert found["peak"] is None or found["peak"] > 0
    assert found["flops"] == pytest.approx(2 * 14 * 14 * 27, rel=0.25)


def test_a_network_that_fits_nowhere_is_one_sentence(rehearsing, monkeypatch):
    monkeypatch.setattr(rehearsed.processes, "peaks", lambda *_: [None])
    with pytest.raises(train.OutOfMemory, match="not even with two images"):
        rehearsed.fitting("big", network(), (16, 16, 1), 8)


def test_the_plan_adds_up(rehearsing):
    note()
    note(name="cnn-fold2", run="r2", seed=1)
    note(name="cnn-grouped", run="r4", images=1640, steps=0, predicted=0)
    note(name="tl", signature="b", run="r3", peak=20 * 2**30, flops=4e9)
    table = rehearse.plan(30.0)
    first = table[table["training"] == "cnn-fold1"].iloc[0]
    assert first["trainings"] == 3  # a few images more are no other network
    assert first["steps"] == 3000
    assert first["hours_here"] == pytest.approx(2 * (1500 * 0.9 + 3600 * 0.01) / 3600)
    images = 2 * (3 * 1500 * 32 + 3600)
    assert first["hours_gpu"] == pytest.approx(images * 2e9 / 10e12 / 3600)
    assert rehearse.plan(1e6)["hours_gpu"][0] == pytest.approx(2 * 1500 * 0.01 / 3600)
    text = rehearse.write(30.0)
    assert (rehearsing / "plan.md").read_text() == text
    assert len(pd.read_csv(rehearsing / "plan.csv")) == 2
    assert "| T4 |" in text
    line = next(line for line in text.splitlines() if line.startswith("| T4 |"))
    assert line.endswith("| tl |")  # 20 GiB do not fit into 16
    assert next(x for x in text.splitlines() if x.startswith("| RTX 3090")).endswith("| - |")


def test_reduced_repetitions_count_as_published(rehearsing, monkeypatch):
    note()
    before = rehearse.plan()["steps"][0]
    monkeypatch.setattr(rehearse, "overlay", lambda _: {"settings": {}, "times": {"cnn": 7}})
    assert rehearse.plan()["steps"][0] == 7 * before


def test_absent_data_stand_in_and_are_listed(rehearsing, tmp_path, monkeypatch):
    entry = {"title": "T", "task": "binary", "kind": "images", "classes": ["no", "yes"]}
    tiny = entry | {"layout": {"train": "A", "test": "B"}, "embedded": False}
    tiny |= {"counts": {"A/no": 3, "A/yes": 2, "B/no": 1, "B/yes": 1}}
    monkeypatch.setattr(registry, "_entries", lambda: {"tiny": tiny, "had": tiny, "unused": tiny})
    monkeypatch.setenv("KIT_DATA", str(tmp_path / "data"))
    files.write_json(tmp_path / "data/had/dataset.json", {"name": "had"})
    said = []
    job = SimpleNamespace(values={"dataset": "tiny", "medical": {"had": "x"}})
    rehearse.environment([job], said.append)
    assert said == ["note: tiny is not prepared; 7 images of noise stand in"]
    assert paths.data_dir() == rehearsing / "data"
    assert (rehearsing / "data/had").resolve() == tmp_path / "data/had"
    index = registry.index("tiny")
    assert index["split"].value_counts().to_dict() == {"train": 5, "test": 2}
    assert index["sha256"].is_unique
    path = registry.root("tiny") / index["image_id"][0]
    assert np.asarray(Image.open(path)).shape == (rehearse.SIDE,) * 2
    assert registry.caveats("tiny") == ["T in place of tiny"]
    assert rehearse.to_fetch() == ["data: `python -m data_prep tiny`"]


def test_absent_weights_start_at_random_and_are_listed(rehearsing, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("KIT_OFFLINE", "1")
    monkeypatch.delenv("KIT_WEIGHTS", raising=False)
    monkeypatch.setattr(weights.paths, "ROOT", tmp_path)
    assert weights.initialisation("vgg19", "imagenet").weights is None
    assert weights.resolve_backbone("resnet50v2").name == "resnet50v2"
    lines = rehearse.to_fetch()
    assert any("weights of vgg19" in line for line in lines)
    assert any("weights of resnet50v2" in line for line in lines)
    monkeypatch.delenv(rehearsal.SIGN)
    with pytest.raises(weights.WeightsUnavailable):
        weights.initialisation("vgg19", "imagenet")
    with pytest.raises(weights.WeightsUnavailable):
        weights.resolve_backbone("resnet50v2")


def test_a_rehearsal_takes_the_published_settings(rehearsing):
    (job,) = rehearse.plan_jobs("20")
    assert job.profile == "rehearsal"
    assert job.values["profile"] == "rehearsal"
    assert job.values["large_size"] == 331
    assert job.values["epochs"] == 25
    assert job.values["timed_images"] == 2
    (job,) = rehearse.plan_jobs("20", [("timed_images", "5")])
    assert job.values["timed_images"] == 5


def test_the_command_line(rehearsing, capsys, monkeypatch):
    assert runner.main(["--profile", "quick", "--rehearse"]) == 2
    assert "--profile paper" in capsys.readouterr().err
    assert runner.main(["--profile", "paper", "--plan"]) == 2
    assert "no rehearsal yet" in capsys.readouterr().err
    note()
    assert runner.main(["--profile", "paper", "--plan", "--gpu-tflops", "100"]) == 0
    assert "100 * 10^12" in capsys.readouterr().out
    ran = []
    monkeypatch.setattr(rehearse, "environment", lambda jobs: None)
    monkeypatch.setattr(runner, "install_kernel", lambda: None)
    monkeypatch.setattr(runner, "run_all", lambda jobs, workers: ran.extend(jobs))
    assert runner.main(["--profile", "paper", "--rehearse", "--only", "10"]) == 1
    assert [job.profile for job in ran] == ["rehearsal"]
    assert "What the paper profile takes" in capsys.readouterr().out


def test_captions_of_a_rehearsal_say_so(rehearsing):
    from kit.report import artefacts

    out = artefacts.Artefacts("br35h", "rehearsal", FACTS["notebook"], data="phantom-binary")
    out.table("table-1", pd.DataFrame({"a": [1.0]}))
    text = (rehearsing / "br35h/tables/table-1.md").read_text()
    assert "no number here is a result" in text
    entries = json.loads((rehearsing / "br35h/artefacts.json").read_text())["artefacts"]
    assert next(e for e in entries if e["id"] == "table-1")["status"] == "written"


def test_networks_of_equal_form_have_one_signature(rehearsing, monkeypatch):
    seen = []
    monkeypatch.setattr(
        rehearsed,
        "_measured",
        lambda *given: seen.append(given) or dict.fromkeys(FACTS, 1),
    )
    one, two = network(), network()
    assert one.to_json() != two.to_json()
    first = rehearsed.fitting("a", one, (16, 16, 1), 4)["signature"]
    assert rehearsed.fitting("b", two, (16, 16, 1), 4)["signature"] == first
    assert rehearsed.fitting("b", two, (16, 16, 1), 8)["signature"] != first
    assert len(seen) == 2


def test_a_short_training_is_rehearsed_through_the_same_seam(rehearsing, monkeypatch):
    from kit.data import images as data_images
    from kit.training import short

    monkeypatch.setattr(
        rehearsed, "_measured", lambda name, text, shape, batch: FACTS | {"batch": batch}
    )
    inputs = data_images.load("digits", 8, channels=3)
    doer = short.Trainer(short.Network("squeezenet_1.1", 10, weights=None))
    values = {"loss": "sigmoid_cross_entropy", "optimizer": "sgd", "learning_rate": 1.0}
    rows = np.arange(200)
    trained = doer.train(
        values | {"weight_decay": 0.0}, inputs, rows, epochs=7, size=32, batch_size=20
    )
    assert len(trained.history) == 2
    (facts,) = rehearsal.written("trainings")
    assert (facts["steps"], facts["images"], facts["batch"]) == (70, 200, 20)
    assert len(doer.predict(inputs, rows, 32)) == 20
    monkeypatch.delenv(rehearsal.SIGN)
    assert len(doer.predict(inputs, rows, 32)) == 200


def hungry(gigabytes: float) -> None:
    """Ask for memory as a step would that does not fit."""
    rehearsed._within_memory()
    np.ones(int(gigabytes * 2**27))


@pytest.mark.skipif(not processes.FIELDS.exists(), reason="limits are set on Linux only")
def test_a_step_that_is_too_large_ends_and_takes_nothing_with_it():
    available = psutil.virtual_memory().available / 2**30
    peaks = processes.peaks(
        "tests.test_rehearse:hungry", [{"gigabytes": 4 * available}, {"gigabytes": 0.01}]
    )
    assert peaks[0] is None
    assert peaks[1] > 0
