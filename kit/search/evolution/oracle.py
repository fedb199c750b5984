"""An evolutionary algorithm as an oracle of KerasTuner: it hands out individuals and takes their
fitness, from one process or from workers over the network.

One oracle serves the genetic algorithm and the differential evolution; what they differ in is in
:mod:`kit.search.evolution.population`. The publications evaluate one individual after the other in
one process; one stores its state between generations, so that a crash loses the current one, the
other not at all. Here every individual is a trial of KerasTuner's, on disk as soon as it ends. What
KerasTuner 1.4.8 leaves open is closed: its files are written in place and a kill in between leaves
them unreadable (here: atomically); a worker that dies keeps its trial for ever and the chief never
ends (here: a worker shows that it lives, and its individual goes to another when it stops doing
so); results travel as 32-bit floats and reasons not at all (here: both travel as text in the
trial's values, so that a search over the network equals one in a process to the last bit); a search
whose trials all failed ends as if it had succeeded (here: an error).
"""

import contextlib
import json
import math
import shutil
import threading
import time
from pathlib import Path

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from kit import files
from kit.search.evolution import plan as plans
from kit.search.evolution.genetic import GeneticAlgorithm
from kit.search.evolution.opposition import ODE
from kit.search.evolution.plan import Plan

INDIVIDUAL, OUTCOME = (
    "search/individual",
    "search/outcome",
)  # entries of a trial's values, JSON text
FITNESS, HEARTBEAT = "fitness", "heartbeat"  # names of metrics
KEPT = {".json", ".csv", ".txt"}  # what stays of an individual without offspring


def name_of(tuner_id: str) -> str:
    """Name of a worker; its tuner id is ``name#incarnation``, so that one started again is told
    from one that asks twice.
    """
    return tuner_id.partition("#")[0]


class PopulationOracle(keras_tuner.Oracle):
    """One search.

    Parameters
    ----------
    plan : kit.search.evolution.plan.Plan
    chief : bool
        Serves workers; else it is used by this process alone.

    Attributes
    ----------
    search : kit.search.evolution.population.GeneticSearch or OppositionSearch
    failure : str or None
        Why the search ended without a result.
    broken : Exception or None
        What went wrong in the oracle itself; whoever serves it must end.
    """

    def __init__(self, plan: Plan, chief: bool = False) -> None:
        super().__init__(
            objective=keras_tuner.Objective(FITNESS, "max"),
            hyperparameters=plan.genome.hyperparameters(),
            seed=plan.settings.seed + 1,
            max_consecutive_failed_trials=math.inf,
        )
        self.verbose, self.plan, self.chief = 0, plan, chief
        self.search, self.broken = plan.search(), None
        self.failure = self.search.failure()  # a space in which nothing is feasible
        self.seconds, self.losses = {}, {}
        self._seen, self._restored, self._lock = {}, set(), threading.RLock()

    @contextlib.contextmanager
    def _guarded(self):
        """One call at a time; an error is kept for whoever serves (KerasTuner's own lock stays
        locked after one).
        """
        with self._lock:
            try:
                yield
            except Exception as error:
                self.broken = error
                raise

    @property
    def algorithm(self) -> GeneticAlgorithm | ODE:
        """The algorithm itself."""
        return self.search.algorithm

    @property
    def over(self) -> bool:
        """True once nothing is left to evaluate."""
        return bool(self.failure) or self.search.finished

    def populate_space(self, trial_id: str) -> dict:
        """The next individual, or IDLE while others have to end first; see
        ``keras_tuner.Oracle``.
        """
        if self.over:
            return {"status": TrialStatus.STOPPED}
        task = self.search.task(int(trial_id))
        if task is None:
            return {"status": TrialStatus.IDLE}
        values = self.plan.genome.decode(task[0])
        return {
            "status": TrialStatus.RUNNING,
            "values": {**values, INDIVIDUAL: json.dumps({"values": values, "search": task[1]})},
        }

    def create_trial(self, tuner_id: str) -> Trial:
        """The next trial of a worker; what an earlier incarnation of the same worker held goes back
        to the queue first.
        """
        with self._guarded():
            for other in [
                t for t in self.ongoing_trials if t != tuner_id and name_of(t) == name_of(tuner_id)
            ]:
                self._lose(other)
            self._seen[tuner_id] = time.monotonic()
            return super().create_trial(tuner_id)

    def update_trial(self, trial_id: str, metrics: dict, step: int = 0) -> Trial:
        """A worker's metrics, or its sign of life."""
        with self._guarded():
            for tuner_id, trial in self.ongoing_trials.items():
                if trial.trial_id == trial_id:
                    self._seen[tuner_id] = time.monotonic()
            return (
                self.trials[trial_id]
                if HEARTBEAT in metrics
                else super().update_trial(trial_id, metrics, step)
            )

    def end_trial(self, trial: Trial) -> None:
        """A worker's result; a second one for the same individual, from a worker that counted as
        dead, changes nothing.
        """
        with self._guarded():
            if trial.trial_id in self.end_order:
                return
            if trial.trial_id in self._retry_queue:
                self._retry_queue.remove(trial.trial_id)
            super().end_trial(trial)
            self._gather()

    def score_trial(self, trial: Trial) -> None:
        """Score of a trial with all the digits of the fitness."""
        trial.score, trial.best_step = self._outcome(trial)["fitness"], 0

    @staticmethod
    def _outcome(trial) -> dict:
        return json.loads(trial.hyperparameters.values[OUTCOME])

    def expire(self) -> None:
        """Give up workers that showed no sign of life for longer than the lease."""
        with self._guarded():
            dead = {
                t
                for t in self.tuner_ids | set(self.ongoing_trials)
                if time.monotonic() - self._seen.setdefault(t, time.monotonic()) > self.plan.lease
            }
            for tuner_id in dead:
                self._lose(tuner_id)

    def _lose(self, tuner_id) -> None:
        self.tuner_ids.discard(tuner_id)
        trial = self.ongoing_trials.pop(tuner_id, None)
        if trial is None or trial.trial_id in self.end_order:
            return
        if tuner_id not in self._restored:
            self.losses[trial.trial_id] = self.losses.get(trial.trial_id, 0) + 1
        if self.losses.get(trial.trial_id, 0) < self.plan.most_losses:
            self._retry_queue.append(trial.trial_id)
            self.save()
            return
        reason = f"its worker died, {self.losses[trial.trial_id]} times"
        trial.hyperparameters.values[OUTCOME] = json.dumps(
            {"fitness": None, "reason": reason, "seconds": None}
        )
        trial.status, trial.message = TrialStatus.FAILED, reason
        self.end_trial(trial)

    def _gather(self) -> None:
        """Tell the algorithm what it waits for."""
        outcomes = {int(n): self._outcome(self.trials[n]) for n in self.end_order}
        moved = self.search.gather(outcomes)
        self.seconds.update({str(n): outcome["seconds"] for n, outcome in outcomes.items()})
        self.failure = self.search.failure() if moved else None
        self.save()
        if moved:
            self._prune()

    def _prune(self) -> None:
        """Remove the weights of every individual that the rest of the search does not need."""
        for number in sorted({int(n) for n in self.end_order} - self.search.alive()):
            for path in plans.trial_folder(self._project_dir, number).iterdir():
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                elif path.suffix not in KEPT:
                    path.unlink(missing_ok=True)

    def get_state(self) -> dict:
        """KerasTuner's state, the algorithm's, seconds and losses."""
        return {
            **super().get_state(),
            self.search.KEY: self.algorithm.state(),
            "seconds": self.seconds,
            "losses": self.losses,
            "failure": self.failure,
        }

    def set_state(self, state: dict) -> None:
        """The inverse of :meth:`get_state`; trials must be there."""
        super().set_state(state)
        self.search, self.seconds, self.losses, self.failure = (
            self.plan.search(state),
            state["seconds"],
            state["losses"],
            state["failure"],
        )
        self.verbose = 0

    def save(self) -> None:
        """Write the state, atomically."""
        files.write_json(self._get_oracle_fname(), self.get_state())

    def _save_trial(self, trial):
        files.write_json(
            Path(self._get_trial_dir(trial.trial_id)) / "trial.json", trial.get_state()
        )

    def reload(self) -> None:
        """Go on from the folder: nothing that ended is lost, and what a kill cut off is handed out
        again.

        A chief leaves individuals to the workers that held them, which may have survived it, until
        their lease is over.
        """
        file = Path(self._get_oracle_fname())
        state = files.read_json(file, default=None)
        if state is None or state["failure"]:  # nothing was found: start over
            for folder in Path(self._project_dir).glob("trial_*"):
                shutil.rmtree(folder, ignore_errors=True)
            return
        self.trials = {
            n: Trial.load(str(Path(self._get_trial_dir(n)) / "trial.json"))
            for n in state["start_order"]
        }
        self.set_state(state)
        ended = [
            n
            for n in self.start_order
            if n not in self.end_order and OUTCOME in self.trials[n].hyperparameters.values
        ]
        self.end_order += ended  # killed between the trial's file and the oracle's
        self.ongoing_trials = {
            t: trial
            for t, trial in self.ongoing_trials.items()
            if self.chief and trial.trial_id not in self.end_order
        }
        self._restored = set(self.ongoing_trials)
        held = {trial.trial_id for trial in self.ongoing_trials.values()}
        self._retry_queue = [
            n for n in reversed(self.start_order) if n not in self.end_order and n not in held
        ]
        if not self.over:
            self._gather()
