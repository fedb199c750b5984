"""Long computations in steps that are kept, so that one that was stopped goes on where it was."""

from collections.abc import Callable, Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from kit import files

Arrays = dict[str, np.ndarray]


class Steps:
    """Keeps the arrays of finished steps as files.

    Parameters
    ----------
    folder : Path or None
        Where; None keeps nothing, every step is computed.
    key : object
        What all steps depend on, JSON-serialisable; steps of another key are not taken.
    """

    def __init__(self, folder: Path | None = None, key: object = None) -> None:
        self.folder, self.key = folder, key

    def __call__(
        self, name: str, depends: object, compute: Callable[[], Mapping[str, np.ndarray]]
    ) -> Arrays:
        """The arrays of a step: those that are kept, else computed and kept.

        Parameters
        ----------
        name : str
        depends : object
            What this step depends on beside the key, JSON-serialisable.
        compute : callable
            Gives numeric arrays (or text of fixed length) by name.
        """
        if self.folder is None:
            return dict(compute())
        file = self.folder / f"{name}-{files.digest([self.key, depends])[:16]}.npz"
        if file.exists():
            try:
                with np.load(file, allow_pickle=False) as kept:
                    return dict(kept)
            except (OSError, ValueError, EOFError, BadZipFile):  # cut off: made again
                file.unlink()
        arrays = dict(compute())
        with files.atomic_write(file) as temporary:
            np.savez(temporary, **arrays)  # type: ignore[arg-type]
        return arrays
