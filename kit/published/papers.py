"""The publications as data: loads and checks ``papers/<key>.yml``.

A file lists every table, figure and number in prose with its published value, the notebook that
regenerates it, the published settings, the known slips and the checks that
`kit.published.forensics` runs. A published value is addressed by ``<artefact>/<row>/<column>`` (for
example ``table-1/cnn.fold1/accuracy``), a number in prose by ``claims/<id>``. What the authors'
code, logs or weights show beside the printed text lies under ``records``; it is evidence, never a
published value, and is kept apart.
"""

import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from kit import paths
from kit.errors import KitError
from kit.evaluation.answers import DIRECTIONS
from kit.published.schema import (
    CONCLUSION_FIELDS,
    CONCLUSION_NEEDED,
    RELATIONS,
    STATISTICS,
    VALUE_KINDS,
    Artefact,
    Claim,
    Conclusion,
    Paper,
    Published,
    UnknownValue,
)

REQUIRED = (
    "key",
    "title",
    "authors",
    "venue",
    "year",
    "doi",
    "data",
    "notebooks",
    "hyperparameters",
    "artefacts",
    "claims",
    "checks",
    "slips",
)
OPTIONAL = ("records", "note", "conclusions")
KINDS = ("table", "figure")
BLOCK_FIELDS = {"unit", "decimals", "n", "columns", "rows", "notes", "kind", "kinds"} | {
    "statistic",
    "of",
    "test_over_train",
}
ID = re.compile(r"[a-z0-9]+(?:[-.][a-z0-9]+)*")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+()=-]*")


class UnknownPaper(KitError):
    """There is no file for that publication."""


class BadPaperFile(KitError):
    """A publication's file breaks the schema."""


def keys() -> list[str]:
    """Keys of all publications, sorted."""
    return sorted(path.stem for path in paths.papers_dir().glob("*.yml"))


@cache
def load(key: str) -> Paper:
    """Read and check one publication.

    Parameters
    ----------
    key : str
        One of `keys()`.

    Returns
    -------
    Paper

    Raises
    ------
    UnknownPaper
        If there is no such file.
    BadPaperFile
        If the file breaks the schema; the sentence names the place.
    """
    path = paths.papers_dir() / f"{key}.yml"
    if not path.is_file():
        raise UnknownPaper(f"There is no publication {key!r}; choose one of {', '.join(keys())}.")
    return read(path)


def read(path: Path) -> Paper:
    """Like `load`, from any file."""
    path = Path(path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadPaperFile(
            f"{path.name} is not valid YAML; correct this: {' '.join(str(error).split())}."
        ) from None
    return _build(raw, path)


def _demand(condition, path, message):
    if not condition:
        raise BadPaperFile(f"{path.name}: {message}.")


def _build(raw, path):
    _demand(isinstance(raw, dict), path, "the file must be a mapping with the keys of the schema")
    missing, unknown = (
        [k for k in REQUIRED if k not in raw],
        [k for k in raw if k not in REQUIRED + OPTIONAL],
    )
    _demand(not missing, path, f"add the missing top-level keys {', '.join(missing)}")
    _demand(not unknown, path, f"remove the unknown top-level keys {', '.join(map(str, unknown))}")
    _demand(raw["key"] == path.stem, path, f"key must equal the file name, but is {raw['key']!r}")
    artefacts, values, texts = _artefacts(raw["artefacts"], raw["notebooks"], path)
    claims = _claims(raw["claims"], raw["notebooks"], values, path)
    concluded = _conclusions(raw.get("conclusions") or [], raw["notebooks"], values, path)
    records, recorded, _ = _artefacts(raw.get("records") or [], None, path)
    clash = {a.id for a in artefacts} & {a.id for a in records}
    _demand(
        not clash, path, f"records need ids of their own, but {', '.join(sorted(clash))} is taken"
    )
    _listed(raw["checks"], {"kind"}, "checks", path)
    _listed(raw["slips"], {"where", "issue", "use"}, "slips", path)
    settings = raw["hyperparameters"]
    flat = isinstance(settings, dict) and not any(isinstance(v, dict) for v in settings.values())
    _demand(flat, path, "hyperparameters must be a flat mapping of names to values")
    plain: dict[str, Any] = {
        k: raw[k] for k in ("key", "title", "venue", "year", "doi", "hyperparameters")
    }
    lists: dict[str, Any] = {
        k: tuple(raw[k]) for k in ("authors", "data", "notebooks", "checks", "slips")
    }
    return Paper(
        **plain,
        **lists,
        artefacts=artefacts,
        claims=claims,
        values=values,
        texts=texts,
        records=records,
        recorded=recorded,
        conclusions=concluded,
        note=raw.get("note", ""),
    )


def _listed(items, fields, name, path):
    _demand(isinstance(items, list), path, f"{name} must be a list")
    for position, item in enumerate(items, 1):
        _demand(
            isinstance(item, dict) and fields <= set(item),
            path,
            f"item {position} of {name} needs the keys {', '.join(sorted(fields))}",
        )


def _artefacts(items, notebooks, path):
    fields = {"id", "title"} if notebooks is None else {"id", "kind", "title", "notebook"}
    _listed(items, fields, "records" if notebooks is None else "artefacts", path)
    found: list[Artefact] = []
    values: dict[str, Published] = {}
    texts: dict[str, str] = {}
    for item in items:
        _demand(
            ID.fullmatch(str(item["id"])),
            path,
            f"artefact id {item['id']!r} must be lower-case words joined by hyphens",
        )
        _demand(
            item["id"] not in {a.id for a in found} | {"claims"},
            path,
            f"artefact id {item['id']} is used twice or reserved",
        )
        kind = item.get("kind", "record")
        _demand(
            notebooks is None or kind in KINDS,
            path,
            f"{item['id']} must be a table or a figure, not {kind!r}",
        )
        _demand(
            notebooks is None or item["notebook"] in notebooks,
            path,
            f"{item['id']} names a notebook that `notebooks` does not list",
        )
        found.append(
            Artefact(
                item["id"], kind, item["title"], item.get("notebook", ""), item.get("note", "")
            )
        )
        for block in item.get("blocks", []):
            _block(item["id"], block, values, texts, path, printed=notebooks is not None)
    return tuple(found), values, texts


def _block(artefact, block, values, texts, path, printed):
    _demand(
        {"columns", "rows"} <= set(block) <= BLOCK_FIELDS,
        path,
        f"a block of {artefact} has the fields {', '.join(map(str, block))}",
    )
    columns, notes = block["columns"], block.get("notes", {})
    for row, cells in block["rows"].items():
        row = str(row)
        _demand(
            isinstance(cells, list) and len(cells) == len(columns),
            path,
            f"row {row} of {artefact} needs {len(columns)} cells",
        )
        for column, cell in (
            (column, cell) for column, cell in zip(columns, cells, strict=False) if cell is not None
        ):
            named = NAME.fullmatch(row) and NAME.fullmatch(str(column))
            _demand(named, path, f"{artefact}/{row}/{column} is no valid value id")
            note = _of_cell(notes, row, column, "")
            entry = Published(
                value=cell,
                unit=block.get("unit", ""),
                decimals=block.get("decimals", 0),
                n=block.get("n"),
                artefact=artefact,
                row=row,
                column=str(column),
                note=note,
                kind=_of_cell(block.get("kinds", {}), row, column, block.get("kind", "")),
                statistic=block.get("statistic", ""),
                of=tuple(p.format(column) for p in _listed_cell(block.get("of", {}), row)),
                test_over_train=block.get("test_over_train", 0.0),
            )
            _demand(
                entry.statistic in STATISTICS and bool(entry.statistic) == bool(entry.of),
                path,
                f"{entry.id} is no mean and no variance of named values; give both statistic "
                "and of, or neither",
            )
            _demand(
                entry.id not in values and entry.id not in texts, path, f"{entry.id} is given twice"
            )
            _cell(entry, values, texts, path, demand_kind=printed)


def _listed_cell(table, row):
    found = table.get(row, ())
    return [found] if isinstance(found, str) else found


def _of_cell(table, row, column, otherwise):
    """The entry of a mapping that may name a cell, its row or its column."""
    return table.get(f"{row}/{column}", table.get(row, table.get(column, otherwise)))


def _cell(entry, values, texts, path, demand_kind):
    if isinstance(entry.value, str):
        texts[entry.id] = entry.value
        return
    _number(entry, path, demand_kind)
    values[entry.id] = entry


def _number(entry, path, demand_kind=True):
    _demand(
        entry.kind in VALUE_KINDS or not (entry.kind or demand_kind),
        path,
        f"{entry.id} needs a kind, one of {', '.join(VALUE_KINDS)}",
    )
    _demand(
        isinstance(entry.value, (int, float))
        and math.isfinite(entry.value)
        and not isinstance(entry.value, bool),
        path,
        f"{entry.id} must be a number, a word or null",
    )
    _demand(
        isinstance(entry.decimals, int) and entry.decimals >= 0,
        path,
        f"{entry.id} needs its number of decimals",
    )
    _demand(
        abs(round(entry.value, entry.decimals) - entry.value) < 1e-9 * max(1, abs(entry.value)),
        path,
        f"{entry.id} is {entry.value!r}, which has more than {entry.decimals} decimals",
    )


def _claims(items, notebooks, values, path):
    _listed(items, {"id", "text"}, "claims", path)
    found: list[Claim] = []
    for item in items:
        unknown = set(item) - set(Claim.__dataclass_fields__)
        _demand(
            not unknown,
            path,
            f"claim {item['id']} has the unknown fields {', '.join(sorted(unknown))}",
        )
        claim = Claim(**item)
        _demand(
            NAME.fullmatch(claim.id) and claim.id not in {c.id for c in found},
            path,
            f"claim id {claim.id!r} is used twice or not valid",
        )
        _demand(
            not claim.notebook or claim.notebook in notebooks,
            path,
            f"claim {claim.id} names a notebook that `notebooks` does not list",
        )
        if claim.value is not None:
            entry = Published(
                value=claim.value,
                unit=claim.unit,
                decimals=claim.decimals or 0,
                n=claim.n,
                artefact="claims",
                row=claim.id,
                column="",
                note=claim.note,
                kind=claim.kind,
            )
            _demand(
                claim.relation in RELATIONS,
                path,
                f"the relation of claim {claim.id} must be one of {' '.join(RELATIONS)}",
            )
            _number(entry, path)
            values[entry.id] = entry
        found.append(claim)
    return tuple(found)


def _conclusions(items, notebooks, values, path):
    _listed(items, CONCLUSION_NEEDED, "conclusions", path)
    found: list[Conclusion] = []
    for item in items:
        unknown = set(item) - CONCLUSION_FIELDS
        _demand(
            not unknown,
            path,
            f"conclusion {item['id']} has the unknown fields {', '.join(sorted(unknown))}",
        )
        plain = {**item, "compares": tuple(item["compares"])}
        plain["printed"] = tuple(tuple(pair) for pair in item.get("printed", ()))
        one = Conclusion(**plain)
        _demand(
            ID.fullmatch(one.id) and one.id not in {c.id for c in found},
            path,
            f"conclusion id {one.id!r} is used twice or not valid",
        )
        _demand(
            one.direction in DIRECTIONS and len(one.compares) == 2 and one.notebook in notebooks,
            path,
            f"conclusion {one.id} needs a direction ({', '.join(DIRECTIONS)}), two quantities and "
            "a listed notebook",
        )
        absent = [i for pair in one.printed for i in pair if i not in values]
        _demand(not absent, path, f"conclusion {one.id} names no printed value {absent[:1]}")
        found.append(one)
    return tuple(found)


def departures(paper: Paper, used: dict) -> list[str]:
    """What a run does otherwise than the publication states.

    Parameters
    ----------
    paper : Paper
    used : dict
        Names of `paper.hyperparameters` -> value of the run. A hyper-parameter that the publication
        leaves open (null) is not compared.

    Returns
    -------
    list of str
        One entry a difference, e.g. "epochs 6 instead of 30".

    Raises
    ------
    UnknownValue
        If the publication's file lists no such hyper-parameter.
    """
    for name in used:
        if name not in paper.hyperparameters:
            raise UnknownValue(
                f"papers/{paper.key}.yml lists no hyper-parameter {name!r}; it has "
                f"{', '.join(paper.hyperparameters)}."
            )
    stated = {name: paper.hyperparameters[name] for name in used}
    return [
        f"{name.replace('_', ' ')} {used[name]} instead of {stated[name]}"
        for name in used
        if stated[name] is not None and used[name] != stated[name]
    ]


def shared(lines: dict[str, list[str]]) -> list[str]:
    """Notes of several systems as one list, for an artefact that shows them all: what holds for all
    once, the rest with the system's name.

    Parameters
    ----------
    lines : dict of str to list of str
        Name of a system -> its notes, e.g. from :func:`departures`.
    """
    owners: dict[str, list[str]] = {}
    for name, own in lines.items():
        for line in own:
            owners.setdefault(line, []).append(name)
    return [
        line if len(names) == len(lines) else f"{', '.join(names)}: {line}"
        for line, names in sorted(owners.items(), key=lambda item: -len(item[1]))
    ]
