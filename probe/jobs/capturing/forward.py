"""One forward pass of a batch: on the device of the model, without gradients."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from probe.errors import unknown
from probe.jobs.inputs import Inputs
from probe.models.loading.load import Model
from probe.stats.transfer import sent

_AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast_dtype(name: str | None) -> torch.dtype | None:
    """The dtype of torch.autocast by its name; None: no autocast. Raises UsageError for any other
    name.
    """
    if name is not None and name not in _AUTOCAST:
        raise unknown("--autocast", name, _AUTOCAST)
    return _AUTOCAST[name] if name is not None else None


def forward(model: Model, batch: Inputs, autocast: torch.dtype | None = None) -> Any:
    """One forward pass without gradients, on the device of the parameters. A capture leaves its
    output to the hooks.
    """
    device = next((p.device for p in model.module.parameters()), torch.device("cpu"))
    args, kwargs = to_device(batch.args, device), to_device(batch.kwargs, device)
    cast = torch.autocast(device.type, autocast) if autocast else nullcontext()
    with torch.no_grad(), cast:
        return model.module(*args, **kwargs)


def on_device(batch: Inputs, module: nn.Module) -> Inputs:
    """The batch on the device of the module's parameters."""
    device = next((each.device for each in module.parameters()), torch.device("cpu"))
    args, kwargs = to_device(batch.args, device), to_device(batch.kwargs, device)
    return Inputs(args, kwargs, batch.images, batch.groups)


def input_size(batch: Inputs) -> tuple[int, int] | None:
    """(height, width) of the images (B, C, H, W) in the batch; None where the module takes
    something else.
    """
    images = (
        value
        for value in (*batch.args, *batch.kwargs.values())
        if isinstance(value, Tensor) and value.ndim == 4
    )
    shape = next((value.shape for value in images if value.is_floating_point()), None)
    return (int(shape[-2]), int(shape[-1])) if shape is not None else None


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors on the device, in whatever they are packed."""
    if isinstance(value, Tensor):
        return sent(value, device)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(to_device(item, device) for item in value)
    return value
