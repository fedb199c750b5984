"""What the CAD paper prints, as data: its rows, tables and confusion matrices, and where its
Table 4 contradicts its own Figure 8.
"""

import numpy as np
import pandas as pd

from kit.evaluation import metrics
from kit.published import papers
from kit.published.numbers import prints_as

TITLES = {
    "resnet50": "ResNet-50",
    "vgg19": "VGG19",
    "mobilenetv2": "MobileNetV2",
    "inceptionv3": "InceptionV3",
    "nasnetlarge": "NASNetLarge",
    "xception": "Xception",
    "resnet50-noaug": "ResNet-50 without augmentation",
    "efficientnet_lite0": "EfficientNet-Lite0 (not in the paper)",
}


MODELS = tuple(TITLES)[:6]


BEST = ("resnet50", "xception", "inceptionv3")


CLASSES = ("glioma", "meningioma", "notumor", "pituitary")


CLASS_METRICS = ("precision", "recall", "f1")


def published_table(artefact: str) -> pd.DataFrame:
    """A printed table from ``papers/cad.yml``: index = row keys, one column a printed column (words
    and numbers); Table 1 is exactly this.
    """
    paper = papers.load("cad")
    printed = {**paper.texts, **{key: entry.value for key, entry in paper.values.items()}}
    cells = {
        tuple(key.split("/")[1:]): value
        for key, value in printed.items()
        if key.startswith(f"{artefact}/")
    }
    rows, columns = ([*dict.fromkeys(part)] for part in zip(*cells, strict=True))
    return pd.DataFrame(
        [[cells.get((row, column)) for column in columns] for row in rows],
        pd.Index(rows, name="row"),
        columns,
        dtype=object,
    )


def published_matrix(model: str) -> np.ndarray:
    """Confusion matrix that Figure 8 (or 15, for "resnet50-noaug") prints: int (4, 4), rows
    = true.
    """
    artefact = "figure-15" if model == "resnet50-noaug" else "figure-8"
    return np.array(
        [
            [
                papers.load("cad").number(f"{artefact}/{model}.{true}/{said}").value
                for said in CLASSES
            ]
            for true in CLASSES
        ]
    )


def recomputed_report() -> pd.DataFrame:
    """Table 4 recomputed from the printed confusion matrices.

    Returns
    -------
    pandas.DataFrame
        row, metric, published, recomputed (published unit) and agrees (bool: rounds to what is
        printed).
    """
    paper, rows = papers.load("cad"), []
    for model in (*MODELS, "resnet50-noaug"):
        totals = metrics.totals(published_matrix(model))
        rates, overall = metrics.class_rates(totals), metrics.overall_rates(totals)
        exact = {
            (f"{model}.{c}", m): rates[m][k] for k, c in enumerate(CLASSES) for m in CLASS_METRICS
        }
        exact |= {(f"{model}.weighted", m): overall[f"weighted_{m}"] for m in CLASS_METRICS} | {
            (model, "accuracy"): 100 * overall["accuracy"]
        }
        for (row, metric), value in exact.items():
            entry = paper.values[f"table-4/{row}/{metric}"]
            agrees = prints_as(float(value), entry.value, entry.decimals) == "rounded"
            rows.append(
                {
                    "row": row,
                    "metric": metric,
                    "published": entry.value,
                    "recomputed": float(value),
                    "agrees": agrees,
                }
            )
    return pd.DataFrame(rows)
