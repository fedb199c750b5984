"""3D benchmark: our sides run and are one function, PyTorch's side is asked in turn, what is
missing is told.
"""

import json
import sys

import numpy as np
import pytest

from kit.benchmarks import nas3d, sides

TINY = nas3d.settings("seven", batch=2, edge=4)


def fake_torch(tmp_path, monkeypatch, lines):
    """A program that answers like PyTorch's side."""
    script = tmp_path / "side.py"
    script.write_text(
        "import json, sys\nassert json.loads(sys.argv[1])['network']['operations'] == [5]\n" + lines
    )
    monkeypatch.setattr(nas3d, "SCRIPT", script)


def test_both_sides_in_turn(tmp_path, monkeypatch):
    fake_torch(
        tmp_path,
        monkeypatch,
        "print('{}', flush=True)\nfor number, _ in enumerate(sys.stdin):\n    "
        "print(json.dumps({'train': 8.0 + number, 'evaluate': 4.0}), flush=True)\n",
    )
    monkeypatch.setattr(
        nas3d,
        "Ours",
        lambda *_: type("Side", (), {"step": lambda self: {"train": 2.0, "evaluate": 1.0}})(),
    )
    table = nas3d.compare(TINY, sys.executable, 2).set_index(["side", "part"])
    assert table.loc["pytorch", "train"].tolist() == [8, 9.5, 9, 10, 2 / 9.5]
    assert table.loc[("pytorch", "evaluate"), "ratio"] == 0.25


def test_torch_that_ends_is_told(tmp_path, monkeypatch, capsys):
    fake_torch(tmp_path, monkeypatch, "sys.exit(3)\n")
    with pytest.raises(sides.NoTorch, match="status 3"):
        nas3d.compare(TINY, sys.executable, 1)
    assert nas3d.main(["nine"]) == 1
    assert "no network 'nine'" in capsys.readouterr().err


def test_keras_own_layers_make_the_same_network():
    ours, plain = (nas3d.Ours(TINY, plain=plain) for plain in (False, True))
    assert ours.model.count_params() == plain.model.count_params()
    plain.model.set_weights(ours.model.get_weights())
    x = ours.batch[0]
    assert np.allclose(ours.model(x), plain.model(x), atol=1e-5)
    assert np.allclose(ours.model(x, training=True), plain.model(x, training=True), atol=1e-5)


def test_our_side_alone(tmp_path, capsys):
    assert (
        nas3d.main(
            [
                "smallest",
                "--batch",
                "2",
                "--edge",
                "4",
                "--rounds",
                "1",
                "--out",
                str(tmp_path / "times.json"),
            ]
        )
        == 0
    )
    times = json.loads((tmp_path / "times.json").read_text())["networks"]["smallest"]["times"]
    assert [row["part"] for row in times] == ["train", "evaluate"]
    assert all(row["first"] > row["median"] > 0 for row in times)
    assert "smallest, batch 2" in capsys.readouterr().out
