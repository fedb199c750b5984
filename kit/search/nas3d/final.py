"""Final trainings in 3D: found networks, the benchmark's ResNets beside them, and networks of one
data set fine-tuned on another.

Found networks train as in the released code: the whole official training part, Adam at a constant
rate, no augmentation, the first epoch of the highest validation accuracy counts. Two departures.
Its validation accuracy is a mean over batches, which gives the images of a small last batch too
much weight; here it is that of the images. And its script hands over the biases and normalisations
of the searched network; here everything is drawn anew unless `warm` weights are given. The
benchmark's own protocol for ResNets (MedMNIST's experiments) is another: batches of 32, a rate that
falls tenfold twice, the epoch of the highest validation AUC; both are offered, so that networks can
be compared under one protocol. Runs are those of `kit.training.train`: seeded, resumable, never
repeated.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike

from kit import compat, files, record
from kit.data import registry
from kit.data.inputs import Inputs, PartRows
from kit.errors import KitError
from kit.models import saved
from kit.search.nas3d import networks, resnet, space
from kit.search.nas3d.proxy import EAGER_STEPS, EPSILON
from kit.search.nas3d.space import Network3D
from kit.training import predictions, train


class BadFinal(KitError):
    """A setting of a final training is out of range, or weights are handed over that do not fit."""


@dataclass(frozen=True)
class Recipe3D:
    """How to train.

    Attributes
    ----------
    epochs, batch_size : int
    learning_rate : float
        Adam's.
    drops : tuple of float
        Shares of the epochs after which the rate falls tenfold.
    best_by : {"val_accuracy", "val_auc"}
        What chooses the epoch that is tested: its first maximum.

    Raises
    ------
    BadFinal
    """

    epochs: int = 200
    batch_size: int = 128
    learning_rate: float = 1e-3
    drops: tuple = ()
    best_by: str = "val_accuracy"

    def __post_init__(self) -> None:
        object.__setattr__(self, "drops", tuple(self.drops))
        if self.best_by not in ("val_accuracy", "val_auc"):
            raise BadFinal(f"best_by is {self.best_by!r}; choose val_accuracy or val_auc.")
        if any(not 0 < share < 1 for share in self.drops):
            raise BadFinal(
                f"drops are {self.drops}; they are shares of the epochs, above 0 and below 1."
            )


BENCHMARK = Recipe3D(100, 32, 1e-3, (0.5, 0.75), "val_auc")  # MedMNIST's, for its ResNets


@keras.saving.register_keras_serializable("kit")
class MeanAUC(keras.metrics.Metric):
    """Area under the ROC curve as MedMNIST has it: of class 1 for two classes, else the unweighted
    mean of one against the rest; by 1,000 thresholds.

    Parameters
    ----------
    classes : int
    """

    def __init__(self, classes: int, name: str = "auc", **options: Any) -> None:
        super().__init__(name=name, **options)
        self.classes = classes
        self.area = (
            keras.metrics.AUC(1000)
            if classes == 2
            else keras.metrics.AUC(1000, multi_label=True, num_labels=classes)
        )

    def update_state(
        self, y_true: ArrayLike, y_pred: Any, sample_weight: ArrayLike | None = None
    ) -> None:
        """Labels (N, 1) of two classes or one-hot (N, C); probabilities (N, C)."""
        self.area.update_state(y_true, y_pred[:, 1:] if self.classes == 2 else y_pred)

    def result(self) -> Any:
        """The area so far."""
        return self.area.result()

    def reset_state(self) -> None:
        """Forget all images."""
        self.area.reset_state()

    def get_config(self) -> dict:
        """Constructor arguments."""
        return {**super().get_config(), "classes": self.classes}


def compiled(logits: keras.Model, recipe: Recipe3D, images: int, graph: bool = True) -> keras.Model:
    """A network that gives probabilities, ready to train by `recipe` on so many images, traced or
    layer by layer.
    """
    classes, steps = logits.output_shape[-1], -(-images // recipe.batch_size)
    rate = recipe.learning_rate
    if recipe.drops:
        ends = [round(share * recipe.epochs) * steps for share in recipe.drops]
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(
            ends, [recipe.learning_rate * 0.1**k for k in range(len(ends) + 1)]
        )
    model = keras.Model(
        logits.inputs, keras.layers.Softmax(name="probability")(logits.outputs[0]), name=logits.name
    )
    model.compile(
        keras.optimizers.Adam(rate, epsilon=EPSILON),
        "sparse_categorical_crossentropy" if classes == 2 else "categorical_crossentropy",
        metrics=["accuracy", MeanAUC(classes)],
        jit_compile=graph and compat.use_xla(),
        run_eagerly=not graph,
    )
    return model


def traced(recipe: Recipe3D, images: int) -> bool:
    """Whether a training on so many images is long enough for its steps to be traced."""
    return recipe.epochs * -(-images // recipe.batch_size) >= EAGER_STEPS


def fit(  # noqa: PLR0913 five parts of a training, and the five words of its run by name
    make: Callable,
    description: dict,
    recipe: Recipe3D,
    inputs: Inputs,
    parts: PartRows,
    *,
    name: str,
    profile: str,
    paper: str = "pbcnas",
    seed: int = 0,
    keep_weights: bool = False,
) -> record.Run:
    """Train any network of volumes, or return the finished run of the same settings.

    Parameters
    ----------
    make : callable
        () -> keras.Model that gives logits, with its initial weights.
    description : dict
        What the network and its initial weights are, as it shall stand in config.json and be part
        of the run's key.
    recipe : Recipe3D
    inputs : kit.data.inputs.Inputs
        From :func:`kit.data.volumes.load`.
    parts : mapping
        Row numbers of "train", "val" and "test".
    name, profile, paper : str
        Of the run folder.
    seed : int
    keep_weights : bool

    Returns
    -------
    kit.record.Run
        As of :func:`kit.training.train.fit` with `keep_best`.

    Raises
    ------
    kit.training.train.Diverged, kit.training.predictions.OutOfMemory, kit.data.inputs.BadSplit
    """
    graph = traced(recipe, len(parts["train"]))
    config = train.TrainConfig(
        paper,
        profile,
        name,
        {**description, "recipe": asdict(recipe)},
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        optimizer="adam",
        loss="categorical_crossentropy",
        seed=seed,
        keep_weights=keep_weights,
        keep_best=True,
        best_by=recipe.best_by,
        graph=graph,
    )
    return train.fit(
        config,
        lambda: compiled(make(), recipe, len(parts["train"]), graph),
        inputs,
        parts,
        watch="val",
    )


def fit_network(
    network: Network3D,
    recipe: Recipe3D,
    inputs: Inputs,
    parts: PartRows,
    *,
    warm: list | None = None,
    biases: str = "zeros",
    seed: int = 0,
    **options: Any,
) -> record.Run:
    """Train a network of the search space from new weights; `options` as for :func:`fit`.

    Parameters
    ----------
    network : Network3D
    warm : list of numpy.ndarray, optional
        Weights of the searched network (:func:`kit.search.nas3d.proxy.weights`), of which kernels
        are drawn anew and the rest stays, as in the released script.
    biases : {"zeros", "torch"}
    seed : int
    """
    shape = {"classes": _classes(inputs), "edge": inputs.x.shape[1], "channels": inputs.x.shape[4]}
    described = {
        "kind": "cells3d",
        "network": space.to_json(network),
        "biases": biases,
        "warm": None if warm is None else files.digest([a.tolist() for a in warm]),
        **shape,
    }

    def make():
        model = networks.build(network, seed=seed, biases=biases, **shape)
        if warm is not None:
            model.set_weights(warm)
            networks.redraw(model, seed)
        return model

    return fit(make, described, recipe, inputs, parts, seed=seed, **options)


def fit_resnet(
    network: str,
    variant: str,
    recipe: Recipe3D,
    inputs: Inputs,
    parts: PartRows,
    *,
    width: float = 1.0,
    seed: int = 0,
    **options: Any,
) -> record.Run:
    """Train one of the benchmark's networks; `options` as for :func:`fit`.

    Parameters
    ----------
    network, variant, width
        See :func:`kit.search.nas3d.resnet.build`.
    seed : int
    """
    shape = {
        "classes": _classes(inputs),
        "edge": inputs.x.shape[1],
        "channels": inputs.x.shape[4],
        "width": width,
    }

    def make():
        return resnet.build(network, variant, seed=seed, **shape)

    return fit(
        make,
        {"kind": "resnet3d", "network": network, "variant": variant, **shape},
        recipe,
        inputs,
        parts,
        seed=seed,
        **options,
    )


def fine_tune(
    network: Network3D,
    source: record.Run,
    recipe: Recipe3D,
    inputs: Inputs,
    parts: PartRows,
    *,
    seed: int = 0,
    **options: Any,
) -> record.Run:
    """Go on with the best weights of another data set's training and a new head; `options` as for
    :func:`fit`.

    Parameters
    ----------
    network : Network3D
        The trained one.
    source : kit.record.Run
        Of :func:`fit_network` with ``keep_weights=True``, on volumes of the same edge.
    seed : int
        Of the head and of the order of images.

    Raises
    ------
    BadFinal
        If the source is of another network, or did not keep its weights.
    """
    shape = {"classes": _classes(inputs), "edge": inputs.x.shape[1], "channels": inputs.x.shape[4]}
    if (
        source.config["model"]["network"] != space.to_json(network)
        or source.config["model"]["channels"] != shape["channels"]
    ):
        raise BadFinal(
            f"{source.folder.name} is the training of another network; fine-tune the one it "
            "trained."
        )
    file = source.folder / predictions.WEIGHTS["best"]
    if not file.exists():
        raise BadFinal(f"{source.folder.name} kept no weights; train it with keep_weights=True.")

    def make():
        model, trained = networks.build(network, seed=seed, **shape), saved.load(file)
        for layer in model.layers:
            if layer.name != "logit" and layer.weights:
                layer.set_weights(
                    [np.array(w) for w in trained.get_layer(layer.name).get_weights()]
                )
        return model

    return fit(
        make,
        {"kind": "fine-tuned", "network": space.to_json(network), "source": source.key, **shape},
        recipe,
        inputs,
        parts,
        seed=seed,
        **options,
    )


def _classes(inputs) -> int:
    return len(registry.get(inputs.name).classes)
