import numpy as np
import pytest

from kit.errors import KitError
from kit.search.evolution import genetic, genome, rivals
from kit.search.evolution.genome import Gene, Genome
from kit.search.evolution.plan import AllFailed, OtherSearch
from kit.search.evolution.population import GeneticSearch
from kit.search.evolution.rivals import METHODS, NoSuchMethod

SPACE = Genome(
    (
        Gene("optimizer", ("adam", "sgd", "adamax", "rmsprop")),
        Gene("learning_rate", low=1e-5, high=1.0),
        Gene("weight_decay", low=1e-9, high=0.1),
    )
)
VECTORS = {"crossover": (0, 0.9, 0.9), "mutation": (0.4, 0.2, 0.2)}
WANDERING = (
    "genetic",
    "swarm",
    "bees",
)  # the Gaussian process learns too, but takes a second an evaluation


class Diverged(KitError):
    """The loss is not finite."""


def judge(values, folder):
    return (
        0.9
        - (values["learning_rate"] - 0.3) ** 2
        - 5 * values["weight_decay"]
        + 0.1 * (values["optimizer"] == "adam")
        - 0.01 * (3 - values.get("epochs", 3))
    )


LEARNT = 1  # evaluations of the Gaussian process behind the 6 random ones: each takes long


def run(method, folder, budget=24, seed=3, evaluate=judge, **more):
    budget = min(budget, 6 + LEARNT) if method == "bayesian" else budget
    return rivals.search(
        method,
        SPACE,
        evaluate,
        budget,
        seed,
        folder,
        population=6,
        epochs=3,
        genetic=VECTORS,
        **more,
    )


@pytest.mark.parametrize("method", METHODS)
def test_each_spends_exactly_its_budget(method, tmp_path):
    table = run(method, tmp_path / "a")
    assert table.columns[:8].tolist() == [
        "evaluation",
        "generation",
        "fitness",
        "best",
        "genes",
        "seconds",
        "reason",
        "cost",
    ]
    assert table["evaluation"].tolist() == list(range(len(table)))
    assert table["generation"].max() > 0
    assert table["best"].is_monotonic_increasing
    assert table["best"].iloc[-1] == table["fitness"].max() > 0.6
    assert table["reason"].isna().all()
    assert (table["cost"] > 0).all()
    if method == "hyperband":
        assert len(table) > 24
        assert 24 - 1 < table["cost"].sum() <= 24 + 1e-9
        assert set(table["cost"].round(4)) == {0.3333, 1.0}
    else:
        assert len(table) == (6 + LEARNT if method == "bayesian" else 24)
        assert (table["cost"] == 1).all()
    for genes, row in zip(table["genes"], table.itertuples(), strict=True):
        assert {
            "optimizer": row.optimizer,
            "learning_rate": row.learning_rate,
            "weight_decay": row.weight_decay,
        } == SPACE.decode(genes)


@pytest.mark.parametrize("method", METHODS)
def test_seeds_decide(method, tmp_path):
    first, again, other = (
        run(method, tmp_path / "a", 12),
        run(method, tmp_path / "b", 12),
        run(method, tmp_path / "c", 12, seed=4),
    )
    assert first["genes"].tolist() == again["genes"].tolist()
    assert first["genes"].tolist() != other["genes"].tolist()


@pytest.mark.parametrize("method", METHODS)
def test_cut_off_it_goes_on(method, tmp_path):
    calls = []

    def stopping(values, folder):
        calls.append(folder.name)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return judge(values, folder)

    with pytest.raises(KeyboardInterrupt):
        run(method, tmp_path / "a", 12, evaluate=stopping)
    resumed, whole = (
        run(method, tmp_path / "a", 12, evaluate=stopping),
        run(method, tmp_path / "b", 12),
    )
    assert resumed.drop(columns="seconds").equals(whole.drop(columns="seconds"))
    assert len(calls) == len(whole) + 1


@pytest.mark.parametrize("method", METHODS)
def test_what_fails_is_worst_with_a_reason(method, tmp_path):
    def fragile(values, folder):
        if values["optimizer"] == "sgd":
            raise Diverged("The loss is not finite; lower the learning rate.")
        return float("nan") if values["optimizer"] == "rmsprop" else judge(values, folder)

    table = run(method, tmp_path / "a", 20, evaluate=fragile)
    failed = table["optimizer"].isin(["sgd", "rmsprop"])
    assert failed.any()
    assert (table.loc[failed, "fitness"] == -1).all()
    assert table.loc[failed, "reason"].notna().all()
    assert table.loc[~failed, "reason"].isna().all()
    assert table["best"].iloc[-1] == table.loc[~failed, "fitness"].max()


@pytest.mark.parametrize("method", METHODS)
def test_when_all_fail_it_is_an_error(method, tmp_path):
    with pytest.raises(AllFailed, match="ModuleNotFoundError: No module named 'no_tensorboard'"):
        run(method, tmp_path / "a", 6, evaluate=lambda values, folder: __import__("no_tensorboard"))


@pytest.mark.parametrize("method", WANDERING)
def test_they_learn(method, tmp_path):
    tables = [run(method, tmp_path / str(seed), 30, seed) for seed in range(3)]
    assert (
        np.mean([t["fitness"].iloc[-10:].mean() for t in tables])
        > np.mean([t["fitness"].iloc[:6].mean() for t in tables]) + 0.02
    )


def test_every_evaluation_has_its_folder_and_seed(tmp_path):
    seen = []
    run(
        "random",
        tmp_path / "a",
        4,
        evaluate=lambda values, folder: (
            seen.append((values["search"]["seed"], folder.is_dir(), folder.name)) or 0.5
        ),
    )
    assert len({s for s, _, _ in seen}) == 4
    assert [name for _, there, name in seen if there] == [f"trial_{n:04d}" for n in range(4)]


def test_mistakes(tmp_path):
    for method, more in [("annealing", {}), ("random", {"budget": 0})]:
        with pytest.raises(NoSuchMethod):
            run(method, tmp_path / "a", **more)
    with pytest.raises(NoSuchMethod, match="epochs"):
        rivals.search("hyperband", SPACE, judge, 4, 0, tmp_path / "h")
    with pytest.raises(NoSuchMethod, match="bees"):
        rivals.search("bees", SPACE, judge, 4, 0, tmp_path / "s", population=3)
    run("random", tmp_path / "b", 4)
    with pytest.raises(OtherSearch):
        run("random", tmp_path / "b", 5)


def test_a_genome_of_the_thesis_needs_no_settings(tmp_path):
    table = rivals.search(
        "genetic",
        genome.chapter3(),
        lambda values, folder: values["weight_decay"],
        12,
        0,
        tmp_path / "a",
        population=4,
    )
    assert len(table) == 12
    assert list(table.columns[8:]) == list(genome.ORDERS["table-3.4"])


def test_the_first_individuals_of_all_searches_are_trained_alike(tmp_path):
    """The genetic algorithm behind KerasTuner, the same behind the ledger and random search draw
    the same first generation of a seed, and each individual has the same training seed everywhere.
    """
    seen = {}
    for method in ("random", "genetic"):
        told = seen[method] = []

        def evaluate(values, folder, told=told):
            told.append((values["learning_rate"], values["search"]["seed"]))
            return 0.5 + 0.01 * len(told)

        run(method, tmp_path / method, 12, 5, evaluate)
    algorithm = GeneticSearch(genetic.GASettings(2, 6, **VECTORS, seed=5))
    own = []
    for number in range(6):
        genes, where = algorithm.task(number)
        own.append((SPACE.decode(genes)["learning_rate"], where["seed"]))
    assert own == seen["random"][:6] == seen["genetic"][:6]
    algorithm.gather({n: {"fitness": 0.5 + 0.01 * (n + 1), "reason": None} for n in range(6)})
    assert algorithm.task(6)[1]["seed"] == seen["genetic"][6][1]
