"""The layout: what may import what, no circles, nothing imported late, nothing that nobody
reaches.
"""

import ast
import json
import re
from pathlib import Path

import pytest

from kit import paths

KIT = paths.ROOT / "kit"
DOORS = {"app", "runner", "jobs", "doctor", "reference", "judge", "rehearse", "duplicates"}
LEVELS = {
    "ground": 0,
    "evaluation": 1,
    "models": 1,
    "data": 1,
    "training": 2,
    "explain": 2,
    "published": 2,
    "report": 3,
    "serving": 3,
    "search": 4,
    "studies": 5,
    "benchmarks": 6,
    "doors": 7,
}
# may be imported inside a function: they take seconds, or few need them
LATE = ("tensorflow", "keras", "selenium", "keras_tuner", "niapy", "pydicom", "streamlit")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(paths.ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_name(p): p for p in sorted(KIT.rglob("*.py"))}


def room(module: str) -> str:
    parts = module.split(".")
    if len(parts) < 3 and FILES[module].name != "__init__.py":
        return "doors" if parts[-1] in DOORS else "ground"
    return parts[1] if len(parts) > 1 else "ground"


def imported(node) -> set[str]:
    """The kit's modules that an import statement names."""
    if isinstance(node, ast.Import):
        return {a.name for a in node.names if a.name in FILES}
    if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("kit"):
        return set()
    below = {f"{node.module}.{a.name}" for a in node.names}
    return {name if name in FILES else node.module for name in below}


def imports(module: str) -> set[str]:
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    return set().union(*(imported(node) for node in ast.walk(tree)))


GRAPH = {module: imports(module) for module in FILES}


@pytest.mark.parametrize("module", FILES)
def test_imports_go_down(module):
    level = LEVELS[room(module)]
    upward = [other for other in GRAPH[module] if LEVELS[room(other)] > level]
    assert not upward, f"{module} imports {upward}, which stand above it"


def bound(module: str) -> set[str]:
    """The names that a module defines or imports outside of functions and classes."""
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    waiting, names = list(tree.body), set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, inner):
            names.add(getattr(node, "name", ""))
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(a.asname or a.name).split(".")[0] for a in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        waiting += ast.iter_child_nodes(node)
    return names


BOUND = {module: bound(module) for module in FILES}


@pytest.mark.parametrize("module", FILES)
def test_what_is_imported_exists(module):
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    missing = [
        f"{node.module}.{name.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in FILES
        for name in node.names
        if name.name not in BOUND[node.module] and f"{node.module}.{name.name}" not in FILES
    ]
    assert not missing, f"{module} imports {missing}, which is not there"


def test_studies_do_not_import_each_other():
    for module, others in GRAPH.items():
        if module.startswith("kit.studies.") and module != "kit.studies.shared":
            study = module.split(".")[2]
            foreign = {
                o
                for o in others
                if o.startswith("kit.studies.") and o.split(".")[2] not in (study, "shared")
            }
            assert not foreign, f"{module} imports {foreign}"


def test_there_are_no_circles():
    rest = {module: set(others) - {module} for module, others in GRAPH.items()}
    while free := [module for module, others in rest.items() if not others & rest.keys()]:
        for module in free:
            del rest[module]
    assert not rest, f"these import each other: {sorted(rest)}"


@pytest.mark.parametrize("module", FILES)
def test_only_slow_libraries_are_imported_late(module):
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    late = {
        node
        for part in ast.walk(tree)
        if isinstance(part, ast.FunctionDef)
        for node in ast.walk(part)
    }
    names = {
        (getattr(n, "module", None) or n.names[0].name).split(".")[0]
        for n in late
        if isinstance(n, ast.Import | ast.ImportFrom)
    }
    assert names <= set(LATE), f"{module} imports {names - set(LATE)} inside a function"


def test_everything_is_reached_from_a_notebook_a_door_or_a_benchmark():
    cells = [
        c
        for n in paths.notebooks_dir().glob("*.ipynb")
        for c in json.loads(n.read_text(encoding="utf-8"))["cells"]
    ]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    waiting = set().union(*(imported(node) for node in ast.walk(ast.parse(code))))
    waiting |= {m for m in FILES if room(m) in ("doors", "benchmarks")}
    reached = set()
    while waiting:
        module = waiting.pop()
        reached.add(module)
        named = set(re.findall(r'"(kit\.[\w.]+):\w+"', FILES[module].read_text(encoding="utf-8")))
        waiting |= (GRAPH[module] | named & FILES.keys()) - reached
    unreached = {m for m in FILES if FILES[m].name != "__init__.py"} - reached
    assert not unreached, f"nothing uses {sorted(unreached)}"


# may lack hints still; a file leaves the list when it has them
UNHINTED = {
    "kit/benchmarks/sides.py",
    "kit/data/duplicates.py",
    "kit/studies/shared.py",
}


def hintless(path: Path) -> list[str]:
    """The public functions and methods of a file with a parameter or a return without type hint:
    of the module and of its public classes.
    """
    found, waiting = [], [("", ast.parse(path.read_text(encoding="utf-8")).body)]
    while waiting:
        owner, body = waiting.pop()
        for node in body:
            if isinstance(node, ast.If | ast.Try):
                waiting.append((owner, node.body))
            special = getattr(node, "name", "").startswith("__")
            if getattr(node, "name", "_").startswith("_") and not special:
                continue
            if isinstance(node, ast.ClassDef):
                waiting.append((f"{owner}{node.name}.", node.body))
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                static = any(getattr(d, "id", "") == "staticmethod" for d in node.decorator_list)
                given = node.args.posonlyargs + node.args.args
                given = given[1:] if owner and not static else given
                given += [*node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
                bare = [a.arg for a in given if a is not None and a.annotation is None]
                bare += ["return"] * (node.returns is None)
                found += [f"{owner}{node.name}: {', '.join(bare)}"] * bool(bare)
    return found


def test_public_functions_have_type_hints():
    hinted = [*KIT.rglob("*.py"), *(paths.ROOT / "data_prep").rglob("*.py")]
    without = {
        p.relative_to(paths.ROOT).as_posix(): found for p in hinted if (found := hintless(p))
    }
    missing = {name: found for name, found in without.items() if name not in UNHINTED}
    assert not missing, f"type hints are missing: {missing}"
    assert without.keys() >= UNHINTED, f"have hints by now: {sorted(UNHINTED - without.keys())}"
