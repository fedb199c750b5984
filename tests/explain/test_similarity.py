import numpy as np
import pytest

from kit.benchmarks import similarity
from kit.explain import similarity as explain_similarity


def case(name):
    """Inputs from one random stream, on which the reference code was run too, transposed to
    (datapoints, channels).
    """
    rs = np.random.RandomState(
        "ABCDEFG".index(name) if name < "E" else {"E": 1, "F": 4, "G": 5}[name]
    )
    if name == "F":
        maps = np.maximum(rs.randn(300, 4, 4, 12), 0).mean((1, 2))
        return maps, np.maximum(maps + 0.05 * rs.randn(300, 12), 0)
    x = rs.randn(*((5, 300) if name == "C" else (6, 200)))
    if name == "A":
        y = rs.randn(6, 200)
    elif name in "BE":
        y = 0.7 * x + 0.3 * rs.randn(6, 200)
    elif name == "C":
        y = rs.randn(8, 300)
        y[:3] = x[:3] + 0.1 * y[:3]
    elif name == "D":
        y = rs.randn(6, 6) @ x + rs.randn(6, 1)
    else:
        y = x + 0.5 * rs.randn(6, 200)
        y[2] = 0
    if name == "E":
        x, y = (a * np.arange(1, 7)[:, None] + 5 for a in (x, y))
    return x.T, y.T


# checksums; svcca(x, y) at epsilon 0, 1e-10, 1e-6; svcca(y, x) at 1e-10; definition with weights of
# x and of y; mean CCA
ORACLE = {
    "A": (
        -26.041160,
        -24.650978,
        0.114565,
        0.114565,
        0.114565,
        0.119282,
        0.113987,
        0.118901,
        0.120027,
    ),
    "B": (
        30.353274,
        28.483358,
        0.917561,
        0.917561,
        0.917560,
        0.917362,
        0.917596,
        0.917447,
        0.917208,
    ),
    "C": (-57.141084, -78.309533, 0.713377, 0.713377, 0.713378, None, 0.717139, 0.638504, 0.659741),
    "D": (-7.096933, -502.040279, 1.0, 1.0, 0.999989, 1.0, 1.0, 1.0, 1.0),
    "E": (
        6038.622771,
        6018.546844,
        0.923473,
        0.923473,
        0.923466,
        0.925380,
        0.918086,
        0.917946,
        0.917208,
    ),
    "F": (
        1431.353069,
        1425.984475,
        0.956010,
        0.956010,
        0.956009,
        0.955857,
        0.946749,
        0.946674,
        0.945616,
    ),
    "G": (
        45.480848,
        25.052744,
        0.811126,
        0.897680,
        0.897679,
        0.896681,
        0.896111,
        0.896711,
        0.895736,
    ),
}
RHO = {
    "A": [0.341136, 0.142048, 0.089491, 0.084657, 0.059949, 0.002883],
    "B": [0.940747, 0.932663, 0.929675, 0.910477, 0.899816, 0.889872],
    "C": [0.996809, 0.995251, 0.994042, 0.210308, 0.102292],
    "G": [0.934786, 0.920936, 0.903615, 0.874956, 0.844385],
    "F": [
        0.966931,
        0.963542,
        0.958799,
        0.955625,
        0.951711,
        0.949612,
        0.946190,
        0.944329,
        0.941185,
        0.934127,
        0.923373,
        0.911972,
    ],
}


@pytest.mark.parametrize("name", ORACLE)
def test_the_definition_is_the_oracles(name):
    x, y = case(name)
    np.testing.assert_allclose([x.sum(), y.sum()], ORACLE[name][:2], atol=1e-6)
    found = explain_similarity.cca(x, y)
    np.testing.assert_allclose(
        [found.pwcca("x"), found.pwcca("y"), found.mean], ORACLE[name][6:], atol=1e-6
    )
    assert explain_similarity.pwcca(x, y) == pytest.approx(sum(ORACLE[name][6:8]) / 2, abs=1e-6)
    assert explain_similarity.pwcca(x.astype(np.float32), y.astype(np.float32)) == pytest.approx(
        explain_similarity.pwcca(x, y), abs=1e-4
    )
    if name != "D":
        np.testing.assert_allclose(found.correlations, RHO[name.replace("E", "B")], atol=1e-6)


@pytest.mark.parametrize("name", ORACLE)
def test_the_packages_numbers_are_the_oracles(name):
    x, y = case(name)
    for epsilon, expected in zip((0, 1e-10, 1e-6), ORACLE[name][2:5], strict=False):
        assert explain_similarity.pwcca(x, y, "svcca", "x", epsilon) == pytest.approx(
            expected, abs=2e-6
        )
    assert explain_similarity.pwcca(x, y, "svcca", "x") == pytest.approx(ORACLE[name][3], abs=1e-6)
    if ORACLE[name][5] is None:
        for refused in ((y, x, "svcca", "x"), (x, y, "svcca", "y"), (x, y, "svcca")):
            with pytest.raises(explain_similarity.BadFeatures, match="more channels"):
                explain_similarity.pwcca(*refused)
    else:
        assert explain_similarity.pwcca(y, x, "svcca", "x") == pytest.approx(
            ORACLE[name][5], abs=1e-6
        )


def test_weights_are_the_oracles():
    np.testing.assert_allclose(
        explain_similarity.cca(*case("B")).weights_x,
        [0.183106, 0.154570, 0.171238, 0.161311, 0.166447, 0.163328],
        atol=1e-6,
    )
    np.testing.assert_allclose(
        explain_similarity.cca(*case("B"), "svcca").weights_x,
        [0.181063, 0.155695, 0.172003, 0.160450, 0.167199, 0.163590],
        atol=1e-6,
    )
    np.testing.assert_allclose(
        explain_similarity.cca(*case("F")).weights_x,
        [
            0.099855,
            0.095399,
            0.077169,
            0.089959,
            0.084004,
            0.081274,
            0.083631,
            0.087740,
            0.072995,
            0.079639,
            0.073100,
            0.075235,
        ],
        atol=1e-6,
    )
    np.testing.assert_allclose(
        explain_similarity.cca(*case("F"), "svcca").weights_x[:4],
        [0.400864, 0.119507, 0.095384, 0.043112],
        atol=1e-6,
    )


def test_both_ways_to_the_definition_agree(monkeypatch):
    for name in "ABCFG":
        fast = explain_similarity.cca(*case(name))
        with monkeypatch.context() as patch:
            patch.setattr(explain_similarity, "SAFE", 2.0)
            patch.setattr(explain_similarity, "SMALL", 2.0)
            slow = explain_similarity.cca(*case(name))
        for a, b in zip(
            (fast.correlations, fast.weights_x, fast.weights_y),
            (slow.correlations, slow.weights_x, slow.weights_y),
            strict=False,
        ):
            np.testing.assert_allclose(a, b, atol=1e-8)


def test_invariances():
    x, y = case("C")
    mixed = y @ np.random.default_rng(0).normal(size=(8, 8))
    expected = explain_similarity.pwcca(x, y, weights_from="x")
    for other in (
        y + 100,
        y * 1e-6,
        mixed,
        np.c_[y, y[:, 0] + y[:, 1]],
        np.c_[y, np.full(300, 7.3)],
    ):
        assert explain_similarity.pwcca(x + 3, other, weights_from="x") == pytest.approx(
            expected, abs=1e-9
        )
    assert explain_similarity.pwcca(x, x) == pytest.approx(1, abs=1e-12)
    assert explain_similarity.cca(x, y).pwcca("x") == pytest.approx(
        explain_similarity.cca(y, x).pwcca("y"), abs=1e-12
    )


def test_almost_dependent_channels_keep_their_digits():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(200, 4)), rng.normal(size=(200, 4))
    y[:, 0] += 3 * x[:, 0]
    near = np.c_[x, x[:, 0] + 1e-8 * rng.normal(size=200)]
    q = [
        np.linalg.qr(
            np.c_[x, (near[:, 4] - x[:, 0]) * 1e8] - np.c_[x, (near[:, 4] - x[:, 0]) * 1e8].mean(0)
        )[0],
        np.linalg.qr(y - y.mean(0))[0],
    ]
    expected = np.linalg.svd(q[0].T @ q[1], compute_uv=False)
    np.testing.assert_allclose(explain_similarity.cca(near, y).correlations, expected, atol=1e-6)


def brute_cka(x, y):
    """Unbiased HSIC from the kernels, term by term as Song et al. print it."""
    n = len(x)
    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)

    def hsic(a, b):
        return (
            np.trace(a @ b) + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (a @ b).sum()
        ) / (n * (n - 3))

    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def test_debiased_cka_is_that_of_the_kernels_and_has_no_floor():
    for name in "ABCEFG":
        x, y = case(name)
        assert explain_similarity.debiased_cka(x, y) == pytest.approx(brute_cka(x, y), abs=1e-10)
    x = np.random.default_rng(0).normal(size=(300, 200))
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(200, 200)))[0]
    assert explain_similarity.debiased_cka(x, 3 * x @ rotation + 1) == pytest.approx(1, abs=1e-9)
    unrelated = [
        explain_similarity.debiased_cka(*np.random.default_rng(s).normal(size=(2, 300, 200)))
        for s in range(8)
    ]
    assert abs(np.mean(unrelated)) < 0.02


@pytest.mark.parametrize(("channels", "n", "expected"), [(440, 1581, 0.4598), (440, 1600, 0.4588)])
def test_null_floor_is_the_oracles(channels, n, expected):
    floor = explain_similarity.null_floor(n, channels, repeats=2)
    assert floor.mean == pytest.approx(expected, abs=0.01)
    assert floor.low <= floor.mean <= floor.high < floor.low + 0.01
    assert explain_similarity.null_floor(
        n // 4, channels // 4, seed=1, repeats=1
    ) == explain_similarity.null_floor(n // 4, (channels // 4,) * 2, seed=1, repeats=1)


def test_the_benchmarked_procedure_is_the_packages():
    x, y = case("F")
    assert explain_similarity.svcca_procedure(x, y) == pytest.approx(ORACLE["F"][3], abs=1e-6)
    found = similarity.benchmark(40, 400, rounds=1)
    assert found["difference"] < 1e-6
    assert found["definition"] > 0


def test_bad_features_are_refused():
    x, y = case("A")
    hole = x.copy()
    hole[0, 0] = np.nan
    for wrong, words in (
        ((x[:6], y[:6]), "too few"),
        ((x, y[1:]), "same images"),
        ((x[:, 0], y), "shapes"),
        ((hole, y), "infinite"),
        ((x * 0 + 0.1, y), "constant"),
        ((x, y, "pca"), "mode"),
        ((x, y, "definition", "z"), "weights"),
        ((x, y, "definition", "x", 1e-6), "epsilon"),
        ((x * 0, y, "svcca"), "constant"),
    ):
        with pytest.raises(explain_similarity.BadFeatures, match=words):
            explain_similarity.pwcca(*wrong)
    for wrong, words in (
        ((x[:3], y[:3]), "too few"),
        ((x, y * np.inf), "infinite"),
        ((x * 0, y), "constant"),
    ):
        with pytest.raises(explain_similarity.BadFeatures, match=words):
            explain_similarity.debiased_cka(*wrong)
