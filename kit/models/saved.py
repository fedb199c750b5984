"""Loading of saved models: where the kit's own layers, losses, optimizers and metrics live.

A ``.keras`` file names each of them by the name it is registered under, such as ``kit.nas>Cell``,
and by the module that it came from. Keras finds it by the registered name only, and only once its
module has been imported. :func:`load` reads the names in a file, imports what they need, and so
loads a file of any earlier arrangement of the modules; the modules that the file names are not
looked at. Registered names never change.
"""

import importlib
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

REGISTERED = {
    "kit>ACSConv3D": "kit.search.nas3d.resnet:ACSConv3D",
    "kit>Activate": "kit.search.nas3d.layers:Activate",
    "kit>BatchNorm": "kit.search.nas3d.layers:BatchNorm",
    "kit>ConfusionMatrix": "kit.training.streaming:ConfusionMatrix",
    "kit>F1OfMacros": "kit.training.streaming:F1OfMacros",
    "kit>GroupedConv2D": "kit.models.ported_networks:GroupedConv2D",
    "kit>InstanceNorm": "kit.search.nas3d.layers:InstanceNorm",
    "kit>MCC": "kit.training.streaming:MCC",
    "kit>MacroF1": "kit.training.streaming:MacroF1",
    "kit>MacroPrecision": "kit.training.streaming:MacroPrecision",
    "kit>MacroRecall": "kit.training.streaming:MacroRecall",
    "kit>MacroSpecificity": "kit.training.streaming:MacroSpecificity",
    "kit>MeanAUC": "kit.search.nas3d.final:MeanAUC",
    "kit>PairedConv3D": "kit.search.nas3d.convolution:PairedConv3D",
    "kit>Rate": "kit.training.streaming:Rate",
    "kit>ShuffleChannels": "kit.models.ported_networks:ShuffleChannels",
    "kit>Switched": "kit.training.optimizers:Switched",
    "kit>ThesisLoss": "kit.training.losses:ThesisLoss",
    "kit.nas>Cell": "kit.search.nas2d.cells:Cell",
    "kit.nas>Norm": "kit.search.nas2d.cells:Norm",
    "kit.nas>PerEpoch": "kit.search.nas2d.trainee:PerEpoch",
    "kit.nas>SGD": "kit.search.nas2d.trainee:SGD",
}
UNREGISTERED = {"PerEpoch": "kit.nas>PerEpoch"}  # names in files of the time before registration
NEVER_SAVED = ("AstrocyteModel", "Trainee")  # wrap a network in training; the network is saved


def load(path: Path | str, compile: bool = False) -> "keras.Model":
    """Load a model that Keras saved, whatever of the kit it contains.

    Parameters
    ----------
    path : path-like
        A ``.keras`` file.
    compile : bool
        Whether to restore optimizer, loss and metrics as well.

    Returns
    -------
    keras.Model

    Raises
    ------
    OSError, ValueError, TypeError, KeyError
        From Keras, if the file is absent, damaged or holds what neither Keras nor the kit has.
    """
    import keras

    found = needed(_config(path))
    return keras.saving.load_model(path, custom_objects=found, compile=compile)


def needed(config: Any) -> dict:
    """The kit's classes that a configuration of Keras names: name there -> class, imported.

    Parameters
    ----------
    config : dict, list or other JSON value
    """
    found = {}
    for name in _names(config):
        place = REGISTERED.get(UNREGISTERED.get(name, name))
        if place:
            module, _, thing = place.partition(":")
            found[name] = getattr(importlib.import_module(module), thing)
    return found


def _names(config) -> set:
    """All registered names in a configuration, however deep."""
    inner = config.values() if isinstance(config, dict) else config
    if not isinstance(config, dict | list):
        return set()
    own = config.get("registered_name") if isinstance(config, dict) else None
    names = {own} if isinstance(own, str) else set()
    return names.union(*map(_names, inner))


def _config(path):
    """The configuration in a file; None where there is none, which Keras then complains about."""
    try:
        with zipfile.ZipFile(Path(path)) as archive:
            return json.loads(archive.read("config.json"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None
