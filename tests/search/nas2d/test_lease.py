"""LeaSE's architecture gradient against the reference values of every variant, brute force, and
what must hold whatever the numbers.
"""

import functools
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from reference_values import oracle

from kit.search.nas2d import explanations, hypergradient, lease, supernet
from kit.search.nas2d.hypergradient import cross_entropy, derivatives
from kit.search.nas2d.lease import LeaseSettings

TAU = 8 / 255
BARE = LeaseSettings(
    virtual_momentum=False, clip=False
)  # the pipeline that the reference values were computed with
VARIANTS = [
    f"{step}_{through}_{target}_asc"
    for step in ("raw", "linf")
    for through in ("literal", "total")
    for target in ("soft", "hard")
] + ["linf_literal_soft_desc"]
GATE = {  # every pair of answers about step, path and target occurs, and both directions
    "raw_literal_soft_asc",
    "raw_total_hard_asc",
    "linf_literal_hard_asc",
    "linf_total_soft_asc",
    "linf_literal_soft_desc",
}
NORMS = {
    "raw_literal_soft_asc": 3.69576885e-05,
    "raw_literal_hard_asc": 7.94567885e-04,
    "raw_total_soft_asc": 2.77426735e-04,
    "raw_total_hard_asc": 2.92310034e-03,
    "linf_literal_soft_asc": 2.62398023e-02,
    "linf_literal_soft_desc": 2.44488900e-02,
    "linf_literal_hard_asc": 1.49215572e-03,
    "linf_total_soft_asc": 6.18765719e-02,
    "linf_total_hard_asc": 6.04739635e-03,
}


def nhwc(array):
    return tf.constant(array.transpose(0, 2, 3, 1))


def listener(weights, x):
    """The reference values' audience: two convolutions with BatchNorm, the second of stride 2, and
    a linear layer.
    """
    for kernel, stride in zip(weights, (1, 2), strict=False):
        x = tf.nn.conv2d(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), kernel, stride, "VALID")
        centred = x - tf.reduce_mean(x, [0, 1, 2])
        x = tf.nn.relu(centred * tf.math.rsqrt(tf.reduce_mean(centred**2, [0, 1, 2]) + 1e-5))
    return tf.reduce_mean(x, [1, 2]) @ weights[2] + weights[3]


@functools.cache
def reference():
    """Keyword arguments of `lease_gradient` for the reference values, but the settings."""
    data, space = oracle("lease", "darts_tiny"), supernet.Space("darts", 4, 3)
    mapping = {key[2:]: value for key, value in data.items() if key.startswith("w:")}
    told = [oracle("lease", "lease_tiny")[f"audience_w{i}"] for i in range(4)]
    batches = {
        part: (nhwc(data[f"x_{part}"]), tf.constant(data[f"y_{part}"])) for part in ("train", "val")
    }
    return {
        "explainer": lambda weights, arch, x: supernet.forward(space, weights, arch, x),
        "audience": listener,
        "weights": [tf.constant(w) for w in supernet.from_torch(space, mapping)],
        "arch": [tf.constant(data[f"arch:{i}"]) for i in range(2)],
        "audience_weights": [
            tf.constant(w.transpose(2, 3, 1, 0) if w.ndim == 4 else w.T) for w in told
        ],
        "delta0": nhwc(oracle("lease", "lease_tiny")["delta0"]),
        "lr": 0.025,
        "audience_lr": 0.025,
        **batches,
    }


def settings_of(variant):
    step, through, target, direction = variant.split("_")
    return replace(
        BARE,
        step=step,
        through={"literal": "weights"}.get(through, through),
        target={"hard": "predicted"}.get(target, target),
        sign=1 if direction == "asc" else -1,
    )


def length(tensors):
    return float(np.sqrt(sum((np.asarray(t) ** 2).sum() for t in tensors)))


def assert_close(got, want, tolerance):
    """Equal up to `tolerance` of the norm."""
    assert length(
        [np.asarray(g) - np.asarray(w) for g, w in zip(got, want, strict=True)]
    ) <= tolerance * length(want)


_TAKEN = []


@pytest.fixture
def one_step(monkeypatch):
    """The explainer's virtual step, which is the same in all variants, is taken once."""
    unroll = lease.unroll
    monkeypatch.setattr(
        lease,
        "unroll",
        lambda *given, **named: (
            _TAKEN[0] if _TAKEN else _TAKEN.append(unroll(*given, **named)) or _TAKEN[0]
        ),
    )


@pytest.mark.parametrize(
    "variant", [v if v in GATE else pytest.param(v, marks=pytest.mark.slow) for v in VARIANTS]
)
def test_audience_of_a_reference_variant(variant, one_step):
    data = oracle("lease", "lease_tiny")
    result = lease.lease_gradient(
        **reference(), settings=settings_of(variant), gamma=2.0, order=1
    )  # which keeps the terms apart at no cost
    audience = [data[f"{variant}:g_a_{cell}"] for cell in ("normal", "reduce")]
    assert_close(result.audience, audience, 1e-6)
    assert_close(
        result.gradients,
        [e + 2 * a for e, a in zip(result.explainer, audience, strict=False)],
        1e-6,
    )
    assert length(result.audience) == pytest.approx(NORMS[variant], rel=1e-6)
    np.testing.assert_allclose(
        result.lesson.explanation.delta, nhwc(data[f"{variant}:delta1"]), atol=1e-12
    )
    for got, key in ((result.lesson.explanation.change, "O"), (result.audience_loss, "L_aud_val")):
        assert float(got) == pytest.approx(float(data[f"{variant}:{key}"]), abs=1e-8)


def test_both_terms_of_the_reference_in_one_product(one_step):
    """The merged product is the sum of the two reference gradients."""
    data = oracle("lease", "lease_tiny")
    result = lease.lease_gradient(
        **reference(), settings=settings_of("linf_literal_soft_asc"), gamma=2.0
    )
    wanted = [
        data[f"g_e_{cell}"] + 2 * data[f"linf_literal_soft_asc:g_a_{cell}"]
        for cell in ("normal", "reduce")
    ]
    assert_close(result.gradients, wanted, 1e-6)
    assert float(result.loss) == pytest.approx(1.5093195554, abs=1e-9)


# --- a smooth explainer and audience that are small enough for brute force ------------------------


def explainer(weights, arch, x):
    """Two layers, the first with a mixture of two activations."""
    hidden, mix = tf.reshape(x, [x.shape[0], -1]) @ weights[0], tf.nn.softmax(arch[0])
    return (mix[0] * tf.tanh(hidden) + mix[1] * tf.sin(2 * hidden)) @ weights[1]


def audience(weights, x):
    return tf.tanh(30 * tf.reshape(x, [x.shape[0], -1]) @ weights[0]) @ weights[1]


def problem(seed=0):
    """Keyword arguments of `lease_gradient` but settings and gamma."""
    rng = np.random.default_rng(seed)
    made = {
        name: [tf.constant(rng.standard_normal(shape) * 0.5) for shape in [(12, 5), (5, 3)]]
        for name in ("weights", "audience_weights", "buffers")
    }
    batches = {
        part: (tf.constant(rng.uniform(0.2, 1, (6, 2, 2, 3))), tf.constant(rng.integers(0, 3, 6)))
        for part in ("train", "val")
    }
    return {
        "explainer": explainer,
        "audience": audience,
        "arch": [tf.constant([0.3, -0.2], tf.float64)],
        "delta0": tf.constant(0.1 * TAU * rng.uniform(-1, 1, (6, 2, 2, 3))),
        "lr": 0.1,
        "audience_lr": 0.2,
        **made,
        **batches,
    }


def audience_loss_by_steps(arch, given, settings, frozen):
    """The four levels one after another; `frozen` is the architecture that the
    perturbations see.
    """
    x, labels = given["train"]

    def step(network, weights, batch, rate, momentum=0.0, decay=0.0):
        gradients = derivatives(
            lambda: cross_entropy(network(weights, batch[0]), batch[1]), weights
        )[1]
        return [
            w - rate * (momentum * b + g + decay * w)
            for w, g, b in zip(weights, gradients, given["buffers"], strict=False)
        ]

    virtual = step(
        lambda w, x: explainer(w, arch, x), given["weights"], given["train"], 0.1, 0.9, 3e-4
    )

    def change(delta):
        perturbed, clean = (explainer(virtual, frozen, images) for images in (x + delta, x))
        return -tf.reduce_sum(tf.nn.softmax(clean) * tf.nn.log_softmax(perturbed))

    (gradient,) = derivatives(lambda: change(given["delta0"]), [given["delta0"]])[1]
    delta = tf.clip_by_value(
        given["delta0"] + settings.sign * settings.step_rate * gradient, -settings.tau, settings.tau
    )
    told = step(audience, given["audience_weights"], (delta / settings.tau * x, labels), 0.2)
    return float(cross_entropy(audience(told, given["val"][0]), given["val"][1]))


@pytest.mark.parametrize("through", ["weights", "total"])
@pytest.mark.parametrize(("mode", "tolerance"), [("exact", 1e-5), ("finite", 1e-3)])
def test_audience_term_by_brute_force(through, mode, tolerance):
    given, settings = (
        problem(),
        LeaseSettings(step="raw", step_rate=50.0, through=through, radius=1e-5),
    )
    result = lease.lease_gradient(**given, settings=settings, gamma=1.0, mode=mode, separate=True)
    clipped = np.abs(result.lesson.explanation.delta) == TAU
    assert 0 < clipped.sum() < clipped.size  # the clip is part of what is differentiated
    for i, unit in enumerate(np.eye(2)):
        moved = [[given["arch"][0] + h * unit] for h in (1e-5, -1e-5)]
        ahead, behind = (
            audience_loss_by_steps(m, given, settings, m if through == "total" else given["arch"])
            for m in moved
        )
        assert float(result.audience[0][i]) == pytest.approx((ahead - behind) / 2e-5, rel=tolerance)


@pytest.mark.parametrize("mode", hypergradient.MODES)
@pytest.mark.parametrize("order", [1, 2])
def test_gamma_0_is_the_base_method(mode, order):
    """With gamma a tensor as in a search."""
    given = problem()
    result = lease.lease_gradient(
        **given, settings=LeaseSettings(), gamma=tf.constant(0.0), order=order, mode=mode
    )
    shared = (given["explainer"], given["weights"], given["arch"])
    if order == 1:
        base = hypergradient.first_order(*shared, given["val"])
    else:
        base = hypergradient.second_order(
            *shared, given["train"], given["val"], 0.1, given["buffers"], mode=mode
        )
    np.testing.assert_array_equal(result.gradients[0], base.gradients[0])
    assert float(result.loss) == float(base.loss)
    assert float(result.ratio) == 0


def test_the_order_of_the_explainer_may_be_set_apart_from_the_base_method():
    second = lease.lease_gradient(
        **problem(), settings=LeaseSettings(explainer_order=2), gamma=0.0, order=1
    )
    np.testing.assert_array_equal(
        second.gradients[0],
        lease.lease_gradient(**problem(), settings=LeaseSettings(), gamma=0.0, order=2).gradients[
            0
        ],
    )


def test_the_merged_product_is_linear_in_gamma():
    apart = lease.lease_gradient(**problem(), settings=LeaseSettings(), gamma=0.7, separate=True)
    merged = [
        lease.lease_gradient(
            **problem(), settings=LeaseSettings(), gamma=g, explainer_weight=e
        ).gradients[0]
        for g, e in ((0.7, 1.0), (0.7, 0.0), (0.0, 1.0))
    ]
    np.testing.assert_allclose(merged[0], apart.gradients[0], rtol=1e-12)
    np.testing.assert_allclose(merged[1], 0.7 * apart.audience[0], rtol=1e-12)  # the audience alone
    np.testing.assert_allclose(merged[2], apart.explainer[0], rtol=1e-12)
    assert apart.explainer is not None
    assert lease.lease_gradient(**problem(), settings=LeaseSettings(), gamma=0.7).explainer is None


@pytest.mark.parametrize(
    "settings", [LeaseSettings(initial="zero", step="raw"), LeaseSettings(step="sign")]
)
@pytest.mark.parametrize("mode", hypergradient.MODES)
def test_where_the_audience_has_no_say(settings, mode):
    """A soft target at delta 0, where its gradient vanishes, and a step along the sign, which has
    no derivative.
    """
    given = problem()
    if settings.initial == "zero":
        given["delta0"] = lease.initial_delta(given["train"][0], settings, [0, 0])
    result = lease.lease_gradient(**given, settings=settings, gamma=1.0, mode=mode, separate=True)
    assert length(result.audience) < (
        1e-14 if mode == "exact" or settings.step == "sign" else 1e-3
    ) * length(result.explainer)
    usual = lease.lease_gradient(
        **problem(), settings=LeaseSettings(), gamma=1.0, mode=mode, separate=True
    )
    assert length(usual.audience) > 1e-4 * length(usual.explainer)


def test_descent_moves_the_other_way():
    given, settings = problem(), LeaseSettings(clip=False)
    up, down = (
        lease.lease_gradient(
            **given, settings=replace(settings, sign=sign), gamma=1.0
        ).lesson.explanation.delta
        for sign in (1, -1)
    )
    np.testing.assert_allclose(up + down, 2 * given["delta0"], atol=1e-12)
    np.testing.assert_allclose(np.abs(up - given["delta0"]).max(axis=(1, 2, 3)), TAU)


@pytest.mark.parametrize(
    "change",
    [
        {"target": "soft_constant"},
        {"target": "predicted"},
        {"target": "label"},
        {"product": "raw"},
        {"product": "absolute"},
        {"product": "normalised"},
        {"pixels": "standardised", "pixel_mean": 0.5, "pixel_deviation": 0.3},
        {"virtual_momentum": False},
        {"validation": "explained"},
        {"virtual_explainer_lr": 0.3},
        {"virtual_audience_lr": 0.3},
        {"tau": 16 / 255},
        {"step_rate": 0.5},
        {"through": "total"},
    ],
)
def test_every_answer_to_an_open_question_has_an_effect(change):
    """And differences agree with exact derivatives under each."""
    given = {**problem(), "settings": LeaseSettings(radius=1e-4, **change), "gamma": 1.0}
    exact, finite = (
        lease.lease_gradient(**given, mode=mode, separate=True) for mode in hypergradient.MODES
    )
    assert_close(finite.audience, exact.audience, 1e-3)
    usual = lease.lease_gradient(**problem(), settings=LeaseSettings(), gamma=1.0, separate=True)
    assert length([exact.audience[0] - usual.audience[0]]) > 1e-4 * length(usual.audience)


def test_what_the_audience_is_shown():
    x, delta = tf.constant([[[[0.5], [0.0]]]]), tf.constant([[[[-TAU / 2], [TAU]]]])
    shown = {
        product: explanations.shown(delta, x, LeaseSettings(product=product)).numpy().ravel()
        for product in ("scaled", "raw", "absolute", "normalised")
    }
    np.testing.assert_allclose(
        list(shown.values()), [[-0.25, 0], [-TAU / 4, 0], [0.25, 0], [0.25, 0]], rtol=1e-6
    )


def test_perturbations_are_made_without_skip_dropout():
    """The noisy explainer is asked for training and validation only."""
    given, asked = problem(), []

    def noted(name):
        return lambda weights, arch, x: asked.append(name) or explainer(weights, arch, x)

    quiet, given["explainer"] = noted("quiet"), noted("noisy")
    lease.lease_gradient(**given, settings=LeaseSettings(), gamma=1.0, quiet=quiet)
    assert asked == ["noisy", "noisy", "quiet", "quiet"]
    asked.clear()
    lease.lease_gradient(
        **given, settings=LeaseSettings(quiet_explanations=False), gamma=1.0, quiet=quiet
    )
    assert asked == ["noisy"] * 4


def test_the_lesson_alone_is_that_of_the_whole_step():
    given = problem()
    whole = lease.lease_gradient(**given, settings=LeaseSettings(), gamma=1.0).lesson
    names = (
        "explainer",
        "audience",
        "weights",
        "audience_weights",
        "arch",
        "train",
        "delta0",
        "lr",
        "buffers",
    )
    alone = lease.teach(**{name: given[name] for name in names}, settings=LeaseSettings())
    np.testing.assert_array_equal(alone.gradients[0], whole.gradients[0])
    np.testing.assert_array_equal(alone.explanation.delta, whole.explanation.delta)


def test_another_batch_for_the_lesson():
    given = problem()
    lecture = problem(seed=5)["train"]
    other = lease.lease_gradient(**given, settings=LeaseSettings(), gamma=1.0, lecture=lecture)
    same = lease.lease_gradient(
        **given, settings=LeaseSettings(), gamma=1.0, lecture=given["train"]
    )
    usual = lease.lease_gradient(**given, settings=LeaseSettings(), gamma=1.0)
    np.testing.assert_array_equal(same.gradients[0], usual.gradients[0])
    assert float(other.train_loss) == float(usual.train_loss)
    assert float(other.lesson.loss) != float(usual.lesson.loss)


def test_one_trace_serves_every_gamma():
    given = problem()
    step = tf.function(
        lambda gamma, own: (
            lease.lease_gradient(
                **given, settings=LeaseSettings(), gamma=gamma, explainer_weight=own
            ).gradients
        ),
        autograph=False,
    )
    for gamma, own in ((0.0, 1.0), (1.0, 1.0), (1.0, 0.0)):
        wanted = lease.lease_gradient(
            **given, settings=LeaseSettings(), gamma=gamma, explainer_weight=own
        ).gradients
        np.testing.assert_allclose(
            step(tf.constant(gamma), tf.constant(own))[0], wanted[0], rtol=1e-10
        )
    assert step.experimental_get_tracing_count() == 1


def test_initial_perturbations():
    images = tf.zeros((4, 8, 8, 3))
    delta = lease.initial_delta(images, LeaseSettings(), tf.constant([1, 2]))
    assert delta.shape == images.shape
    assert 0.09 * TAU < np.abs(delta).max() <= 0.1 * TAU
    assert abs(np.mean(delta)) < 0.01 * TAU
    np.testing.assert_array_equal(
        delta, lease.initial_delta(images, LeaseSettings(), tf.constant([1, 2]))
    )
    assert (
        not lease.initial_delta(images, LeaseSettings(initial="zero"), tf.constant([1, 2]))
        .numpy()
        .any()
    )


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"target": "hard"}, "soft, soft_constant, predicted, label"),
        ({"tau": 0}, "tau is 0"),
        ({"initial_fraction": 0}, "set initial to 'zero'"),
    ],
)
def test_settings_out_of_range(bad, said):
    with pytest.raises(lease.BadLease, match=said):
        LeaseSettings(**bad)


def test_finite_means_equation_12_alone(monkeypatch):
    """The other two products have no printed radius, and their differences are noise in float32."""
    calls = []
    difference = hypergradient.central_difference
    monkeypatch.setattr(
        hypergradient,
        "central_difference",
        lambda *given: calls.append(len(given[1])) or difference(*given),
    )
    given = problem()
    for separate, products in ((False, 1), (True, 2)):
        calls.clear()
        lease.lease_gradient(
            **given, settings=LeaseSettings(), gamma=1.0, mode="finite", separate=separate
        )
        assert calls == [len(given["weights"])] * products
    assert not hasattr(explanations, "central_difference")
