"""Lay out what a hook saw as (image, position, channel), whatever the layer's own layout."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from probe.errors import UsageError
from probe.models.reading.conventions import normalized_shape
from probe.models.reading.formulas import Formula
from probe.models.reading.norm_types import NormType
from probe.stats.observed import GivenNorm, Observed, PlaneNorm, given_rows

# q/k norms see (B, heads, tokens, head channels): a position is (head, token)
_IS_HEAD_NORM = re.compile(r"(^|[._])((q|k|query|key)_?(layer)?_?norm|(norm|ln)_?(q|k))$")


@dataclass(frozen=True)
class BatchContext:
    """The images of the batch that is running."""

    images: NDArray[np.int64]  # (B,) image index
    groups: NDArray[np.int64]  # (B,) jackknife group
    prefix_tokens: int = 0
    valid: NDArray[np.bool_] | None = None  # (B, T) False for padding tokens


class Observer:
    """Lays out what the hook of one norm layer sees.

    observer = Observer("blocks.0.norm1", module, kind)
    observed = observer(x, y, context)  # input and output of one call
    """

    def __init__(self, name: str, module: nn.Module, kind: NormType) -> None:
        self._name, self._module, self._kind = name, module, kind
        self._is_head_norm = bool(_IS_HEAD_NORM.search(name.lower()))
        self._line: tuple[_State, PlaneNorm] | None = None  # and the module's state that it is of

    def __call__(self, x: Tensor, y: Tensor, context: BatchContext) -> Observed:
        """Raises UsageError where a formula that was registered does not fit the layer."""
        module, kind = self._module, self._kind
        x, y = _with_batch_axis(module, x, y)
        norm = self._formula(x)
        if kind.before_more is not None:
            y = kind.before_more(module, x, y)
        heads, tokens = self._heads_and_tokens(x)
        laid = _on_rows(module, x, y, norm) if kind.channels_last else _on_planes(x, y, norm)
        laid, images, groups = _by_image(laid, context)
        positions = laid.x.shape[1 if laid.channels_last else 2]
        # a layer that says so itself stands where the model's class token has not joined yet
        prefix = getattr(module, "num_prefix_tokens", context.prefix_tokens)
        kinds = _prefix_positions(prefix, heads, tokens, positions)
        return Observed(*laid, images, groups, kinds, _valid(context, heads, tokens, positions))

    def _formula(self, x: Tensor) -> Formula:
        """A line is the same as long as the module is."""
        if self._line is not None and self._line[0].equals(_State.of(self._module)):
            return self._line[1]
        try:
            norm = self._kind.formula(self._module, x)
        except UsageError as error:  # of a registration
            raise UsageError(f"layer {self._name!r}: {error}") from error
        if isinstance(norm, PlaneNorm) and norm.fixed:
            state = _State.of(self._module)
            self._line = None if state is None else (state, norm)
        return norm

    def _heads_and_tokens(self, x: Tensor) -> tuple[int, int]:
        """How the positions of an image split into heads and tokens; no tokens where the positions
        are pixels or a pooled vector.
        """
        if not self._kind.channels_last:
            return 1, 0
        if x.ndim == 3:
            return 1, x.shape[1]
        if x.ndim == 4 and self._is_head_norm:
            return x.shape[1], x.shape[2]
        return 1, 0


class _State(NamedTuple):
    """Which tensors a module holds, and how often each was written to."""

    training: bool
    tensors: list[Tensor | None]
    versions: list[int]

    @classmethod
    def of(cls, module: nn.Module) -> _State | None:
        """None where that does not say all: children have tensors of their own, and those made in
        inference mode count nothing.
        """
        tensors = [*module._buffers.values(), *module._parameters.values()]
        if module._modules or any(t is not None and t.is_inference() for t in tensors):
            return None
        return cls(module.training, tensors, [0 if t is None else t._version for t in tensors])

    def equals(self, other: _State | None) -> bool:
        return (
            other is not None
            and self.training == other.training
            and self.versions == other.versions
            and all(map(operator.is_, self.tensors, other.tensors))
        )


class _Laid(NamedTuple):
    """The first fields of an `Observed`."""

    x: Tensor
    y: Tensor
    norm: Formula
    channels_last: bool

    def shaped(self, shape: Callable[[Tensor], Tensor]) -> _Laid:
        norm = self.norm
        norm = GivenNorm(shape(norm.z)) if isinstance(norm, GivenNorm) else norm
        return _Laid(shape(self.x), shape(self.y), norm, self.channels_last)


def _with_batch_axis(module: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """InstanceNorm takes a single image without a batch axis."""
    if isinstance(module, _InstanceNorm) and x.ndim == module._get_no_batch_dim():
        return x[None], y[None]
    return x, y


def _on_rows(module: nn.Module, x: Tensor, y: Tensor, norm: Formula) -> _Laid:
    """(..., C); of a LayerNorm over (C, H, W) every normalized entry is a channel."""
    laid = _Laid(x, y, norm, True)
    axes = len(normalized_shape(module))
    return laid.shaped(lambda t: t.flatten(-axes)) if axes > 1 else laid


def _on_planes(x: Tensor, y: Tensor, norm: Formula) -> _Laid:
    """(B, C, ...) as (B, C, P), where the norm is one per plane; else (B, P, C), channels last."""
    laid = _Laid(x, y, norm, False).shaped(lambda t: t.flatten(2) if t.ndim > 2 else t[..., None])
    if isinstance(norm, PlaneNorm):
        return laid
    return laid.shaped(lambda t: t.transpose(1, 2))._replace(channels_last=True)


@functools.lru_cache(maxsize=64)
def _prefix_positions(
    prefix_tokens: int, heads: int, tokens: int, positions: int
) -> NDArray[np.uint8]:
    """(P,) 1 at class and register tokens (of every head), where the positions are tokens at
    all.
    """
    kinds = np.zeros(positions, np.uint8)
    if prefix_tokens and tokens > prefix_tokens and heads * tokens == positions:
        kinds.reshape(heads, tokens)[:, :prefix_tokens] = 1
    kinds.flags.writeable = False  # it is handed out more than once
    return kinds


def _by_image(
    laid: _Laid, context: BatchContext
) -> tuple[_Laid, NDArray[np.int64], NDArray[np.int64]]:
    """The tensors as (B, P, C) or (B, C, P) with B the images of the batch, the images and their
    groups.

    Sequence-first tensors are turned; a first axis that is a multiple of the batch (windows, pixel
    groups) splits into images, batch major. Where the batch is not found, everything counts as one
    image with index -1.
    """
    x, batch = laid.x, len(context.images)
    known = context.images, context.groups
    if x.ndim == 3 and x.shape[0] == batch:
        return laid, *known
    if laid.channels_last and x.ndim == 3 and x.shape[1] == batch:
        return laid.shaped(lambda t: t.transpose(0, 1)), *known
    splits = x.shape[0] % batch == 0
    if not (laid.channels_last and splits):
        laid = _Laid(*given_rows(*laid))
    count = batch if splits else 1
    laid = laid.shaped(lambda t: t.reshape(count, -1, t.shape[-1]))
    return (laid, *known) if splits else (laid, np.array([-1]), context.groups[:1])


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
    for value in args:
        if isinstance(value, Tensor):
            return value
    return next((value for value in kwargs.values() if isinstance(value, Tensor)), None)
