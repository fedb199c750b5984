"""The convolutional network of the Br35H paper."""

import keras
from keras import layers

from kit.models import heads


def br35h_cnn(  # noqa: PLR0913 (what the paper states and leaves open of its network)
    input_size: int = 240,
    channels: int = 1,
    kernel: int = 3,
    padding: str = "valid",
    pool: int = 2,
    dropout: float = 0.25,
    dropout_position: str = "each",
    dense: int = 500,
    seed: int | None = None,
) -> keras.Model:
    """Build the CNN without transfer learning of the Br35H paper (its Figures 1 and 3).

    Parameters
    ----------
    input_size, channels : int
        Square input, float32 in [0, 1], shape (input_size, input_size, channels).
    kernel, padding, pool, dropout
        Of both convolutions, both poolings and the dropout layers. Not in the paper.
    dropout_position : {"each", "last"}
        Dropout after each pooling, or only after the last one.
    dense : int
        Width of the dense layer; 500 in the paper.
    seed : int, optional
        Fixes initial weights and dropout masks; None takes Keras' global seed.

    Returns
    -------
    keras.Model
        Flat functional model; outputs the probability of class 1, shape (N, 1). Grad-CAM layer
        ``conv2``.
    """
    if dropout_position not in {"each", "last"}:
        raise ValueError(f"dropout_position is {dropout_position!r}; choose 'each' or 'last'.")
    inputs = x = layers.Input((input_size, input_size, channels), name="image")
    for i in (1, 2):
        x = layers.Conv2D(
            32,
            kernel,
            padding=padding,
            activation="relu",
            kernel_initializer=heads._glorot(seed, i),
            name=f"conv{i}",
        )(x)
        x = layers.MaxPooling2D(pool, name=f"pool{i}")(x)
        if dropout_position == "each" or i == 2:
            x = layers.Dropout(
                dropout, seed=None if seed is None else seed + i, name=f"dropout{i}"
            )(x)
    x = layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, heads._classifier(x, dense, 0.0, 1, seed), name="br35h_cnn")
