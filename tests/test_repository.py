"""What a public repository has beside its code: it agrees, parses, and names what exists."""

import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml

import kit
from kit import paths
from kit.data import registry

ROOT = paths.ROOT
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
CHECKED = [
    ROOT / "CITATION.cff",
    ROOT / ".pre-commit-config.yaml",
    ROOT / "environment.yml",
    *WORKFLOWS,
    *FORMS,
]
# programs that the machines of the workflows have, and those of the project's environment
SYSTEM = {"bash", "apt-get"}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def parsed(name: str):
    return yaml.safe_load(read(name))


def development_tools() -> set[str]:
    """Names of the development group's packages."""
    return {re.split(r"[<>=~!\[ ]", line)[0] for line in PROJECT["dependency-groups"]["dev"]}


def missing(command: str) -> list[str]:
    """What a command line of a workflow or hook names and the repository does not have."""
    lacks = []
    for line in re.split(r"&&|\n", command):
        words = line.split()
        if not words:
            continue
        program, *rest = words
        if program.startswith(".venv/bin/"):
            lacks += {program.removeprefix(".venv/bin/")} - development_tools()
        elif program not in SYSTEM:
            lacks.append(program)
        elif program == "bash" and not (ROOT / rest[0]).is_file():
            lacks.append(rest[0])
    return lacks


@pytest.mark.parametrize("path", CHECKED, ids=lambda path: path.name)
def test_yaml_parses(path):
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_the_version_stands_in_the_package_and_is_repeated_where_tools_cannot_read_it():
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert "version" not in PROJECT["project"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "kit/__init__.py"
    assert parsed("CITATION.cff")["version"] == kit.__version__
    releases = re.findall(r"^## \[(.+?)\]", read("CHANGELOG.md"), re.MULTILINE)
    assert releases[:2] == ["Unreleased", kit.__version__]


def test_the_version_is_had_without_heavy_imports():
    code = "import sys; old = set(sys.modules); import kit; print(*(set(sys.modules) - old))"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert shown.stdout.split() == ["kit"]


def test_the_citation_has_what_the_format_requires():
    citation = parsed("CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "type", "abstract"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= set(reference)
        assert reference["authors"]


def test_the_citation_refers_to_each_publication():
    files = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "papers").glob("*.yml"))]
    references = parsed("CITATION.cff")["references"]
    dois = {reference.get("doi") for reference in references}
    assert {paper["doi"] for paper in files} <= dois
    titles = [reference["title"].lower() for reference in references]
    for paper in files:
        assert any(paper["title"].lower().startswith(title) for title in titles), paper["key"]


def test_the_licence_is_the_same_everywhere():
    assert read("LICENSE").startswith("MIT License")
    assert PROJECT["project"]["license"] == parsed("CITATION.cff")["license"] == "MIT"
    assert all((ROOT / name).is_file() for name in PROJECT["project"]["license-files"])


def test_the_notices_have_each_data_set_with_its_licence():
    rows = dict(
        re.findall(r"^\| `(\S+)` \| (.+) \|$", read("THIRD_PARTY_NOTICES.md"), re.MULTILINE)
    )
    entries = registry_file()
    assert set(rows) == set(entries)
    for name, entry in entries.items():
        assert entry["licence"] in rows[name], name
        assert entry.get("url", "") in rows[name], name


def registry_file() -> dict:
    """The registry's file, wherever in the package it lies; without sets of one's own."""
    (path,) = (ROOT / "kit").rglob("datasets.yml")
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(entries) <= set(registry.names())
    return entries


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_name_commands_that_exist(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert True in workflow or "on" in workflow  # YAML 1.1 reads the key on as true
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] > 0
        for step in job["steps"]:
            assert "run" in step or re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"]), step
            assert missing(step.get("run", "")) == []


def test_a_command_that_does_not_exist_is_found():
    assert missing(".venv/bin/rough check .") == ["rough"]
    assert missing("bash run_most.sh --test && make") == ["run_most.sh", "make"]
    assert missing("bash run_all.sh --test") == []


def test_hooks_name_programs_that_exist_and_pin_the_others():
    for repository in parsed(".pre-commit-config.yaml")["repos"]:
        if repository["repo"] != "local":
            assert re.fullmatch(r"v?\d+(\.\d+)+", repository["rev"]), repository["repo"]
            continue
        for hook in repository["hooks"]:
            assert hook["language"] == "system"
            assert missing(hook["entry"]) == []


def test_no_committed_file_but_published_results_is_larger_than_the_hook_allows():
    if not (shutil.which("git") and (ROOT / ".git").exists()):
        pytest.skip("no git checkout")
    names = subprocess.run(
        ["git", "ls-files", "-z", ":!results/reference"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout.split("\0")
    hooks = [hook for repo in parsed(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    (arguments,) = (h["args"] for h in hooks if h["id"] == "check-added-large-files")
    limit = int(arguments[0].removeprefix("--maxkb=")) * 1024
    files = [ROOT / name for name in names if name and (ROOT / name).is_file()]
    assert [file.name for file in files if file.stat().st_size > limit] == []


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_forms_have_what_the_host_requires(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.stem == "config":
        assert set(form) <= {"blank_issues_enabled", "contact_links"}
        return
    assert {"name", "description", "body"} <= set(form)
    fields = [field["id"] for field in form["body"]]
    assert len(fields) == len(set(fields))
    for field in form["body"]:
        options = field["attributes"].get("options", [])
        assert field["type"] == "checkboxes" or all(isinstance(o, str) for o in options), field


def test_the_verdict_form_offers_each_publication():
    form = parsed(".github/ISSUE_TEMPLATE/verdict.yml")
    (keys,) = (f["attributes"]["options"] for f in form["body"] if f["id"] == "paper")
    assert sorted(keys) == sorted(path.stem for path in (ROOT / "papers").glob("*.yml"))
