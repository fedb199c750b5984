import numpy as np
import pytest

from kit.models import architecture_catalog
from kit.search.evolution import genome
from kit.search.evolution.genome import BadGenome, Gene, Genome

POPULATION = np.random.RandomState(42).rand(5, 5)


def test_the_five_individuals_of_the_oracle():
    """Oracle 4.3: released code's gene order, both ranges of the learning-rate scale."""
    text, code = (genome.chapter3("code", rates) for rates in ("text", "code"))
    rows = [text.decode(row) for row in POPULATION]
    assert [r["architecture"] for r in rows] == [
        "regnetx_400mf",
        "efficientnetv2_s",
        "convnext_tiny",
        "efficientnetv2_s",
        "mobilenetv3_large",
    ]
    assert [r["loss"] for r in rows] == [
        "sigmoid_cross_entropy",
        "cross_entropy",
        "sigmoid_cross_entropy",
        "label_smoothing",
        "cross_entropy",
    ]
    assert [r["optimizer"] for r in rows] == ["adamax", "rmsprop", "rmsprop", "adamax", "sgd"]
    assert [r["weight_decay"] for r in rows] == pytest.approx(
        [0.059865849, 0.060111502, 0.021233912, 0.043194502, 0.036636185], abs=5e-10
    )
    assert [r["learning_rate"] for r in rows] == pytest.approx(
        [0.156027080, 0.708075497, 0.181833149, 0.291236228, 0.456075424], abs=5e-10
    )
    assert [code.decode(row)["learning_rate"] for row in POPULATION] == pytest.approx(
        [0.156019484, 0.708072870, 0.181825785, 0.291229849, 0.456070528], abs=5e-10
    )


@pytest.mark.parametrize(
    "space",
    [genome.chapter3("code"), genome.chapter3("figure-3.2", scale="log"), genome.chapter5()],
)
def test_decoding_equals_keras_tuner(space):
    keras_tuner = pytest.importorskip("keras_tuner")
    theirs = space.hyperparameters()
    assert isinstance(theirs, keras_tuner.HyperParameters)
    assert [p.name for p in theirs.space] == list(space.names)
    edges = [k / n for n in (4, 5, 6, 9, 11) for k in range(n + 1)]
    genes = np.concatenate(
        [
            np.random.default_rng(0).random(2000),
            edges,
            np.nextafter(edges, 0),
            np.nextafter(edges[:-1], 1),
            [0.0, 1.0],
        ]
    )
    for value in genes[(genes >= 0) & (genes <= 1)]:
        assert list(space.decode([value] * len(space)).values()) == [
            p.prob_to_value(value) for p in theirs.space
        ]


def test_the_ends_of_a_gene():
    space = genome.chapter5()
    low, high = space.decode(np.zeros(7)), space.decode(np.ones(7))
    assert low == {
        "architecture": "regnety_400mf",
        "loss": "cross_entropy",
        "optimizer": "adam",
        "learning_rate": 1e-5,
        "weight_decay": 1e-9,
        "strong": 0.5,
        "weak": 0.5,
    }
    assert high == {
        "architecture": "squeezenet_1.1",
        "loss": "sigmoid_cross_entropy",
        "optimizer": "sgd",
        "learning_rate": 1.0,
        "weight_decay": 0.1,
        "strong": 1.5,
        "weak": 1.5,
    }


@pytest.mark.parametrize(
    "space", [genome.chapter3(), genome.chapter3(scale="log"), genome.chapter5(astrocytes=False)]
)
def test_encoding_is_the_inverse(space):
    for row in np.random.default_rng(1).random((50, len(space))):
        values = space.decode(row)
        again = space.decode(space.encode({**values, "generation": 3}))
        assert all(
            again[k] == v if isinstance(v, str) else again[k] == pytest.approx(v, rel=1e-12)
            for k, v in values.items()
        )


def test_orders_differ_only_in_order():
    spaces = [genome.chapter3(order) for order in genome.ORDERS]
    assert len({space.names for space in spaces}) == 3
    assert len({frozenset(space.genes) for space in spaces}) == 1
    assert len(genome.chapter5(astrocytes=False)) == 5
    assert genome.chapter5().names[:5] == genome.ORDERS["table-3.4"]


def test_bins_have_equal_width():
    gene = Gene("architecture", architecture_catalog.TABLE_3_1)
    drawn = [gene.decode(g) for g in (np.arange(9000) + 0.5) / 9000]
    assert {name: drawn.count(name) for name in gene.values} == dict.fromkeys(gene.values, 1000)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Gene("a", low=1, high=1),
        lambda: Gene("a", low=0, high=1, scale="log"),
        lambda: Gene("a", scale="cubic"),
        lambda: Genome(()),
        lambda: Genome((Gene("a"), Gene("a"))),
        lambda: Gene("a").decode(1.5),
        lambda: Gene("a").decode(float("nan")),
        lambda: Gene("a").encode(2),
        lambda: Gene("a", ("x", "y")).encode("z"),
        lambda: genome.chapter3().decode([0.5] * 4),
    ],
)
def test_mistakes_are_told(make):
    with pytest.raises(BadGenome):
        make()


def test_a_genome_survives_json():
    import json
    from dataclasses import asdict

    space = genome.chapter3()
    assert Genome(**json.loads(json.dumps(asdict(space)))) == space
