"""The benchmark of the search for twins, small: what it counts is right."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kit.benchmarks import twins as benchmark
from kit.data import planted, twins


@pytest.fixture(scope="module")
def pictures():
    return list(benchmark.generated(24, size=96, copied=1000))


def test_recall_counts_copies_of_every_kind(pictures):
    table, every = benchmark.recall(pictures, strengths=(0.5,), count=8)
    assert table["kind"].tolist() == list(planted.KINDS)
    assert (table["copies"] == 8).all()
    assert (table["low"] <= table["found"]).all()
    assert (table["found"] <= table["high"]).all()
    assert table["found"].mean() > 0.95
    shares = (every["structure"] >= twins.SAME).groupby(every["kind"]).mean()
    assert shares[table["kind"]].tolist() == table["found"].tolist()


def test_pairs_of_one_group_do_not_count_as_different(pictures):
    both = [*pictures, *(np.ascontiguousarray(p[:, ::-1]) for p in pictures)]
    pairs, structure, table = benchmark.apart(both, [*range(24), *range(24)])
    assert pairs == 48 * 47 // 2 - 24
    assert (structure < twins.SAME).all()
    row = table.set_index("threshold").loc[twins.SAME]
    assert row["false"] == 0
    assert row["high"] == pytest.approx(1e6 * (1 - 0.025 ** (1 / pairs)), rel=1e-6)
    _, alone, _ = benchmark.apart(both)
    assert (alone >= twins.SAME).sum() == 24


def test_false_matches_by_threshold():
    table = benchmark.false_matches(np.array([0.85, 0.955, 0.2]), 1_000_000)
    assert table.set_index("threshold")["false"].loc[[0.8, 0.9, 0.96]].tolist() == [2, 1, 0]
    assert table["threshold"].is_monotonic_increasing


def test_a_hash_that_sees_no_mirror_is_told_so(pictures, monkeypatch):
    def rows_of_light(path):
        small = np.asarray(Image.open(path).convert("L").resize((8, 8)), float)
        return (small > small.mean()).ravel()

    monkeypatch.setattr(benchmark, "hashes", lambda: {"average": (rows_of_light, 0)})
    table = benchmark.peers(pictures, count=6).set_index("method")
    assert table.loc["average", "noisy"] > table.loc["average", "turned"]
    assert table.loc["this kit, twin", "turned"] == 1
    assert (table["ms"] > 0).all()


def test_hexadecimal_digits_are_bits():
    assert benchmark._bits("0f").tolist() == [False] * 4 + [True] * 4
    near = np.array([[True] * 8, [True] * 7 + [False], [False] * 8])
    assert benchmark._close(near, 1) == pytest.approx(1 / 3)


def test_every_generated_copy_is_found_again(tmp_path):
    said = benchmark.scale(tmp_path, 60, lambda *_: None)
    assert (said["pictures"], said["copies_found"], said["others_in_groups"]) == (60, 1.0, 0)
    assert said["seconds"] > 0


def test_the_command_prints_and_keeps_its_table(tmp_path, capsys):
    benchmark.scale(tmp_path, 20, lambda *_: None)
    out = tmp_path / "apart.csv"
    assert benchmark.main(["apart", str(tmp_path / "20"), "--most", "19", "--out", str(out)]) == 0
    assert "| threshold |" in capsys.readouterr().out.replace("   ", " ").replace("  ", " ")
    assert pd.read_csv(out)["pairs"].unique().tolist() == [19 * 18 // 2]
