"""Attention drawn over the image it was computed on: of one query token, head by head, and rolled out through all layers.

Images are (H, W, 3), floats 0..1. The patches of `grid` (rows, columns) tile the image; prefix tokens (class, registers) stand
before them in the sequence. One square per patch, nothing smoothed; one colour scale for all panels, from 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from probe.errors import UsageError
from probe.plots import layout, style

Array = NDArray[np.float64]
Query = int | tuple[int, int]  # token index (0 is the class token where there is one), or (row, column) of a patch
MAP = "inferno"
OPACITY = 0.75
MARK = "#00e5ff"


def attention_maps(
    image: ArrayLike,
    probabilities: ArrayLike,
    grid: tuple[int, int],
    query: Query,
    *,
    heads: Sequence[int] | None = None,
    frame: layout.Frame | None = None,
) -> Figure:
    """Where one query token looks: the image, then one panel per head.

    `probabilities`: (heads, N, N) of one layer after the softmax, N = prefix tokens + patches. `query`: (row, column) of a patch,
    which is framed, or a token index (0: the class token where there is one). `heads`: which of them, default all.
    """
    every = _square(probabilities, grid, 3)
    chosen = list(range(len(every))) if heads is None else list(heads)
    if not chosen or not all(0 <= head < len(every) for head in chosen):
        raise UsageError(f"heads {chosen} given; {len(every)} heads (0 to {len(every) - 1}) were passed, choose one or more")
    token, prefix = query_token(query, grid, every.shape[-1]), every.shape[-1] - grid[0] * grid[1]
    maps = [every[head, token, prefix:].reshape(grid) for head in chosen]
    patch = divmod(token - prefix, grid[1]) if token >= prefix else None
    return _over_image(image, maps, [f"Head {head + 1}" for head in chosen], patch, _words(token, prefix, patch), "weight", frame)


def rollout(
    image: ArrayLike, matrix: ArrayLike, grid: tuple[int, int], query: Query | None = None, *, frame: layout.Frame | None = None
) -> Figure:
    """What of the image reaches one token of the last layer: the image, and the rollout over it.

    `matrix`: (N, N) attention rollout, N = prefix tokens + patches, or the shares of the patches alone (rows x columns).
    `query`: as in `attention_maps`; default: the class token, and without prefix tokens the mean over all patches.
    """
    given = np.asarray(matrix, dtype=np.float64)
    if given.size == grid[0] * grid[1]:
        return _over_image(image, [given.reshape(grid)], ["Rollout"], None, "", "share", frame)
    square = _square(given, grid, 2)
    prefix = len(square) - grid[0] * grid[1]
    if query is None and prefix == 0:
        return _over_image(image, [square.mean(0).reshape(grid)], ["Rollout"], None, "Mean over all patches", "share", frame)
    token = query_token(query or 0, grid, len(square))
    patch = divmod(token - prefix, grid[1]) if token >= prefix else None
    return _over_image(
        image, [square[token, prefix:].reshape(grid)], ["Rollout"], patch, _words(token, prefix, patch), "share", frame
    )


def attention_map(image: ArrayLike, weights: ArrayLike, ax: Axes, *, norm: Normalize | None = None) -> Axes:
    """One panel: `weights` (rows, columns) over the image in grey; `norm`: the colour scale, default 0 to the largest weight."""
    pixels, weights = _pixels(image), np.asarray(weights, dtype=np.float64)
    _draw(ax, np.repeat((0.15 + 0.7 * pixels @ [0.299, 0.587, 0.114])[..., None], 3, axis=2), "image")
    norm = norm or scale([weights])
    extent = (-0.5, pixels.shape[1] - 0.5, pixels.shape[0] - 0.5, -0.5)
    ax.imshow(weights, cmap=MAP, norm=norm, alpha=OPACITY, extent=extent, interpolation="nearest", gid="attention")
    return ax


def mark_query(ax: Axes, size: tuple[int, int], grid: tuple[int, int], patch: tuple[int, int]) -> None:
    """A frame around one patch of an image of `size` (H, W)."""
    height, width = size[0] / grid[0], size[1] / grid[1]
    corner = (patch[1] * width - 0.5, patch[0] * height - 0.5)
    ax.add_patch(Rectangle(corner, width, height, fill=False, ec="black", lw=2.2, zorder=4))
    ax.add_patch(Rectangle(corner, width, height, fill=False, ec=MARK, lw=1.2, zorder=5, gid="query"))


def query_token(query: Query, grid: tuple[int, int], tokens: int) -> int:
    """Index in the sequence of a query given as an index or as (row, column)."""
    if isinstance(query, tuple):
        if not (0 <= query[0] < grid[0] and 0 <= query[1] < grid[1]):
            raise UsageError(f"query patch {query} lies outside the grid of {grid[0]} x {grid[1]} patches (counted from 0)")
        return tokens - grid[0] * grid[1] + query[0] * grid[1] + query[1]
    if not 0 <= query < tokens:
        raise UsageError(f"query token {query} given; there are {tokens} tokens (0 to {tokens - 1})")
    return int(query)


def scale(maps: Sequence[Array]) -> Normalize:
    """Colours from 0 to the largest weight of all maps."""
    highest = max(float(np.nanmax(weights)) for weights in maps)
    return Normalize(0.0, highest if highest > 0 else 1.0)


def _over_image(
    image: ArrayLike,
    maps: Sequence[Array],
    titles: Sequence[str],
    patch: tuple[int, int] | None,
    note: str,
    what: str,
    frame: layout.Frame | None,
) -> Figure:
    pixels, grid = _pixels(image), (maps[0].shape[0], maps[0].shape[1])
    panels, norm = 1 + len(maps), scale(maps)
    columns = panels if panels <= 4 else 4 if panels <= 8 else 7
    width = style.ONE_COLUMN if panels <= 2 else style.TWO_COLUMN
    room = layout.Room(left=0.1, right=0.72, gap_x=0.1, gap_y=0.24, title=0.17, bottom=0.1)
    panel = (width - room.left - room.right - (columns - 1) * room.gap_x) / columns
    with style.theme():
        height = panel * pixels.shape[0] / pixels.shape[1]
        figure, axes, top = layout.grid(
            panels, columns, height, width=width, room=room, frame=frame, legend_lines=int(bool(note))
        )
        _draw(axes[0], pixels, "image")
        for ax, weights in zip(axes[1:], maps, strict=True):
            attention_map(pixels, weights, ax, norm=norm)
        for ax, title in zip(axes, ["Image", *titles], strict=True):
            ax.set_title(title, size=style.SMALL, pad=2.5)
            if patch is not None:
                mark_query(ax, (pixels.shape[0], pixels.shape[1]), grid, patch)
        if note:
            figure.text(0.1 / width, top, note, size=style.SMALL, va="top", ha="left", gid="note")
        _bar(figure, axes[:columns], norm, f"Attention {what}")
    return figure


def _draw(ax: Axes, pixels: Array, gid: str) -> None:
    ax.imshow(pixels, interpolation="nearest", gid=gid)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


def _bar(figure: Figure, row: Sequence[Axes], norm: Normalize, label: str) -> None:
    """Beside the first row, in the colours that the map has over a grey image."""
    box, width = row[-1].get_position(), figure.get_size_inches()[0]
    cax = figure.add_axes((box.x1 + 0.1 / width, box.y0, 0.09 / width, box.height), label="scale")
    mixed = OPACITY * mpl.colormaps[MAP](np.linspace(0, 1, 256))[:, :3] + (1 - OPACITY) * 0.5
    figure.colorbar(ScalarMappable(norm, ListedColormap(mixed)), cax=cax)
    cax.set_ylabel(label, size=style.SMALL)
    cax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    cax.tick_params(labelsize=style.SMALL, width=0.6, size=2.5)


def _words(token: int, prefix: int, patch: tuple[int, int] | None) -> str:
    if patch is not None:
        return f"Query: patch in row {patch[0]}, column {patch[1]} (framed)"
    return "Query: class token" if token == 0 else f"Query: prefix token {token} of {prefix} (0: class token)"


def _pixels(image: ArrayLike) -> Array:
    pixels = np.asarray(image, dtype=np.float64)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise UsageError(f"an image of shape {pixels.shape} given; (height, width, 3) with values from 0 to 1 is needed")
    return np.clip(pixels, 0.0, 1.0)


def _square(values: ArrayLike, grid: tuple[int, int], axes: int) -> Array:
    """Attention (..., N, N) with at least as many tokens as the grid has patches."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != axes or array.shape[-1] != array.shape[-2] or array.shape[-1] < grid[0] * grid[1]:
        wanted = "(heads, N, N)" if axes == 3 else "(N, N)"
        raise UsageError(
            f"attention of shape {array.shape} given; {wanted} with N >= {grid[0] * grid[1]}, the patches of {grid[0]} x {grid[1]}"
        )
    return array
