from pathlib import Path

import pytest

from kit import paths


def test_the_root_is_the_checkout_and_its_folders_are_there():
    assert (paths.ROOT / "pyproject.toml").is_file()
    assert (paths.ROOT / "kit" / "paths.py").samefile(paths.__file__)
    for folder in (paths.papers_dir(), paths.profiles_dir(), paths.notebooks_dir()):
        assert folder.is_dir()
        assert folder.is_relative_to(paths.ROOT)


@pytest.mark.parametrize(
    ("variable", "function"),
    [
        ("KIT_DATA", paths.data_dir),
        ("KIT_RESULTS", paths.results_dir),
        ("KIT_CACHE", paths.cache_dir),
    ],
)
def test_a_variable_moves_the_folder(variable, function, tmp_path, monkeypatch):
    monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))
    assert function() == (tmp_path / "elsewhere").resolve()
    monkeypatch.setenv(variable, "~/elsewhere")
    assert function() == Path("~/elsewhere").expanduser().resolve()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "beside")
    assert function() == tmp_path.resolve() / "beside"


def test_without_variables_everything_lies_in_the_checkout(monkeypatch, tmp_path):
    for variable in ("KIT_DATA", "KIT_RESULTS", "KIT_CACHE"):
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    assert (paths.data_dir(), paths.results_dir(), paths.cache_dir()) == (
        paths.ROOT / "data",
        paths.ROOT / "results",
        paths.ROOT / "data" / ".cache",
    )
    monkeypatch.setenv("KIT_RESULTS", "")  # as a shell script that passes an unset variable on
    assert paths.results_dir() == paths.ROOT / "results"


def test_the_cache_follows_the_data(monkeypatch, tmp_path):
    monkeypatch.delenv("KIT_CACHE")
    monkeypatch.setenv("KIT_DATA", str(tmp_path))
    assert paths.cache_dir() == tmp_path.resolve() / ".cache"
