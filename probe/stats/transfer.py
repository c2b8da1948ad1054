"""Arrays between the host and a device, without waiting for the device.

Why that is safe on CUDA (torch's notes on CUDA semantics, and on `Tensor.record_stream`):

- To the device: a copy from pinned memory is enqueued and returns. The allocator of pinned memory
  hands a block that was freed out again once the copies that read it have ended.
- To the host: the values are packed on the stream of the model. A second stream waits for that
  on the device and copies them, while the model's stream goes on with the next batch. The packed
  values belong to the model's stream, whose allocator knows nothing of the copy: they are held
  until the copy has ended, and so is the pinned memory that nothing valid stands in before.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(array: NDArray, device: torch.device) -> Tensor:
    """Enqueues a copy, see `sent`."""
    return sent(torch.from_numpy(np.ascontiguousarray(array)), device)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device. One of the host goes to CUDA by way of pinned memory of its own, as
    a copy from any other would wait for all that was enqueued before; one that is pinned already
    is waited for, as whoever pinned it may write the next batch to it.
    """
    if device.type != "cuda" or not tensor.is_cpu or tensor.is_pinned():
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@functools.lru_cache(maxsize=64)
def constant(values: bytes, dtype: str, device: torch.device) -> Tensor:
    """(n,) on a device where many batches read it; the first one waits for the copy, so that any
    stream may read it.
    """
    return torch.from_numpy(np.frombuffer(values, dtype).copy()).to(device)


class Transfer:
    """Values of tensors on their way to the host: one copy of each device that holds some.

        transfer = Transfer(tensors)  # enqueued
        first, second = transfer.arrays()  # waits

    Raises torch.OutOfMemoryError where a device has no memory left to pack them.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._shapes = [(tuple(tensor.shape), _numpy_dtype(tensor)) for tensor in tensors]
        by_device: dict[torch.device, list[int]] = {}
        # the widest first: each of them then begins at a multiple of its width
        for index in sorted(range(len(tensors)), key=lambda i: -tensors[i].element_size()):
            by_device.setdefault(tensors[index].device, []).append(index)
        self._copies = [
            (indices, _copy(torch.cat([_bytes(tensors[index]) for index in indices])))
            for indices in by_device.values()
        ]

    def arrays(self) -> list[NDArray]:
        """In the order of the tensors; views of one block of memory for each device. The only
        place of the statistics that waits for a device.
        """
        arrays: dict[int, NDArray] = {}
        for indices, copy in self._copies:
            arrays |= zip(indices, self._cut(copy.bytes(), indices), strict=True)
        return [arrays[index] for index in range(len(self._shapes))]

    def _cut(self, flat: NDArray[np.uint8], indices: list[int]) -> Iterable[NDArray]:
        start = 0
        for index in indices:
            shape, dtype = self._shapes[index]
            size = int(np.prod(shape)) * dtype.itemsize
            yield flat[start : start + size].view(dtype).reshape(shape)
            start += size


class _Copy:
    """Of bytes (n,) on any device."""

    def __init__(self, packed: Tensor) -> None:
        self._packed = packed

    def bytes(self) -> NDArray[np.uint8]:
        values: NDArray[np.uint8] = self._packed.cpu().numpy()
        return values


class _CudaCopy(_Copy):
    """Enqueued on a stream of its own."""

    def __init__(self, packed: Tensor) -> None:
        super().__init__(packed)  # held until it was read, see above
        self._pinned = torch.empty(packed.shape, dtype=torch.uint8, pin_memory=True)
        self._ended = torch.cuda.Event(blocking=True)  # the host sleeps while it waits
        is_packed = torch.cuda.current_stream(packed.device).record_event()
        stream = _copying(packed.device)
        with torch.cuda.stream(stream):
            stream.wait_event(is_packed)
            self._pinned.copy_(packed, non_blocking=True)
            self._ended.record(stream)

    def bytes(self) -> NDArray[np.uint8]:
        self._ended.synchronize()
        values: NDArray[np.uint8] = self._pinned.numpy()
        return values


def _copy(packed: Tensor) -> _Copy:
    return _CudaCopy(packed) if packed.device.type == "cuda" else _Copy(packed)


@functools.cache
def _copying(device: torch.device) -> torch.cuda.Stream:
    """The stream of copies to the host; the one of the model does not wait for it."""
    return torch.cuda.Stream(device)


def _bytes(tensor: Tensor) -> Tensor:
    """(n,) uint8."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _numpy_dtype(tensor: Tensor) -> np.dtype:
    return torch.empty(0, dtype=tensor.dtype).numpy().dtype
