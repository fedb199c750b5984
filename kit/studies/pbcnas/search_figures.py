"""The figures of PBC-NAS in 3D that show the search itself: its convergence, and the operations
that it keeps.
"""

from collections import Counter

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, MaxNLocator

from kit.report.style import (
    BLACK,
    BLUE,
    DARK,
    LINES,
    MARKERS,
    Figure,
    letter,
    new_figure,
    require,
    style,
)
from kit.search.evolution.opposition_log import JUMP
from kit.search.nas3d import drawing
from kit.search.nas3d.space import OPERATIONS, PAPER, Space
from kit.studies.pbcnas.finals import wrapped

WINDOW = 20  # models in the running mean: a population


PROXY = "Validation accuracy, proxy training (%)"


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
def frequencies(panels: dict, space: Space = PAPER) -> Figure:
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
