"""Modules and inputs for the tests of the zoo."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from probe.norms import create_norm
from probe.norms.base import Norm
from support.norm_references import OPTIONS

CHANNELS = 8


def made(name: str, seed: int = 0, **options: Any) -> Norm:
    """A fresh norm with the options of the contract, from a fixed seed."""
    torch.manual_seed(seed)
    norm = create_norm(name, CHANNELS, **{**OPTIONS.get(name, {}), **options})
    assert isinstance(norm, Norm)
    return norm


def inputs(name: str, images: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """(B, 6, 8), or (B, 8, 2, 3) for norms on images; channels differ in mean and spread."""
    rng = torch.Generator().manual_seed(seed)
    tokens = torch.randn(images, 6, CHANNELS, generator=rng, dtype=torch.float64)
    tokens = tokens * torch.linspace(0.5, 3, CHANNELS, dtype=torch.float64) + torch.linspace(
        -1, 2, CHANNELS, dtype=torch.float64
    )
    return laid_out(name, tokens).to(dtype)


def laid_out(name: str, tokens: Tensor) -> Tensor:
    """Tokens (B, 6, C) in the layout of the norm: for images a grid of 2 x 3."""
    if not name.endswith("_2d"):
        return tokens
    return tokens.transpose(1, 2).reshape(len(tokens), -1, 2, 3)


def trained(norm: nn.Module, name: str, steps: int = 3, dtype: torch.dtype = torch.float64) -> Any:
    """The norm after some training steps, each parameter moved by noise as well; in training
    mode.
    """
    norm.to(dtype).train()
    rng = torch.Generator().manual_seed(1)
    for step in range(steps):
        norm(inputs(name, seed=step, dtype=dtype).requires_grad_()).square().sum().backward()
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.add_(
                0.2 * torch.randn(parameter.shape, generator=rng, dtype=torch.float64).to(dtype)
            )
            parameter.grad = None
    return norm


def ready(name: str, dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    """A trained norm in evaluation mode."""
    return trained(made(name, **options), name, dtype=dtype).eval()


def state_arrays(norm: nn.Module) -> dict[str, Any]:
    return {name: value.numpy().copy() for name, value in norm.state_dict().items()}
