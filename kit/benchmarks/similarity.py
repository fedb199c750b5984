"""Seconds of PWCCA beside the procedure of the svcca package: ``python -m
kit.benchmarks.similarity``.
"""

import time

import numpy as np

from kit.explain import similarity


def benchmark(channels: int = 960, n: int = 10_000, seed: int = 0, rounds: int = 3) -> dict:
    """Seconds (best of the rounds) of the package's procedure, of :func:`cca` in both modes, and of
    the one matrix product that no way can avoid.

    Returns
    -------
    dict
        seconds by name, "speedup" (procedure / definition) and "difference" (of the two svcca
        results).
    """
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, channels))
    y = 0.7 * x + 0.3 * rng.standard_normal((n, channels))
    joined = np.concatenate([x, y], axis=1)
    ways = {
        "procedure": lambda: similarity.svcca_procedure(x, y),
        "svcca": lambda: similarity.pwcca(x, y, "svcca", "x"),
        "definition": lambda: similarity.pwcca(x, y),
        "product": lambda: joined.T @ joined,
    }
    seconds, values = dict.fromkeys(ways, np.inf), {}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            values[name] = way()
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return {
        **seconds,
        "speedup": seconds["procedure"] / seconds["definition"],
        "difference": abs(values["procedure"] - values["svcca"]),
    }


if __name__ == "__main__":
    print(
        {
            name: round(value, 12 if name == "difference" else 3)
            for name, value in benchmark().items()
        }
    )
