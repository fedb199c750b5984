"""What the thesis leaves open about Gen-Soup, answered over search seeds: whether astrocytes, two
more genes or averaging are worth anything.
"""

import pandas as pd

from kit.studies import shared
from kit.studies.gensoup import runs as gensoup_runs
from kit.studies.gensoup.tables import MODELS, data_title, interval

ANSWERS = ("beyond seed noise", "worse, beyond seed noise")


def test_mcc(runs: dict) -> dict:
    """(data set, experiment, arm) -> {seed: test MCC of the search's network}."""
    return {
        key: {
            seed: float(interval(gensoup_runs.tested(run), "mcc", 2).estimate)
            for seed, run in seeds.items()
        }
        for key, seeds in runs.items()
    }


test_mcc.__test__ = False  # not a pytest function


def difference_table(
    scores: dict, names: dict, first: str, second: str = "without"
) -> pd.DataFrame:
    """One arm minus another, paired by seed of the search: MCC in hundredths, 95 % t interval,
    answer.

    Parameters
    ----------
    scores : dict
        From :func:`test_mcc`.
    names : dict
        Data set as published -> registered set.
    first, second : str
        Arms.
    """
    pairs = [
        (
            {"data": data_title(key, names[key]), "experiment": experiment},
            mine,
            scores.get((key, experiment, second), {}),
        )
        for (key, experiment, arm), mine in scores.items()
        if arm == first
    ]
    found = shared.difference_table(pairs, ["data", "experiment"], scale=100)
    return found.rename(columns={"sd of a seed (pp)": "sd of a seed"})


def verdict(table: pd.DataFrame, what: str) -> str:
    """The answer of a :func:`difference_table` in one sentence; `what` is its subject, for instance
    "Astrocytes".
    """
    decided = table[table["answer"] != "one seed: no answer"]
    if table.empty:
        return f"{what}: not compared in this run."
    span = (
        f"differences in test MCC from {table['difference'].min() / 100:+.3f} to "
        f"{table['difference'].max() / 100:+.3f}"
    )
    if decided.empty:
        return (
            f"{what}: {span}, each of a single pair of searches; whether that exceeds the "
            "searches' own randomness cannot be said."
        )
    better, worse = (int((decided["answer"] == answer).sum()) for answer in ANSWERS)
    return (
        f"{what}: better beyond seed noise in {better}, worse in {worse} of {len(decided)} "
        f"comparisons over {int(decided['seeds'].max())} seeds ({span})."
    )


def averaging_verdict(table: pd.DataFrame) -> str:
    """Whether a soup of the last generation beats its best member on the test images, both with the
    same kind of statistics, from :func:`kit.studies.gensoup.tables.model_table`.
    """
    said = [
        _averaging(table[table["statistics"] == kind], kind)
        for kind in table["statistics"].unique()
    ]
    return " ".join(filter(None, said)) or "No soup of a last generation was made."


def _averaging(table: pd.DataFrame, kind: str) -> str:
    """The sentence of one kind of statistics; empty without a soup."""
    wins, n, gains = 0, 0, []
    for _, group in table.groupby(["data", "experiment", "arm"]):
        by = group.set_index("model")
        soups = [
            MODELS[name] for name in ("uniform", "greedy", "weighted") if MODELS[name] in by.index
        ]
        if MODELS["last"] in by.index and soups:
            chosen = by.loc[soups, "validation MCC"].idxmax()
            gains.append(by.loc[chosen, "test MCC"] - by.loc[MODELS["last"], "test MCC"])
            wins, n = wins + (gains[-1] > 0), n + 1
    if not n:
        return ""
    return (
        f"By {kind} statistics, the soup of the last generation that is best on the validation "
        f"images beats that generation's best network on the test images in {wins} of {n} cases "
        f"(differences in MCC from {min(gains):+.3f} to {max(gains):+.3f})."
    )
