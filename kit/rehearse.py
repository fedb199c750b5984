"""``run_all.sh --profile paper --rehearse``: the published settings with one step a training, and
the plan of what the whole would take.

Data sets that are prepared are used; in place of the others stand as many small images of noise in
the same folders, which the notebooks enlarge to the published size. Settings that only multiply
work of one kind (images that are timed one by one, generations of a search) are reduced by
``profiles/rehearsal.yml``; ``times`` there says by how much, so that the plan counts the published
work. Hours on a GPU follow from counted operations (:func:`kit.training.rehearsed.operations`):
three forward passes a step, at a third of the card's float32 peak, and 10 ms a step or more. Small
networks reach less and tensor cores more, so that the real time may be a third or three times of
it.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from kit import files, jobs, params, paths, record, rehearsal
from kit.data import registry
from kit.errors import KitError
from kit.jobs import Job

# float32 peak in 10^12 operations a second, and memory in GB, as the maker states them
CARDS = {
    "RTX 3060 Ti": (16.2, 8),
    "T4": (8.1, 16),
    "RTX 3090": (35.6, 24),
    "A100": (19.5, 80),
    "H100": (66.9, 80),
}
UTILISATION, UNCERTAINTY = 1 / 3, 3.0
LEAST = 0.01  # seconds of a step that no card undercuts: starting kernels, fetching the batch
PASSES = 3  # forward, and backward for activations and weights
SIDE = 32  # of a stand-in image in pixels
COLUMNS = [
    "notebook",
    "training",
    "trainings",
    "seeds",
    "epochs",
    "steps",
    "batch",
    "batch_here",
    "parameters",
    "gflops_image",
    "step_seconds_here",
    "hours_here",
    "hours_gpu",
    "peak_gib",
]


class NothingRehearsed(KitError):
    """There is no rehearsal to make a plan of."""


def plan_jobs(only: str = "", assignments: Sequence[tuple[str, str]] = ()) -> list[Job]:
    """The jobs of a rehearsal: the paper profile's parameters, overlaid by
    ``profiles/rehearsal.yml`` and then by the command line.

    Raises
    ------
    kit.jobs.UnknownNotebook, kit.params.BadParameter
    """
    published = jobs.plan("paper", only, assignments)
    for job in published:
        own = {name: str(value) for name, value in overlay(job.name)["settings"].items()}
        given = {name for name, _ in assignments}
        extra = [(name, text) for name, text in own.items() if name not in given]
        job.values = params.resolve(
            job.notebook, "paper", [*extra, *assignments], ignore_unknown=True
        )
        job.profile = rehearsal.PROFILE
        if "profile" in job.values:
            job.values["profile"] = rehearsal.PROFILE
    return published


def overlay(notebook: str) -> dict:
    """What ``profiles/rehearsal.yml`` says of a notebook: settings that are reduced, and times, a
    factor for trainings whose name begins so.
    """
    file = paths.profiles_dir() / f"{rehearsal.PROFILE}.yml"
    found = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}
    return {"settings": {}, "times": {}} | (found.get(notebook) or {})


def environment(chosen: list[Job], say: Callable[[str], object] = print) -> None:
    """Set this process, and those that it starts, up for a rehearsal: a folder of data sets that
    has all that the jobs name, and the sign that :func:`kit.rehearsal.active` looks for.
    """
    real, own = paths.data_dir(), rehearsal.folder() / "data"
    own.mkdir(parents=True, exist_ok=True)
    named = {text for job in chosen for text in _texts(job.values)}
    for name in sorted(named & set(registry.names())):
        data, link = registry.get(name), own / name
        there = (real / name / "dataset.json").exists()
        if there and not link.exists():
            link.symlink_to(real / name, target_is_directory=True)
        elif not there and not data.embedded and data.kind == "images" and not link.exists():
            stand_in(data, link)
            say(f"note: {name} is not prepared; {record_count(data):,} images of noise stand in")
    os.environ["KIT_DATA"] = str(own)
    os.environ[rehearsal.SIGN] = "1"


def _texts(value) -> set[str]:
    """All strings of a nested value, keys of dictionaries too."""
    if isinstance(value, dict):
        return _texts([*value, *value.values()])
    if isinstance(value, (list, tuple)):
        return set().union(*map(_texts, value))
    return {value} if isinstance(value, str) else set()


def record_count(data: registry.DataSet) -> int:
    """Number of images that the publications print for a set; 100 a class where none is printed."""
    return sum(_counts(data).values())


def _counts(data: registry.DataSet) -> dict:
    each = data.source.get("each", {})
    return {
        (split, name): data.counts.get(
            f"{folder}/{name}".strip("/"), each.get(split, data.counts.get(split, 100))
        )
        for split, folder in data.layout.items()
        for name in data.classes
    }


def stand_in(data: registry.DataSet, root: Path) -> None:
    """Write a data set of noise with the layout and counts of a registered one.

    Parameters
    ----------
    data : kit.data.registry.DataSet
        Of images.
    root : Path
        Appears as a whole.
    """
    partial = root.with_name(f".{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    rows, rng = [], np.random.default_rng(0)
    for (split, name), count in _counts(data).items():
        folder = "/".join(part for part in (data.layout[split], name) if part)
        (partial / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image_id = f"{folder}/{number:05d}.png"
            pixels = rng.integers(0, 256, (SIDE, SIDE), np.uint8)
            Image.fromarray(pixels).save(partial / image_id)
            content = (partial / image_id).read_bytes()
            rows.append(
                [
                    image_id,
                    split,
                    data.classes.index(name),
                    name,
                    hashlib.sha256(content).hexdigest(),
                ]
            )
    manifest = pd.DataFrame(rows, columns=registry.INDEX_COLUMNS)
    files.write_csv(partial / "manifest.csv", manifest.sort_values("image_id"))
    facts = {"name": data.name, "embedded": False, "incomplete": [], "stand_in_for": data.name}
    facts |= {"title": f"noise in place of {data.title}", "made_by": "rehearsal"}
    files.write_json(
        partial / "dataset.json", facts | {"fingerprint": record.fingerprint(manifest)}
    )
    partial.replace(root)


def plan(teraflops: float | None = None) -> pd.DataFrame:
    """What the rehearsed trainings would take, a row for each distinct network and schedule.

    Parameters
    ----------
    teraflops : float, optional
        Float32 peak of a GPU in 10^12 operations a second; default an A100's.

    Returns
    -------
    pandas.DataFrame
        Columns `COLUMNS`; steps are those of all trainings of a row together, hours too.

    Raises
    ------
    NothingRehearsed
    """
    found = rehearsal.written("trainings")
    if not found:
        raise NothingRehearsed(
            f"{rehearsal.folder()} holds no rehearsal yet; run bash run_all.sh --profile paper "
            "--rehearse first."
        )
    peak = 1e12 * (teraflops or CARDS["A100"][0]) * UTILISATION
    table = pd.DataFrame([_row(facts, peak) for facts in found])
    keys = ["notebook", "signature", "epochs"]
    rows = [_together(group) for _, group in table.groupby(keys, sort=False)]
    return pd.DataFrame(rows)[COLUMNS]


def _row(facts: dict, peak: float) -> dict:
    times = next(
        (
            factor
            for start, factor in overlay(facts["notebook"])["times"].items()
            if facts["name"].startswith(start)
        ),
        1,
    )
    steps = facts["steps"] * times
    passes = PASSES * steps * facts["batch"] + facts["predicted"] * times
    least = steps * LEAST
    here = steps * facts["step_seconds"] + facts["predicted"] * times * facts["predict_seconds"]
    return {
        **facts,
        "times": times,
        "steps": steps,
        "hours_here": here / 3600,
        "flops": np.nan if facts["flops"] is None else facts["flops"],
        "hours_gpu": np.nan
        if facts["flops"] is None
        else max(least, passes * facts["flops"] / peak) / 3600,
    }


def _together(group: pd.DataFrame) -> dict:
    first = group.iloc[0]
    peaks = group["peak"].dropna()
    return {
        "notebook": first["notebook"],
        "training": first["name"],
        "trainings": int(group["times"].sum()),
        "seeds": group["seed"].nunique(),
        "epochs": first["epochs"],
        "steps": int(group["steps"].sum()),
        "batch": first["batch"],
        "batch_here": first["batch_here"],
        "parameters": first["parameters"],
        "gflops_image": first["flops"] / 1e9,
        "step_seconds_here": group["step_seconds"].median(),
        "hours_here": group["hours_here"].sum(),
        "hours_gpu": group["hours_gpu"].sum(),
        "peak_gib": peaks.max() / 2**30 if len(peaks) else np.nan,
    }


def describe(table: pd.DataFrame, teraflops: float | None = None) -> str:
    """The plan in words and tables, as Markdown: by notebook, by card, by training, and what has to
    be fetched.
    """
    by = table.groupby("notebook").agg(
        trainings=("trainings", "sum"),
        hours_here=("hours_here", "sum"),
        hours_gpu=("hours_gpu", "sum"),
        peak_gib=("peak_gib", "max"),
    )
    total = CARDS["A100"][0] if teraflops is None else teraflops
    cards = pd.DataFrame(
        {
            name: {
                "memory_gb": memory,
                "tflops": peak,
                "hours": plan(peak)["hours_gpu"].sum(),
                "does_not_fit": ", ".join(
                    sorted({row.training for row in table.itertuples() if row.peak_gib > memory})
                )
                or "-",
            }
            for name, (peak, memory) in CARDS.items()
        }
    ).T.rename_axis("card")
    reduced = table[table["batch_here"] < table["batch"]]
    said = [
        "# What the paper profile takes",
        f"Measured by a rehearsal on {record.device_name()}: one step a training at the published "
        f"size. `hours_gpu` is for {total:g} * 10^12 operations a second, of which a third is "
        f"taken to be reached, at 10 ms a step or more; it may be {UNCERTAINTY:g} times less or "
        "more. `peak_gib` is what a step adds to a process on this machine, without the images.",
        "## By notebook\n\n" + _markdown(by),
        "## By card\n\n" + _markdown(cards),
        "## By training\n\n" + _markdown(table.set_index("training")),
    ]
    if len(reduced):
        said.append(
            "Rehearsed with a smaller batch, for want of memory: "
            + ", ".join(reduced["training"])
            + "."
        )
    said.append("## To fetch\n\n" + "\n".join(f"- {line}" for line in to_fetch()))
    said.append(f"Disk: {disk() / 2**30:.1f} GiB in {rehearsal.folder().name}/ after this.")
    return "\n\n".join(said) + "\n"


def _markdown(table: pd.DataFrame) -> str:
    shown = table.reset_index()
    lines = [[_text(value) for value in row] for row in shown.itertuples(index=False)]
    head = [str(column) for column in shown.columns]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *lines])


def _text(value) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, (int, np.integer)) else str(value)


def to_fetch() -> list[str]:
    """Data sets and weights that the real run needs and the rehearsal did without."""
    made = sorted((rehearsal.folder() / "data").glob("*/dataset.json"))
    lines = [
        f"data: `python -m data_prep {file.parent.name}`"
        for file in made
        if files.read_json(file).get("made_by") == "rehearsal"
    ]
    sources = dict.fromkeys(  # without the folders of this machine
        facts["source"].split(" into ")[0] for facts in rehearsal.written("lacking")
    )
    return lines + [f"weights: {source}" for source in sources] or ["nothing: all is here"]


def disk() -> int:
    """Bytes below the rehearsal's folder, links not followed."""
    total = 0
    for folder, _, names in os.walk(rehearsal.folder()):
        total += sum((Path(folder) / name).lstat().st_size for name in names)
    return total


def write(teraflops: float | None = None) -> str:
    """Save plan.csv and plan.md below ``results/rehearsal``; returns the latter's text."""
    table = plan(teraflops)
    text = describe(table, teraflops)
    files.write_csv(rehearsal.folder() / "plan.csv", table)
    files.write_text(rehearsal.folder() / "plan.md", text)
    return text
