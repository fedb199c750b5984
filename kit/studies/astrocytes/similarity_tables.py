"""How alike networks with and without astrocytes are: PWCCA and debiased CKA of their last
features.

What differs from the thesis: the similarity is set against what unrelated features give (the null
floor), against two networks without astrocytes that differ by their seed, and beside debiased CKA,
which has no such floor.
"""

import functools
import itertools

import numpy as np
import pandas as pd

from kit.explain import similarity
from kit.training.short_runs import STATISTICS


@functools.lru_cache(maxsize=64)
def floor(images: int, channels: int) -> float:
    """PWCCA of unrelated features of that many images and channels."""
    return similarity.null_floor(images, channels, repeats=2).mean


def fewer(features: np.ndarray) -> np.ndarray:
    """Neighbouring channels averaged to at most a quarter of the images where there are too few
    images for CCA (below 1.5 a channel); else as they are.
    """
    images, channels = features.shape
    if images >= 1.5 * channels:
        return features
    return np.stack(
        [part.mean(axis=1) for part in np.array_split(features, max(2, images // 4), axis=1)],
        axis=1,
    )


def similarity_table(results: dict, arm: str, statistics: str = "moving") -> pd.DataFrame:
    """PWCCA and debiased CKA after each epoch of the pooled last features of two networks on the
    test images.

    Pairs are the network without astrocytes and its twin of the same seed with them (kind
    "astrocytes"), and two networks without astrocytes of different seeds (kind "seeds").

    Parameters
    ----------
    results : dict
        Case -> {arm: {seed: run}}.
    arm : str
        The arm with astrocytes.
    statistics : {"moving", "recalibrated"}
        Of BatchNormalization.

    Returns
    -------
    pandas.DataFrame
        row, statistics, kind, seed, epoch, by_cnn, by_cngn (weights from either side), pwcca (their
        mean), cka, floor, images, channels, of_channels (before pooling).
    """
    lines, end = [], "" if statistics == STATISTICS[0] else f"-{statistics}"
    for case, arms in results.items():
        off, other = arms.get("off", {}), arms.get(arm, {})
        pairs = [
            ("astrocytes", seed, run, other[seed]) for seed, run in off.items() if seed in other
        ]
        pairs += [("seeds", a, off[a], off[b]) for a, b in itertools.combinations(sorted(off), 2)]
        for kind, seed, first, second in pairs:
            with (
                np.load(first.folder / "features.npz") as x,
                np.load(second.folder / "features.npz") as y,
            ):
                lines += [
                    {
                        "row": case.row,
                        "statistics": statistics,
                        "dataset": case.dataset,
                        "network": case.network,
                        "kind": kind,
                        "seed": seed,
                        "epoch": epoch,
                        **_alike(x[f"{epoch}{end}"], y[f"{epoch}{end}"]),
                    }
                    for epoch in sorted(int(name) for name in x.files if name.isdigit())
                ]
    return pd.DataFrame(lines)


def _alike(x, y) -> dict:
    size, (x, y) = x.shape[1], (fewer(x), fewer(y))
    shape = {
        "images": len(x),
        "channels": x.shape[1],
        "of_channels": size,
        "floor": floor(*x.shape),
    }
    try:
        found = similarity.cca(x, y)
        return {
            "by_cnn": found.pwcca("x"),
            "by_cngn": found.pwcca("y"),
            "pwcca": found.pwcca(),
            "cka": similarity.debiased_cka(x, y),
            **shape,
        }
    except similarity.BadFeatures:  # a network whose features are constant or not finite
        return {**dict.fromkeys(("by_cnn", "by_cngn", "pwcca", "cka"), np.nan), **shape}


def last_similarity(table: pd.DataFrame) -> pd.DataFrame:
    """The similarities after the last epoch, means over seeds: one line a row, kind of
    statistics and kind of pair.
    """
    last = table[table["epoch"] == table.groupby("row")["epoch"].transform("max")]
    means = (
        last.groupby(["row", "statistics", "kind"], sort=False)[
            ["by_cnn", "by_cngn", "pwcca", "cka", "floor", "images", "channels", "of_channels"]
        ]
        .mean()
        .reset_index()
    )
    return means.astype(dict.fromkeys(("images", "channels", "of_channels"), int)).rename(
        columns={
            "kind": "differ by",
            "by_cnn": "PWCCA, weights of the first",
            "by_cngn": "PWCCA, weights of the second",
            "pwcca": "PWCCA",
            "cka": "debiased CKA",
            "floor": "null floor of PWCCA",
        }
    )
