"""Benchmark: our side runs, PyTorch's side is asked in turn, what is missing is told."""

import json
import sys

import pandas as pd
import pytest

from kit.benchmarks import nas, sides

TINY = nas.Settings(channels=2, cells=3, size=8, batch=2)


def fake_torch(tmp_path, monkeypatch, lines):
    """A program that answers like PyTorch's side."""
    script = tmp_path / "side.py"
    script.write_text("import json, sys\nassert json.loads(sys.argv[1])['channels'] == 2\n" + lines)
    monkeypatch.setattr(nas, "SCRIPT", script)


def test_both_sides_in_turn(tmp_path, monkeypatch):
    fake_torch(
        tmp_path,
        monkeypatch,
        "print('{}', flush=True)\nfor number, _ in enumerate(sys.stdin):\n    "
        "print(json.dumps({'weights': 8.0 + number, 'arch': 4.0}), flush=True)\n",
    )
    monkeypatch.setattr(
        nas,
        "Ours",
        lambda *_: type(
            "Side", (), {"step": lambda self: {"weights": 2.0, "arch": 1.0, "second": 4.0}}
        )(),
    )
    table = nas.compare(TINY, sys.executable, 2)
    row = table[(table["side"] == "pytorch eager") & (table["part"] == "weights")].iloc[0]
    assert (row["first"], row["median"], row["low"], row["high"]) == (8, 9.5, 9, 10)
    found = nas.ratios(table)
    assert found["weights + arch, ours over pytorch eager"] == pytest.approx(3 / 13.5)
    assert found["second over first order"] == pytest.approx(2)


def test_torch_that_ends_is_told(tmp_path, monkeypatch, capsys):
    fake_torch(tmp_path, monkeypatch, "sys.exit(3)\n")
    with pytest.raises(sides.NoTorch, match="status 3"):
        sides.Torch(sys.executable, TINY, nas.SCRIPT)
    with pytest.raises(sides.NoTorch, match="could not be started"):
        sides.Torch(str(tmp_path / "absent"), TINY, nas.SCRIPT)


def test_our_side_alone(tmp_path, capsys):
    assert (
        nas.main(
            [
                "--channels",
                "2",
                "--cells",
                "3",
                "--size",
                "8",
                "--batch",
                "2",
                "--rounds",
                "1",
                "--out",
                str(tmp_path / "times.json"),
            ]
        )
        == 0
    )
    table = pd.DataFrame(json.loads((tmp_path / "times.json").read_text())["times"])
    assert set(table["part"]) == {"weights", "arch", "weights + arch"}
    assert (table["median"] > 0).all()
    assert (table["first"] > table["median"]).all()
    assert "weights + arch" in capsys.readouterr().out
