"""Classifier heads: global pooling, dropout and dense units behind a backbone, or on its stored
features.
"""

from collections.abc import Sequence

import keras
from keras import layers


def _glorot(seed, offset: int):
    return (
        "glorot_uniform"
        if seed is None
        else keras.initializers.GlorotUniform(seed=1000 * seed + offset)
    )


def _classifier(x, dense, dropout: float, classes: int, seed):
    if dropout:
        x = layers.Dropout(dropout, seed=seed, name="head_dropout")(x)
    if dense:
        x = layers.Dense(
            dense, activation="relu", kernel_initializer=_glorot(seed, 10), name="dense"
        )(x)
    x = layers.Dense(classes, kernel_initializer=_glorot(seed, 11), name="logit")(x)
    return layers.Activation("sigmoid" if classes == 1 else "softmax", name="probability")(x)


def head_model(
    feature_shape: Sequence[int],
    head: str = "flatten",
    dense: int | None = 500,
    dropout: float = 0.0,
    classes: int = 1,
    seed: int | None = None,
) -> keras.Model:
    """Build the classifier alone, to be trained on cached features.

    Parameters
    ----------
    feature_shape : tuple of int
        Shape of one feature map, (h, w, c).
    head : {"flatten", "gap"}
        Flatten (published, keeps positions) or global average pooling.
    dense : int or None
        Width of the hidden ReLU layer (500 in the Br35H paper); None or 0 leaves it out.
    dropout : float
        Rate of the dropout before the dense layers; 0 leaves the layer out, as the paper describes
        none here.
    classes : int
        1 gives one sigmoid unit, more give a softmax.
    seed : int, optional
        Fixes initial weights and dropout masks; None takes Keras' global seed.
    """
    inputs = layers.Input(tuple(feature_shape), name="features")
    return keras.Model(
        inputs,
        classifier_head(inputs, head, dense=dense, dropout=dropout, classes=classes, seed=seed),
        name="head",
    )


def classifier_head(
    x: keras.KerasTensor,
    head: str,
    dense: int | None,
    dropout: float,
    classes: int,
    seed: int | None,
) -> keras.KerasTensor:
    """Put the layers of `head_model` on a feature map (a Keras tensor); arguments as there, returns
    the tensor of probabilities.
    """
    vectorise = {"flatten": layers.Flatten, "gap": layers.GlobalAveragePooling2D}
    if head not in vectorise:
        raise ValueError(f"head is {head!r}; choose 'flatten' or 'gap'.")
    return _classifier(vectorise[head](name=head)(x), dense, dropout, classes, seed)


def join(base: keras.Model, head: keras.Model) -> keras.Model:
    """Put a head on a backbone: one flat functional model that shares both models' weights.

    Parameters
    ----------
    base, head : keras.Model
        Outputs of `backbone` and `head_model`; the head must be a plain chain of layers.

    Returns
    -------
    keras.Model
        Its outputs equal ``head(base(images))``. The ``output`` attribute of a head's layer stays
        the one inside `head`.
    """
    x = base.output
    for layer in head.layers[1:]:
        x = layer(x)
    return keras.Model(base.input, x, name=f"{base.name}_transfer")
