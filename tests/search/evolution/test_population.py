"""The differential evolution through the same adapter to KerasTuner as the genetic algorithm;
tests/search/evolution/test_tuner.py has what both share.
"""

import json
import time

import pytest

from kit import files
from kit.search.evolution import opposition, plan, tuner, workers
from kit.search.evolution.genetic import GASettings
from kit.search.evolution.opposition_settings import ODESettings
from kit.search.evolution.plan import AllFailed, BadPlan, OtherSearch, Plan, SpacePlan
from kit.search.nas3d import space
from tests.search.evolution.test_tuner import at_work, ended, network  # noqa: F401

SETTINGS = {
    "paper": ODESettings(population=6, budget=17, jumping=0.6, seed=5, mode="paper"),
    "clean": ODESettings(population=6, budget=17, jumping=0.6, seed=5),
}
CELLS = {"space": "kit.search.nas3d.space:Space", "space_arguments": {"filters": [8, 16]}}


def value(genes):
    """Fitness with many ties, and what decides between them."""
    return round(sum(genes) % 1, 1), sum(genes)


def judge(values, folder, log=None, pause=0.0, stop_at=-1, fail=False):
    """What these searches evaluate; keeps a list of the evaluations that ended."""
    where = values["search"]
    assert where["genes"] == [values[f"gene_{n}"] for n in range(29)]
    assert where["parents"] == []
    time.sleep(pause)
    if where["individual"] == stop_at and not (folder.parent / "stopped").exists():
        (folder.parent / "stopped").touch()
        raise KeyboardInterrupt
    if fail or where["individual"] == 4:
        raise MemoryError("no memory left")
    (folder / "model.weights.h5").write_bytes(bytes(100))
    if log:
        files.write_json(f"{log}/{where['individual']}-{time.monotonic_ns()}.json", where["number"])
    return value(where["genes"])


def a_plan(mode="clean", settings=None, lease=30.0, **arguments):
    return SpacePlan(
        genome=plan.numbers(29),
        settings=settings or SETTINGS[mode],
        evaluate="tests.search.evolution.test_population:judge",
        arguments={k: str(v) if k == "log" else v for k, v in arguments.items()},
        lease=lease,
        **CELLS,
    )


def expected(mode="clean"):
    search = a_plan(mode).search().algorithm
    while not search.finished:
        candidate = search.ask()[0]
        fitness, tie = value(candidate.genes.tolist())
        failed = candidate.evaluation == 4
        search.tell(
            candidate.evaluation,
            None if failed else fitness,
            "MemoryError: no memory left" if failed else None,
            () if failed else (tie,),
        )
    return search


def same(result, search):
    return json.dumps(result.algorithm.state()) == json.dumps(search.state())


def evaluated(log):
    return sorted(int(file.name.split("-")[0]) for file in log.glob("*.json"))


def reached(search):
    """Evaluations that end with a fitness, in a sequential search."""
    return [c.evaluation for c in search.log if c.trained]


@pytest.mark.parametrize("mode", ["paper", "clean"])
def test_it_is_the_sequential_search(tmp_path, mode):
    result, search = workers.run(a_plan(mode), tmp_path / "s"), expected(mode)
    assert same(result, search)
    assert len(result.history) == len(search.log)
    assert isinstance(result.algorithm, opposition.ODE)
    best = result.best
    assert best["number"] == search.best.number
    assert best["fitness"] == search.best.fitness
    assert (best["folder"] / "model.weights.h5").exists()
    table = result.history
    assert (
        table["seconds"].notna() == table["evaluation"].notna() & table["fitness"].notna()
    ).all()
    assert table.loc[table["failed"], "reason"].unique().tolist() == ["MemoryError: no memory left"]
    assert tuner.over(tmp_path / "s")
    assert same(workers.run(a_plan(mode), tmp_path / "s"), search)
    left = {int(file.parent.name[-4:]) for file in (tmp_path / "s").glob("trial_*/*.h5")}
    assert left == result.search.alive() & set(reached(search))
    assert len(left) < 15


@pytest.mark.parametrize("stop_at", [2, 8, 13])
def test_interrupted_it_goes_on_and_repeats_nothing(tmp_path, stop_at):
    (tmp_path / "log").mkdir()
    told = a_plan(log=tmp_path / "log", stop_at=stop_at)
    with pytest.raises(KeyboardInterrupt):
        workers.run(told, tmp_path / "s")
    assert same(workers.run(told, tmp_path / "s"), expected())
    assert evaluated(tmp_path / "log") == reached(expected())


@pytest.mark.parametrize("mode", ["paper", "clean"])
def test_workers_train_what_the_sequential_search_trains_and_no_more(
    network,  # noqa: F811
    tmp_path,
    mode,
):
    (tmp_path / "log").mkdir()
    server, worker = network(a_plan(mode, pause=0.01, log=tmp_path / "log"))
    assert same(ended(server, at_work(*(worker(f"{name}#1") for name in "abc"))), expected(mode))
    assert evaluated(tmp_path / "log") == reached(expected(mode))


def test_a_killed_chief_and_a_killed_worker_lose_nothing(network, tmp_path):  # noqa: F811
    (tmp_path / "log").mkdir()
    server, worker = network(a_plan("paper", lease=3.0, pause=0.1, log=tmp_path / "log"))
    dead = worker("dead#1")
    assert dead.oracle.create_trial(dead.tuner_id).trial_id == "0000"
    threads = at_work(worker("a#1"), worker("b#1"))
    while len(server.oracle.end_order) < 5:
        time.sleep(0.02)
    server.kill()
    assert not server.thread.is_alive()
    assert any(thread.is_alive() for thread in threads)
    finished = {
        int(number) for number in files.read_json(server.folder / "oracle.json")["end_order"]
    } - {4}
    server.start()
    assert same(ended(server, threads), expected("paper"))
    assert sorted(set(evaluated(tmp_path / "log"))) == reached(expected("paper"))
    assert len(finished) >= 4
    assert all(evaluated(tmp_path / "log").count(number) == 1 for number in finished)


def test_searches_without_a_result_are_errors(tmp_path):
    with pytest.raises(AllFailed, match=r"candidates that were tried failed.*no memory left"):
        workers.run(a_plan(fail=True), tmp_path / "s")
    with pytest.raises(AllFailed, match=r"could be trained.*above 1e"):
        workers.run(
            a_plan(settings=ODESettings(population=5, budget=5, most_cost=1e3, patience=3)),
            tmp_path / "t",
        )


def test_plans(tmp_path):
    told = a_plan()
    told.write(tmp_path)
    assert Plan.read(tmp_path) == told
    assert isinstance(Plan.read(tmp_path).made_space(), space.Space)
    with pytest.raises(OtherSearch):
        a_plan("paper").write(tmp_path)
    with pytest.raises(BadPlan, match="29"):
        SpacePlan(genome=plan.numbers(3), settings=ODESettings(), evaluate="a:b", **CELLS)
    with pytest.raises(BadPlan, match="cannot be imported"):
        SpacePlan(
            genome=plan.numbers(3),
            settings=ODESettings(),
            evaluate="a:b",
            space="kit.nas.no_such:Space",
        )
    with pytest.raises(BadPlan, match="cannot be made"):
        SpacePlan(
            genome=plan.numbers(3),
            settings=ODESettings(),
            evaluate="a:b",
            space_arguments={"sides": 3},
        )


def test_files_of_a_genetic_search_keep_their_form(tmp_path):
    """Folders are named after the plan and hold its state: neither may change, or finished searches
    would be run again.
    """
    genetic = Plan(
        genome=plan.numbers(2),
        settings=GASettings(2, 3, (0.5, 0.5), (0.2, 0.2)),
        evaluate="tests.search.evolution.test_population:ones",
    )
    result = workers.run(genetic, tmp_path)
    assert sorted(files.read_json(tmp_path / "search.json")) == [
        "arguments",
        "evaluate",
        "genome",
        "lease",
        "most_losses",
        "settings",
    ]
    assert json.dumps(files.read_json(tmp_path / "oracle.json")["genetic"]) == json.dumps(
        result.algorithm.state()
    )


def ones(values, folder):
    """The same for all."""
    return 1.0
