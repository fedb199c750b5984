"""A search over several processes of one machine: a chief, its workers, and an eye on both.

A chief or worker that is killed is started again, for an individual that exhausts the memory takes
its worker with it; after three deaths the oracle gives the individual up. All processes end with
the one that started them. Threads are divided: two workers on two cores with one thread each do not
fight.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from kit import files, paths
from kit.search.evolution import plan as plans
from kit.search.evolution import tuner
from kit.search.evolution.plan import AllFailed, Plan, SearchBroken
from kit.search.evolution.population import ended

FRUITLESS = 3  # deaths of a worker in a row between which no individual ended


def run(
    plan: Plan, folder: Path | str, workers: int = 0, threads: int | None = None
) -> plans.Result:
    """Run a search, or go on with the one in the folder.

    Parameters
    ----------
    plan : kit.search.evolution.plan.Plan
    folder : path-like
        A search with other settings in it is an error.
    workers : int
        Processes that evaluate; 0 evaluates in this process.
    threads : int, optional
        Threads of each worker; the cores divided by the workers unless given.

    Returns
    -------
    kit.search.evolution.plan.Result
        The same, to the last bit, for every number of workers, if the evaluation is a function of
        its arguments.

    Raises
    ------
    kit.search.evolution.plan.AllFailed
        If not one individual could be evaluated.
    kit.search.evolution.plan.SearchBroken
        If the processes ended before the search.
    kit.search.evolution.plan.OtherSearch, kit.search.evolution.plan.BadPlan
    """
    folder = Path(folder).resolve()
    plan.function()
    plan.write(folder)
    if not workers:
        return tuner.alone(folder)
    if not _over(folder):
        with _Crew(folder, workers, threads or max((os.cpu_count() or 1) // workers, 1)) as crew:
            crew.wait()
    return plans.result(folder)


def _state(folder) -> dict | None:
    return files.read_json(folder / plans.STATE, default=None)


def _over(folder) -> bool:
    state = _state(folder)
    return state is not None and not state["failure"] and ended(state)


def free_port() -> int:
    """A port of this machine that nobody listens at now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def environment(threads: int) -> dict:
    """Environment of a worker whose libraries use so many threads."""
    pinned = dict.fromkeys(
        ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"],
        str(threads),
    )
    path = os.pathsep.join(filter(None, [str(paths.ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, **pinned, "TF_NUM_INTEROP_THREADS": "1", "PYTHONPATH": path}


class _Crew:
    """The chief and the workers of a search, alive while the block runs."""

    def __init__(self, folder: Path, workers: int, threads: int):
        self.folder, self.threads, self.address = folder, threads, f"127.0.0.1:{free_port()}"
        self.names, self.processes, self.started_at, self.deaths = (
            [f"worker-{n + 1}" for n in range(workers)],
            {},
            {},
            {},
        )

    def __enter__(self):
        try:
            for name in ["chief", *self.names]:
                self._start(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc):
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _start(self, name: str) -> None:
        """Start the chief or a worker; what it says goes to its log."""
        role = "chief" if name == "chief" else "worker"
        command = [
            sys.executable,
            "-m",
            "kit.search.evolution.tuner",
            role,
            str(self.folder),
            "--address",
            self.address,
            "--name",
            name,
            "--parent",
            str(os.getpid()),
        ]
        surroundings = {
            **environment(self.threads),
            **({"CUDA_VISIBLE_DEVICES": ""} if role == "chief" else {}),
        }
        with self._log(name).open("a") as log:
            self.processes[name] = subprocess.Popen(
                command,
                cwd=paths.ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=surroundings,
            )
        self.started_at[name] = self._progress()

    def _progress(self) -> int:
        state = _state(self.folder)
        return len(state["end_order"]) if state else 0

    def wait(self) -> None:
        """Until the chief ends; workers that died are started again."""
        while (
            self.processes["chief"].poll() is None or self.processes["chief"].returncode < 0
        ):  # below 0: killed
            time.sleep(0.2)
            if (self.processes["chief"].poll() or 0) < 0:
                self._again("chief")
            for name in self.names:
                if self.processes[name].poll() not in (None, 0):
                    self._again(name)
        if self.processes["chief"].returncode:
            state = _state(self.folder)
            raise (
                AllFailed(state["failure"])
                if state and state["failure"]
                else SearchBroken(
                    f"The chief of the search ended early: {self._last_words('chief')}"
                )
            )
        for name in self.names:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.processes[name].wait(10)

    def _again(self, name: str) -> None:
        self.deaths[name] = (
            self.deaths.get(name, 0) + 1 if self._progress() == self.started_at[name] else 1
        )
        if self.deaths[name] <= FRUITLESS:
            self._start(name)
        elif name == "chief" or all(
            self.processes[other].poll() not in (None, 0) for other in self.names
        ):
            raise SearchBroken(
                f"The {name.rstrip('-0123456789')} of the search died again and again; its last "
                f"words: {self._last_words(name)}"
            )

    def _last_words(self, name: str) -> str:
        lines = self._log(name).read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "none"
