"""What the thesis leaves open about Gen-CNN, answered from finished searches: differences over
seeds, rank correlation, selection.

The thesis gives single searches and quotes its rivals. Here the genetic search is compared with
others of the same budget, MCC with accuracy as fitness, both paired by seed with a t interval; the
short training with the long one by Spearman's rank correlation; and a search's best fitness with
the test images of the same network. Nothing here sees a model, and each answer says when too little
was run to give one.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats as sps

from kit.evaluation import stats
from kit.studies import shared

METHODS = {
    "genetic": "Gen-CNN (genetic)",
    "random": "Random search",
    "swarm": "Particle swarm",
    "bees": "Artificial bee colony",
    "bayesian": "Bayesian optimisation",
    "hyperband": "Hyperband",
}
WORDS = shared.Words(
    better="better, beyond seed noise",
    worse="worse, beyond seed noise",
    within="within seed noise",
    undecided="fewer than two seeds: no answer",
)
DIFFERENCE = ["comparison", "seeds", "difference", "low", "high", "answer"]


def against(outcomes: pd.DataFrame, column: str = "final_test_mcc") -> pd.DataFrame:
    """The genetic search minus each rival, paired by seed: seeds, difference, 95 % t interval,
    answer.
    """
    wide = outcomes.pivot(index="seed", columns="method", values=column)
    return pd.DataFrame(
        [
            _difference(f"{METHODS['genetic']} − {METHODS[m]}", wide["genetic"] - wide[m])
            for m in METHODS
            if m in wide and m != "genetic" and "genetic" in wide
        ],
        columns=DIFFERENCE,
    )


def _difference(name: str, differences: pd.Series) -> dict:
    kept = differences.dropna()
    return {"comparison": name, "seeds": len(kept), **shared.judged(kept, WORDS)}


def target_table(winners: dict) -> pd.DataFrame:
    """Accuracy and MCC on the test images of what searches for MCC and searches for accuracy found.

    Parameters
    ----------
    winners : dict
        Fitness -> {seed: run}, from :func:`kit.studies.gencnn.runs.again`.
    """
    rows = [
        {
            "fitness": fitness,
            "seed": seed,
            **{
                f"{part}_{metric}": run.metrics()[part][metric]
                for part in ("val", "test")
                for metric in ("accuracy", "mcc")
            },
        }
        for fitness, runs in winners.items()
        for seed, run in runs.items()
    ]
    return pd.DataFrame(
        rows, columns=["fitness", "seed", "val_accuracy", "val_mcc", "test_accuracy", "test_mcc"]
    )


def target_differences(table: pd.DataFrame) -> pd.DataFrame:
    """MCC minus accuracy as fitness, paired by seed, in test MCC and test accuracy."""
    rows = []
    for column, title in (("test_mcc", "test MCC"), ("test_accuracy", "test accuracy")):
        wide = table.pivot(index="seed", columns="fitness", values=column).reindex(
            columns=["mcc", "accuracy"]
        )
        rows.append(
            _difference(
                f"{title}: searched for MCC − searched for accuracy", wide["mcc"] - wide["accuracy"]
            )
        )
    return pd.DataFrame(rows, columns=DIFFERENCE)


def rank_correlation(x: ArrayLike, y: ArrayLike) -> stats.Interval | None:
    """Spearman's correlation with a 95 % interval by Bonett and Wright's (2000) standard error of
    its Fisher transform; None below four pairs or without any spread.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(x) < 4 or len(np.unique(x)) < 2 or len(np.unique(y)) < 2:
        return None
    rho = float(sps.spearmanr(x, y).statistic)
    centre, half = (
        np.arctanh(np.clip(rho, -1 + 1e-12, 1 - 1e-12)),
        1.959964 * np.sqrt((1 + rho**2 / 2) / (len(x) - 3)),
    )
    return stats.Interval(
        rho,
        float(np.tanh(centre - half)),
        float(np.tanh(centre + half)),
        level=0.95,
        n=len(x),
        method="Bonett-Wright",
    )


def fidelity_table(table: pd.DataFrame) -> pd.DataFrame:
    """Rank correlations of the short training's validation MCC with the long one's validation and
    test MCC; `table` from :func:`kit.studies.gencnn.runs.fidelity`.
    """
    rows = []
    for column, title in (
        ("final_test_mcc", "test MCC of the long training"),
        ("final_val_mcc", "validation MCC of the long training"),
    ):
        found = rank_correlation(table["fitness"], table[column])
        ends = (found.estimate, found.low, found.high) if found else (np.nan,) * 3
        rows.append(
            {
                "fitness against": title,
                "individuals": len(table),
                "Spearman": ends[0],
                "low": ends[1],
                "high": ends[2],
            }
        )
    return pd.DataFrame(rows)


def remeasured(found: list) -> np.ndarray:
    """Fitness of each elite trained anew, with other random numbers, minus its fitness in the
    generation before: what a single evaluation's noise is.
    """
    differences = []
    for one in found:
        history = one.history.set_index(["generation", "individual"])
        for (generation, _), row in history[history["origin"] == "elite"].iterrows():
            before = history.loc[(generation - 1, row["first"])]
            if pd.isna(row["reason"]) and pd.isna(before["reason"]):
                differences.append(row["fitness"] - before["fitness"])
    return np.array(differences)


def gap_table(lines: pd.DataFrame) -> pd.DataFrame:
    """How much of the best fitness is selection: best validation MCC of a search against the test
    MCC of the same network, and of the final one.

    Parameters
    ----------
    lines : pandas.DataFrame
        One row a search: search (title), search_val, best_test, final_val, final_test (MCC).

    Returns
    -------
    pandas.DataFrame
        One row a search, and where there are several their mean.
    """
    table = lines.assign(
        **{
            "search-best − its test": lines["search_val"] - lines["best_test"],
            "final validation − test": lines["final_val"] - lines["final_test"],
        }
    )
    names = {
        "search_val": "best validation MCC",
        "best_test": "its test MCC",
        "final_val": "final validation MCC",
        "final_test": "final test MCC",
    }
    table = table.rename(columns=names)
    if len(table) > 1:
        table = pd.concat(
            [table, pd.DataFrame([{"search": "mean", **table.drop(columns="search").mean()}])],
            ignore_index=True,
        )
    return table


def gap_lines(outcomes: pd.DataFrame) -> pd.DataFrame:
    """The genetic searches of an :func:`outcome_table` as :func:`gap_table` takes them;
    `search_val` is the validation MCC also where accuracy was the fitness.
    """
    own = outcomes[outcomes["method"] == "genetic"]
    return pd.DataFrame(
        {
            "search": [f"seed {s}" for s in own["seed"]],
            "search_val": own["best_val_mcc"],
            "best_test": own["best_test_mcc"],
            "final_val": own["final_val_mcc"],
            "final_test": own["final_test_mcc"],
        }
    )


def verdict(
    rival_differences: pd.DataFrame,
    target: pd.DataFrame,
    fidelity: pd.DataFrame,
    gaps: pd.DataFrame,
    noise: np.ndarray,
) -> list[str]:
    """The four answers, computed, one sentence each."""
    decided = rival_differences[rival_differences["low"].notna()]
    better = int((decided["answer"] == "better, beyond seed noise").sum())
    said = [
        f"The genetic search beats {better} of {len(decided)} rivals beyond seed noise in test MCC "
        "at this budget."
        if len(decided)
        else "Whether the genetic search beats its rivals cannot be said: fewer than two seeds "
        "were run."
    ]
    first = target[target["low"].notna()].head(1).to_dict("records")
    said += [
        f"MCC instead of accuracy as fitness changes test MCC by {first[0]['difference']:+.3f} "
        f"({first[0]['low']:+.3f} to {first[0]['high']:+.3f}, {first[0]['seeds']} seeds): "
        f"{first[0]['answer']}."
        if first
        else "Whether MCC as fitness beats accuracy cannot be said: fewer than two pairs of "
        "searches were run."
    ]
    rho = fidelity.iloc[0] if len(fidelity) else None
    said += [
        f"The short training ranks {int(rho['individuals'])} individuals as the long one does with "
        f"Spearman's rho {rho['Spearman']:.2f} ({rho['low']:.2f} to {rho['high']:.2f})."
        if rho is not None and np.isfinite(rho["Spearman"])
        else "Whether short trainings rank as long ones do cannot be said: too few individuals got "
        "a long training, or they do not differ."
    ]
    mean, spread = (
        gaps["search-best − its test"].iloc[-1] if len(gaps) else np.nan,
        noise.std() / np.sqrt(2) if len(noise) else np.nan,
    )
    said += [
        f"A search's best validation MCC stands {mean:+.3f} above the test MCC of the same network"
        + (
            f"; an elite trained anew differs with a standard deviation of {spread:.3f} an "
            "evaluation."
            if np.isfinite(spread)
            else "."
        )
    ] * bool(np.isfinite(mean))
    return said
