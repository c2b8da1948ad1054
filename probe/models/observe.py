"""Lay out what a hook saw as (image, position, channel), whatever the layer's own layout."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from probe.models.layers import NormType
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


def observe(name: str, module: nn.Module, kind: NormType, x: Tensor, y: Tensor, context: BatchContext) -> Observed:
    """The observation of one call of the norm layer `name`, with x its input and y its output."""
    if (
        not kind.channels_last
        and isinstance(module, nn.modules.instancenorm._InstanceNorm)
        and x.ndim == module._get_no_batch_dim()
    ):
        x, y = x[None], y[None]
    norm = kind.norm(module, x)
    axes = len(getattr(module, "normalized_shape", (1,))) if kind.channels_last else 1
    if kind.channels_last and axes > 1:  # LayerNorm over (C, H, W): every normalized entry is a channel
        x, y = x.flatten(-axes), y.flatten(-axes)
    channels_last = kind.channels_last
    if not channels_last:
        x, y = x.flatten(2) if x.ndim > 2 else x[..., None], y.flatten(2) if y.ndim > 2 else y[..., None]
        norm = replace(norm, z=norm.z.reshape(x.shape)) if isinstance(norm, GivenNorm) else norm
        if not isinstance(norm, PlaneNorm):  # a token norm on NCHW
            x, y, channels_last = x.transpose(1, 2), y.transpose(1, 2), True
            norm = replace(norm, z=norm.z.transpose(1, 2)) if isinstance(norm, GivenNorm) else norm
    elif isinstance(norm, GivenNorm):
        norm = replace(norm, z=norm.z.reshape(x.shape))
    heads, tokens = _heads_and_tokens(name, x, kind)
    observed = Observed(x, y, norm, channels_last, context.images, context.groups, np.zeros(0, np.uint8))
    observed = _by_image(observed, len(context.images))
    positions = observed.positions
    kinds = np.zeros(positions, np.uint8)
    if context.prefix_tokens and tokens > context.prefix_tokens and heads * tokens == positions:
        kinds.reshape(heads, tokens)[:, : context.prefix_tokens] = 1
    return replace(observed, kinds=kinds, valid=_valid(context, heads, tokens, positions))


def _heads_and_tokens(name: str, x: Tensor, kind: NormType) -> tuple[int, int]:
    """How the positions of an image split into heads and tokens; no tokens where the positions are pixels or a pooled vector."""
    if not kind.channels_last:
        return 1, 0
    if x.ndim == 3:
        return 1, x.shape[1]
    if x.ndim == 4 and _IS_HEAD_NORM.search(name.lower()):
        return x.shape[1], x.shape[2]
    return 1, 0


def _by_image(observed: Observed, batch: int) -> Observed:
    """Bring the tensors into (B, P, C) or (B, C, P) with B the images of the batch.

    Sequence-first tensors are turned; a first axis that is a multiple of the batch (windows, pixel groups) splits into images, batch
    major. Where the batch is not found, everything counts as one image with index -1.
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


def _shaped(observed: Observed, shape: object) -> Observed:
    assert callable(shape)
    norm = observed.norm
    if isinstance(norm, GivenNorm):
        norm = GivenNorm(shape(norm.z))
    return replace(observed, x=shape(observed.x), y=shape(observed.y), norm=norm)


def _valid(context: BatchContext, heads: int, tokens: int, positions: int) -> NDArray[np.bool_] | None:
    """The mask over the positions of a layer that works on the masked tokens; None for layers on other grids (pooled, pixels)."""
    if context.valid is None or tokens != context.valid.shape[1] or heads * tokens != positions:
        return None
    return np.tile(context.valid, (1, heads))


def first_tensor(args: tuple, kwargs: dict) -> Tensor | None:
    """The tensor a module was called with."""
    return next((value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)), None)
