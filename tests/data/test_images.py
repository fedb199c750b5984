import numpy as np
import pytest
from PIL import Image

from kit import files as files_module
from kit import paths
from kit.data import batches, imageio, images, registry
from kit.data import inputs as data_inputs
from tests.conftest import write_set


def test_images_are_decoded_once_and_rows_follow_the_index(discs):
    inputs = images.load(discs, 24)
    for row in (0, 17, 59):
        picture = Image.open(registry.root(discs) / inputs.index["image_id"].iloc[row])
        assert np.array_equal(inputs.x[row, ..., 0], np.asarray(picture))
    assert inputs.x.dtype == np.uint8
    assert set(inputs.labels) == {0, 1}
    files = sorted((paths.cache_dir() / "decoded").iterdir())
    images.load(discs, 24)
    assert sorted((paths.cache_dir() / "decoded").iterdir()) == files


@pytest.mark.parametrize(
    ("interpolation", "resampling"),
    [("bilinear", Image.Resampling.BILINEAR), ("area", Image.Resampling.BOX)],
)
def test_resizing_is_pillows(discs, interpolation, resampling):
    inputs = images.load(discs, 10, channels=3, interpolation=interpolation)
    picture = (
        Image.open(registry.root(discs) / inputs.index["image_id"].iloc[0])
        .convert("RGB")
        .resize((10, 10), resampling)
    )
    assert inputs.x.shape == (60, 10, 10, 3)
    assert np.array_equal(inputs.x[0], np.asarray(picture))


def test_rows_follow_the_ids_given(discs):
    inputs = images.load(discs, 24)
    ids = inputs.index["image_id"].iloc[[5, 2, 40]]
    assert inputs.rows(ids).tolist() == [5, 2, 40]


def test_a_batch_is_scaled_and_a_plain_array(discs):
    batch = images.load(discs, 24).batch([3, 1])
    assert type(batch) is np.ndarray
    assert batch.dtype == np.float32
    assert batch.min() >= 0
    assert batch.max() <= 1


def test_features_are_cached_by_what_they_depend_on(discs):
    inputs, calls = images.load(discs, 24), []

    def mean(block):
        calls.append(len(block))
        return block.mean((1, 2), keepdims=True)

    first = images.with_features(inputs, {"network": "mean"}, mean)
    again = images.with_features(
        inputs, {"network": "mean"}, lambda block: pytest.fail("computed again")
    )
    assert np.array_equal(first.x, again.x)
    assert first.x.dtype == np.float16
    assert sum(calls) == 61
    assert images.with_features(inputs, {"network": "other"}, mean).facts != first.facts


def test_a_killed_decoding_leaves_no_half_array(private_folders, monkeypatch):
    write_set(private_folders / "data" / "torn", "torn", ("dark", "bright"), 3, 12)
    monkeypatch.setattr(
        imageio, "read_image", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    from kit.data import duplicates

    monkeypatch.setattr(
        duplicates,
        "groups",
        lambda name: registry.index(name).assign(near_group=range(6), twin_group=range(6)),
    )
    with pytest.raises(KeyboardInterrupt):
        images.load("torn", 12)
    assert not list((paths.cache_dir() / "decoded").glob("torn*"))
    assert not list((paths.cache_dir() / "decoded").glob(".tmp*"))


def test_a_damaged_image_is_named(private_folders):
    root = private_folders / "data" / "bad"
    write_set(root, "bad", ("dark", "bright"), 3, 12)
    (root / "dark" / "001.png").write_bytes(b"")
    with pytest.raises(imageio.UnreadableImage, match=r"001\.png"):
        images.load("bad", 12)


def test_an_empty_part_is_refused(discs):
    with pytest.raises(data_inputs.BadSplit, match="'test' holds no image"):
        data_inputs.check_parts(
            images.load(discs, 24), {"train": np.arange(60), "test": np.array([], int)}
        )


def test_targets_are_columns_for_two_classes_and_one_hot_for_more(private_folders, discs):
    write_set(private_folders / "data" / "three", "three", ("a", "b", "c"), 4, 12)
    ((_, y),) = batches.in_order(images.load("three", 12), np.array([0, 5, 11]), 8)
    assert y.numpy().tolist() == np.eye(3).tolist()
    ((_, y),) = batches.in_order(images.load(discs, 24), np.array([0, 59]), 8)
    assert sorted(y.numpy()[:, 0].tolist()) == [0.0, 1.0]
    assert y.shape == (2, 1)


def test_facts_and_caveats_of_a_set(discs, private_folders):
    assert registry.caveats(discs) == []
    file = private_folders / "data" / discs / "dataset.json"
    before = files_module.read_json(file)
    files_module.write_json(
        file, {**before, "incomplete": ["dark/999.png"], "stand_in_for": "br35h"}
    )
    assert registry.caveats(discs) == [
        "discs in place of br35h",
        "incomplete copy, absent: dark/999.png",
    ]
    files_module.write_json(file, before)


def test_prepared_images_are_cached_by_their_tag_and_follow_the_index(discs):
    calls = []

    def colours(path):
        calls.append(path)
        return np.asarray(Image.open(path).convert("RGB").resize((10, 10)))

    first = images.prepared(discs, {"chain": "colours", "version": 1}, colours, 10)
    again = images.prepared(
        discs, {"chain": "colours", "version": 1}, lambda path: pytest.fail("prepared again"), 10
    )
    assert len(calls) == 60
    assert np.array_equal(first.x, again.x)
    assert isinstance(first.x, np.memmap)
    assert first.scale == 1 / 255
    assert first.facts["prepared"] == {"chain": "colours", "version": 1}
    assert first.facts["size"] == 10
    picture = (
        Image.open(registry.root(discs) / first.index["image_id"].iloc[33])
        .convert("RGB")
        .resize((10, 10))
    )
    assert np.array_equal(first.x[33], np.asarray(picture))
    assert "group" in first.index
    other = images.prepared(
        discs, {"chain": "black"}, lambda path: np.zeros((10, 10, 3), np.uint8), 10
    )
    assert other.x.max() == 0
    assert files_module.digest(other.facts) != files_module.digest(first.facts)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((10, 10, 3), np.float32),
        np.zeros((10, 10), np.uint8),
        np.zeros((9, 10, 3), np.uint8),
    ],
)
def test_a_preparation_that_breaks_its_word_is_refused_and_not_cached(discs, wrong):
    tag = {"chain": f"wrong {wrong.shape} {wrong.dtype}"}
    with pytest.raises(images.BadPreparation, match=r"must give uint8 \(10, 10, 3\)"):
        images.prepared(discs, tag, lambda path: wrong, 10)
    assert images.prepared(discs, tag, lambda path: np.ones((10, 10, 3), np.uint8), 10).x.min() == 1


def test_one_bad_image_ends_preparing_early_with_its_own_error(discs):
    def fails(path):
        raise imageio.DamagedImage(f"{path} is damaged")

    with pytest.raises(imageio.DamagedImage, match=r"000\.png is damaged"):
        images.prepared(discs, {"chain": "fails"}, fails, 10)
    assert not list((paths.cache_dir() / "prepared").glob(".tmp*"))


def test_fewer_images_keep_the_proportions_and_every_class():
    labels = np.repeat([0, 1, 2], [60, 30, 3])
    rows = np.arange(2, 93)
    chosen = data_inputs.fewer(labels, rows, 20)
    assert len(chosen) == 20
    assert set(chosen) <= set(rows)
    assert np.all(np.diff(chosen) > 0)
    assert np.bincount(labels[chosen]).tolist() == [13, 6, 1]
    assert chosen[0] == 2
    assert set(labels[data_inputs.fewer(labels, rows, 2)]) == {0, 1, 2}
    assert np.array_equal(data_inputs.fewer(labels, rows[::-1], 0), rows)
    assert np.array_equal(data_inputs.fewer(labels, rows, 500), rows)
