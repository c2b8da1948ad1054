"""Attention distance per head: where the tokens of a call are, and streaming sums over images; no N
x N map is kept.

d[head] = mean over images, mean over query patches, sum over key patches of A[q, k] * distance(q,
k), in pixels (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929; Raghu et al. 2021,
https://arxiv.org/abs/2108.08810).
Scores are (R, H, L, S): R rows are images, or images x windows with the windows of one image side
by side; H heads, L query tokens, S key tokens. Prefix tokens (class, distillation, registers) stand
first and are no patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probe.stats.state import State, fitting

VALUES = ("distance_px", "distance_px_raw", "prefix_mass", "entropy")


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where the tokens of one attention call are.

    `windows` per image (1: every token sees every token). `distances` (L, S) in pixels between the
    patch centres of queries and keys, prefix tokens left out. `outside` (windows, S) is True at
    keys, and queries, that only fill a window up.
    """

    grid: tuple[int, int]
    token_stride: float
    prefix: int
    windows: int
    distances: NDArray[np.float64]
    outside: NDArray[np.bool_] | None = None

    @cached_property
    def uniform_px(self) -> float:
        """The distance of a head that attends to every patch it sees equally: mean over query
        patches of the mean over keys.
        """
        if self.outside is None:
            return float(self.distances.mean())
        real = (~self.outside).astype(np.float64)
        return float((real * (real @ self.distances.T)).sum(1) @ (1 / real.sum(1)) / real.sum())

    @property
    def label(self) -> str:
        return f"{self.grid[0]}x{self.grid[1]}"

    def facts(self) -> dict[str, Any]:
        """What is told of it, for JSON: all but the distances, which the next pass gives anew."""
        return {
            "grid": list(self.grid),
            "token_stride": self.token_stride,
            "prefix": self.prefix,
            "windows": self.windows,
            "shape": list(self.distances.shape),
            "uniform_px": self.uniform_px,
        }

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Geometry:
        """One that can be told and compared, whose distances are NaN."""
        rows, columns = map(int, facts["grid"])
        geometry = cls(
            (rows, columns),
            float(facts["token_stride"]),
            int(facts["prefix"]),
            int(facts["windows"]),
            np.broadcast_to(np.nan, tuple(map(int, facts["shape"]))),
        )
        geometry.__dict__["uniform_px"] = float(facts["uniform_px"])  # as if it was read before
        return geometry

    def same(self, other: Geometry) -> bool:
        mine, its = (
            (g.grid, g.token_stride, g.prefix, g.windows, g.distances.shape) for g in (self, other)
        )
        return mine == its


def patch_distances(queries: NDArray[np.float64], keys: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distances (L, S) between the centres (L, 2) and (S, 2)."""
    return np.hypot(*(np.subtract.outer(queries[:, axis], keys[:, axis]) for axis in (0, 1)))


@lru_cache(maxsize=8)
def grid_distances(
    grid: tuple[int, int],
    stride: tuple[float, float],
    key_grid: tuple[int, int] | None = None,
    key_stride: tuple[float, float] | None = None,
) -> NDArray[np.float64]:
    """Distances between the patches of a grid, or to those of a grid of keys; layers of equal grids
    share one array, read only.
    """
    queries = patch_centres(grid, stride)
    distances = patch_distances(queries, patch_centres(key_grid or grid, key_stride or stride))
    distances.flags.writeable = False
    return distances


def patch_centres(grid: tuple[int, int], stride: tuple[float, float]) -> NDArray[np.float64]:
    """Centres (rows * columns, 2) in pixels of a grid of patches, row-major; patch (i, j) is
    centred on ((i, j) + 1/2) * stride.
    """
    rows, columns = np.indices(grid).reshape(2, -1)
    return np.stack([(rows + 0.5) * stride[0], (columns + 0.5) * stride[1]], axis=1)


def mean_stride(stride: tuple[float, float]) -> float:
    """One number for patches that are not square: the side of a square of equal area."""
    return stride[0] if stride[0] == stride[1] else float(np.sqrt(stride[0] * stride[1]))


class HeadSums:
    """Streaming sums of one layer: over images, of the values of each image and of their squares.
    Merges by addition. A std that is small beside its mean keeps few digits of such sums, so what
    each addition rounds off is kept, too: the order of batches then changes no digit of it.
    """

    def __init__(self, heads: int) -> None:
        self.images = np.zeros(heads, np.int64)
        self.total = np.zeros((heads, len(VALUES)))
        self.squares = np.zeros(heads)
        # what was rounded off
        self.total_rest, self.squares_rest = np.zeros((heads, len(VALUES))), np.zeros(heads)

    def update(self, sums: NDArray[np.float64]) -> None:
        """Add the sums (B, H, 1 + 4) over query patches of B images, the number of queries first;
        images without one are skipped.
        """
        count = sums[:, :, 0]
        values = sums[:, :, 1:] / np.maximum(count, 1)[:, :, None]
        self.images += (count > 0).sum(axis=0)
        self._add(values.sum(axis=0), (values[:, :, 0] ** 2).sum(axis=0))

    def merge(self, other: HeadSums) -> None:
        self.images += other.images
        self._add(other.total, other.squares)
        self._add(other.total_rest, other.squares_rest)

    def _add(self, total: NDArray[np.float64], squares: NDArray[np.float64]) -> None:
        self.total, rest = _two_sum(self.total, total)
        self.total, self.total_rest = _two_sum(self.total, self.total_rest + rest)
        self.squares, rest = _two_sum(self.squares, squares)
        self.squares, self.squares_rest = _two_sum(self.squares, self.squares_rest + rest)

    def state(self) -> State:
        names = ("images", "total", "squares", "total_rest", "squares_rest")
        return {name: getattr(self, name) for name in names}

    def restore(self, state: State) -> None:
        for name, mine in self.state().items():
            setattr(self, name, fitting(state[name], mine))

    def means(self) -> NDArray[np.float64]:
        """Means (H, 4) over images of VALUES; NaN without an image."""
        with np.errstate(invalid="ignore"):
            return self.total / self.images[:, None]

    def std(self) -> NDArray[np.float64]:
        """Standard deviation (H,) of distance_px over images, sqrt(mean of squares - square of
        mean): divided by n, 0 for one image.
        """
        with np.errstate(invalid="ignore"):
            variance = self.squares / self.images - self.means()[:, 0] ** 2
        # 1e-14 of the squares is rounding
        return np.sqrt(
            np.where(variance < 1e-14 * self.squares / np.maximum(self.images, 1), 0.0, variance)
        )


def _two_sum(
    a: NDArray[np.float64], b: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """a + b, and what it rounded off (Knuth, The Art of Computer Programming 2, 4.2.2)."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)
