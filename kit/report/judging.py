"""What somebody's printed numbers or predictions are worth, without training anything.

A printed accuracy, a triple of rates, a confusion matrix or a table of class rates is possible or
not, by arithmetic, and deserves an interval. Predictions with image ids say what the number becomes
with copies counted once, without copies of training images, class by class, and against another
model on the same images. Nothing here sees a model or an image.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit.data import registry
from kit.errors import KitError
from kit.evaluation import agreement, answers, stats
from kit.evaluation.stats import Interval
from kit.published import numbers
from kit.report import results

POSSIBLE, IMPOSSIBLE, INCONSISTENT = "possible", "impossible", "inconsistent"
CODES = {
    POSSIBLE: 0,
    answers.SUPPORTED: 0,
    IMPOSSIBLE: 1,
    INCONSISTENT: 1,
    answers.CONTRADICTED: 1,
    answers.UNDECIDED: 3,
}
RATES = ("precision", "recall", "f1")
FEW = 5


class BadClaim(KitError):
    """What is to be judged cannot be read."""


@dataclass(frozen=True)
class Finding:
    """One line of a judgement.

    Attributes
    ----------
    what : str
        E.g. "accuracy", "accuracy without copies", "recall of glioma".
    answer : str
        A key of `CODES`, or "" for a number that is only reported.
    sentence : str
    value, low, high : float or None
        In percent, with the 95 % interval.
    n, groups : int or None
        Images, and how many of them are no copies of each other.
    """

    what: str
    answer: str
    sentence: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    groups: int | None = None


@dataclass(frozen=True)
class Printed:
    """A rate as printed: its value and decimals in percent, and the text."""

    value: float
    decimals: int
    text: str


def overall(findings: Sequence[Finding]) -> str:
    """The worst answer: impossible, then inconsistent, contradicted, undecided, and what holds."""
    order = (
        IMPOSSIBLE,
        INCONSISTENT,
        answers.CONTRADICTED,
        answers.UNDECIDED,
        answers.SUPPORTED,
        POSSIBLE,
    )
    given = {f.answer for f in findings}
    return next((answer for answer in order if answer in given), POSSIBLE)


def frame(findings: Sequence[Finding]) -> pd.DataFrame:
    """The findings as a table, one line each."""
    return pd.DataFrame([asdict(f) for f in findings], columns=list(Finding.__annotations__))


def printed(text: str) -> Printed:
    """Read a rate with the digits that it is printed with: "98.70" and "98.70 %" are percent,
    "0.987" is a fraction.
    """
    plain = text.strip().removesuffix("%").strip()
    try:
        value = float(plain)
    except ValueError:
        raise BadClaim(f"{text!r} is no rate; write it as printed, e.g. 98.70 or 0.987.") from None
    decimals = len(plain.partition(".")[2])
    fraction = value <= 1 and decimals > 0 and "%" not in text
    value, decimals = (100 * value, decimals - 2) if fraction else (value, decimals)
    if not 0 <= value <= 100:
        raise BadClaim(f"{text!r} is no rate between 0 and 100 %.")
    return Printed(value, decimals, text.strip())


def _percent(what, answer, sentence, interval: Interval, groups=None) -> Finding:
    scaled = interval.scaled(100)
    return Finding(
        what,
        answer,
        sentence,
        value=scaled.estimate,
        low=scaled.low,
        high=scaled.high,
        n=scaled.n,
        groups=groups,
    )


def _span(interval: Interval) -> str:
    return f"{100 * interval.low:.2f} to {100 * interval.high:.2f} %"


# --- printed numbers ------------------------------------------------------------------------------


def claim(rate: Printed, n: int, what: str = "accuracy") -> list[Finding]:
    """Is a printed rate a share of n images, and what interval does it deserve?"""
    _demand_n(n)
    how, k = numbers.reach(rate.value, rate.decimals, n)
    found = agreement.share(k, n)
    if how in (None, "rounded twice"):
        why = f"{rate.text} is no share of {n} images; the nearest is {k}/{n} = {100 * k / n:.4f} %"
        why = f"{why}." if how is None else f"{why}, and rounding it twice would print this."
        answer = IMPOSSIBLE if how is None else answers.UNDECIDED
        return [_percent(what, answer, why, found)]
    counts = _counts(rate, n)
    shown = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    margin = answers.margin_of(found)
    error = agreement.share_difference(k, n, k, n)
    seen = answers.detectable(error, margin.largest)
    cut = " (truncated)" if how == "truncated" else ""
    return [
        _percent(
            what,
            POSSIBLE,
            f"{rate.text} is {shown} of {n} images{cut}; 95 % interval {_span(found)}. A rerun on "
            f"as many images can tell a difference of {100 * seen:.1f} points.",
            found,
        )
    ]


def _counts(rate: Printed, n: int) -> list[int]:
    low, high = (x * n / 100 for x in numbers.printed_range(rate.value, rate.decimals, 0.5))
    inside = range(max(0, math.ceil(low - 1e-9)), min(n, math.floor(high + 1e-9)) + 1)
    return list(inside) or [numbers.reach(rate.value, rate.decimals, n)[1]]


def _demand_n(n: int) -> None:
    if n < 1:
        raise BadClaim(f"The number of images must be at least 1, but is {n}.")


def triple(accuracy: Printed, sensitivity: Printed, specificity: Printed, n: int) -> list[Finding]:
    """Does any confusion matrix of n images have these three rates?"""
    _demand_n(n)
    places = {accuracy.decimals, sensitivity.decimals, specificity.decimals}
    if len(places) > 1:
        raise BadClaim("The three rates must be printed with equally many decimals.")
    found = numbers.reconstruct(
        accuracy.value, sensitivity.value, specificity.value, n=n, decimals=accuracy.decimals
    )
    values = f"{accuracy.text}, {sensitivity.text} and {specificity.text}"
    if not found:
        why = f"No confusion matrix of {n} images has the rates {values}."
        return [Finding("triple", IMPOSSIBLE, why, n=n)]
    shown = "; ".join(
        f"TP {c.TP}, FN {c.FN}, TN {c.TN}, FP {c.FP} of {c.P} and {c.N}" for c in found[:FEW]
    )
    more = f" and {len(found) - FEW} more" if len(found) > FEW else ""
    many = "One confusion matrix has"
    many = many if len(found) == 1 else f"{len(found)} confusion matrices have"
    return [Finding("triple", POSSIBLE, f"{many} {values}: {shown}{more}.", n=n)]


def matrix(counts: np.ndarray, labels: Sequence[str], rate: Printed | None = None) -> list[Finding]:
    """Rates of a confusion matrix (rows: true classes) with intervals, and whether a printed
    accuracy is its own.
    """
    counts = np.asarray(counts)
    square = counts.ndim == 2 and counts.shape[0] == counts.shape[1] > 1
    if not square or (counts < 0).any() or (counts != np.round(counts)).any() or not counts.sum():
        raise BadClaim("A confusion matrix is square and holds numbers of images.")
    n, hits = int(counts.sum()), int(np.trace(counts))
    whole = agreement.share(hits, n)
    answer, why = POSSIBLE, f"{hits} of {n} images are right; 95 % interval {_span(whole)}."
    if rate is not None and numbers.prints_as(100 * hits / n, rate.value, rate.decimals) is None:
        answer = INCONSISTENT
        why = f"The matrix gives {hits}/{n} = {100 * hits / n:.4f} %, not {rate.text}."
    lines = [_percent("accuracy", answer, why, whole)]
    for i, label in enumerate(labels):
        for what, total in (("recall", counts[i].sum()), ("precision", counts[:, i].sum())):
            if not total:
                lines.append(Finding(f"{what} of {label}", "", "Not defined: no images."))
                continue
            part = agreement.share(int(counts[i, i]), int(total))
            why = f"{counts[i, i]} of {total} images; 95 % interval {_span(part)}."
            lines.append(_percent(f"{what} of {label}", "", why, part))
    return lines


def table(rows: pd.DataFrame) -> list[Finding]:
    """A table of class rates: is each F1 that of its precision and recall, and is each recall a
    share of its class, where `support` is given?

    Parameters
    ----------
    rows : pandas.DataFrame
        Text columns class, precision, recall, f1 and optionally support, digits as printed.
    """
    absent = [c for c in ("class", *RATES) if c not in rows]
    if absent or not len(rows):
        raise BadClaim(
            "A table of rates has the columns class, precision, recall, f1 and optionally support; "
            f"missing: {', '.join(absent) or 'every row'}."
        )
    lines = []
    for row in rows.to_dict("records"):
        p, r, f = (printed(str(row[c])) for c in RATES)
        allowed = numbers.harmonic_range(p.value, r.value, min(p.decimals, r.decimals))
        fits = allowed.meets(numbers.printed_range(f.value, f.decimals))
        why = (
            f"precision {p.text} and recall {r.text} give an F1 of {allowed.low:.3f} to "
            f"{allowed.high:.3f} %, and {f.text} is printed."
        )
        name = row["class"]
        lines.append(Finding(f"F1 of {name}", POSSIBLE if fits else IMPOSSIBLE, _upper(why)))
        if str(row.get("support", "")).strip() not in ("", "nan"):
            lines += claim(r, int(row["support"]), f"recall of {name}")
    return lines


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


# --- predictions ----------------------------------------------------------------------------------


def read_predictions(path: Path | str, dataset: str | None = None) -> pd.DataFrame:
    """Somebody's predictions as a table: image_id, label, predicted, group.

    Parameters
    ----------
    path : Path or str
        CSV with image_id (path below the data set's root, or the end of it), a column predicted
        (class name or number) or one score a class (score_0 ...), and label, which a registered
        data set can give instead.
    dataset : str, optional
        Name of a registered data set on this machine: gives labels and duplicate groups.
    """
    try:
        found = pd.read_csv(path, dtype={"image_id": str})
    except (OSError, ValueError) as error:
        raise BadClaim(f"{path} cannot be read as CSV: {' '.join(str(error).split())}.") from None
    if "image_id" not in found or found["image_id"].isna().any():
        raise BadClaim(f"{path} needs a column image_id without gaps.")
    if found["image_id"].duplicated().any():
        raise BadClaim(f"{path} names an image twice; give one line an image.")
    scores = [c for c in found if str(c).startswith("score_")]
    if "predicted" not in found and len(scores) < 2:
        raise BadClaim(f"{path} needs a column predicted, or score_0, score_1 and so on.")
    if dataset:
        found = _with_index(found, dataset, path)
    if "label" not in found:
        raise BadClaim(f"{path} has no column label; add it, or name the data set.")
    if "predicted" not in found:
        found["predicted"] = found[scores].to_numpy(float).argmax(1)
    groups = found["group"] if "group" in found else pd.Series(range(len(found)))
    names = registry.get(dataset).classes if dataset else ()
    return pd.DataFrame(
        {
            "image_id": found["image_id"],
            "label": [_named(x, names) for x in found["label"]],
            "predicted": [_named(x, names) for x in found["predicted"]],
            "group": groups.to_numpy(),
        }
    )


def _named(label, names) -> str:
    """A class by name: a number is a place in `names`, where they are known."""
    text = str(label).strip().removesuffix(".0")
    is_place = text.isdigit() and text not in names and int(text) < len(names)
    return names[int(text)] if is_place else text


def _with_index(found: pd.DataFrame, dataset: str, path) -> pd.DataFrame:
    index = registry.index(dataset)
    ends = {i: i for i in index["image_id"]}
    ends |= {i.rsplit("/", 1)[-1]: i for i in index["image_id"]}
    ids = [ends.get(i) or ends.get(i.rsplit("/", 1)[-1]) for i in found["image_id"]]
    unknown = [i for i, known in zip(found["image_id"], ids, strict=True) if known is None]
    if unknown:
        raise BadClaim(
            f"{path} names {len(unknown)} images that {dataset} does not hold, e.g. {unknown[0]}."
        )
    by_id = index.set_index("image_id").loc[ids]
    return found.assign(
        image_id=ids,
        label=by_id["class_name"].to_numpy(),
        group=results.groups_of(dataset, by_id.index),
    )


def right(table_: pd.DataFrame) -> np.ndarray:
    """Whether each prediction is right, bool (n,)."""
    return (table_["label"] == table_["predicted"]).to_numpy()


def predictions(
    mine: pd.DataFrame, rate: Printed | None = None, clean: pd.DataFrame | None = None
) -> list[Finding]:
    """Accuracy of predictions with copies counted once, without copies of training images, and
    class by class; a printed accuracy is compared with each of the first two.

    Parameters
    ----------
    mine, clean : pandas.DataFrame
        From :func:`read_predictions`; `clean` holds the images without a copy in training.
    rate : Printed, optional
    """
    lines = [_against(mine, rate, "accuracy of the predictions")]
    if clean is not None:
        if len(clean):
            lines.append(_against(clean, rate, "accuracy without copies"))
            lines.append(_balanced(clean, "balanced accuracy without copies"))
        else:
            why = "Every image has a copy in training."
            lines.append(Finding("accuracy without copies", "", why))
    lines.append(_balanced(mine, "balanced accuracy"))
    for label in sorted(mine["label"].unique()):
        part = _share(mine[mine["label"] == label])
        groups = mine.loc[mine["label"] == label, "group"].nunique()
        why = f"95 % interval {_span(part)}."
        lines.append(_percent(f"recall of {label}", "", why, part, groups))
    return lines


def _share(table_: pd.DataFrame) -> Interval:
    p, n = float(right(table_).mean()), len(table_)
    k = agreement.effective(n, p, groups=table_["group"].tolist())
    found = agreement.share(p * k, k)
    return Interval(found.estimate, found.low, found.high, found.level, n, found.method)


def _balanced(table_: pd.DataFrame, what: str) -> Finding:
    value = float(pd.Series(right(table_)).groupby(table_["label"].to_numpy()).mean().mean())
    classes = table_["label"].nunique()
    return Finding(
        what, "", f"Mean recall of the {classes} classes present.", 100 * value, n=len(table_)
    )


def _against(table_: pd.DataFrame, rate: Printed | None, what: str) -> Finding:
    found, groups = _share(table_), int(table_["group"].nunique())
    count = f"{len(table_)} images, {groups} of them no copies of each other"
    if rate is None:
        return _percent(what, "", f"{count}; 95 % interval {_span(found)}.", found, groups)
    p, q = found.estimate, rate.value / 100
    k = agreement.effective(len(table_), p, groups=table_["group"].tolist())
    pairs = [agreement.share_difference(p * k, k, q * k, k, level) for level in (0.95, 0.90)]
    answer = answers.equal(pairs[0], answers.margin_of(agreement.share(q * k, k)), pairs[1])
    why = (
        f"{count}; {100 * p:.2f} % ({_span(found)}) against the printed {rate.text}: difference "
        f"{100 * answer.interval.low:+.2f} to {100 * answer.interval.high:+.2f} points, "
        f"{answer.kind} within {100 * answer.margin.below:.2f} below and "
        f"{100 * answer.margin.above:.2f} above."
    )
    return _percent(what, answer.kind, why, found, groups)


def compared(mine: pd.DataFrame, other: pd.DataFrame) -> list[Finding]:
    """Two models on the same images: McNemar's exact test, and the paired interval with copies
    counted once.
    """
    both = mine.merge(other, on="image_id", suffixes=("", "_other"))
    if len(both) != len(mine) or len(both) != len(other):
        raise BadClaim(
            f"The two files share {len(both)} images, but hold {len(mine)} and {len(other)}; give "
            "predictions of the same images."
        )
    a = right(both)
    b = (both["label"] == both["predicted_other"]).to_numpy()
    test = stats.mcnemar_exact(a, b)
    found = agreement.paired_difference(a, b, both["group"].tolist())
    apart = found.low > 0 or found.high < 0
    why = (
        f"{test.note} McNemar's exact p = {test.p:.4f}, over single images; the paired interval "
        f"with copies counted once, {_span(found)}, {'excludes' if apart else 'includes'} zero."
    )
    return [_percent("difference from the other model", "", why, found, both["group"].nunique())]


def without_copies(mine: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The rows whose image has no copy among the data set's other images, which are taken to be
    the training images.
    """
    ids = registry.index(dataset)["image_id"]
    return results.leak_free(mine, dataset, ids[~ids.isin(mine["image_id"])].tolist())
