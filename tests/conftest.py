"""Fixtures that several test files share: private data, results and cache folders, a small data set
made of drawn images, the notebooks' results.
"""

import fcntl
import os
import subprocess
import sys

# one thread a process, because each core has a worker; TensorFlow reads this when it is imported
for _variable in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from suite_rules import (  # noqa: F401 (hooks)
    counts_for_nobody,
    pytest_cmdline_main,
    pytest_collection_modifyitems,
    pytest_runtest_makereport,
)

from kit import files, paths, record


def shared_data():
    """Folder of the real archives that may lie beside the checkout; None where there is none.
    Nothing of the product knows it.
    """
    folder = paths.ROOT.parent / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session", autouse=True)
def private_folders(tmp_path_factory):
    """No test reads or writes the user's data, results or cache."""
    home = tmp_path_factory.mktemp("kit")
    with pytest.MonkeyPatch.context() as patch:
        for variable, name in (
            ("KIT_DATA", "data"),
            ("KIT_RESULTS", "results"),
            ("KIT_CACHE", "cache"),
        ):
            patch.setenv(variable, str(home / name))
        patch.setenv("KIT_BATCH", "1")
        patch.setenv("MPLBACKEND", "agg")
        yield home


def run_notebooks(home) -> dict:
    """Run every notebook at the profile smoke by the kit's own runner; return exit code and words.

    Two at a time even beside another worker: the notebooks are the longest single thing here.
    """
    command = [sys.executable, "-m", "kit.runner", "--profile", "smoke", "--jobs", "2"]
    places = {f"KIT_{name.upper()}": str(home / name) for name in ("data", "results", "cache")}
    done = subprocess.run(
        command, cwd=paths.ROOT, env={**os.environ, **places}, capture_output=True, text=True
    )
    return {"code": done.returncode, "said": done.stdout + done.stderr}


@pytest.fixture(scope="session")
def smoke(request, tmp_path_factory):
    """Folder ``results/smoke`` of this test run, in which all notebooks have been run.

    The first test that asks for it runs the notebooks, in a folder that the workers of pytest-xdist
    share; the others wait for a lock and then only read. So a test of any file may look at
    ``smoke / "br35h" / "tables"`` and the like for a few microseconds instead of training anew.
    Change nothing in it: copy what you want to change. The data sets that were made for it lie in
    ``smoke.parents[1] / "data"``. A file that uses it is run after those that do not, and the time
    that it takes counts for no test.
    """
    base = tmp_path_factory.getbasetemp()
    home = (base.parent if hasattr(request.config, "workerinput") else base) / "notebooks-smoke"
    home.mkdir(exist_ok=True)
    with counts_for_nobody(request.config), (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "outcome.json").exists():
            files.write_json(home / "outcome.json", run_notebooks(home))
    outcome = files.read_json(home / "outcome.json")
    assert outcome["code"] == 0, outcome["said"][-4000:]
    return home / "results" / "smoke"


def disc(size: int, rng, bright: bool) -> np.ndarray:
    """A noisy grey image with a disc, bright for class 1: uint8 (size, size)."""
    rows, columns = np.mgrid[:size, :size]
    centre = rng.uniform(size * 0.3, size * 0.7, 2)
    inside = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < (size / 5) ** 2
    return np.clip(
        100 + rng.normal(0, 25, (size, size)) + (110 if bright else -60) * inside, 0, 255
    ).astype(np.uint8)


def write_set(root, name: str, classes, images_per_class: int, size: int, seed: int = 0):
    """Write a folder-per-class data set with manifest and dataset.json, as data_prep does for one's
    own data.
    """
    rng, rows = np.random.default_rng(seed), []
    for label, class_name in enumerate(classes):
        for number in range(images_per_class):
            file = root / class_name / f"{number:03d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(disc(size, rng, bright=label == 1)).save(file)
            rows.append(
                {
                    "image_id": file.relative_to(root).as_posix(),
                    "split": "all",
                    "label": label,
                    "class_name": class_name,
                    "sha256": record.hashlib.sha256(file.read_bytes()).hexdigest(),
                    "bytes": file.stat().st_size,
                }
            )
    manifest = pd.DataFrame(rows)
    files.write_csv(root / "manifest.csv", manifest)
    entry = {
        "title": name,
        "task": "binary" if len(classes) == 2 else "multiclass",
        "kind": "images",
        "classes": list(classes),
        "layout": {"all": ""},
    }
    files.write_json(
        root / "dataset.json",
        {
            "name": name,
            "title": name,
            "embedded": False,
            "source": "drawn by the tests",
            "incomplete": [],
            "stand_in_for": None,
            "fingerprint": record.fingerprint(manifest),
            "counts": {},
            "made_by": "tests",
            "entry": entry,
        },
    )


@pytest.fixture(scope="session")
def discs(private_folders):
    """Name of a registered data set of 60 images of 24 px, two classes."""
    write_set(private_folders / "data" / "discs", "discs", ("dark", "bright"), 30, 24)
    return "discs"


def ball(edge: int, rng, large: bool) -> np.ndarray:
    """A binary volume with a ball, large for class 1: uint8 (edge, edge, edge) of 0 and 1."""
    grid = np.mgrid[:edge, :edge, :edge] - rng.uniform(edge * 0.4, edge * 0.6, (3, 1, 1, 1))
    return (
        (grid**2).sum(axis=0) < (edge * (0.35 if large else 0.2) * rng.uniform(0.9, 1.1)) ** 2
    ).astype(np.uint8)


def write_balls(root, name: str, counts: dict, edge: int, seed: int = 0):
    """Write a set of volumes in MedMNIST's layout, as data_prep leaves one; the first test volume
    is a copy of a training volume.
    """
    rng, arrays, rows = np.random.default_rng(seed), {}, []
    root.mkdir(parents=True)
    for split, count in counts.items():
        labels = np.arange(count) % 2
        arrays |= {
            f"{split}_images": np.stack([ball(edge, rng, label == 1) for label in labels]),
            f"{split}_labels": labels[:, None].astype(np.uint8),
        }
    arrays["test_images"][0], arrays["test_labels"][0] = (
        arrays["train_images"][3],
        arrays["train_labels"][3],
    )
    np.savez_compressed(root / "balls.npz", **arrays)
    for split in counts:
        for number, (volume, label) in enumerate(
            zip(arrays[f"{split}_images"], arrays[f"{split}_labels"][:, 0], strict=True)
        ):
            sha256 = record.hashlib.sha256(volume.tobytes()).hexdigest()
            rows.append(
                {
                    "image_id": f"{split}/{number:06d}",
                    "split": split,
                    "label": int(label),
                    "class_name": ("small", "large")[label],
                    "sha256": sha256,
                    "bytes": volume.nbytes,
                }
            )
    table = pd.DataFrame(rows).sort_values("image_id")
    table.to_csv(root / "manifest.csv", index=False)
    entry = {
        "title": "Balls",
        "task": "binary",
        "kind": "volumes",
        "classes": ["small", "large"],
        "layout": {split: split for split in counts},
        "embedded": False,
    }
    files.write_json(
        root / "dataset.json",
        {
            "name": name,
            "title": "Balls",
            "embedded": False,
            "entry": entry,
            "fingerprint": record.fingerprint(table),
            "incomplete": [],
        },
    )


@pytest.fixture(scope="session")
def balls(private_folders):
    """A registered set of binary volumes of 16 voxels, two classes, easy to tell apart."""
    write_balls(
        private_folders / "data" / "balls", "balls", {"train": 24, "val": 12, "test": 14}, 16
    )
    return "balls"


@pytest.fixture
def tiny_networks(monkeypatch):
    """Short trainings of two convolutions with BatchNormalization, which are traced at once."""
    import keras

    from kit.training import short

    def build(architecture, classes, *, channels, seed, bn_momentum, **rest):
        keras.utils.set_random_seed(seed)
        images = keras.Input((None, None, channels))
        x = keras.layers.Conv2D(6, 3, strides=2, name="first")(images)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=bn_momentum or 0.9)(x))
        x = keras.layers.DepthwiseConv2D(3, name="second")(x)
        x = keras.layers.BatchNormalization(momentum=bn_momentum or 0.9, name="stage4")(x)
        x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
        return keras.Model(images, keras.layers.Dense(classes)(keras.layers.Dropout(0.2)(x)))

    monkeypatch.setattr(short.architectures, "build", build)
    monkeypatch.setattr(
        short.architectures,
        "feature_model",
        lambda model: keras.Model(
            model.input,
            keras.layers.GlobalAveragePooling2D()(model.get_layer("stage4").output),
        ),
    )
    short.trainer.cache_clear()
    yield
    short.trainer.cache_clear()
