"""The same scatter coloured by channel and by token.

Figure 4 of DyT (https://arxiv.org/abs/2503.10622): the points of one token lie on a straight line
of slope 1/sigma, and a few channels carry the extremes; the S arises because tokens of large sigma
(flat lines) own the large inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from probe.formatting import number, typeset
from probe.plots import layout, names, points, s_curve, style
from probe.plots.s_curve_grid import GridPlan

TOKENS = 8


def by_channel(
    samples: pd.DataFrame,
    channels: Sequence[int] | None = None,
    ax: Axes | None = None,
    *,
    highlighted: int = 4,
) -> Axes:
    """One layer with its `channels` (default: see `extreme_channels`) in colour over the others in
    grey.
    """
    samples = samples[
        (samples["stratum"] != "prefix")
        & np.isfinite(samples["input"])
        & np.isfinite(samples["normalized"])
    ]
    shown = points.thin(samples)
    chosen = list(channels) if channels is not None else extreme_channels(samples, highlighted)
    with style.theme():
        ax = ax if ax is not None else s_curve.single()
        ids = shown["channel"].to_numpy()
        _dots(ax, shown[~np.isin(ids, chosen)], style.FAINT, 2.2, "others", 1.0)
        for colour, channel in reversed(list(zip(style.HIGHLIGHTS, chosen, strict=False))):
            # the few elements of one channel that a thinned scatter holds would not show its line
            own = samples[samples["channel"] == channel]
            _dots(ax, points.strided(own, 400), colour, 3.0, f"channel {channel}", 2.0)
        s_curve.finish(ax, shown)
        _legend(
            ax,
            [(f"{c}", colour) for colour, c in zip(style.HIGHLIGHTS, chosen, strict=False)],
            "channel",
        )
    return ax


def extreme_channels(samples: pd.DataFrame, count: int) -> list[int]:
    """Two channels with the largest |input|, then those that own most of the 1 % largest |input|
    among the uniform rows.
    """
    uniform = samples[samples["stratum"] == "uniform"]
    if uniform.empty:
        return []
    size = uniform["input"].abs()
    beyond = uniform.loc[size >= size.quantile(0.99), "channel"].value_counts()
    largest = samples["input"].abs().groupby(samples["channel"]).max()
    ranked = [_descending(largest)[:2], _descending(beyond)]
    return list(dict.fromkeys(int(channel) for part in ranked for channel in part))[:count]


def _descending(values: pd.Series) -> pd.Index:
    """Index by falling value; ties by the index."""
    return values.sort_index().sort_values(ascending=False, kind="stable").index


def by_position(
    samples: pd.DataFrame,
    rows: pd.DataFrame | None = None,
    ax: Axes | None = None,
    *,
    tokens: int = TOKENS,
) -> Axes:
    """One layer with a few tokens in colour, each on its line of slope 1/sigma; without `rows`
    (mean, sigma): by position.

    The tokens are those at equal steps of sigma's rank; dark: small sigma, steep.
    """
    shown = points.thin(samples[samples["stratum"] != "prefix"])
    with style.theme():
        ax = ax if ax is not None else s_curve.single()
        if rows is None or rows.empty:
            _by_index(ax, shown)
        else:
            _dots(ax, shown, style.FAINT, 2.2, "others", 1.0)
            chosen = chosen_tokens(samples, rows, tokens)
            colours = style.ramp(len(chosen))
            for colour, token in zip(colours, chosen.itertuples(), strict=True):
                own = points.strided(_of_token(samples, int(token.image), int(token.position)), 250)
                ends = np.array([own["input"].min(), own["input"].max()], dtype=np.float64)
                ax.plot(
                    ends,
                    (ends - token.mean) / token.sigma,
                    color=colour,
                    lw=0.6,
                    alpha=0.8,
                    zorder=2,
                    gid="token line",
                )
                _dots(ax, own, colour, 3.5, f"token {token.image}:{token.position}", 2.1)
            _legend(
                ax,
                [
                    (typeset(number(1 / t.sigma, 2)), c)
                    for c, t in zip(colours, chosen.itertuples(), strict=True)
                ],
                "1/\u03c3",
                ends_only=True,
            )
        s_curve.finish(ax, shown)
    return ax


def chosen_tokens(samples: pd.DataFrame, rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Rows (image, position, mean, sigma) at equal steps of the rank of sigma, smallest first; only
    those whole in `samples`.
    """
    uniform = samples.loc[samples["stratum"] == "uniform", ["image", "position"]].drop_duplicates()
    known = (
        rows[rows["sigma"] > 0]
        .merge(uniform, on=["image", "position"])
        .sort_values(["sigma", "image", "position"], kind="stable")
    )
    known = known.drop_duplicates(["image", "position"])
    steps = np.linspace(0, max(len(known) - 1, 0), min(count, len(known)))
    return known.iloc[np.unique(steps.round().astype(int))]


def by_channel_grid(
    samples: pd.DataFrame,
    layers: Sequence[str],
    *,
    frame: layout.Frame | None = None,
    channels: dict[str, list[int]] | None = None,
) -> Figure:
    """`by_channel` of some layers side by side; `channels`: layer -> channels in colour."""
    with style.theme():
        by_layer = points.per_layer(samples)
        figure, axes, top = _row(layers, frame)
        for ax, layer in zip(axes, layers, strict=True):
            by_channel(by_layer[layer], (channels or {}).get(layer), ax)
        layout.put_legend(
            figure,
            [
                _dot(style.FAINT, "all other channels"),
                _dot(
                    style.HIGHLIGHTS[0],
                    "channels with the largest |x|, and those with most of the 1 % largest |x|",
                ),
            ],
            top,
        )
    return figure


def by_position_grid(
    samples: pd.DataFrame | Mapping[str, pd.DataFrame],
    rows: pd.DataFrame | None,
    layers: Sequence[str],
    *,
    frame: layout.Frame | None = None,
) -> Figure:
    """`by_position` of some layers side by side."""
    with style.theme():
        by_layer = points.per_layer(samples)
        figure, axes, top = _row(layers, frame)
        lines = False
        for ax, layer in zip(axes, layers, strict=True):
            own = points.of_layer(rows, layer) if rows is not None else None
            by_position(by_layer[layer], own, ax)
            lines = lines or (own is not None and not own.empty)
        text = (
            f"{TOKENS} tokens, each on its line of slope 1/\u03c3 (\u03c3: std over the token's "
            "channels)"
            if lines
            else "position in the image: first dark, last light"
        )
        layout.put_legend(
            figure,
            [
                *([_dot(style.FAINT, "all other tokens")] if lines else []),
                _dot(style.ramp(3)[1], text),
            ],
            top,
        )
    return figure


def _row(layers: Sequence[str], frame: layout.Frame | None) -> tuple[Figure, list[Axes], float]:
    plan = GridPlan.of(len(layers))
    room = layout.Room(
        left=plan.room.left, right=plan.room.right, gap_x=plan.room.gap_x, gap_y=0.4, title=0.16
    )
    figure, axes, top = layout.grid(len(layers), plan.columns, plan.height, room=room, frame=frame)
    for ax, name in zip(axes, names.short_names(layers, plan.characters).values(), strict=True):
        ax.set_title(name, loc="left", size=style.SMALL, weight="bold", pad=2.5)
    layout.put_labels(figure, axes, s_curve.X_LABEL, s_curve.Y_LABEL)
    return figure, axes, top


def _dots(ax: Axes, part: pd.DataFrame, colour: str, size: float, gid: str, zorder: float) -> None:
    if not part.empty:
        ax.scatter(
            part["input"].to_numpy(),
            part["normalized"].to_numpy(),
            s=size,
            c=[colour],
            linewidths=0,
            rasterized=True,
            zorder=zorder,
            gid=gid,
        )


def _by_index(ax: Axes, shown: pd.DataFrame) -> None:
    position = shown["position"].to_numpy(np.float64)
    ax.scatter(
        shown["input"].to_numpy(),
        shown["normalized"].to_numpy(),
        c=position,
        cmap=style.DEPTH_MAP,
        s=2.5,
        alpha=0.7,
        linewidths=0,
        rasterized=True,
        norm=Normalize(0, float(position.max()) if position.size else 1),
        gid="position",
    )


def _of_token(samples: pd.DataFrame, image: int, position: int) -> pd.DataFrame:
    found = (
        (samples["image"] == image)
        & (samples["position"] == position)
        & (samples["stratum"] == "uniform")
    )
    return samples[found]


def _legend(ax: Axes, entries: list[tuple[str, str]], title: str, ends_only: bool = False) -> None:
    """Coloured words in the free upper left corner."""
    if ends_only and len(entries) > 2:
        entries = [entries[0], entries[-1]]
    x, y = 0.03, 0.97
    for index, (text, colour) in enumerate([(title, style.LINE), *entries]):
        ax.annotate(
            text,
            (x, y),
            (0, -8.5 * index),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="left",
            va="top",
            size=style.SMALL,
            color=colour,
            zorder=4,
            weight="bold" if index else "normal",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.4},
            gid="key",
        )


def _dot(colour: str, label: str) -> Line2D:
    return Line2D([], [], marker="o", ls="", ms=3.5, color=colour, label=label)
