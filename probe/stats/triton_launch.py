"""Enqueue the Triton kernels over what a layer saw in one batch, without waiting for the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probe.stats.batch_summary import Bounds, Candidates, Reduced, leaves_some_inside
from probe.stats.fixed_point import Measure
from probe.stats.observed import GivenNorm, Observed, PlaneNorm, TokenNorm, is_line
from probe.stats.sums import ChannelSum
from probe.stats.transfer import constant, to_device

CANDIDATES = 1 << 12  # values outside of the bounds that are listed as they come
COPIES = 4  # of the cells of one group: programs that meet at a cell wait for each other
TILE = 1 << 10  # elements
FARTHEST_WIDTH = 16  # channels of a program that looks for the farthest
PROGRAMS = 512  # at least so many, as far as there are positions: a few for each multiprocessor

# of x and z; as slices, since a list as an index would be copied to the device, and waited for
_MIN = slice(ChannelSum.X_MIN, None, ChannelSum.Z_MIN - ChannelSum.X_MIN)
_MAX = slice(ChannelSum.X_MAX, None, ChannelSum.Z_MAX - ChannelSum.X_MAX)


@dataclass(frozen=True)
class _Tile:
    """How the work is cut: a program does `rows_each` positions of one of `parts` of an image and
    one of `blocks` of its channels, `rows` x `width` elements at a time.
    """

    rows: int
    width: int
    rows_each: int
    parts: int
    blocks: int
    warps: int

    @classmethod
    def of(cls, observed: Observed) -> _Tile:
        positions, channels = observed.positions, observed.channels
        channel_stride = observed.x.stride(2 if observed.channels_last else 1)
        if isinstance(observed.norm, TokenNorm):  # statistics need the whole row
            width = _power_of_two(channels)
            rows = max(1, min(TILE // width, _power_of_two(positions)))
        elif channel_stride == 1:
            width = min(128, _power_of_two(channels))
            rows = min(TILE // width, _power_of_two(positions))
        else:  # planes: neighbours in memory are positions
            rows = min(128, _power_of_two(positions))
            width = min(TILE // rows, _power_of_two(channels))
        blocks = -(-channels // width)
        wanted = -(-PROGRAMS // (len(observed.images) * blocks))
        rounds = -(-positions // rows)
        rounds_each = -(-rounds // min(wanted, rounds))
        parts = -(-rounds // rounds_each)
        # four elements a thread: with eight, the compiler runs out of registers
        warps = min(max(rows * width // 128, 1), 16)
        return cls(rows, width, rounds_each * rows, parts, blocks, warps)


@dataclass(frozen=True)
class _Copies:
    """Copies of the cells: up to COPIES of each group of images, who take them in turn."""

    of_image: NDArray[np.int32]  # (B,)
    group: NDArray[np.int64]  # (copies,) as an index of `groups`
    groups: NDArray[np.int64]
    most: int  # images of one group

    @classmethod
    def of(cls, groups: NDArray[np.int64]) -> _Copies:
        unique, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
        turn = np.zeros(len(groups), np.int64)  # of the image within its group
        for index in range(len(unique)):
            turn[group == index] = np.arange(counts[index]) % COPIES
        pairs, of_image = np.unique(group * COPIES + turn, return_inverse=True)
        return cls(of_image.astype(np.int32), pairs // COPIES, unique, int(counts.max()))


def reduce(observed: Observed, bounds: Bounds, most: int) -> Reduced:
    """See `device_summary.reduce`."""
    # where Triton is missing, nobody calls this
    from probe.stats import triton_farthest, triton_kernels

    device, channels = observed.x.device, observed.channels
    tile, copies = _Tile.of(observed), _Copies.of(observed.groups)
    kinds, binned = 1 + (observed.prefix_tokens > 0), not is_line(observed)
    measure = Measure.of(observed.norm, copies.most * observed.positions, channels)
    fixed = measure.no_cells(len(copies.group) if binned else 0, kinds, device)
    shape = (len(observed.images), tile.parts, len(ChannelSum), channels)
    sums = torch.empty(shape, dtype=torch.float64, device=device)
    bad = torch.empty((*shape[:2], tile.blocks), dtype=torch.int32, device=device)
    rows = len(observed.images) if isinstance(observed.norm, TokenNorm) else 0
    means, sigmas = torch.empty((2, rows, observed.positions), dtype=torch.float64, device=device)
    listed = observed.x.numel() <= CANDIDATES or leaves_some_inside(bounds)
    candidates = _no_candidates(channels, most, listed, device)
    reads = _arguments(observed)
    tail = {
        "values": candidates.values,
        "places": candidates.places,
        "taken": candidates.count,
        "capacity": candidates.capacity,
    }
    low, high = to_device(np.stack(bounds), device)
    triton_kernels.reduce[len(observed.images), tile.parts, tile.blocks](
        **reads,
        **tail,
        kinds=constant(observed.kinds.tobytes(), "u1", device),
        copy_of=to_device(copies.of_image, device),
        low=low,
        high=high,
        z_unit=measure.z_unit,
        cells=fixed,
        sums=sums,
        bad=bad,
        means=means,
        sigmas=sigmas,
        rows_each=tile.rows_each,
        quantum=measure.quantum,
        WHOLE=measure.whole,
        BINNED=binned,
        COLLECT=listed,
        KINDS=kinds,
        ROWS=tile.rows,
        WIDTH=tile.width,
        num_warps=tile.warps,
    )
    width = min(FARTHEST_WIDTH, _power_of_two(channels))
    triton_farthest.farthest[-(-channels // width), 2](
        **reads,
        **tail,
        sigmas=sigmas,
        rows=len(observed.images) * observed.positions,
        most=most,
        ROWS=TILE // FARTHEST_WIDTH,
        WIDTH=width,
    )
    cells = measure.decoded(_of_groups(fixed, copies))
    groups = copies.groups[: cells.shape[1]]
    total = bad.sum(dtype=torch.int64)
    return Reduced(_added(sums), total, means, sigmas, cells, groups, candidates)


def _arguments(observed: Observed) -> dict[str, Any]:
    """What both kernels read, and how z comes about."""
    norm, x, device = observed.norm, observed.x.detach(), observed.x.device
    z = norm.z.detach() if isinstance(norm, GivenNorm) else x
    plane = (len(observed.images), observed.channels)
    mean, scale = (
        (t.float().expand(plane).contiguous() for t in (norm.mean, norm.scale))
        if isinstance(norm, PlaneNorm)
        else (None, None)
    )
    valid, eps = observed.valid, norm.eps if isinstance(norm, TokenNorm) else 0.0
    return {
        "x": x,
        "z": z,
        "plane_mean": mean,
        "plane_scale": scale,
        "valid": None if valid is None else to_device(valid.astype(np.uint8), device),
        "eps": constant(np.float64(eps).tobytes(), "f8", device),  # a Python float would be float32
        "positions": observed.positions,
        "channels": observed.channels,
        "NORM": {TokenNorm: 0, PlaneNorm: 1, GivenNorm: 2}[type(norm)],
        "CENTERED": isinstance(norm, TokenNorm) and norm.centered,
        "MASKED": valid is not None,
        **_strides("x", x, observed.channels_last),
        **_strides("z", z, observed.channels_last),
    }


def _strides(name: str, tensor: Tensor, channels_last: bool) -> dict[str, int]:
    image, row, channel = tensor.stride()
    row, channel = (row, channel) if channels_last else (channel, row)
    return {f"{name}_image": image, f"{name}_row": row, f"{name}_channel": channel}


def _power_of_two(size: int) -> int:
    """The smallest that is not below."""
    return 1 << (size - 1).bit_length()


def _no_candidates(channels: int, most: int, listed: bool, device: torch.device) -> Candidates:
    """Not `listed`: as if there were too many."""
    room = max(CANDIDATES, 2 * most * channels)
    values = torch.empty(room, device=device)
    places = torch.full((room,), -1, dtype=torch.int64, device=device)
    start = 0 if listed else CANDIDATES + 1
    count = torch.full((1,), start, dtype=torch.int32, device=device)
    return Candidates(values, places, count, CANDIDATES)


def _of_groups(fixed: Tensor, copies: _Copies) -> Tensor:
    """Cells (kinds, groups, FIXED_CELLS, CELL_WIDTH) of those of the copies."""
    if not len(fixed):
        return fixed.transpose(0, 1)
    index = to_device(copies.group, fixed.device)
    groups = fixed.new_zeros(len(copies.groups), *fixed.shape[1:])
    return groups.index_add_(0, index, fixed).transpose(0, 1)


def _added(parts: Tensor) -> Tensor:
    """(ChannelSum, C) of the parts (B, parts, ChannelSum, C)."""
    parts = parts.flatten(0, 1)
    sums = parts.sum(dim=0)
    sums[_MIN], sums[_MAX] = parts[:, _MIN].amin(dim=0), parts[:, _MAX].amax(dim=0)
    return sums
