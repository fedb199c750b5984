"""``python -m kit.judge``: what a printed accuracy, a triple of rates, a matrix, a table or
somebody's predictions are worth, without training anything.

    python -m kit.judge --claim 98.70 --n 1311
    python -m kit.judge --claim 98.00 --sensitivity 98.32 --specificity 97.69 --n 600
    python -m kit.judge --claim 98.70 --against predictions.csv --dataset nickparvar --other b.csv

Exit code 0: possible, or supported by the predictions; 1: impossible, inconsistent or contradicted;
3: undecided; 2: what was given cannot be read.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from kit import files
from kit.errors import KitError
from kit.report import judging


def judge(  # noqa: PLR0913  one argument a thing that can be judged
    *,
    claim: str | None = None,
    n: int | None = None,
    sensitivity: str | None = None,
    specificity: str | None = None,
    matrix: Path | str | None = None,
    table: Path | str | None = None,
    against: Path | str | None = None,
    other: Path | str | None = None,
    dataset: str | None = None,
) -> list[judging.Finding]:
    """Judge printed numbers, predictions, or both.

    Parameters
    ----------
    claim, sensitivity, specificity : str, optional
        Rates as printed, digits included: "98.70" (percent) or "0.987".
    n : int, optional
        Test images.
    matrix, table : path, optional
        CSV files: a confusion matrix (rows: true classes; a header names them), and class rates
        (class, precision, recall, f1, optionally support).
    against, other : path, optional
        CSV files of predictions with image ids: of the model, and of another one.
    dataset : str, optional
        Registered data set on this machine, for labels, duplicates and what is in training.

    Raises
    ------
    BadClaim
        If nothing is given to judge, or something that cannot be read.
    """
    rate = judging.printed(claim) if claim is not None else None
    found: list[judging.Finding] = []
    if rate is not None and n is not None:
        found += judging.claim(rate, n)
    if sensitivity is not None or specificity is not None:
        if rate is None or n is None or sensitivity is None or specificity is None:
            raise judging.BadClaim(
                "A triple needs --claim, --sensitivity, --specificity and --n together."
            )
        found += judging.triple(rate, judging.printed(sensitivity), judging.printed(specificity), n)
    if matrix is not None:
        found += judging.matrix(*_matrix(matrix), rate)
    if table is not None:
        found += judging.table(_csv(table).astype(str))
    if against is not None:
        mine = judging.read_predictions(against, dataset)
        clean = judging.without_copies(mine, dataset) if dataset else None
        found += judging.predictions(mine, rate, clean)
        if other is not None:
            found += judging.compared(mine, judging.read_predictions(other, dataset))
    if not found:
        raise judging.BadClaim(
            "There is nothing to judge; give --claim with --n, --matrix, --table or --against."
        )
    return found


def _csv(path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str, skipinitialspace=True)
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())
        raise judging.BadClaim(f"{path} cannot be read as CSV: {said}.") from None


def _matrix(path) -> tuple[np.ndarray, list[str]]:
    """Counts and class names; a first column of names is left out."""
    found = _csv(path)
    if len(found) and not pd.to_numeric(found.iloc[:, 0], errors="coerce").notna().all():
        found = found.iloc[:, 1:]
    counts = found.apply(pd.to_numeric, errors="coerce")
    if counts.isna().any(axis=None):
        raise judging.BadClaim(
            f"{path} must hold numbers of images below a header with the class names."
        )
    return counts.to_numpy(), list(map(str, counts.columns))


def text(found: list[judging.Finding], form: str) -> str:
    """The findings as CSV or JSON."""
    if form == "csv":
        return judging.frame(found).to_csv(index=False)
    lines = json.loads(judging.frame(found).to_json(orient="records"))
    return json.dumps({"answer": judging.overall(found), "findings": lines}, indent=2) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kit.judge", description="Is it possible, and what is it worth?"
    )
    add = parser.add_argument
    add("--claim", metavar="RATE", help="accuracy as printed: 98.70 (percent) or 0.987")
    add("--n", type=int, help="number of test images")
    add("--sensitivity", metavar="RATE", help="as printed; with --specificity: a triple")
    add("--specificity", metavar="RATE", help="as printed")
    add("--matrix", metavar="CSV", help="confusion matrix, a header with the class names")
    add("--table", metavar="CSV", help="columns class, precision, recall, f1 and support if known")
    add("--against", metavar="CSV", help="predictions with image_id, and predicted or score_0 ...")
    add("--other", metavar="CSV", help="predictions of another model on the same images")
    add("--dataset", metavar="NAME", help="registered data set: labels, copies, what is training")
    add("--format", choices=("json", "csv"), default="json", help="of the output (default: json)")
    add("--out", metavar="FILE", help="write there instead of printing")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Judge and print; gives the exit code."""
    options = vars(_parser().parse_args(arguments))
    form, out = options.pop("format"), options.pop("out")
    try:
        found = judge(**options)
    except KitError as error:
        print(error, file=sys.stderr)
        return 2
    if out:
        files.write_text(Path(out), text(found, form))
    else:
        print(text(found, form), end="")
    return judging.CODES[judging.overall(found)]


if __name__ == "__main__":
    sys.exit(main())
