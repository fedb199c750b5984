"""Gen-CNN's trainings: the plan is the thesis', searches end with an individual that can be trained
again, rivals spend the same, failures are told.
"""

import dataclasses

import numpy as np
import pytest

from kit.published import papers
from kit.studies.gencnn import plan as gencnn_plan
from kit.studies.gencnn import runs, tables
from kit.studies.gencnn.plan import Plan
from kit.training import train


@pytest.fixture(scope="module")
def plan(private_folders):
    return Plan(
        profile="gencnntest",
        convergence="digits",
        medical=(("isic-2019", "digits"),),
        images=60,
        stored=24,
        architectures=("squeezenet_1.1",),
        weights=None,
        generations=2,
        individuals=2,
        epochs=1,
        size=24,
        batch=20,
        final_epochs=1,
        final_size=24,
        final_batch=20,
        repetitions=1,
        convergence_generations=1,
        convergence_individuals=2,
        rivals=("random",),
        target_repetitions=1,
        fidelity=2,
    )


def test_the_published_plan_is_the_thesis():
    published, paper = Plan(profile="x"), papers.load("gencnn").hyperparameters
    assert gencnn_plan.notes(published) == gencnn_plan.notes(published, "convergence") == []
    settings = published.settings(25, 50, 0)
    assert list(settings.crossover) == paper["crossover_probability"]
    assert list(settings.mutation) == paper["mutation_probability"]
    assert settings.opponents == 1
    assert list(published.genome().names) == paper["gene_order"]
    assert len(published.architectures) == 9
    assert [gencnn_plan.thesis_name(a) for a in published.architectures] == paper["architectures"]
    released = Plan(profile="x", order="figure-3.2", tournament="code").settings(2, 3, 0)
    assert released.crossover == (0, 0.9, 0.9, 0, 0)
    assert released.mutation == (0.4, 0.2, 0.2, 0.4, 0.4)
    assert released.opponents == 2
    assert released.legacy_index


def test_every_reduction_is_named(plan):
    said = " | ".join(
        gencnn_plan.notes(dataclasses.replace(plan, swap_lr_wd=True, fitness_part="train"))
    )
    assert all(
        part in said
        for part in (
            "generations 2 instead of 25",
            "1 architecture (squeezenet-1.1)",
            "60 images",
            "final epochs 1",
            "before 2025",
            "exchanged",
            "[24, 24]",
        )
    )
    assert (
        gencnn_plan.stand_in(plan, "isic-2019")
        == "digits in place of ISIC-2019; random initialisation in place of ImageNet weights "
        "(Squeezenet-1_1)"
    )
    assert (
        gencnn_plan.stand_in(Plan(profile="x", architectures=("efficientnet_lite0",)), "kvasir-v2")
        is None
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"medical": {"chest": "digits"}},
        {"architectures": ("lenet",)},
        {"rivals": ("annealing",)},
        {"fitness": "f1"},
        {"fitness_part": "test"},
        {"tournament": "mine"},
        {"generations": 0},
        {"epochs": 1},
        {"target": "kvasir"},
        {"optimizer_settings": "mine"},
        {"final_weights": "middle"},
    ],
)
def test_a_bad_plan_is_one_sentence(wrong):
    with pytest.raises(gencnn_plan.BadPlan):
        Plan(profile="x", **wrong)


def test_parts_are_disjoint_and_every_class_is_there(plan):
    inputs, parts = runs.images_of(plan, "digits")
    rows = np.concatenate(list(parts.values()))
    assert len(np.unique(rows)) == len(rows)
    assert len(rows) == pytest.approx(60, abs=10)
    assert all(set(inputs.labels[part]) == set(range(10)) for part in parts.values())
    whole = runs.images_of(dataclasses.replace(plan, images=0), "digits")[1]
    assert sum(map(len, whole.values())) == len(inputs.index)
    assert set(parts["test"]) <= set(whole["test"])


def test_from_search_to_final_training(plan):
    found = runs.convergence(plan)
    assert list(found) == ["genetic", "random"]
    assert [len(f[0].trace) for f in found.values()] == [
        2,
        2,
    ]
    one, other = found["genetic"][0], found["random"][0]
    assert one.fitness == one.trace["fitness"].max() == one.trained["mcc"]
    assert tables.common(one, other) == 2  # the first generation: same genes, same training
    assert one.trace["fitness"].tolist() == other.trace["fitness"].tolist()
    assert np.isnan(tables.common(None, other))
    assert set(one.values) == {
        "architecture",
        "loss",
        "optimizer",
        "learning_rate",
        "weight_decay",
    }
    again = runs.again(plan, one)
    assert again.metrics()["val"]["mcc"] == one.fitness  # the same network to the last bit
    assert runs.again(plan, other).metrics()["val"]["mcc"] == other.fitness
    final = runs.final(plan, one)
    assert len(final.predictions().query("part == 'test'")) == len(
        runs.images_of(plan, "digits")[1]["test"]
    )
    assert runs.final(plan, one).folder == final.folder
    swapped = runs.final(dataclasses.replace(plan, swap_lr_wd=True), one)
    assert swapped.config["values"]["learning_rate"] == one.values["weight_decay"]
    assert swapped.config["values"]["weight_decay"] == one.values["learning_rate"]
    pairs = runs.fidelity(plan, one)
    assert len(pairs) == 2
    assert pairs["fitness"].is_monotonic_increasing
    assert pairs["final_test_mcc"].notna().all()


def test_accuracy_as_fitness_searches_the_same_first_generation(plan):
    kinds = runs.targets(plan)
    assert set(kinds["mcc"]) == set(kinds["accuracy"]) == {gencnn_plan.role_seed(plan, "isic-2019")}
    mcc, accuracy = (next(iter(kinds[kind].values())) for kind in ("mcc", "accuracy"))
    genes = [c for c in mcc.history if c.startswith("gene.")]
    assert np.array_equal(
        mcc.history.query("generation == 0")[genes],
        accuracy.history.query("generation == 0")[genes],
    )
    assert accuracy.fitness == accuracy.trained["accuracy"]
    assert mcc.fitness == mcc.trained["mcc"]
    assert (
        runs.medical(plan)["isic-2019"].fitness == mcc.fitness
    )  # the same search, not a second one


def test_a_failure_is_left_out_and_said(capsys):
    def diverge():
        raise train.Diverged("the loss is nan")

    assert runs.attempted({("genetic", 3): diverge, "kvasir-v2": lambda: 5}) == {"kvasir-v2": 5}
    assert "left out: genetic 3: the loss is nan" in capsys.readouterr().out
