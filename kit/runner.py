"""Run notebooks headlessly: ``python -m kit.runner`` (which ``run_all.sh`` calls) and one papermill
process a notebook.

papermill's output notebook claims success even after its kernel died, so only exit codes,
``status.json`` files and the artefacts on disk are believed here. A notebook whose sources,
parameters, data and artefacts are unchanged is not run again.
"""

import argparse
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import yaml

from kit import files as files_module
from kit import jobs as jobs_module
from kit import kernels, params, paths, record, rehearsal, rehearse
from kit.errors import KitError
from kit.jobs import Job

KERNEL = "medimg-kit"
OUT_OF_MEMORY = {
    138: "the kernel died",
    137: "the process was killed",
    -9: "the process was killed",
}
PR_SET_PDEATHSIG = 1
# papermill without the grammar of web addresses that jsonschema would build at each start, for a
# check that no notebook needs: half of papermill's start
PAPERMILL = (
    "import sys; sys.modules['rfc3987_syntax'] = None; "
    "from papermill.__main__ import papermill; papermill()"
)
EMBEDDED = (
    "smoke",
    "quick",
    # profiles whose times nobody reads: two notebooks at a time, much of whose work is
    # single-threaded
)


def install_kernel() -> None:
    """Write the kernel specification that papermill and nbmake are told to use: this very
    interpreter.

    The name "python3" may be shadowed by a kernel in the user's home that belongs to another
    environment.
    """
    folder = Path(sys.prefix) / "share" / "jupyter" / "kernels" / KERNEL
    argv = [
        sys.executable,
        "-Xfrozen_modules=off",
        "-m",
        "ipykernel_launcher",
        "-f",
        "{connection_file}",
    ]
    spec = {"argv": argv, "display_name": "Medical imaging reproduction kit", "language": "python"}
    if files_module.read_json(folder / "kernel.json", default=None) != spec:
        files_module.write_json(folder / "kernel.json", spec)


def run_job(job: Job, say: Callable[[str], object], stop: threading.Event) -> None:
    """Run one notebook and fill in `job`; a failure is recorded, not raised. Nothing is recorded
    once `stop` is set.
    """
    if jobs_module.up_to_date(job):
        status = files_module.read_json(job.status_file)
        job.state, job.seconds, job.peak_mb, job.artefacts = (
            "up to date",
            status["seconds"],
            status["peak_mb"],
            jobs_module.collect(job),
        )
        return
    job.status_file.unlink(missing_ok=True)
    parameters = job.folder / f"{job.name}.parameters.yml"
    files_module.write_text(parameters, yaml.safe_dump(job.values, sort_keys=False))
    started = time.perf_counter()
    code, usage = _papermill(job, parameters, say)
    if stop.is_set():
        return
    job.seconds, job.peak_mb = round(time.perf_counter() - started, 1), round(usage / 1024)
    job.artefacts = jobs_module.collect(job)
    job.state, job.reason = ("finished", None) if code == 0 else ("failed", _reason(job, code))
    files_module.write_json(
        job.status_file,
        {
            "notebook": job.name,
            "state": job.state,
            "reason": job.reason,
            "exit_code": code,
            "key": job.key(),
            "seconds": job.seconds,
            "peak_mb": job.peak_mb,
            "parameters": job.values,
            "environment": record.environment(job.values.get("seed")),
        },
    )


def _papermill(job: Job, parameters: Path, say) -> tuple[int, int]:
    """Run papermill; return its exit code and the peak memory of the largest process in KiB."""
    command = [
        sys.executable,
        "-c",
        PAPERMILL,
        str(job.notebook),
        str(job.folder / f"{job.name}.ipynb"),
        "-f",
        str(parameters),
        "-k",
        KERNEL,
        "--cwd",
        str(paths.ROOT),
        "--no-progress-bar",
        "--log-level",
        "ERROR",
        "--stdout-file",
        "-",
        "--stderr-file",
        str(job.folder / f"{job.name}.stderr.log"),
    ]
    environment = {
        **os.environ,
        **kernels.chosen(job.profile),
        "KIT_BATCH": "1",
        "KIT_NOTEBOOK": job.name,
        "KIT_DATA": str(paths.data_dir()),
        "KIT_RESULTS": str(paths.results_dir()),
        "PYTHONUNBUFFERED": "1",
        "MPLBACKEND": "agg",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    with (job.folder / f"{job.name}.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        assert process.stdout is not None  # a pipe, as asked for
        for line in process.stdout:
            log.write(line)
            log.flush()
            if "epoch" in line or line.startswith("note:"):
                say(f"[{job.name[:2]}] {line.rstrip()}")
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss


def _die_with_parent() -> None:
    """Ask Linux to kill this process when the runner dies, so that no orphan goes on writing; the
    kernel follows papermill by itself.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _reason(job: Job, code: int) -> str:
    if code in OUT_OF_MEMORY:
        return (
            f"out of memory ({OUT_OF_MEMORY[code]}, exit code {code}, peak {job.peak_mb:.0f} "
            "MB); lower batch_size or the image size, or use a larger machine"
        )
    text = (job.folder / f"{job.name}.log").read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    sentence = next(
        (
            line
            for line in reversed(lines)
            if ": " in line and line.split(":")[0].replace(".", "").replace("_", "").isalnum()
        ),
        "see its log",
    )
    return f"{sentence} (log: {job.folder / (job.name + '.log')})"


def run_all(jobs: list[Job], workers: int = 1) -> None:
    """Run the jobs, `workers` at a time, the summary last; a failed notebook does not stop the
    others.
    """
    lock, stop = threading.Lock(), threading.Event()

    def say(line: str) -> None:
        with lock:
            print(line, flush=True)

    def one(job: Job) -> None:
        if stop.is_set():
            return
        say(f"[{job.name[:2]}] {job.name} ...")
        try:
            run_job(job, say, stop)
        except KitError as error:
            job.state, job.reason, job.artefacts = "failed", str(error), jobs_module.collect(job)
        say(
            f"[{job.name[:2]}] {job.state} after {job.seconds:.0f} s"
            + (f": {job.reason}" if job.reason else "")
        )

    with ThreadPoolExecutor(workers) as pool:
        try:
            list(pool.map(one, [j for j in jobs if not jobs_module.is_summary(j.name)]))
        except KeyboardInterrupt:  # the pool would wait for its notebooks: end them
            stop.set()
            _stop_children()
            raise
    for job in jobs:
        if jobs_module.is_summary(job.name):
            one(job)


def _stop_children() -> None:
    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()
    for child in psutil.wait_procs(children, timeout=5)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def _assignment(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name.strip().isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not name=value")
    return name.strip(), value


def parser() -> argparse.ArgumentParser:
    """The command line, as contract 1 fixes it."""
    p = argparse.ArgumentParser(
        prog="run_all.sh", description="Run the notebooks and regenerate every table and figure."
    )
    p.add_argument("--profile", default="quick", help="smoke, quick, cpu or paper (default: quick)")
    p.add_argument(
        "--only", default="", metavar="10,30", help="only the notebooks whose names begin so"
    )
    p.add_argument(
        "--set",
        action="append",
        default=[],
        type=_assignment,
        metavar="NAME=VALUE",
        help="a notebook parameter, checked against its type; repeatable",
    )
    p.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="notebooks at a time (default: 2 on embedded data, profiles smoke and quick; else 1)",
    )
    p.add_argument(
        "--data", metavar="DIR", help="folder of the data sets (default: $KIT_DATA or data/)"
    )
    p.add_argument(
        "--fresh",
        action="store_true",
        help="delete earlier results of the chosen notebooks and start over",
    )
    p.add_argument(
        "--rehearse",
        action="store_true",
        help="with --profile paper: one step a training at the published size, then the plan of "
        "what the whole would take, in results/rehearsal",
    )
    p.add_argument(
        "--plan", action="store_true", help="print the plan of the rehearsal so far and stop"
    )
    p.add_argument(
        "--gpu-tflops",
        type=float,
        metavar="X",
        help="float32 peak of the GPU that the plan is for, in 10^12 operations a second",
    )
    p.add_argument(
        "--list", action="store_true", help="list the notebooks with their parameters and stop"
    )
    return p


def _interrupted(*_) -> None:
    """SIGTERM ends the run as Ctrl-C does, also where a shell has started it in the background,
    with SIGINT ignored.
    """
    raise KeyboardInterrupt


def _jobs(asked) -> list[Job]:
    """What the command line asks for; a rehearsal changes the environment of this process too."""
    if not asked.rehearse:
        return jobs_module.plan(asked.profile, asked.only, asked.set)
    if asked.profile != "paper":
        raise params.BadParameter(
            f"--rehearse is for the published settings; add --profile paper (not {asked.profile})."
        )
    jobs = rehearse.plan_jobs(asked.only, asked.set)
    if not asked.list:
        rehearse.environment(jobs)
    return jobs


def _plan_of(asked) -> str:
    """The plan, or the sentence that says why there is none."""
    try:
        return rehearse.write(asked.gpu_tflops)
    except rehearse.NothingRehearsed as error:
        return str(error)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; the return value is the exit code: 0 all written, 1 something missing, 2
    refused, 130 interrupted.
    """
    asked = parser().parse_args(arguments)
    if asked.data:
        os.environ["KIT_DATA"] = str(Path(asked.data).expanduser().resolve())
    signal.signal(signal.SIGTERM, _interrupted)
    jobs = []
    try:
        if asked.plan:
            print(rehearse.write(asked.gpu_tflops))
            return 0
        jobs = _jobs(asked)
        if asked.list:
            print(
                "\n".join(f"{j.name}\n{params.listing(params.declared(j.notebook))}" for j in jobs)
            )
            return 0
        with contextlib.ExitStack() as locks:
            for job in jobs:
                locks.enter_context(files_module.FolderLock(job.folder / ".locks" / job.name))
            if asked.fresh:
                jobs_module.start_over(jobs)
            install_kernel()
            run_all(
                jobs,
                max(0, asked.jobs or 0)
                or (min(2, os.cpu_count() or 1) if asked.profile in EMBEDDED else 1),
            )
    except KitError as error:
        print(f"run_all.sh: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        _stop_children()
        print(
            "\nrun_all.sh: interrupted; the next call goes on from the last finished epoch.",
            file=sys.stderr,
        )
        return 130
    print("\n" + jobs_module.summary(jobs))
    if asked.rehearse:
        print("\n" + _plan_of(asked))
    profile = rehearsal.PROFILE if asked.rehearse else asked.profile
    page = paths.results_dir() / profile / "index.html"
    print(f"\nresults in {page.parent}" + (f", page {page}" if page.exists() else ""))
    return 0 if jobs_module.complete(jobs) else 1


if __name__ == "__main__":
    sys.exit(main())
