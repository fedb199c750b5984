"""How a model is trained: the settings of a run, validated when made, and what can go wrong."""

from dataclasses import asdict, dataclass, field, fields

from kit.data import batches
from kit.errors import KitError


class BadConfig(KitError):
    """A training setting is out of range."""


class Diverged(KitError):
    """The loss became NaN or infinite."""


# settings that are part of a run's key only where they differ from these, so that adding one leaves
# earlier runs valid
LATER = {
    "augmentation": None,
    "keep_best": False,
    "best_by": "val_loss",
    "recalibrate_batchnorm": False,
    "graph": True,
}


@dataclass(frozen=True)
class TrainConfig:
    """How to train; printed as a table, validated when made.

    Attributes
    ----------
    paper, profile : str
        Where the run folder goes: ``results/<profile>/<paper>/runs``.
    name : str
        Start of the run folder's name.
    model : dict
        The builder's name and options, as they shall stand in config.json.
    epochs, batch_size : int
        At least 1.
    learning_rate : float
        Above 0; Adam's other settings are Keras' defaults (epsilon 1e-7).
    optimizer, loss : str
        Keras names.
    seed : int
        Initial weights, batch order and dropout.
    keep_weights : bool
        Save the trained model as ``model.keras``, and with `keep_best` the other as
        ``model_best.keras``. Not part of the run's key.
    augmentation : dict or None
        Settings of :class:`kit.data.augment.affine.Augmentation`, or of
        :class:`kit.data.augment.autoaugment.AutoAugment` (absent ones take its defaults), for the
        training images only.
    augmenter : {"fused", "keras_generator", "autoaugment"}
        Which transform and implementation; see :func:`kit.data.batches.epochs`.
    keep_best : bool
        Also predict with the weights of the best epoch (the earliest of several).
    best_by : str
        Column of the history that names the best epoch: the lowest if it is a loss, else the
        highest.
    recalibrate_batchnorm : bool
        Before predicting, replace the moving statistics of BatchNorm by those of one epoch more of
        the training pipeline: its augmentation, batch size and order. Where Keras' backbones
        forget slowly (momentum 0.999 in MobileNet), the moving statistics lag behind the weights
        after a short training.
    graph : bool
        Trace a graph of the training step, as Keras does; False runs layer by layer, which is
        slower from the tenth step or so on, but tracing a network of hundreds of layers takes 10 s
        to a minute.
    """

    paper: str
    profile: str
    name: str
    model: dict = field(default_factory=dict)
    epochs: int = 30
    batch_size: int = 32
    learning_rate: float = 1e-4
    optimizer: str = "adam"
    loss: str = "binary_crossentropy"
    seed: int = 0
    keep_weights: bool = True
    augmentation: dict | None = None
    augmenter: str = "fused"
    keep_best: bool = False
    best_by: str = "val_loss"
    recalibrate_batchnorm: bool = False
    graph: bool = True

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise BadConfig(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        if not 0 < self.learning_rate < 10:
            raise BadConfig(
                f"learning_rate is {self.learning_rate}; it must be above 0 and below 10."
            )
        if self.augmenter not in batches.AUGMENTERS:
            raise BadConfig(
                f"augmenter is {self.augmenter!r}; choose one of {', '.join(batches.AUGMENTERS)}."
            )
        if (
            self.augmentation is not None
        ):  # spelt out, so that the key does not depend on which defaults were written down
            object.__setattr__(
                self,
                "augmentation",
                asdict(batches.AUGMENTERS[self.augmenter].of(self.augmentation)),
            )

    def __str__(self) -> str:
        width = max(len(f.name) for f in fields(self))
        return "\n".join(f"{f.name:<{width}}  {getattr(self, f.name)}" for f in fields(self))
