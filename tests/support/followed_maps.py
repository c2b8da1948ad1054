"""Attention distance from maps and from places written down by hand, for attention whose queries
and keys are on different grids."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def centres(rows: int, columns: int, step: float, first: float = 0.0) -> np.ndarray:
    """(rows * columns, 2) in pixels, row by row."""
    return np.array(
        [(first + i * step, first + j * step) for i in range(rows) for j in range(columns)]
    )


def distance(maps: Tensor, queries: np.ndarray, keys: np.ndarray, before: int = 0) -> np.ndarray:
    """(H,) of probabilities (B, H, L, S): patches follow `before` tokens, and what stands behind
    them is left out."""
    a = maps.detach().double().numpy()
    a = a[:, :, before : before + len(queries), before : before + len(keys)]
    d = np.sqrt(((queries[:, None] - keys[None]) ** 2).sum(-1))
    return ((a * d).sum(-1) / a.sum(-1)).mean((0, 2))


class SoftmaxMaps(TorchFunctionMode):
    """Keeps every probability (B, H, L, S) that a model computes, its fused attention included."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            q, k, scale = args[0], args[1], kwargs.get("scale")
            scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
            mask = kwargs.get("attn_mask")
            self.maps.append((scores if mask is None else scores + mask).softmax(-1))
        elif getattr(func, "__name__", "") == "softmax" and out.ndim == 4:
            self.maps.append(out)
        return out


def softmax_maps(module: nn.Module, *args: Tensor, **kwargs: Tensor) -> list[Tensor]:
    """In float64, of a copy."""
    with SoftmaxMaps() as seen, torch.no_grad():
        copy.deepcopy(module).double()(
            *(x.double() for x in args), **{name: x.double() for name, x in kwargs.items()}
        )
    return seen.maps
