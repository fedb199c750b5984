import json

import pytest

from kit import params, paths

CELL = """profile: str = "quick"  # which results folder
epochs: int = 3  # passes over the data
rate: float = 1e-4  # step size
verbose: bool = False
sizes: list = [32, 64]
"""


def notebook(folder, source=CELL, name="77_test.ipynb", tags=("parameters",)):
    cell = {
        "cell_type": "code",
        "metadata": {"tags": list(tags)},
        "source": source,
        "outputs": [],
        "execution_count": None,
    }
    file = folder / name
    file.write_text(
        json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    )
    return file


@pytest.fixture
def profiles(tmp_path, monkeypatch):
    folder = tmp_path / "profiles"
    (folder / "quick").mkdir(parents=True)
    monkeypatch.setattr(paths, "profiles_dir", lambda: folder)
    return folder / "quick"


def test_declared_reads_types_defaults_and_help(tmp_path):
    found = params.declared(notebook(tmp_path))
    assert [(p.name, p.type, p.default) for p in found.values()] == [
        ("profile", "str", "quick"),
        ("epochs", "int", 3),
        ("rate", "float", 1e-4),
        ("verbose", "bool", False),
        ("sizes", "list", [32, 64]),
    ]
    assert found["rate"].help == "step size"


@pytest.mark.parametrize(
    "source",
    ["epochs = 3", "epochs: int = 1 + n", "import os", "epochs: int = '3'", "x: path = 'a'"],
)
def test_a_cell_of_anything_else_is_refused(tmp_path, source):
    with pytest.raises(params.BadParametersCell, match="77_test"):
        params.declared(notebook(tmp_path, source))


def test_a_notebook_without_the_tag_is_refused(tmp_path):
    with pytest.raises(params.BadParametersCell, match="0 cells"):
        params.declared(notebook(tmp_path, tags=()))


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("false", "verbose", False),
        ("TRUE", "verbose", True),
        ("7", "epochs", 7),
        ("1e-3", "rate", 1e-3),
        ("2", "rate", 2.0),
        ("[1, 2]", "sizes", [1, 2]),
        ("no", "profile", "no"),
    ],
)
def test_set_is_read_as_the_declared_type(tmp_path, profiles, text, name, value):
    got = params.resolve(notebook(tmp_path), "quick", [(name, text)])[name]
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("verbose", "0"),
        ("epochs", "2.5"),
        ("epochs", "true"),
        ("rate", "fast"),
        ("sizes", "3"),
        ("epochs", "["),
    ],
)
def test_a_wrong_type_is_refused(tmp_path, profiles, name, text):
    with pytest.raises(params.BadParameter, match=name):
        params.resolve(notebook(tmp_path), "quick", [(name, text)])


def test_a_misspelt_name_is_refused_with_the_notebooks_list(tmp_path, profiles):
    with pytest.raises(
        params.BadParameter, match=r"'epoch'(.|\n)*epochs: int = 3  passes over the data"
    ):
        params.resolve(notebook(tmp_path), "quick", [("epoch", "3")])


def test_profile_file_overlays_defaults_and_is_checked(tmp_path, profiles):
    (profiles / "77_test.yml").write_text("epochs: 9\n")
    assert params.resolve(notebook(tmp_path), "quick")["epochs"] == 9
    (profiles / "77_test.yml").write_text("epochs: nine\n")
    with pytest.raises(params.BadParameter, match=r"profiles/quick/77_test\.yml: epochs is int"):
        params.resolve(notebook(tmp_path), "quick")


def test_an_unknown_profile_names_the_known_ones(tmp_path, profiles):
    with pytest.raises(params.BadParameter, match=r"'fast'.*quick"):
        params.resolve(notebook(tmp_path), "fast")


def test_every_profile_file_of_the_project_fits_its_notebook():
    for file in paths.profiles_dir().glob("*/*.yml"):
        values = params.resolve(paths.notebooks_dir() / f"{file.stem}.ipynb", file.parent.name)
        assert values["profile"] == file.parent.name
