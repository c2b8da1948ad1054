"""Lay out what a hook saw as (image, position, channel), whatever the layer's own layout."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from probe.errors import UsageError
from probe.models.reading.conventions import normalized_shape
from probe.models.reading.formulas import Formula
from probe.models.reading.norm_types import NormType
from probe.stats.observed import GivenNorm, Observed, PlaneNorm

# q/k norms see (B, heads, tokens, head channels): a position is (head, token)
_IS_HEAD_NORM = re.compile(r"(^|[._])((q|k|query|key)_?(layer)?_?norm|(norm|ln)_?(q|k))$")


@dataclass(frozen=True)
class BatchContext:
    """The images of the batch that is running."""

    images: NDArray[np.int64]  # (B,) image index
    groups: NDArray[np.int64]  # (B,) jackknife group
    prefix_tokens: int = 0
    valid: NDArray[np.bool_] | None = None  # (B, T) False for padding tokens


def observe(
    name: str, module: nn.Module, kind: NormType, x: Tensor, y: Tensor, context: BatchContext
) -> Observed:
    """The observation of one call of the norm layer `name`, with x its input and y its output."""
    x, y = _with_batch_axis(module, x, y)
    try:
        norm = kind.formula(module, x)
    except UsageError as error:  # of a registration
        raise UsageError(f"layer {name!r}: {error}") from error
    if kind.before_more is not None:
        y = kind.before_more(module, x, y)
    if kind.channels_last:
        x, y, norm = _on_rows(module, x, y, norm)
        channels_last = True
    else:
        x, y, norm, channels_last = _on_planes(x, y, norm)
    heads, tokens = _heads_and_tokens(name, x, kind)
    observed = Observed(
        x, y, norm, channels_last, context.images, context.groups, np.zeros(0, np.uint8)
    )
    observed = _by_image(observed, len(context.images))
    positions = observed.positions
    # a layer that says so itself stands where the model's class token has not joined yet
    prefix = getattr(module, "num_prefix_tokens", context.prefix_tokens)
    kinds = _prefix_positions(prefix, heads, tokens, positions)
    return replace(observed, kinds=kinds, valid=_valid(context, heads, tokens, positions))


def _with_batch_axis(module: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """InstanceNorm takes a single image without a batch axis."""
    if isinstance(module, _InstanceNorm) and x.ndim == module._get_no_batch_dim():
        return x[None], y[None]
    return x, y


def _on_rows(
    module: nn.Module, x: Tensor, y: Tensor, norm: Formula
) -> tuple[Tensor, Tensor, Formula]:
    """(..., C); of a LayerNorm over (C, H, W) every normalized entry is a channel."""
    axes = len(normalized_shape(module))
    if axes > 1:
        x, y = x.flatten(-axes), y.flatten(-axes)
    return x, y, _reshaped(norm, lambda z: z.reshape(x.shape))


def _on_planes(x: Tensor, y: Tensor, norm: Formula) -> tuple[Tensor, Tensor, Formula, bool]:
    """(B, C, ...) as (B, C, P), where the norm is one per plane; else (B, P, C), channels last."""
    x, y = (t.flatten(2) if t.ndim > 2 else t[..., None] for t in (x, y))
    norm = _reshaped(norm, lambda z: z.reshape(x.shape))
    if isinstance(norm, PlaneNorm):
        return x, y, norm, False
    return x.transpose(1, 2), y.transpose(1, 2), _reshaped(norm, lambda z: z.transpose(1, 2)), True


def _reshaped(norm: Formula, shape: Callable[[Tensor], Tensor]) -> Formula:
    """A norm that is given as a tensor follows its input."""
    return GivenNorm(shape(norm.z)) if isinstance(norm, GivenNorm) else norm


def _prefix_positions(
    prefix_tokens: int, heads: int, tokens: int, positions: int
) -> NDArray[np.uint8]:
    """(P,) 1 at class and register tokens (of every head), where the positions are tokens at
    all.
    """
    kinds = np.zeros(positions, np.uint8)
    if prefix_tokens and tokens > prefix_tokens and heads * tokens == positions:
        kinds.reshape(heads, tokens)[:, :prefix_tokens] = 1
    return kinds


def _heads_and_tokens(name: str, x: Tensor, kind: NormType) -> tuple[int, int]:
    """How the positions of an image split into heads and tokens; no tokens where the positions are
    pixels or a pooled vector.
    """
    if not kind.channels_last:
        return 1, 0
    if x.ndim == 3:
        return 1, x.shape[1]
    if x.ndim == 4 and _IS_HEAD_NORM.search(name.lower()):
        return x.shape[1], x.shape[2]
    return 1, 0


def _by_image(observed: Observed, batch: int) -> Observed:
    """Bring the tensors into (B, P, C) or (B, C, P) with B the images of the batch.

    Sequence-first tensors are turned; a first axis that is a multiple of the batch (windows, pixel
    groups) splits into images, batch major. Where the batch is not found, everything counts as one
    image with index -1.
    """
    x = observed.x
    if observed.channels_last:
        if x.shape[0] == batch:
            return _shaped(observed, lambda t: t.reshape(batch, -1, t.shape[-1]))
        if x.ndim == 3 and x.shape[1] == batch:
            return _shaped(observed, lambda t: t.transpose(0, 1))
        if x.shape[0] % batch == 0:
            return _shaped(observed, lambda t: t.reshape(batch, -1, t.shape[-1]))
    elif x.shape[0] == batch:
        return observed
    elif x.shape[0] % batch == 0:
        return _shaped(observed.as_given_rows(), lambda t: t.reshape(batch, -1, t.shape[-1]))
    unknown = replace(observed.as_given_rows(), images=np.array([-1]), groups=observed.groups[:1])
    return _shaped(unknown, lambda t: t.reshape(1, -1, t.shape[-1]))


def _shaped(observed: Observed, shape: Callable[[Tensor], Tensor]) -> Observed:
    return replace(
        observed, x=shape(observed.x), y=shape(observed.y), norm=_reshaped(observed.norm, shape)
    )


def _valid(
    context: BatchContext, heads: int, tokens: int, positions: int
) -> NDArray[np.bool_] | None:
    """The mask over the positions of a layer that works on the masked tokens; None for layers on
    other grids (pooled, pixels).
    """
    if context.valid is None or tokens != context.valid.shape[1] or heads * tokens != positions:
        return None
    return np.tile(context.valid, (1, heads))


def first_tensor(args: tuple, kwargs: dict) -> Tensor | None:
    """The tensor a module was called with."""
    return next(
        (value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None
    )
