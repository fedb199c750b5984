"""Evidence on the Br35H paper's conclusions, from what the published run left."""

import shutil

import numpy as np
import pandas as pd
import pytest

from kit import files, paths
from kit.evaluation import stats
from kit.studies.br35h import evidence

REFERENCE = paths.ROOT / "results/reference/br35h"


def test_evidence_follows_from_the_committed_predictions(tmp_path):
    folder = tmp_path / "br35h"
    shutil.copytree(REFERENCE, folder, ignore=shutil.ignore_patterns("figures", "tables"))
    (folder / "evidence.json").unlink()
    evidence.again(folder)
    found, kept = (files.read_json(f / "evidence.json") for f in (folder, REFERENCE))
    assert found.keys() == kept.keys()
    for name, entry in kept.items():
        part, again = entry["parts"][""], found[name]["parts"][""]
        assert again == pytest.approx(part), name
        assert found[name]["data"] == "br35h-like"


def test_the_difference_of_the_folds_is_that_of_the_corrected_test():
    table = pd.DataFrame(
        [
            {"row": f"{m}.fold{i}", "metric": "accuracy", "value": v}
            for m, values in {"cnn": [97.94, 97.34, 97.70], "tl": [98.26, 97.78, 97.25]}.items()
            for i, v in enumerate(values, 1)
        ]
    )
    d = evidence.fold_values(table, "tl") - evidence.fold_values(table, "cnn")
    test = stats.corrected_resampled_t(d, 0.5)
    assert test.statistic == pytest.approx(0.2344, abs=5e-5)
    assert d == pytest.approx([0.32, 0.44, -0.45])


def test_heat_inside_the_lesion_is_paired_by_image(monkeypatch):
    masks = np.zeros((8, 8), bool)
    masks[:4] = True
    monkeypatch.setattr(
        evidence.faithfulness, "lesion", lambda name, inputs, rows, size: masks[:size, :size]
    )
    draw = np.random.default_rng(0)
    inside = np.where(masks, 1.0, 0.05)[None] * draw.uniform(0.9, 1.1, (6, 8, 8))
    flat = draw.uniform(0.9, 1.1, (6, 8, 8))

    class Out:
        def evidence(self, name, parts, **more):
            self.kept = name, parts

    out = Out()
    evidence.store_localisation(out, {"tl": inside, "cnn": flat}, "any", None, range(6))
    name, parts = out.kept
    assert name == "grad-cam"
    assert parts[""].n == 6
    assert parts[""].low > 0.3
