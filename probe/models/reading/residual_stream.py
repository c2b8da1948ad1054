"""The residual stream of a transformer while it runs: what is added up between its blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from probe.errors import UsageError

PARTS = ("norm1", "attn", "norm2", "mlp")  # of a pre-norm block, as timm names them


@contextmanager
def residual_stream(
    module: nn.Module, begin: Callable[[], None], take: Callable[[Tensor], None]
) -> Iterator[None]:
    """Of each forward pass in training mode, `take` gets the stream (B, T, C) twice per block:
    after attention (what norm2 is given) and after the feed-forward layer (what the block returns).
    `begin` is called before each forward pass. Tensors keep their gradients.

    Raises UsageError for a network without such blocks and, while it runs, for post-norm blocks.
    """
    blocks: dict[str, Any] = {
        name: each for name, each in module.named_modules() if all(hasattr(each, p) for p in PARTS)
    }
    if not blocks:
        raise UsageError(
            f"feature decay needs blocks with {', '.join(PARTS)}, as timm's vision transformers "
            f"have; {type(module).__name__} has none: give --feature-decay 0"
        )

    def before(parent: nn.Module, given: tuple[Any, ...]) -> None:
        if parent.training:
            take(given[0])

    def after(block: nn.Module, given: Any, returned: Any) -> None:
        if block.training:
            take(returned)

    with ExitStack() as stack:
        stack.callback(module.register_forward_pre_hook(lambda *_: begin()).remove)
        for name, block in blocks.items():
            for hook in _refusing_post_norm(name, block):
                stack.callback(hook.remove)
            stack.callback(block.norm2.register_forward_pre_hook(before).remove)
            stack.callback(block.register_forward_hook(after).remove)
        yield


def _refusing_post_norm(name: str, block: Any) -> list[Any]:
    """In a post-norm block attention runs first, and norm2 is not given the residual stream."""
    normed: list[bool] = []

    def attending(*_: Any) -> None:
        if not normed:
            raise UsageError(
                f"feature decay needs pre-norm blocks; attention of {name} runs before norm1: give "
                "--feature-decay 0"
            )
        normed.clear()

    return [
        block.norm1.register_forward_pre_hook(lambda *_: normed.append(True)),
        block.attn.register_forward_pre_hook(attending),
    ]


__all__ = ["PARTS", "residual_stream"]
