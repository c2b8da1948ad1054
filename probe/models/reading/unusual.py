"""Which modules of a model look like normalization layers and are not read, and which layers are
read, but are more than weight * normalized + bias.
"""

from __future__ import annotations

from torch import nn

from probe.models.reading.layers import norm_modules, unwrapped
from probe.models.reading.recognize import looks_like_a_norm, recognize


def unread_norms(module: nn.Module) -> dict[str, str]:
    """Paths and classes of modules that look like normalization layers and are not read."""
    module = unwrapped(module)
    read = {id(part) for _, norm, _ in norm_modules(module) for part in norm.modules()}
    return {
        name: type(child).__name__
        for name, child in module.named_modules()
        if id(child) not in read and looks_like_a_norm(child)
    }


def affine_errors(module: nn.Module) -> dict[str, float]:
    """Layers whose output in a trial on random numbers is not weight * normalized + bias, with the
    largest error relative to the largest output. The classes of known libraries need no trial.
    """
    layers = [(name, recognize(child)) for name, child, _ in norm_modules(unwrapped(module))]
    return {
        name: layer.error
        for name, layer in layers
        if layer is not None and layer.error is not None and not layer.is_right
    }
