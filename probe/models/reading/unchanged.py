"""A network is the same after it was looked at: what a forward pass moves is put back.

In train mode BatchNorm and its kin move their running statistics, which are buffers; so do the
power iterations of spectral norm. The values are put back into the very tensors that the network
had, as other code may hold them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Held = list[tuple[dict[str, Tensor | None], str, Tensor | None, Tensor | None]]


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Every buffer of `module` holds the same values after the block as before, bit for bit; modes
    and parameters are not touched. Costs one copy of the buffers.
    """
    held: Held = [
        (child._buffers, name, value, value.detach().clone() if value is not None else None)
        for child in module.modules()
        for name, value in child._buffers.items()
    ]
    try:
        yield
    finally:
        for buffers, name, value, copy in held:
            if value is not None and copy is not None and not torch.equal(value, copy):
                value.detach().copy_(copy)
            buffers[name] = value


def train_mode_warning(module: nn.Module) -> str | None:
    """What must be said of a network that is looked at in train mode; None in evaluation mode."""
    training = [name for name, child in module.named_modules() if child.training]
    if not training:
        return None
    which = "the model" if training[0] == "" else ", ".join(training[:3])
    return (
        f"TRAIN MODE: {which} ran in train mode, with batch statistics and dropout; running "
        "statistics that moved were put back"
    )


__all__ = ["train_mode_warning", "unchanged"]
