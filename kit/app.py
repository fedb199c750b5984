"""The application: ``streamlit run kit/app.py`` after ``run_all.sh``; three pages as in the paper's
Figure 19.

What the published application lacks and this one has: the training preprocessing, a heat map of the
uploaded image instead of a stored one, the probabilities of all four classes, a warning for
unfamiliar pictures, DICOM, several files at once with a table to download, model and data card, and
a sentence on every page that it is not for diagnosis. The model is loaded once. Settings (no
telemetry, this machine only, upload limit) are in ``kit/.streamlit/config.toml``, which streamlit
finds beside this file. Nothing is written and nothing leaves the machine.
"""

import altair
import pandas as pd
import streamlit as st

from kit.errors import KitError
from kit.serving import classifier as serving_classifier
from kit.serving import text, uploads

TYPES = "JPEG, PNG or DICOM"


@st.cache_resource(show_spinner="Loading the model ...")
def classifier(folder: str, stamp: int) -> serving_classifier.Classifier:
    """The model, loaded once for all sessions, and again only after a run has written another one
    (`stamp`).
    """
    return serving_classifier.Classifier.load(folder)


def current() -> serving_classifier.Classifier:
    """The classifier of the newest usable model."""
    folder = serving_classifier.find_model()
    return classifier(str(folder), (folder / serving_classifier.CARD).stat().st_mtime_ns)


def main() -> None:
    """Sidebar, disclaimer and the chosen page; a foreseeable failure is one sentence."""
    st.set_page_config(
        page_title=text.TITLE
    )  # a named or emoji page_icon would be fetched from a server of Google
    st.sidebar.title(text.SIDEBAR)
    page = st.sidebar.selectbox("Select Page", text.PAGES)
    st.sidebar.caption("Research use only, not for diagnosis.")
    st.warning(serving_classifier.DISCLAIMER, icon=":material/gavel:")
    try:
        {"Home": home, "About Dataset": about, "Disease Recognition": recognition}[page]()
    except KitError as error:
        st.error(text.plain(error))


def home() -> None:
    """Welcome and how it works."""
    st.header(text.TITLE)
    st.markdown(text.HOME)


def about() -> None:
    """The published data set, and the data and results of the model that answers here."""
    st.header("About Dataset")
    st.markdown(text.ABOUT)
    st.table(text.SPLIT.set_index("class"))
    st.markdown(text.ABOUT_LIMITS)
    info = current().info
    st.subheader("Data of this model")
    st.markdown(text.data_card(info))
    st.subheader("Model card")
    st.markdown(text.model_card(info))


def recognition() -> None:
    """One image with explanation, or several with a table."""
    st.header("Disease Recognition")
    model = current()
    if model.info.get("stand_in"):
        st.info(
            "This model was not trained on the published data: "
            f"{text.plain(model.info['stand_in'])}."
        )
    single, several = st.tabs(["One image", "Several images"])
    with single:
        one(model)
    with several:
        many(model)
    with st.expander("Model card"):
        st.markdown(text.model_card(model.info))


def one(model: serving_classifier.Classifier) -> None:
    """Upload, preview, Predict, result."""
    file = st.file_uploader(
        f"Choose one slice ({TYPES}, at most {uploads.MAX_BYTES / 1e6:.0f} MB)", key="one"
    )
    if file is None:
        return
    try:
        upload = uploads.read_upload(file.getvalue(), file.name)
        st.image(upload.pixels, caption="Uploaded picture", width=300, channels="BGR")
        if st.button("Predict", type="primary"):
            with st.spinner("Please wait ..."):
                result = model.classify(upload)
            show(result, model)
    except KitError as error:
        st.error(text.plain(error))


def show(result: serving_classifier.Prediction, model: serving_classifier.Classifier) -> None:
    """Class, probabilities, heat map, warning and remarks of one prediction."""
    if not result.familiar:
        st.warning(
            f"This picture does not look like the training data: {text.plain(result.reason)}. Do "
            "not rely on the result below.",
            icon=":material/warning:",
        )
    elif model.statistics is None:
        st.info(text.UNKNOWN)
    st.success(f"Predicted class: {text.plain(result.display)}")
    st.success(f"Confidence: {100 * result.confidence:.2f} %")
    table = pd.DataFrame(
        {
            "class": list(result.probabilities),
            "probability in %": [100 * p for p in result.probabilities.values()],
        }
    )
    st.altair_chart(bars(table))
    st.table(table.set_index("class").style.format("{:.2f}"))
    st.caption(text.PROBABILITY)
    left, right = st.columns(2)
    left.image(result.image, caption="What the network saw", width=300, channels="BGR")
    right.image(result.overlay(), caption="Grad-CAM", width=300)
    st.caption(text.HEAT)
    if not result.heat.any():
        st.info("The heat map is empty: no region of this picture spoke for the predicted class.")
    for note in result.notes:
        st.caption(f"Note: {text.plain(note)}.")


def bars(table: pd.DataFrame) -> altair.Chart:
    """The four probabilities as bars from 0 to 100 %, in label order."""
    names = altair.Axis(title=None, labelLimit=0)
    return (
        altair.Chart(table, height=160)
        .mark_bar(color="#0072B2")
        .encode(
            x=altair.X("probability in %:Q", scale=altair.Scale(domain=[0, 100])),
            y=altair.Y("class:N", sort=None, axis=names),
        )
    )


def many(model: serving_classifier.Classifier) -> None:
    """Upload several files, a table, its download."""
    files = st.file_uploader(
        f"Choose up to {serving_classifier.MOST_FILES} slices ({TYPES})",
        accept_multiple_files=True,
        key="many",
    )
    if not files or not st.button("Predict all", type="primary"):
        return
    bar = st.progress(0.0, "Please wait ...")
    table = model.classify_many([(file.name, file.getvalue()) for file in files], bar.progress)
    bar.empty()
    first = ["file", "predicted", "confidence", "error", "warning", "familiar"]
    said = [
        name
        for name in [*first, *table.columns.difference(first, sort=False)]
        if (table[name].astype(str) != "").any()
    ]
    st.dataframe(table, hide_index=True, column_order=said)
    strange = int((table["familiar"] == False).sum())  # noqa: E712  missing values are neither
    failed = int((table["error"] != "").sum())
    st.caption(
        f"{len(table)} files: {failed} could not be used, {strange} do not look like the training "
        f"data. {serving_classifier.DISCLAIMER}"
    )
    st.download_button(
        "Download as CSV",
        text.csv(table),
        "predictions.csv",
        "text/csv",
        on_click="ignore",
    )


if __name__ == "__main__":
    main()
