"""What became of each published number: reproduced, not reproduced, not comparable, impossible as
published, or missing.

The rules are one pure function, `verdict`; `verdict_table` applies it to every number of a
publication and `coverage` counts. A number that was measured on other data, with a stand-in, or
with reduced settings is never called reproduced or not: it answers another question.
"""

import math
import re
from dataclasses import dataclass

import pandas as pd

from kit import files, paths
from kit.published import forensics, papers
from kit.report import artefacts, cells

KINDS = ("reproduced", "not reproduced", "not comparable", "impossible as published", "missing")
TIMES = {"ns", "us", "ms", "s", "min", "h", "d"}
NUMBERS = ["ours", "low", "high", "leak_free", "leak_free_low", "leak_free_high"]


@dataclass(frozen=True)
class Verdict:
    """One of `KINDS`, and the sentence that says why."""

    kind: str
    why: str


def verdict(  # noqa: PLR0913  one argument a fact that the rules ask for
    published,
    ours=None,
    low=None,
    high=None,
    *,
    leak_free=None,
    leak_free_low=None,
    leak_free_high=None,
    decimals=0,
    unit="",
    relation="=",
    data_embedded=False,
    data=None,
    other_data=None,
    stand_in=None,
    reductions=(),
    impossible=None,
    missing=None,
) -> Verdict:
    """Compare one published number with ours.

    Parameters
    ----------
    published : float
        As printed, in `unit`, with `decimals` places. It stands for the range of half a unit of the
        last place on either side.
    ours, low, high : float or None
        Our value on the full test set and its 95 % interval, in the same unit.
    leak_free, leak_free_low, leak_free_high : float or None
        The same on the test set without copies of training images.
    relation : str
        "=" for a number; ">" or "<" where the publication only says that the quantity lies above or
        below it.
    data_embedded : bool
        Ours was measured on embedded data.
    data, other_data : str or None
        Name of our data set; a clause that says how it differs from the published one, or None if
        it does not.
    stand_in : str or None
        What replaces a published component.
    reductions : sequence of str
        Settings below the published ones.
    impossible : str or None
        The sentence of `kit.published.forensics` if no data can give the published number.
    missing : str or None
        Why there is no value of ours.

    Returns
    -------
    Verdict
        Tested in this order: impossible as published, missing, not comparable, reproduced, not
        reproduced. Reproduced means that the published range meets our interval, or that ours
        rounds to the published number.
    """
    if impossible:
        return Verdict("impossible as published", impossible)
    if ours is None:
        return Verdict("missing", _sentence(missing or "no value was stored"))
    hurdles = _hurdles(
        unit,
        embedded=data_embedded,
        data=data,
        other_data=other_data,
        stand_in=stand_in,
        reductions=reductions,
    )
    if hurdles:
        return Verdict("not comparable", _sentence("; ".join(hurdles)))
    number = _Printed(published, decimals, unit, relation)
    holds, why = number.judge(ours, low, high)
    if leak_free is not None:
        fair = (
            leak_free_low is not None or low is None
        )  # a bare number is not judged by the rule of an interval
        why += " " + number.without_copies(
            holds if fair else None, ours, leak_free, leak_free_low, leak_free_high
        )
    return Verdict("reproduced" if holds else "not reproduced", why)


def _hurdles(unit, *, embedded, data, other_data, stand_in, reductions) -> list[str]:
    found = []
    if embedded:
        found.append(f"measured on embedded data ({data}), not on the published data")
    elif other_data:
        found.append(other_data)
    if stand_in:
        found.append(f"with a stand-in: {stand_in}")
    if reductions:
        found.append("reduced settings: " + ", ".join(reductions))
    if unit in TIMES:
        found.append("a time depends on the machine")
    return found


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


@dataclass(frozen=True)
class _Printed:
    """A number in print: what it may have been before rounding, and how to talk about it."""

    value: float
    decimals: int
    unit: str
    relation: str

    def text(self, number) -> str:
        unit = "" if self.unit in ("", "fraction", "count", "ratio") else f" {self.unit}"
        return f"{number:.{self.decimals}f}{unit}"

    def gap(self, difference) -> str:
        places = self.decimals if round(abs(difference), self.decimals) else self.decimals + 2
        unit = {"%": " pp", "": "", "fraction": "", "count": "", "ratio": ""}.get(
            self.unit, f" {self.unit}"
        )
        return f"{abs(difference):.{places}f}{unit}"

    def span(self, ours, low, high) -> str:
        return (
            self.text(ours)
            if low is None or high is None
            else f"{self.text(ours)} ({low:.{self.decimals}f} to {high:.{self.decimals}f})"
        )

    def judge(self, ours, low, high) -> tuple[bool, str]:
        """Whether the published number holds, and the sentence."""
        if self.relation != "=":
            holds = ours > self.value if self.relation == ">" else ours < self.value
            side = "above" if self.relation == ">" else "below"
            return (
                holds,
                f"Ours is {self.span(ours, low, high)}, {'' if holds else 'not '}{side} "
                f"{self.text(self.value)} as published.",
            )
        half = 0.5 * 10.0**-self.decimals * (1 + 1e-9)
        if low is not None and high is not None and low - half <= self.value <= high + half:
            return (
                True,
                f"The published {self.text(self.value)} lies in our 95 % interval "
                f"({low:.{self.decimals}f} to {high:.{self.decimals}f}).",
            )
        if abs(ours - self.value) <= half:
            return True, f"Ours rounds to the published {self.text(self.value)}."
        side = "above" if ours > self.value else "below"
        return (
            False,
            f"Ours is {self.span(ours, low, high)}, {self.gap(ours - self.value)} {side} the "
            f"published {self.text(self.value)}.",
        )

    def without_copies(self, held, ours, leak_free, low, high) -> str:
        """The sentence on the leak-free test set; `held` is the verdict on the full one, None for
        no comparison of the two.
        """
        change = leak_free - ours
        moved = (
            "unchanged"
            if round(abs(change), self.decimals + 2) == 0
            else f"{self.gap(change)} {'higher' if change > 0 else 'lower'}"
        )
        holds, _ = self.judge(leak_free, low, high)
        turn = {
            (True, False): "; there the published number no longer holds",
            (False, True): "; there the published number holds",
        }.get((held, holds), "")
        return f"On the leak-free test set {self.span(leak_free, low, high)}, {moved}{turn}."


def _other_data(paper, entry) -> str | None:
    """How the data set of a stored value differs from the publication's, as a clause."""
    if entry.get("stand_in_for"):
        return f"measured on {entry['data']}, which stands in for {entry['stand_in_for']}"
    if entry.get("data") and entry["data"] not in paper.data:
        return f"measured on {entry['data']}, while the publication used {' and '.join(paper.data)}"
    return None


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
        timed = published.unit in TIMES or published.row.startswith("time-per-")
        return (
            f"notebook {notebook} has run; times differ from run to run and stand in costs.csv"
            if timed
            else f"notebook {notebook} has run but stored no such value"
        )
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
    """One row for every published number that a notebook is to regenerate.

    Numbers that a publication only cites from others have no notebook and are left out unless they
    are impossible.

    Returns
    -------
    pandas.DataFrame
        Columns artefact, value (its id), published (as printed), unit, decimals, ours, low, high,
        leak_free, leak_free_low, leak_free_high, n, verdict, why, note, data, fingerprint,
        notebook; in the publication's order.
    """
    paper = papers.load(paper_key)
    flagged = forensics.impossible_ids(paper)
    listed, stored = results(paper_key, profile)
    home = {a.id: a.notebook for a in paper.artefacts}
    claims = {f"claims/{c.id}": c for c in paper.claims}
    rows = []
    for key, number in paper.values.items():
        claim = claims.get(key)
        notebook = claim.notebook if claim else home[number.artefact]
        if notebook or key in flagged:
            found = verdict_of(
                paper,
                number,
                stored.get(key, {}),
                relation=_relation(claim),
                impossible=flagged.get(key),
                missing=_why_missing(number, notebook, listed, profile),
            )
            rows.append(
                _row(key, number, stored.get(key, {}), found, notebook=notebook, claim=claim)
            )
    columns = [
        "artefact",
        "value",
        "published",
        "unit",
        "decimals",
        *NUMBERS,
        "n",
        "verdict",
        "why",
        "note",
        "data",
        "fingerprint",
        "notebook",
    ]
    return pd.DataFrame(rows, columns=columns)


def verdict_of(paper, number, entry: dict, relation="=", impossible=None, missing=None) -> Verdict:
    """`verdict` of a `kit.published.papers.Published` number and the entry of values.json (empty:
    none).
    """
    return verdict(
        number.value,
        **{name: entry.get(name) for name in NUMBERS},
        decimals=number.decimals,
        unit=number.unit,
        relation=relation,
        data_embedded=entry.get("embedded", False),
        data=entry.get("data"),
        other_data=_other_data(paper, entry),
        stand_in=entry.get("stand_in"),
        reductions=entry.get("reductions", ()),
        impossible=impossible,
        missing=missing,
    )


def _relation(claim) -> str:
    """A claim whose id ends in -above or -below states on which side of its value a
    quantity lies.
    """
    ending = claim.id.rsplit("-", 1)[-1] if claim else ""
    return {"above": ">", "below": "<"}.get(ending, "=")


def _row(key, number, entry, found, *, notebook, claim) -> dict:
    numbers = {name: math.nan if entry.get(name) is None else entry[name] for name in NUMBERS}
    note = "; ".join(filter(None, [claim.text if claim else "", number.note]))
    return {
        "artefact": number.artefact,
        "value": key,
        "published": number.printed,
        "unit": number.unit,
        "decimals": number.decimals,
        **numbers,
        "n": entry.get("n") or number.n,
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
    """How far a profile has come: one row for the audit and for each publication, artefacts by
    status and numbers by verdict.

    Returns
    -------
    pandas.DataFrame
        Columns paper, artefacts, written, missing, failed, numbers, then the first four of `KINDS`
        and "no value" (ints); last row "all".
    """
    names = [
        "paper",
        "artefacts",
        "written",
        "missing",
        "failed",
        "numbers",
        *KINDS[:-1],
        "no value",
    ]
    expected = [e for e in artefacts.all_expected() if e["paper"] != "summary"]
    rows = [
        _progress(key, profile, {e["id"] for e in expected if e["paper"] == key})
        for key in dict.fromkeys(e["paper"] for e in expected)
    ]
    table = pd.DataFrame(rows, columns=names)
    total = {"paper": "all", **table.drop(columns="paper").sum().astype(int).to_dict()}
    return pd.DataFrame([*rows, total], columns=names)


def _progress(key: str, profile: str, ids: set) -> dict:
    listed, _ = results(key, profile)
    state = [listed.get(i, {}).get("status", "missing") for i in sorted(ids)]
    published = papers.keys()
    kinds = list(verdict_table(key, profile)["verdict"]) if key in published else []
    return {
        "paper": key,
        "artefacts": len(ids),
        **{s: state.count(s) for s in ("written", "missing", "failed")},
        "numbers": len(kinds),
        **{kind: kinds.count(kind) for kind in KINDS[:-1]},
        "no value": kinds.count("missing"),
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
        table[table["verdict"].isin(KINDS[:2]) & (table["unit"] == unit)]
        .head(most)
        .set_index("value")
    )
    published = rows["published"].astype(float)
    return rows[NUMBERS].astype(float).sub(published, axis=0).assign(published=0.0)
