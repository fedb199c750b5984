"""The tables of Gen-CNN: from finished searches and saved predictions to numbers beside the published ones.

Nothing here sees a model. What differs from the thesis: every rate on the test images has an interval (Wilson for accuracy, bootstrap over duplicate groups
for the others) and a second value on the images without a near-duplicate in training; repetitions have a t interval; the rivals are run with the same
genes and the same number of evaluations instead of quoted; and four questions that the thesis leaves open get a table each: does MCC as fitness beat accuracy, do cheap
trainings rank as long ones do, how much of a search's best fitness is selection, and does the genetic algorithm beat random search. F1 is that of the
macro averages (eq. 2.65), which fits the printed rows; the mean of the classes' F1, which the released code computes, stands beside it. All are fractions, as in the thesis.
"""

import numpy as np
import pandas as pd
from scipy import stats as sps

from kit import architectures, audit, evaluate, gencnn_runs, metrics, papers, plots, record, registry, report, split, stats
from kit.evolution import genome as genomes
from kit.gencnn_runs import MEDICAL, PUBLISHED, TITLES, Found, Plan, thesis_name

NOTEBOOK = "40_gencnn_ga"
COMPARISONS = dict(zip(MEDICAL, ("table-3-6", "table-3-7", "table-3-8"), strict=True))
MATRICES = dict(zip(MEDICAL, ("figure-3-8", "figure-3-9", "figure-3-10"), strict=True))
SAMPLES = dict(zip(TITLES, ("figure-3-4", "figure-3-5", "figure-3-6", "figure-3-7"), strict=True))
METRICS = {"accuracy": "accuracy", "f1": "f1_of_macros", "mcc": "mcc", "f1_mean": "macro_f1", "recall": "macro_recall", "specificity": "macro_specificity"}
METHODS = {"genetic": "Gen-CNN (genetic)", "random": "Random search", "swarm": "Particle swarm", "bees": "Artificial bee colony", "bayesian": "Bayesian optimisation", "hyperband": "Hyperband"}
QUOTED = {"ga-reference": "GA, quoted", "pso-reference": "PSO, quoted", "abc-reference": "ABC, quoted"}
OUR_GENES = "architecture, lr, weight decay, loss, optimizer"
SETTINGS = (("generations", "generations"), ("individuals", "individuals"), ("epochs an individual", "epochs_per_individual"), ("image side, search (px)", "image_size"),
            ("fitness", "fitness"), ("crossover probability", "crossover_probability"), ("mutation probability", "mutation_probability"), ("order of the genes", "gene_order"),
            ("factor on the learning rate", "lr_scale"), ("weight decay", "weight_decay"), ("batch, search", "code_hpo_batch"), ("epochs, final", "final_epochs"),
            ("image side, final (px)", "final_image_size"), ("scheduler, final", "final_lr_scheduler"), ("batch, final", "code_final_batch_at_448"))  # fmt: skip


def writer(plan: Plan, role: str | None = None) -> report.Artefacts:
    """Writer of a data set's artefacts with its stand-ins and reductions; without a role, of what needs no data."""
    if role is None:
        return report.Artefacts("gencnn", plan.profile, NOTEBOOK)
    dataset = plan.convergence if role == "sign-language-digits" else dict(plan.medical)[role]
    study = "medical" if role in MEDICAL else "convergence"
    return report.Artefacts("gencnn", plan.profile, NOTEBOOK, dataset, gencnn_runs.stand_in(plan, role), gencnn_runs.notes(plan, study))


# --- what needs no training -----------------------------------------------------------------------------------------------------------------------


def architecture_table(plan: Plan) -> pd.DataFrame:
    """Table 3.1: family and FLOPs as printed, multiply-accumulates at 224 px and parameters as counted here, and what this run searches; the last line is not the thesis'."""
    paper, rows = papers.load("gencnn"), []
    for name in dict.fromkeys([*genomes.TABLE_3_1, *plan.architectures]):
        entry, key = architectures.entry(name), f"table-3-1/{thesis_name(name)}"
        start = (plan.initial()[name] or "random") if name in plan.architectures else "not searched"
        rows.append({"family": paper.texts.get(f"{key}/family", "–"), "architecture": entry.label, "FLOPs, printed": paper.texts.get(f"{key}/flops_printed", "–"), "MACs at 224 px (M)": entry.macs / 1e6,
                     "parameters (M)": entry.parameters / 1e6, "weights in this run": start})  # fmt: skip
    return pd.DataFrame(rows)


def store_architectures(out) -> None:
    """Put the counted multiply-accumulates beside the printed FLOPs."""
    for name in genomes.TABLE_3_1:
        out.value(f"table-3-1/{thesis_name(name)}/flops", architectures.entry(name).macs / 1e6, exact=True)


def split_rule() -> pd.DataFrame:
    """Table 3.2: images a class in the three parts of the published sets, as the released rule makes them from the class counts; key, data set, class, train, valid, test."""
    rows = []
    for role, name in PUBLISHED.items():
        counts = [(path.rsplit("/", 1)[-1], count) for path, count in registry.get(name).counts.items()]
        parts = [(label.lower().replace("_", "-"), *split.three_way_counts(count)) for label, count in counts]
        parts.append(("total", *(sum(part[i] for part in parts) for i in (1, 2, 3))))
        rows += [{"key": f"{role}.{label}", "data set": TITLES[role], "class": label, "train": a, "valid": b, "test": c} for label, a, b, c in parts]
    return pd.DataFrame(rows)


def store_split(out, table: pd.DataFrame) -> None:
    """Put the counts of :func:`split_rule` beside the printed ones; they follow from the publications' class counts alone."""
    for line in table.to_dict("records"):
        for column in ("train", "valid", "test"):
            out.value(f"table-3-2/{line['key']}/{column}", line[column], exact=True)
        if line["class"] == "total":
            out.value(f"table-3-2/{line['key']}/all", line["train"] + line["valid"] + line["test"], exact=True)


def part_table(plan: Plan) -> pd.DataFrame:
    """Images a class of the sets that this run uses: train, valid, test, and test without a near-duplicate in training."""
    rows = []
    for name in dict.fromkeys([plan.convergence, *dict(plan.medical).values()]):
        inputs, parts = gencnn_runs.images_of(plan, name)
        ids, groups = inputs.index["image_id"].to_numpy(), audit.groups(name)
        free = parts["test"][audit.leak_free(registry.index(name), groups, ids[parts["train"]], pd.Series(ids[parts["test"]]))]
        counts = [np.bincount(inputs.labels[r], minlength=len(registry.get(name).classes)) for r in (parts["train"], parts["val"], parts["test"], free)]
        for label, *cells in [*zip(registry.get(name).classes, *counts, strict=True), ("total", *(c.sum() for c in counts))]:
            rows.append({"data set": name, "class": label, **dict(zip(("train", "valid", "test", "test_leak_free"), map(int, cells), strict=True))})
    return pd.DataFrame(rows)


def settings_table(plan: Plan) -> pd.DataFrame:
    """Table 3.4: what the thesis states (or its released code, where it does not) and what this run does."""
    stated, ours = papers.load("gencnn").hyperparameters, plan.settings(plan.generations, plan.individuals, plan.seed)
    genes = {gene.name: gene for gene in plan.genome().genes}
    used = {"generations": plan.generations, "individuals": plan.individuals, "epochs_per_individual": plan.epochs, "image_size": plan.size, "fitness": f"{'validation' if plan.fitness_part == 'val' else 'training'} {plan.fitness}",
            "crossover_probability": ours.crossover, "mutation_probability": ours.mutation, "gene_order": tuple(genes), "lr_scale": (genes["learning_rate"].low, genes["learning_rate"].high),
            "weight_decay": (genes["weight_decay"].low, genes["weight_decay"].high), "code_hpo_batch": plan.batch, "final_epochs": plan.final_epochs, "final_image_size": plan.final_size,
            "final_lr_scheduler": "cosine to a tenth, every step", "code_final_batch_at_448": plan.final_batch}  # fmt: skip
    lines = [(label, _plain(stated[key][0] if key.endswith("image_size") else stated[key]), _plain(used[key]), "released code" if key.startswith("code_") else "thesis") for label, key in SETTINGS]
    lines += [("convergence study: repetitions", _plain(stated["convergence_repetitions"]), _plain(plan.repetitions), "thesis"),
              ("convergence study: generations × individuals", "not stated", f"{plan.convergence_generations} × {plan.convergence_individuals}", "–"),
              ("opponents in the tournament", "1 (code: 2)", str(ours.opponents), "thesis"), ("decay", "on SGD, RMSprop, Adamax; not on Adam", plan.decay_mode, "released code")]
    return pd.DataFrame(lines, columns=["setting", "published", "this run", "published by"])


def _plain(value) -> str:
    return ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value) if isinstance(value, list | tuple) else str(value)


# --- searches -------------------------------------------------------------------------------------------------------------------------------------


def best_table(searches: dict) -> pd.DataFrame:
    """Table 3.5: what each search on a medical set found; one column a set.

    Parameters
    ----------
    searches : dict
        Role -> `kit.gencnn_runs.Found`.
    """
    columns = {}
    for role, found in searches.items():
        first = found.trace[found.trace["fitness"] == found.fitness].iloc[0]
        columns[TITLES[role]] = {**_genes(found), "validation MCC": f"{found.trained['mcc']:.4f}", "optimal generation": str(int(first["generation"]) + 1), "evaluations": str(len(found.trace)),
                                 "of them failed": str(int(found.trace["reason"].notna().sum()))}  # fmt: skip
    return pd.DataFrame(columns).rename_axis("hyperparameter")


def _genes(found: Found) -> dict:
    values = found.values
    return {"architecture": architectures.entry(values["architecture"]).label, "loss": values["loss"].replace("_", " "), "optimizer": values["optimizer"],
            "factor on the learning rate": f"{values['learning_rate']:.4g}", "weight decay": f"{values['weight_decay']:.4g}"}


def outcome_table(found: dict, winners: dict, finals: dict) -> pd.DataFrame:
    """One line a search: best fitness, and test accuracy and MCC of its best individual and of its final training.

    Parameters
    ----------
    found : dict
        Method -> [Found, ...], from :func:`kit.gencnn_runs.convergence`.
    winners, finals : dict
        (method, seed) -> run, from :func:`kit.gencnn_runs.again` and :func:`kit.gencnn_runs.final`; a training that failed is absent.
    """
    rows = []
    for method, searches in found.items():
        for one in searches:
            line = {"method": method, "seed": one.seed, "trainings": len(one.trace), "cost": float(one.trace["cost"].sum()), "failed": int(one.trace["reason"].notna().sum()), "search": one.fitness}
            for name, runs in (("best", winners), ("final", finals)):
                rates = runs[method, one.seed].metrics() if (method, one.seed) in runs else {}
                line |= {f"{name}_{part}_{metric}": rates[part][metric] if rates else np.nan for part in ("val", "test") for metric in ("accuracy", "mcc")}
            rows.append(line)
    return pd.DataFrame(rows)


def convergence_table(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Table 3.3: mean and standard deviation of the test accuracy over repetitions; the quoted rivals as citations, ours at the same budget."""
    paper = papers.load("gencnn")
    rows = [{"algorithm": title, "optimised hyperparameters": paper.texts[f"table-3-3/{row}/hyperparameters"], "runs": "30", "mean": paper.values[f"table-3-3/{row}/mean"].value,
             "SD": paper.values[f"table-3-3/{row}/std"].value, "source": "quoted by the thesis: one AlexNet"} for row, title in QUOTED.items()]
    rows.append({"algorithm": "Gen-CNN, as printed", "optimised hyperparameters": paper.texts["table-3-3/gen-cnn/hyperparameters"], "runs": "30", "mean": paper.values["table-3-3/gen-cnn/mean"].value,
                 "SD": paper.values["table-3-3/gen-cnn/std"].value, "source": "thesis"})
    for method, lines in outcomes.groupby("method", sort=False):
        values = lines["final_test_accuracy"].dropna()
        rows.append({"algorithm": METHODS[method], "optimised hyperparameters": OUR_GENES, "runs": str(len(values)), "mean": values.mean(), "SD": values.std(ddof=1), "source": "this run",
                     "search-best mean": lines["best_test_accuracy"].mean(), "search-best SD": lines["best_test_accuracy"].std(ddof=1), "trainings a search": lines["trainings"].mean(),
                     "cost a search": lines["cost"].mean()})  # fmt: skip
    return pd.DataFrame(rows)


def store_convergence(out, outcomes: pd.DataFrame) -> None:
    """Put mean (with its t interval) and standard deviation of the genetic repetitions beside Table 3.3's."""
    values = outcomes.loc[outcomes["method"] == "genetic", "final_test_accuracy"].dropna()
    if len(values) > 1:
        mean = stats.mean_t(values)
        out.value("table-3-3/gen-cnn/mean", mean.estimate, (mean.low, mean.high))
        out.value("table-3-3/gen-cnn/std", values.std(ddof=1))


def against(outcomes: pd.DataFrame, column: str = "final_test_mcc") -> pd.DataFrame:
    """The genetic search minus each rival, paired by seed: seeds, difference, 95 % t interval, answer."""
    wide = outcomes.pivot(index="seed", columns="method", values=column)
    return pd.DataFrame([_difference(f"{METHODS['genetic']} − {METHODS[m]}", wide["genetic"] - wide[m]) for m in METHODS if m in wide and m != "genetic" and "genetic" in wide], columns=DIFFERENCE)


DIFFERENCE = ["comparison", "seeds", "difference", "low", "high", "answer"]


def _difference(name: str, differences) -> dict:
    differences = pd.Series(differences, dtype=float).dropna()
    if len(differences) < 2:
        return {"comparison": name, "seeds": len(differences), "difference": differences.mean(), "low": np.nan, "high": np.nan, "answer": "fewer than two seeds: no answer"}
    found = stats.mean_t(differences)
    answer = "better, beyond seed noise" if found.low > 0 else "worse, beyond seed noise" if found.high < 0 else "within seed noise"
    return {"comparison": name, "seeds": len(differences), "difference": found.estimate, "low": found.low, "high": found.high, "answer": answer}


def target_table(winners: dict) -> pd.DataFrame:
    """Accuracy and MCC on the test images of what searches for MCC and searches for accuracy found.

    Parameters
    ----------
    winners : dict
        Fitness -> {seed: run}, from :func:`kit.gencnn_runs.again`.
    """
    rows = [{"fitness": fitness, "seed": seed, **{f"{part}_{metric}": run.metrics()[part][metric] for part in ("val", "test") for metric in ("accuracy", "mcc")}} for fitness, runs in winners.items() for seed, run in runs.items()]
    return pd.DataFrame(rows, columns=["fitness", "seed", "val_accuracy", "val_mcc", "test_accuracy", "test_mcc"])


def target_differences(table: pd.DataFrame) -> pd.DataFrame:
    """MCC minus accuracy as fitness, paired by seed, in test MCC and test accuracy."""
    rows = []
    for column, title in (("test_mcc", "test MCC"), ("test_accuracy", "test accuracy")):
        wide = table.pivot(index="seed", columns="fitness", values=column).reindex(columns=["mcc", "accuracy"])
        rows.append(_difference(f"{title}: searched for MCC − searched for accuracy", wide["mcc"] - wide["accuracy"]))
    return pd.DataFrame(rows, columns=DIFFERENCE)


def rank_correlation(x, y) -> stats.Interval | None:
    """Spearman's correlation with a 95 % interval by Bonett and Wright's (2000) standard error of its Fisher transform; None below four pairs or without any spread."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(x) < 4 or len(np.unique(x)) < 2 or len(np.unique(y)) < 2:
        return None
    rho = float(sps.spearmanr(x, y).statistic)
    centre, half = np.arctanh(np.clip(rho, -1 + 1e-12, 1 - 1e-12)), 1.959964 * np.sqrt((1 + rho**2 / 2) / (len(x) - 3))
    return stats.Interval(rho, float(np.tanh(centre - half)), float(np.tanh(centre + half)), 0.95, len(x), "Bonett-Wright")


def fidelity_table(table: pd.DataFrame) -> pd.DataFrame:
    """Rank correlations of the short training's validation MCC with the long one's validation and test MCC; `table` from :func:`kit.gencnn_runs.fidelity`."""
    rows = []
    for column, title in (("final_test_mcc", "test MCC of the long training"), ("final_val_mcc", "validation MCC of the long training")):
        found = rank_correlation(table["fitness"], table[column])
        ends = (found.estimate, found.low, found.high) if found else (np.nan,) * 3
        rows.append({"fitness against": title, "individuals": len(table), "Spearman": ends[0], "low": ends[1], "high": ends[2]})
    return pd.DataFrame(rows)


def remeasured(found: list) -> np.ndarray:
    """Fitness of each elite trained anew, with other random numbers, minus its fitness in the generation before: what a single evaluation's noise is."""
    differences = []
    for one in found:
        history = one.history.set_index(["generation", "individual"])
        for (generation, _), row in history[history["origin"] == "elite"].iterrows():
            before = history.loc[(generation - 1, row["first"])]
            if row["reason"] is None and before["reason"] is None:
                differences.append(row["fitness"] - before["fitness"])
    return np.array(differences)


def gap_table(lines: pd.DataFrame) -> pd.DataFrame:
    """How much of the best fitness is selection: best validation MCC of a search against the test MCC of the same network, and of the final one.

    Parameters
    ----------
    lines : pandas.DataFrame
        One row a search: search (title), search_val, best_test, final_val, final_test (MCC).

    Returns
    -------
    pandas.DataFrame
        One row a search, and where there are several their mean.
    """
    table = lines.assign(**{"search-best − its test": lines["search_val"] - lines["best_test"], "final validation − test": lines["final_val"] - lines["final_test"]})
    names = {"search_val": "best validation MCC", "best_test": "its test MCC", "final_val": "final validation MCC", "final_test": "final test MCC"}
    table = table.rename(columns=names)
    if len(table) > 1:
        table = pd.concat([table, pd.DataFrame([{"search": "mean", **table.drop(columns="search").mean()}])], ignore_index=True)
    return table


def gap_lines(outcomes: pd.DataFrame) -> pd.DataFrame:
    """The genetic searches of an :func:`outcome_table` as :func:`gap_table` takes them; `search_val` is the validation MCC also where accuracy was the fitness."""
    own = outcomes[outcomes["method"] == "genetic"]
    return pd.DataFrame({"search": [f"seed {s}" for s in own["seed"]], "search_val": own["best_val_mcc"], "best_test": own["best_test_mcc"], "final_val": own["final_val_mcc"], "final_test": own["final_test_mcc"]})


# --- test images ------------------------------------------------------------------------------------------------------------------------------------


def tested(run: record.Run) -> pd.DataFrame:
    """Predictions of the test images."""
    table = run.predictions()
    return table[table["part"] == "test"].reset_index(drop=True)


def interval(predictions: pd.DataFrame, metric: str, resamples: int = 1000) -> stats.Interval | None:
    """One of `METRICS` as a fraction with its 95 % interval; None without images."""
    if len(predictions) == 0:
        return None
    if metric == "accuracy":
        return stats.wilson(int(metrics.correct(predictions).sum()), len(predictions))
    return stats.bootstrap(predictions, METRICS[metric], resamples)


def result_table(results: dict, resamples: int = 1000) -> pd.DataFrame:
    """Rates of several results on all test images and on the leak-free ones, long: row, metric, value, low, high, n and the same with the prefix leak_free.

    Parameters
    ----------
    results : dict
        Row -> (predictions, registered data set, ids of the training images).
    """
    rows = []
    for row, (predictions, name, train_ids) in results.items():
        clean = evaluate.leak_free(predictions, name, train_ids)
        for metric in METRICS:
            rows.append({"row": row, "metric": metric, **evaluate.columns(interval(predictions, metric, resamples), ""), **evaluate.columns(interval(clean, metric, resamples), "leak_free")})
    return pd.DataFrame(rows)


def comparison(role: str, lines: pd.DataFrame, architecture: str) -> pd.DataFrame:
    """Table 3.6, 3.7 or 3.8: the literature and the thesis' own row as citations, then ours with intervals.

    Parameters
    ----------
    lines : pandas.DataFrame
        The rows of :func:`result_table` for this data set; empty if the training failed.
    architecture : str
        Of the final network.
    """
    paper, artefact = papers.load("gencnn"), COMPARISONS[role]
    keys = [key.split("/")[1] for key in paper.texts if key.startswith(f"{artefact}/") and key.endswith("/model")]
    rows = []
    for key in keys:
        cells = {c: paper.values[f"{artefact}/{key}/{c}"].value if f"{artefact}/{key}/{c}" in paper.values else np.nan for c in ("flops", "accuracy", "f1", "mcc")}
        rows.append({"reference": "Gen-CNN, as printed" if key == "gen-cnn" else key.rsplit("-", 1)[0].title() + f" {key.rsplit('-', 1)[1]}", "approach": paper.texts[f"{artefact}/{key}/model"],
                     "GFLOPs": cells["flops"], **{c: cells[c] for c in ("accuracy", "f1", "mcc")}, "source": "thesis" if key == "gen-cnn" else "quoted by the thesis"})  # fmt: skip
    if len(lines):
        by, entry = lines.set_index("metric"), architectures.entry(architecture)
        rows.append({"reference": "Gen-CNN, this run", "approach": entry.label, "GFLOPs": entry.macs / 1e9, **{c: by.loc[c, "value"] for c in ("accuracy", "f1", "mcc")}, "source": "this run",
                     "accuracy 95 %": _ends(by.loc["accuracy"], ""), "MCC 95 %": _ends(by.loc["mcc"], ""), "accuracy, leak-free": by.loc["accuracy", "leak_free"], "MCC, leak-free": by.loc["mcc", "leak_free"],
                     "leak-free n": str(int(by.loc["accuracy", "leak_free_n"])), "mean F1 of the classes": by.loc["f1_mean", "value"]})  # fmt: skip
    return pd.DataFrame(rows)


def _ends(line, prefix: str) -> str:
    return f"{line[prefix + 'low']:.3f} to {line[prefix + 'high']:.3f}" if np.isfinite(line[prefix + "low"]) else "–"


def store_comparison(out, role: str, lines: pd.DataFrame, architecture: str) -> None:
    """Put accuracy, F1, MCC and FLOPs of the final network beside the printed ones."""
    chosen = lines[lines["metric"].isin(["accuracy", "f1", "mcc"])].assign(row="gen-cnn")
    evaluate.store({"gen-cnn": out}, COMPARISONS[role], chosen)
    if len(chosen):
        out.value(f"{COMPARISONS[role]}/gen-cnn/flops", architectures.entry(architecture).macs / 1e9)


def show_role(plan: Plan, out, role: str, results: pd.DataFrame, found: Found | None, run: record.Run | None) -> None:
    """A medical set's comparison with the literature and its confusion matrix; both failed if search or final training did."""
    if run is None:
        for artefact in (COMPARISONS[role], MATRICES[role]):
            out.failed(artefact, "the search found nothing" if found is None else "the final training failed")
        return
    lines, architecture = results[results["row"] == role], found.values["architecture"]
    store_comparison(out, role, lines, architecture)
    out.table(COMPARISONS[role], comparison(role, lines, architecture), "MACs of this run at 224 px; intervals: Wilson, bootstrap over duplicate groups.", decimals=4)
    out.figure(MATRICES[role], plots.confusion_matrix(matrix(tested(run)), registry.get(dict(plan.medical)[role]).display))


def matrix(predictions: pd.DataFrame) -> np.ndarray:
    """Confusion matrix, rows = true."""
    labels, scores = metrics.labels_and_scores(predictions)
    return metrics.confusion(labels, scores.argmax(1), scores.shape[1])


def threshold_table(results: pd.DataFrame, limit: float = 0.85) -> pd.DataFrame:
    """Recall and specificity beside the value that the thesis calls the industry's standard."""
    rows = []
    for row, cells in results.groupby("row", sort=False):
        by = cells.set_index("metric")
        met = {True: "yes", False: "no"}[bool(by.loc["recall", "value"] >= limit and by.loc["specificity", "value"] >= limit)]
        rows.append({"data set": TITLES[row], "macro recall": by.loc["recall", "value"], "95 %": _ends(by.loc["recall"], ""), "macro specificity": by.loc["specificity", "value"], f"both at least {limit}": met})
    return pd.DataFrame(rows)


def cost_table(outcomes: dict, runs: dict) -> pd.DataFrame:
    """Seconds of searches and final trainings, and the device. Times differ from run to run, so they stand outside the tables.

    Parameters
    ----------
    outcomes : dict
        Title -> Found.
    runs : dict
        Title -> run of the final training.
    """
    rows = []
    for title, found in outcomes.items():
        run = runs.get(title)
        rows.append({"search": title, "evaluations": len(found.trace), "search (s)": float(pd.to_numeric(found.trace["seconds"]).sum()), "final training (s)": float(run.history()["seconds"].sum()) if run else np.nan,
                     "device": record.read_json(run.folder / "environment.json")["device"] if run else "–"})  # fmt: skip
    return pd.DataFrame(rows)


# --- answers ------------------------------------------------------------------------------------------------------------------------------------------


def verdict(rival_differences: pd.DataFrame, target: pd.DataFrame, fidelity: pd.DataFrame, gaps: pd.DataFrame, noise: np.ndarray) -> list[str]:
    """The four answers, computed, one sentence each."""
    decided = rival_differences[rival_differences["low"].notna()]
    better = int((decided["answer"] == "better, beyond seed noise").sum())
    said = [f"The genetic search beats {better} of {len(decided)} rivals beyond seed noise in test MCC at this budget." if len(decided) else "Whether the genetic search beats its rivals cannot be said: fewer than two seeds were run."]
    first = target[target["low"].notna()].head(1).to_dict("records")
    said += [f"MCC instead of accuracy as fitness changes test MCC by {first[0]['difference']:+.3f} ({first[0]['low']:+.3f} to {first[0]['high']:+.3f}, {first[0]['seeds']} seeds): {first[0]['answer']}." if first
             else "Whether MCC as fitness beats accuracy cannot be said: fewer than two pairs of searches were run."]
    rho = fidelity.iloc[0] if len(fidelity) else None
    said += [f"The short training ranks {int(rho['individuals'])} individuals as the long one does with Spearman's rho {rho['Spearman']:.2f} ({rho['low']:.2f} to {rho['high']:.2f})." if rho is not None and np.isfinite(rho["Spearman"])
             else "Whether short trainings rank as long ones do cannot be said: too few individuals got a long training, or they do not differ."]
    mean, spread = gaps["search-best − its test"].iloc[-1] if len(gaps) else np.nan, noise.std() / np.sqrt(2) if len(noise) else np.nan
    said += [f"A search's best validation MCC stands {mean:+.3f} above the test MCC of the same network" + (f"; an elite trained anew differs with a standard deviation of {spread:.3f} an evaluation." if np.isfinite(spread) else ".")] * bool(np.isfinite(mean))
    return said
