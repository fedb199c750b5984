"""The CAD trainings: plan, subsets, chains, stored measurements, and what is left for the
application.
"""

import dataclasses
import shutil

import numpy as np
import pytest

from kit import files, params, paths, record
from kit.data import preprocess, registry
from kit.data.augment import affine
from kit.evaluation import timing
from kit.published import papers
from kit.serving import classifier
from kit.studies.cad import handover, heatmaps, preparation, published_tables, runs, split
from kit.studies.cad import plan as cad_plan
from kit.studies.cad import tables as cad_tables
from kit.training import train


@pytest.fixture(scope="module")
def plan(private_folders):
    return cad_plan.Plan(
        profile="cadtest",
        dataset="phantom4",
        image_size=32,
        large_size=32,
        epochs=1,
        initial="random",
        images=8,
        seventh_images=24,
        bn_momentum=0.9,
        augmenter="fused",
        crop="safe",
    )


@pytest.fixture(scope="module")
def finished(plan):
    return runs.run(plan, "efficientnet_lite0")


def test_the_published_plan_departs_in_nothing_but_its_weights():
    published = cad_plan.Plan(profile="x", dataset="nickparvar", initial="random")
    assert all(cad_plan.notes(published, name) == [] for name in published_tables.MODELS)
    assert [published.size(name) for name in ("resnet50", "nasnetlarge")] == [200, 331]
    assert "random" in cad_plan.stand_in(published, "vgg19")


def test_every_reduction_is_named(plan):
    assert cad_plan.notes(plan, "xception") == [
        "epochs 1 instead of 25",
        "input size 71 instead of 200",
        "trained on 8 images",
        "BatchNorm momentum 0.9",
    ]


def test_networks_that_start_at_random_or_see_few_images_have_their_own_schedule():
    plan = cad_plan.Plan(
        profile="x",
        dataset="phantom4",
        initial="random",
        epochs=9,
        random_epochs=4,
        random_learning_rate=0.01,
        images=16,
        limited_epochs=2,
        whole=("vgg19",),
    )
    assert plan.schedule("vgg19") == (4, 0.01)
    assert plan.schedule("resnet50") == (2, 0.01)
    assert plan.schedule("efficientnet_lite0") == (9, 1e-4)  # its weights come with a package
    assert plan.limit("vgg19") == 0
    assert plan.limit("resnet50") == 16


@pytest.mark.parametrize(
    "wrong",
    [
        {"initial": "best"},
        {"images": -1},
        {"crop": "gentle"},
        {"dropout": 1.0},
        {"validation_fraction": 0.95},
    ],
)
def test_a_bad_plan_is_one_sentence(wrong):
    with pytest.raises(cad_plan.BadPlan, match=next(iter(wrong))):
        cad_plan.Plan(profile="x", dataset="phantom4", **wrong)


@pytest.fixture(scope="module")
def heads(private_folders):
    """Two images a class of phantom4, as a data set of their own."""
    few = registry.index("phantom4").groupby("class_name").head(2).assign(bytes=1)
    root, data = private_folders / "data" / "heads", registry.get("phantom4")
    for image_id in few["image_id"]:
        (root / image_id).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(registry.root("phantom4") / image_id, root / image_id)
    files.write_csv(root / "manifest.csv", few)
    entry = {"title": "Heads", "task": "multiclass", "kind": "images", "layout": data.layout}
    files.write_json(
        root / "dataset.json",
        {
            "name": "heads",
            "embedded": False,
            "incomplete": [],
            "entry": {**entry, "classes": list(data.classes)},
            "fingerprint": record.fingerprint(few),
        },
    )
    return "heads"


def test_the_chains_give_different_pixels_of_the_same_images(plan, heads):
    plan = dataclasses.replace(plan, dataset=heads)
    made = {chain: runs.prepared(plan, 32, chain) for chain in cad_plan.CHAINS}
    assert all(m.x.shape == made["cad"].x.shape for m in made.values())
    path = registry.root(heads) / made["cad"].index["image_id"].iloc[0]
    np.testing.assert_array_equal(made["cad"].x[0], preprocess.cad(path, 32, "safe").image)
    np.testing.assert_array_equal(made["original"].x[0], preprocess.uncropped(path, 32))
    assert not np.array_equal(made["coloured"].x[0], made["original"].x[0])
    with pytest.raises(cad_plan.BadPlan, match="chain"):
        runs.prepared(plan, 32, "sharpened")


def test_a_subset_holds_every_class_and_no_test_image(plan, finished):
    config = finished.config
    assert config["parts"]["train"]["images"] == 24
    assert config["parts"]["test"]["images"] == 120
    labels = registry.index("phantom4").set_index("image_id")["label"]
    parts = split.published_parts("phantom4")
    for count in (4, 5, 40):
        few = runs._subset(plan, parts["train"], count)
        assert len(set(few)) == count
        assert set(labels.loc[few]) == {0, 1, 2, 3}
    assert runs._subset(plan, parts["train"], 0) == parts["train"]


def test_a_short_run_is_not_traced_and_gives_both_sets_of_predictions(finished):
    assert finished.config["graph"] is False
    table = runs.tested(finished)
    assert len(table) == 120
    assert set(table["part"]) == {"test"}
    assert len(runs.tested(finished, "best")) == 120


def test_predictions_on_raw_images_come_from_the_same_weights(plan, finished):
    raw = runs.unprepared(plan, finished, "efficientnet_lite0", "original")
    again = train.predict(
        finished,
        runs.prepared(plan, 32),
        runs.prepared(plan, 32).rows(split.published_parts("phantom4")["test"]),
        "same",
    )
    assert list(raw["image_id"]) == list(again["image_id"])
    np.testing.assert_allclose(again["score_1"], runs.tested(finished)["score_1"], atol=1e-4)
    assert not np.allclose(raw["score_1"], again["score_1"])


def test_a_diverging_network_leaves_the_others_intact(plan, monkeypatch, capsys):
    real = runs.run
    monkeypatch.setattr(
        runs,
        "run",
        lambda p, name, *rest: (
            (_ for _ in ()).throw(train.Diverged("the loss is nan"))
            if name == "vgg19"
            else real(p, name, *rest)
        ),
    )
    assert list(runs.run_all(plan, ["vgg19", "efficientnet_lite0"])) == ["efficientnet_lite0"]
    assert "left out: the loss is nan" in capsys.readouterr().out


def test_speed_is_measured_once(plan, monkeypatch):
    ids = split.published_parts("phantom4")["test"][:2]
    size, times = runs.measure(plan, "mobilenetv2", ids)
    assert size["parameters"] == 2_263_108
    assert size["macs"] > 1e6
    assert [t.protocol for t in times] == ["predict", "compiled", "end to end"]
    monkeypatch.setattr(timing, "all_protocols", lambda *_: pytest.fail("timed again"))
    again = runs.measure(plan, "mobilenetv2", ids)[1]
    np.testing.assert_array_equal(again[0].ms, times[0].ms)


def test_the_model_that_is_left_gives_the_run_s_scores(plan, finished):
    free = split.leak_free_ids("phantom4")
    folder = handover.leave(plan, finished, "efficientnet_lite0", free, images=40)
    card = files.read_json(folder / classifier.CARD)
    assert card["metrics"]["test"]["n"] == 120
    assert card["metrics"]["leak_free"]["n"] == len(free)
    table = runs.tested(finished)
    answer = classifier.Classifier.load(folder).classify(
        (registry.root("phantom4") / table["image_id"][0]).read_bytes(), "x", heat=False
    )
    np.testing.assert_allclose(
        list(answer.probabilities.values()),
        table.loc[0, [f"score_{k}" for k in range(4)]].astype(float),
        atol=1e-4,
    )
    before = (folder / classifier.CARD).stat().st_mtime_ns
    handover.leave(plan, finished, "efficientnet_lite0", free)
    assert (folder / classifier.CARD).stat().st_mtime_ns == before


def test_the_authors_variant_is_the_most_active_channel():
    maps = np.zeros((1, 2, 2, 3), np.float32)
    maps[0, :, :, 1] = [[1, 2], [3, 4]]
    np.testing.assert_array_equal(heatmaps.most_active(maps, None)[0], maps[0, :, :, 1])


def test_shown_errors_are_the_most_confident_ones(finished):
    table = runs.tested(finished)
    confused = heatmaps.confused({"x": table}, 2, 0)["x"]
    at = table.set_index("image_id")
    assert all(
        at.label[i] == 2 and at.loc[i, [f"score_{k}" for k in range(4)]].astype(float).argmax() == 0
        for i in confused
    )
    rows = heatmaps.right_and_wrong(table, 0, 2)
    assert (rows["wrong"]["score"].diff().dropna() <= 0).all()
    assert (rows["right"]["predicted"] == 0).all()
    twins = heatmaps.right_and_wrong(
        table.assign(group=table["label"]), 0, 2
    )  # every class one image, copied
    assert len(twins["wrong"]) == 1
    assert twins["wrong"]["image_id"].iloc[0] == rows["wrong"]["image_id"].iloc[0]


@pytest.mark.slow
def test_two_processes_give_what_one_gives(plan, finished, monkeypatch):
    names, timed = (
        ["mobilenetv2", "vgg19", "efficientnet_lite0"],
        split.published_parts("phantom4")["test"][:1],
    )
    both = runs.run_all(plan, names, timed=timed, processes=2)
    assert list(both) == names
    assert all(run.finished for run in both.values())
    alone = runs.run_all(dataclasses.replace(plan, profile="cadtest-alone"), names[:2])
    for name, run in alone.items():
        assert (run.folder / "predictions.csv").read_bytes() == (
            both[name].folder / "predictions.csv"
        ).read_bytes()
    monkeypatch.setattr(
        runs.backbones, "fine_tuned", lambda *a, **k: pytest.fail("measured already")
    )
    assert all(runs.measure(plan, name, timed)[0]["parameters"] > 1e6 for name in names)
    monkeypatch.setattr(
        runs.processes_module, "running", lambda *a, **k: pytest.fail("nothing is left to share")
    )
    runs.run_all(plan, names, timed=timed, processes=2)


def test_the_paper_profile_is_the_published_recipe_with_three_seeds():
    values = params.resolve(paths.notebooks_dir() / "20_cad_six_models.ipynb", "paper")
    used = {
        "augmentation_rotation_range": values["rotation"],
        "augmentation_width_shift_range": values["width_shift"],
        "augmentation_height_shift_range": values["height_shift"],
        "augmentation_horizontal_flip": values["horizontal_flip"],
        "dropout_rate": values["dropout"],
        "validation_fraction": values["validation_fraction"],
    }
    assert papers.departures(papers.load("cad"), used) == []
    assert values["augmenter"] == "keras_generator"
    assert values["crop"] == "faithful"
    assert values["seeds"] == 3
    assert values["served"] in published_tables.MODELS
    assert values["served"] in values["networks"]
    smoke = params.resolve(paths.notebooks_dir() / "20_cad_six_models.ipynb", "smoke")
    assert smoke["augmenter"] == values["augmenter"]


def test_the_published_generator_trains_and_its_ranges_reach_it(plan, monkeypatch):
    asked = []
    made = affine.keras_generator
    monkeypatch.setattr(affine, "keras_generator", lambda a: asked.append(a) or made(a))
    published = dataclasses.replace(
        plan, augmenter="keras_generator", rotation=7, horizontal_flip=False, seventh_images=8
    )
    run = runs.run(published, "efficientnet_lite0")
    assert run.config["augmenter"] == "keras_generator"
    assert set(asked) == {affine.Augmentation(7, 0.05, 0.05, False)}
    assert np.isfinite(run.history()["loss"]).all()
    assert cad_plan.notes(published, "efficientnet_lite0")[1:3] == [
        "augmentation rotation range 7 instead of 10",
        "augmentation horizontal flip False instead of True",
    ]


def test_the_validation_share_divides_the_training_folder(plan):
    whole = split.published_parts("phantom4")
    half = dataclasses.replace(plan, validation_fraction=0.5).parts()
    assert half["test"] == whole["test"]
    assert sorted(half["train"] + half["val"]) == sorted(whole["train"] + whole["val"])
    assert abs(len(half["train"]) - len(half["val"])) <= 1
    assert len(whole["val"]) == -(-len(whole["train"] + whole["val"]) // 5)


def test_images_that_keep_their_whole_frame_are_counted(plan, heads, private_folders):
    from PIL import Image

    index = registry.index(heads)
    root = registry.root(heads)
    kept = {i: (root / i).read_bytes() for i in index["image_id"][:2]}
    try:
        black, speck = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8)
        speck[10:18, 10:18] = 200
        for image_id, pixels in zip(kept, (black, speck), strict=True):
            (root / image_id).unlink()
            Image.fromarray(pixels).save(root / image_id, "PNG")
        safe = dataclasses.replace(plan, dataset=heads)
        table = preparation.frame_table(safe)
        assert table.loc["all", ["images", "no_outline", "small_crop", "whole_frame"]].tolist() == [
            len(index),
            1,
            1,
            2,
        ]
        row = f"{index['split'][0]}/{index['class_name'][0]}"
        assert table.loc[row, "whole_frame"] == 2
        assert 20 < table.loc["all", "median_share"] < 100
        faithful = preparation.frame_table(dataclasses.replace(safe, crop="faithful"))
        assert faithful.loc["all", "whole_frame"] == 0
        assert faithful.loc["all", "no_outline"] == 1
        with pytest.raises(preprocess.NoHead):
            runs.prepared(dataclasses.replace(safe, crop="faithful"), 40)
    finally:
        for image_id, content in kept.items():
            (root / image_id).write_bytes(content)


def test_seeds_differ_in_training_and_share_the_split(plan, finished):
    found = runs.over_seeds(plan, {"efficientnet_lite0": finished}, 2)["efficientnet_lite0"]
    assert found[0].folder == finished.folder
    assert [run.config["seed"] for run in found] == [0, 1]
    assert found[0].config["parts"] == found[1].config["parts"]
    tables = [runs.tested(run) for run in found]
    table = cad_tables.seed_table({"one": tables[:1], "two": tables}, tables[0]["image_id"][:50])
    scores = [
        100 * (t.filter(like="score_").to_numpy().argmax(1) == t["label"]).mean() for t in tables
    ]
    assert table.loc["two", "mean"] == pytest.approx(np.mean(scores))
    assert table.loc["two", "sd"] == pytest.approx(abs(scores[0] - scores[1]) / np.sqrt(2))
    assert np.isnan(table.loc["one", "sd"])
    assert table["seeds"].tolist() == [1, 2]
    with pytest.raises(cad_plan.BadPlan, match="seeds"):
        runs.over_seeds(plan, {}, 0)
