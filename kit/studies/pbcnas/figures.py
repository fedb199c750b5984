"""The figures of PBC-NAS in 3D, each from tables and arrays alone.

No figure of the article is public; these are the ones that its claims call for.
Every accuracy says of which images it is: the search knows the validation part of its proxy
training only, of 24 to 47 volumes, and the figures keep that apart from the test results. Cells are
drawn by :mod:`kit.search.nas3d.drawing`, slices and heat maps by :mod:`kit.report.slices`, final
trainings by :mod:`kit.studies.pbcnas.finals`; the functions of the latter two are reachable from
here.
"""

import textwrap
from collections import Counter

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import EngFormatter, FixedLocator, LogLocator, MaxNLocator, NullFormatter
from scipy import stats as sps

from kit.report.slices import montage, slices
from kit.report.style import (
    BLACK,
    BLUE,
    DARK,
    GREEN,
    LINES,
    MARKERS,
    VERMILION,
    Figure,
    letter,
    new_figure,
    require,
    style,
)
from kit.search.evolution.opposition_log import JUMP
from kit.search.nas3d import drawing
from kit.search.nas3d.space import OPERATIONS, PAPER
from kit.studies.pbcnas.finals import Outcome, outcomes, training_curves, wrapped

__all__ = [
    "Outcome",
    "convergence",
    "fidelity",
    "frequencies",
    "montage",
    "outcomes",
    "slices",
    "trade_off",
    "trained",
    "training_curves",
    "transfer",
]

WINDOW = 20  # models in the running mean: a population
PROXY = "Validation accuracy, proxy training (%)"
KINDS = {"found": (BLUE, "found"), "released": (GREEN, "released"), "ResNet": (VERMILION, "ResNet")}
SIZES = (("parameters", "Parameters"), ("macs", "Multiply-adds a volume"))


# --- the search -----------------------------------------------------------------------------------


def trained(history: pd.DataFrame) -> pd.DataFrame:
    """What a search had after each model it trained with success.

    Parameters
    ----------
    history : pandas.DataFrame
        Of :meth:`kit.search.evolution.opposition.ODE.history`.

    Returns
    -------
    pandas.DataFrame
        models (from 1), generation, best (fitness so far), mean (of the last 20 models; from the
        fifth on, else nan).
    """
    rows = history[
        history["evaluation"].notna() & history["fitness"].notna() & ~history["failed"].astype(bool)
    ].sort_values("evaluation")
    fitness = rows["fitness"].astype(float)
    return pd.DataFrame(
        {
            "models": np.arange(1, len(rows) + 1),
            "generation": rows["generation"].to_numpy(),
            "best": fitness.cummax().to_numpy(),
            "mean": fitness.rolling(WINDOW, min_periods=5).mean().to_numpy(),
        }
    )


def jumps(history: pd.DataFrame) -> list:
    """Models trained before each generation's jump began."""
    ready = (
        history["evaluation"].notna() & history["fitness"].notna() & ~history["failed"].astype(bool)
    )
    before = ready.cumsum() - ready
    return before[history["phase"] == JUMP].groupby(history["generation"]).first().tolist()


@style()
def convergence(panels: dict) -> Figure:
    """Best and mean fitness against the models trained, median and range over the seeds; triangles
    mark generations with a jump (Figure 1).

    Parameters
    ----------
    panels : dict
        Title of a panel -> {method: list, one a seed, of histories (see
        :meth:`kit.search.evolution.opposition.ODE.history`)}; panels without a trained model stay
        out.
    """
    panels = {
        title: {
            name: [one for one in seeds if len(trained(one))] for name, seeds in methods.items()
        }
        for title, methods in panels.items()
    }
    panels = {title: methods for title, methods in panels.items() if any(methods.values())}
    require(panels, "The convergence of searches needs one history with one trained model.")
    names = list(
        dict.fromkeys(
            name for methods in panels.values() for name, seeds in methods.items() if seeds
        )
    )
    columns = min(3, len(panels))
    fig = new_figure(max(5.6, 3.3 * columns), 0.8 + 2.7 * -(-len(panels) // columns))
    for k, (title, methods) in enumerate(panels.items()):
        ax = fig.add_subplot(-(-len(panels) // columns), columns, k + 1)
        for number, name in enumerate(names):
            if methods.get(name):
                _search(ax, methods[name], number, len(names))
        seeds = sorted({len(histories) for histories in methods.values() if histories})
        many = f" ({'–'.join(map(str, seeds))} searches each)" if seeds[-1] > 1 else ""
        ax.set(
            title=letter(k, len(panels) > 1) + wrapped(title + many, 2.7 if columns > 1 else 4.6),
            xlabel="Models trained",
            ylabel="" if k % columns else PROXY,
        )
        low, high = ax.get_ylim()
        ax.set_ylim(low - (0.05 + 0.05 * len(names)) * (high - low), high)  # room for the triangles
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.grid(True)
    handles = [
        Line2D([], [], color=DARK[n % 7], ls=LINES[n % 4], marker=MARKERS[n % 8], ms=4, label=name)
        for n, name in enumerate(names)
    ]
    handles += [
        Line2D([], [], color=BLACK, lw=2, label="best so far"),
        Line2D([], [], color=BLACK, lw=0.9, label=f"mean of the last {WINDOW}"),
        Line2D([], [], color=BLACK, marker="^", ls="none", mfc="w", label="jump to the opposites"),
    ]
    if any(len(seeds) > 1 for methods in panels.values() for seeds in methods.values()):
        handles.append(Patch(fc="0.85", label="range of the best"))
    fig.legend(
        handles=handles, loc="outside upper center", ncols=3 if columns < 3 else 4, handlelength=3
    )
    return fig


def _search(ax, histories: list, number: int, methods: int) -> None:
    """One method: thick the best, thin the mean, a band for the range over seeds, triangles for
    jumps at the foot.
    """
    tables, look = (
        [trained(history) for history in histories],
        {"color": DARK[number % 7], "ls": LINES[number % 4]},
    )
    length = max(map(len, tables))
    best = 100 * np.array(
        [np.pad(table["best"], (0, length - len(table)), "edge") for table in tables]
    )
    mean = 100 * np.array(
        [
            np.pad(table["mean"], (0, length - len(table)), constant_values=np.nan)
            for table in tables
        ]
    )
    x, every = np.arange(1, length + 1), max(1, length // 5)
    ax.plot(
        x,
        np.median(best, 0),
        lw=2,
        drawstyle="steps-post",
        marker=MARKERS[number % 8],
        ms=4.5,
        markevery=(number * every // max(methods, 1), every),
        **look,
    )
    shown = ~np.isnan(mean).all(0)
    ax.plot(x[shown], np.nanmedian(mean[:, shown], 0), lw=0.9, **look)
    if len(tables) > 1:
        ax.fill_between(
            x, best.min(0), best.max(0), color=look["color"], alpha=0.15, lw=0, step="post"
        )
    places = [place for history in histories for place in jumps(history)]
    ax.plot(
        places,
        [0.03 + 0.045 * number] * len(places),
        "^",
        ms=5,
        mfc="w",
        mec=look["color"],
        mew=1.2,
        transform=ax.get_xaxis_transform(),
        gid="jumps",
    )


@style()
def trade_off(
    table: pd.DataFrame, candidates: str = "candidates (validation accuracy, proxy training)"
) -> Figure:
    """Accuracy against parameters and multiply-adds of all candidates, with the found networks and
    the baselines (Figure 3).

    Parameters
    ----------
    table : pandas.DataFrame
        One row a network: title, kind ("candidate", "found", "released" or "ResNet"), accuracy (%),
        parameters, macs (multiply-adds); optional low and high (%) of its interval, and data: then
        one row of panels a data set.
    candidates : str
        What the legend calls the candidates; all others are said to be test accuracies.
    """
    require(len(table), "The trade-off needs at least one network.")
    unknown = set(table["kind"]) - {"candidate", *KINDS}
    require(
        not unknown,
        f"The trade-off knows no kind {', '.join(sorted(unknown))}; use candidate, "
        f"{', '.join(KINDS)}.",
    )
    named = table[table["kind"] != "candidate"].drop_duplicates(["kind", "title"])
    looks = {
        (kind, title): (KINDS[kind][0], MARKERS[n % 8])
        for kind in KINDS
        for n, title in enumerate(named.loc[named["kind"] == kind, "title"])
    }
    rows = [(None, table)] if "data" not in table else list(table.groupby("data", sort=False))
    lines = -(-(len(looks) + 1) // 3)
    fig = new_figure(8.2, 0.3 + 0.2 * lines + (2.9 if len(rows) < 3 else 2.0) * len(rows))
    axes = fig.subplots(len(rows), 2, squeeze=False, sharey="row", sharex="col")
    for row, (title, part) in enumerate(rows):
        for ax, (column, label) in zip(axes[row], SIZES, strict=True):
            _cloud(ax, part, column, looks)
            ax.set_xlabel(f"{label} (log scale)" if row == len(rows) - 1 else "")
        axes[row, 0].set_ylabel("Accuracy (%)")
        if title is not None:
            axes[row, 0].set_title(f"{letter(row, len(rows) > 1)}{title}", loc="left")
    handles = (
        [Line2D([], [], color="0.6", marker=".", ls="none", label=candidates)]
        if (table["kind"] == "candidate").any()
        else []
    )
    handles += [
        Line2D(
            [],
            [],
            color=colour,
            marker=marker,
            mec="k",
            mew=0.6,
            ms=7,
            ls="none",
            label=f"{title} (test)",
        )
        for (_, title), (colour, marker) in looks.items()
    ]
    fig.legend(handles=handles, loc="outside upper center", ncols=min(3, len(handles)))
    return fig


def _cloud(ax, table, column: str, looks: dict) -> None:
    cloud = table[table["kind"] == "candidate"]
    ax.plot(cloud[column], cloud["accuracy"], ".", color="0.6", ms=5, zorder=1)
    for row in table[table["kind"] != "candidate"].to_dict("records"):
        colour, marker = looks[row["kind"], row["title"]]
        low, high = (row.get(side, np.nan) for side in ("low", "high"))
        if np.isfinite([low, high]).all():
            ax.plot([row[column]] * 2, [low, high], color=colour, lw=1.2, zorder=2)
        ax.plot(
            row[column], row["accuracy"], marker, color=colour, mec="k", mew=0.6, ms=7, zorder=3
        )
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(
        LogLocator(subs=(1.0,))
        if np.ptp(np.log10(table[column].astype(float))) > 1
        else LogLocator(subs=(1.0, 2.0, 5.0))
    )
    ax.xaxis.set_major_formatter(EngFormatter(sep=" "))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(True)


@style()
def frequencies(panels: dict, space=PAPER) -> Figure:
    """How often the best candidates have each operation, kernel, width and number, beside the share
    expected at random (Figure 4).

    Parameters
    ----------
    panels : dict
        Title -> networks (:class:`kit.search.nas3d.space.Network3D`); empty panels stay out.
    space : kit.search.nas3d.space.Space
        What was searched; its choices are equally likely at random, before and after pruning.
    """
    panels = {title: networks for title, networks in panels.items() if networks}
    require(panels, "Frequencies need at least one network.")
    groups = _groups(space)
    rows = sum(len(choices) for choices, _ in groups)
    fig = new_figure(
        2.1 + max(2.6, min(2.6, 9.6 / len(panels)) * len(panels)), 1.0 + 0.19 * (rows + len(groups))
    )
    axes = fig.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    places, labels = [], []
    for k, (ax, (title, networks)) in enumerate(zip(axes, panels.items(), strict=True)):
        y = 0.0
        for choices, pick in groups:
            counts = Counter(value for network in networks for value in pick(network))
            at = y + np.arange(len(choices))
            ax.barh(
                at,
                [100 * counts[value] / max(1, counts.total()) for value, _, _ in choices],
                0.72,
                color=BLUE,
                alpha=0.75,
            )
            ax.plot(
                [100 * share for _, _, share in choices],
                at,
                "|",
                ms=9,
                mew=1.8,
                color=BLACK,
                label="expected at random" if not y else None,
            )
            if not k:
                places, labels = [*places, *at], [*labels, *(words for _, words, _ in choices)]
            y = at[-1] + 2
        ax.set(
            xlim=(0, 100),
            xlabel="Share (%)",
            title=f"{wrapped(title, 1.35 if len(panels) > 1 else 2.6)}\n({len(networks)} "
            f"network{'s'[: len(networks) > 1]})",
        )
        ax.xaxis.set_major_locator(FixedLocator([0, 50, 100]))
        ax.tick_params(axis="y", length=0)
        ax.grid(True, axis="x")
    axes[0].set_yticks(places, labels)
    axes[0].set_ylim(max(places) + 0.7, -0.7)
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center")
    return fig


def _groups(space) -> list:
    """Choices as (value, words, share at random), and what a network has of them."""
    operations, kernels = (
        Counter(space.operations),
        Counter(OPERATIONS[index].kernel for index in space.operations),
    )
    total, groups = len(space.operations), []
    groups.append(
        (
            [(index, drawing.label(index), n / total) for index, n in sorted(operations.items())],
            lambda network: network.operations,
        )
    )
    groups.append(
        (
            [
                (kernel, f"kernel {'×'.join([str(kernel)] * 3)}", n / total)
                for kernel, n in sorted(kernels.items())
            ],
            lambda network: [OPERATIONS[index].kernel for index in network.operations],
        )
    )
    for name, words in (
        ("filters", "first width {}"),
        ("cells", "{} cell{s} a stack"),
        ("stacks", "{} stack{s}"),
    ):
        counts = Counter(getattr(space, name))
        choices = [
            (value, words.format(value, s="s"[: value > 1]), n / len(getattr(space, name)))
            for value, n in sorted(counts.items())
        ]
        groups.append((choices, lambda network, name=name: [getattr(network, name)]))
    return groups


@style()
def fidelity(table: pd.DataFrame) -> Figure:
    """Fitness of the proxy training against test results of the same candidates trained in full,
    with rank correlations.

    Parameters
    ----------
    table : pandas.DataFrame
        One row a candidate: fitness (fraction), and accuracy (fraction) and/or auc of the test
        images; optional data, whose sets differ in colour and marker and are correlated one by one.
    """
    measures = [
        (name, words, factor)
        for name, words, factor in (("accuracy", "Test accuracy (%)", 100), ("auc", "Test AUC", 1))
        if name in table and table[name].notna().any()
    ]
    require(
        len(table) and measures,
        "Proxy fidelity needs one candidate with its fitness and its test accuracy or AUC.",
    )
    groups = list(table.groupby("data", sort=False)) if "data" in table else [(None, table)]
    fig = new_figure(max(4.6, 4.3 * len(measures)), 3.6 + 0.22 * len(groups) * (len(groups) > 1))
    for k, (name, words, factor) in enumerate(measures):
        ax = fig.add_subplot(1, len(measures), k + 1)
        for number, (data, part) in enumerate(groups):
            part = part[part[name].notna() & part["fitness"].notna()]
            label = (
                f"{data}: {rank_correlation(part['fitness'], part[name])}"
                if len(groups) > 1
                else None
            )
            ax.plot(
                100 * part["fitness"],
                factor * part[name],
                MARKERS[number % 8],
                color=DARK[number % 7],
                mec="w",
                mew=0.5,
                ms=6.5,
                alpha=0.85,
                label=label,
            )
        whole = table[table[name].notna() & table["fitness"].notna()]
        title = (
            words.split(" (")[0]
            if len(groups) > 1
            else rank_correlation(whole["fitness"], whole[name])
        )
        ax.set(title=f"{letter(k, len(measures) > 1)}{title}", xlabel=PROXY, ylabel=words)
        ax.grid(True)
        if len(groups) > 1:
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), fontsize=7.5)
    return fig


def rank_correlation(a, b) -> str:
    """Spearman's and Kendall's coefficients in words, ties averaged; undefined where one side does
    not vary.
    """
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return f"rank correlation undefined (n = {len(a)})"
    return (
        f"Spearman {sps.spearmanr(a, b).statistic:.2f}, Kendall "
        f"{sps.kendalltau(a, b).statistic:.2f} (n = {len(a)})"
    )


@style()
def transfer(tables: dict) -> Figure:
    """Results of networks found on one data set (rows) and fine-tuned on another (columns), a panel
    a measure.

    Parameters
    ----------
    tables : dict
        What is shown with its unit, such as "AUC" -> table (source x target), nan where nothing was
        run. Cells whose row and column share their name are framed: found on this set.
    """
    require(
        tables and all(table.size and table.notna().to_numpy().any() for table in tables.values()),
        "A transfer matrix needs at least one source, one target and one value.",
    )
    rows, columns = (max(table.shape[axis] for table in tables.values()) for axis in (0, 1))
    fig = new_figure(max(4.2, len(tables) * (2.2 + 0.62 * columns)), max(2.6, 1.5 + 0.46 * rows))
    for number, (title, table) in enumerate(tables.items()):
        ax, values = fig.add_subplot(1, len(tables), number + 1), table.to_numpy(float)
        image = ax.imshow(values, cmap="cividis", aspect="auto")
        fig.colorbar(image, ax=ax, shrink=0.9)
        decimals = 3 if np.nanmax(np.abs(values)) <= 1 else 1
        for (row, column), value in np.ndenumerate(values):
            bright = np.isnan(value) or image.norm(value) > 0.55
            ax.text(
                column,
                row,
                "–" if np.isnan(value) else f"{value:.{decimals}f}",
                ha="center",
                va="center",
                fontsize=8,
                color="k" if bright else "w",
            )
            if table.index[row] == table.columns[column]:
                ax.add_patch(
                    Rectangle(
                        (column - 0.46, row - 0.46), 0.92, 0.92, fc="none", ec=VERMILION, lw=2
                    )
                )
        ax.set_xticks(
            range(table.shape[1]),
            [str(name) for name in table.columns],
            rotation=40,
            ha="right",
            rotation_mode="anchor",
        )
        ax.set_yticks(
            range(table.shape[0]), ["\n".join(textwrap.wrap(str(name), 24)) for name in table.index]
        )
        ax.set(
            title=f"{letter(number, len(tables) > 1)}{wrapped(title, max(2.4, 0.62 * columns))}",
            xlabel="Target (framed: searched on this set)",
            ylabel="Source of the network",
        )
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    return fig
