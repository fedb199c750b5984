"""Run folders and everything that is written to disk: atomically, so that a killed process never
leaves half a file.

A run folder is keyed by its configuration (contract 5): ``<name>-<first ten hex digits of the
SHA-256 of the canonical JSON>``. It is finished when ``status.json`` says so, and that file is
written last.
"""

import contextlib
import hashlib
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit import files, kernels, paths
from kit.errors import KitError
from kit.files import FolderLock


def fingerprint(manifest: pd.DataFrame) -> str:
    """SHA-256 over the sorted lines ``image_id sha256`` of a manifest: the identity of a data set's
    content.
    """
    lines = sorted(f"{row.image_id} {row.sha256}\n" for row in manifest.itertuples())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def code_digest() -> str:
    """SHA-256 over the package's own Python and YAML files: tells whether a stored result comes
    from the code at hand.
    """
    total = hashlib.sha256()
    for path in sorted((paths.ROOT / "kit").rglob("*")):
        if path.suffix in {".py", ".yml"}:
            total.update(path.relative_to(paths.ROOT).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def environment(seed: int | None = None) -> dict:
    """What a result depends on besides its configuration: versions, device, code digest, seed."""
    packages = [
        "tensorflow-cpu",
        "tensorflow",
        "keras",
        "numpy",
        "scipy",
        "scikit-learn",
        "pandas",
        "pillow",
        "nilearn",
    ]
    versions = {}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "device": device_name(),
        "onednn": kernels.onednn(),
        "cpu_count": os.cpu_count(),
        "code": code_digest()[:12],
        "seed": seed,
    }


def device_name() -> str:
    """Name of the GPU that TensorFlow uses, or of the processor; TensorFlow is not imported
    for it.
    """
    if "tensorflow" in sys.modules:
        tf = sys.modules["tensorflow"]
        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    return platform.processor() or platform.machine()


class Run:
    """A run folder: what was asked (config.json), on what (environment.json), what came out, and
    status.json when it ended.

    Parameters
    ----------
    parent : path-like
        ``results/<profile>/<paper>/runs``.
    name : str
        Human-readable start of the folder's name.
    config : dict
        Everything that the result depends on; its digest ends the folder's name.
    """

    def __init__(self, parent: Path | str, name: str, config: dict) -> None:
        self.config, self.key = config, files.digest(kernels.keyed(config))
        self.folder = Path(parent) / f"{name}-{self.key[:10]}"

    @property
    def status(self) -> dict:
        """Content of status.json; empty while the run has not ended."""
        return files.read_json(self.folder / "status.json", default={})

    @property
    def finished(self) -> bool:
        """True once the run has ended well; such a run is never repeated."""
        return self.status.get("state") == "finished"

    def open(self, seed: int) -> None:
        """Write config.json and environment.json, and take back an earlier failure."""
        (self.folder / "status.json").unlink(missing_ok=True)
        files.write_json(self.folder / "config.json", self.config)
        files.write_json(self.folder / "environment.json", environment(seed))

    def close(self, state: str, seconds: float, reason: str | None = None, **more: Any) -> None:
        """Write status.json: `state` is "finished" or "failed", `reason` one sentence or None."""
        files.write_json(
            self.folder / "status.json",
            {
                "state": state,
                "reason": reason,
                "seconds": round(seconds, 2),
                "key": self.key,
                **more,
            },
        )

    def once(self, seed: int, work: Callable[[], float | None]) -> "Run":
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
                self.close(
                    "finished", time.perf_counter() - started if seconds is None else seconds
                )
        return self

    def history(self) -> pd.DataFrame:
        """history.csv: one row an epoch."""
        return pd.read_csv(self.folder / "history.csv")

    def predictions(self, part: str | None = None) -> pd.DataFrame:
        """predictions.csv: image_id, group, label, part and one score a class; of one part, or of
        all.
        """
        table = pd.read_csv(self.folder / "predictions.csv", dtype={"image_id": str, "part": str})
        return table if part is None else table[table["part"] == part].reset_index(drop=True)

    def metrics(self) -> dict:
        """metrics.json."""
        return files.read_json(self.folder / "metrics.json")


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
