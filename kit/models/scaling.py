"""How images are scaled before a pretrained backbone sees them."""

import keras
import numpy as np
from numpy.typing import ArrayLike

from kit.errors import KitError
from kit.models.backbone_catalog import entry


class BadImages(KitError):
    """Images of a shape or type that a model cannot take."""


def scale(images: ArrayLike, mode: str) -> np.ndarray:
    """Scale RGB images of 0..255 as a network's weights expect.

    Parameters
    ----------
    images : array (..., 3)
        Values 0..255.
    mode : {"unit", "tf", "torch", "caffe", "lite"}
        x/255; x/127.5 - 1; ImageNet mean and deviation; BGR minus mean; (x - 127)/128.

    Returns
    -------
    numpy.ndarray
        float32.
    """
    images = np.asarray(images, np.float32)
    if mode == "unit":
        return images / np.float32(255)
    if mode == "lite":
        return (images - np.float32(127)) / np.float32(128)
    return keras.applications.imagenet_utils.preprocess_input(
        images.copy(), data_format="channels_last", mode=mode
    )


def prepare(name: str, images: ArrayLike, mode: str | None = None) -> np.ndarray:
    """Turn uint8 images into a backbone's input: gray replicated to RGB, then scaled.

    Parameters
    ----------
    name : str
        Key of `BACKBONES`.
    images : uint8 array (N, H, W), (N, H, W, 1) or (N, H, W, 3)
    mode : str, optional
        Scaling other than the backbone's own, a mode of `scale`.

    Returns
    -------
    numpy.ndarray
        float32 (N, H, W, 3).

    Raises
    ------
    BadImages
        If the array is of another shape or type; a float array is refused because it may be scaled
        already.
    """
    images = np.asarray(images)
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or images.dtype != np.uint8:
        raise BadImages(
            f"Images are {images.dtype} of shape {images.shape}; give uint8 arrays (N, H, W), (N, "
            "H, W, 1) or (N, H, W, 3)."
        )
    return scale(np.broadcast_to(images, (*images.shape[:3], 3)), mode or entry(name).preprocess)
