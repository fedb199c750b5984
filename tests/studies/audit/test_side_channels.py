"""Side channels: a planted one is found, a set without one stays at chance."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kit import record
from kit.data import duplicates, registry
from kit.studies.audit import side_channels


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A function that registers 160 grey images whose class shows in `brightness` and in nothing
    else.
    """

    def make(brightness):
        rng, rows = np.random.default_rng(0), []
        for number in range(160):
            label = number % 2
            pixels = rng.integers(0, 100, (24, 24), np.uint8) + np.uint8(brightness * label)
            name = f"{'ab'[label]}/{number:03d}.png"
            (tmp_path / name).parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / name)
            rows.append(
                {
                    "image_id": name,
                    "split": "all",
                    "label": label,
                    "class_name": "ab"[label],
                    "sha256": hashlib.sha256((tmp_path / name).read_bytes()).hexdigest(),
                }
            )
        index = pd.DataFrame(rows).sort_values("image_id", ignore_index=True)
        groups = duplicates.duplicate_groups(index, tmp_path)
        for function, answer in (
            ("index", index),
            ("root", tmp_path),
            ("ensure", tmp_path),
            ("facts", {"fingerprint": record.fingerprint(index)}),
        ):
            monkeypatch.setattr(registry, function, lambda name, answer=answer: answer)
        monkeypatch.setattr(duplicates, "groups", lambda name: groups)
        return tmp_path

    return make


def test_brightness_gives_the_class_away(made):
    made(60)
    found = side_channels.check("toy").set_index("channel")
    assert found.loc["brightness", "accuracy"] > 95
    assert found.loc["brightness", "low"] > found.loc["brightness", "chance"] == 50
    assert found.loc["picture size and colour mode", "accuracy"] <= 51


def test_no_side_channel_stays_at_chance(made):
    made(0)
    found = side_channels.check("toy").set_index("channel")
    assert (found["low"] < 50).all()
    assert list(found.index) == [
        *side_channels.CHANNELS,
        "all of them",
    ]


def test_what_the_generator_drew_is_used(made):
    root = made(0)
    index = registry.index("toy")
    pd.DataFrame(
        {"image_id": index["image_id"], "plane": np.where(index["label"], "axial", "coronal")}
    ).to_csv(root / "nuisance.csv", index=False)
    assert (
        side_channels.check("toy").set_index("channel").loc["what the generator drew", "accuracy"]
        == 100
    )


def test_features_in_their_units(made):
    root = made(0)
    row = side_channels.features("toy").loc["b/001.png"]
    pixels = np.asarray(Image.open(root / "b/001.png"))
    assert row[["width", "height", "colour"]].tolist() == [24, 24, 0]
    assert row["mean"] == pixels.mean()
    assert row["kilobytes"] == (root / "b/001.png").stat().st_size / 1000
