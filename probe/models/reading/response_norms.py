"""Normalization layers that are more than weight * normalized + bias of one formula: response norms
and EvoNorms.

Global response normalization (ConvNeXt V2, https://arxiv.org/abs/2301.00808), filter response
normalization (https://arxiv.org/abs/1911.09737), EvoNorm (https://arxiv.org/abs/2004.02967), local
response normalization (AlexNet). Images (B, C, H, W); the first also (B, H, W, C).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from probe.models.reading.conventions import eps
from probe.models.reading.formulas import Formula
from probe.models.reading.lone import plain
from probe.models.reading.norm_types import NormType
from probe.norms.base import wide
from probe.stats.observed import GivenNorm

_SKIP = "it adds its own input to its output"
_THRESHOLD = "the threshold or activation after it is part of the module"


def _is_called(pattern: str) -> Callable[[nn.Module], bool]:
    compiled = re.compile(pattern)
    return lambda module: compiled.fullmatch(type(module).__name__) is not None


_is_global_response = _is_called(r"GlobalResponseNorm|GRN|\w+GRN")


def _response_on_planes(module: nn.Module) -> bool:
    """timm's class says which axis the channels are on; all others are channels-last."""
    return _is_global_response(module) and getattr(module, "channel_dim", -1) == 1


def _global_response(module: Any, x: Tensor, planes: bool = False) -> Formula:
    """z = x * g_c / (mean over channels of g + eps), g_c = sqrt(sum over pixels of x_c^2); the
    output is x + w z + b.
    """
    x = wide(x)
    pixels, channel = ((2, 3), 1) if planes else ((1, 2), -1)
    g = torch.linalg.vector_norm(x, dim=pixels, keepdim=True)
    # the class in transformers holds no eps: it writes this one out
    own = eps(module)
    return GivenNorm(x * g / (g.mean(dim=channel, keepdim=True) + (1e-6 if own is None else own)))


def _without_skip(module: Any, x: Tensor, y: Tensor) -> Tensor:
    return y.to(wide(y).dtype) - x


def _filter_response(module: Any, x: Tensor) -> Formula:
    """z = x / sqrt(mean over pixels of x^2 + eps), without the threshold or activation after it."""
    return GivenNorm(plain(module, x, **_open(module)))


def _before_threshold(module: Any, x: Tensor, y: Tensor) -> Tensor:
    """w z + b: the threshold max(y, tau), or the activation, cannot be taken back from y."""
    z = plain(module, x, **_open(module))
    weight, bias = (
        value.detach().to(z.dtype).view(1, -1, 1, 1) for value in (module.weight, module.bias)
    )
    return z * weight + bias


def _open(module: Any) -> dict[str, Any]:
    return {"act": nn.Identity()} if hasattr(module, "act") else {"tau": None}


def _own(module: Any, x: Tensor) -> Formula:
    """Whatever stands before weight and bias in the module's own forward pass."""
    return GivenNorm(plain(module, x))


def _evo_norms() -> list[NormType]:
    """Series B divides by the larger of two deviations, series S gates before it divides: both
    hold the nonlinearity inside of z.
    """
    return [
        NormType(
            f"evo_norm_{series.lower()}",
            _is_called(rf"EvoNorm2d{series}"),
            _own,
            channels_last=False,
        )
        for series in ("B0", "B1", "B2", "S0", "S0a", "S1", "S1a", "S2", "S2a")
    ]


RESPONSE_NORMS: tuple[NormType, ...] = (
    NormType(
        "global_response_norm_2d",
        _response_on_planes,
        partial(_global_response, planes=True),
        channels_last=False,
        before_more=_without_skip,
        stays=_SKIP,
    ),
    NormType(
        "global_response_norm",
        _is_global_response,
        _global_response,
        before_more=_without_skip,
        stays=_SKIP,
    ),
    NormType(
        "filter_response_norm",
        _is_called(r"FilterResponseNorm(Tlu|Act)2d"),
        _filter_response,
        channels_last=False,
        before_more=_before_threshold,
        stays=_THRESHOLD,
    ),
    *_evo_norms(),
    NormType(
        "local_response_norm",
        lambda module: isinstance(module, nn.LocalResponseNorm),
        _own,
        channels_last=False,
    ),
)
