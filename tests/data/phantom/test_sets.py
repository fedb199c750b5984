"""The embedded data sets: the same bytes every time, the layout that the registry reads, and no
class in anything but the lesion.
"""

import hashlib

import numpy as np
import pandas as pd
import pytest
import threadpoolctl
from PIL import Image

from kit import files, record
from kit.data import duplicates, registry
from kit.data.phantom import anatomy, sets
from kit.data.phantom import images as phantom_images
from kit.studies.audit import side_channels

# percentage points above chance, about 3.7 standard deviations of the accuracy on 200 images of 4
# classes
TOLERANCE = 12


def contents(root):
    """Relative path -> bytes of every file."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """phantom4 in small: 200 images of 48 px."""
    root = tmp_path_factory.mktemp("sets") / "phantom4"
    sets.write("phantom4", root, n=200, size=48)
    return root


@pytest.fixture
def registered(four, monkeypatch):
    monkeypatch.setenv("KIT_DATA", str(four.parent))
    monkeypatch.setenv("KIT_CACHE", str(four.parent / ".cache"))
    return "phantom4"


def original(four):
    """Index of the images that are no copies."""
    copies = {
        copy
        for pairs in files.read_json(four / "dataset.json")["planted"].values()
        for _, copy in pairs
    }
    index = pd.read_csv(four / "manifest.csv")
    return index[~index["image_id"].isin(copies)]


@pytest.mark.parametrize("name", ["phantom-binary", "phantom3d"])
def test_the_same_seed_gives_the_same_bytes_whatever_the_threads(name, tmp_path):
    for folder, workers, seed in (("a", 1, 0), ("b", 2, 0), ("c", 2, 1)):
        sets.write(
            name,
            tmp_path / folder,
            n=16,
            size=16 if name == "phantom3d" else 32,
            seed=seed,
            workers=workers,
        )
    a, b, c = (contents(tmp_path / folder) for folder in "abc")
    assert a == b
    assert "dataset.json" in a
    pictures = [file for file in a if file.endswith((".jpg", ".npz")) and "mask" not in file]
    assert pictures
    assert all(a[file] != c[file] for file in pictures)


def test_no_bit_depends_on_the_threads_of_the_linear_algebra():
    with threadpoolctl.threadpool_limits(1):
        alone = sets.slice_image(3, "glioma_high", size=128)[0]
    with threadpoolctl.threadpool_limits(2):
        assert np.array_equal(alone, sets.slice_image(3, "glioma_high", size=128)[0])


def test_the_registry_reads_what_was_written(four, registered):
    index, facts = registry.index(registered), registry.facts(registered)
    assert tuple(registry.get(registered).classes) == sets.VARIANTS["phantom4"].classes
    assert index["split"].value_counts().to_dict() == {"train": 152, "test": 48}
    assert (index["image_id"].str.split("/").str[1] == index["class_name"]).all()
    assert facts["fingerprint"] == record.fingerprint(index)
    assert facts["embedded"]
    assert facts["incomplete"] == []
    assert facts["counts"]["Testing/pituitary"] == 12
    assert sum(facts["counts"].values()) == len(index)
    for row in pd.read_csv(four / "manifest.csv").itertuples():
        content = (four / row.image_id).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (row.sha256, row.bytes)
        with Image.open(four / row.image_id) as image:
            assert (image.size, image.mode) == ((48, 48), "L")


def test_every_image_with_a_tumour_has_a_mask_and_no_other(four):
    for row in pd.read_csv(four / "manifest.csv").itertuples():
        mask = np.asarray(Image.open(sets.mask_path(four, row.image_id)))
        assert mask.shape == (48, 48)
        assert set(np.unique(mask)) <= {0, 255}
        assert (mask > 0).any() == (row.class_name != "notumor"), row.image_id


def test_planted_copies_are_what_they_are_said_to_be(four):
    planted, index = (
        files.read_json(four / "dataset.json")["planted"],
        pd.read_csv(four / "manifest.csv", index_col="image_id"),
    )
    assert {relation: len(pairs) for relation, pairs in planted.items()} == {
        "byte": 4,
        "pixel": 4,
        "near": 4,
    }
    for relation, pairs in planted.items():
        for source, copy in pairs:
            assert (index.loc[source, "split"], index.loc[copy, "split"]) == (
                "train",
                "test",
            )
            assert index.loc[source, "label"] == index.loc[copy, "label"]
            assert (index.loc[source, "sha256"] == index.loc[copy, "sha256"]) == (
                relation == "byte"
            )
            a, b = (np.asarray(Image.open(four / file), float) for file in (source, copy))
            assert np.array_equal(a, b) == (relation != "near")
            assert np.abs(a - b).mean() < 10
            assert (
                sets.mask_path(four, source).read_bytes() == sets.mask_path(four, copy).read_bytes()
            )


def test_every_class_has_the_same_mixture_of_planes_and_contrasts(four):
    table = original(four).merge(pd.read_csv(four / "nuisance.csv"), on="image_id")
    for split, rows in table.groupby("split"):
        mixtures = pd.crosstab(
            rows["class_name"], [rows["orientation"], rows["contrast"], rows["region"]]
        )
        assert (mixtures.nunique() == 1).all(), split


def test_side_channels_stay_near_chance(registered):
    found = side_channels.check(registered).set_index("channel")
    assert found.loc["what the generator drew", "n"] == 200
    assert (found["chance"] == 25).all()
    assert (found["accuracy"] < 25 + TOLERANCE).all(), found["accuracy"]


def test_the_audit_finds_the_copies_that_were_planted(registered):
    groups = duplicates.groups(registered)
    assert [groups[duplicates.COLUMN[level]].nunique() for level in ("byte", "pixel")] == [
        196,
        192,
    ]  # 200 images, 4 copies of each kind


def test_an_interrupted_generation_is_not_taken_for_a_set_and_is_redone(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    sets.write("phantom8", tmp_path / "whole", n=40, size=32)
    with monkeypatch.context() as patch:
        patch.setattr(sets, "_plant", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sets.write("phantom8", tmp_path / "broken", n=40, size=32)
    assert any((tmp_path / "broken").rglob("*.jpg"))
    assert not (tmp_path / "broken" / "dataset.json").exists()
    sets.write("phantom8", tmp_path / "broken", n=40, size=32)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_a_full_disk_is_told_in_a_sentence(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sets, "_row", full)
    with pytest.raises(files.CannotWrite, match=r"No space left.*KIT_DATA"):
        sets.write("digits", tmp_path)
    assert not (tmp_path / "dataset.json").exists()


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.docx").write_text("mine")
    with pytest.raises(sets.FolderNotEmpty, match="choose an empty folder"):
        sets.write("phantom4", tmp_path, n=8, size=32)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]


def test_unknown_names_list_the_known_ones(tmp_path):
    with pytest.raises(sets.UnknownPhantom, match=r"'phantom5'.*phantom4"):
        sets.write("phantom5", tmp_path)
    with pytest.raises(sets.UnknownPhantom, match=r"'astrocytoma'.*glioma"):
        sets.slice_image(0, "astrocytoma", size=32)


def test_phantom8_is_imbalanced(tmp_path):
    sets.write("phantom8", tmp_path, n=100, size=32)
    sizes = pd.read_csv(tmp_path / "manifest.csv")["class_name"].value_counts()
    assert sizes.to_dict() == {
        "normal": 25,
        "glioma_high": 20,
        "glioma_low": 15,
        "metastases": 12,
        "meningioma_solid": 10,
        "meningioma_calcified": 8,
        "adenoma_solid": 6,
        "adenoma_cystic": 4,
    }
    assert all(len([*(tmp_path / name).iterdir()]) == count for name, count in sizes.items())


def test_phantom3d_is_laid_out_like_medmnist(tmp_path):
    sets.write("phantom3d", tmp_path, n=16)
    images, masks = np.load(tmp_path / "phantom3d.npz"), np.load(tmp_path / "phantom3d_masks.npz")
    index = pd.read_csv(tmp_path / "manifest.csv")
    for split, count in {
        "train": 10,
        "val": 4,
        "test": 4,
    }.items():  # 320, 80 and 100 of 500, two of a class at least
        volumes, labels, lesions = (
            images[f"{split}_images"],
            images[f"{split}_labels"],
            masks[f"{split}_masks"],
        )
        assert volumes.dtype == np.uint8
        assert volumes.shape == lesions.shape == (count, 28, 28, 28)
        assert lesions.dtype == bool
        assert labels.shape == (count, 1)
        assert labels.mean() == 0.5
        assert (lesions.any(axis=(1, 2, 3)) == labels[:, 0]).all()
        assert index.loc[index["split"] == split, "label"].tolist() == labels[:, 0].tolist()
        assert [hashlib.sha256(v.tobytes()).hexdigest() for v in volumes] == index.loc[
            index["split"] == split, "sha256"
        ].tolist()


def test_slices_of_one_seed_show_the_same_head_whatever_the_class():
    control, empty, nuisance = sets.slice_image([1, 2], "notumor", size=64)
    assert control.dtype == np.uint8
    assert control.shape == (64, 64)
    assert not empty.any()
    for name in ("glioma", "meningioma", "pituitary"):
        image, mask, other = sets.slice_image([1, 2], name, size=64)
        assert other == nuisance
        assert mask.any()
        assert np.corrcoef(image[~mask].astype(float), control[~mask].astype(float))[0, 1] > 0.8
        assert abs(image.mean() - control.mean()) < 4
        assert abs(image.std() - control.std()) < 6


def test_a_tumour_changes_where_grey_values_lie_and_hardly_which_there_are(monkeypatch):
    def distance():
        pairs = [
            (sets.slice_image([seed], name, size=64)[0], sets.slice_image([seed], "no", size=64)[0])
            for seed in range(4)
            for name in ("meningioma_solid", "adenoma_solid")
        ]
        return np.mean(
            [np.abs(np.sort(a.ravel()).astype(float) - np.sort(b.ravel())).mean() for a, b in pairs]
        )

    matched = distance()
    monkeypatch.setattr(phantom_images, "MATCHED", 0.0)
    assert matched < 0.7 * distance()


def test_the_sella_stays_in_its_place_and_slices_cut_it():
    for seed in range(6):
        nuisance = phantom_images.draw_nuisance(np.random.default_rng(seed))
        points = phantom_images.slice_points(nuisance, 96, [seed])
        nearest = np.linalg.norm(points - np.array(anatomy.SELLA)[:, None], axis=0).min()
        assert nearest < abs(nuisance.position) * 1.1 + nuisance.fov / 96


def test_matching_keeps_the_order_and_brings_the_histogram_near(monkeypatch):
    rng = np.random.default_rng(0)
    control = rng.gamma(2, 0.2, 4000).astype(np.float32)
    signal = np.concatenate([control[:3500], rng.normal(1.5, 0.1, 500)]).astype(np.float32)

    def distance(values):
        return np.abs(np.sort(values) - np.sort(control)).mean()

    matched = phantom_images._matched(signal, control)
    assert (np.diff(matched[np.argsort(signal, kind="stable")]) >= 0).all()
    assert distance(matched) < 0.25 * distance(signal)
    monkeypatch.setattr(phantom_images, "MATCHED", 1.0)
    assert distance(phantom_images._matched(signal, control)) < 0.01
    monkeypatch.setattr(phantom_images, "MATCHED", 0.0)
    assert np.allclose(phantom_images._matched(signal, control), signal, atol=1e-6)
