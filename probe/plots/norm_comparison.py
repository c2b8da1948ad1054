"""Trainings with several norms side by side: accuracy with every seed, curves, cost.

Tables: `cells`, one row per norm and seed; `comparison`, one row per norm; `epochs`, one row per
norm, seed and epoch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from probe.plots import by_epoch, layout, names, style
from probe.plots.by_epoch import numbers

ROW = 0.23  # inches of a norm in the figure of accuracies
NAME = 24  # characters of a label
MARKERS = "osD^vP*Xph"
# one of each hue, so that neighbours differ: Okabe and Ito's, then greys and browns
COLOURS = (*style.HIGHLIGHTS, "#8a5a00", "#7b3294", "#7f7f7f")


def colours(norms: Sequence[str]) -> dict[str, str]:
    """A colour for each norm, the same in every figure of a comparison."""
    return {norm: COLOURS[place % len(COLOURS)] for place, norm in enumerate(norms)}


def accuracy_by_norm(
    cells: pd.DataFrame, comparison: pd.DataFrame, *, frame: layout.Frame | None = None
) -> Figure:
    """Left: top-1 of every seed as a dot, its mean as a bar. Right: paired difference to the
    reference with its 95 % interval; dashed: no difference.
    """
    labels = [str(norm) for norm in comparison["norm"]]
    with style.theme():
        room = layout.Room(
            left=0.15 + _width(labels), right=0.12, gap_x=0.25, title=0.05, bottom=0.42
        )
        height = max(0.9, ROW * len(labels) + 0.1)
        figure, axes, top = layout.grid(2, 2, height, room=room, frame=frame)
        accuracies(cells, comparison, axes[0])
        differences(comparison, axes[1])
        axes[1].set_yticklabels([])
        layout.put_legend(figure, _legend(), top)
    return figure


def accuracies(cells: pd.DataFrame, comparison: pd.DataFrame, ax: Axes) -> Axes:
    """Top-1 of each cell, seeds a little apart; norms downwards; what failed says so."""
    labels = [str(norm) for norm in comparison["norm"]]
    seeds = sorted(set(cells["seed"]))
    finished = cells[cells["status"] == "finished"]
    tone = colours(labels)
    for row, norm in enumerate(labels):
        mine = finished[finished["norm"] == norm]
        places = [row + _aside(seeds.index(seed), len(seeds)) for seed in mine["seed"]]
        ax.plot(numbers(mine, "top1"), places, ls="", marker="o", ms=3.6, color=tone[norm],
                mec="white", mew=0.4, zorder=3, gid=f"seeds {norm}")  # fmt: skip
        mean = numbers(comparison, "top1_mean")[row]
        if np.isfinite(mean):
            ax.plot([mean, mean], [row - 0.36, row + 0.36], color=tone[norm], lw=1.6, zorder=2,
                    gid=f"mean {norm}")  # fmt: skip
        else:
            ax.text(0.02, row, "failed", transform=ax.get_yaxis_transform(), va="center",
                    size=style.SMALL, color=style.WARNING, gid="failed")  # fmt: skip
    _norm_axis(ax, labels)
    ax.set_xlabel("Top-1 after the last epoch (%)", size=style.TEXT)
    return ax


def differences(comparison: pd.DataFrame, ax: Axes) -> Axes:
    """Paired differences to the reference; hollow where one pair gives no interval."""
    labels = [str(norm) for norm in comparison["norm"]]
    tone = colours(labels)
    for row, (norm, each) in enumerate(zip(labels, comparison.to_dict("records"), strict=True)):
        middle, low, high = (
            float(each[name]) for name in ("difference", "difference_low", "difference_high")
        )
        if np.isfinite(low):
            ax.plot([low, high], [row, row], color=tone[norm], lw=1.2, solid_capstyle="butt",
                    gid=f"interval {norm}")  # fmt: skip
        if np.isfinite(middle):
            face = tone[norm] if np.isfinite(low) else "white"
            ax.plot([middle], [row], marker="D", ms=4, color=tone[norm], mfc=face, ls="",
                    gid=f"difference {norm}")  # fmt: skip
    ax.axvline(0, color=style.MUTED, lw=0.8, ls=(0, (4, 2)), zorder=0.5, gid="none")
    ax.margins(x=0.08)
    _norm_axis(ax, labels)
    _name_reference(ax, labels, str(comparison["reference"].iloc[0]))
    reference = _short(labels).get(str(comparison["reference"].iloc[0]), "the reference")
    ax.set_xlabel(f"Difference to {names.as_drawn(reference)} (points)", size=style.TEXT)
    return ax


def _name_reference(ax: Axes, labels: Sequence[str], reference: str) -> None:
    """Beside the dashed line, on the side where there is more room."""
    if reference not in labels:
        return
    low, high = ax.get_xlim()
    right = high > -low
    ax.annotate(
        "reference",
        (0, labels.index(reference)),
        (4 if right else -4, 0),
        textcoords="offset points",
        va="center",
        ha="left" if right else "right",
        size=style.SMALL,
        color=style.MUTED,
        gid="reference",
    )


def _aside(place: int, count: int) -> float:
    return 0.0 if count == 1 else 0.3 * (2 * place / (count - 1) - 1)


def _norm_axis(ax: Axes, labels: Sequence[str]) -> None:
    short = _short(labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.set_yticks(range(len(labels)), [names.as_drawn(short[name]) for name in labels])
    ax.tick_params(labelsize=style.SMALL)
    ax.grid(axis="y", color=style.FAINT, lw=0.4, zorder=0)
    ax.locator_params(axis="x", nbins=6)


def _short(labels: Sequence[str]) -> dict[str, str]:
    return {name: name if len(name) <= NAME else f"{name[: NAME - 1]}\u2026" for name in labels}


def _width(labels: Sequence[str]) -> float:
    """Inches that the longest name takes, and a little room."""
    return 0.1 + 0.066 * max(len(name) for name in _short(labels).values())


def _legend() -> list[Line2D]:
    muted = style.MUTED
    return [
        Line2D([], [], ls="", marker="o", ms=3.6, color=muted, label="a seed"),
        Line2D([], [], ls="", marker="|", ms=8, mew=1.6, color=muted, label="mean over seeds"),
        Line2D([], [], marker="D", ms=4, lw=1.2, color=muted, label="mean of the paired "
               "differences, 95 % interval"),
    ]  # fmt: skip


def comparison_curves(
    epochs: pd.DataFrame, labels: Sequence[str], *, frame: layout.Frame | None = None
) -> Figure:
    """Training loss and validation accuracy by epoch: a thin line per seed, a thick one for their
    mean, named at its end.
    """
    with style.theme():
        room = layout.Room(
            left=0.6, right=0.32 + _width(labels), gap_x=0.6, title=0.08, bottom=0.42
        )
        figure, axes, _ = layout.grid(2, 2, 2.6, room=room, frame=frame, legend_lines=0)
        curves(epochs, labels, axes[0], "train_loss", "Training loss")
        curves(epochs, labels, axes[1], "top1", "Validation top-1 (%)")
        _name_curves(epochs, labels, axes[1], "top1")
    return figure


def curves(epochs: pd.DataFrame, labels: Sequence[str], ax: Axes, column: str, title: str) -> Axes:
    """One column of every seed, and its mean over the seeds that have it."""
    tone = colours(labels)
    for norm in labels:
        mine = epochs[(epochs["norm"] == norm) & np.isfinite(numbers(epochs, column))]
        for _, rows in mine.groupby("seed"):
            ax.plot(rows["epoch"], rows[column], color=tone[norm], lw=0.5, alpha=0.45, gid="seed")
        mean = mine.groupby("epoch")[column].mean()
        ax.plot(mean.index, mean, color=tone[norm], lw=1.4, gid=f"mean {norm}")
    seen = epochs[np.isfinite(numbers(epochs, column))]
    by_epoch.epoch_axis(ax, sorted(set(seen["epoch"].astype(float))))
    ax.set_ylabel(title, size=style.TEXT)
    ax.tick_params(labelsize=style.SMALL)
    return ax


def _name_curves(epochs: pd.DataFrame, labels: Sequence[str], ax: Axes, column: str) -> None:
    """The norms at the right end of their means, apart from each other."""
    seen = epochs[np.isfinite(numbers(epochs, column))]
    means = seen.groupby(["norm", "epoch"])[column].mean()
    ends = {norm: float(means[norm].iloc[-1]) for norm in labels if norm in means.index}
    tone, short = colours(labels), _short(labels)
    low, high = ax.get_ylim()
    inches = ax.get_position().height * ax.figure.get_size_inches()[1]  # type: ignore[union-attr]
    heights = [(value - low) / (high - low) for value in ends.values()]
    placed = layout.spread(heights, 0.13 / inches, 0.02, 0.98)
    for norm, at, to in zip(ends, heights, placed, strict=True):
        ax.annotate(
            names.as_drawn(short[norm]), (1, at), (1.09, to), xycoords="axes fraction",
            textcoords="axes fraction", size=style.SMALL, color=tone[norm], va="center",
            arrowprops={"arrowstyle": "-", "relpos": (0, 0.5), "lw": 0.4, "color": style.MUTED,
                        "shrinkA": 1, "shrinkB": 0},
            gid="name",
        )  # fmt: skip


COSTS = {
    "seconds_per_epoch": "Seconds per epoch of training",
    "forward_ms": "Milliseconds of a forward pass of {batch} images",
}


def cost_against_accuracy(
    comparison: pd.DataFrame, *, batch: int = 32, frame: layout.Frame | None = None
) -> Figure:
    """Mean top-1, a standard deviation over seeds to either side, against the time of training and
    of a forward pass; both axes of time from 0.
    """
    shown = comparison[np.isfinite(numbers(comparison, "top1_mean"))]
    there = [name for name in COSTS if np.isfinite(numbers(shown, name)).any()]
    labels = [str(norm) for norm in comparison["norm"]]
    with style.theme():
        room = layout.Room(
            left=0.68, right=0.4 + _width(labels), gap_x=0.35, title=0.08, bottom=0.42
        )
        figure, axes, _ = layout.grid(
            len(there), len(there), 2.2, room=room, frame=frame, legend_lines=0
        )
        for name, ax in zip(there, axes, strict=True):
            cost(shown, labels, ax, name, COSTS[name].format(batch=batch))
        axes[0].set_ylabel("Top-1 after the last epoch (%)", size=style.TEXT)
        for ax in axes[1:]:
            ax.set_yticklabels([])
        drawn = set(shown["norm"])
        figure.legend(
            handles=[handle for handle in _marks(labels) if handle.get_gid() in drawn],
            loc="center left", fontsize=style.SMALL, handletextpad=0.3, borderaxespad=0,
            bbox_to_anchor=(axes[-1].get_position().x1 + 0.02, 0.55),
        )  # fmt: skip
    return figure


def cost(
    comparison: pd.DataFrame, labels: Sequence[str], ax: Axes, column: str, title: str
) -> Axes:
    """One point per norm."""
    tone = colours(labels)
    for row in comparison.to_dict("records"):
        norm = str(row["norm"])
        marker = MARKERS[labels.index(norm) % len(MARKERS)]
        std = float(row["top1_std"])
        ax.errorbar(
            [row[column]], [row["top1_mean"]], yerr=[std] if np.isfinite(std) else None,
            marker=marker, ms=5, color=tone[norm], elinewidth=0.8, mec="white", mew=0.4,
        )  # fmt: skip
    ax.set_xlim(0, 1.1 * float(np.nanmax(numbers(comparison, column))))
    ax.set_xlabel(title, size=style.TEXT)
    ax.tick_params(labelsize=style.SMALL)
    return ax


def _marks(labels: Sequence[str]) -> list[Line2D]:
    tone, short = colours(labels), _short(labels)
    return [
        Line2D([], [], ls="", marker=MARKERS[place % len(MARKERS)], ms=5, color=tone[norm],
               mec="white", mew=0.4, label=names.as_drawn(short[norm]), gid=norm)
        for place, norm in enumerate(labels)
    ]  # fmt: skip
