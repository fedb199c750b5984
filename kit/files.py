"""Files: written atomically, so that a killed process never leaves half of one; read with one clear
sentence; locked.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from kit.errors import KitError


class CannotWrite(KitError):
    """The target folder cannot be written to, or the disk is full."""


class FolderBusy(KitError):
    """Another process works in the same folder."""


class DamagedRecord(KitError):
    """A file of a run folder cannot be read."""


@contextlib.contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it becomes `path`, on any error it is
    removed.

    Parameters
    ----------
    path : path-like
        The file to write. Its folder is made if need be. The temporary name keeps the suffix of
        `path`.

    Raises
    ------
    CannotWrite
        If the folder cannot be written to or the disk is full.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".tmp-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise CannotWrite(
            f"Cannot write {path}: {error.strerror or error}; free some space or choose another "
            "folder (KIT_RESULTS, KIT_DATA)."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path | str, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: object) -> None:
    """Write `value` as indented JSON, atomically; numpy scalars and arrays, paths and dataclasses
    are understood.
    """
    write_text(path, json.dumps(value, indent=1, default=_plain) + "\n")


def write_csv(path: Path | str, table: pd.DataFrame) -> None:
    """Write a data frame without its index as CSV, atomically; floats are written with the digits
    that restore them exactly.
    """
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def _plain(value):
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"{type(value).__name__} is not JSON")


def read_json(path: Path | str, default: Any = ...) -> Any:
    """Read a JSON file; `default`, where given, is returned if the file is absent.

    Raises
    ------
    DamagedRecord
        If the file is absent and no default was given, or is no JSON.
    """
    path = Path(path)
    if default is not ... and not path.exists():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedRecord(f"{path} cannot be read ({error}); delete it and run again.") from error


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON of `value`, as 64 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


class FolderLock:
    """An exclusive lock on a folder, held by this process and gone with it, however it ends.

    Parameters
    ----------
    folder : path-like
        Made if absent. The lock is the file ``.lock`` in it.
    wait : float
        Seconds to wait for another holder before giving up.

    Raises
    ------
    FolderBusy
        On entering, if another process holds the lock.
    """

    def __init__(self, folder: Path | str, wait: float = 0.0) -> None:
        self.folder, self.wait = Path(folder), wait

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = (self.folder / ".lock").open("a")
        except OSError as error:
            raise CannotWrite(
                f"Cannot write to {self.folder}: {error.strerror}; choose another folder "
                "(KIT_RESULTS, KIT_DATA)."
            ) from error
        deadline = time.monotonic() + self.wait
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return self
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    self._file.close()
                    raise FolderBusy(
                        f"Another run is working in {self.folder}; wait for it, stop it, or choose "
                        "another folder with KIT_RESULTS."
                    ) from None
                time.sleep(0.1)

    def __exit__(self, *exc: object) -> None:
        self._file.close()
