"""Anyone's folder of pictures as the search for copies takes it, and progress on a console."""

import hashlib
import sys
import time
from pathlib import Path

import pandas as pd

from kit.errors import KitError

SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp"}


class NoPictures(KitError):
    """A folder holds no pictures, or is none."""


def index_of(folder: Path) -> pd.DataFrame:
    """The pictures below a folder: image_id (path below it) and sha256, in the order of names.

    Raises
    ------
    NoPictures
    """
    if not folder.is_dir():
        raise NoPictures(f"{folder} is no folder; give one that holds pictures.")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and "__MACOSX" not in path.parts
    )
    if not found:
        raise NoPictures(f"{folder} holds no picture ({', '.join(sorted(SUFFIXES))}).")
    return pd.DataFrame(
        {
            "image_id": [path.relative_to(folder).as_posix() for path in found],
            "sha256": [hashlib.sha256(path.read_bytes()).hexdigest() for path in found],
        }
    )


class Console:
    """Progress on the error stream, one line a stage, with the time left."""

    def __init__(self) -> None:
        self.stage, self.started, self.shown = "", 0.0, 0.0

    def __call__(self, stage: str, done: int, of: int) -> None:
        now = time.monotonic()
        if stage != self.stage:
            self.stage, self.started, self.shown = stage, now, 0.0
        if now - self.shown < 1 and done < of:
            return
        self.shown = now
        left = (now - self.started) / max(done, 1) * (of - done)
        end = "\n" if done == of else ""
        print(f"\r{stage}: {done} of {of}, {left:.0f} s left   ", end=end, file=sys.stderr)
