"""Where things lie: every path of the kit is absolute and comes from here.

Notebooks run in whatever folder their caller stands in (papermill: the caller's, nbmake: the
notebook's), so nothing may depend on the working directory. Three environment variables move the
writable folders: ``KIT_DATA``, ``KIT_RESULTS`` and ``KIT_CACHE``.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def _folder(variable: str, default: Path) -> Path:
    return Path(os.environ.get(variable) or default).expanduser().resolve()


def data_dir() -> Path:
    """Folder of the data sets, one subfolder each (``KIT_DATA`` or ``data/``)."""
    return _folder("KIT_DATA", ROOT / "data")


def results_dir() -> Path:
    """Folder of the results, one subfolder a profile (``KIT_RESULTS`` or ``results/``)."""
    return _folder("KIT_RESULTS", ROOT / "results")


def cache_dir() -> Path:
    """Folder of what can be computed again: decoded images, features, duplicate groups
    (``KIT_CACHE`` or ``data/.cache``).
    """
    return _folder("KIT_CACHE", data_dir() / ".cache")


def papers_dir() -> Path:
    """Folder of the publications' files, ``papers/<key>.yml``."""
    return ROOT / "papers"


def profiles_dir() -> Path:
    """Folder of the parameter files, ``profiles/<profile>/<notebook>.yml``."""
    return ROOT / "profiles"


def notebooks_dir() -> Path:
    """Folder of the notebooks."""
    return ROOT / "notebooks"
