"""The state after every epoch on disk, so that a killed run goes on where it was."""

import json
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kit import compat, files
from kit.record import Run
from kit.training.config import BadConfig, Diverged, TrainConfig

if TYPE_CHECKING:
    import keras


def _numbered(variables: Iterable["keras.Variable"]) -> dict[str, Any]:
    """Arrays of a state file: "v0", "v1" ... -> value."""
    return {f"v{number}": np.asarray(variable) for number, variable in enumerate(variables)}


class EpochKeeper:
    """Keeps the state after every epoch on disk and puts it back after an interruption.

    ``keras.callbacks.BackupAndRestore`` does not keep the random state of dropout layers nor the
    position in the data, so a resumed run differs from an uninterrupted one; here both follow from
    (seed, epoch). Weights, optimizer state and history go into one file, replaced atomically. The
    best epoch's weights have a file of their own, named by the epoch and written before the state
    that makes it the best, so that whatever moment a run is killed at, the file that the history
    points to is there.

    Parameters
    ----------
    run : record.Run
    config : TrainConfig
    """

    def __init__(self, run: Run, config: TrainConfig) -> None:
        self.file, self.run, self.config = run.folder / "state.npz", run, config
        self.first_epoch = 0
        self.rows: list[dict] = []

    def restore(self, model: "keras.Model") -> None:
        """Put the last finished epoch's weights, optimizer state and history back, if there
        is one.
        """
        if not self.file.exists():
            return
        try:
            with np.load(self.file) as state:
                self.rows = json.loads(str(state["history"]))
                for number, variable in enumerate(self._variables(model)):
                    variable.assign(state[f"v{number}"])
        except (OSError, ValueError, KeyError) as error:
            raise files.DamagedRecord(
                f"{self.file} cannot be read ({error}); delete it and run again."
            ) from error
        self.first_epoch = len(self.rows)
        print(
            f"{self.config.name}: goes on after epoch {self.first_epoch} of {self.config.epochs}",
            flush=True,
        )

    @staticmethod
    def _variables(model) -> list:
        return [*model.weights, *model.optimizer.variables]

    def keep(self, model: "keras.Model", logs: dict, seconds: float) -> None:
        """Append an epoch to the history and write the state."""
        self.rows.append(
            {
                "epoch": len(self.rows) + 1,
                **{k: float(v) for k, v in logs.items()},
                "seconds": round(seconds, 3),
            }
        )
        if self.config.keep_best and self.config.best_by not in logs:
            raise BadConfig(
                f"best_by is {self.config.best_by!r}, but the history has {', '.join(logs)}."
            )
        if not np.isfinite(logs["loss"]):
            raise Diverged(
                f"{self.config.name}: the loss is {logs['loss']} in epoch {len(self.rows)}; lower "
                f"learning_rate ({self.config.learning_rate})."
            )
        if self.config.keep_best and self.best_epoch() == len(self.rows) < self.config.epochs:
            with files.atomic_write(self._best_file()) as temporary:
                np.savez(temporary, **_numbered(model.weights))
        if len(self.rows) < self.config.epochs:
            with files.atomic_write(self.file) as temporary:
                history = json.dumps(self.rows)
                np.savez(temporary, history=history, **_numbered(self._variables(model)))
            if self.config.keep_best:
                self._remove_best(but=self._best_file())
        files.write_csv(self.run.folder / "history.csv", pd.DataFrame(self.rows))

    def best_epoch(self) -> int:
        """Number (from 1) of the best epoch so far by `best_by`, the earliest of several; NaN never
        wins.
        """
        sign = 1 if self.config.best_by.endswith("loss") else -1
        found = sign * np.array([row.get(self.config.best_by, np.nan) for row in self.rows])
        return int(np.argmin(np.where(np.isnan(found), np.inf, found))) + 1

    def restore_best(self, model: "keras.Model") -> None:
        """Put the best epoch's weights into the model."""
        try:
            with np.load(self._best_file()) as state:
                for number, variable in enumerate(model.weights):
                    variable.assign(state[f"v{number}"])
        except (OSError, ValueError, KeyError) as error:
            raise files.DamagedRecord(
                f"{self._best_file()} cannot be read ({error}); delete the folder "
                f"{self.run.folder} and run again."
            ) from error

    def discard(self) -> None:
        """Remove what only an interrupted run needs."""
        self.file.unlink(missing_ok=True)
        self._remove_best()

    def _best_file(self):
        return self.run.folder / f"best-{self.best_epoch()}.npz"

    def _remove_best(self, but=None) -> None:
        for file in self.run.folder.glob("best-*.npz"):
            if file != but:
                file.unlink()

    def line(self) -> str:
        """The last epoch in one line, for logs."""
        last = self.rows[-1]
        numbers = "  ".join(
            f"{k} {v:.4f}" for k, v in last.items() if k not in ("epoch", "seconds")
        )
        return (
            f"{self.config.name}  epoch {last['epoch']}/{self.config.epochs}  {numbers}  "
            f"{last['seconds']:.1f} s"
        )

    def callback(self) -> "keras.callbacks.Callback":
        """This keeper as a Keras callback."""
        import keras

        keeper = self

        class Keep(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                compat.reseed(self.model, keeper.config.seed, epoch)
                self.started = time.perf_counter()

            def on_epoch_end(self, epoch, logs=None):
                keeper.keep(self.model, logs, time.perf_counter() - self.started)
                if compat.in_batch():
                    print(keeper.line(), flush=True)
                    sys.stdout.flush()

        return Keep()
