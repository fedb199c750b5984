"""Typed notebook parameters, checked before a kernel starts.

papermill hands over what it is given: a misspelt name only warns, ``-p x false`` arrives as a true
string. So the runner reads the cell tagged ``parameters`` itself (one ``name: type = literal  #
help`` a line), checks profile files and ``--set`` against it, and hands papermill nothing but
checked values.
"""

import ast
import io
import json
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from kit import paths
from kit.errors import KitError

TYPES = {"bool": bool, "int": int, "float": float, "str": str, "list": list, "dict": dict}


class BadParameter(KitError):
    """A parameter's name is unknown or its value has the wrong type."""


class BadParametersCell(KitError):
    """A notebook's parameters cell is absent or holds something else than typed literals."""


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell: its name, type name, default and help comment."""

    name: str
    type: str
    default: object
    help: str


def declared(notebook: Path | str) -> dict[str, Parameter]:
    """The parameters that a notebook declares, by name.

    Parameters
    ----------
    notebook : path-like

    Raises
    ------
    BadParametersCell
        If no cell is tagged ``parameters`` or a line of it is no typed literal.
    """
    notebook = Path(notebook)
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    tagged = [
        "".join(c["source"]) for c in cells if "parameters" in c.get("metadata", {}).get("tags", [])
    ]
    if len(tagged) != 1:
        raise BadParametersCell(
            f"{notebook.name} has {len(tagged)} cells tagged 'parameters'; it needs exactly one."
        )
    return _parse(tagged[0], notebook.name)


def _parse(source: str, where: str) -> dict[str, Parameter]:
    comments = {
        t.start[0]: t.string.lstrip("# ").strip()
        for t in tokenize.generate_tokens(io.StringIO(source).readline)
        if t.type == tokenize.COMMENT
    }
    found = {}
    for node in ast.parse(source).body:
        try:
            if not isinstance(node, ast.AnnAssign) or node.value is None:
                raise ValueError("no annotated assignment")
            if not isinstance(node.target, ast.Name):
                raise ValueError("no plain name")
            name, kind, value = (
                node.target.id,
                ast.unparse(node.annotation),
                ast.literal_eval(node.value),
            )
            _check(name, value, kind, where)
        except (AttributeError, ValueError, BadParameter) as error:
            raise BadParametersCell(
                f"{where}: `{ast.unparse(node)}` in the parameters cell is not `name: type = "
                "literal` "
                f"with a type out of {', '.join(TYPES)}."
            ) from error
        found[name] = Parameter(name, kind, value, comments.get(node.end_lineno or 0, ""))
    return found


def _check(name: str, value, kind: str, where: str):
    wanted = TYPES.get(kind)
    if wanted is float and type(value) is int:
        value = float(value)
    if wanted is None or type(value) is not wanted:
        raise BadParameter(f"{where}: {name} is {kind}, and {value!r} is not.")
    return value


def _parse_text(name: str, text: str, kind: str, where: str):
    """Read a value given on the command line as its declared type."""
    if kind == "str":
        return text
    if kind == "bool":
        lowered = text.strip().lower()
        if lowered not in {"true", "false"}:
            raise BadParameter(f"{where}: {name} is bool; write true or false, not {text!r}.")
        return lowered == "true"
    try:
        value = yaml.safe_load(text)
        if kind == "float" and not isinstance(value, (bool, list, dict)):
            value = float(value)  # YAML reads 1e-4 as text
    except (ValueError, TypeError, yaml.YAMLError):
        value = text
    return _check(name, value, kind, where)


def listing(parameters: dict[str, Parameter]) -> str:
    """The parameters as an indented list, for error messages and ``--help``."""
    return "\n".join(
        f"  {p.name}: {p.type} = {p.default!r}  {p.help}".rstrip() for p in parameters.values()
    )


def profile_values(profile: str, notebook: str) -> dict:
    """Content of ``profiles/<profile>/<notebook>.yml``; empty if there is no such file.

    Raises
    ------
    BadParameter
        If the profile does not exist or the file is no mapping.
    """
    folder = paths.profiles_dir() / profile
    if not folder.is_dir():
        known = sorted(p.name for p in paths.profiles_dir().iterdir() if p.is_dir())
        raise BadParameter(f"There is no profile {profile!r}; choose one of {', '.join(known)}.")
    file = folder / f"{notebook}.yml"
    values = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}) if file.exists() else {}
    if not isinstance(values, dict):
        raise BadParameter(f"{file} is no list of `name: value` lines.")
    return values


def resolve(
    notebook: Path | str,
    profile: str,
    assignments: Sequence[tuple[str, str]] = (),
    ignore_unknown: bool = False,
) -> dict:
    """All parameters of a notebook: its defaults, overlaid by the profile, overlaid by ``--set``.

    Parameters
    ----------
    notebook : path-like
    profile : str
        Also given to the notebook as its parameter ``profile``.
    assignments : sequence of (name, text)
        From the command line; the text is read as the declared type.
    ignore_unknown : bool
        Leave out assignments that this notebook does not declare (the runner checks that some
        notebook does).

    Returns
    -------
    dict
        name -> value, every one of the declared type.

    Raises
    ------
    BadParameter
        For an unknown name or a wrong type, with the notebook's own list.
    """
    notebook = Path(notebook)
    parameters = declared(notebook)
    values = {name: p.default for name, p in parameters.items()}
    given = {
        **profile_values(profile, notebook.stem),
        **({"profile": profile} if "profile" in parameters else {}),
    }
    for name, value in given.items():
        values[name] = _check(
            name,
            value,
            _kind(name, parameters, f"profiles/{profile}/{notebook.stem}.yml"),
            f"profiles/{profile}/{notebook.stem}.yml",
        )
    for name, text in assignments:
        if name not in parameters and ignore_unknown:
            continue
        values[name] = _parse_text(
            name, text, _kind(name, parameters, notebook.stem), notebook.stem
        )
    return values


def _kind(name: str, parameters: dict[str, Parameter], where: str) -> str:
    if name not in parameters:
        raise BadParameter(
            f"{where}: there is no parameter {name!r}; this notebook has\n{listing(parameters)}"
        )
    return parameters[name].type
