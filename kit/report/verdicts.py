"""What became of each published number, and how far a profile has come.

The rules are `kit.report.verdict_rules`, a pure function; `verdict_table` applies them to every
number of a publication, `coverage` counts results, counts and conclusions, each for itself.
"""

import math
import re

import pandas as pd

from kit import files, paths
from kit.evaluation import answers
from kit.published import forensics, papers
from kit.published.comparison import Ours
from kit.report import artefacts, cells, conclusions
from kit.report.verdict_rules import (
    JUDGED,
    Circumstances,
    Verdict,
    hurdles,
    verdict,
)
from kit.report.verdict_rules import (
    KINDS as KINDS,
)

__all__ = [
    "COMPARED",
    "JUDGED",
    "KINDS",
    "Verdict",
    "coverage",
    "gaps",
    "printed",
    "results",
    "verdict_table",
]

COMPARED = answers.ANSWERS[:3]
NUMBERS = ["ours", "low", "high", "leak_free", "leak_free_low", "leak_free_high"]
UNLISTED = ("citation", "axis")
COLUMNS = [
    "artefact",
    "value",
    "kind",
    "published",
    "unit",
    "decimals",
    *NUMBERS,
    "n",
    "groups",
    "seeds",
    "verdict",
    "why",
    "note",
    "data",
    "fingerprint",
    "notebook",
]


def _why_missing(published, notebook: str, listed: dict, profile: str) -> str:
    entry = listed.get(published.artefact, {})
    status = files.read_json(
        paths.results_dir() / profile / "notebooks" / f"{notebook}.status.json", default={}
    )
    if entry.get("status") == "failed":
        return f"{published.artefact} failed in notebook {notebook}: {entry['reason']}"
    if failed := failure(notebook, profile):
        return failed
    if entry.get("status") == "written" or status.get("state") == "finished":
        return f"notebook {notebook} has run but stored no such value"
    return f"notebook {notebook} has not run"


def failure(notebook: str, profile: str) -> str | None:
    """Why a notebook's last run failed, as a clause; None if it did not."""
    status = files.read_json(
        paths.results_dir() / profile / "notebooks" / f"{notebook}.status.json", default={}
    )
    if status.get("state") != "failed":
        return None
    reason = re.sub(
        r" \(log: [^)]*\)$", "", status.get("reason") or "see its log"
    )  # a path of the machine that ran it
    return f"notebook {notebook} failed: {reason}"


def results(paper_key: str, profile: str) -> tuple[dict, dict]:
    """What a profile has stored of a publication or of an own folder: its artefact entries by id,
    and its values by id.
    """
    folder = paths.results_dir() / profile / paper_key
    listed = {
        e["id"]: e
        for e in files.read_json(folder / "artefacts.json", default={}).get("artefacts", [])
    }
    return listed, files.read_json(folder / "values.json", default={})


def verdict_table(paper_key: str, profile: str) -> pd.DataFrame:
    """One row for every published number that a notebook is to regenerate, and for every one that
    is impossible.

    Citations and limits of axes are left out: nothing here regenerates them.

    Returns
    -------
    pandas.DataFrame
        Columns `COLUMNS`; value is the id, kind that of the printed number; in the publication's
        order.
    """
    paper = papers.load(paper_key)
    impossible, doubted = forensics.impossible_ids(paper), forensics.inconsistent_ids(paper)
    listed, stored = results(paper_key, profile)
    home = {a.id: a.notebook for a in paper.artefacts}
    claims = {f"claims/{c.id}": c for c in paper.claims}
    rows = []
    for key, number in paper.values.items():
        claim = claims.get(key)
        notebook = claim.notebook if claim else home[number.artefact]
        if key in impossible or (notebook and number.kind not in UNLISTED):
            around = Circumstances(
                impossible=impossible.get(key, ""),
                inconsistent=doubted.get(key, ""),
                missing=_why_missing(number, notebook, listed, profile),
                relation=claim.relation if claim else "=",
            )
            found = verdict_of(paper, number, stored.get(key, {}), around)
            rows.append(_row(number, stored.get(key, {}), found, notebook=notebook, claim=claim))
    return pd.DataFrame(rows, columns=COLUMNS)


def verdict_of(
    paper: papers.Paper, number: papers.Published, entry: dict, around: Circumstances
) -> Verdict:
    """The verdict on a number and its entry of values.json (empty: none)."""
    resized = artefacts.resized(entry.get("data"), entry.get("fingerprint"))
    around = Circumstances(
        impossible=around.impossible,
        inconsistent=around.inconsistent,
        missing=around.missing,
        hurdles=hurdles(paper, entry, resized),
        relation=around.relation,
    )
    return verdict(paper, number, _ours(entry), around, _ours(entry, "leak_free"))


def _ours(entry: dict, which: str = "ours") -> Ours | None:
    """A stored value as `Ours`; `which` is "ours" or "leak_free"."""
    if entry.get(which) is None:
        return None
    prefix = "" if which == "ours" else "leak_free_"
    return Ours(
        estimate=entry[which],
        low=entry.get(f"{prefix}low"),
        high=entry.get(f"{prefix}high"),
        n=entry.get(f"{prefix}n"),
        groups=entry.get(f"{prefix}groups"),
        seeds=entry.get("seeds"),
        seed_sd=entry.get("seed_sd") or 0.0,
    )


def _row(number, entry, found, *, notebook, claim) -> dict:
    numbers = {name: math.nan if entry.get(name) is None else entry[name] for name in NUMBERS}
    note = "; ".join(filter(None, [claim.text if claim else "", number.note]))
    return {
        "artefact": number.artefact,
        "value": number.id,
        "kind": number.kind,
        "published": number.printed,
        "unit": number.unit,
        "decimals": number.decimals,
        **numbers,
        "n": entry.get("n") or number.n,
        "groups": entry.get("groups"),
        "seeds": entry.get("seeds"),
        "verdict": found.kind,
        "why": found.why,
        "note": note,
        "data": entry.get("data"),
        "fingerprint": entry.get("fingerprint"),
        "notebook": notebook,
    }


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """A verdict table for readers: every number with the publication's own decimals, an interval in
    one cell; a dash for no value.

    Returns
    -------
    pandas.DataFrame
        Text columns value, published, unit, ours, interval, leak_free, leak_free_interval, verdict,
        why; the rows and index of `table`.
    """
    text = table[["value", "published", "unit", "verdict", "why"]].copy()
    for name, low, high in (
        ("ours", "low", "high"),
        ("leak_free", "leak_free_low", "leak_free_high"),
    ):
        said = [
            [cells.shown(number, places) for number in row]
            for *row, places in table[[name, low, high, "decimals"]].itertuples(index=False)
        ]
        text[name] = [cell for cell, _, _ in said]
        text["interval" if name == "ours" else f"{name}_interval"] = [
            "–" if "–" in ends else " to ".join(ends) for _, *ends in said
        ]
    return text[
        [
            "value",
            "published",
            "unit",
            "ours",
            "interval",
            "leak_free",
            "leak_free_interval",
            "verdict",
            "why",
        ]
    ]


def coverage(profile: str) -> pd.DataFrame:
    """How far a profile has come: one row for the audit and for each publication.

    Returns
    -------
    pandas.DataFrame
        Columns paper; conclusions, answered (in this run), decided (on the publication); results,
        then these by verdict: the first six of `JUDGED` and "no value"; counts, counts supported,
        counts contradicted; other (costs, settings, repetitions); artefacts, written, missing,
        failed. Ints; last row "all".
    """
    expected = [e for e in artefacts.all_expected() if e["paper"] != "summary"]
    rows = [
        _progress(key, profile, {e["id"] for e in expected if e["paper"] == key})
        for key in dict.fromkeys(e["paper"] for e in expected)
    ]
    table = pd.DataFrame(rows)
    total = {"paper": "all", **table.drop(columns="paper").sum().astype(int).to_dict()}
    return pd.DataFrame([*rows, total])


def _progress(key: str, profile: str, ids: set) -> dict:
    listed, _ = results(key, profile)
    state = [listed.get(i, {}).get("status", "missing") for i in sorted(ids)]
    known = papers.keys()
    table = verdict_table(key, profile) if key in known else pd.DataFrame(columns=COLUMNS)
    found = conclusions.table(key, profile) if key in known else []
    kinds = table.loc[table["kind"] == "result", "verdict"].tolist()
    counts = table.loc[table["kind"] == "count", "verdict"].tolist()
    return {
        "paper": key,
        "conclusions": len(found),
        "answered": sum(c["answer"] != "missing" for c in found),
        "decided": sum(c["verdict"] in COMPARED[:2] for c in found),
        "results": len(kinds),
        **{kind: kinds.count(kind) for kind in JUDGED[:-1]},
        "no value": kinds.count("missing"),
        "counts": len(counts),
        "counts supported": counts.count(answers.SUPPORTED),
        "counts contradicted": counts.count(answers.CONTRADICTED),
        "other": len(table) - len(kinds) - len(counts),
        "artefacts": len(ids),
        **{s: state.count(s) for s in ("written", "missing", "failed")},
    }


def gaps(table: pd.DataFrame, unit: str = "%", most: int = 40) -> pd.DataFrame:
    """How far ours lies from the published number, for what was measured as published, ready for
    `kit.report.plots.forest`.

    Parameters
    ----------
    table : pandas.DataFrame
        From `verdict_table`.
    unit : str
        Only numbers in this unit.
    most : int
        At most so many rows, the first ones.

    Returns
    -------
    pandas.DataFrame
        Index: value ids; columns published (0 throughout) and ours, low, high, leak_free,
        leak_free_low, leak_free_high, each minus the published number, nan where absent.
    """
    rows = (
        table[
            table["verdict"].isin(COMPARED)
            & (table["unit"] == unit)
            & (table["kind"] == "result")
            & ~table["value"].str.contains(".variance/", regex=False)
        ]
        .head(most)
        .set_index("value")
    )
    published = rows["published"].astype(float)
    return rows[NUMBERS].astype(float).sub(published, axis=0).assign(published=0.0)
