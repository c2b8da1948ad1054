"""A network is the same after it was looked at: what a forward pass moves is put back.

In train mode BatchNorm and its kin move their running statistics, which are buffers; spectral norm
moves its vectors whenever the weight is so much as looked at. The values are put back into the very
tensors that the network had, as other code may hold them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Every buffer of `module` holds the same values after the block as before, bit for bit; modes
    and parameters are not touched. Costs one copy of the buffers.

        with unchanged(model), torch.no_grad():
            model.train()(batch)
    """
    owned = [(child, dict(child._buffers)) for child in module.modules()]
    tensors = {value for _, buffers in owned for value in buffers.values() if value is not None}
    copies = [(value, value.detach().clone()) for value in tensors]
    try:
        yield
    finally:
        with torch.inference_mode():  # the one mode that may write into tensors of any mode
            for value, copy in copies:
                value.copy_(copy)
        for child, buffers in owned:
            child._buffers.update(buffers)


__all__ = ["unchanged"]
