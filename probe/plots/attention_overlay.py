"""Attention drawn over the image it was computed on: of one query token, head by head, and rolled
out through all layers.

Images are (H, W, 3), floats 0..1. The patches of `grid` (rows, columns) tile the image; prefix
tokens (class, registers) stand before them in the sequence. One square per patch, nothing smoothed;
one colour scale for all panels, from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from probe.errors import UsageError
from probe.plots import layout, names, style, ticks

Array = NDArray[np.float64]
Query = (
    int | tuple[int, int]
)  # token index (0 is the class token where there is one), or (row, column) of a patch
MAP = "inferno"
OPACITY = 0.7
MARK = "#00e5ff"
BAR = 1.5  # inches of the colour scale


def attention_maps(
    image: ArrayLike,
    probabilities: ArrayLike,
    grid: tuple[int, int],
    query: Query,
    *,
    heads: Sequence[int] | None = None,
    frame: layout.Frame | None = None,
) -> Figure:
    """Where one query token looks: the image, then one panel per head. Colours go by the square
    root, for one key may take most.

    `probabilities`: (heads, N, N) of one layer after the softmax, N = prefix tokens + patches.
    `query`: (row, column) of a patch, which is framed, or a token index (0: the class token where
    there is one). `heads`: which of them, default all.
    """
    every = _square(probabilities, grid, 3)
    chosen = list(range(len(every))) if heads is None else list(heads)
    if not chosen or not all(0 <= head < len(every) for head in chosen):
        raise UsageError(
            f"heads {chosen} given; {len(every)} heads (0 to {len(every) - 1}) were passed, choose "
            "one or more"
        )
    token = QueryToken.of(query, grid, every.shape[-1])
    maps = {
        f"Head {head + 1}": every[head, token.index, token.prefix :].reshape(grid)
        for head in chosen
    }
    norm = scale(list(maps.values()), gamma=0.5)
    words = token.words + ("; one colour scale for all heads" if len(chosen) > 1 else "")
    return _over_image(
        image, maps, token.patch, words, norm, "Attention weight (\u221a scale)", frame
    )


def rollout(
    image: ArrayLike,
    matrix: ArrayLike,
    grid: tuple[int, int],
    query: Query | None = None,
    *,
    frame: layout.Frame | None = None,
) -> Figure:
    """What of the image reaches one token of the last layer: the image, and the rollout over it.

    `matrix`: (N, N) attention rollout, N = prefix tokens + patches, or the shares of the patches
    alone (rows x columns).
    `query`: as in `attention_maps`; default: the class token, and without prefix tokens the mean
    over all patches.
    """
    given = np.asarray(matrix, dtype=np.float64)
    if given.size == grid[0] * grid[1]:
        shares, patch, words = given, None, ""
    elif query is None and len(given) == grid[0] * grid[1]:
        shares, patch, words = (
            _square(given, grid, 2).mean(axis=0),
            None,
            "Mean over all patches of the last layer",
        )
    else:
        square = _square(given, grid, 2)
        token = QueryToken.of(0 if query is None else query, grid, len(square))
        shares, patch, words = square[token.index, token.prefix :], token.patch, token.words
    maps = {"Rollout": shares.reshape(grid)}
    return _over_image(
        image, maps, patch, words, scale(list(maps.values())), "Share from each patch", frame
    )


@dataclass(frozen=True)
class QueryToken:
    """A query in the sequence: its index, the number of prefix tokens, its patch (row, column) or
    None, and what to call it.
    """

    index: int
    prefix: int
    patch: tuple[int, int] | None

    @classmethod
    def of(cls, query: Query, grid: tuple[int, int], tokens: int) -> QueryToken:
        """From an index among `tokens`, or (row, column) on the grid. Raises UsageError for one
        that does not exist.
        """
        prefix = tokens - grid[0] * grid[1]
        if isinstance(query, tuple):
            if not (0 <= query[0] < grid[0] and 0 <= query[1] < grid[1]):
                raise UsageError(
                    f"query patch {query} is outside the grid of {grid[0]} x {grid[1]} patches "
                    "(counted from 0)"
                )
            return cls(prefix + query[0] * grid[1] + query[1], prefix, query)
        if not 0 <= query < tokens:
            raise UsageError(
                f"query token {query} given; there are {tokens} tokens (0 to {tokens - 1})"
            )
        row, column = divmod(query - prefix, grid[1])
        return cls(query, prefix, (row, column) if query >= prefix else None)

    @property
    def words(self) -> str:
        if self.patch is not None:
            return f"Query: patch in row {self.patch[0]}, column {self.patch[1]} (framed)"
        return (
            "Query: class token"
            if self.index == 0
            else f"Query: prefix token {self.index} (0: class token)"
        )


def attention_map(
    image: ArrayLike, weights: ArrayLike, ax: Axes, *, norm: Normalize | None = None
) -> Axes:
    """One panel: `weights` (rows, columns) over the image in grey; `norm`: the colour scale,
    default 0 to the largest weight.
    """
    pixels, weights = _pixels(image), np.asarray(weights, dtype=np.float64)
    grey = 0.15 + 0.7 * pixels @ np.array([0.299, 0.587, 0.114])
    _draw(ax, np.repeat(grey[..., None], 3, axis=2))
    norm = norm or scale([weights])
    extent = (-0.5, pixels.shape[1] - 0.5, pixels.shape[0] - 0.5, -0.5)
    ax.imshow(
        weights,
        cmap=MAP,
        norm=norm,
        alpha=OPACITY,
        extent=extent,
        interpolation="nearest",
        gid="attention",
    )
    return ax


def mark_query(
    ax: Axes, size: tuple[int, ...], grid: tuple[int, ...], patch: tuple[int, int]
) -> None:
    """A frame around one patch of an image of `size` (H, W)."""
    height, width = size[0] / grid[0], size[1] / grid[1]
    corner = (patch[1] * width - 0.5, patch[0] * height - 0.5)
    ax.add_patch(Rectangle(corner, width, height, fill=False, ec="black", lw=2.2, zorder=4))
    ax.add_patch(
        Rectangle(corner, width, height, fill=False, ec=MARK, lw=1.2, zorder=5, gid="query")
    )


def scale(maps: Sequence[Array], gamma: float = 1.0) -> Normalize:
    """Colours from 0 to the largest weight of all maps, by weight^gamma."""
    highest = max(float(np.nanmax(weights)) for weights in maps)
    return PowerNorm(gamma, 0.0, highest if highest > 0 else 1.0)


def _over_image(
    image: ArrayLike,
    maps: dict[str, Array],
    patch: tuple[int, int] | None,
    words: str,
    norm: Normalize,
    label: str,
    frame: layout.Frame | None,
) -> Figure:
    pixels, panels = _pixels(image), 1 + len(maps)
    columns = panels if panels <= 5 else 4 if panels <= 8 else 7
    width = style.ONE_COLUMN if panels <= 2 else style.TWO_COLUMN
    room = layout.Room(left=0.1, right=0.1, gap_x=0.1, gap_y=0.24, title=0.17, bottom=0.46)
    height = (
        (width - room.left - room.right - (columns - 1) * room.gap_x)
        / columns
        * pixels.shape[0]
        / pixels.shape[1]
    )
    with style.theme():
        figure, axes, top = layout.grid(
            panels, columns, height, width=width, room=room, frame=frame, legend_lines=bool(words)
        )
        _draw(axes[0], pixels)
        axes[0].set_title("Image", size=style.SMALL, pad=2.5)
        for ax, (title, weights) in zip(axes[1:], maps.items(), strict=True):
            attention_map(pixels, weights, ax, norm=norm)
            ax.set_title(names.as_drawn(title), size=style.SMALL, pad=2.5)
        if patch is not None:
            for ax in axes:
                mark_query(ax, pixels.shape[:2], next(iter(maps.values())).shape, patch)
        figure.text(0.1 / width, top, words, size=style.SMALL, va="top", ha="left", gid="query")
        _bar(figure, norm, label)
    return figure


def _draw(ax: Axes, pixels: Array) -> None:
    ax.imshow(pixels, interpolation="nearest", gid="image")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


def _bar(figure: Figure, norm: Normalize, label: str) -> None:
    """Below the panels, in the colours that the map has over a middle grey."""
    width, height = figure.get_size_inches()
    cax = figure.add_axes((0.14 / width, 0.25 / height, BAR / width, 0.09 / height), label="scale")
    mixed = OPACITY * mpl.colormaps[MAP](np.linspace(0, 1, 256))[:, :3] + (1 - OPACITY) * 0.5
    figure.colorbar(ScalarMappable(norm, ListedColormap(mixed)), cax=cax, orientation="horizontal")
    values = _bar_values(norm)
    cax.set_xticks(values, [ticks.tick(value) for value in values])
    cax.minorticks_off()
    cax.tick_params(labelsize=style.SMALL, width=0.6, size=2.5)
    x, y = (0.14 + BAR + 0.1) / width, (0.25 + 0.045) / height
    figure.text(x, y, label, size=style.SMALL, va="center_baseline", ha="left", gid="scale")


def _bar_values(norm: Normalize) -> list[float]:
    """0 and round values from the top of the scale down, as long as they stand apart."""
    top = float(norm.vmax or 1.0)
    round_ones = [digit * 10.0**power for power in range(-12, 3) for digit in (1, 2, 5)]
    chosen: list[float] = []
    for value in reversed([v for v in round_ones if v <= top]):
        if float(norm(value)) >= 0.25 and (
            not chosen or float(norm(chosen[-1]) - norm(value)) >= 0.25
        ):
            chosen.append(value)
    return [0.0, *reversed(chosen)]


def _pixels(image: ArrayLike) -> Array:
    pixels = np.asarray(image, dtype=np.float64)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise UsageError(
            f"an image of shape {pixels.shape} given; (height, width, 3) with values from 0 to 1 "
            "is needed"
        )
    return np.clip(pixels, 0.0, 1.0)


def _square(values: ArrayLike, grid: tuple[int, int], axes: int) -> Array:
    """Attention (..., N, N) with at least as many tokens as the grid has patches."""
    array = np.asarray(values, dtype=np.float64)
    patches, wanted = grid[0] * grid[1], "(heads, N, N)" if axes == 3 else "(N, N)"
    if array.ndim != axes or array.shape[-1] != array.shape[-2] or array.shape[-1] < patches:
        raise UsageError(
            f"attention of shape {array.shape} given; {wanted} is needed, N at least the {patches} "
            f"patches of {grid[0]} x {grid[1]}"
        )
    return array
