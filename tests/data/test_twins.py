"""The level twin: planted copies of every kind are found, other pictures are not, and the groups
depend on what the pictures show alone.
"""

import hashlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from kit.data import duplicates, planted, thumbnails
from kit.data.planted import SYMMETRIES, inverse, plant, turn


def head(seed, size=160):
    """A head-like picture, uint8 (size, size): a bright rim, inside it structure of several scales,
    that differs from seed to seed.
    """
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    radius = np.hypot(rows / random.uniform(0.38, 0.45), columns / random.uniform(0.3, 0.42))
    noise = sum(
        weight * gaussian_filter(random.normal(size=(size, size)), sigma) * sigma
        for sigma, weight in ((2, 1), (4, 1), (9, 1.5))
    )
    picture = np.where(radius < 0.9, 90 + 45 * noise / noise.std() / 2, 0)
    picture = np.where((radius >= 0.9) & (radius < 1), 210, picture)
    return np.uint8(
        np.clip(gaussian_filter(picture, 0.7) + random.normal(0, 1, radius.shape), 0, 255)
    )


def write(folder, pictures: dict):
    """Write pictures as PNG files and return the index of the folder."""
    for name, pixels in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    return index_of(folder, list(pictures))


def index_of(folder, names):
    return pd.DataFrame(
        {
            "image_id": names,
            "sha256": [hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in names],
        }
    )


def groups_of(table):
    """Groups of two and more at the level twin, as sets of names."""
    return {frozenset(g) for _, g in table.groupby("twin_group")["image_id"] if len(g) > 1}


@pytest.mark.parametrize("symmetry", range(8), ids=SYMMETRIES)
def test_a_symmetry_is_undone_and_changes_no_invariant(symmetry):
    pixels = np.random.default_rng(1).normal(size=(3, 16, 16)).astype(np.float32)
    turned = np.ascontiguousarray(turn(pixels, symmetry))
    assert np.array_equal(turn(turned, inverse(symmetry)), pixels)
    before = thumbnails.invariants(pixels)
    assert np.allclose(thumbnails.invariants(turned), before, atol=1e-5)
    assert np.allclose(np.linalg.norm(before, axis=1), np.linalg.norm(pixels, axis=(1, 2)))


def test_the_words_of_the_symmetries_are_right():
    corner = np.zeros((4, 4), int)
    corner[0, 1] = 1
    rotated = {f"turned by {90 * k} degrees": np.rot90(corner, k) for k in (1, 2, 3)}
    expected = rotated | {
        "same": corner,
        "mirrored": corner[:, ::-1],
        "upside down": corner[::-1],
        "transposed": corner.T,
        "transposed and turned by 180 degrees": np.rot90(corner.T, 2),
    }
    for number, words in enumerate(SYMMETRIES):
        assert np.array_equal(turn(corner, number), expected[words]), words


def test_invariants_are_never_farther_apart_than_the_pictures():
    one, other = np.random.default_rng(2).normal(size=(2, 20, 16, 16)).astype(np.float32)
    apart = np.linalg.norm(thumbnails.invariants(one) - thumbnails.invariants(other), axis=1)
    best = min((np.linalg.norm(one - turn(other, g), axis=(1, 2)) for g in range(8)), key=np.sum)
    assert (apart <= best + 1e-4).all()


@pytest.mark.parametrize("kind", planted.KINDS)
def test_every_planted_kind_is_found_at_full_strength_and_nothing_else(tmp_path, kind):
    originals = {f"a/{seed:02d}.png": head(seed) for seed in range(12)}
    copies = {f"b/{seed:02d}.png": plant(head(seed), kind, 1.0, seed) for seed in range(0, 12, 2)}
    table = duplicates.duplicate_groups(write(tmp_path, originals | copies), tmp_path)
    assert groups_of(table) == {
        frozenset({f"a/{seed:02d}.png", f"b/{seed:02d}.png"}) for seed in range(0, 12, 2)
    }


def test_a_turned_copy_is_no_near_duplicate_but_a_twin_and_the_turn_is_named(tmp_path):
    pictures = {"one.png": head(1), "two.png": head(2)}
    pictures |= {f"turned{g}.png": turn(head(1), g).copy() for g in range(1, 8)}
    found = duplicates.find(write(tmp_path, pictures), tmp_path)
    assert found.groups["near_group"].nunique() == 9
    assert groups_of(found.groups) == {frozenset(set(pictures) - {"two.png"})}
    pairs = {
        frozenset(pair) for pair in zip(found.pairs["image_id"], found.pairs["other"], strict=True)
    }
    assert 7 <= len(pairs) == len(found.pairs)  # enough to join eight pictures, none twice
    for row in found.pairs.itertuples():
        laid = turn(pictures[row.other], SYMMETRIES.index(row.symmetry))
        assert np.array_equal(laid, pictures[row.image_id]), row


def test_neighbouring_slices_are_no_twins(tmp_path):
    """A rim and a coarse shape in common, other details: correlation .98, no twin."""
    rim, detail = head(3).astype(float), np.random.default_rng(4)
    other = np.clip(rim + 70 * gaussian_filter(detail.normal(size=rim.shape), 3) * 3, 0, 255)
    pictures = {"one.png": head(3), "next.png": np.uint8(np.where(rim > 20, other, rim))}
    pictures |= {f"{seed}.png": head(seed) for seed in range(5, 9)}
    correlation = np.corrcoef(pictures["one.png"].ravel(), pictures["next.png"].ravel())[0, 1]
    assert correlation > 0.9
    assert not groups_of(duplicates.duplicate_groups(write(tmp_path, pictures), tmp_path))


def test_groups_depend_neither_on_names_nor_on_order(tmp_path):
    pictures = [head(seed) for seed in range(8)]
    pictures += [plant(head(seed), "augmented", 1.0, seed) for seed in (1, 1, 3, 5)]
    names = [f"{number:02d}.png" for number in range(len(pictures))]
    shuffled = list(np.random.default_rng(0).permutation(names))
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    first = duplicates.find(
        write(tmp_path / "a", dict(zip(names, pictures, strict=True))), tmp_path / "a"
    )
    write(tmp_path / "b", dict(zip(shuffled, pictures, strict=True)))
    again = duplicates.find(index_of(tmp_path / "b", sorted(shuffled)), tmp_path / "b")
    back = dict(zip(shuffled, names, strict=True))
    assert {frozenset(back[i] for i in g) for g in groups_of(again.groups)} == groups_of(
        first.groups
    )

    def seen(pairs, name):
        return {
            (name(r.image_id), name(r.other), r.symmetry, r.structure) for r in pairs.itertuples()
        }

    assert seen(again.pairs, back.get) == seen(first.pairs, str)


@pytest.mark.parametrize("size", [8, 32, 63])
def test_pictures_too_small_for_fine_structure_are_never_twins(tmp_path, size):
    pictures = {f"{seed}.png": np.uint8(gaussian_filter(head(seed), 9)[::1]) for seed in range(3)}
    small = {n: np.asarray(Image.fromarray(p).resize((size, size))) for n, p in pictures.items()}
    small["mirrored.png"] = small["0.png"][:, ::-1].copy()
    table = duplicates.duplicate_groups(write(tmp_path, small), tmp_path)
    assert table["twin_group"].tolist() == table["near_group"].tolist()


def test_the_source_of_an_image_in_another_set(tmp_path):
    ours = {f"{seed}.png": plant(head(seed), "augmented", 1.0, seed) for seed in (2, 4, 50)}
    theirs = {f"x/{seed}.png": head(seed) for seed in range(8)}
    theirs["x/4-again.png"] = plant(head(4), "compressed", 0.5, 1)
    table = duplicates.sources(
        write(tmp_path / "ours", ours),
        tmp_path / "ours",
        write(tmp_path / "theirs", theirs),
        tmp_path / "theirs",
    )
    assert dict(zip(table["image_id"], table["other"], strict=True)).keys() == {"2.png", "4.png"}
    assert table.set_index("image_id")["other"]["2.png"] == "x/2.png"
    assert table.set_index("image_id")["other"]["4.png"].startswith("x/4")


def test_an_unknown_kind_is_one_sentence():
    with pytest.raises(planted.UnknownKind, match="choose one of turned"):
        plant(head(0), "painted", 1.0, 0)


def test_a_planted_copy_is_the_same_for_the_same_seed_and_nothing_at_strength_zero():
    picture = head(0)
    for kind in planted.KINDS:
        one, two = (plant(picture, kind, 0.7, 5) for _ in range(2))
        assert np.array_equal(one, two), kind
        assert not np.array_equal(one, picture), kind
        assert planted.describe(kind)
    for kind in ("resized", "bordered", "cropped", "shifted", "windowed", "contrasted", "noisy"):
        assert np.array_equal(plant(picture, kind, 0.0, 5), picture), kind
