"""What the application says: its pages' texts, the model card and the data card.

The published application (the paper's Figure 19) promises recommendations that it never gives, and
names neither the data nor the limits of its model. Here both cards are written from ``model.json``
and the registry, so that they cannot tell of another model than the one that answers.
"""

import re

import pandas as pd

from kit.data import registry
from kit.errors import KitError
from kit.serving.info import Measured, ModelInfo

TITLE = "Brain tumour recognition in MR slices"
SIDEBAR = "Detection System Dashboard"
PAGES = ("Home", "About Dataset", "Disease Recognition")
SPLIT = pd.DataFrame(
    {
        "class": ["glioma", "meningioma", "no tumour", "pituitary", "all"],
        "training": [1060, 1072, 1279, 1158, 4569],
        "validation": [261, 267, 316, 299, 1143],
        "test": [300, 306, 405, 300, 1311],
    }
)

HOME = """
This page belongs to a reproduction of the paper *Empowering brain tumor diagnosis through
explainable deep learning*. A network that was trained
on single MR slices says which of four groups a slice resembles most: glioma, meningioma, pituitary
tumour, or no tumour. Gliomas are usually
malignant; most meningiomas and pituitary tumours are benign, and yet may press on what lies around
them. The network knows these four groups
only: it cannot say "something else".

#### How it works

1. **Choose a picture** on the page *Disease Recognition*: one slice as JPEG, PNG or DICOM, or
   several at once.
2. **Analysis.** The slice is cropped to the head, smoothed and coloured exactly as the training
   images were, and the network gives a probability to each group.
3. **Results.** You see all four probabilities, the regions that spoke for the answer (Grad-CAM),
   and a warning if the picture does not look like the training data.

Everything happens on this machine. Pictures stay in memory, are sent nowhere and are gone when the
page is closed.

Choose *Disease Recognition* in the sidebar to begin.
"""

ABOUT = """
The paper used the *Brain Tumor MRI Dataset* of Nickparvar: 7,023 slices of four classes, collected
from three earlier sets (figshare, SARTAJ and Br35H).
It was divided as follows; the test images are the set's own folder *Testing*.
"""

ABOUT_LIMITS = """
What to know of these data: slices are not marked with their patients, so that one patient may be on
both sides of the division. 216 of the 1,311
test images are also, byte for byte, among those for training, and more are nearly the same;
accuracies are therefore given twice, on all test
images and on those without a twin in training. Slices without a tumour come from other sources than
those with one, which a network can notice.
"""

HEAT = (
    "Grad-CAM of the predicted class on what the network saw: bright regions spoke for it. The map "
    "is scaled to its own maximum and shows where "
    "the network looked, not where a tumour is."
)
PROBABILITY = (
    "A probability of the network is no chance of being right: it says how the four "
    "groups compare for this network."
)
UNKNOWN = (
    "This model was saved without statistics of its training images, so that unfamiliar "
    "pictures are not recognised as such."
)


def plain(text: object) -> str:
    """Foreign text (file names, header fields) as it is, with nothing that Markdown or HTML would
    act on.
    """
    return re.sub(
        r"([\\`*_{}\[\]()#+\-.!|<>~$:&@/])",
        lambda match: f"&#{ord(match.group())};",
        " ".join(str(text).split()),
    )


def model_card(info: ModelInfo) -> str:
    """The model in Markdown: what it is, what it was trained on, how it did, and what is
    reduced.
    """
    lines = [
        f"**{plain(info['title'])}**, four-class classifier, trained "
        f"{plain(info.get('trained') or 'at an unstated time')} "
        f"(profile {plain(info['profile'])}, run {plain(info.get('run') or 'not stated')})."
    ]
    lines += (
        [f"- **Not the published data:** {plain(info['stand_in'])}."]
        if info.get("stand_in")
        else []
    )
    lines += [f"- Reduced: {plain(item)}." for item in info.get("reductions") or []]
    lines += [
        _score(label, (info.get("metrics") or {}).get(key))
        for key, label in (
            ("test", "All test images"),
            ("leak_free", "Test images without a twin in training"),
        )
    ]
    known = info.get("familiarity")
    lines.append(
        f"- Warning of unfamiliar pictures: limits from {known['held_out_images']} held-out "
        f"images, {100 * known['inside']:.1f} % of which pass."
        if known
        else f"- {UNKNOWN}"
    )
    lines.append(
        "- Intended use: research and teaching. It has never been tested on patients of any "
        "hospital, and its probabilities are not calibrated for any."
    )
    return "\n".join(lines)


def _score(label: str, metrics: Measured | None) -> str:
    if not metrics or metrics.get("accuracy") is None:
        return f"- {label}: not measured."
    low, high = metrics.get("interval") or (None, None)
    interval = (
        f" (95 % interval {100 * low:.1f} to {100 * high:.1f})"
        if low is not None and high is not None
        else ""
    )
    macro = (
        f", macro F1 {100 * metrics['macro_f1']:.1f} %"
        if metrics.get("macro_f1") is not None
        else ""
    )
    return f"- {label}: accuracy **{100 * metrics['accuracy']:.1f} %**{interval}{macro}" + (
        f", n = {metrics['n']}." if metrics.get("n") else "."
    )


def data_card(info: ModelInfo) -> str:
    """The training data of the model in Markdown, from the registry."""
    name = info["data"]
    try:
        data = registry.get(name)
    except KitError:
        return (
            f"This model was trained on the data set {plain(name)}, which is not registered here."
        )
    lines = [
        f"This model was trained on **{plain(data.title)}**"
        + (" (generated on this machine, no patients)." if data.embedded else ".")
    ]
    lines += [f"- Licence: {plain(data.licence)}."] if data.licence else []
    lines += [f"- Citation: {plain(data.citation)}."] if data.citation else []
    lines += [f"- Source: {plain(data.url)}"] if data.url else []
    lines += [f"- Note: {plain(data.note)}."] if data.note else []
    lines += (
        [f"- Fingerprint: {plain(info['data_fingerprint'][:12])}"]
        if info.get("data_fingerprint")
        else []
    )
    lines += (
        [f"- **Not the published data:** {plain(info['stand_in'])}."]
        if info.get("stand_in")
        else []
    )
    return "\n".join(lines)


def csv(table: pd.DataFrame) -> bytes:
    """The table of a batch as UTF-8 CSV; text that a spreadsheet would take for a formula is put
    behind an apostrophe.
    """
    safe = table.copy()
    for column in safe.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in safe.dtypes]]:
        safe[column] = safe[column].map(
            lambda value: (
                f"'{value}"
                if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
                else value
            )
        )
    return safe.to_csv(index=False, lineterminator="\n").encode("utf-8")
