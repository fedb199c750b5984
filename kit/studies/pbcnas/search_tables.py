"""The tables of PBC-NAS in 3D about transfer, cost and control of the search, and what its proxy
foretells (Tables 6 to 9).
"""

import numpy as np
import pandas as pd
from scipy.stats import kendalltau, spearmanr

from kit.evaluation import stats
from kit.search.nas3d import proxy as nas3d_proxy
from kit.studies.pbcnas.plan import Plan
from kit.studies.pbcnas.runs import ranked
from kit.studies.pbcnas.size_tables import network_size
from kit.studies.pbcnas.tables import METHODS, RATES, data_title, rate
from kit.training import predictions as training_predictions


def transfer_table(runs: dict, trained: dict, plan: Plan) -> pd.DataFrame:
    """Table 6: source, target, kind, AUC, accuracy; on the diagonal also the network's own
    training.
    """
    names, seed, rows = dict(plan.datasets), plan.final_seeds[0], []
    for key in names:
        if seed in trained.get((key, "found 1"), {}):
            runs = {(key, key, "own training"): trained[key, "found 1"][seed], **runs}
    for (source, target, kind), run in runs.items():
        table = training_predictions.best_predictions(run, "test")
        rows.append(
            {
                "source": data_title(source, names[source]),
                "target": data_title(target, names[target]),
                "kind": kind,
                **{which: rate(table, which) for which in RATES},
            }
        )
    return pd.DataFrame(rows, columns=["source", "target", "kind", *RATES])


def cost_table(searched: dict, plan: Plan) -> pd.DataFrame:
    """Table 7: what each search trained and what it cost."""
    rows, names = [], dict(plan.datasets)
    for key, methods in searched.items():
        for method, seeds in methods.items():
            for seed, result in seeds.items():
                log, books = result.algorithm.log, result.algorithm.books
                rows.append(
                    {
                        "data": data_title(key, names[key]),
                        "search": METHODS[method],
                        "seed": seed,
                        "candidates": len(log),
                        "trained": books.trained,
                        "infeasible": books.infeasible - books.rejected,
                        "too costly": books.rejected,
                        "duplicates": books.duplicates,
                        "failed": books.failed,
                        "left at the end": sum(c.dropped for c in log),
                        "best fitness": result.algorithm.best.fitness,
                        "hours": result.history["seconds"].sum() / 3600,
                    }
                )
    return pd.DataFrame(rows)


def control_table(searched: dict, long: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Table 8: best fitness over search seeds and final test results of each method's best
    candidate, at the same budget.
    """
    rows, names = [], dict(plan.datasets)
    for key, methods in searched.items():
        for method, seeds in methods.items():
            fitness = np.array([result.algorithm.best.fitness for result in seeds.values()])
            mine = (
                long[
                    (long["key"] == key)
                    & (long["row"] == ("found 1" if method == "ode" else method))
                ].set_index("metric")
                if len(long)
                else long
            )
            test = {
                name: mine.loc[which, column] if len(mine) else np.nan
                for which, label in (("auc", "AUC"), ("accuracy", "accuracy"))
                for name, column in ((label, "mean"), (f"{label}, sd", "sd"))
            }
            rows.append(
                {
                    "data": data_title(key, names[key]),
                    "search": METHODS[method],
                    "search seeds": len(fitness),
                    "best fitness": fitness.mean(),
                    "best fitness, sd": fitness.std(ddof=1) if len(fitness) > 1 else np.nan,
                    **test,
                }
            )
    return pd.DataFrame(rows)


def fidelity_rows(found: dict, plan: Plan) -> pd.DataFrame:
    """One line a retrained candidate: data, candidate, fitness, parameters, AUC, accuracy.

    Parameters
    ----------
    found : dict
        From :func:`kit.studies.pbcnas.runs.foretold`.
    """
    names = dict(plan.datasets)
    rows = [
        {
            "data": data_title(key, names[key]),
            "candidate": candidate.number,
            "fitness": candidate.fitness,
            **network_size(network, 2, plan.edge),
            **{
                which: rate(training_predictions.best_predictions(run, "test"), which)
                for which in RATES
            },
        }
        for key, entries in found.items()
        for candidate, network, run in entries
    ]
    return pd.DataFrame(
        rows, columns=["data", "candidate", "fitness", "parameters", "macs", *RATES]
    )


def fidelity_table(rows: pd.DataFrame, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Table 9: rank correlations of the proxy's fitness with test AUC and accuracy, with bootstrap
    intervals over candidates.

    Returns
    -------
    pandas.DataFrame
        data, metric, candidates, Spearman, low, high, Kendall; NaN where all values are equal or
        fewer than 3 candidates were retrained.
    """
    lines, rng = [], np.random.default_rng(seed)
    for where, group in rows.groupby("data", sort=False):
        draws = rng.integers(0, len(group), (resamples, len(group)))
        for which, label in (("auc", "AUC"), ("accuracy", "accuracy")):
            x, y = group["fitness"].to_numpy(), group[which].to_numpy()
            found = [s for d in draws if np.isfinite(s := _spearman(x[d], y[d]))]
            low, high = (
                np.percentile(found, [2.5, 97.5]) if len(group) > 2 and found else (np.nan, np.nan)
            )
            kendall = kendalltau(x, y).statistic if len(group) > 2 else np.nan
            lines.append(
                {
                    "data": where,
                    "with test": label,
                    "candidates": len(group),
                    "Spearman": _spearman(x, y),
                    "low": low,
                    "high": high,
                    "Kendall": kendall,
                }
            )
    return pd.DataFrame(
        lines, columns=["data", "with test", "candidates", "Spearman", "low", "high", "Kendall"]
    )


def validation_table(searched: dict, loaded: dict, plan: Plan) -> pd.DataFrame:
    """What the proxy's few validation volumes can tell: data, volumes, weight of one, best fitness,
    its accuracy with Wilson's interval, and how many candidates share them or lie within the
    interval.
    """
    rows, names = [], dict(plan.datasets)
    for key, methods in searched.items():
        n, result = (
            len(nas3d_proxy.parts(loaded[key][0], plan.proxy)["val"]),
            next(iter(methods["ode"].values())),
        )
        candidates = ranked(result)
        fitness = np.array([candidate.fitness for candidate in candidates])
        accuracy = np.array(
            [
                nas3d_proxy.accuracy(candidate.fitness, candidate.ties, plan.proxy.judge)
                for candidate in candidates
            ]
        )
        found = stats.wilson(round(accuracy[0] * n), n)
        rows.append(
            {
                "data": data_title(key, names[key]),
                "validation volumes": n,
                "one volume (pp)": 100 / n,
                "best fitness": fitness[0],
                "accuracy of the best": accuracy[0],
                "low": found.low,
                "high": found.high,
                "candidates": len(fitness),
                "of the same fitness": int((fitness == fitness[0]).sum()),
                "of the same accuracy": int((accuracy == accuracy[0]).sum()),
                "within the interval": int((accuracy >= found.low).sum()),
            }
        )
    return pd.DataFrame(rows)


def _spearman(x, y) -> float:
    return (
        spearmanr(x, y).statistic if len(x) > 2 and len(set(x)) > 1 and len(set(y)) > 1 else np.nan
    )
