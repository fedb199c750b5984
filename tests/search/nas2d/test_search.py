import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from kit import files
from kit.data import images
from kit.data import inputs as data_inputs
from kit.search.nas2d import (
    audience,
    genotype,
    gradient_check,
    hypergradient,
    memory,
    search,
    search_loop,
    search_state,
    search_step,
    supernet,
    uniformity,
)
from kit.search.nas2d.search_config import BadSearch, SearchConfig, seeds
from kit.training.train import Diverged, OutOfMemory
from tests.conftest import write_set

FAMILIES = ("darts", "pcdarts", "pdarts")


def stand_in(space, weights, arch, x, skip_rate=None, seed=None):
    """Depends on weights, architecture, images and dropout as a supernet does, with all second
    derivatives, and traces in no time.
    """
    stem, last = weights[0], weights[-2]
    maps = tf.nn.tanh(tf.nn.conv2d(x, stem, 2, "SAME"))
    mixed = [
        tf.reduce_sum(tf.nn.softmax(a) * np.linspace(0, 1, a.shape[-1]).astype(a.dtype.name))
        for a in arch
    ]
    features = tf.tile(tf.reduce_mean(maps, [1, 2]), [1, -(-last.shape[0] // stem.shape[-1])])[
        :, : last.shape[0]
    ]
    features = tf.nn.tanh(features * tf.add_n(mixed)) + features * mixed[0]
    if skip_rate is not None:
        features *= tf.cast(
            tf.random.stateless_uniform(tf.shape(features), seed) > skip_rate, x.dtype
        )
    return features @ last * 3 + weights[-1] + tf.add_n([tf.reduce_mean(w) for w in weights])


def stand_in_audience(name, weights, x):
    return tf.reduce_mean(tf.nn.tanh(tf.nn.conv2d(x, weights[0], 2, "SAME")), [1, 2]) @ weights[1]


def audience_shapes(name, classes, size, input_channels, **_):
    return [("kernel", (3, 3, input_channels, 6)), ("classifier", (6, classes))]


@pytest.fixture(scope="module")
def quick():
    """Searches with stand-ins for both networks: what is tested here is everything about them; see
    test_search_supernets.py.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supernet, "forward", stand_in)
        patch.setattr(audience, "forward", stand_in_audience)
        patch.setattr(audience, "weight_shapes", audience_shapes)
        patch.setattr(
            audience,
            "initial_weights",
            lambda *a, **o: [
                np.random.default_rng(a[3]).normal(size=s).astype("float32")
                for _, s in audience_shapes(*a[:3], **o)
            ],
        )
        forget()
        yield
        forget()


def forget():
    """Drop the traced steps, which belong to other networks."""
    for function in (
        search_step.explainer,
        search_step.listener,
        search_step.weight_step,
        search_step.measure_step,
        search_step.arch_step,
        search_step.lease_step,
        search_step.teach_step,
    ):
        function.cache_clear()


@pytest.fixture(scope="module")
def inputs(private_folders):
    write_set(private_folders / "data" / "triple", "triple", ("dark", "bright", "other"), 14, 16)
    return images.load("triple", 16)


@pytest.fixture(scope="module")
def parts(inputs):
    return search.halves(inputs, np.arange(len(inputs.index)), seed=1)


def config(profile, family, lease=None, **changes):
    small = {
        "channels": 8 if family == "pcdarts" else 4,
        "cells": 3,
        "epochs": 3 if family == "pdarts" else 4,
        "batch_size": 8,
        "steps": 2,
        "pruning": "mask",
        "traced": False,
    }
    heard = {"lease": lease, "audience_options": {"width": 2}} if lease is not None else {}
    return SearchConfig("tests", profile, family, family, **{**small, **heard, **changes})


def interrupted(monkeypatch, wanted, inputs, parts, after: int):
    """Run a search that dies right after the state of an epoch is written."""
    save = search_state.save

    def save_then_die(file, state):
        save(file, state)
        if state.epoch == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(search_state, "save", save_then_die)
        with pytest.raises(KeyboardInterrupt):
            search.search(wanted, inputs, *parts)


def same(first, second):
    left, right = first.history().drop(columns="seconds"), second.history().drop(columns="seconds")
    assert left.equals(right), left.compare(right)
    for name in (search.CELLS, search.SNAPSHOTS):
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()
    with np.load(first.folder / search.ARCH) as one, np.load(second.folder / search.ARCH) as other:
        assert set(one) == set(other)
        assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("family", "lease", "traced"),
    [(family, lease, False) for family in FAMILIES for lease in (None, {})]
    + [("pcdarts", {}, True), ("darts", None, True)],
)
def test_a_killed_search_ends_bit_identical(
    family, lease, traced, quick, monkeypatch, inputs, parts
):
    whole = search.search(config("whole", family, lease, traced=traced), inputs, *parts)
    wanted = config("killed", family, lease, traced=traced)
    interrupted(monkeypatch, wanted, inputs, parts, after=4 if family == "pdarts" else 2)
    resumed = search.search(wanted, inputs, *parts)
    assert resumed.status["resumed_at"] in (2, 4)
    assert resumed.key == whole.key
    same(whole, resumed)


def test_a_search_killed_between_two_stages_goes_on(quick, monkeypatch, inputs, parts):
    whole = search.search(config("stages", "pdarts", pruning="remove"), inputs, *parts)
    wanted = config("between", "pdarts", pruning="remove")
    interrupted(monkeypatch, wanted, inputs, parts, after=3)
    same(whole, search.search(wanted, inputs, *parts))


def test_kept_perturbations_and_other_orders_resume_too(quick, monkeypatch, inputs, parts):
    lease = {
        "initial": "kept",
        "batches": "separate",
        "order": "architecture_last",
        "arch_step": "descent",
    }
    whole, wanted = (
        search.search(config("kept", "pcdarts", lease), inputs, *parts),
        config("kept-killed", "pcdarts", lease),
    )
    interrupted(monkeypatch, wanted, inputs, parts, after=3)
    same(whole, search.search(wanted, inputs, *parts))


def test_a_finished_search_has_every_file_and_is_not_repeated(quick, monkeypatch, inputs, parts):
    wanted = config("files", "darts", {}, separate=True)
    run = search.search(wanted, inputs, *parts)
    names = {f.name for f in run.folder.iterdir()} - {".lock"}
    assert names == {
        "config.json",
        "environment.json",
        "history.csv",
        "genotype.json",
        "genotypes.json",
        "hypergradient.json",
        "arch.npz",
        "status.json",
    }
    history = run.history()
    assert list(history["epoch"]) == [1, 2, 3, 4]
    assert np.isfinite(
        history[["loss", "val_loss", "ratio", "cosine", "audience_loss", "audience_val_loss"]]
    ).all(axis=None)
    assert history["cosine"].abs().max() <= 1
    assert 0.9 < history["entropy_normal"].iloc[0] <= 1
    assert [epoch for epoch, _ in search.snapshots(run)] == [1, 2, 3, 4]
    assert search.snapshots(run)[-1][1] == search.found(run)
    assert run.config["order"] == 2
    assert run.config["lease"]["tau"] == pytest.approx(8 / 255)
    monkeypatch.setattr(search_loop, "train_epoch", lambda *_: pytest.fail("searched again"))
    search.search(wanted, inputs, *parts)


@pytest.mark.parametrize("family", FAMILIES)
def test_gamma_zero_is_the_base_method_step_for_step(family, quick, inputs, parts):
    base = search.search(config("base", family), inputs, *parts)
    silent = search.search(config("silent", family, {}, gamma=0.0), inputs, *parts)
    loud = search.search(config("silent", family, {}, gamma=1.0), inputs, *parts)
    columns = ["loss", "accuracy", "val_loss", "entropy_normal", "entropy_reduce"]
    np.testing.assert_allclose(
        silent.history()[columns], base.history()[columns], rtol=2e-5, atol=1e-6
    )
    arrays = [dict(np.load(run.folder / search.ARCH)) for run in (base, silent, loud)]
    for name in arrays[0]:
        np.testing.assert_allclose(arrays[1][name], arrays[0][name], atol=2e-6)
    assert any(
        not np.array_equal(arrays[2][name], arrays[1][name]) for name in arrays[0]
    )  # the same graph as for gamma 0
    assert loud.history()["ratio"].iloc[-1] > 0 == silent.history()["ratio"].iloc[-1]


def test_the_audience_alone_moves_the_architecture_elsewhere(quick, inputs, parts):
    both = search.search(config("alone", "pcdarts", {}), inputs, *parts)
    alone = search.search(config("alone", "pcdarts", {}, audience_only=True), inputs, *parts)
    first, second = (np.load(run.folder / search.ARCH)["alpha_normal"] for run in (both, alone))
    assert both.key != alone.key
    assert not np.allclose(first, second, atol=1e-6)


def test_the_warm_up_freezes_the_architecture_and_trains_the_audience(
    quick, monkeypatch, inputs, parts
):
    frozen = config("frozen", "pcdarts", {}, epochs=2, warm_up=2)
    start = supernet.initial_arch(
        frozen.space(0, 3, 1), search_state.number(search_state.INITIAL, 0, 0, 1)
    )
    runs = [search.search(frozen, inputs, *parts)]
    monkeypatch.setattr(search_loop, "FEW_STEPS", 0)  # by the audience's own step
    runs.append(search.search(dataclasses.replace(frozen, profile="frozen-long"), inputs, *parts))
    for run in runs:
        np.testing.assert_array_equal(np.load(run.folder / search.ARCH)["alpha_normal"], start[0])
    assert runs[0].history()["audience_loss"].iloc[0] != runs[0].history()["audience_loss"].iloc[1]
    first, second = (run.history() for run in runs)
    np.testing.assert_allclose(first["loss"], second["loss"], rtol=1e-5)
    np.testing.assert_allclose(
        first["audience_loss"], second["audience_loss"], rtol=5e-3
    )  # two graphs, and a small difference of predictions in float32


def test_pdarts_drops_operations_stage_by_stage_and_limits_skips(quick, inputs, parts):
    run = search.search(config("drops", "pdarts", pruning="remove"), inputs, *parts)
    survivors = files.read_json(run.folder / search.CELLS)["survivors"]
    assert [len(edge) for edge in survivors[0]] == [3] * 14
    assert np.load(run.folder / search.ARCH)["alpha_normal"].shape == (14, 3)
    assert genotype.skip_connections(search.found(run))["normal"] <= 2
    assert list(run.history()["stage"]) == [1] * 3 + [2] * 3 + [3] * 3


def test_masked_operations_are_those_of_the_smaller_supernet():
    kept = tuple(
        tuple(sorted(np.random.default_rng(e).choice(8, 3, replace=False).tolist()))
        for e in range(14)
    )
    alpha = np.random.default_rng(0).normal(size=(14, 8)).astype("float32")
    masked = search_state._masked(alpha, kept)
    np.testing.assert_array_equal(
        search_state.columns(masked, kept), search_state.columns(alpha, kept)
    )
    small, whole = (
        supernet.Space("pdarts", 4, 3, normal=kept, reduce=kept),
        supernet.Space("pdarts", 4, 3),
    )
    arrays = [search_state.columns(alpha, kept)] * 2, [masked] * 2
    np.testing.assert_allclose(
        *(
            supernet.mixing(space, [tf.constant(a) for a in arch], False)
            for space, arch in zip((small, whole), arrays, strict=False)
        ),
        atol=1e-7,
    )


def test_a_nan_ends_one_search_with_a_reason_and_leaves_the_others(quick, inputs, parts, capsys):
    bad = config("nan", "darts", order=1, lr=9.0, clip=9.9, decay=1e30, channels=4)
    bad = dataclasses.replace(bad, name="bad")
    found = search.search_all(
        [config("nan", "pcdarts"), bad, config("nan", "darts", order=1)], inputs, *parts
    )
    assert set(found) == {"pcdarts", "darts"}
    assert "left out: bad: " in capsys.readouterr().out
    with pytest.raises(Diverged, match="lower lr"):
        search.search(bad, inputs, *parts)


def test_too_little_memory_is_a_reason(quick, monkeypatch, inputs, parts):
    monkeypatch.setattr(memory, "available", lambda: 2**20)
    wanted = config("memory", "darts")
    with pytest.raises(OutOfMemory, match="memory"):
        search.search(wanted, inputs, *parts)
    folder = next((search.paths.results_dir() / "memory" / "tests" / "runs").iterdir())
    assert files.read_json(folder / "status.json")["state"] == "failed"


def test_halves_are_stratified_seeded_and_refused_when_a_class_is_missing(inputs, parts):
    a, b = parts
    assert not np.intersect1d(a, b).size
    assert len(a) + len(b) == len(inputs.index)
    assert abs(np.bincount(inputs.labels[a]) - np.bincount(inputs.labels[b])).max() <= 1
    assert not np.array_equal(search.halves(inputs, np.arange(42), seed=2)[0], a)
    assert np.array_equal(search.halves(inputs, np.arange(42), seed=1)[0], a)
    with pytest.raises(data_inputs.BadSplit, match="no image of class other"):
        search.search(config("empty", "darts"), inputs, a[inputs.labels[a] != 2], b)
    with pytest.raises(BadSearch, match="share images"):
        search.search(config("shared", "darts"), inputs, a, a)


def test_settings_take_the_family_s_defaults_and_bad_ones_are_refused():
    darts, pc, p = (SearchConfig(family=family) for family in FAMILIES)
    assert (darts.order, darts.lr_min, darts.arch_lr, darts.warm_up, darts.cells) == (
        2,
        0.001,
        3e-4,
        0,
        (8,),
    )
    assert (pc.order, pc.lr_min, pc.arch_lr, pc.warm_up) == (1, 0.0, 6e-4, 15)
    assert (p.epochs, p.warm_up, p.cells, p.arch_clip, p.total_epochs) == (
        25,
        10,
        (5, 11, 17),
        5.0,
        75,
    )
    assert SearchConfig(family="pcdarts", epochs=10).warm_up == 3
    assert SearchConfig(family="pdarts", epochs=1).warm_up == 0
    assert "lease" in str(darts)
    assert "gamma" not in darts.key()
    assert "keep" not in darts.key()
    assert [s.seed for s in seeds(dataclasses.replace(pc, seed=4), 3)] == [4, 5, 6]
    for changes in (
        {"family": "enas"},
        {"order": 3},
        {"lr": 0},
        {"batch_size": 1},
        {"cells": (5, 11)},
        {"audience_only": True},
        {"family": "pdarts", "pruning": "mask"},
    ):
        with pytest.raises(BadSearch):
            SearchConfig(**changes)


def test_spread_says_how_far_seeds_differ():
    table = search.spread({"a": [0.8, 0.9], "b": [0.7]})
    assert table.loc["a", "sd"] == pytest.approx(0.1 / np.sqrt(2))
    assert np.isnan(table.loc["b", "sd"])
    assert table.loc["b", "highest"] == 0.7


def test_a_search_measures_its_gradient_before_its_first_step(quick, inputs, parts, capsys):
    run = search.search(config("measured", "pcdarts", {}, traced=True), inputs, *parts)
    found = files.read_json(run.folder / gradient_check.NAME)
    names = ("cosine", "norm_ratio", "audience_cosine", "audience_norm_ratio")
    assert set(found) == {"mode", "images", *names, *(f"{name}_float64" for name in names)}
    assert found["mode"] == "exact"
    assert found["images"] == 8
    for name in names:
        assert found[name] == pytest.approx(1, abs=1e-6)
        assert found[f"{name}_float64"] == pytest.approx(1, abs=0.02)
        assert found[f"{name}_float64"] != found[name]
    said = capsys.readouterr().out
    assert "pcdarts: hypergradient (exact) against the exact one on 8 images: cosine 1.0" in said
    assert files.read_json(run.folder / search.CELLS)["hypergradient"] == found
    base = search.search(config("measured-base", "pcdarts"), inputs, *parts)
    assert not (base.folder / gradient_check.NAME).exists()  # of first order: nothing to measure
    second = search.search(config("measured-darts", "darts", mode="finite"), inputs, *parts)
    told = files.read_json(second.folder / gradient_check.NAME)
    assert set(told) == {"mode", "images", "cosine", "norm_ratio"}
    assert 0.9 < told["cosine"] < 1


def test_lost_precision_is_said():
    found = {"mode": "exact", "images": 4, "cosine": 1.0, "norm_ratio": 1.0}
    low = {"cosine_float64": 0.53, "norm_ratio_float64": 1.2}
    assert "float32 loses it" in gradient_check.sentence("lease", {**found, **low})
    assert "float32" not in gradient_check.sentence(
        "lease", {**found, "cosine_float64": 0.9} | {"norm_ratio_float64": 1.0}
    )


@pytest.mark.parametrize("family", ["darts", "pcdarts"])
def test_noise_is_not_called_lease(family, quick, monkeypatch, inputs, parts):
    """With differences that say nothing; both terms share one product in DARTS."""
    noise = np.random.default_rng(0)
    monkeypatch.setattr(
        hypergradient,
        "central_difference",
        lambda gradients_at, point, vector, radius: [
            tf.constant(100 * noise.standard_normal(g.shape), g.dtype) for g in gradients_at(point)
        ],
    )
    wrong = config("noise", family, {}, mode="finite")
    with pytest.raises(gradient_check.NotLease, match=r"is not that of LeaSE .*set mode to exact"):
        search.search(wrong, inputs, *parts)
    run = search.folder(wrong, inputs, *parts)
    assert run.status["state"] == "failed"
    assert files.read_json(run.folder / gradient_check.NAME)["audience_cosine"] < 0.7
    assert search.search_all([wrong], inputs, *parts) == {}
    silent = config("noise", family, {}, mode="finite", gamma=0.0)
    assert search.search(silent, inputs, *parts).finished  # the audience has no say, by intent


def test_an_audience_without_a_say_is_not_called_lease(quick, inputs, parts):
    """A sign has no derivative."""
    with pytest.raises(gradient_check.NotLease, match="exactly zero"):
        search.search(config("sign", "pcdarts", {"step": "sign"}), inputs, *parts)


def test_a_finished_search_by_differences_everywhere_is_not_taken_for_one_of_equation_12():
    keys = [config("key", "pcdarts", {}, mode=mode).key() for mode in ("exact", "finite")]
    assert "finite" not in keys[0]
    assert keys[1]["finite"] == "equation 12"
    assert "finite" not in config("key", "darts", mode="finite").key()


def test_the_history_says_how_far_the_architecture_came(quick, inputs, parts):
    history = search.search(config("moved", "darts", {}), inputs, *parts).history()
    assert (history["moved"] > 0).all()
    assert list(history["updates"]) == [2, 4, 6, 8]
    warm = search.search(config("still", "pcdarts", {}, warm_up=2), inputs, *parts).history()
    assert list(warm["moved"] > 0) == [False, False, True, True]
    assert list(warm["updates"]) == [0, 0, 2, 4]


def test_uniform_means_as_near_as_a_search_without_direction_comes():
    rng, rate, updates = np.random.default_rng(5), 0.005, 90
    spread = np.sqrt(updates) * rate
    drifted = [uniformity.facts([rng.normal(0, spread, (14, 8))] * 2) for _ in range(100)]
    wrong = [uniformity.left(f["entropy"][0], f["margin"][0], updates, rate) for f in drifted]
    assert np.mean(wrong) < 0.1
    steady = rng.normal(0, 0.2 * spread, (14, 8))
    steady[np.arange(14), rng.integers(1, 8, 14)] += updates * rate / 2
    found = uniformity.facts([steady, np.zeros((14, 8))])
    assert uniformity.left(found["entropy"][0], found["margin"][0], updates, rate)
    assert found["entropy"][1] == pytest.approx(1)
    assert found["margin"][1] == 0
    assert not uniformity.left(found["entropy"][1], found["margin"][1], updates, rate)
