"""Ids of what searches call: they resolve, old names are read, stored searches keep folders."""

import importlib
import shutil
from dataclasses import replace

import pytest

from kit import files, paths
from kit.search.evolution import tasks, workers
from kit.search.evolution.genetic import GASettings
from kit.search.evolution.plan import PLAN, STATE, BadPlan, OtherSearch, Plan, SpacePlan, numbers

SEARCHES = sorted(
    file.parent for file in (paths.ROOT / "results" / "reference").glob(f"*/searches/*/{PLAN}")
)


def test_the_reference_searches_are_of_both_kinds():
    plans = [Plan.read(folder) for folder in SEARCHES]
    asked = {(plan.evaluate, getattr(plan, "space", None)) for plan in plans}
    assert asked == {("gencnn.fitness", None), ("pbcnas.proxy", "pbcnas.space")}


@pytest.mark.parametrize("folder", SEARCHES, ids=lambda folder: folder.name)
def test_a_stored_search_keeps_the_name_of_its_folder(folder):
    assert folder.name.endswith(f"-{Plan.read(folder).key()[:10]}")


@pytest.mark.parametrize("folder", [SEARCHES[0], SEARCHES[-1]], ids=lambda folder: folder.name)
def test_a_finished_search_with_the_old_names_is_recognised(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "search")
    stored, state = (copy / PLAN).read_bytes(), (copy / STATE).read_bytes()
    asked = Plan.read(folder)
    assert files.read_json(copy / PLAN)["evaluate"] not in tasks.TASKS
    assert asked == Plan.read(copy)
    assert asked.evaluate in tasks.TASKS
    found = workers.run(asked, copy, 1)
    assert len(found.history)
    assert found.best["fitness"] == found.history["fitness"].max()
    assert ((copy / PLAN).read_bytes(), (copy / STATE).read_bytes()) == (stored, state)
    with pytest.raises(OtherSearch):
        replace(asked, lease=asked.lease + 1).write(copy)


@pytest.mark.parametrize("folder", [SEARCHES[0], SEARCHES[-1]], ids=lambda folder: folder.name)
def test_a_new_file_holds_the_ids_and_is_the_same_search(folder, tmp_path):
    asked = Plan.read(folder)
    asked.write(tmp_path)
    told = files.read_json(tmp_path / PLAN)
    assert {told[field] for field in tasks.FIELDS if field in told} <= set(tasks.TASKS)
    assert Plan.read(tmp_path) == asked
    asked.write(tmp_path)  # the same settings: nothing is said
    assert tasks.historic(told) == files.read_json(folder / PLAN)


@pytest.mark.parametrize("task", tasks.TASKS)
def test_every_id_is_found_where_the_table_says(task):
    module, _, name = tasks.place(task).partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    known = tasks.TASKS[task]
    assert tasks.name(known.historic) == tasks.name(known.place) == tasks.name(task) == task


def test_a_function_of_ones_own_keeps_its_name():
    name = "tests.search.evolution.test_tasks:own"
    plan = Plan(genome=numbers(1), settings=GASettings(1, 2, (0.5,), (0.2,)), evaluate=name)
    assert plan.evaluate == tasks.place(name) == name
    assert tasks.historic({"evaluate": name}) == {"evaluate": name}
    assert plan.function()({}, None) == 0.25


def own(values, folder):
    return 0.25


def test_an_unknown_id_gets_one_sentence_with_the_known_ones():
    settings = GASettings(1, 2, (0.5,), (0.2,))
    with pytest.raises(BadPlan, match=r"^There is no task 'gencnn\.fit'; choose from gencnn\.fit"):
        Plan(genome=numbers(1), settings=settings, evaluate="gencnn.fit")
    with pytest.raises(BadPlan, match="There is no task 'boxes'"):
        SpacePlan(genome=numbers(1), settings=settings, evaluate="pbcnas.proxy", space="boxes")
