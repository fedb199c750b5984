"""The door for anyone's folder: files, pages, exit codes."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from kit import duplicates
from kit.data import contents, twins


def picture(seed, size=120):
    """A smooth random grey picture with fine structure, uint8 (size, size)."""
    random = np.random.default_rng(seed)
    field = sum(gaussian_filter(random.normal(size=(size, size)), s) * s for s in (2, 5, 12))
    return np.uint8(np.interp(field, (field.min(), field.max()), (0, 255)))


@pytest.fixture
def folder(tmp_path):
    """Eight pictures in two folders, two of them once more: mirrored, and byte for byte."""
    for seed in range(8):
        place = tmp_path / "mine" / "ab"[seed % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(seed)).save(place / f"{seed}.png")
    Image.fromarray(picture(3)[:, ::-1].copy()).save(tmp_path / "mine/a/mirrored <3>.png")
    Image.fromarray(picture(4)).save(tmp_path / "mine/b/again.png")
    return tmp_path / "mine"


def test_copies_are_listed_shown_and_kept_together(folder, capsys):
    assert duplicates.main([str(folder)]) == 1
    assert "10 pictures, 8 distinct at the level twin" in capsys.readouterr().out
    out = folder.with_name("mine-duplicates")
    pairs = pd.read_csv(out / "pairs.csv")
    assert {
        (frozenset((r.image_id, r.other)), r.level, r.symmetry) for r in pairs.itertuples()
    } == {
        (frozenset({"b/3.png", "a/mirrored <3>.png"}), "twin", "mirrored"),
        (frozenset({"a/4.png", "b/again.png"}), "byte", "same"),
    }
    groups = pd.read_csv(out / "groups.csv")
    parts = pd.read_csv(out / "split.csv").merge(groups, on="image_id")
    assert set(parts["part"]) == {"train", "test"}
    assert (parts.groupby("twin_group")["part"].nunique() == 1).all()
    page = (out / "pairs-1.html").read_text()
    assert page.count("<img") == 4
    assert "mirrored &lt;3&gt;.png" in page
    assert "http" not in page


def test_a_stricter_level_finds_less_and_no_copies_give_zero(folder):
    assert duplicates.main([str(folder), "--level", "byte", "--out", str(folder / "../o")]) == 1
    assert len(pd.read_csv(folder / "../o/pairs.csv")) == 1
    (folder / "b/again.png").unlink()
    assert duplicates.main([str(folder), "--level", "byte", "--out", str(folder / "../o")]) == 0
    assert not list((folder / "../o").glob("pairs-*.html"))


def test_where_pictures_come_from(folder, tmp_path, capsys):
    (tmp_path / "theirs").mkdir()
    Image.fromarray(picture(5).T.copy()).save(tmp_path / "theirs/five.jpg", quality=80)
    Image.fromarray(picture(77)).save(tmp_path / "theirs/other.png")
    out = tmp_path / "out"
    code = duplicates.main([str(folder), "--against", str(tmp_path / "theirs"), "--out", str(out)])
    assert code == 1
    table = pd.read_csv(out / "pairs.csv")
    assert table[["image_id", "other", "symmetry"]].values.tolist() == [
        ["b/5.png", "five.jpg", "transposed"]
    ]
    assert "1 of 10 pictures have a twin" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_a_folder_without_pictures_is_one_sentence(tmp_path, capsys, name):
    (tmp_path / "empty").mkdir()
    assert duplicates.main([str(tmp_path / name)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Traceback" not in said
    assert not (tmp_path / f"{name}-duplicates").exists()


def test_a_search_that_was_stopped_goes_on(folder, monkeypatch):
    """Stopped while it reads, then while it lays pictures over each other; nothing is done twice
    and the answer is that of an undisturbed search.
    """
    assert duplicates.main([str(folder), "--out", str(folder / "../whole")]) == 1
    monkeypatch.setattr(contents, "_STEP", 4)
    monkeypatch.setattr(twins, "_STEP", 1)
    out, counts = folder / "../stopped", {"read": 0, "overlaid": 0}

    def stopping(kind, function, last):
        def wrapped(*args, **kwargs):
            counts[kind] += 1
            if counts[kind] > last:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return wrapped

    look, overlay = contents._look, twins.overlay
    monkeypatch.setattr(contents, "_look", stopping("read", look, 6))
    with pytest.raises(KeyboardInterrupt):
        duplicates.main([str(folder), "--out", str(out)])
    assert len(list(out.glob("unfinished/read-*.npz"))) == 1
    counts["read"] = 0
    monkeypatch.setattr(contents, "_look", stopping("read", look, 6))
    monkeypatch.setattr(twins, "overlay", stopping("overlaid", overlay, 0))
    with pytest.raises(KeyboardInterrupt):
        duplicates.main([str(folder), "--out", str(out)])
    assert counts["read"] == 6  # ten pictures, four of which had been read
    (next(out.glob("unfinished/read-*.npz"))).write_bytes(b"cut")  # a damaged step is made again
    counts["read"] = 0
    monkeypatch.setattr(twins, "overlay", overlay)
    assert duplicates.main([str(folder), "--out", str(out)]) == 1
    assert counts["read"] in (2, 4)
    for name in ("groups.csv", "pairs.csv", "split.csv"):
        assert (out / name).read_bytes() == (folder / "../whole" / name).read_bytes()
    assert not (out / "unfinished").exists()
