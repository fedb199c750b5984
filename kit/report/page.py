"""One page for the reviewer: every artefact of every publication, what was published, what we got,
and what it rests on.

``results/<profile>/index.html`` is a single file without external resources that works from
``file://``; figures and downloads are relative links beside it. It is a function of the results
folder, ``papers/`` and nothing else: no date, no absolute path.
"""

import math
from pathlib import Path
from urllib.parse import quote

import jinja2
import pandas as pd
from markupsafe import Markup, escape
from PIL import Image

from kit import files as files_module
from kit import paths
from kit.errors import KitError
from kit.published import forensics, papers
from kit.report import artefacts, cells, conclusions, verdicts

SYMBOLS = {
    "supported": "✓",
    "contradicted": "✗",
    "undecided": "?",
    "not comparable": "≁",
    "inconsistent as printed": "≠",
    "impossible as published": "⚠",
    "missing": "○",
    "not judged": "·",
}
MOST_ROWS = 40
BOX = (132, 18)


class NoResults(KitError):
    """The results folder is not there."""


def build(profile: str) -> Path:
    """Write ``results/<profile>/index.html`` from what lies in that folder now, and return its
    path.

    Parameters
    ----------
    profile : str
        Name of the results folder; it need not exist: everything is then listed as missing.

    Raises
    ------
    record.CannotWrite
        If the page cannot be written.
    """
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        symbols=SYMBOLS, shown=cells.shown, slug=slug, place=place, repeated=repeated
    )
    target = paths.results_dir() / profile / "index.html"
    files_module.write_text(
        target, environment.get_template("page.html.j2").render(**context(profile))
    )
    return target


def context(profile: str) -> dict:
    """Everything the template shows, as plain values."""
    expected = artefacts.all_expected()
    published = set(papers.keys())
    own = [key for key in dict.fromkeys(e["paper"] for e in expected) if key not in published]
    sections = [own_section(key, profile, expected) for key in own if key != "summary"]
    sections += [paper_section(paper, profile, expected) for paper in artefacts.all_papers()]
    counts = verdicts.coverage(profile)
    return {
        "profile": profile,
        "sections": sections,
        "overview": counts.to_dict("records"),
        "kinds": verdicts.KINDS,
        "judged": verdicts.JUDGED,
        "summary": own_section("summary", profile, expected),
        "notebooks": notebooks(profile),
        "warnings": warnings(profile, [s["key"] for s in sections]),
    }


def warnings(profile: str, keys: list[str]) -> list[str]:
    """What the head of the page says about all results together; each artefact says its own part in
    full.
    """
    entries = [
        e
        for key in keys
        for part in verdicts.results(key, profile)
        for e in part.values()
        if e.get("data")
    ]
    embedded = sorted({e["data"] for e in entries if e.get("embedded")})
    replaced = sorted(
        {
            f"{e['data']} for {e['stand_in_for']}"
            for e in entries
            if e.get("stand_in_for") and not e.get("embedded")
        }
        | {e["stand_in"] for e in entries if e.get("stand_in")}
    )
    lacking = sorted(
        {f"{e['data']} lacks {len(e['incomplete'])} images" for e in entries if e.get("incomplete")}
    )
    reduced = sum(bool(e.get("reductions")) for e in entries)
    lines = {
        f"Embedded data ({', '.join(embedded)}): generated or bundled, not the published data. "
        "Nothing measured on it is compared with a published number.": embedded,
        f"Stand-ins: {'; '.join(replaced)}.": replaced,
        f"Incomplete data: {'; '.join(lacking)}.": lacking,
        f"Reduced settings in {reduced} of {len(entries)} stored artefacts and numbers; each "
        "names its own.": reduced,
    }
    return [line for line, applies in lines.items() if applies]


def own_section(key: str, profile: str, expected: list[dict]) -> dict:
    """A folder that belongs to no publication: the audit of the data sets, the summary."""
    return {
        "key": key,
        "paper": None,
        "conclusions": [],
        "title": {"audit": "Audit of the data sets"}.get(key, key.capitalize()),
        **_body(key, profile, expected, None),
    }


def paper_section(paper: papers.Paper, profile: str, expected: list[dict]) -> dict:
    """One publication: its artefacts, the numbers in its prose, forensic findings, slips, published
    settings and runs.
    """
    table = verdicts.verdict_table(paper.key, profile)
    return {
        "key": paper.key,
        "paper": paper,
        "title": paper.title,
        "conclusions": conclusions.table(paper.key, profile),
        **_body(paper.key, profile, expected, table),
    }


def _body(key: str, profile: str, expected: list[dict], table: pd.DataFrame | None) -> dict:
    listed, stored = verdicts.results(key, profile)
    wanted = [e for e in expected if e["paper"] == key]
    wanted += [e for i, e in listed.items() if i not in {w["id"] for w in wanted}]
    rows = (
        []
        if table is None
        else [
            _reading(row, text, key)
            for row, text in zip(
                table.to_dict("records"), verdicts.printed(table).to_dict("records"), strict=False
            )
        ]
    )
    cards = [
        card(
            entry,
            listed.get(entry["id"]),
            [r for r in rows if r["artefact"] == entry["id"]],
            key,
            profile,
        )
        for entry in wanted
    ]
    states = [c["status"] for c in cards if not c["extra"]]
    return {
        "cards": cards,
        "promised": len(states),
        "claims": [r for r in rows if r["artefact"] == "claims"],
        "states": {s: states.count(s) for s in ("written", "missing", "failed")},
        "verdicts": {kind: sum(r["verdict"] == kind for r in rows) for kind in verdicts.KINDS},
        "runs": runs(key, profile),
        "findings": [] if table is None else findings(key, {r["value"] for r in rows}),
        "caveats": sorted(
            {
                artefacts.caveat(e)
                for e in [*listed.values(), *stored.values()]
                if artefacts.caveat(e)
            }
        ),
    }


def repeated(rows: list[dict]) -> list[str]:
    """The reasons that several rows of one table give, in their order: said once above it."""
    told = ("not comparable", "missing", "not judged")
    whys = [row["why"] for row in rows if row["verdict"] in told]
    return [why for why in dict.fromkeys(whys) if whys.count(why) > 1]


def findings(key: str, listed: set) -> list[dict]:
    """Forensic findings with links to the numbers on this page: severity, sentence, up to six
    ``(id, anchor or None)``, how many more.
    """
    return [
        {
            "severity": f.severity,
            "sentence": f.sentence,
            "more": max(0, len(f.value_ids) - 6),
            "ids": [(i, anchor(key, i) if i in listed else None) for i in f.value_ids[:6]],
        }
        for f in forensics.run(key)
    ]


def anchor(key: str, value_id: str) -> str:
    """HTML id of a number."""
    return f"{key}-number-{slug(value_id)}"


def card(expected: dict, entry: dict | None, rows: list[dict], key: str, profile: str) -> dict:
    """One artefact as the page shows it: its state, its picture or table, links, and its
    numbers.
    """
    entry = entry or {
        **expected,
        "status": "missing",
        "files": [],
        "reason": f"notebook {expected['notebook']} has not run",
        "note": "",
    }
    reason = (
        verdicts.failure(entry.get("notebook", ""), profile)
        if entry["status"] == "missing"
        else None
    )
    files = {name.rsplit(".", 1)[1]: link(key, name) for name in entry["files"]}
    table = (
        preview(paths.results_dir() / profile / key / f"tables/{entry['id']}.csv", entry)
        if "csv" in files
        else None
    )
    pixels = (
        size(paths.results_dir() / profile / key / f"figures/{entry['id']}.png")
        if "png" in files
        else None
    )
    return {
        "id": entry["id"],
        "size": pixels,
        "label": entry["id"].removeprefix("extra-").replace("-", " ").capitalize(),
        "title": entry["title"],
        "kind": entry["kind"],
        "status": entry["status"],
        "reason": reason or entry["reason"],
        "extra": entry["id"].startswith("extra-"),
        "note": entry.get("note", ""),
        "caveat": artefacts.caveat(entry),
        "origin": artefacts.origin(entry) if entry.get("data") else "",
        "files": files,
        "table": table,
        "rows": rows,
        "notebook": entry.get("notebook", ""),
        "fingerprint": entry.get("fingerprint"),
        "data": entry.get("data"),
    }


def preview(path: Path, entry: dict) -> dict:
    """The first rows of a written table: ``{"columns", "rows", "more"}``, cells as text; the caveat
    column is left to the caption.
    """
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table = table if entry.get("data") is None else table.iloc[:, :-1]
    numeric = [name for name in table if len(table) and all(map(_is_number, table[name]))]
    for name in numeric:
        if table[name].str.contains("[.e]").any():
            table[name] = table[name].replace("", "nan").astype(float)
    text = cells.readable(table.head(MOST_ROWS), entry.get("decimals")).replace("", "–")
    columns = [{"name": name, "number": name in numeric} for name in table]
    return {
        "columns": columns,
        "rows": text.to_numpy().tolist(),
        "more": max(0, len(table) - MOST_ROWS),
    }


def _is_number(cell: str) -> bool:
    try:
        float(cell or "nan")
    except ValueError:
        return False
    return True


def size(path: Path) -> tuple[int, int]:
    """Width and height of a picture at half its pixels, so that the page keeps its shape while
    pictures load.
    """
    with Image.open(path) as picture:
        return picture.width // 2, picture.height // 2


def _reading(row: dict, text: dict, key: str) -> dict:
    """A row of the verdict table as text, with its anchor and its little picture."""
    count = None if row["n"] is None or math.isnan(row["n"]) else int(row["n"])
    return {
        **text,
        "artefact": row["artefact"],
        "note": row["note"],
        "n": count,
        "anchor": anchor(key, row["value"]),
        "measured": not math.isnan(row["ours"]),
        "name": breakable(row["value"].split("/", 1)[1]),
        "picture": picture(row),
    }


def breakable(text: str) -> Markup:
    """Escaped text that a browser may break after its slashes and dots, and nowhere else."""
    return Markup(str(escape(text)).replace("/", "/<wbr>").replace(".", ".<wbr>"))


def picture(row: dict) -> Markup:
    """A row's geometry as inline SVG: the published number as a line, ours as a dot with its
    interval, leak-free as a ring with its own.

    Drawn only where published and ours may be compared; the scale is the row's own.
    """
    if row["verdict"] not in verdicts.COMPARED:
        return Markup("")
    published = float(row["published"])
    marks = [published, *(row[name] for name in verdicts.NUMBERS if not math.isnan(row[name]))]
    low, width, height = min(marks), *BOX
    scale = (width - 16) / ((max(marks) - low) or 1)

    def at(number):
        return f"{8 + (number - low) * scale:.1f}"

    def bar(name, y):
        ends = row[f"{name}low"], row[f"{name}high"]
        return (
            ""
            if any(map(math.isnan, ends))
            else f'<line class="bar" x1="{at(ends[0])}" x2="{at(ends[1])}" y1="{y}" y2="{y}"/>'
        )

    parts = [
        f'<line class="pub" x1="{at(published)}" x2="{at(published)}" y1="1" y2="{height - 1}"/>',
        bar("", 6),
        f'<circle class="our" cx="{at(row["ours"])}" cy="6" r="3"/>',
    ]
    if not math.isnan(row["leak_free"]):
        parts += [
            bar("leak_free_", 13),
            f'<circle class="free" cx="{at(row["leak_free"])}" cy="13" r="2.6"/>',
        ]
    return Markup(
        f'<svg class="pic" width="{width}" height="{height}" role="img" aria-label="published, '
        f'ours and leak-free on one scale">{"".join(parts)}</svg>'
    )


def runs(key: str, profile: str) -> dict:
    """The run folders of a publication: ``{"rows": what each was made from and how it ended,
    "machines": where, one sentence each}``.
    """
    folder = paths.results_dir() / profile
    rows = [
        _run(path.parent, folder) for path in sorted((folder / key / "runs").rglob("config.json"))
    ]
    machines = sorted({row["on"] for row in rows})
    return {
        "rows": [{**row, "machine": machines.index(row["on"]) + 1} for row in rows],
        "machines": machines,
    }


def _run(folder: Path, root: Path) -> dict:
    config, status = (
        files_module.read_json(folder / "config.json"),
        files_module.read_json(folder / "status.json", default={}),
    )
    machine = files_module.read_json(folder / "environment.json", default={})
    data = (
        config.get("data") if isinstance(config.get("data"), dict) else {"name": config.get("data")}
    )
    versions = ", ".join(
        f"{name} {version}" for name, version in machine.get("versions", {}).items()
    )
    on = (
        f"{machine.get('device', 'unknown device')} · Python {machine.get('python', '?')} · "
        f"{versions} · kit {machine.get('code', '?')}"
    )
    return {
        "name": folder.name,
        "href": quote(folder.relative_to(root).as_posix()),
        "state": status.get("state", "not finished"),
        "reason": status.get("reason"),
        "seconds": status.get("seconds"),
        "data": data.get("name"),
        "fingerprint": data.get("fingerprint"),
        "seed": machine.get("seed"),
        "on": on,
    }


def notebooks(profile: str) -> list[dict]:
    """How each notebook of the profile ended: name, state, reason, seconds, peak memory in MB,
    parameters.
    """
    found = [
        files_module.read_json(path)
        for path in sorted((paths.results_dir() / profile / "notebooks").glob("*.status.json"))
    ]
    return [
        {
            "name": s.get("notebook", ""),
            "state": s.get("state", ""),
            "reason": verdicts.failure(s.get("notebook", ""), profile),
            "seconds": s.get("seconds"),
            "peak_mb": s.get("peak_mb"),
            "parameters": s.get("parameters") or {},
        }
        for s in found
        if s.get("notebook") != "90_tables_and_figures"
    ]


def link(key: str, name: str) -> str:
    """A path relative to the page, fit for an attribute."""
    return quote(f"{key}/{name}")


def slug(text: str) -> str:
    """An HTML id."""
    return "".join(c if c.isalnum() else "-" for c in text.lower())


def place(section: dict, item: dict) -> str:
    """The anchor of an artefact."""
    return f"{section['key']}-{slug(item['id'])}"
