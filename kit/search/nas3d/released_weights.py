"""The released networks with the weights that the authors released: fetched, compared with known
outputs, and tested on the official test part.

Beside an architecture found anew this is the other way to ask whether the published numbers hold,
and the cheaper one. The repository holds four of the weights: of one seed each, from the epoch of
the highest validation accuracy; those of the fracture and vessel sets are lost. The authors test
with batches of one, which gives the same. Known outputs are those of the same files and the
authors' code in PyTorch, run for this project and not by the authors: of a ramp, and of two volumes
of noise. The publication prints no number of a single set, so a result here supports or weakens a
conclusion and reproduces nothing.
"""

from pathlib import Path

import keras
import numpy as np

from kit import files, record
from kit.data.inputs import Inputs
from kit.models import weights
from kit.models.weights import WeightsUnavailable
from kit.search.nas3d import networks
from kit.search.nas3d.released import RELEASED

EDGE = 28
HOST = "https://raw.githubusercontent.com/"
ADDRESS = (
    HOST
    + "zekikus/Neural-Architecture-Search-for-3D-Biomedical-Image-Classification/"
    + "dff5d0329d5dcd16dfa088932856b8e02c75c2d3/results/"
)
FILES = {  # path in the repository, start of the file's SHA-256
    "adrenal-90": ("adrenalmnist3d/model_90.pt", "a71161d8f6c17a3f"),
    "nodule-197": ("nodulemnist3d/model_197.pt", "f6289ce37948ac53"),
    "organ-72": ("organmnist3d/model_72.pt", "534a420b79e88c0d"),
    "synapse-223": ("synapsemnist3d/model_223.pt", "fef50c8a376a9e98"),
}
LOGITS = {  # of `probes`, one row a volume
    "adrenal-90": ((-5.13446, 20.94646), (-4.35714, 20.77159), (-4.37327, 20.78149)),
    "nodule-197": ((3.24964, -2.09018), (-2.77260, 2.02115), (-2.99375, 2.20192)),
    "organ-72": (
        (
            -3.07062,
            5.81091,
            -0.43029,
            17.10014,
            2.19041,
            1.12072,
            -1.3255,
            5.81108,
            -14.34609,
            -3.51368,
            -4.38378,
        ),
        (
            19.49682,
            -0.7526,
            -6.81341,
            -17.28608,
            -17.33723,
            1.93127,
            -7.68876,
            0.65129,
            -0.76988,
            2.11253,
            12.30326,
        ),
        (
            19.11085,
            -1.11,
            -6.95617,
            -17.72191,
            -16.74748,
            1.93545,
            -7.38152,
            -0.03871,
            -0.83948,
            1.94539,
            12.76627,
        ),
    ),
    "synapse-223": ((0.79439, 4.08047), (2.90276, 3.06582), (2.94166, 2.9777)),
}


def find(name: str) -> Path:
    """The file of a network's released weights, checked against its checksum: ``<name>.pt`` where
    weights are looked for, else downloaded.

    Raises
    ------
    kit.models.weights.WeightsUnavailable, kit.models.torchfile.DamagedWeights
    """
    if name not in FILES:
        raise WeightsUnavailable(
            f"No weights of {name} were released; there are those of {', '.join(FILES)}."
        )
    (below, checksum), folders = FILES[name], weights.folders()
    if path := weights.here((folder / f"{name}.pt" for folder in folders), checksum):
        return path
    path = folders[-1] / f"{name}.pt"
    if reason := weights.fetch(ADDRESS + below, path, checksum, HOST):
        raise WeightsUnavailable(
            f"The released weights of {name} are unavailable ({reason}): put {ADDRESS + below} as "
            f"{name}.pt into the repository's folder weights, or into that of KIT_WEIGHTS."
        )
    return path


def build(name: str, path: Path | str) -> keras.Model:
    """The network with the weights of a file; volumes of 28 voxels to logits.

    Raises
    ------
    kit.models.torchfile.DamagedWeights
    """
    released = RELEASED[name]
    model = networks.build(released.network, released.classes, EDGE)
    networks.load(model, path)
    return model


def probes() -> np.ndarray:
    """Volumes whose logits are known, float32 (3, 28, 28, 28, 1)."""
    line = np.linspace(0, 1, EDGE)
    ramp = (line[:, None, None] + 0.5 * line[:, None] + 0.25 * line) / 1.75
    return np.stack([ramp, *np.random.RandomState(0).rand(2, EDGE, EDGE, EDGE)]).astype(np.float32)[
        ..., None
    ]


def logit_difference(name: str, model: keras.Model) -> float:
    """Largest absolute difference from the known logits; 5e-4 is arithmetic, more is not."""
    return float(np.abs(np.asarray(model(probes(), training=False)) - np.array(LOGITS[name])).max())


def predicted(
    name: str,
    path: Path | str,
    inputs: Inputs,
    rows: np.ndarray,
    parent: Path | str,
    batch_size: int = 16,
) -> record.Run:
    """Predictions of the released weights, made once.

    Parameters
    ----------
    name : str
    path : path-like
        From :func:`find`.
    inputs : kit.data.inputs.Inputs
        Volumes of 28 voxels.
    rows : array-like of int
        The test part.
    parent : path-like
        Folder for the run's folder.

    Returns
    -------
    kit.record.Run
        predictions.csv, and metrics.json with the logit difference.

    Raises
    ------
    kit.models.torchfile.DamagedWeights
    """
    run = record.Run(
        parent,
        f"{inputs.name}-{name}-released",
        {
            "released": name,
            "sha256": weights.checksum(Path(path)),
            "data": inputs.facts,
            "images": inputs.members({"test": rows}),
        },
    )

    def work():
        model = build(name, path)
        logits = [
            np.asarray(model(inputs.batch(rows[start : start + batch_size]), training=False))
            for start in range(0, len(rows), batch_size)
        ]
        scores = keras.ops.convert_to_numpy(keras.ops.softmax(np.concatenate(logits)))
        files.write_json(
            run.folder / "metrics.json", {"logit_difference": logit_difference(name, model)}
        )
        files.write_csv(
            run.folder / "predictions.csv",
            record.prediction_table(inputs.index.iloc[rows], scores, "test"),
        )

    return run.once(0, work)
