"""Br35H as its author publishes it: outlined tumours become masks, copies are recognised, and the
set can be had from the repository or from Kaggle.
"""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import __main__ as command
from data_prep import fetch, ingest, regions, verify
from kit.data import registry

WRAP = "Brain-Tumor-Detection-Dataset-b614673f/"
FACTS = {
    "title": "Tiny",
    "task": "binary",
    "kind": "images",
    "classes": ("no", "yes"),
    "display": ("no", "yes"),
    "layout": {"all": ""},
    "counts": {"no": 3, "yes": 3},
    "masks": "outlined",
    "source": {
        "regions": {"file": "annotations_all.json", "class": "yes", "copies": "Mask-RCNN"},
        "files": [{"file": "own.zip", "url": "http://127.0.0.1:9/own.zip"}],
        "kaggle": "o/d/versions/7",
    },
}
TINY = registry.DataSet(name="tiny", **FACTS)


def picture(seed, kind="JPEG", size=(40, 30)):
    stream = io.BytesIO()
    values = np.random.default_rng(seed).integers(0, 256, size[::-1], dtype=np.uint8)
    Image.fromarray(values).save(stream, kind)
    return stream.getvalue()


def outlines(files):
    shapes = {
        "y0.jpg": [
            {"name": "polygon", "all_points_x": [5, 20, 20, 5], "all_points_y": [3, 3, 9, 9]}
        ],
        "y1.jpg": [
            {"name": "circle", "cx": 10, "cy": 10, "r": 4},
            {"name": "ellipse", "cx": 30, "cy": 20, "rx": 8, "ry": 2, "theta": np.pi / 2},
        ],
    }
    return {
        name + str(len(files[f"yes/{name}"])): {
            "filename": name,
            "size": len(files[f"yes/{name}"]),
            "regions": [{"shape_attributes": shape, "region_attributes": {}} for shape in own],
            "file_attributes": {},
        }
        for name, own in shapes.items()
    }


def published(top=WRAP, change=lambda files: None):
    """Files of a repository laid out as the author's: two files of class no are one image, one
    .jpg is a PNG, and the outlined images lie there once more."""
    files = {f"yes/y{i}.jpg": picture(i) for i in range(3)}
    files |= {"no/no0.jpg": picture(7), "no/no1.jpg": picture(7), "no/No2.jpg": picture(8, "PNG")}
    files["Mask-RCNN/annotations_all.json"] = json.dumps(outlines(files)).encode()
    files |= {f"Mask-RCNN/TRAIN/y{i}.jpg": files[f"yes/y{i}.jpg"] for i in range(2)}
    files |= {"Mask-RCNN/TRAIN/foreign.jpg": picture(99), "pred/pred0.jpg": picture(50)}
    change(files)
    return {top + name: content for name, content in files.items()}


def packed(path, files):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def prepared(tmp_path, **given):
    source = packed(tmp_path / "own.zip", published(**given))
    return ingest.prepare(TINY, tmp_path / "to", [source], say=lambda *_: None)


@pytest.mark.parametrize("top", [WRAP, "", "archive/inner/"])
def test_the_authors_repository_becomes_a_set_with_masks(tmp_path, top):
    facts = prepared(tmp_path, top=top)
    assert facts["counts"] == {"no": 3, "yes": 3}
    assert facts["notes"] == {
        "named .jpg but PNG": 1,
        "byte for byte another image of the set": 1,
        "Mask-RCNN holds byte copies of images of the set, left out": 2,
        "Mask-RCNN holds no copies of images of the set, left out": 1,
    }
    assert {key: facts["masks"][key] for key in ("images", "regions", "shapes")} == {
        "images": 2,
        "regions": 3,
        "shapes": {"polygon": 1, "circle": 1, "ellipse": 1},
    }
    left = {p.name for p in (tmp_path / "to/tiny").iterdir()}
    assert left == {"no", "yes", "masks", "manifest.csv", "dataset.json", "annotations_all.json"}
    assert verify.check_prepared(TINY, tmp_path / "to/tiny") == 6


def test_masks_are_found_through_the_registry(tmp_path, monkeypatch):
    prepared(tmp_path)
    monkeypatch.setattr(registry.paths, "data_dir", lambda: tmp_path / "to")
    monkeypatch.setattr(registry, "_entries", lambda: {"tiny": FACTS})
    mask = np.asarray(Image.open(registry.mask_file("tiny", "yes/y0.jpg"))) > 0
    wanted = np.zeros((30, 40), bool)
    wanted[3:10, 5:21] = True
    assert np.array_equal(mask, wanted)
    assert registry.mask_file("tiny", "yes/y2.jpg") is None
    assert registry.mask_file("tiny", "no/no0.jpg") is None
    monkeypatch.setattr(registry, "_entries", lambda: {"tiny": FACTS | {"masks": ""}})
    assert registry.mask_file("tiny", "yes/y0.jpg") is None


def test_shapes_cover_what_they_outline():
    circle = regions.draw([{"name": "circle", "cx": 20, "cy": 20, "r": 10}], 41, 41)
    assert circle.sum() == pytest.approx(np.pi * 100, rel=0.03)
    ellipse = {"name": "ellipse", "cx": 20, "cy": 20, "rx": 15, "ry": 5}
    flat = regions.draw([ellipse | {"theta": 0}], 41, 41)
    turned = regions.draw([ellipse | {"theta": np.pi / 2}], 41, 41)
    assert flat[20, 5:36].all()
    assert not flat[:14].any()
    assert (turned != flat.T).sum() <= 4  # points on the outline itself
    tilted = regions.draw([ellipse | {"theta": np.pi / 4}], 41, 41)
    assert tilted[30, 30]
    assert not tilted[10, 30]
    rectangle = regions.draw([{"name": "rect", "x": 2, "y": 3, "width": 4, "height": 5}], 20, 10)
    assert rectangle.sum() == 5 * 6
    both = regions.draw([ellipse, {"name": "circle", "cx": 3, "cy": 3, "r": 2}], 41, 41)
    assert both.sum() == flat.sum() + 13  # a disc of radius 2 covers 13 pixels


def test_outlines_of_other_files_are_left_out_and_counted(tmp_path):
    def resize(files):
        files["yes/y0.jpg"] = picture(0, size=(20, 15))
        files["Mask-RCNN/annotations_all.json"] = files["Mask-RCNN/annotations_all.json"].replace(
            b'"y1.jpg"', b'"y9.jpg"'
        )

    masks = prepared(tmp_path, change=resize)["masks"]
    assert (masks["images"], masks["other_files"], masks["absent"]) == (0, 1, 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "no file of the VGG Image Annotator"),
        (b'{"a": {"size": 3}}', "no file of the VGG Image Annotator"),
        (b'[["y0.jpg"]]', "no file of the VGG Image Annotator"),
    ],
)
def test_damaged_outlines_are_refused_and_leave_nothing(tmp_path, content, words):
    with pytest.raises(regions.BadRegions, match=words):
        prepared(
            tmp_path, change=lambda files: files.update({"Mask-RCNN/annotations_all.json": content})
        )
    assert not (tmp_path / "to/tiny").exists()
    assert not (tmp_path / "to/tiny.partial").exists()


def test_unknown_shapes_and_those_outside_are_refused():
    with pytest.raises(regions.BadRegions, match="'point'"):
        regions.draw([{"name": "point", "cx": 1, "cy": 1}], 10, 10)
    with pytest.raises(regions.BadRegions, match="outside its image of 10 x 8"):
        regions.draw([{"name": "circle", "cx": 50, "cy": 1, "r": 3}], 10, 8)


def test_changed_masks_are_noticed(tmp_path):
    prepared(tmp_path)
    next((tmp_path / "to/tiny/masks").rglob("*.png")).unlink()
    with pytest.raises(verify.DamagedSet, match="masks"):
        verify.check_prepared(TINY, tmp_path / "to/tiny")


def test_the_repository_is_asked_first_then_kaggle(tmp_path, monkeypatch):
    asked = []

    def download(url, target, **_):
        asked.append(url)
        raise fetch.DownloadFailed("the repository cannot be reached.")

    def kaggle(handle, folder, say):
        asked.append(handle)
        return [packed(tmp_path / "kaggle.zip", published("archive/"))], None

    monkeypatch.setattr(fetch, "download", download)
    monkeypatch.setattr(fetch, "_kaggle", kaggle)
    facts = ingest.prepare(TINY, tmp_path / "a", say=lambda *_: None)
    assert asked == ["http://127.0.0.1:9/own.zip", "o/d/versions/7"]
    assert facts["masks"]["images"] == 2
    asked.clear()
    with pytest.raises(fetch.DownloadFailed, match="cannot be reached") as caught:
        ingest.prepare(TINY, tmp_path / "b", say=lambda *_: None, via="files")
    assert asked == ["http://127.0.0.1:9/own.zip"]
    assert "kaggle.com/datasets/o/d/versions/7" in str(caught.value)
    ingest.prepare(TINY, tmp_path / "c", say=lambda *_: None, via="kaggle")
    assert asked[-1] == "o/d/versions/7"
    with pytest.raises(fetch.DownloadFailed, match="by way of kaggle"):
        fetch.obtain(registry.get("sign-digits"), tmp_path, via="kaggle")


def test_br35h_comes_from_the_authors_repository_at_a_pinned_commit():
    source = registry.get("br35h").source
    assert (
        "AhmedHamada0/Brain-Tumor-Detection-Dataset/archive/b614673f" in source["files"][0]["url"]
    )
    assert Path(source["files"][0]["url"]).stem.isalnum()
    assert len(Path(source["files"][0]["url"]).stem) == 40
    options = command._parser().parse_args(["br35h", "--via", "kaggle"])
    assert options.via == "kaggle"
