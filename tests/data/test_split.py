"""Frozen splits: sizes, reproducibility, duplicate groups on one side, and files that are refused
when they do not fit.
"""

import hashlib
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from kit import files
from kit.data import duplicates, registry, split, three_parts
from kit.studies.cad import split as cad_split


@pytest.fixture
def index():
    """3,000 images, half of each label, like Br35H."""
    return pd.DataFrame(
        {
            "image_id": [f"{c}/{i:04d}.png" for c in ("no", "yes") for i in range(1500)],
            "split": "all",
            "label": np.repeat([0, 1], 1500),
            "class_name": np.repeat(["no", "yes"], 1500),
        }
    )


@pytest.fixture
def groups(index):
    """Groups of one to ten images, never across the labels."""
    random = np.random.default_rng(3)
    codes = np.concatenate(
        [
            np.repeat(np.arange(2000), random.integers(1, 11, 2000))[:1500] + start
            for start in (0, 5000)
        ]
    )
    return pd.DataFrame(
        {
            "image_id": index["image_id"],
            "exact_group": np.arange(3000),
            "pixel_group": np.arange(3000),
            "near_group": codes,
            "twin_group": codes,
        }
    )


@pytest.fixture
def registered(index, groups, monkeypatch):
    """The registry and the audit as they answer for that data set."""
    monkeypatch.setattr(registry, "index", lambda name: index)
    monkeypatch.setattr(registry, "facts", lambda name: {"fingerprint": "f" * 64})
    monkeypatch.setattr(duplicates, "groups", lambda name: groups)
    return "toy"


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_holdout_has_the_size_and_divides_the_images(index, groups, stratified, grouped):
    train, test = split.holdout(
        index, groups, test_size=600, seed=0, stratified=stratified, grouped=grouped
    )
    assert (len(train), len(test)) == (2400, 600)
    assert sorted(train + test) == sorted(index["image_id"])
    assert (train, test) == split.holdout(
        index, groups, test_size=600, seed=0, stratified=stratified, grouped=grouped
    )
    assert (
        test
        != split.holdout(
            index, groups, test_size=600, seed=1, stratified=stratified, grouped=grouped
        )[1]
    )
    assert (sum(i.startswith("yes") for i in test) == 300) >= stratified
    assert duplicates.leak_free(index, groups, train, test).all() == grouped


def test_unstratified_holdout_hits_297_positives_as_often_as_the_hypergeometric_law_says(index):
    counts = Counter(
        sum(i.startswith("yes") for i in split.holdout(index, test_size=600, seed=seed)[1])
        for seed in range(400)
    )
    assert counts[297] / 400 == pytest.approx(0.035, abs=0.03)
    assert len(counts) > 20


def test_fraction_is_rounded_up_as_scikit_learn_does(index):
    assert len(split.holdout(index.iloc[: 5712 // 2], test_size=0.2)[1]) == 572


def test_a_group_that_is_too_large_is_passed_over(index):
    one = pd.DataFrame(
        {
            "image_id": index["image_id"],
            "exact_group": 0,
            "pixel_group": 0,
            "near_group": 0,
            "twin_group": 0,
        }
    )
    with pytest.raises(split.ImpossibleSplit, match="fits into a test part"):
        split.holdout(index, one, test_size=600, grouped=True)


@pytest.mark.parametrize("size", [0, 3000, 4000])
def test_impossible_sizes_are_refused(index, size):
    with pytest.raises(split.ImpossibleSplit, match="out of 3000"):
        split.holdout(index, test_size=size)


def test_grouped_without_groups_is_refused(index):
    with pytest.raises(split.ImpossibleSplit, match="duplicate groups"):
        split.holdout(index, test_size=600, grouped=True)


def test_kfold_validates_each_image_once_and_is_seeded(index):
    ids = index["image_id"].tolist()[:2400]
    folds = split.kfold(ids, 3, seed=0)
    assert [len(v) for _, v in folds] == [800, 800, 800]
    assert sorted(i for _, v in folds for i in v) == sorted(ids)
    assert all(not set(t) & set(v) and len(t) + len(v) == 2400 for t, v in folds)
    assert folds == split.kfold(ids, 3, seed=0) != split.kfold(ids, 3, seed=1)


def test_stratified_folds_keep_the_proportions(index):
    folds = split.kfold(index["image_id"], 3, 0, labels=index["label"])
    assert [sum(i.startswith("yes") for i in v) for _, v in folds] == [500, 500, 500]


@pytest.mark.parametrize("stratified", [False, True])
def test_grouped_folds_keep_copies_together(index, groups, stratified):
    folds = split.kfold(
        index["image_id"], 3, 0, index["label"] if stratified else None, groups["near_group"]
    )
    for train, validation in folds:
        assert duplicates.leak_free(index, groups, train, validation).all()
        assert abs(len(validation) - 1000) < 60


def test_too_many_folds_are_refused(index):
    with pytest.raises(split.ImpossibleSplit, match="cannot be drawn"):
        split.kfold(index["image_id"][:2], 3, 0)


@pytest.mark.parametrize("grouped", [False, True])
def test_saved_split_comes_back_and_checks_itself(registered, tmp_path, grouped):
    made = split.holdout_and_folds(registered, 600, 3, seed=0, grouped=grouped)
    split.save(tmp_path / "s.json", made)
    assert split.load(tmp_path / "s.json") == made
    assert list(made.parts) == ["fold1", "fold2", "fold3", "test"]
    assert len(made.development) == 2400
    assert all(len(train) + len(validation) == 2400 for train, validation in made.folds())


def broken(made, **change):
    return split.Split(**{**made.__dict__, **change})


def test_split_of_other_data_is_refused(registered, tmp_path):
    made = split.holdout_and_folds(registered, 600, 3, seed=0)
    split.save(tmp_path / "s.json", broken(made, fingerprint="0" * 64))
    with pytest.raises(split.SplitMismatch, match="another version of toy"):
        split.load(tmp_path / "s.json")


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        (["no/9999.png"], "no/9999.png, which is not in toy"),
        (["no/0000.png"], "holds no/0000.png twice"),
    ],
)
def test_unknown_and_repeated_ids_are_refused(registered, tmp_path, part, sentence):
    made = split.holdout_and_folds(registered, 600, 3, seed=0)
    split.save(tmp_path / "s.json", broken(made, parts={**made.parts, "more": part}))
    with pytest.raises(split.SplitMismatch, match=sentence):
        split.load(tmp_path / "s.json")


@pytest.mark.parametrize(
    "content",
    [
        '{"data": "toy"}',
        "[]",
        '{"data": "toy", "fingerprint": "f", "protocol": "", "seed": 0, "parts": 3}',
    ],
)
def test_other_json_is_refused(registered, tmp_path, content):
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(split.SplitMismatch, match="no split file"):
        split.load(tmp_path / "s.json")


def test_half_a_file_is_refused(registered, tmp_path):
    (tmp_path / "s.json").write_text('{"data": "to')
    with pytest.raises(files.DamagedRecord):
        split.load(tmp_path / "s.json")


def test_broken_promise_is_refused(registered, tmp_path, groups):
    made = broken(split.holdout_and_folds(registered, 600, 3, seed=0), level="near")
    split.save(tmp_path / "s.json", made)
    with pytest.raises(split.GroupOnBothSides, match="near duplicate of"):
        split.load(tmp_path / "s.json")
    split.check(made, groups, "byte")


def test_class_without_images_is_refused(registered, index):
    made = split.Split(
        registered,
        "f" * 64,
        "",
        0,
        {"train": ["no/0000.png", "yes/0000.png"], "test": ["no/0001.png"]},
    )
    with pytest.raises(split.ClassMissing, match="test holds no image of class yes"):
        split.check_classes(made, index)


def cad_names(letters, count):
    """File names of one class of the 7,023-image set's training folder."""
    return [
        f"Tr-{letters}Tr_{i:04d}.jpg" if i < 10 else f"Tr-{letters}_{i:04d}.jpg"
        for i in range(count)
    ]


def test_cad_split_equals_the_published_one():
    """Positions, names and counts of the CAD paper's split (Table 2), from the authors' code."""
    counts = {"glioma": 1321, "meningioma": 1339, "notumor": 1595, "pituitary": 1457}
    rows = [
        (f"Training/{c}/{f}", label)
        for label, (c, n) in enumerate(counts.items())
        for f in cad_names(c[:2], n)
    ]
    index = pd.DataFrame(rows, columns=["image_id", "label"])
    parts = cad_split.cad_split(index.sample(frac=1, random_state=0))
    position = {image_id: i for i, (image_id, _) in enumerate(rows)}
    at = {name: np.array([position[i] for i in ids], "<i8") for name, ids in parts.items()}
    assert (
        hashlib.sha1(at["train"].tobytes()).hexdigest()
        == "76096695128a97c8c6da3d88cecebe0b34f1b047"
    )
    assert (
        hashlib.sha1(at["val"].tobytes()).hexdigest() == "c26ec6b2f6ee59d49d193839b93c48c232af13ce"
    )
    labels = index["label"].to_numpy()
    assert np.bincount(labels[at["train"]]).tolist() == [1060, 1072, 1279, 1158]
    assert np.bincount(labels[at["val"]]).tolist() == [261, 267, 316, 299]
    names = {part: [i.rsplit("/")[-1][:-4] for i in ids] for part, ids in parts.items()}
    assert names["train"][:5] == [
        "Tr-pi_0196",
        "Tr-gl_1240",
        "Tr-gl_0805",
        "Tr-pi_1291",
        "Tr-meTr_0002",
    ]
    assert {"Tr-no_0191", "Tr-no_0235", "Tr-no_0279"} <= set(names["val"])
    assert "Tr-no_0358" in names["train"]


# --- training, validation, test of the thesis -----------------------------------------------------

# Images a class -> (train, valid, test) of the thesis' Table 3.2: Sign Language Digits, KVASIR-v2,
# ISIC-2019
TABLE_3_2 = {
    205: (123, 41, 41),
    206: (124, 41, 41),
    207: (124, 42, 41),
    208: (125, 42, 41),
    204: (122, 41, 41),
    1000: (600, 200, 200),
    867: (520, 174, 173),
    3323: (1994, 664, 665),
    2624: (1574, 525, 525),
    239: (143, 48, 48),
    4522: (2713, 904, 905),
    12875: (7725, 2575, 2575),
    628: (377, 126, 125),
    253: (152, 51, 50),
}
# BreaKHis: the thesis' counts come out if each class folder held one more file that is no image and
# that one of the parts then lost
BREAKHIS = {
    443: (266, 89, 88),
    3451: (2070, 690, 691),
    1014: (608, 203, 203),
    626: (376, 126, 124),
    792: (475, 158, 159),
    560: (337, 112, 111),
    453: (271, 91, 91),
    570: (342, 114, 114),
}


def test_three_way_counts_are_those_of_table_3_2():
    assert {n: three_parts.three_way_counts(n) for n in TABLE_3_2} == TABLE_3_2
    digits = [
        three_parts.three_way_counts(n) for n in (205, 206, 206, 206, 207, 207, 207, 206, 208, 204)
    ]
    assert np.sum(digits, axis=0).tolist() == [1238, 414, 410]
    for published in BREAKHIS.values():
        with_a_stray_file = three_parts.three_way_counts(sum(published) + 1)
        assert sorted(np.subtract(with_a_stray_file, published)) == [0, 0, 1]


@pytest.fixture
def uneven():
    """867, 253 and 12 images of three classes."""
    counts = (867, 253, 12)
    return pd.DataFrame(
        {
            "image_id": [f"{c}/{i:04d}.png" for c, n in enumerate(counts) for i in range(n)],
            "label": np.repeat([0, 1, 2], counts),
        }
    )


def test_three_way_is_stratified_disjoint_and_seeded(uneven):
    parts = three_parts.three_way(uneven, seed=4)
    assert sorted(parts["train"] + parts["val"] + parts["test"]) == sorted(uneven["image_id"])
    counts = {name: Counter(i[0] for i in ids) for name, ids in parts.items()}
    assert [tuple(counts[name][c] for name in ("train", "val", "test")) for c in "012"] == [
        (520, 174, 173),
        (152, 51, 50),
        three_parts.three_way_counts(12),
    ]
    assert (
        parts
        == three_parts.three_way(uneven.sample(frac=1, random_state=1), seed=4)
        != three_parts.three_way(uneven, seed=5)
    )


def test_three_way_draws_every_image_as_often_as_another(uneven):
    one = uneven[uneven["label"] == 2]
    hits = Counter(i for seed in range(300) for i in three_parts.three_way(one, seed)["test"])
    share = three_parts.three_way_counts(12)[2] / 12
    assert all(
        abs(hits[i] / 300 - share) < 4.5 * np.sqrt(share * (1 - share) / 300)
        for i in one["image_id"]
    )


def test_three_way_keeps_groups_whole_and_sizes_near(index, groups):
    parts = three_parts.three_way(index, 0, groups=groups)
    home = {
        group: name for name, ids in parts.items() for group in duplicates.group_of(groups, ids)
    }
    assert all(
        home[group] == name
        for name, ids in parts.items()
        for group in duplicates.group_of(groups, ids)
    )
    assert sorted(i for ids in parts.values() for i in ids) == sorted(index["image_id"])
    for label in ("no", "yes"):
        assert [sum(i.startswith(label) for i in ids) for ids in parts.values()] == pytest.approx(
            [900, 300, 300], abs=10
        )
    assert parts != three_parts.three_way(index, 1, groups=groups)


@pytest.mark.parametrize(
    ("fractions", "images", "sentence"),
    [
        ((0.6, 0.2, 0.3), 100, "do not divide"),
        ((0.8, 0.2, 0.0), 100, "do not divide"),
        ((0.6, 0.2, 0.2), 2, "too few for three parts"),
    ],
)
def test_three_way_refuses_what_cannot_be_divided(fractions, images, sentence):
    index = pd.DataFrame({"image_id": [f"{i}.png" for i in range(images)], "label": 0})
    with pytest.raises(split.ImpossibleSplit, match=sentence):
        three_parts.three_way(index, 0, fractions)


def test_three_way_refuses_a_class_of_one_group(index):
    one = pd.DataFrame(
        {
            "image_id": index["image_id"],
            "exact_group": 0,
            "pixel_group": 0,
            "near_group": (index["label"] == 0).astype(int),
            "twin_group": (index["label"] == 0).astype(int),
        }
    )
    with pytest.raises(split.ImpossibleSplit, match="too few groups"):
        three_parts.three_way(index, 0, groups=one)


@pytest.mark.parametrize("grouped", [False, True])
def test_three_way_split_is_stored_and_checked(registered, tmp_path, grouped):
    made = three_parts.three_way_split(registered, seed=2, grouped=grouped)
    assert list(made.parts) == ["train", "val", "test"]
    assert made.level == ("twin" if grouped else None)
    assert "60% / 20% / 20%" in made.protocol
    split.save(tmp_path / "s.json", made)
    assert split.load(tmp_path / "s.json") == made
