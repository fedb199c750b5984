"""Run folders and everything that is written to disk: atomically, so that a killed process never leaves half a file.

A run folder is keyed by its configuration (contract 5): ``<name>-<first ten hex digits of the SHA-256 of the canonical JSON>``. It is
finished when ``status.json`` says so, and that file is written last.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict, is_dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd

from kit import paths
from kit.errors import KitError


class CannotWrite(KitError):
    """The target folder cannot be written to, or the disk is full."""


class FolderBusy(KitError):
    """Another process works in the same folder."""


class DamagedRecord(KitError):
    """A file of a run folder cannot be read."""


@contextlib.contextmanager
def atomic_write(path):
    """Give a temporary path beside `path`; on success it becomes `path`, on any error it is removed.

    Parameters
    ----------
    path : path-like
        The file to write. Its folder is made if need be. The temporary name keeps the suffix of `path`.

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
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise CannotWrite(f"Cannot write {path}: {error.strerror or error}; free some space or choose another folder (KIT_RESULTS, KIT_DATA).") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, value) -> None:
    """Write `value` as indented JSON, atomically; numpy scalars and arrays, paths and dataclasses are understood."""
    write_text(path, json.dumps(value, indent=1, default=_plain) + "\n")


def write_csv(path, table: pd.DataFrame) -> None:
    """Write a data frame without its index as CSV, atomically; floats are written with the digits that restore them exactly."""
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def _plain(value):
    if is_dataclass(value):
        return asdict(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"{type(value).__name__} is not JSON")


def read_json(path, default=...):
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


def digest(value) -> str:
    """SHA-256 of the canonical JSON of `value`, as 64 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(manifest: pd.DataFrame) -> str:
    """SHA-256 over the sorted lines ``image_id sha256`` of a manifest: the identity of a data set's content."""
    lines = sorted(f"{row.image_id} {row.sha256}\n" for row in manifest.itertuples())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def code_digest() -> str:
    """SHA-256 over the package's own Python and YAML files: tells whether a stored result comes from the code at hand."""
    total = hashlib.sha256()
    for path in sorted((paths.ROOT / "kit").rglob("*")):
        if path.suffix in {".py", ".yml"}:
            total.update(path.relative_to(paths.ROOT).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


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

    def __init__(self, folder, wait: float = 0.0):
        self.folder, self.wait, self._file = Path(folder), wait, None

    def __enter__(self):
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = open(self.folder / ".lock", "a")
        except OSError as error:
            raise CannotWrite(f"Cannot write to {self.folder}: {error.strerror}; choose another folder (KIT_RESULTS, KIT_DATA).") from error
        deadline = time.monotonic() + self.wait
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return self
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    self._file.close()
                    raise FolderBusy(f"Another run is working in {self.folder}; wait for it, stop it, or choose another folder with KIT_RESULTS.") from None
                time.sleep(0.1)

    def __exit__(self, *exc):
        self._file.close()


def environment(seed: int | None = None) -> dict:
    """What a result depends on besides its configuration: versions, device, code digest, seed."""
    packages = ["tensorflow-cpu", "tensorflow", "keras", "numpy", "scipy", "scikit-learn", "pandas", "pillow", "nilearn"]
    versions = {}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {"python": platform.python_version(), "platform": platform.platform(), "versions": versions, "device": device_name(),
            "cpu_count": os.cpu_count(), "code": code_digest()[:12], "seed": seed}


def device_name() -> str:
    """Name of the GPU that TensorFlow uses, or of the processor; TensorFlow is not imported for it."""
    if "tensorflow" in sys.modules:
        tf = sys.modules["tensorflow"]
        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


class Run:
    """A run folder: what was asked (config.json), on what (environment.json), what came out, and status.json when it ended.

    Parameters
    ----------
    parent : path-like
        ``results/<profile>/<paper>/runs``.
    name : str
        Human-readable start of the folder's name.
    config : dict
        Everything that the result depends on; its digest ends the folder's name.
    """

    def __init__(self, parent, name: str, config: dict):
        self.config, self.key = config, digest(config)
        self.folder = Path(parent) / f"{name}-{self.key[:10]}"

    @property
    def status(self) -> dict:
        """Content of status.json; empty while the run has not ended."""
        return read_json(self.folder / "status.json", default={})

    @property
    def finished(self) -> bool:
        """True once the run has ended well; such a run is never repeated."""
        return self.status.get("state") == "finished"

    def open(self, seed: int) -> None:
        """Write config.json and environment.json, and take back an earlier failure."""
        (self.folder / "status.json").unlink(missing_ok=True)
        write_json(self.folder / "config.json", self.config)
        write_json(self.folder / "environment.json", environment(seed))

    def close(self, state: str, seconds: float, reason: str | None = None, **more) -> None:
        """Write status.json: `state` is "finished" or "failed", `reason` one sentence or None."""
        write_json(self.folder / "status.json", {"state": state, "reason": reason, "seconds": round(seconds, 2), "key": self.key, **more})

    def once(self, seed: int, work) -> "Run":
        """Do `work` in the locked folder, unless the run is finished; returns this run.

        Parameters
        ----------
        seed : int
            For environment.json.
        work : callable
            () -> seconds for status.json, or None for those that passed.

        Raises
        ------
        KitError
            What `work` raised; status.json then says why.
        FolderBusy
        """
        if self.finished:
            return self
        with FolderLock(self.folder, wait=20):
            if not self.finished:
                self.open(seed)
                started = time.perf_counter()
                try:
                    seconds = work()
                except KitError as error:
                    self.close("failed", time.perf_counter() - started, str(error))
                    raise
                self.close("finished", time.perf_counter() - started if seconds is None else seconds)
        return self

    def history(self) -> pd.DataFrame:
        """history.csv: one row an epoch."""
        return pd.read_csv(self.folder / "history.csv")

    def predictions(self, part: str | None = None) -> pd.DataFrame:
        """predictions.csv: image_id, group, label, part and one score a class; of one part, or of all."""
        table = pd.read_csv(self.folder / "predictions.csv", dtype={"image_id": str, "part": str})
        return table if part is None else table[table["part"] == part].reset_index(drop=True)

    def metrics(self) -> dict:
        """metrics.json."""
        return read_json(self.folder / "metrics.json")


def prediction_table(index: pd.DataFrame, scores: np.ndarray, part: str) -> pd.DataFrame:
    """The rows of predictions.csv for one part of a split.

    Parameters
    ----------
    index : pandas.DataFrame
        Columns image_id, group, label; one row an image.
    scores : numpy.ndarray
        (N, classes) probabilities, or (N, 1) of the positive class, float.
    part : str or array-like of str
        "validation" or "test", of all rows or of each.

    Returns
    -------
    pandas.DataFrame
        Columns image_id, group, label, part, score_0 ... score_{C-1}; float32 scores.
    """
    scores = np.asarray(scores, np.float32).reshape(len(index), -1)
    if scores.shape[1] == 1:
        scores = np.hstack([1 - scores, scores])
    table = index[["image_id", "group", "label"]].reset_index(drop=True).assign(part=part)
    return table.assign(**{f"score_{c}": scores[:, c] for c in range(scores.shape[1])})
