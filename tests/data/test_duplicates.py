"""Duplicate groups: planted copies are found and nothing else, and the counts known of the public
sets come out.
"""

import hashlib
import time
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import shared_data
from PIL import Image
from scipy.ndimage import gaussian_filter

from kit import files, record
from kit.data import contents, duplicates, imageio, registry
from kit.data.phantom import sets
from kit.studies.audit import tables as audit_tables

TRAIN, TEST = "Training", "Testing"


def picture(seed, size=96):
    """A smooth random grey image, uint8 (size, size)."""
    field = gaussian_filter(np.random.default_rng(seed).normal(size=(size, size)), size / 16)
    return np.uint8(np.interp(field, (field.min(), field.max()), (0, 255)))


def store(root, image_id, pixels, **options):
    """Write an image file, folders included."""
    (root / image_id).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(root / image_id, **options)


def index_of(root):
    """The index of a folder laid out as split/class/file, or class/file."""
    ids = sorted(
        p.relative_to(root).as_posix()
        for p in root.rglob("*.*")
        if p.suffix in {".png", ".jpg"} and ".ipynb" not in str(p)
    )
    split = [{TRAIN: "train", TEST: "test"}.get(i.split("/")[0], "all") for i in ids]
    table = pd.DataFrame(
        {
            "image_id": ids,
            "split": split,
            "class_name": [i.split("/")[-2] for i in ids],
            "sha256": [hashlib.sha256((root / i).read_bytes()).hexdigest() for i in ids],
        }
    )
    return table.assign(label=pd.factorize(table["class_name"], sort=True)[0])


def together(groups, column):
    """The groups of two and more, as sets of image ids."""
    return {frozenset(g) for _, g in groups.groupby(column)["image_id"] if len(g) > 1}


@pytest.fixture
def planted(tmp_path):
    """Thirty different images with one copy of each kind and one label conflict."""
    for seed in range(30):
        store(tmp_path, f"{TRAIN}/{'ab'[seed % 2]}/{seed:02d}.png", picture(seed))
    store(tmp_path, f"{TEST}/a/byte.png", picture(0))
    store(tmp_path, f"{TEST}/a/pixel.png", picture(2), compress_level=1)
    store(tmp_path, f"{TEST}/a/colour.png", np.stack([picture(4)] * 3, -1))
    store(tmp_path, f"{TEST}/a/near.jpg", picture(6), quality=85)
    store(tmp_path, f"{TEST}/a/nearer.jpg", picture(6), quality=95)
    store(tmp_path, f"{TEST}/b/conflict.png", picture(8))
    store(tmp_path, f"{TEST}/b/mirrored.png", picture(1)[:, ::-1].copy())
    store(tmp_path, f"{TEST}/b/new.png", picture(99))
    store(tmp_path, f"{TEST}/b/smaller.png", picture(3)[::2, ::2].copy())
    return tmp_path


def pair(*names):
    return frozenset(f"{TRAIN}/a/{n}" if "/" not in n else n for n in names)


def test_planted_copies_and_nothing_else(planted):
    groups = duplicates.duplicate_groups(index_of(planted), planted)
    byte = {pair("00.png", f"{TEST}/a/byte.png"), pair("08.png", f"{TEST}/b/conflict.png")}
    pixel = byte | {pair("02.png", f"{TEST}/a/pixel.png"), pair("04.png", f"{TEST}/a/colour.png")}
    near = pixel | {
        pair("06.png", f"{TEST}/a/near.jpg", f"{TEST}/a/nearer.jpg"),
        pair(f"{TRAIN}/b/03.png", f"{TEST}/b/smaller.png"),
    }
    assert together(groups, "exact_group") == byte
    assert together(groups, "pixel_group") == pixel
    assert together(groups, "near_group") == near
    assert groups["near_group"].tolist() == pd.factorize(groups["near_group"])[0].tolist()


def test_levels_are_nested_even_for_images_without_contrast(tmp_path):
    store(tmp_path, "a/black.png", np.zeros((40, 40), np.uint8))
    store(tmp_path, "a/black2.png", np.zeros((40, 40), np.uint8), compress_level=0)
    store(tmp_path, "a/grey.png", np.full((40, 40), 90, np.uint8))
    groups = duplicates.duplicate_groups(index_of(tmp_path), tmp_path)
    assert groups["exact_group"].tolist() == [0, 1, 2]
    assert groups["pixel_group"].tolist() == groups["near_group"].tolist() == [0, 0, 1]


def test_copies_of_copies_belong_together():
    step = np.float32(np.arccos(0.9992))
    angles = np.array([0, step, 2 * step, 1.5], np.float32)
    rows = np.stack([np.cos(angles), np.sin(angles)], 1)
    assert rows[0] @ rows[2] < 0.999 < rows[0] @ rows[1]
    assert duplicates._components(4, duplicates._near_pairs(rows, 0.999)).tolist() == [0, 0, 0, 1]


def test_pairs_do_not_depend_on_the_block_size(monkeypatch):
    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    whole = set(zip(*duplicates._near_pairs(rows, 0.9), strict=False))
    monkeypatch.setattr(duplicates, "_BLOCK", 7)
    assert (
        whole
        == set(zip(*duplicates._near_pairs(rows, 0.9), strict=False))
        == {(i, j) for i in range(50) for j in range(i + 1, 50) if rows[i] @ rows[j] > 0.9}
    )
    assert len(whole) > 10


def test_the_short_cut_loses_no_near_pair():
    random = np.random.default_rng(5)
    base = random.normal(size=(40, 1024))
    rows = np.concatenate(
        [base, base + random.normal(size=base.shape) * np.linspace(0, 0.1, 40)[:, None]]
    )
    rows = rows - rows.mean(1, keepdims=True)
    rows = np.float32(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    every = {(i, j) for i, j in zip(*np.nonzero(np.triu(rows @ rows.T > 0.999, 1)), strict=True)}
    assert 10 < len(every) < 40
    assert set(zip(*duplicates._near_pairs(rows, 0.999), strict=True)) == every
    assert (np.linalg.norm(duplicates._projected(rows), axis=1) <= 1 + 1e-6).all()


def test_thumbnail_is_the_cell_average():
    pixels = picture(5, 128)
    cells = pixels.reshape(32, 4, 32, 4).mean((1, 3)).ravel()
    cells -= cells.mean()
    assert contents.thumbnail(pixels) == pytest.approx(cells / np.linalg.norm(cells), abs=1e-6)
    assert np.array_equal(
        contents.thumbnail(np.stack([pixels] * 3, -1)), contents.thumbnail(pixels)
    )
    assert not contents.thumbnail(np.full((9, 9), 7, np.uint8)).any()


def test_empty_set_has_no_groups(tmp_path):
    assert duplicates.duplicate_groups(pd.DataFrame({"image_id": [], "sha256": []}), tmp_path).empty


def test_leak_free_follows_the_level(planted):
    index = index_of(planted)
    groups, test = (
        duplicates.duplicate_groups(index, planted),
        index.loc[index["split"] == "test", "image_id"],
    )
    train = index.loc[index["split"] == "train", "image_id"]
    free = {
        level: {
            i.split("/")[-1] for i in test[duplicates.leak_free(index, groups, train, test, level)]
        }
        for level in duplicates.LEVELS
    }
    assert free["near"] == {"mirrored.png", "new.png"}
    assert free["pixel"] == free["near"] | {"near.jpg", "nearer.jpg", "smaller.png"}
    assert free["byte"] == free["pixel"] | {"pixel.png", "colour.png"}
    assert duplicates.leak_free(index, groups, [], test).all()


def test_unknown_level_and_image_are_refused(planted):
    index = index_of(planted)
    groups = duplicates.duplicate_groups(index, planted)
    with pytest.raises(duplicates.UnknownLevel, match="'close'; choose one of byte, pixel, near"):
        duplicates.leak_free(index, groups, [], index["image_id"], "close")
    with pytest.raises(duplicates.NotAudited, match=r"nowhere\.png has no duplicate group"):
        duplicates.leak_free(index, groups, ["nowhere.png"], index["image_id"])


def test_summary_of_a_divided_set(planted):
    index = index_of(planted)
    tables = audit_tables.summarise(index, duplicates.duplicate_groups(index, planted))
    rows = tables.duplicates.set_index(["level", "class_name"])
    assert rows.loc[("near", "all")].to_dict() == {
        "images": 39,
        "distinct": 32,
        "with_twin": 13,
        "largest": 3,
        "surplus_train": 0,
        "surplus_test": 1,
        "test_in_train": 7,
    }
    assert [rows.loc[(level, "all"), "test_in_train"] for level in duplicates.LEVELS] == [
        2,
        4,
        7,
        8,
    ]
    assert tables.leaky_test.query("level == 'near' and class_name == 'b'")[
        ["test", "leaky", "leak_free"]
    ].values.tolist() == [[4, 2, 2]]
    assert tables.conflicts.query("level == 'byte'")["image_id"].tolist() == [
        f"{TEST}/b/conflict.png",
        f"{TRAIN}/a/08.png",
    ]
    twins = tables.twins.set_index("image_id")
    assert len(twins) == 8
    assert twins.loc[f"{TEST}/b/conflict.png"].tolist() == [
        "b",
        "byte",
        f"{TRAIN}/a/08.png",
        "a",
    ]
    assert twins["level"].value_counts().to_dict() == {"byte": 2, "pixel": 2, "near": 3, "twin": 1}


def test_summary_of_a_set_without_a_split(planted):
    index = index_of(planted / TRAIN).assign(split="all")
    store(planted, f"{TRAIN}/b/again.png", picture(0))
    index = index_of(planted / TRAIN)
    tables = audit_tables.summarise(index, duplicates.duplicate_groups(index, planted / TRAIN))
    assert tables.leaky_test.empty
    assert tables.duplicates["test_in_train"].isna().all()
    assert tables.twins[["image_id", "twin", "level"]].values.tolist() == [
        ["b/again.png", "a/00.png", "byte"]
    ]
    assert tables.duplicates.query("level == 'near' and class_name == 'all'")[
        "distinct"
    ].tolist() == [30]


@pytest.fixture
def registered(planted, monkeypatch):
    """Name of a data set of one's own that holds the planted images."""
    index = index_of(planted)
    entry = {
        "title": "toy",
        "task": "binary",
        "kind": "images",
        "classes": ["a", "b"],
        "layout": {"train": TRAIN, "test": TEST},
    }
    files.write_csv(planted / "manifest.csv", index)
    files.write_json(
        planted / "dataset.json",
        {"fingerprint": record.fingerprint(index), "embedded": False, "entry": entry},
    )
    monkeypatch.setenv("KIT_DATA", str(planted.parent))
    monkeypatch.setenv("KIT_CACHE", str(planted / "cache"))
    return planted.name


def test_groups_are_computed_once(registered, monkeypatch):
    first = duplicates.groups(registered)
    monkeypatch.setattr(duplicates, "duplicate_groups", lambda *a: pytest.fail("computed again"))
    pd.testing.assert_frame_equal(duplicates.groups(registered), first)


def test_another_threshold_is_another_answer(registered):
    assert (
        duplicates.groups(registered, 0.1)["near_group"].nunique()
        < duplicates.groups(registered)["near_group"].nunique()
    )


def test_damaged_image_is_named_and_nothing_is_kept(registered, planted):
    (planted / TRAIN / "a" / "00.png").write_bytes(b"")
    with pytest.raises(imageio.UnreadableImage, match=r"00\.png is empty"):
        duplicates.groups(registered)
    assert not list(planted.glob("cache/**/*.*"))


def test_counts_stand_beside_the_published_ones(registered, monkeypatch):
    toy = registry.get(registered)
    monkeypatch.setattr(
        registry, "get", lambda name: replace(toy, counts={f"{TRAIN}/a": 15, f"{TRAIN}/b": 16})
    )
    found = audit_tables.class_counts(registered)
    assert found[["split", "class_name", "images"]].values.tolist() == [
        ["train", "a", 15],
        ["train", "b", 15],
        ["test", "a", 5],
        ["test", "b", 4],
    ]
    assert found["difference"].tolist() == [0, -1, pd.NA, pd.NA]


def test_volumes_are_grouped_by_their_voxels(balls):
    groups, index = duplicates.groups(balls), registry.index(balls)
    assert not duplicates.leak_free(
        index,
        groups,
        index.loc[index["split"] == "train", "image_id"],
        ["test/000000", "test/000001"],
    )[0]
    assert (groups["exact_group"] == groups["pixel_group"]).all()
    assert together(groups, "pixel_group") == {frozenset({"test/000000", "train/000003"})}


@pytest.mark.parametrize("name", ["phantom4", "phantom-binary"])
def test_planted_copies_of_the_embedded_sets(name, tmp_path):
    sets.write(name, tmp_path, n=240, size=96)
    index, planted = (
        pd.read_csv(tmp_path / "manifest.csv"),
        files.read_json(tmp_path / "dataset.json")["planted"],
    )
    groups, sources = duplicates.duplicate_groups(index, tmp_path), {}
    for level in ("byte", "pixel", "near"):
        for source, copy in planted[level]:
            sources.setdefault(source, {source}).add(copy)
        expected = {frozenset(group) for group in sources.values()}
        assert planted[level]
        assert together(groups, duplicates.COLUMN[level]) == expected
    assert together(groups, "twin_group") == expected  # no other copies are planted


def unpacked(archive, folder):
    """A real archive, laid out below `folder`."""
    if shared_data() is None:
        pytest.skip("the real archives are not beside this checkout")
    with zipfile.ZipFile(shared_data() / archive) as content:
        content.extractall(folder)
    return folder


@pytest.mark.real
def test_sartaj_known_answer(tmp_path):
    root = unpacked("brain-tumor-classification-mri.zip", tmp_path)
    index = index_of(root)
    groups = duplicates.duplicate_groups(index, root, level="near")
    tables = audit_tables.summarise(index, groups)
    rows = tables.leaky_test.set_index(["level", "class_name"])
    assert rows.loc[("byte", "all"), ["test", "leaky"]].tolist() == [394, 88]
    assert rows.loc[("byte", "no_tumor"), ["test", "leaky"]].tolist() == [105, 88]
    assert rows.loc[("pixel", "all"), ["test", "leaky"]].tolist() == [394, 251]
    counts = tables.duplicates.set_index(["level", "class_name"])
    assert counts.loc[("byte", "all"), ["images", "distinct"]].tolist() == [3264, 3027]


@pytest.fixture(scope="module")
def nickparvar(tmp_path_factory):
    """The 224 px copy of the 7,023-image set: root, index, groups and the seconds that the groups
    took.
    """
    root = unpacked("brain-tumor-mri-dataset-224px.zip", tmp_path_factory.mktemp("nickparvar"))
    index = index_of(root)
    start = time.perf_counter()
    groups = duplicates.duplicate_groups(index, root, level="near")
    return root, index, groups, time.perf_counter() - start


@pytest.mark.real
def test_7023_image_set_known_answer(nickparvar):
    _, index, groups, seconds = nickparvar
    assert len(index) == 7019
    assert seconds < 60
    tables = audit_tables.summarise(index, groups)
    leaky = tables.leaky_test.pivot(index="class_name", columns="level", values="leaky")
    known = {"glioma": 0, "meningioma": 106, "notumor": 105, "pituitary": 5, "all": 216}
    assert leaky["byte"].to_dict() == leaky["pixel"].to_dict() == known
    assert leaky["near"].to_dict() == {
        "glioma": 0,
        "meningioma": 109,
        "notumor": 352,
        "pituitary": 5,
        "all": 466,
    }
    counts = tables.duplicates.set_index(["level", "class_name"]).loc[("byte", "all")]
    assert (counts["surplus_train"], counts["surplus_test"], len(tables.conflicts)) == (207, 30, 0)


@pytest.mark.real
def test_br35h_negatives_known_answer(nickparvar):
    """The negatives of Br35H, counted by other code: 1,496 negatives, 1,495 unique files, 1,111
    with a near-twin, 739 groups, the largest of 10.
    """
    root, index, _, _ = nickparvar
    number = index["image_id"].str.extract(r"-no_(\d+)\.")[0].astype(float)
    block = index[
        (number.between(395, 1594) & (index["split"] == "train"))
        | (number.between(105, 404) & (index["split"] == "test"))
    ]
    counts = audit_tables.summarise(
        block.assign(split="all"), duplicates.duplicate_groups(block, root, level="near")
    ).duplicates.set_index(["level", "class_name"])
    assert counts.loc[("near", "all"), ["images", "with_twin", "distinct", "largest"]].tolist() == [
        1496,
        1111,
        739,
        10,
    ]
    assert counts.loc[("byte", "all"), "distinct"] == 1495
