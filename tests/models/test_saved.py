"""Models saved by earlier code load, wherever the modules lie, and give the outputs of then."""

import importlib
import json
import pkgutil
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras.src.saving.keras_saveable import KerasSaveable

import kit
from kit import paths
from kit.models import saved

SAVED = Path(__file__).parents[1] / "saved"
SHAPES = {
    "derived": (8, 8, 3),
    "volume": (16, 16, 16, 1),
    "planes": (8, 8, 8, 1),
    "ported": (8, 8, 3),
}
COMPILED = {"compiled": 32, "scheduled": 8}  # and the size of the batches of the next epoch

PREDICT = """
import sys
import numpy as np
from kit.models import saved

sources, target, shape = sys.argv[1:3], sys.argv[3], sys.argv[4:]
x = np.random.default_rng(0).random((2, *map(int, shape)), np.float32)
for number, source in enumerate(sources[::-1]):
    np.save(f"{target}/{number}.npy", saved.load(source).predict(x, verbose=0))
"""
GO_ON = """
import sys
import numpy as np
from kit.models import saved

source, stored, target, batch = sys.argv[1:]
known = np.load(stored)
model = saved.load(source, compile=True)
rates = model.evaluate(known["x"], known["y"], verbose=0, return_dict=True)
model.fit(known["x"], known["y"], batch_size=int(batch), shuffle=False, verbose=0)
outputs = model.predict(known["x"], verbose=0)
np.savez(target, outputs=outputs, names=list(rates), values=list(rates.values()))
"""


def fresh(code: str, *arguments) -> None:
    """Run code in a process that has imported nothing."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def moved(source: Path, target: Path) -> Path:
    """A copy that names modules of the kit which no longer exist."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                assert b'"kit.' in content
                content = content.replace(b'"module": "kit.', b'"module": "kit.long_gone.')
            new.writestr(name, content)
    return target


def names(config) -> set:
    return saved._names(config)


def stored_names() -> set:
    """Registered names in all files of the folder."""
    found = names(json.loads((SAVED / "metrics.json").read_text()))
    for file in SAVED.glob("*.keras"):
        with zipfile.ZipFile(file) as archive:
            found |= names(json.loads(archive.read("config.json")))
    return found


@pytest.mark.parametrize("name", SHAPES)
def test_a_saved_network_gives_the_outputs_it_gave(name, tmp_path):
    """As it is, and with the modules that it names gone."""
    source, known = SAVED / f"{name}.keras", np.load(SAVED / f"{name}.npz")["outputs"]
    fresh(PREDICT, source, moved(source, tmp_path / "moved.keras"), tmp_path, *SHAPES[name])
    for number in range(2):
        found = np.load(tmp_path / f"{number}.npy")
        np.testing.assert_allclose(found, known, rtol=1e-5)


@pytest.mark.parametrize("name", COMPILED)
def test_a_compiled_model_goes_on_as_it_did(name, tmp_path):
    source, stored = moved(SAVED / f"{name}.keras", tmp_path / "moved.keras"), SAVED / f"{name}.npz"
    fresh(GO_ON, source, stored, tmp_path / "out.npz", COMPILED[name])
    found, known = np.load(tmp_path / "out.npz"), np.load(stored)
    assert found["names"].tolist() == known["names"].tolist()
    np.testing.assert_allclose(found["values"], known["values"], rtol=1e-5)
    np.testing.assert_allclose(found["outputs"], known["outputs"], rtol=1e-5, atol=1e-6)


def test_metrics_are_made_again_from_their_configuration():
    told = json.loads((SAVED / "metrics.json").read_text())
    for each in told:
        each["module"] = "kit.long_gone"
        metric = keras.saving.deserialize_keras_object(each, saved.needed(each))
        assert f"kit>{type(metric).__name__}" == each["registered_name"]
        assert metric.classes == 3


def test_the_table_is_what_the_package_registers():
    """Every class of the kit that Keras can store is in the table, under the name it has."""
    registered, plain = {}, set()
    for module in pkgutil.walk_packages(kit.__path__, "kit."):
        if module.name.endswith("_torch"):
            continue  # needs PyTorch
        for name, thing in vars(importlib.import_module(module.name)).items():
            if not isinstance(thing, type) or not issubclass(thing, STORED):
                continue
            if thing.__module__ != module.name:
                continue
            known = keras.saving.get_registered_name(thing)
            if ">" in known:
                registered[known] = f"{module.name}:{name}"
            else:
                plain.add(known)
    assert registered == saved.REGISTERED
    assert plain == set(saved.NEVER_SAVED)


STORED = (
    KerasSaveable,
    keras.losses.Loss,
    keras.initializers.Initializer,
    keras.regularizers.Regularizer,
    keras.constraints.Constraint,
    keras.optimizers.schedules.LearningRateSchedule,
)


def test_the_saved_files_hold_every_class_of_the_table():
    found = {saved.UNREGISTERED.get(name, name) for name in stored_names()}
    assert set(saved.REGISTERED) <= found


def test_a_damaged_file_and_an_absent_one_are_what_keras_says_they_are(tmp_path):
    (tmp_path / "no.keras").write_bytes(b"PK\x03\x04 broken")
    for name in ("no.keras", "absent.keras"):
        with pytest.raises((OSError, ValueError)):
            saved.load(tmp_path / name)


def test_product_code_loads_models_here_only():
    files = [*(paths.ROOT / "kit").rglob("*.py"), *(paths.ROOT / "notebooks").glob("*.ipynb")]
    loading = {file.name for file in files if "load_model(" in file.read_text(encoding="utf-8")}
    assert loading == {"saved.py"}
