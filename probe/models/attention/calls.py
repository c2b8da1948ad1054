"""One attention call as a model made it, before anything is known of its axes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from probe.stats.attention_scores import GivenScores, ProductScores, Scores

Order = Callable[[Tensor], Tensor]  # (..., L, D) to (R, H, L, D)


class Unreadable(Exception):
    """Why a call is no attention of patches over patches; the text goes into
    AttentionProbe.unreadable.
    """


@dataclass(frozen=True, eq=False)
class Call:
    """Either q (..., L, D) and k (..., S, D) with what scaled_dot_product_attention was given, or
    the scores (..., L, S).
    """

    q: Tensor | None = None
    k: Tensor | None = None
    bias: Tensor | None = None
    causal: bool = False
    scale: float = 1.0
    scores: Tensor | None = None
    heads: int | None = None  # where the call itself says it
    added: int = 0  # keys after those of the tokens

    @property
    def explicit(self) -> bool:
        """A softmax over scores, which may be something else than attention."""
        return self.scores is not None

    @property
    def shape(self) -> tuple[int, ...]:
        """(..., L, S)."""
        if self.scores is not None:
            return tuple(self.scores.shape)
        assert self.q is not None
        assert self.k is not None
        return (*self.q.shape[:-1], self.k.shape[-2])

    @property
    def device(self) -> torch.device:
        tensor = self.scores if self.scores is not None else self.q
        assert tensor is not None
        return tensor.device

    def ordered(self, order: Order) -> Scores:
        """The scores (R, H, L, S)."""
        if self.scores is not None:
            return GivenScores(order(self.scores.detach()))
        assert self.q is not None
        q, k = self.q.detach(), self.expanded_to_queries(self.k)
        bias = self.bias.detach() if self.bias is not None else None
        if bias is not None:
            bias = order(bias.expand(self.shape))
        return ProductScores(order(q), order(k), self.scale, bias, self.causal)

    def expanded_to_queries(self, keys: Tensor | None) -> Tensor:
        """Keys (..., S, D), or their places, with the leading axes of the queries: grouped queries
        share a key head."""
        assert self.q is not None
        assert keys is not None
        q, k = self.q, keys.detach()
        if k.ndim > 2 and q.ndim == k.ndim and 1 < k.shape[-3] < q.shape[-3]:
            k = k.repeat_interleave(q.shape[-3] // k.shape[-3], -3)
        return k.expand(*q.shape[:-2], *k.shape[-2:])
