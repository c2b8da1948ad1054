"""Small arrays between the host and a device: many at once, and without waiting where possible."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ALIGNED = 8  # bytes: every item of a dtype in use begins at such an address


def to_device(array: NDArray, device: torch.device) -> Tensor:
    """Enqueues a copy; to CUDA from pinned memory, as any other is waited for."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def to_host(tensors: Sequence[Tensor]) -> list[NDArray]:
    """The values of tensors of one device, in one transfer; the only place that waits for it."""
    if not any(tensor.numel() for tensor in tensors):
        return [np.empty(tuple(tensor.shape), _numpy_dtype(tensor)) for tensor in tensors]
    packed = torch.cat([_bytes(tensor) for tensor in tensors])
    if packed.is_cuda:
        pinned = torch.empty(packed.shape, dtype=torch.uint8, pin_memory=True)
        pinned.copy_(packed, non_blocking=True)
        torch.cuda.current_stream(packed.device).synchronize()
        packed = pinned
    flat, start, arrays = packed.cpu().numpy(), 0, []
    for tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        # a copy: what is kept of it must not hold the whole transfer
        part = flat[start : start + size].copy()
        arrays.append(part.view(_numpy_dtype(tensor)).reshape(tuple(tensor.shape)))
        start += math.ceil(size / _ALIGNED) * _ALIGNED
    return arrays


def _bytes(tensor: Tensor) -> Tensor:
    """(n,) uint8, n a multiple of _ALIGNED."""
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    return torch.nn.functional.pad(flat, (0, -len(flat) % _ALIGNED))


def _numpy_dtype(tensor: Tensor) -> np.dtype:
    return torch.empty(0, dtype=tensor.dtype).numpy().dtype
