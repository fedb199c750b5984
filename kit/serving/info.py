"""What a model folder says of its model: the content of ``model.json``."""

from typing import Any, Required, TypedDict


class Preprocessing(TypedDict, total=False):
    """How images were prepared for the training: the arguments of
    :func:`kit.data.preprocess.cad`.
    """

    size: Required[int]
    mode: str
    jpeg_round_trip: bool
    upsample: int | None


class Measured(TypedDict, total=False):
    """What the model reached on a test set: fractions, their 95 % interval, number of images;
    empty where there is no image.
    """

    accuracy: float
    macro_f1: float
    interval: list[float]
    n: int


class ModelInfo(TypedDict, total=False):
    """The description of a model; the optional entries are for the model card, and ``familiarity``
    and ``files`` (name -> SHA-256) are added when the folder is written.
    """

    backbone: Required[str]
    title: Required[str]
    classes: Required[list[str]]
    display: Required[list[str]]
    preprocess: Required[Preprocessing]
    gradcam_layer: Required[str]
    profile: Required[str]
    data: Required[str]
    data_fingerprint: str
    stages: Any
    stand_in: str | None
    reductions: list[str]
    run: str
    metrics: dict[str, Measured]
    code: str
    trained: str
    familiarity: dict[str, Any]
    files: dict[str, str]
