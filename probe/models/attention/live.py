"""Attention probabilities of a network in training, with their gradients: for losses on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from probe.errors import UsageError
from probe.models.attention.calls import Call
from probe.models.attention.functions import AttentionFunctions


@contextmanager
def live_attention(
    module: nn.Module,
    count: int,
    begin: Callable[[], None],
    take: Callable[[Tensor], None],
) -> Iterator[None]:
    """Of each forward pass in training mode, `take` gets the probabilities (..., queries, keys) of
    the first `count` attention calls. `begin` is called before each forward pass.

    The network's own calls run beside it and its output stays equal.
    """
    open_passes: list[ExitStack] = []

    def entering(root: nn.Module, _: Any) -> None:
        begin()
        if root.training:
            stack = ExitStack()
            stack.enter_context(AttentionFunctions(_first(count, take)))
            open_passes.append(stack)

    def leaving(*_: Any) -> None:
        while open_passes:
            open_passes.pop().close()

    with ExitStack() as stack:
        stack.callback(module.register_forward_pre_hook(entering).remove)
        stack.callback(module.register_forward_hook(leaving, always_call=True).remove)
        yield


def _first(count: int, take: Callable[[Tensor], None]) -> Callable[[Call], None]:
    seen: list[None] = []

    def see(call: Call) -> None:
        if len(seen) < count:
            seen.append(None)
            take(probabilities(call))

    return see


def probabilities(call: Call) -> Tensor:
    """(..., queries, keys) in float32. Raises UsageError for causal attention."""
    if call.scores is not None:
        return torch.softmax(call.scores.float(), dim=-1)
    assert call.q is not None
    assert call.k is not None
    if call.causal:
        raise UsageError(
            "the loss on attention is of images; this attention is causal: give --attention-loss 0"
        )
    scores = (call.q.float() * call.scale) @ call.k.float().transpose(-2, -1)
    if call.bias is not None:
        masked = call.bias.dtype == torch.bool
        scores = scores.masked_fill(~call.bias, -torch.inf) if masked else scores + call.bias
    return torch.softmax(scores, dim=-1)


__all__ = ["live_attention", "probabilities"]
