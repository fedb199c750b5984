"""Uploads, model folder, predictions and the warning of unfamiliar images; one file gives the same
scores on every path.
"""

import io
import struct
import zlib

import keras
import numpy as np
import pydicom
import pytest
from conftest import shared_data
from keras import layers
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, MRImageStorage

from kit import files
from kit.data import imageio, preprocess
from kit.data.phantom.sets import slice_image
from kit.explain import gradcam
from kit.serving import classifier as serving_classifier
from kit.serving import familiarity, text, uploads

CLASSES = ["glioma", "meningioma", "notumor", "pituitary"]
SETTINGS = {"size": 64, "mode": "safe", "jpeg_round_trip": True, "upsample": 256}


def tiny(seed: int = 0, size: int = 64):
    """An untrained network of the contract's form, with scores that differ between images."""
    keras.utils.set_random_seed(seed)
    inputs = layers.Input((size, size, 3))
    x = inputs
    for number, filters in enumerate((8, 16, 24)):
        x = layers.MaxPooling2D()(
            layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{number}")(x)
        )
    x = layers.Dropout(0.4)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(
        inputs,
        layers.Dense(
            4,
            activation="softmax",
            kernel_initializer=keras.initializers.RandomNormal(0, 6, seed=seed),
        )(x),
    )


def describe(**changes) -> dict:
    return {
        "backbone": "tiny",
        "title": "Tiny network",
        "classes": CLASSES,
        "display": [f"{c}_shown" for c in CLASSES],
        "preprocess": SETTINGS,
        "gradcam_layer": "conv2",
        "profile": "smoke",
        "data": "phantom4",
        "stand_in": "phantoms in place of patients",
        "reductions": ["64 px"],
        "metrics": {"test": {"accuracy": 0.5, "macro_f1": 0.4, "n": 120, "interval": [0.41, 0.59]}},
        **changes,
    }


def encode(image, kind, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture(scope="session")
def slices():
    """60 phantom slices, uint8 (128, 128)."""
    return [slice_image(seed, ("normal", "glioma")[seed % 2], size=128)[0] for seed in range(60)]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory, slices):
    model, info = tiny(), describe()
    statistics = serving_classifier.familiarity_statistics(
        model,
        info,
        [preprocess.read(s) for s in slices[:40]],
        [preprocess.read(s) for s in slices[40:]],
    )
    return serving_classifier.save_model(
        tmp_path_factory.mktemp("served") / "smoke/cad/model", model, info, statistics
    )


@pytest.fixture(scope="session")
def classifier(model_folder):
    return serving_classifier.Classifier.load(model_folder)


def test_one_file_gives_the_same_scores_on_every_path(tmp_path, slices, model_folder, classifier):
    model = keras.models.load_model(model_folder / serving_classifier.MODEL)
    for number, kind in enumerate(("JPEG", "PNG")):
        path = tmp_path / f"slice.{kind.lower()}"
        path.write_bytes(encode(Image.fromarray(slices[number]), kind))
        notebook = model.predict(
            preprocess.cad(path, **SETTINGS).image[None] / np.float32(255), verbose=0
        )[0]
        tested = model(
            classifier.prepare(path).image[None].astype(np.float32) / 255, training=False
        ).numpy()[0]
        uploaded = classifier.classify(uploads.read_upload(path.read_bytes(), path.name))
        batch = classifier.classify_many([(path.name, path.read_bytes())]).iloc[0]
        for scores in (
            tested,
            list(uploaded.probabilities.values()),
            batch[[f"p_{c}" for c in CLASSES]].astype(float),
        ):
            np.testing.assert_allclose(scores, notebook, atol=1e-5)
        assert uploaded.label == CLASSES[notebook.argmax()] == batch["predicted"]
        assert uploaded.display == f"{uploaded.label}_shown"
        assert notebook.max() - notebook.min() > 1e-3


@pytest.mark.real
def test_a_real_file_keeps_its_scores_too(classifier):
    import zipfile

    archive = shared_data() and shared_data() / "brain-tumor-mri-dataset-224px.zip"
    if not archive or not archive.exists():
        pytest.skip("the 224 px copy is not beside the checkout")
    with zipfile.ZipFile(archive) as file:
        content = file.read(next(n for n in file.namelist() if n.endswith("Te-gl_0010.jpg")))
    notebook = classifier.model.predict(
        preprocess.cad(content, **SETTINGS).image[None] / np.float32(255), verbose=0
    )[0]
    np.testing.assert_allclose(
        list(classifier.classify(uploads.read_upload(content, "a.jpg")).probabilities.values()),
        notebook,
        atol=1e-5,
    )


def test_heat_map_is_that_of_the_uploaded_image(slices, classifier):
    first, second = (classifier.classify(s) for s in slices[:2])
    expected = gradcam.gradcam(
        classifier.model,
        first.image[None].astype(np.float32) / 255,
        layer="conv2",
        target=CLASSES.index(first.label),
        upsample=True,
    )[0]
    assert first.heat.shape == (64, 64)
    assert np.array_equal(first.heat, expected)
    assert not np.array_equal(first.heat, second.heat)
    assert first.overlay().shape == (64, 64, 3)
    assert first.overlay().dtype == np.uint8
    assert classifier.classify(slices[0], heat=False).heat.size == 0


def test_the_model_is_loaded_and_traced_once(slices, classifier):
    before = classifier.call.experimental_get_tracing_count()
    for one in slices[:3]:
        classifier.classify(one, heat=False)
    assert classifier.call.experimental_get_tracing_count() == before == 1


def test_black_image_is_kept_whole_and_not_familiar(classifier):
    found = classifier.classify(np.zeros((90, 70), np.uint8))
    assert "whole image is kept" in found.notes[0]
    assert not found.familiar
    assert "nothing is left" in found.reason


# ---- uploads

COLOUR = Image.fromarray(np.random.default_rng(5).integers(0, 256, (40, 30, 3), dtype=np.uint8))
PNG, JPEG = encode(COLOUR, "PNG"), encode(COLOUR, "JPEG")


def bomb() -> bytes:
    def chunk(kind, content):
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 6000, 6000, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(bytes(99)))
        + chunk(b"IEND", b"")
    )


def dicom(values, syntax=ExplicitVRLittleEndian, **elements) -> bytes:
    """A DICOM file of one grey frame, uint16 or int16 unless `elements` say otherwise."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = (
        MRImageStorage,
        "1.2.3",
        syntax,
    )
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    values = np.asarray(values)
    data.Rows, data.Columns = values.shape[-2:]
    data.BitsAllocated = data.BitsStored = 8 * values.dtype.itemsize
    data.HighBit, data.PixelRepresentation, data.SamplesPerPixel = (
        data.BitsStored - 1,
        int(values.dtype.kind == "i"),
        1,
    )
    data.PhotometricInterpretation, data.Modality, data.PixelData = (
        "MONOCHROME2",
        "MR",
        values.tobytes(),
    )
    for name, value in elements.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, data)
    return stream.getvalue()


RAMP = np.arange(400, dtype=np.uint16).reshape(20, 20)
REFUSED = {
    "empty.jpg": (b"", imageio.EmptyImage, "0 bytes"),
    "page.jpg": (b"<html>404</html>" * 20, uploads.WrongKind, "whatever its name says"),
    "gif.png": (encode(COLOUR.convert("P"), "GIF"), uploads.WrongKind, "no JPEG, PNG or DICOM"),
    "cut.jpg": (JPEG[: len(JPEG) // 2], imageio.DamagedImage, "truncated"),
    "cut.png": (PNG[: len(PNG) // 2], imageio.DamagedImage, "truncated"),
    "animated.png": (
        encode(COLOUR, "PNG", save_all=True, append_images=[COLOUR.rotate(90)]),
        imageio.AnimatedImage,
        "2 pictures",
    ),
    "bomb.png": (bomb(), imageio.ImageTooLarge, "6000 x 6000"),
    "big.png": (PNG + bytes(uploads.MAX_BYTES), uploads.UploadTooLarge, "20.0 MB"),
    "frames.dcm": (
        dicom(np.zeros((3, 8, 8), np.uint16), NumberOfFrames=3),
        uploads.UnfitDicom,
        "3 frames",
    ),
    "report.dcm": (dicom(RAMP, PixelData=None, Modality="SR"), uploads.UnfitDicom, "modality SR"),
    "colour.dcm": (
        dicom(RAMP, PhotometricInterpretation="RGB"),
        uploads.UnfitDicom,
        "no grey picture",
    ),
    "huge.dcm": (dicom(RAMP, Rows=60000, Columns=60000), imageio.ImageTooLarge, "60000 x 60000"),
    "short.dcm": (dicom(RAMP)[:-99], uploads.UnfitDicom, "truncated"),
    "header.dcm": (dicom(RAMP)[:180], uploads.UnfitDicom, "without|truncated"),
    "deflated.dcm": (dicom(RAMP, DeflatedExplicitVRLittleEndian), uploads.UnfitDicom, "deflated"),
    "window.dcm": (dicom(RAMP, WindowCenter=10, WindowWidth=0), uploads.UnfitDicom, "damaged"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_every_unfit_file_gets_one_sentence_with_its_name(name):
    content, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words) as caught:
        uploads.read_upload(content, f"../secret/{name}")
    assert str(caught.value).startswith(name)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def pixels_or_error(content: bytes):
    try:
        return uploads.read_upload(content, "x").pixels
    except serving_classifier.KitError as error:
        return error


def test_damaged_files_never_give_another_error():
    rng = np.random.default_rng(0)
    for whole in (PNG, JPEG, dicom(RAMP, WindowCenter=100, WindowWidth=50)):
        for _ in range(60):
            content = bytearray(whole)
            for place in rng.integers(0, len(whole), 4):
                content[place] = rng.integers(256)
            found = pixels_or_error(bytes(content))
            if isinstance(found, serving_classifier.KitError):
                assert "\n" not in str(found)
            else:
                assert found.dtype == np.uint8


@pytest.mark.parametrize(
    ("name", "content", "note"),
    [
        ("a.png", encode(Image.fromarray(RAMP * 160), "PNG"), "16-bit"),
        ("a.png", encode(COLOUR.convert("P"), "PNG"), "palette"),
        ("a.jpg", encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), "CMYK"),
        ("a.png", encode(COLOUR.convert("RGBA"), "PNG"), "transparency"),
        ("a.jpg", PNG, "named .jpg but PNG"),
        ("a.png", dicom(RAMP), "named .png but DICOM"),
    ],
)
def test_convertible_files_are_read_and_the_conversion_is_noted(name, content, note):
    upload = uploads.read_upload(content, name)
    assert upload.pixels.ndim == 3
    assert upload.pixels.dtype == np.uint8
    assert any(note in n for n in upload.notes)


def test_colours_arrive_in_the_order_blue_green_red():
    assert np.array_equal(uploads.read_upload(PNG, "a.png").pixels[..., ::-1], np.asarray(COLOUR))
    assert uploads.read_upload(PNG, "a.png").notes == ()


def grey(content) -> np.ndarray:
    return uploads.read_upload(content, "IM0001").pixels[..., 0].astype(int)


def test_dicom_window_follows_the_standard():
    centre, width = 200.0, 101.0
    expected = (
        np.clip((RAMP - (centre - 0.5)) / (width - 1) + 0.5, 0, 1) * 255
    )  # PS3.3 C.11.2.1.2.1
    assert (
        abs(grey(dicom(RAMP, WindowCenter=centre, WindowWidth=width)) - expected).max()
        <= 0.5 + 1e-6
    )
    several = dicom(RAMP, WindowCenter=[centre, 5.0], WindowWidth=[width, 3.0])
    assert np.array_equal(grey(several), grey(dicom(RAMP, WindowCenter=centre, WindowWidth=width)))


def test_dicom_rescale_comes_before_the_window():
    signed = (RAMP.astype(np.int16) - 100) * 3
    plain, rescaled = (
        dicom(RAMP, WindowCenter=150, WindowWidth=80),
        dicom(signed, RescaleSlope=1 / 3, RescaleIntercept=100, WindowCenter=150, WindowWidth=80),
    )
    assert abs(grey(plain) - grey(rescaled)).max() <= 1
    assert uploads.read_upload(plain, "IM0001").notes == ()


def test_dicom_without_window_spans_its_values_and_monochrome1_is_inverted():
    upload = uploads.read_upload(dicom(RAMP + 1000), "x.dcm")
    assert upload.pixels.min() == 0
    assert upload.pixels.max() == 255
    assert "no window" in upload.notes[0]
    inverted = uploads.read_upload(
        dicom(RAMP + 1000, PhotometricInterpretation="MONOCHROME1", Modality="CT"), "x.dcm"
    )
    assert np.array_equal(inverted.pixels, 255 - upload.pixels)
    assert {
        "MONOCHROME1 inverted",
        "modality CT, not MR",
    } <= set(inverted.notes)
    assert not grey(dicom(np.full((9, 9), 700, np.uint16))).any()


def test_dicom_table_of_values_is_used():
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = (
        [400, 0, 16],
        (65535 - np.arange(400) * 164).astype(np.uint16).tolist(),
    )
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
    shown = grey(dicom(RAMP, VOILUTSequence=Sequence([table])))
    assert shown[0, 0] == 255
    assert abs(shown - (65535 - RAMP.astype(int) * 164) / 257).max() <= 1


def test_reading_leaves_nothing_on_disk(tmp_path, monkeypatch, classifier):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    classifier.classify_many([("a.png", PNG), ("b.dcm", dicom(RAMP)), ("c.jpg", b"x")])
    assert list(tmp_path.iterdir()) == []


# ---- batch


def test_batch_goes_on_after_bad_files_and_the_csv_is_harmless(classifier):
    seen = []
    table = classifier.classify_many(
        [("=1+cmd.png", PNG), ("bad.jpg", b"nothing"), ("c.dcm", dicom(RAMP))], seen.append
    )
    assert table["error"].map(bool).tolist() == [False, True, False]
    assert seen == pytest.approx([1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(
        table.loc[[0, 2], [f"p_{c}" for c in CLASSES]].sum(axis=1), 1, atol=1e-5
    )
    lines = text.csv(table).decode().splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("file,predicted,confidence,p_glioma")
    assert lines[1].startswith("'=1+cmd")
    with pytest.raises(serving_classifier.TooManyFiles, match="at most 200"):
        classifier.classify_many([("a", b"")] * 201)


# ---- model folder


def touch_model(results, profile):
    folder = results / profile / "cad" / "model"
    files.write_json(folder / serving_classifier.CARD, {})
    (folder / serving_classifier.MODEL).touch()
    return folder


def test_the_best_profile_with_a_model_is_found(tmp_path, monkeypatch):
    monkeypatch.delenv("KIT_MODEL", raising=False)
    with pytest.raises(serving_classifier.NoModel, match=r"bash run_all\.sh --only 20"):
        serving_classifier.find_model(tmp_path)
    (tmp_path / "paper/cad/model").mkdir(parents=True)
    for profile in ("mine", "smoke", "quick", "cpu"):
        folder = touch_model(tmp_path, profile)
        assert serving_classifier.find_model(tmp_path) == folder
    monkeypatch.setenv("KIT_MODEL", str(tmp_path / "smoke/cad/model"))
    assert serving_classifier.find_model(tmp_path) == tmp_path / "smoke/cad/model"
    monkeypatch.setenv("KIT_MODEL", str(tmp_path / "none"))
    with pytest.raises(serving_classifier.NoModel, match="KIT_MODEL"):
        serving_classifier.find_model()


def test_descriptions_that_contradict_the_model_are_refused(tmp_path):
    model = tiny()
    for info in (
        describe(classes=CLASSES[:3]),
        describe(preprocess={**SETTINGS, "size": 200}),
        {k: v for k, v in describe().items() if k != "gradcam_layer"},
    ):
        with pytest.raises(serving_classifier.BadModelInfo):
            serving_classifier.save_model(tmp_path, model, info)
    with pytest.raises(gradcam.LayerNotFound):
        serving_classifier.save_model(tmp_path, model, describe(gradcam_layer="nowhere"))
    assert list(tmp_path.iterdir()) == []


def test_exchanged_and_damaged_model_files_are_noticed(tmp_path):
    folder = serving_classifier.save_model(tmp_path / "m", tiny(), describe())
    assert serving_classifier.Classifier.load(folder).statistics is None
    assert not list(folder.glob(".tmp*"))
    tiny(1).save(folder / serving_classifier.MODEL)
    with pytest.raises(serving_classifier.DamagedModel, match="is not the file"):
        serving_classifier.Classifier.load(folder)
    (folder / serving_classifier.MODEL).write_bytes(b"no model")
    files.write_json(folder / serving_classifier.CARD, describe())
    with pytest.raises(serving_classifier.DamagedModel, match="cannot be loaded"):
        serving_classifier.Classifier.load(folder)
    files.write_json(folder / serving_classifier.CARD, {"title": "x"})
    with pytest.raises(serving_classifier.DamagedModel, match="lacks"):
        serving_classifier.Classifier.load(folder)


# ---- familiarity


def test_photographs_digits_and_noise_are_unfamiliar(classifier, slices):
    import cv2
    from sklearn.datasets import load_digits, load_sample_images

    rng = np.random.default_rng(0)
    photographs = [np.ascontiguousarray(i[..., ::-1]) for i in load_sample_images().images]
    digits = [
        cv2.resize((d * 15.9).astype(np.uint8), (128, 128)) for d in load_digits().images[:20]
    ]
    noise = [rng.integers(0, 256, (128, 128), dtype=np.uint8) for _ in range(5)]
    warned = {
        name: [not classifier.classify(p, heat=False).familiar for p in group]
        for name, group in (
            ("photographs", photographs),
            ("digits", digits),
            ("noise", noise),
            ("slices", slices[40:]),
        )
    }
    assert all(warned["photographs"])
    assert all(warned["noise"])
    assert np.mean(warned["digits"]) > 0.9
    assert np.mean(warned["slices"]) <= 0.05
    assert "coloured" in classifier.classify(photographs[0], heat=False).reason


def test_limits_keep_the_stated_share_of_other_held_out_images():
    rng = np.random.default_rng(1)
    looks, features = np.abs(rng.normal(5, 1, (3000, 8))), rng.normal(1, 1, (3000, 12))
    looks[:, 0] = 0
    found = familiarity.statistics(
        looks[:800], features[:800], looks[800:1900], features[800:1900], quantile=0.95
    )
    inside = (found.distances(looks[1900:], features[1900:]) <= found.limits).all(axis=1).mean()
    assert 0.925 < inside < 0.985
    assert found.summary()["inside"] >= 0.95
    with pytest.raises(familiarity.TooFewImages):
        familiarity.statistics(looks[:5], features[:5], looks, features)


def test_statistics_survive_the_disk(tmp_path, model_folder, classifier):
    assert (
        files.read_json(model_folder / serving_classifier.CARD)["familiarity"]
        == classifier.statistics.summary()
    )
    classifier.statistics.save(tmp_path / "s.npz")
    again = familiarity.Statistics.load(tmp_path / "s.npz")
    assert all(np.array_equal(getattr(again, k), v) for k, v in vars(classifier.statistics).items())


def test_a_value_that_is_no_number_is_not_familiar(classifier, slices):
    features = np.full(classifier.statistics.features.shape[1], np.nan)
    assert familiarity.REASONS["features"] in classifier.statistics.strange(
        preprocess.read(slices[0]), np.eye(4, dtype=np.uint8), features
    )
