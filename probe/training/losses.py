"""Losses on what happens inside of a network, from outside of it: hooks read the values, the
network and its output stay as they are.

Both are of the LearnableScaler project (https://github.com/nghiemtuan/LearnableScaler), which
trains vision transformers without normalization layers: nothing else holds their values down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from probe.models.attention.live import live_attention
from probe.models.reading.residual_stream import residual_stream
from probe.training.recipe import Recipe

LARGEST = 200.0  # |value| in the residual stream above which feature decay begins
PEAKED = 0.5  # largest probability of a row from which on it is left alone

Extra = Callable[[], Tensor | None]


@contextmanager
def extra_losses(module: nn.Module, recipe: Recipe) -> Iterator[Extra]:
    """What to add to the loss of a forward pass in training mode; None where there is nothing.

        with extra_losses(module, recipe) as extra:
            loss = criterion(module(images), labels)
            if (added := extra()) is not None:
                loss = loss + added

    The sum over blocks of `feature_decay * excess`, twice per block, and of `attention_loss *
    diffuse_rows` over the first `attention_loss_layers` calls of attention. As published
    (`squared_losses`) the weights are feature_decay squared, and attention_loss * feature_decay.

    Raises UsageError where the network has no blocks that could be read.
    """
    terms: list[Tensor] = []
    decay, attention = weights(recipe)
    with ExitStack() as stack:
        if decay:
            stack.enter_context(
                residual_stream(module, terms.clear, lambda h: terms.append(decay * excess(h)))
            )
        if attention:
            stack.enter_context(
                live_attention(
                    module,
                    recipe.attention_loss_layers,
                    terms.clear,
                    lambda rows: terms.append(attention * diffuse_rows(rows)),
                )
            )
        yield lambda: torch.stack(terms).sum() if terms else None


def weights(recipe: Recipe) -> tuple[float, float]:
    """Of feature decay and of the attention loss, as they are applied."""
    decay = recipe.feature_decay
    attention = recipe.attention_loss if recipe.attention_loss_layers else 0.0
    return (decay * decay, attention * decay) if recipe.squared_losses else (decay, attention)


def excess(h: Tensor) -> Tensor:
    """mean(d) + max(d) with d = |h| - 200 over the entries where it is positive; 0 without any."""
    d = torch.relu(h.float().abs() - LARGEST)
    return d.sum() / (d > 0).sum().clamp(min=1) + d.max()


def diffuse_rows(probabilities: Tensor) -> Tensor:
    """1 - mean of m over the rows (..., keys) whose largest probability m is below 1/2; 0 without
    any. Its gradient goes to the largest entry of each such row: they become peaked, up to 1/2.
    """
    m = probabilities.amax(-1)
    rows = m < PEAKED
    loss = 1 - (m * rows).sum() / rows.sum().clamp(min=1)
    return torch.where(rows.any(), loss, torch.zeros_like(loss))


__all__ = ["Extra", "diffuse_rows", "excess", "extra_losses", "weights"]
