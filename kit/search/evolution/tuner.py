"""The tuner of KerasTuner that trains individuals, and the processes of a search over several of
them.

The publication has one process. Here KerasTuner's protocol is used: one chief holds the oracle, any
number of workers ask it for individuals over gRPC. On one machine
:func:`kit.search.evolution.workers.run` starts them; on several, start by hand, with a folder that
all of them see::

    python -m kit.search.evolution.tuner chief FOLDER --address HOST:PORT
    python -m kit.search.evolution.tuner worker FOLDER --address HOST:PORT --name NAME

KerasTuner's server loop waits 20 seconds between looks and for workers that died; the one here does
not. Its client gives up on the first broken connection; here it waits for the chief to come back.
An individual whose evaluation raises (out of memory, diverged, an optimizer that cannot run) has
failed, with the reason; nothing is tried twice, since the same seed would fail again.
"""

import argparse
import contextlib
import json
import math
import os
import sys
import threading
import time
import traceback
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.src import protos
from keras_tuner.src.distribute import oracle_chief, oracle_client

# compat silences TensorFlow before KerasTuner imports it
from kit import compat, files, processes  # noqa: F401
from kit.errors import KitError
from kit.search.evolution import plan as plans
from kit.search.evolution.genetic import NOT_FINITE
from kit.search.evolution.oracle import FITNESS, HEARTBEAT, INDIVIDUAL, OUTCOME, PopulationOracle
from kit.search.evolution.plan import Plan, SearchBroken
from kit.search.evolution.population import ended

POLL, PATIENCE = (
    0.1,
    600.0,
    # seconds between questions while the generation is not complete; to wait for a chief, or for a
    # worker
)
RETRIED = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
LONGEST_REASON = 300


class PopulationTuner(BaseTuner):
    """Evaluates individuals that the oracle hands out.

    Parameters
    ----------
    plan : kit.search.evolution.plan.Plan
    folder : path-like
        Of the search.
    role : str
        "alone", "chief" or "worker"; the last two need KerasTuner's three environment variables.
    """

    def __init__(self, plan: Plan, folder: Path | str, role: str = "alone") -> None:
        folder = Path(folder)
        self.plan, self.role, self.folder, self._asked = plan, role, folder, 0
        with contextlib.redirect_stdout(sys.stderr):  # KerasTuner says where it reloads from
            super().__init__(
                PopulationOracle(plan, chief=role == "chief"),
                directory=str(folder.parent),
                project_name=folder.name,
            )
        if role == "worker":
            self.oracle = PatientClient(self.oracle, folder)

    def _get_tuner_fname(self):
        # BaseTuner reloads if this file is there; a worker has nothing to reload
        return str(self.folder / ("no-state-of-workers" if self.role == "worker" else plans.STATE))

    def reload(self) -> None:
        """Go on with the oracle's state; the tuner has none."""
        self.oracle.reload()

    def save(self) -> None:
        """Write the oracle's state; the tuner has none."""
        if self.role != "worker":
            self.oracle.save()

    def pre_create_trial(self) -> None:
        """Wait a little before asking again, where KerasTuner would ask without pause."""
        if self._asked:
            time.sleep(POLL)
        self._asked += 1

    def on_trial_begin(self, trial: Trial) -> None:
        """An individual came."""
        self._asked = 0

    def _try_run_and_update_trial(self, trial, *args, **kwargs):
        outcome = self._evaluate(trial)
        trial.hyperparameters.values[OUTCOME] = json.dumps(outcome)
        trial.status, trial.message = TrialStatus.FAILED, outcome["reason"]
        if outcome["reason"] is None:
            self.oracle.update_trial(trial.trial_id, {FITNESS: outcome["fitness"]}, step=0)
            trial.status = TrialStatus.COMPLETED

    def _evaluate(self, trial) -> dict:
        """Fitness, reason and seconds of an individual; exactly one of the first two is None. What
        decides between equals only if the function tells it.
        """
        told, own, started = (
            json.loads(trial.hyperparameters.values[INDIVIDUAL]),
            Path(self.get_trial_dir(trial.trial_id)),
            time.monotonic(),
        )
        told["search"]["parents"] = [
            str(plans.trial_folder(self.folder, n)) for n in told["search"]["parents"]
        ]
        fitness, reason, ties = None, None, []
        try:
            with self._alive(trial.trial_id):
                found = self.plan.function()(
                    {**told["values"], "search": told["search"]}, own, **self.plan.arguments
                )
            fitness, *ties = (
                map(float, found) if isinstance(found, tuple | list) else [float(found)]
            )
            fitness, reason = (
                (fitness, None) if all(map(math.isfinite, (fitness, *ties))) else (None, NOT_FINITE)
            )
        except Exception as error:
            reason = _reason(error)
            files.write_text(own / "traceback.txt", traceback.format_exc())
        return {
            "fitness": fitness,
            "reason": reason,
            "seconds": round(time.monotonic() - started, 3),
            **({"ties": ties} if ties and reason is None else {}),
        }

    @contextlib.contextmanager
    def _alive(self, trial_id):
        """Tell the chief that this worker lives, from a thread, while the block runs."""
        if self.role != "worker":
            yield
            return
        done = threading.Event()

        def beat():
            while not done.wait(self.plan.lease / 6):
                with contextlib.suppress(grpc.RpcError, KitError):
                    self.oracle.client.update_trial(trial_id, {HEARTBEAT: 1.0})

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _reason(error: Exception) -> str:
    text = (str(error).strip() or "no message").splitlines()[0][:LONGEST_REASON]
    return text if isinstance(error, KitError) else f"{type(error).__name__}: {text}"


class PatientClient:
    """KerasTuner's client of the oracle, for which a chief that is away is no error for a while.

    Raises
    ------
    kit.search.evolution.plan.SearchBroken
        By every method, when the chief stays away.
    """

    def __init__(self, client: oracle_client.OracleClient, folder: Path | str) -> None:
        self.client, self.folder = client, Path(folder)
        # seconds of one try; KerasTuner's is an hour, for which a worker would outlive its chief
        oracle_client.TIMEOUT = 20
        address = f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}"
        options = [
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.enable_http_proxy", 0),
        ]
        client.stub = protos.get_service_grpc().OracleStub(grpc.insecure_channel(address, options))

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)
        return (
            (lambda *args, **kwargs: self._call(method, *args, **kwargs))
            if callable(method)
            else method
        )

    def _call(self, method, *args, **kwargs):
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return method(*args, **kwargs)
            except grpc.RpcError as error:
                if error.code() not in RETRIED or time.monotonic() > deadline or over(self.folder):
                    raise SearchBroken(
                        f"The chief of the search in {self.folder} does not answer "
                        f"({error.code().name}); start it again."
                    ) from error
            time.sleep(POLL)


def over(folder: Path | str) -> bool:
    """True once the search in a folder has ended."""
    state = files.read_json(Path(folder) / plans.STATE, default=None)
    return state is not None and ended(state)


def alone(folder: Path | str) -> plans.Result:
    """Run the search of a folder in this process, or go on with it.

    Raises
    ------
    AllFailed
    kit.files.FolderBusy
    """
    with files.FolderLock(folder):
        tuner = PopulationTuner(Plan.read(folder), folder)
        tuner.save()
        tuner.search()
    return plans.result(folder)


def chief(folder: Path | str, patience: float = PATIENCE) -> plans.Result:
    """Serve the search of a folder to workers until it is over; the address comes from KerasTuner's
    environment variables.

    Raises
    ------
    AllFailed
    SearchBroken
        If no worker asks for `patience` seconds, or the address is taken.
    """
    with files.FolderLock(folder):
        tuner = PopulationTuner(Plan.read(folder), folder, "chief")
        tuner.save()
        serve(
            tuner.oracle,
            f"{os.environ['KERASTUNER_ORACLE_IP']}:{os.environ['KERASTUNER_ORACLE_PORT']}",
            patience,
        )
    return plans.result(folder)


def serve(oracle: PopulationOracle, address: str, patience: float = PATIENCE) -> None:
    """KerasTuner's service, until the search is over and every worker that lives knows it."""
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=1), options=[("grpc.so_reuseport", 0)]
    )
    protos.get_service_grpc().add_OracleServicer_to_server(
        oracle_chief.OracleServicer(oracle), server
    )
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise SearchBroken(
            f"The address {address} cannot be used ({error}); choose another port."
        ) from error
    server.start()
    try:
        quiet = time.monotonic()
        while not (oracle.over and not oracle.tuner_ids):
            time.sleep(POLL)
            oracle.expire()
            if oracle.broken is not None:
                raise oracle.broken
            quiet = time.monotonic() if oracle.tuner_ids or oracle.ongoing_trials else quiet
            if time.monotonic() - quiet > patience:
                raise SearchBroken(
                    f"No worker has asked for an individual for {patience:.0f} seconds; start some "
                    "and run again."
                )
    finally:
        server.stop(grace=1).wait()


def worker(folder: Path | str) -> None:
    """Evaluate individuals of the search of a folder until it is over."""
    if not over(folder):
        try:
            PopulationTuner(Plan.read(folder), folder, "worker").search()
        except SearchBroken:
            if not over(folder):
                raise


def main(arguments: list[str] | None = None) -> int:
    """Command line: ``chief``, ``worker`` or ``alone``, and the folder of the search."""
    parser = argparse.ArgumentParser(
        prog="python -m kit.search.evolution.tuner", description=main.__doc__
    )
    parser.add_argument("role", choices=["alone", "chief", "worker"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--address", default="127.0.0.1:0", help="HOST:PORT of the chief")
    parser.add_argument("--name", default="worker", help="of this worker; no two the same")
    parser.add_argument("--parent", type=int, help="end with this process")
    told = parser.parse_args(arguments)
    if told.parent:
        threading.Thread(target=processes.end_with, args=[told.parent], daemon=True).start()
    host, _, port = told.address.rpartition(":")
    identity = {"chief": "chief", "worker": f"{told.name}#{os.getpid()}-{time.time_ns()}"}.get(
        told.role
    )
    if identity:
        os.environ.update(
            KERASTUNER_ORACLE_IP=host, KERASTUNER_ORACLE_PORT=port, KERASTUNER_TUNER_ID=identity
        )
    try:
        {"alone": alone, "chief": chief, "worker": worker}[told.role](told.folder.resolve())
    except KitError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
