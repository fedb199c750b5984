"""The authors' weights: found or refused in one sentence, compared with known logits,
tested once.
"""

import hashlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import write_balls

from kit import paths
from kit.evaluation import metrics, stats
from kit.models import weights
from kit.search.nas3d import networks, released_weights
from kit.search.nas3d.released import RELEASED
from kit.studies.pbcnas import plan as pbcnas_plan
from kit.studies.pbcnas import runs, tables


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A made-up file in place of adrenal-90's, where weights are looked for; reading it changes
    nothing.
    """
    monkeypatch.setenv("KIT_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(weights, "_failures", {})
    path = tmp_path / "adrenal-90.pt"
    path.write_bytes(b"tensors")
    monkeypatch.setitem(
        released_weights.FILES,
        "adrenal-90",
        ("a/b.pt", hashlib.sha256(b"tensors").hexdigest()[:16]),
    )
    monkeypatch.setattr(networks, "load", lambda model, source: None)
    return path


@pytest.fixture
def plan(private_folders):
    name = "adrenalmnist3d-balls"
    if not (paths.data_dir() / name).exists():
        write_balls(paths.data_dir() / name, name, {"train": 6, "val": 4, "test": 9}, 16)
    return pbcnas_plan.Plan(
        profile="released",
        datasets={"adrenal": name},
        edge=8,
        released=("adrenal-90", "nodule-197"),
    )


def test_every_file_belongs_to_a_released_network_and_has_its_known_logits():
    assert (
        set(released_weights.FILES)
        == set(released_weights.LOGITS)
        == {name for name, known in RELEASED.items() if "with weights" in known.note}
    )
    assert all(
        np.shape(rows) == (3, RELEASED[name].classes)
        for name, rows in released_weights.LOGITS.items()
    )
    assert all(
        RELEASED[name].data in path and str(RELEASED[name].number) in path
        for name, (path, _) in released_weights.FILES.items()
    )


def test_probes_are_a_ramp_and_noise():
    ramp, first, second = released_weights.probes()[..., 0]
    assert (ramp[0, 0, 0], ramp[-1, -1, -1]) == (0, 1)
    assert (
        ramp[-1, 0, 0],
        ramp[0, -1, 0],
        ramp[0, 0, -1],
    ) == pytest.approx((4 / 7, 2 / 7, 1 / 7))
    noise = np.random.RandomState(0).rand(2, 28, 28, 28).astype("f4")
    assert np.array_equal(first, noise[0])
    assert np.array_equal(second, noise[1])


def test_a_file_is_checked_and_a_missing_one_is_named(file, monkeypatch):
    assert released_weights.find("adrenal-90") == file
    file.write_bytes(b"else")
    with pytest.raises(weights.DamagedWeights, match="is not the published file"):
        released_weights.find("adrenal-90")
    monkeypatch.setenv("KIT_OFFLINE", "1")
    with pytest.raises(
        weights.WeightsUnavailable,
        match=r"nodule-197 are unavailable \(downloads are off.*: put "
        r"https://raw.*/nodulemnist3d/model_197.pt as nodule-197.pt into the repository's "
        r"folder weights",
    ):
        released_weights.find("nodule-197")
    with pytest.raises(weights.WeightsUnavailable, match="No weights of organ-32 were released"):
        released_weights.find("organ-32")


def test_a_download_lands_where_weights_are_looked_for(file, monkeypatch):
    asked = []

    def fetch(address, path, checksum, host):
        asked.append((address, checksum, host))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"tensors")

    file.unlink()
    monkeypatch.setattr(weights, "fetch", fetch)
    found = [released_weights.find("adrenal-90") for _ in range(2)]
    assert found[0] == found[1]
    assert found[0].parent in weights.folders()
    assert asked == [
        (
            released_weights.ADDRESS + "a/b.pt",
            released_weights.FILES["adrenal-90"][1],
            released_weights.HOST,
        )
    ]


def test_released_weights_are_tested_once_at_full_size(file, plan, monkeypatch):
    model = released_weights.build("adrenal-90", file)
    known = np.asarray(model(released_weights.probes(), training=False))
    monkeypatch.setitem(
        released_weights.LOGITS,
        "adrenal-90",
        tuple(map(tuple, np.add(known, [[0, 0], [0, 0.25], [0, 0]]))),
    )
    found = runs.released_tests(plan)
    assert found["nodule-197"] == "Not tested: nodulemnist3d is not used here."
    inputs, parts = runs.load(plan, "adrenalmnist3d-balls")
    table = tables.released_table(found, plan, {"adrenal": (inputs, parts)}, 50).set_index(
        "network"
    )
    line, predictions = table.loc["adrenal-90"], found["adrenal-90"].predictions("test")
    assert line["tested"] == "yes"
    assert line["logit difference"] == pytest.approx(0.25, abs=1e-4)
    assert line["volumes"] == 9
    assert line["leak-free volumes"] == 8
    assert line["accuracy"] == metrics.correct(predictions).mean()
    assert line["AUC"] == pytest.approx(metrics.binary_metrics(predictions)["auc"])
    assert line["AUC, best of the benchmark"] == 0.839
    assert line["accuracy, best of the benchmark"] == 0.802
    wide, rows = runs.load(replace(plan, edge=28), "adrenalmnist3d-balls")
    logits = np.asarray(model(wide.batch(rows["test"]), training=False))
    assert (
        np.abs(predictions["score_1"] - 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))).max() < 1e-5
    )
    monkeypatch.setattr(released_weights, "build", None)
    again = runs.released_tests(plan)["adrenal-90"]
    assert again.finished
    assert again.folder == found["adrenal-90"].folder
    assert table.loc["nodule-197", "tested"].startswith("Not tested")
    assert np.isnan(table.loc["nodule-197", "AUC"])


def test_what_cannot_be_tested_says_why_and_stops_nothing(file, plan, monkeypatch):
    file.write_bytes(b"else")
    found = runs.released_tests(plan)
    assert "is not the published file" in found["adrenal-90"]
    assert list(found) == [
        "adrenal-90",
        "nodule-197",
    ]


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [
        (0.844, 0.92, "yes"),
        (0.797, 0.879, "within its interval"),
        (0.7, 0.8, "no, below"),
    ],
)
def test_a_claim_survives_only_if_the_whole_interval_does(low, high, answer):
    found = stats.Interval((low + high) / 2, low, high, 0.95, 298, "any")
    assert tables.above(found, 0.839 if low == 0.844 else 0.802) == answer
    assert tables.above(None, 0.8) == "–"


def test_the_released_adrenal_network_as_published_here():
    """The committed run on the official file of 28 voxels: the AUC is above every printed one, the
    accuracy is not; figures of the paper's own per-set results are not public.
    """
    folder = paths.ROOT / "results" / "reference" / "pbcnas"
    (run,) = (folder / "runs").glob("adrenalmnist3d-adrenal-90-released-*")
    table = pd.read_csv(run / "predictions.csv")
    assert len(table) == 298
    assert np.bincount(table["label"]).tolist() == [229, 69]
    assert tables.rate(table, "auc") == pytest.approx(0.8838, abs=5e-5)
    assert tables.rate(table, "accuracy") == 251 / 298
    for which, answer in (("auc", "yes"), ("accuracy", "within its interval")):
        found = tables.interval(table, which)
        assert tables.above(found, tables.best_printed("adrenal", which)) == answer
    line = pd.read_csv(folder / "tables" / "extra-released.csv").iloc[0]
    assert line[["AUC above it", "accuracy above it"]].tolist() == ["yes", "within its interval"]
    assert line["AUC"] == tables.rate(table, "auc")
