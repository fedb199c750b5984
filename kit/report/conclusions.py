"""What a run says of the publications' conclusions: the evidence that notebooks stored, the answer
for the setting that was run, and the verdict on the publication.

The answer holds for the run: "in this run, on embedded data: ...". It is a verdict on the
publication only where nothing keeps the run from being the published experiment.
"""

from collections.abc import Mapping

import pandas as pd

from kit import files, paths
from kit.evaluation import answers
from kit.evaluation.stats import Interval
from kit.published import conclusions, papers
from kit.published.schema import RATIO
from kit.report import artefacts
from kit.report.verdict_rules import hurdles, sentence

MISSING = "missing"
FILE = "evidence.json"
# intervals over folds or seeds, whose n counts these and not images
OF_PAIRS = ("paired t", "corrected resampled t", "t of the logarithm")
COLUMNS = ["paper", "conclusion", "claim", "answer", "said", "verdict", "why", "as_printed", "test"]


def table(paper_key: str, profile: str) -> list[dict]:
    """One line for every conclusion of a publication, in its order.

    Returns
    -------
    list of dict
        Keys `COLUMNS`: answer (for this run; or "missing"), said (the sentence), verdict (on the
        publication) and why, as_printed (what the printed numbers alone say), test.
    """
    paper = papers.load(paper_key)
    stored = files.read_json(paths.results_dir() / profile / paper_key / FILE, default={})
    return [_line(paper, c, stored.get(c.id), profile) for c in paper.conclusions]


def frame(profile: str) -> pd.DataFrame:
    """`table` of all publications."""
    lines = [line for paper in artefacts.all_papers() for line in table(paper.key, profile)]
    return pd.DataFrame(lines, columns=COLUMNS)


def _line(paper, conclusion, found, profile) -> dict:
    head = {
        "paper": paper.key,
        "conclusion": conclusion.id,
        "claim": conclusion.text,
        "as_printed": conclusions.as_printed(paper, conclusion),
        "test": conclusion.test,
    }
    if found is None:
        why = sentence(_why(conclusion.notebook, profile))
        return {**head, "answer": MISSING, "said": why, "verdict": MISSING, "why": why}
    parts = {
        name: Interval(p["estimate"], p["low"], p["high"], 0.95, p["n"] or 1, found["method"])
        for name, p in found["parts"].items()
    }
    judged = conclusions.judge(conclusion, parts)
    against = hurdles(paper, found, artefacts.resized(found["data"], found.get("fingerprint")))
    return {
        **head,
        "answer": judged.answer,
        "said": f"In this run, {_where(found)}: {judged.answer}. "
        f"{_told(conclusion, found, judged)}",
        "verdict": answers.NOT_COMPARABLE if against else judged.answer,
        "why": sentence("; ".join(against)) if against else "Measured as published.",
    }


def _why(notebook: str, profile: str) -> str:
    path = paths.results_dir() / profile / "notebooks" / f"{notebook}.status.json"
    state = files.read_json(path, default={}).get("state")
    if state == "finished":
        return f"notebook {notebook} has run but stored no such evidence"
    return f"notebook {notebook} {'failed' if state == 'failed' else 'has not run'}"


def _where(found: Mapping) -> str:
    data = found["data"]
    if found.get("embedded"):
        place = f"on embedded data ({data})"
    elif found.get("stand_in_for"):
        place = f"on {data}, which stands in for {found['stand_in_for']}"
    else:
        place = f"on {data}" if data else "from counts"
    return place + (", with reduced settings" if found.get("reductions") else "")


def _told(conclusion, found, judged) -> str:
    """The numbers behind an answer: every part's estimate with interval, seeds, method."""
    unit = "" if conclusion.unit == RATIO else f" {conclusion.unit}"
    lines = []
    for name, part in found["parts"].items():
        label = f"{name} " if len(found["parts"]) > 1 else ""
        kind = f", {judged.parts[name].kind}" if len(found["parts"]) > 1 else ""
        sign = "" if conclusion.unit == RATIO else "+"
        lines.append(
            f"{label}{part['estimate']:{sign}.3g}{unit} ({part['low']:{sign}.3g} to "
            f"{part['high']:{sign}.3g}{kind})"
        )
    images = sorted({p["n"] for p in found["parts"].values() if p["n"]})
    name = "pairs" if found["method"] in OF_PAIRS else "n"
    ends = dict.fromkeys(map(str, images[:: len(images) - 1 or 1]))
    count = f"{name} = {' to '.join(ends)}"
    seeds = f"{found['seeds']} seed{'s' if found['seeds'] != 1 else ''}"
    first, second = conclusion.compares[0], conclusion.compares[-1]
    over = "over" if conclusion.unit == RATIO else "minus"
    detail = "; ".join(filter(None, [count if images else "", seeds, found["method"]]))
    seen = "" if judged.answer != answers.UNDECIDED else _seen(conclusion, judged)
    return f"{first} {over} {second}: {', '.join(lines)}; {detail}.{seen}"


def _seen(conclusion, judged) -> str:
    largest = max(a.detectable for a in judged.parts.values())
    unit = "" if conclusion.unit == RATIO else f" {conclusion.unit}"
    return f" A difference of {largest:.3g}{unit} would have been seen."
