"""Faithfulness: scores of maps whose answer is known beforehand, and their rivals by chance."""

import numpy as np
import pytest

from kit.explain import faithfulness


@pytest.fixture(scope="module")
def scene():
    """Images whose class score is the brightness of one square, the map that marks it, and the
    opposite map.
    """
    rng = np.random.default_rng(0)
    images = rng.random((4, 40, 40, 1), np.float32) * 0.2
    masks = np.zeros((4, 40, 40), bool)
    for i in range(4):
        masks[i, 5 + 5 * i : 13 + 5 * i, 20:28] = True
    images[masks] += 0.8
    return images, masks


def _predict(mask):
    return lambda images: images[:, mask, 0].mean(1)


@pytest.mark.parametrize("baseline", ["blur", "mean"])
def test_a_true_map_deletes_fast_and_inserts_fast(scene, baseline):
    images, masks = scene
    for image, mask in zip(images, masks, strict=True):
        area = {}
        for name, heat in {"true": mask.astype("f4"), "false": (~mask).astype("f4")}.items():
            for insertion in (False, True):
                fractions, scores = faithfulness.deletion_curve(
                    _predict(mask), image, heat, 20, baseline, insertion
                )
                assert fractions[[0, -1]].tolist() == [0, 1]
                assert len(scores) == 21
                intact, removed = scores[[-1, 0]] if insertion else scores[[0, -1]]
                assert intact == pytest.approx(image[mask].mean(), rel=1e-5)
                assert removed < intact
                area[name, insertion] = faithfulness.curve_area(fractions, scores)
        assert area["true", False] < area["false", False] - 0.1
        assert area["true", True] > area["false", True] + 0.1


def test_mean_baseline_curve_by_hand():
    image = np.array([[[1.0], [0.0]], [[0.0], [0.0]]])
    fractions, scores = faithfulness.deletion_curve(
        lambda x: x[:, 0, 0, 0], image, np.array([[0.9, 0.5], [0.2, 0.1]]), 4, "mean"
    )
    assert scores.tolist() == [1, 0.25, 0.25, 0.25, 0.25]
    assert faithfulness.curve_area(fractions, scores) == pytest.approx(
        0.25 * (0.5 + 0.125) + 0.75 * 0.25
    )
    _, scores = faithfulness.deletion_curve(
        lambda x: x[:, 0, 0, 0],
        image,
        np.array([[0.1, 0.5], [0.2, 0.9]]),
        4,
        "mean",
        insertion=True,
    )
    assert scores.tolist() == [0.25, 0.25, 0.25, 0.25, 1]
    with pytest.raises(ValueError, match="blur"):
        faithfulness.deletion_curve(
            lambda x: x[:, 0, 0, 0], image, np.ones((2, 2)), baseline="black"
        )


def test_table_of_faithfulness_beats_random_maps_and_knows_the_class(scene):
    images, masks = scene

    def predict(batch):
        return batch[:, masks.any(0), 0].mean(1, keepdims=True)

    yes = faithfulness.faithfulness(predict, images, masks.astype("f4"), [1, 1, 1, 1])
    assert (yes.deletion < yes.deletion_random).all()
    assert (yes.insertion > yes.insertion_random).all()
    no = faithfulness.faithfulness(predict, images, masks.astype("f4"), [0, 0, 0, 0])
    np.testing.assert_allclose(no, 1 - yes, atol=1e-6)
    softmax = faithfulness.faithfulness(
        lambda x: np.hstack([1 - predict(x), predict(x)]), images, masks.astype("f4"), [1, 1, 0, 0]
    )
    np.testing.assert_allclose(softmax, np.vstack([yes[:2], no[2:]]), atol=1e-6)
    again = faithfulness.faithfulness(predict, images, masks.astype("f4"), [1, 1, 1, 1])
    assert again.equals(yes)


def test_pointing_game_and_energy():
    masks = np.zeros((5, 4, 4), int)
    masks[:4, :2, :2] = 255
    maps = np.zeros((5, 4, 4))
    maps[0, 0, 0], maps[0, 3, 3] = 1, 0.25  # hit, four fifths of the energy
    maps[1, 3, 3], maps[1, 0, 0] = 1, 0.25  # miss
    maps[2, 0, 0], maps[2, 3, 3] = 1, 1  # tie
    maps[4] = 1  # no lesion
    np.testing.assert_allclose(faithfulness.pointing_game(maps, masks), [1, 0, 0.5, 0, np.nan])
    np.testing.assert_allclose(faithfulness.energy_inside(maps, masks), [0.8, 0.2, 0.5, 0, np.nan])
    with pytest.raises(ValueError, match="upsample"):
        faithfulness.pointing_game(maps[:, :2, :2], masks)


def test_localisation_beside_its_rivals(scene):
    _, masks = scene
    table = faithfulness.localisation(masks.astype("f4"), masks)
    assert (table[["pointing", "energy"]] == 1).all(axis=None)
    np.testing.assert_allclose(table.energy_uniform, 64 / 1600)
    centre = np.zeros((1, 40, 40), bool)
    centre[:, 15:25, 15:25] = True
    row = faithfulness.localisation(np.ones((1, 40, 40)), centre).iloc[0]
    assert row.pointing_centre == 1
    assert row.energy_centre > 1.5 * row.energy_uniform
    assert row.energy == row.energy_uniform == row.pointing


def test_random_maps_hit_as_often_as_the_area_says():
    masks = np.zeros((2000, 32, 32), bool)
    masks[:, 8:24, 4:20] = True
    table = faithfulness.localisation(masks, masks, seed=1)
    assert table.pointing_random.mean() == pytest.approx(0.25, abs=0.05)
    assert table.energy_random.mean() == pytest.approx(0.25, abs=0.02)
    maps = faithfulness.random_maps(3, (20, 30), seed=4)
    assert maps.shape == (3, 20, 30)
    assert maps.max((1, 2)).tolist() == [1, 1, 1]
    assert np.array_equal(maps, faithfulness.random_maps(3, (20, 30), seed=4))


def test_maps_are_localised_over_the_outlined_images_only(tmp_path, monkeypatch):
    from types import SimpleNamespace

    import pandas as pd
    from PIL import Image

    from kit.data import registry

    facts = {"title": "T", "task": "binary", "kind": "images", "classes": ["n", "y"]}
    facts |= {"layout": {"all": ""}, "masks": "outlined by hand"}
    monkeypatch.setattr(registry, "_entries", lambda: {"set": facts})
    monkeypatch.setattr(registry.paths, "data_dir", lambda: tmp_path)
    mask = np.zeros((40, 20), np.uint8)
    mask[:20] = 255
    (tmp_path / "set/masks/y").mkdir(parents=True)
    Image.fromarray(mask).save(tmp_path / "set/masks/y/1.png")
    inputs = SimpleNamespace(index=pd.DataFrame({"image_id": ["y/0.jpg", "y/1.jpg", "y/2.jpg"]}))
    model = SimpleNamespace(predict=lambda batch, verbose: batch.mean(axis=(1, 2)))
    images = np.random.default_rng(0).random((3, 10, 10, 1), np.float32)
    maps = np.zeros((3, 10, 10))
    maps[:, 2, 2] = 1.0
    maps[0, 2, 2], maps[0, 8, 8] = 0.0, 1.0
    scores = faithfulness.explanation_scores(model, images, maps, "set", inputs, [0, 1, 2])
    assert scores["outlined"] == 1
    assert scores["pointing"] == 1.0
    assert scores["energy"] == 1.0
    assert scores["energy_uniform"] == pytest.approx(0.5)
    scores = faithfulness.explanation_scores(
        model, images[[0, 2]], maps[[0, 2]], "set", inputs, [0, 2]
    )
    assert scores["outlined"] == 0
    assert "pointing" not in scores
