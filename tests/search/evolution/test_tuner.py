"""The adapter to KerasTuner. Workers are threads here and their deaths are acted;
tests/search/evolution/test_workers.py kills processes.
"""

import json
import shutil
import threading
import time

import numpy as np
import pytest

from kit import files
from kit.errors import KitError
from kit.search.evolution import genome, tuner, workers
from kit.search.evolution import plan as evolution_plan
from kit.search.evolution.genetic import GASettings, GeneticAlgorithm
from kit.search.evolution.genome import Gene, Genome
from kit.search.evolution.oracle import INDIVIDUAL, PopulationOracle
from kit.search.evolution.plan import AllFailed, BadPlan, OtherSearch, Plan, SearchBroken

SPACE = Genome(
    (
        Gene("optimizer", ("adam", "sgd", "lbfgs")),
        Gene("learning_rate", low=1e-5, high=1.0),
        Gene("weight_decay", low=1e-9, high=0.1),
    )
)
SETTINGS = GASettings(3, 5, crossover=(0, 0.9, 0.9), mutation=(0.4, 0.2, 0.2), seed=8)


class Refused(KitError):
    """An optimizer that cannot run."""


def fitness(values):
    return (
        1
        - (values["learning_rate"] - 0.3) ** 2
        - 10 * values["weight_decay"]
        + 0.1 * (values["optimizer"] == "adam")
    )


def judge(values, folder, log=None, pause=0.0, stop_at=None, fail="none", weights=False):
    """What the searches of these tests evaluate; keeps a list of the evaluations that ended."""
    where = values["search"]
    time.sleep(pause)
    if (
        stop_at
        and len(files.read_json(f"{log}/{where['generation']}.json", default=[])) == stop_at[1]
        and where["generation"] == stop_at[0]
        and not (folder.parent / "stopped").exists()
    ):
        (folder.parent / "stopped").touch()
        raise KeyboardInterrupt
    if fail == "all" or (fail == "some" and where["individual"] % 2):
        raise (
            MemoryError("no memory left for 3 GB")
            if where["generation"]
            else Refused("LBFGS needs a closure; choose another optimizer.")
        )
    if fail == "nan" and where["individual"] == 0:
        return float("nan")
    if weights:
        assert all(
            (folder.parent / parent / "model.weights.h5").exists() for parent in where["parents"]
        )
        assert len(where["parents"]) == 2 * (where["generation"] > 0)
        (folder / "model.weights.h5").write_bytes(bytes(1000))
        (folder / "export").mkdir(exist_ok=True)
        files.write_json(
            folder / "metrics.json", {"files": len(list(folder.parent.glob("trial_*/*.h5")))}
        )
    if log:
        file = f"{log}/{where['generation']}.json"
        files.write_json(file, [*files.read_json(file, default=[]), where["individual"]])
    return fitness(values)


def a_plan(settings=SETTINGS, lease=30.0, **arguments):
    return Plan(
        genome=SPACE,
        settings=settings,
        evaluate="tests.search.evolution.test_tuner:judge",
        arguments={k: str(v) if k == "log" else v for k, v in arguments.items()},
        lease=lease,
    )


def expected(settings=SETTINGS):
    search = GeneticAlgorithm(settings)
    while not search.finished:
        search.tell([fitness(SPACE.decode(row)) for row in search.ask()])
    return search


def same(result, search):
    return json.dumps(result.algorithm.state()) == json.dumps(search.state())


def counted(log):
    return [
        sorted(files.read_json(log / f"{g}.json")) for g in range(len(list(log.glob("*.json"))))
    ]


def test_it_is_the_numpy_search(tmp_path):
    result = workers.run(a_plan(), tmp_path / "s")
    assert same(result, expected())
    assert len(result.history) == 15
    best = result.best
    assert best["fitness"] == result.history["fitness"].max() == fitness(best["values"])
    assert (best["folder"] / "trial.json").exists()
    assert (
        result.history.loc[result.history["fitness"].idxmax(), "optimizer"]
        == best["values"]["optimizer"]
    )
    assert same(workers.run(a_plan(), tmp_path / "s"), expected())


def test_interrupted_it_goes_on_and_repeats_nothing(tmp_path):
    plan = a_plan(log=tmp_path / "log", stop_at=(1, 2))
    with pytest.raises(KeyboardInterrupt):
        workers.run(plan, tmp_path / "s")
    assert plan_result_generations(tmp_path / "s") == 1
    assert same(workers.run(plan, tmp_path / "s"), expected())
    assert counted(tmp_path / "log") == [[0, 1, 2, 3, 4]] * 3


def plan_result_generations(folder):
    return evolution_plan.result(folder).algorithm.generation


def test_what_fails_is_worst_with_a_reason(tmp_path):
    result = workers.run(a_plan(fail="some"), tmp_path / "s")
    failed = result.history[result.history["individual"] % 2 == 1]
    assert (failed["fitness"] == -1).all()
    assert set(failed["reason"]) == {
        "LBFGS needs a closure; choose another optimizer.",
        "MemoryError: no memory left for 3 GB",
    }
    assert "Traceback" in (tmp_path / "s" / "trial_0001" / "traceback.txt").read_text()
    odd = workers.run(a_plan(fail="nan"), tmp_path / "n").history
    assert odd.loc[0, "reason"] == "the fitness is not finite"
    assert odd.loc[1:4, "reason"].isna().all()


def test_when_all_fail_it_is_an_error(tmp_path, capsys):
    with pytest.raises(AllFailed, match=r"All 5 individuals failed.*LBFGS"):
        workers.run(a_plan(fail="all"), tmp_path / "s")
    assert tuner.main(["alone", str(tmp_path / "s")]) == 1
    assert "LBFGS" in capsys.readouterr().err
    (tmp_path / "t").mkdir()
    Plan(genome=SPACE, settings=SETTINGS, evaluate="tests.no_such_module:judge").write(
        tmp_path / "t"
    )
    assert tuner.main(["alone", str(tmp_path / "t")]) == 1
    assert "cannot be imported" in capsys.readouterr().err


def test_after_all_failed_a_repaired_search_starts_over(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.search.evolution.test_tuner.fitness", lambda values: 1 / 0)
    with pytest.raises(AllFailed, match="ZeroDivisionError"):
        workers.run(a_plan(), tmp_path / "s")
    monkeypatch.undo()
    assert same(workers.run(a_plan(), tmp_path / "s"), expected())


def test_weights_without_offspring_go(tmp_path):
    settings = GASettings(5, 6, crossover=(0, 0.9, 0.9), mutation=(0.4, 0.2, 0.2), seed=2)
    result = workers.run(a_plan(settings, weights=True), tmp_path / "s")
    left = list((tmp_path / "s").glob("trial_*/*.h5"))
    assert left == [result.best["folder"] / "model.weights.h5"]
    assert list((tmp_path / "s").glob("trial_*/export")) == [left[0].parent / "export"]
    told = [files.read_json(f)["files"] for f in (tmp_path / "s").glob("trial_*/metrics.json")]
    assert len(told) == 30
    assert max(told) <= 6 + 6 + 1


def test_mistakes(tmp_path):
    with pytest.raises(BadPlan, match="3 genes"):
        Plan(genome=SPACE, settings=GASettings(1, 2), evaluate="a:b")
    with pytest.raises(BadPlan, match="module:function"):
        Plan(genome=SPACE, settings=SETTINGS, evaluate="judge")
    with pytest.raises(BadPlan, match="cannot be imported"):
        workers.run(
            Plan(
                genome=SPACE, settings=SETTINGS, evaluate="tests.search.evolution.test_tuner:nobody"
            ),
            tmp_path / "s",
        )
    a_plan().write(tmp_path)
    a_plan().write(tmp_path)
    assert Plan.read(tmp_path) == a_plan()
    with pytest.raises(OtherSearch):
        a_plan(pause=1.0).write(tmp_path)
    chapter = Plan(
        genome=genome.chapter5(),
        settings=GASettings(2, (3, 2), (0,) * 7, (0,) * 7),
        evaluate="a:b",
    )
    chapter.write(tmp_path / "five")
    assert Plan.read(tmp_path / "five") == chapter


class Server:
    """A chief in a thread; `kill` stops it as a signal would: what is not on disk is lost."""

    def __init__(self, plan, folder, port=None):
        self.plan, self.folder, self.port = plan, folder, port or workers.free_port()
        self.start()

    def start(self):
        self.oracle, self.error = PopulationOracle(self.plan, chief=True), None
        self.oracle._set_project_dir(str(self.folder.parent), self.folder.name)
        self.oracle.reload()
        self.oracle.save()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        try:
            tuner.serve(self.oracle, f"127.0.0.1:{self.port}", patience=30)
        except Exception as error:
            self.error = error

    def kill(self):
        kept = self.folder.parent / "kept"
        with self.oracle._lock:  # who calls now gets no answer
            shutil.copytree(self.folder, kept)
            self.oracle.expire, self.oracle.broken = lambda: None, RuntimeError("killed")
            self.oracle.save = self.oracle._save_trial = lambda *_: None
            self.thread.join(3)
        self.thread.join(20)
        shutil.rmtree(self.folder)
        kept.rename(self.folder)


@pytest.fixture
def network(tmp_path, monkeypatch):
    """Starts a chief and gives a function that makes workers of it."""
    folder = tmp_path / "s"

    def start(plan):
        plan.write(folder)
        server = Server(plan, folder)
        monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
        monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(server.port))
        return server, worker

    def worker(name):
        monkeypatch.setenv("KERASTUNER_TUNER_ID", name)
        return tuner.PopulationTuner(Plan.read(folder), folder, "worker")

    return start


def at_work(*tuners):
    threads = [threading.Thread(target=t.search, daemon=True) for t in tuners]
    for thread in threads:
        thread.start()
    return threads


def ended(server, threads, seconds=30):
    for thread in [*threads, server.thread]:
        thread.join(seconds)
    assert server.error is None
    assert not any(thread.is_alive() for thread in [*threads, server.thread])
    result = evolution_plan.result(server.folder)
    assert result.algorithm.finished
    return result


def test_two_workers_give_the_same_search(network):
    server, worker = network(a_plan(pause=0.02))
    result = ended(server, at_work(worker("a#1"), worker("b#1")))
    assert same(result, expected())
    assert result.history["seconds"].min() >= 0.02


def test_a_dead_workers_individual_goes_to_another(network, tmp_path):
    (tmp_path / "log").mkdir()
    server, worker = network(a_plan(lease=1.0, log=tmp_path / "log"))
    dead = worker("dead#1")
    held = dead.oracle.create_trial(dead.tuner_id)
    result = ended(server, at_work(worker("a#1")))
    assert held.trial_id == "0000"
    assert same(result, expected())
    assert server.oracle.losses == {"0000": 1}
    assert counted(tmp_path / "log") == [[0, 1, 2, 3, 4]] * 3


def test_a_slow_worker_is_not_a_dead_one(network):
    server, worker = network(a_plan(GASettings(1, 2, (0,) * 3, (0,) * 3), lease=0.6, pause=2.0))
    ended(server, at_work(worker("a#1"), worker("b#1")))
    assert server.oracle.losses == {}


def test_a_killed_chief_goes_on_where_it_was(network, tmp_path):
    (tmp_path / "log").mkdir()
    server, worker = network(a_plan(pause=0.1, log=tmp_path / "log"))
    threads = at_work(worker("a#1"))
    while len(server.oracle.end_order) < 7:
        time.sleep(0.02)
    server.kill()
    assert not server.thread.is_alive()
    assert threads[0].is_alive()
    server.start()
    assert same(ended(server, threads), expected())
    assert sum(len(row) for row in counted(tmp_path / "log")) <= 16
    assert [sorted(set(row)) for row in counted(tmp_path / "log")] == [[0, 1, 2, 3, 4]] * 3


def test_a_chief_tells_that_all_failed(network):
    server, worker = network(a_plan(fail="all"))
    for thread in at_work(worker("a#1"), worker("b#1")):
        thread.join(30)
    server.thread.join(30)
    with pytest.raises(AllFailed):
        evolution_plan.result(server.folder)
    assert server.oracle.over
    assert not server.thread.is_alive()
    assert tuner.over(server.folder)


def test_without_workers_a_chief_gives_up(tmp_path):
    oracle = an_oracle(tmp_path / "s")
    with pytest.raises(SearchBroken, match="No worker"):
        tuner.serve(oracle, f"127.0.0.1:{workers.free_port()}", patience=0.3)


def an_oracle(folder, chief=True):
    oracle = PopulationOracle(a_plan(), chief)
    oracle._set_project_dir(str(folder.parent), folder.name)
    oracle.reload()
    return oracle


def finish(oracle, trial, value=0.5):
    trial.hyperparameters.values["search/outcome"] = json.dumps(
        {"fitness": value, "reason": None, "seconds": 1.0}
    )
    trial.status = "COMPLETED"
    oracle.end_trial(trial)


def test_an_individual_that_kills_every_worker_is_given_up(tmp_path):
    oracle = an_oracle(tmp_path / "s")
    for incarnation in range(3):
        assert oracle.create_trial(f"w#{incarnation}").trial_id == "0000"
    assert oracle.create_trial("w#3").trial_id == "0001"
    for number in range(1, 5):
        finish(oracle, oracle.create_trial("w#3"), number / 10)
    assert oracle.algorithm.told[0]["reasons"] == [
        "its worker died, 3 times",
        None,
        None,
        None,
        None,
    ]
    assert oracle.algorithm.told[0]["fitness"].tolist() == [-1, 0.1, 0.2, 0.3, 0.4]


def test_asking_twice_is_no_death(tmp_path):
    oracle = an_oracle(tmp_path / "s")
    assert [oracle.create_trial("w#1").trial_id for _ in range(5)] == ["0000"] * 5
    assert oracle.losses == {}


def test_a_late_second_result_changes_nothing(tmp_path):
    import copy

    oracle = an_oracle(tmp_path / "s")
    late = copy.deepcopy(oracle.create_trial("a#1"))
    again = oracle.create_trial("a#2")
    assert again.trial_id == late.trial_id
    finish(oracle, again, 0.7)
    finish(oracle, late, 0.1)
    assert oracle.end_order == ["0000"]
    assert PopulationOracle._outcome(oracle.trials["0000"])["fitness"] == 0.7


def test_a_generation_is_waited_for(tmp_path):
    oracle = an_oracle(tmp_path / "s")
    trials = [oracle.create_trial(f"w{n}#1") for n in range(5)]
    assert oracle.create_trial("idle#1").status == "IDLE"
    assert [
        json.loads(t.hyperparameters.values[INDIVIDUAL])["search"]["individual"] for t in trials
    ] == [0, 1, 2, 3, 4]
    for trial in trials:
        finish(oracle, trial, np.random.default_rng(int(trial.trial_id)).random())
    told = json.loads(oracle.create_trial("idle#1").hyperparameters.values[INDIVIDUAL])["search"]
    assert told["generation"] == 1
    assert told["origin"] == "offspring"
    assert all(0 <= n < 5 for n in told["parents"])
    assert sum(told["shares"]) == pytest.approx(1)


@pytest.mark.parametrize("chief", [True, False])
def test_a_kill_between_two_files_loses_nothing(tmp_path, chief):
    folder = tmp_path / "s"
    oracle = an_oracle(folder, chief)
    for n in range(4):
        finish(oracle, oracle.create_trial("w#1"), n / 10)
    last = oracle.create_trial("w#1")
    before = (folder / "oracle.json").read_bytes()
    finish(oracle, last, 0.9)
    assert oracle.algorithm.generation == 1
    (folder / "oracle.json").write_bytes(before)  # the trial's file was written, the oracle's not
    again = an_oracle(folder, chief)
    assert again.algorithm.generation == 1
    assert again.algorithm.told[0]["fitness"].tolist() == [
        0.0,
        0.1,
        0.2,
        0.3,
        0.9,
    ]
    held = again.create_trial("w#1")
    (folder / "oracle.json").write_bytes(before)  # a trial's file that the oracle's does not know
    assert held.trial_id == "0005"
    assert an_oracle(folder, chief).create_trial("x#1").trial_id == "0005"


def test_a_reloaded_oracle_hands_out_what_was_cut_off(tmp_path):
    oracle = an_oracle(tmp_path / "s", chief=False)
    values = oracle.create_trial("tuner0").hyperparameters.values
    again = an_oracle(tmp_path / "s", chief=False).create_trial("tuner0")
    assert again.trial_id == "0000"
    assert again.hyperparameters.values[INDIVIDUAL] == values[INDIVIDUAL]
