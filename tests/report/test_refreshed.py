"""Stored values of an older run brought up to date from the predictions beside them."""

import numpy as np
import pandas as pd
import pytest

from kit import files
from kit.report import refreshed, results


@pytest.fixture
def folder(tmp_path):
    """A CAD results folder as an earlier version wrote it: 1,311 images in 1,000 groups."""
    draw = np.random.default_rng(0)
    label = draw.integers(0, 2, 1311)
    score = np.where(draw.random(1311) < 0.9, label, 1 - label).astype(float)
    table = pd.DataFrame(
        {
            "image_id": range(1311),
            "group": np.arange(1311) % 1000,
            "label": label,
            "score_0": 1 - score,
            "score_1": score,
        }
    )
    root = tmp_path / "cad"
    files.write_csv(root / "runs/vgg19-x/predictions.csv", table)
    right = float((score == label).mean())
    entry = {"ours": 100 * right, "low": 1.0, "high": 99.0, "n": 1311, "unit": "%", "data": "d"}
    other = {**entry, "ours": 50.0}
    files.write_json(
        root / "values.json",
        {"table-4/vgg19/accuracy": entry, "table-4/xception/accuracy": other, "gone": entry},
    )
    return root, table


def test_intervals_of_shares_come_from_the_predictions(folder):
    root, table = folder
    assert refreshed.refresh(root) == 1
    stored = files.read_json(root / "values.json")
    assert set(stored) == {"table-4/vgg19/accuracy", "table-4/xception/accuracy"}
    found, exact = stored["table-4/vgg19/accuracy"], results.share_right(table)
    assert (found["low"], found["high"]) == pytest.approx((100 * exact.low, 100 * exact.high))
    assert (found["n"], found["groups"], found["seeds"]) == (1311, 1000, 1)
    assert found["kind"] == "result"
    unmatched = stored["table-4/xception/accuracy"]
    assert (unmatched["low"], unmatched["high"], unmatched["groups"]) == (1.0, 99.0, None)
    assert refreshed.refresh(root) == 1  # and again


def test_a_value_is_converted_to_the_printed_unit(tmp_path):
    path = tmp_path / "gencnn/values.json"
    key = "table-3-1/convnext-tiny/flops"
    files.write_json(path, {key: {"ours": 4455.5, "unit": "MFLOPs", "low": None}})
    refreshed.refresh(path.parent)
    refreshed.refresh(path.parent)
    stored = files.read_json(path)[key]
    assert stored["ours"] == pytest.approx(4.4555)
    assert stored["unit"] == "GFLOPs"


def test_evidence_names_what_the_results_were_measured_on(folder):
    root, table = folder
    out = refreshed.Evidence(root)
    out.evidence("leading-three", results.share_right(table), groups=1000)
    stored = files.read_json(root / "evidence.json")["leading-three"]
    assert (stored["data"], stored["groups"], stored["seeds"]) == ("d", 1000, 1)
