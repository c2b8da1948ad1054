"""The scores of one attention call, cut out piece by piece, so that they are never all there at
once.

q is (R, H, L, D), k (R, H, S, D), bias broadcasts to (R, H, L, S). Half precision is computed in
float32, float64 stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Scores(Protocol):
    """Scores (R, H, L, S) before the softmax."""

    @property
    def shape(self) -> tuple[int, int, int, int]: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def masked(self) -> bool:
        """May there be scores of -inf?"""

    def part(self, rows: slice, heads: slice, queries: slice, keys: slice) -> Tensor:
        """(rows * heads, queries, keys); new memory or the model's own, so only to be read."""


def full_precision(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


@dataclass(frozen=True, eq=False)
class ProductScores:
    """scale * q k^T + bias; a boolean bias is True where a query may look; causal: key j only for
    queries i >= j.
    """

    q: Tensor
    k: Tensor
    scale: float
    bias: Tensor | None = None
    causal: bool = False

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (*self.q.shape[:3], self.k.shape[2])

    @property
    def device(self) -> torch.device:
        return self.q.device

    @property
    def dtype(self) -> torch.dtype:
        return full_precision(self.q.dtype)

    @property
    def masked(self) -> bool:
        return self.causal or self.bias is not None

    def part(self, rows: slice, heads: slice, queries: slice, keys: slice) -> Tensor:
        q, k = (
            t.to(self.dtype).flatten(0, 1)
            for t in (self.q[rows, heads, queries], self.k[rows, heads, keys])
        )
        scores = torch.baddbmm(q.new_empty(()), q, k.transpose(1, 2), beta=0, alpha=self.scale)
        if self.bias is not None:
            bias = self.bias.expand(self.shape)[rows, heads, queries, keys]
            view = scores.view(bias.shape)
            view.masked_fill_(~bias, -torch.inf) if bias.dtype == torch.bool else view.add_(bias)
        if self.causal:
            query = torch.arange(queries.start, queries.stop, device=self.device)[:, None]
            scores.masked_fill_(
                torch.arange(keys.start, keys.stop, device=self.device) > query, -torch.inf
            )
        return scores


@dataclass(frozen=True, eq=False)
class GivenScores:
    """Scores that the model itself has computed, (R, H, L, S)."""

    scores: Tensor

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return tuple(self.scores.shape)  # type: ignore[return-value]

    @property
    def device(self) -> torch.device:
        return self.scores.device

    @property
    def dtype(self) -> torch.dtype:
        return full_precision(self.scores.dtype)

    @property
    def masked(self) -> bool:
        return True

    def part(self, rows: slice, heads: slice, queries: slice, keys: slice) -> Tensor:
        return self.scores[rows, heads, queries, keys].to(self.dtype).flatten(0, 1)


def probabilities(scores: Scores) -> Tensor:
    """All probabilities (R, H, L, S): for one image, never for a data set."""
    rows, heads, length, keys = scores.shape
    every = scores.part(*(slice(0, size) for size in scores.shape))
    return every.softmax(-1).view(rows, heads, length, keys)
