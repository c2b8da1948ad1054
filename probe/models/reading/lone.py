"""A normalization layer by itself: a copy with parameters of our choice, run without the model.

The copy shares nothing that a forward pass could change, and it runs its class's own `forward`, so
neither the hooks on the module nor its running statistics notice.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from probe.models.reading.conventions import affine_names
from probe.norms.base import wide


def twin(module: nn.Module, values: Mapping[str, Any], dtype: torch.dtype | None = None) -> Any:
    """A copy of the module with other tensors, sub-modules or plain attributes by name; every
    floating tensor in `dtype`, where one is given.
    """
    other = type(module).__new__(type(module))
    state = other.__dict__
    state.update(module.__dict__)
    state |= {name: OrderedDict() for name in state if name.endswith("_hooks")}
    for store in ("_parameters", "_buffers"):
        own = {name: _copied(value, dtype) for name, value in getattr(module, store).items()}
        state[store] = own | {name: value for name, value in values.items() if name in own}
    state["_modules"] = {
        name: values[name] if name in values else copy.deepcopy(child)
        for name, child in module._modules.items()
    }
    placed = {name for store in ("_parameters", "_buffers", "_modules") for name in state[store]}
    for name in values.keys() - placed:
        state[name] = values[name]
    return other


def _copied(value: Tensor | None, dtype: torch.dtype | None) -> Tensor | None:
    if value is None:
        return None
    floating = dtype is not None and value.is_floating_point()
    return value.detach().to(dtype=dtype if floating else value.dtype, copy=True)


def run(module: nn.Module, x: Tensor) -> Any:
    """What the class of the module computes of x, without any hook."""
    with torch.no_grad():
        return type(module).forward(module, x)


def plain(module: nn.Module, x: Tensor, **more: Any) -> Tensor:
    """z of a module whose output is w * z + b, whatever z is: its output with w = 1 and b = 0.

    more: further parts to take out, such as `act=nn.Identity()`.
    """
    x = wide(x)
    values: dict[str, Any] = dict(more)
    for name, neutral in zip(affine_names(module), (1.0, 0.0), strict=True):
        if name is not None:
            values[name] = torch.full_like(getattr(module, name), neutral, dtype=x.dtype)
    return run(twin(module, values, x.dtype), x)
