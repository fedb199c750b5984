"""Publish a run on real data: copy what it left, without weights, to ``results/reference/``, which
is under version control.

    python -m kit.reference cpu
    python -m kit.reference --again

The second form trains and copies nothing: it recomputes intervals, duplicate groups and evidence of
what is published already from the committed predictions, and makes the page anew.

Tables, figures, values, predictions, histories and the notebooks' records of time and memory are
copied; models, individuals of searches (their genes and fitness are in the search's own files),
locks and half-finished training states are not. What was published before of the same publication
is replaced, everything else there stays, and the page is made anew.
"""

import argparse
import shutil
import sys
from pathlib import Path

from kit import files, paths
from kit.errors import KitError
from kit.published import papers
from kit.report import page, refreshed
from kit.studies.br35h import evidence

NAME = "reference"
LEFT_OUT = shutil.ignore_patterns(
    *("*.keras", "*.npz", "trial_*", ".lock*", ".tmp-*", "*.ipynb", "*.log", "index.html")
)


def publish(profile: str) -> Path:
    """Copy the results of `profile` to the reference folder and write its page.

    Parameters
    ----------
    profile : str
        Name of a results folder other than "reference".

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    page.NoResults
        If there are no results of that profile.
    record.CannotWrite
    """
    source, target = paths.results_dir() / profile, paths.results_dir() / NAME
    folders = [f for f in sorted(source.glob("*")) if f.is_dir()]
    if profile == NAME or not folders:
        raise page.NoResults(
            f"There are no results in {source}; run `bash run_all.sh --profile {profile}` first, "
            "or name another profile."
        )
    for folder in folders:
        staged = target / f".tmp-{folder.name}"
        shutil.rmtree(staged, ignore_errors=True)
        try:
            shutil.copytree(folder, staged, ignore=LEFT_OUT)
        except (OSError, shutil.Error) as error:
            shutil.rmtree(staged, ignore_errors=True)
            raise files.CannotWrite(
                f"{folder} could not be copied to {target} ({error}); free space or choose another "
                "results folder."
            ) from error
        _replace(staged, target / folder.name, whole=folder.name != "notebooks")
    return page.build(NAME)


def again() -> Path:
    """Recompute what verdicts need in the reference folder from its predictions; gives the page."""
    target = paths.results_dir() / NAME
    every = [target / key for key in papers.keys()]  # noqa: SIM118  a module's function
    folders = [folder for folder in every if (folder / "values.json").exists()]
    if not folders:
        raise page.NoResults(f"There are no results in {target}; publish a profile first.")
    for folder in folders:
        print(f"{folder.name}: {refreshed.refresh(folder)} intervals recomputed", flush=True)
    if (target / "br35h" / "costs.csv").exists():
        evidence.again(target / "br35h")
    return page.build(NAME)


def _replace(staged: Path, target: Path, whole: bool) -> None:
    """Put `staged` in the place of `target`; unless `whole`, files of `target` that `staged` lacks
    stay.
    """
    if whole:
        shutil.rmtree(target, ignore_errors=True)
        staged.replace(target)
        return
    target.mkdir(parents=True, exist_ok=True)
    for file in staged.glob("*.*"):
        file.replace(target / file.name)
    shutil.rmtree(staged)


def main(arguments: list[str] | None = None) -> int:
    """Command line; the return value is the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m kit.reference",
        description="Copy a profile's results to results/reference/.",
    )
    parser.add_argument("profile", nargs="?", help="name of a results folder")
    parser.add_argument("--again", action="store_true", help="recompute, from what is published")
    options = parser.parse_args(arguments)
    if options.again == bool(options.profile):
        parser.error("give the name of a profile, or --again")
    try:
        print(again() if options.again else publish(options.profile))
    except KitError as error:
        print(f"kit.reference: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
