"""Reads a PyTorch state dict of the format before PyTorch 1.6, without PyTorch and without running
code of the file.

Such a file is five pickles, then the raw storages. The unpickler here knows tensors and nothing
else. Nothing here belongs to a publication.
"""

import math
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np

from kit.errors import KitError

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ByteStorage": "u1",
}


class DamagedWeights(KitError):
    """A file of weights is not what it should be."""


class _Unpickler(pickle.Unpickler):
    """Rebuilds dictionaries of tensors; any other class in the file is refused, so that no code of
    the file can run.
    """

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, stride, *_: (storage, offset, shape, stride)
        if module == "torch" and name in _STORAGES:
            return np.dtype(_STORAGES[name])
        raise pickle.UnpicklingError(f"it contains {module}.{name}")

    def persistent_load(self, pid):
        kind, dtype, key, _device, count, view = pid
        if kind != "storage" or view is not None or not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError("it contains an unknown kind of storage")
        return dtype, key, count


def read_torch(path: Path | str) -> dict:
    """Read a PyTorch state dict of the format before PyTorch 1.6, without PyTorch.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    dict of str to numpy.ndarray
        Contiguous copies, in PyTorch's axis order (convolutions: out, in, height, width).

    Raises
    ------
    DamagedWeights
        If the file is cut short, of another format, or holds anything but tensors.
    """
    try:
        with Path(path).open("rb") as file:
            if (
                _Unpickler(file).load() != _MAGIC
                or _Unpickler(file).load() != _PROTOCOL
                or not _Unpickler(file).load()["little_endian"]
            ):
                raise ValueError("another format or byte order")
            tensors = _Unpickler(file).load()
            types = {key: (dtype, count) for (dtype, key, count), *_ in tensors.values()}
            storages = {key: _storage(file, *types[key]) for key in _Unpickler(file).load()}
            return {
                name: _strided(storages[key], offset, shape, stride)
                for name, ((_, key, _), offset, shape, stride) in tensors.items()
            }
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
    ) as error:
        raise DamagedWeights(
            f"{path} is no PyTorch state dict of the old format or is damaged ({error}); fetch it "
            "again."
        ) from error


def _storage(file, dtype: np.dtype, count: int) -> np.ndarray:
    if int.from_bytes(file.read(8), "little") != count:
        raise ValueError("a storage of another size")
    data = file.read(count * dtype.itemsize)
    if len(data) != count * dtype.itemsize:
        raise EOFError("the file ends early")
    return np.frombuffer(data, dtype)


def _strided(storage: np.ndarray, offset: int, shape: tuple, stride: tuple) -> np.ndarray:
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if min((offset, *stride)) < 0 or (math.prod(shape) and last >= len(storage)):
        raise ValueError("a tensor outside its storage")
    view = np.lib.stride_tricks.as_strided(
        storage[offset:], shape, [step * storage.itemsize for step in stride]
    )
    return np.array(view, order="C")
