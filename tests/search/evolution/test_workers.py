"""Real processes: a chief and workers, killed while they work. Each imports TensorFlow, so that
this takes a while.
"""

import dataclasses
import os
import signal
import threading
import time

import psutil
import pytest

from kit import files
from kit.benchmarks import evolution
from kit.search.evolution import plan, tuner, workers
from kit.search.evolution.genetic import GASettings, GeneticAlgorithm
from kit.search.evolution.genome import Gene, Genome
from kit.search.evolution.plan import AllFailed, Plan, SearchBroken

SPACE = Genome(
    (Gene("learning_rate", low=1e-5, high=1.0), Gene("weight_decay", low=1e-9, high=0.1))
)
SETTINGS = GASettings(2, 6, crossover=(0.9, 0.9), mutation=(0.2, 0.2), seed=5)


def judge(values, folder, pause=0.0, poison=-1):
    """A quick evaluation that says when it begins and when it is done, in a folder that nothing
    prunes.
    """
    where = values["search"]
    name = f"{where['generation']}-{where['individual']}"
    files.write_json(folder.parent / "begun" / f"{name}-{os.getpid()}.json", os.getpid())
    if poison == where["individual"] and where["generation"] == 0:
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when the memory is full
    time.sleep(pause)
    files.write_json(
        folder.parent / "done" / f"{name}-{os.getpid()}.json", os.environ["TF_NUM_INTRAOP_THREADS"]
    )
    return -((values["learning_rate"] - 0.3) ** 2)


def fail(values, folder):
    """As KerasTuner's own tuners without TensorBoard: no individual can be evaluated."""
    raise ModuleNotFoundError("No module named 'tensorboard'")


def expected():
    search = GeneticAlgorithm(SETTINGS)
    while not search.finished:
        search.tell([-((SPACE.decode(row)["learning_rate"] - 0.3) ** 2) for row in search.ask()])
    return search.state()


def a_plan(function="judge", **arguments):
    return Plan(
        genome=SPACE,
        settings=SETTINGS,
        evaluate=f"tests.search.evolution.test_workers:{function}",
        arguments=arguments,
        lease=10.0,
    )


def wait_for(condition, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


def done(folder):
    return len(list((folder / "done").glob("*.json")))


@pytest.mark.slow
def test_killed_worker_and_killed_chief_lose_nothing_and_the_search_ends(tmp_path):
    found, folder = {}, tmp_path / "s"
    search = threading.Thread(
        target=lambda: found.update(result=workers.run(a_plan(pause=0.5), folder, 2, 1))
    )
    search.start()
    wait_for(lambda: done(folder) >= 2)
    record_of = files.read_json(next((folder / "begun").glob("*.json")))
    psutil.Process(record_of).kill()
    wait_for(lambda: done(folder) >= 5)
    chiefs = [p for p in psutil.Process().children() if "chief" in p.cmdline()]
    assert len(chiefs) == 1
    chiefs[0].kill()
    search.join(300)
    assert found["result"].algorithm.state() == expected()
    assert not psutil.Process().children()
    ended = [f.name.rsplit("-", 1)[0] for f in (folder / "done").glob("*.json")]
    assert set(ended) == {f"{g}-{i}" for g in range(2) for i in range(6)}
    assert len(ended) <= 13
    assert {files.read_json(f) for f in (folder / "done").glob("*.json")} == {"1"}


def test_all_failed_is_an_error_of_every_process(tmp_path):
    with pytest.raises(AllFailed, match=r"All 6 individuals failed.*tensorboard"):
        workers.run(a_plan("fail"), tmp_path / "s", 1, 1)
    with pytest.raises(AllFailed):
        plan.result(tmp_path / "s")
    assert "tensorboard" in (tmp_path / "s" / "chief.log").read_text()
    assert tuner.main(["alone", str(tmp_path / "s")]) == 1


@pytest.mark.slow
def test_a_poisonous_individual_is_given_up(tmp_path):
    result = workers.run(dataclasses.replace(a_plan(poison=1), most_losses=2), tmp_path / "s", 1, 1)
    assert result.history.loc[1, "reason"] == "its worker died, 2 times"
    assert result.history["reason"].notna().sum() == 1
    assert len(list((tmp_path / "s" / "begun").glob("0-1-*.json"))) == 2
    assert result.algorithm.finished


def test_workers_that_cannot_start_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(workers.sys, "executable", "/bin/false")
    with pytest.raises(SearchBroken):
        workers.run(a_plan(), tmp_path / "s", 1, 1)


def test_summary_of_the_benchmark():
    import pandas as pd

    table = pd.DataFrame(
        {
            "workers": [1, 1, 2, 2],
            "threads": 1,
            "generation": [1, 2, 1, 2],
            "seconds": [4.0, 6.0, 2.0, 3.0],
        }
    )
    assert evolution.summary(table)["times_as_fast"].tolist() == [1.0, 2.0]


@pytest.mark.skipif(
    (os.cpu_count() or 1) < 2 or os.environ.get("KIT_MEASURE") != "1",
    reason="a measurement: set KIT_MEASURE=1 on an idle machine with two cores",
)
def test_two_workers_are_faster():
    table = evolution.summary(evolution.measure(crews=((1, 1), (2, 1))))
    assert table["times_as_fast"].iloc[1] >= 1.6
