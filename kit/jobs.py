"""Jobs of the runner: one notebook with one profile and its parameters, what it depends on, and
what it has to leave.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kit import files as files_module
from kit import kernels, params, paths, record
from kit.data import registry
from kit.errors import KitError
from kit.report import artefacts as report_artefacts


class UnknownNotebook(KitError):
    """``--only`` names no notebook."""


@dataclass
class Job:
    """One notebook of this call: what to run it with, and what came of it."""

    notebook: Path
    profile: str
    values: dict
    state: str = "waiting"
    reason: str | None = None
    seconds: float = 0.0
    peak_mb: float = 0.0
    artefacts: list = field(default_factory=list)

    @property
    def name(self) -> str:
        """The notebook's name without suffix."""
        return self.notebook.stem

    @property
    def folder(self) -> Path:
        """``results/<profile>/notebooks``, where the executed notebook, its log and its
        status go.
        """
        return paths.results_dir() / self.profile / "notebooks"

    @property
    def status_file(self) -> Path:
        """Where the outcome of this notebook is kept."""
        return self.folder / f"{self.name}.status.json"

    def key(self) -> str:
        """Digest of all that the notebook's artefacts depend on: source, parameters, code, papers,
        data, and for the summary all other results.
        """
        inputs = [
            self.notebook.read_text(encoding="utf-8"),
            self.values,
            record.code_digest(),
            _digest_files(paths.papers_dir().glob("*.yml")),
            _data_fingerprints(self.values),
        ]
        if kernels.chosen(self.profile) or kernels.onednn():
            inputs.append("onednn")
        if is_summary(self.name):
            inputs.append(
                _digest_files(
                    (paths.results_dir() / self.profile).glob("*/[av][ra][tl]*.json"),
                    skip="summary",
                )
            )
        return files_module.digest(inputs)


def is_summary(name: str) -> bool:
    """True for the notebook that reads the results of the others and so has to run last."""
    return name.startswith("90")


def _digest_files(files, skip: str = "") -> str:
    return files_module.digest(
        [
            [f.name, f.parent.name, f.read_text(encoding="utf-8")]
            for f in sorted(files)
            if f.parent.name != skip
        ]
    )


def _data_fingerprints(values: dict) -> dict:
    named = [
        v
        for value in values.values()
        for v in (value if isinstance(value, list) else [value])
        if isinstance(v, str)
    ]
    known = {
        name: registry.root(name) / "dataset.json" for name in named if name in registry.names()
    }
    return {
        name: files_module.read_json(file)["fingerprint"]
        for name, file in known.items()
        if file.exists()
    }


def plan(profile: str, only: str = "", assignments: Sequence[tuple[str, str]] = ()) -> list[Job]:
    """The jobs of one call, with all parameters checked; nothing has been started or written when
    this raises.

    Parameters
    ----------
    profile : str
    only : str
        Comma-separated beginnings of notebook names ("10,30"); empty for all.
    assignments : sequence of (name, text)

    Raises
    ------
    UnknownNotebook, params.BadParameter
    """
    notebooks = sorted(paths.notebooks_dir().glob("*.ipynb"))
    if only:
        wanted = [w.strip() for w in only.split(",") if w.strip()]
        for start in wanted:
            if not any(n.name.startswith(start) for n in notebooks):
                raise UnknownNotebook(
                    f"No notebook begins with {start!r}; there are "
                    f"{', '.join(n.stem for n in notebooks)}."
                )
        notebooks = [n for n in notebooks if n.name.startswith(tuple(wanted))]
    declared = {n: params.declared(n) for n in notebooks}
    for name, _ in assignments:
        if not any(name in parameters for parameters in declared.values()):
            lists = "\n".join(f"{n.stem}\n{params.listing(p)}" for n, p in declared.items())
            raise params.BadParameter(
                f"--set {name}: no chosen notebook has this parameter; they have\n{lists}"
            )
    return [
        Job(n, profile, params.resolve(n, profile, assignments, ignore_unknown=True))
        for n in notebooks
    ]


def collect(job: Job) -> list[dict]:
    """The expected artefacts of a notebook with what is really on disk: status "written" only if
    every file is there.
    """
    found = []
    for wanted in report_artefacts.expected(job.name):
        folder = paths.results_dir() / job.profile / wanted["paper"]
        entries = files_module.read_json(folder / "artefacts.json", default={}).get("artefacts", [])
        entry: dict = next((e for e in entries if e["id"] == wanted["id"]), {})
        complete = entry.get("status") == "written" and all(
            (folder / f).is_file() for f in entry["files"]
        )
        status = (
            "written" if complete else "failed" if entry.get("status") == "failed" else "missing"
        )
        found.append({**wanted, "status": status, "reason": entry.get("reason")})
    return found


def up_to_date(job: Job) -> bool:
    """True if this notebook ended well with the same key and everything it wrote is still there."""
    status = files_module.read_json(job.status_file, default={})
    return (
        status.get("state") == "finished"
        and status.get("key") == job.key()
        and all(a["status"] == "written" for a in collect(job))
    )


def summary(jobs: list[Job]) -> str:
    """The closing table: notebook, state, artefacts written / expected, time, peak memory; then
    what is missing and why.
    """
    lines = [f"{'notebook':<32}{'state':<12}{'artefacts':>10}{'time':>10}{'peak memory':>14}"]
    for job in jobs:
        written = sum(a["status"] == "written" for a in job.artefacts)
        lines.append(
            f"{job.name:<32}{job.state:<12}{f'{written}/{len(job.artefacts)}':>10}"
            f"{job.seconds:>8.0f} s{job.peak_mb:>11.0f} MB"
        )
    for job in jobs:
        lines += [
            f"  {job.name}: {a['paper']} {a['id']} {a['status']}"
            + (f" ({a['reason']})" if a["reason"] else "")
            for a in job.artefacts
            if a["status"] != "written"
        ]
    return "\n".join(lines)


def complete(jobs: list[Job]) -> bool:
    """True if every notebook ended well and every expected artefact was written."""
    return all(
        j.state in ("finished", "up to date") and all(a["status"] == "written" for a in j.artefacts)
        for j in jobs
    )


def start_over(jobs: list[Job]) -> None:
    """Delete what earlier runs of these notebooks left in the results folder (``--fresh``)."""
    for job in jobs:
        for paper in {a["paper"] for a in report_artefacts.expected(job.name)}:
            shutil.rmtree(paths.results_dir() / job.profile / paper, ignore_errors=True)
        job.status_file.unlink(missing_ok=True)
