"""From a trained CAD-framework model on disk to a prediction with its explanation: what the
application shows, without its screens.

The authors' application loads the model at every click, feeds it images that were resized and
nothing else (the model was trained on cropped, filtered and coloured ones), and shows the same
stored heat map for every upload. Here the model is loaded once and compiled once, the input goes
through :func:`kit.data.preprocess.cad` with the settings the model was trained with, and Grad-CAM
is computed for the uploaded image. Added: all four probabilities, and a warning when an image does
not look like the training data (:mod:`kit.serving.familiarity`).
"""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kit import files as files_module
from kit import paths
from kit.data import preprocess
from kit.errors import KitError
from kit.explain import gradcam
from kit.models import saved, weights
from kit.serving import familiarity, uploads
from kit.serving.info import ModelInfo

if TYPE_CHECKING:
    import keras

DISCLAIMER = (
    "Research use only. Not for diagnosis: this is no medical device, and no finding may "
    "rest on what it shows."
)
PROFILES = ("paper", "cpu", "reference", "quick", "smoke")
MODEL, CARD, STATISTICS = "model.keras", "model.json", "familiarity.npz"
NEEDED = tuple(n for n in ModelInfo.__annotations__ if n in ModelInfo.__required_keys__)
MOST_FILES = 200


class NoModel(KitError):
    """No run has left a model for the application."""


class DamagedModel(KitError):
    """The files of a model folder do not belong together or cannot be read."""


class BadModelInfo(KitError):
    """A model is to be saved with a description that lacks something or contradicts it."""


class TooManyFiles(KitError):
    """A batch has more files than the application takes at once."""


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image.

    Attributes
    ----------
    name : str
        File name.
    label : str
        Class folder name, e.g. "glioma".
    display : str
        The class as it is shown.
    confidence : float
        The largest probability, 0..1; no calibrated chance of being right.
    probabilities : dict
        Shown class -> probability, in label order; they sum to 1.
    picture : numpy.ndarray
        The image as it was read, uint8 (H, W, 3), blue, green, red.
    image : numpy.ndarray
        What the network saw, uint8 (S, S, 3), blue, green, red.
    heat : numpy.ndarray
        Grad-CAM of the predicted class, float32 (S, S) in [0, 1]; empty (0, 0) where it was not
        asked for.
    notes : tuple of str
        Conversions on reading, and what is unusual about the crop.
    familiar : bool
        False where the image does not look like the training data; `reason` says why.
    reason : str
    seconds : float
        From pixels to prediction, without the heat map.
    """

    name: str
    label: str
    display: str
    confidence: float
    probabilities: dict
    picture: np.ndarray
    image: np.ndarray
    heat: np.ndarray
    notes: tuple
    familiar: bool
    reason: str
    seconds: float

    def overlay(self, alpha: float = 0.4) -> np.ndarray:
        """The heat map over what the network saw in grey: uint8 RGB (S, S, 3)."""
        return gradcam.overlay(self.image.mean(axis=2).astype(np.uint8), self.heat, alpha)


def find_model(results_dir: Path | str | None = None) -> Path:
    """Folder of the model that the application uses.

    ``KIT_MODEL`` names it, if set. Otherwise the profiles are looked through in the order paper,
    cpu, reference, quick, smoke; other profiles come last, the newest first. A folder without both
    of its files is passed over.

    Raises
    ------
    NoModel
        The sentence tells how to make one.
    """
    named = os.environ.get("KIT_MODEL")
    if named:
        if not _usable(Path(named)):
            raise NoModel(
                f"KIT_MODEL names {named}, which has no {MODEL} with a {CARD}; correct it or unset "
                "it."
            )
        return Path(named).expanduser().resolve()
    results = Path(results_dir or paths.results_dir())
    found = [folder for folder in results.glob("*/cad/model") if _usable(folder)]
    if not found:
        raise NoModel(
            f"There is no trained model in {results}; make one with `bash run_all.sh --only 20`."
        )
    return min(found, key=lambda folder: (_rank(folder), -(folder / CARD).stat().st_mtime))


def _rank(folder: Path) -> int:
    profile = folder.parent.parent.name
    return PROFILES.index(profile) if profile in PROFILES else len(PROFILES)


def _usable(folder: Path) -> bool:
    return (folder / MODEL).is_file() and (folder / CARD).is_file()


def save_model(
    folder: Path | str,
    model: "keras.Model",
    info: ModelInfo,
    statistics: familiarity.Statistics | None = None,
) -> Path:
    """Write the model folder that the application reads: ``model.keras``, ``familiarity.npz`` and,
    last, ``model.json``.

    Parameters
    ----------
    folder : path-like
        ``results/<profile>/cad/model``; what is there is replaced.
    model : keras.Model
        Flat functional model, input float32 (N, S, S, 3) in [0, 1], output softmax probabilities.
        Its last layer's input has to be a vector.
    info : kit.serving.info.ModelInfo
        Its metrics are of "test" and "leak_free".
    statistics : kit.serving.familiarity.Statistics, optional
        Of the training images; without them no image is warned about, and the application says so.

    Raises
    ------
    BadModelInfo
        If something is missing, or model and description contradict each other.
    """
    folder = Path(folder)
    _check_info(model, info)
    with files_module.atomic_write(folder / MODEL) as temporary:
        model.save(temporary)
    files = {MODEL: weights.checksum(folder / MODEL)}
    if statistics is not None:
        statistics.save(folder / STATISTICS)
        files[STATISTICS] = weights.checksum(folder / STATISTICS)
    described = {"familiarity": statistics.summary()} if statistics is not None else {}
    files_module.write_json(folder / CARD, {**info, **described, "files": files})
    return folder


def familiarity_statistics(
    model: "keras.Model",
    info: ModelInfo,
    train_files: Sequence[preprocess.Source],
    held_out_files: Sequence[preprocess.Source],
    quantile: float = 0.99,
    batch: int = 64,
) -> familiarity.Statistics:
    """Statistics of the training images for the warning "does not look like the training data".

    Parameters
    ----------
    model, info
        As for :func:`save_model`.
    train_files, held_out_files : sequence
        Paths, contents or BGR pixels; at least 20 each. About 1000 training and 500 validation
        images are enough.
    quantile : float
        Share of the held-out images that are not to be warned about.
    """
    classifier = Classifier(model, info)
    return familiarity.statistics(
        *_looks_and_features(classifier, train_files, batch),
        *_looks_and_features(classifier, held_out_files, batch),
        quantile,
    )


def _looks_and_features(classifier, files, batch: int) -> tuple[np.ndarray, np.ndarray]:
    looks, features, files = [], [], list(files)
    for start in range(0, len(files), batch):
        pictures = [preprocess.read(file) for file in files[start : start + batch]]
        looks += [familiarity.measures(pixels) for pixels in pictures]
        features.append(
            classifier.scores(np.stack([classifier.prepare(pixels).image for pixels in pictures]))[
                1
            ]
        )
    return np.array(looks).reshape(-1, 8), np.concatenate(features) if features else np.zeros(
        (0, 1)
    )


def _check_info(model, info: ModelInfo) -> None:
    missing = [key for key in NEEDED if key not in info]
    if missing:
        raise BadModelInfo(
            f"The description of the model lacks {', '.join(missing)}; "
            "kit.serving.classifier.save_model lists what it needs."
        )
    size, classes = info["preprocess"].get("size"), len(info["classes"])
    if (
        model.input_shape[1:] != (size, size, 3)
        or model.output_shape[1:] != (classes,)
        or len(info["display"]) != classes
    ):
        raise BadModelInfo(
            f"The model takes {model.input_shape[1:]} and gives {model.output_shape[1:]}; "
            f"its description says {(size, size, 3)}, {classes} classes and {len(info['display'])} "
            "names."
        )
    gradcam.find_layer(model, info["gradcam_layer"])


_LOADED: dict[str, Any] = {}  # the classifier loaded last: loading and its first call take seconds


class Classifier:
    """A trained model, ready to classify; several threads may share one.

    Parameters
    ----------
    model : keras.Model
    info : kit.serving.info.ModelInfo
        Content of ``model.json``.
    statistics : kit.serving.familiarity.Statistics or None
    folder : Path or None
    """

    def __init__(
        self,
        model: "keras.Model",
        info: ModelInfo,
        statistics: familiarity.Statistics | None = None,
        folder: Path | None = None,
    ) -> None:
        self.model, self.info, self.statistics, self.folder = model, info, statistics, folder
        self.classes, self.display = tuple(info["classes"]), tuple(info["display"])
        self.call = compiled(model)

    @classmethod
    def load(cls, folder: Path | str | None = None) -> "Classifier":
        """Load a model folder (default: :func:`find_model`) and run it once, so that the first
        upload does not wait for the compiler.

        Raises
        ------
        NoModel, DamagedModel
        """
        folder = Path(folder) if folder is not None else find_model()
        if not _usable(folder):
            raise NoModel(
                f"There is no trained model in {folder}; make one with `bash run_all.sh --only 20`."
            )
        stamp = _stamp(folder)
        if _LOADED.get("stamp") != stamp:
            _LOADED.update(classifier=cls._read(folder), stamp=stamp)
        return _LOADED["classifier"]

    @classmethod
    def _read(cls, folder: Path) -> "Classifier":
        info = files_module.read_json(folder / CARD)
        _check_files(folder, info)
        classifier = cls(
            _load(folder / MODEL),
            info,
            familiarity.Statistics.load(folder / STATISTICS) if "familiarity" in info else None,
            folder,
        )
        size = info["preprocess"]["size"]
        classifier.call(np.zeros((1, size, size, 3), np.float32))
        return classifier

    def prepare(self, pixels: preprocess.Source) -> preprocess.Prepared:
        """The training preprocessing, from a file, its content or BGR pixels."""
        return preprocess.cad(pixels, **self.info["preprocess"])

    def scores(self, images: np.ndarray | Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (N, classes) and features before the classifier (N, d) of prepared images,
        uint8 (N, S, S, 3).
        """
        probabilities, features = self.call(np.asarray(images, np.float32) / 255)
        return probabilities.numpy(), features.numpy()

    def classify(
        self,
        picture: uploads.Upload | preprocess.Source,
        name: str = "",
        heat: bool = True,
    ) -> Prediction:
        """Classify one image.

        Parameters
        ----------
        picture : kit.serving.uploads.Upload, path-like, bytes or numpy.ndarray
            An upload, or anything that :func:`kit.data.preprocess.cad` takes.
        name : str
            Name for the table; an upload has its own.
        heat : bool
            Compute Grad-CAM of the predicted class.
        """
        upload = (
            picture
            if isinstance(picture, uploads.Upload)
            else uploads.Upload(name, "", preprocess.read(picture))
        )
        start = time.perf_counter()
        prepared = self.prepare(upload.pixels)
        (probabilities,), (features,) = self.scores(prepared.image[None])
        seconds, best = time.perf_counter() - start, int(probabilities.argmax())
        reason = (
            self.statistics.strange(upload.pixels, prepared.image, features)
            if self.statistics
            else ""
        )
        return Prediction(
            upload.name,
            self.classes[best],
            display=self.display[best],
            confidence=float(probabilities[best]),
            probabilities={
                shown: float(p) for shown, p in zip(self.display, probabilities, strict=True)
            },
            picture=upload.pixels,
            image=prepared.image,
            heat=self.explain(prepared.image, best) if heat else np.zeros((0, 0), np.float32),
            notes=upload.notes + ((prepared.note,) if prepared.note else ()),
            familiar=not reason,
            reason=reason,
            seconds=seconds,
        )

    def explain(self, image: np.ndarray, target: int) -> np.ndarray:
        """Grad-CAM of class `target` for one prepared image: float32 (S, S) in [0, 1]."""
        images = np.asarray(image, np.float32)[None] / 255
        return gradcam.gradcam(
            self.model, images, layer=self.info["gradcam_layer"], target=target, upsample=True
        )[0]

    def classify_many(
        self, files: Iterable[tuple[str, bytes]], progress: Callable[[float], object] | None = None
    ) -> pd.DataFrame:
        """Classify many uploads; a file that cannot be used gets its sentence, and the others go
        on.

        Parameters
        ----------
        files : iterable of (str, bytes)
            Names and contents.
        progress : callable, optional
            Called with the fraction done after each file.

        Returns
        -------
        pandas.DataFrame
            One row a file: file, predicted, confidence, p_<class> ..., familiar, warning, notes,
            error.
        """
        files = list(files)
        if len(files) > MOST_FILES:
            raise TooManyFiles(
                f"{len(files)} files were chosen; at most {MOST_FILES} can be classified at once."
            )
        rows = []
        for number, (name, content) in enumerate(files, 1):
            try:
                rows.append(
                    self._row(self.classify(uploads.read_upload(content, name), heat=False))
                )
            except KitError as error:
                rows.append({"file": PurePath(name).name, "error": str(error)})
            if progress:
                progress(number / len(files))
        columns = [
            "file",
            "predicted",
            "confidence",
            *(f"p_{c}" for c in self.classes),
            "familiar",
            "warning",
            "notes",
            "error",
        ]
        table = pd.DataFrame(rows, columns=columns)
        return table.fillna({"predicted": "", "warning": "", "notes": "", "error": ""})

    def _row(self, prediction: Prediction) -> dict:
        scores = {
            f"p_{c}": p
            for c, p in zip(self.classes, prediction.probabilities.values(), strict=True)
        }
        return {
            "file": prediction.name,
            "predicted": prediction.label,
            "confidence": prediction.confidence,
            **scores,
            "familiar": prediction.familiar,
            "warning": prediction.reason,
            "notes": "; ".join(prediction.notes),
            "error": "",
        }


def compiled(model: "keras.Model") -> Callable:
    """The model as one compiled call: float32 (N, S, S, 3) -> probabilities (N, classes), features
    before the last layer (N, d).
    """
    import keras
    import tensorflow as tf

    both = keras.Model(model.inputs, [model.outputs[0], model.layers[-1].input])
    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)]
    # autograph would leave a generated file in the temporary folder
    return tf.function(
        lambda images: both(images, training=False), input_signature=signature, autograph=False
    )


def _stamp(folder: Path) -> list:
    """What tells whether a model folder is still the one that was loaded."""
    return [
        (str(file), file.stat().st_mtime_ns, file.stat().st_size)
        for file in (folder / name for name in (CARD, MODEL, STATISTICS))
        if file.exists()
    ]


def _check_files(folder: Path, info: ModelInfo) -> None:
    missing = [key for key in NEEDED if key not in info]
    if missing:
        raise DamagedModel(
            f"{folder / CARD} lacks {', '.join(missing)}; make the model again with `bash "
            "run_all.sh --only 20 --fresh`."
        )
    for name, expected in info.get("files", {}).items():
        if not (folder / name).is_file() or weights.checksum(folder / name) != expected:
            raise DamagedModel(
                f"{folder / name} is not the file that {CARD} describes; make the model again with "
                "`bash run_all.sh --only 20 --fresh`."
            )


def _load(path: Path):
    try:
        return saved.load(path)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DamagedModel(
            f"{path} cannot be loaded ({str(error).splitlines()[0]}); make the model again with "
            "`bash run_all.sh --only 20 --fresh`."
        ) from error
