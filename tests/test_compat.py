import keras
import numpy as np

from kit import compat


def dropouts():
    """A model with a dropout layer inside a nested model and one outside."""
    inner = keras.Sequential(
        [keras.Input((50,)), keras.layers.Dropout(0.5, name="inside")], name="inner"
    )
    inputs = keras.Input((50,))
    return keras.Model(inputs, keras.layers.Dropout(0.5, name="outside")(inner(inputs)))


def drawn(model):
    return np.asarray(model(np.ones((4, 50), np.float32), training=True))


def test_every_generator_is_found_in_nested_models_too():
    assert len(compat.seed_generators(dropouts())) == 2
    assert (
        compat.seed_generators(keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])) == []
    )


def test_masks_depend_on_seed_and_epoch_alone():
    model, other = dropouts(), dropouts()
    drawn(model)  # moves the counters of one model on
    masks = []
    for each, seed, epoch in ((model, 7, 2), (other, 7, 2), (model, 7, 3), (model, 8, 2)):
        compat.reseed(each, seed, epoch)
        masks.append(drawn(each))
    assert np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])
    assert not np.array_equal(masks[0], masks[3])
    assert {0.0} < set(np.unique(masks[0]))


def test_layers_of_one_model_draw_different_masks():
    model = dropouts()
    compat.reseed(model, 1, 1)
    states = [np.asarray(generator.state).tolist() for generator in compat.seed_generators(model)]
    assert states[0] != states[1]


def test_the_same_seed_gives_the_same_weights_and_numbers():
    draws = []
    for seed in (5, 5, 6):
        compat.deterministic(seed)
        draws.append(
            (
                np.random.random(),  # noqa: NPY002  the global generator is what is seeded
                np.asarray(keras.layers.Dense(3).build((None, 4)) or keras.random.normal((3,))),
            )
        )
    assert draws[0][0] == draws[1][0] != draws[2][0]
    assert np.array_equal(draws[0][1], draws[1][1])
    assert not np.array_equal(draws[0][1], draws[2][1])


def test_xla_is_for_gpus_only(monkeypatch):
    for devices, answer in (([], False), (["GPU:0"], True)):
        monkeypatch.setattr(
            compat.tf.config,
            "list_physical_devices",
            lambda kind, devices=devices: devices if kind == "GPU" else ["CPU:0"],
        )
        assert compat.use_xla() is answer


def test_a_log_is_told_from_a_person(monkeypatch):
    monkeypatch.setenv("KIT_BATCH", "1")
    assert compat.in_batch()
    monkeypatch.delenv("KIT_BATCH")
    assert not compat.in_batch()
