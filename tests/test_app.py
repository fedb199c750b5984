"""The application: with streamlit's AppTest, and as a real server in headless Chromium."""

import shutil
import tomllib

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from kit.serving import classifier, pictures, text, uploads
from tests.serving.test_classifier import (  # noqa: F401 (fixtures)
    PNG,
    RAMP,
    describe,
    dicom,
    encode,
    model_folder,
    slices,
    tiny,
)

HOSTILE = "![x](https://example.org/x.png)<img src=y>.txt"


@pytest.fixture
def app(model_folder, monkeypatch):  # noqa: F811
    """A function that runs the application on one page."""
    monkeypatch.setenv("KIT_MODEL", str(model_folder))

    def show(page):
        at = AppTest.from_file(str(pictures.SCRIPT), default_timeout=60).run()
        at.sidebar.selectbox[0].set_value(page)
        return clean(at.run())

    return show


def clean(at):
    assert not at.exception, at.exception
    return at


def sentences(at) -> str:
    return "\n".join(
        element.value
        for kind in ("header", "markdown", "success", "warning", "info", "error", "caption")
        for element in getattr(at, kind)
    )


@pytest.mark.parametrize("page", text.PAGES)
def test_every_page_says_that_it_is_not_for_diagnosis(app, page):
    at = app(page)
    assert at.warning[0].value == classifier.DISCLAIMER
    assert at.header[0].value == {"Home": text.TITLE}.get(page, page)
    assert at.sidebar.title[0].value == "Detection System Dashboard"
    assert list(at.sidebar.selectbox[0].options) == list(text.PAGES)


def test_cards_tell_data_reductions_and_accuracies(app):
    said = sentences(app("About Dataset"))
    for words in (
        "MRI phantoms",
        "generated on this machine, no patients",
        "**Not the published data:** phantoms in place of patients",
        "Reduced: 64 px",
        "216 of the 1,311",
        "accuracy **50.0 %** (95 % interval 41.0 to 59.0), macro F1 40.0 %, n = 120",
        "without a twin in training: not measured",
        "20 held-out images",
    ):
        assert words in said, words


def test_without_a_model_one_sentence_tells_how_to_make_one(tmp_path, monkeypatch):
    monkeypatch.setenv("KIT_RESULTS", str(tmp_path))
    monkeypatch.delenv("KIT_MODEL", raising=False)
    at = AppTest.from_file(str(pictures.SCRIPT), default_timeout=60).run()
    assert not clean(at).error
    at.sidebar.selectbox[0].set_value("Disease Recognition")
    assert "bash run&#95;all&#46;sh &#45;&#45;only 20" in clean(at.run()).error[0].value


def predict(at, name, content):
    at.file_uploader[0].upload(name, content).run()
    if at.button:
        at.button[0].click().run()
    return clean(at)


def test_upload_predict_and_result(app, model_folder, slices):  # noqa: F811
    content = encode(Image.fromarray(slices[0]), "PNG")
    at = predict(app("Disease Recognition"), "slice.png", content)
    expected = classifier.Classifier.load(model_folder).classify(
        uploads.read_upload(content, "slice.png")
    )
    assert [s.value for s in at.success] == [
        f"Predicted class: {text.plain(expected.display)}",
        f"Confidence: {100 * expected.confidence:.2f} %",
    ]
    np.testing.assert_allclose(
        at.table[0].value["probability in %"],
        [100 * p for p in expected.probabilities.values()],
        atol=1e-3,
    )
    assert len(at.warning) == 1
    assert not at.error
    assert len(at.get("image")) == 3


def test_dicom_is_read_and_its_conversions_are_told(app):
    at = predict(app("Disease Recognition"), "IM0001", dicom(RAMP, Modality="CT"))
    assert len(at.success) == 2
    assert "modality CT" in sentences(at)
    assert "no window" in sentences(at)


def test_unfamiliar_picture_is_warned_about(app):
    at = predict(app("Disease Recognition"), "noise.png", PNG)
    assert "does not look like the training data: it is coloured" in at.warning[1].value


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jpg", b"text"), ("a.png", PNG[:200]), ("", b""), (HOSTILE, b"x" * 200)],
)
def test_unfit_upload_gets_a_sentence_and_no_button(app, name, content):
    at = app("Disease Recognition")
    at.file_uploader[0].upload(name, content).run()
    assert len(clean(at).error) == 1
    assert not at.button
    assert not at.success
    assert "](" not in at.error[0].value
    assert "<" not in at.error[0].value


def test_batch_gives_a_table_and_its_download(app):
    at = app("Disease Recognition")
    for name, content in (("a.png", PNG), ("b.dcm", dicom(RAMP)), ("c.jpg", b"nothing")):
        at.file_uploader[1].upload(name, content)
    at.run()
    at.button[0].click()
    table = clean(at.run()).dataframe[0].value
    assert table["file"].tolist() == ["a.png", "b.dcm", "c.jpg"]
    assert (table["error"] != "").tolist() == [False, False, True]
    assert "3 files: 1 could not be used" in sentences(at)
    assert len(at.get("download_button")) == 1


def test_the_model_is_loaded_once_and_again_after_a_new_run(tmp_path, monkeypatch):
    folder, loads = classifier.save_model(tmp_path / "m", tiny(), describe()), []
    load = classifier.Classifier.load
    monkeypatch.setattr(classifier.Classifier, "load", lambda f: loads.append(f) or load(f))
    monkeypatch.setenv("KIT_MODEL", str(folder))
    at = AppTest.from_file(str(pictures.SCRIPT), default_timeout=60).run()
    for page in ("Disease Recognition", "About Dataset", "Disease Recognition"):
        at.sidebar.selectbox[0].set_value(page)
        clean(at.run())
    assert len(loads) == 1
    assert "without statistics of its training images" in sentences(at).replace("&#45;", "-")
    classifier.save_model(folder, tiny(1), describe())
    clean(at.run())
    assert len(loads) == 2


def test_foreign_text_is_inert():
    shown = text.plain(HOSTILE + " $x$ :red[a] `b` **c**\nd")
    assert not set(shown) & set("[]()<>`*$:!\n")
    assert "x" in shown


def test_settings_send_and_open_nothing():
    settings = tomllib.loads((pictures.SCRIPT.parent / ".streamlit/config.toml").read_text())
    assert settings["browser"] == {"gatherUsageStats": False}
    assert settings["client"]["showErrorDetails"] == "none"
    assert settings["server"]["address"] == "127.0.0.1"
    assert settings["server"]["maxUploadSize"] * 1e6 == uploads.MAX_BYTES


def test_without_a_browser_there_is_a_reason_and_the_pages_still_speak(
    tmp_path,
    monkeypatch,
    model_folder,  # noqa: F811  the fixture
    slices,  # noqa: F811
):
    path = tmp_path / "a.png"
    path.write_bytes(encode(Image.fromarray(slices[0]), "PNG"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    taken = pictures.take(model_folder, path, tmp_path / "pictures")
    assert taken.files == []
    assert "Chromium" in taken.reason
    assert not (tmp_path / "pictures").exists()
    said = pictures.contents(model_folder, path)
    assert list(said) == [*text.PAGES, "Result"]
    assert any("Predicted class" in line for line in said["Result"])


# ---- a real browser


@pytest.fixture(scope="module")
def live(model_folder, tmp_path_factory):  # noqa: F811
    """A running server whose home and temporary folder are watched, and a browser that has
    it open.
    """
    if pictures.missing():
        pytest.skip(pictures.missing())
    home, temporary = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("tmp")
    with (
        pictures.server(model_folder, HOME=str(home), TMPDIR=str(temporary)) as address,
        pictures.browser() as driver,
    ):
        driver.get(address)
        yield driver, home, temporary


def test_browser_walks_through_the_pages_and_predicts(live, tmp_path, slices):  # noqa: F811
    driver, home, temporary = live
    path = tmp_path / "slice.png"
    path.write_bytes(encode(Image.fromarray(slices[0]), "PNG"))
    for page in text.PAGES:
        pictures.go_to(driver, page)
    pictures.upload(driver, path)
    pictures.press(driver, "Predict")
    pictures.wait_for(driver, "bright regions spoke")
    said = pictures.text(driver)
    assert all(
        words in said
        for words in (
            "Predicted class",
            "Confidence",
            "What the network saw",
            "Grad-CAM",
            "Research use only",
        )
    )
    pixels = np.asarray(Image.open(pictures.picture(driver, tmp_path / "result.png")).convert("L"))
    assert pixels.shape[1] == pictures.WIDTH
    assert pixels.shape[0] > 1200
    assert pixels.std() > 20
    sources = driver.execute_script(
        "return performance.getEntriesByType('resource').map(e => new URL(e.name).hostname)"
    )
    assert len(sources) > 5
    assert set(sources) <= {"127.0.0.1", ""}
    assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert not (home / ".streamlit").exists()
    assert [p for p in temporary.rglob("*") if p.is_file()] == []


def test_browser_shows_a_sentence_for_a_wrong_file_also_on_a_narrow_screen(live, tmp_path):
    driver, _, _ = live
    driver.refresh()
    (tmp_path / "letter.jpg").write_text("no picture" * 30)
    pictures.go_to(driver, "Disease Recognition")
    pictures.upload(driver, tmp_path / "letter.jpg")
    pictures.wait_for(driver, "letter.jpg holds no JPEG, PNG or DICOM picture")
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False},
    )
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 400
    assert "Traceback" not in pictures.text(driver)
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
