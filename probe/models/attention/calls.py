"""One attention call as a model made it, brought into (R, H, L, S): R images, or images x windows;
H heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from probe.models.attention.layout import Frame
from probe.stats.attention_scores import GivenScores, ProductScores, Scores

_HEADS = ("num_heads", "num_attention_heads", "n_heads", "nheads", "n_head", "heads")


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

    def arranged(self, layer: Frame, images: int) -> Scores:
        """The scores (R, H, L, S), with the rows of one image side by side. Raises Unreadable where
        the axes are not known.
        """
        shape = self.shape
        order = _order(
            shape,
            self.heads or heads_of(layer.module),
            _batch(layer.shape, shape[-2], images),
            images,
        )
        if self.scores is not None:
            return GivenScores(order(self.scores.detach()))
        assert self.q is not None
        assert self.k is not None
        q, k = self.q.detach(), self.k.detach()
        if (
            k.ndim > 2 and q.ndim == k.ndim and 1 < k.shape[-3] < q.shape[-3]
        ):  # grouped queries share a key head
            k = k.repeat_interleave(q.shape[-3] // k.shape[-3], -3)
        k = k.expand(*q.shape[:-2], *k.shape[-2:])
        bias = self.bias.detach() if self.bias is not None else None
        if bias is not None and len(shape) != 4:
            bias = order(bias.expand(shape))
        return ProductScores(order(q), order(k), self.scale, bias, self.causal)


def heads_of(module: nn.Module) -> int | None:
    """Number of heads that an attention module says it has."""
    for name in _HEADS:
        if isinstance(value := getattr(module, name, None), int):
            return value
    return None


def _batch(shape: tuple[int, ...] | None, length: int, images: int) -> int | None:
    """The batch axis of a layer that was given whole groups of `length` tokens: (B, N, C), (N, B,
    C) or (B, H, W, C) and such.
    """
    if shape is None or len(shape) < 3:
        return None
    if len(shape) == 3 and shape[0] == length and shape[1] == images:
        return shape[1]
    return (
        shape[0]
        if length in (shape[1], shape[-2], math.prod(shape[1:3]), math.prod(shape[2:]))
        else None
    )


def _order(
    shape: tuple[int, ...], heads: int | None, batch: int | None, images: int
) -> Callable[[Tensor], Tensor]:
    """How a tensor (..., L, D) with the leading axes of `shape` becomes (R, H, L, D)."""
    leading = shape[:-2]
    if len(leading) == 2:
        return lambda t: t
    if not leading:
        return lambda t: t[None, None]
    if len(leading) == 1:
        each = 1 if leading[0] == batch else heads or leading[0] // (batch or leading[0])
        if leading[0] % (each * images):
            raise Unreadable(
                f"scores of shape {shape} do not split into {images} images and {each} heads"
            )
        return lambda t: t.unflatten(0, (-1, each))
    if (
        len(leading) == 3 and leading[1] != leading[2] and heads in leading[1:]
    ):  # (B, H, windows) or (B, windows, H)
        return (
            (lambda t: t.flatten(0, 1))
            if leading[2] == heads
            else (lambda t: t.transpose(1, 2).flatten(0, 1))
        )
    raise Unreadable(f"scores of shape {shape}: no axis is known to be the heads")
