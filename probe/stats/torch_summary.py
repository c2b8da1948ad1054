"""The same reduction as the numba kernels, in torch, for tensors that live on an accelerator: the
reference of the Triton kernels, and what runs where those do not.

Sums are float64. On CUDA the order of additions into a bin is not fixed, so results repeat to
rounding, not to the bit.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probe.bins import CELLS, FIRST, PER_SIGN, SHIFT
from probe.stats.batch_summary import Bounds, Candidates, Reduced
from probe.stats.observed import GivenNorm, Observed, TokenNorm, is_line
from probe.stats.sums import INPUT_ROWS, NORMALIZED_ROWS, CellSum, ChannelSum

CANDIDATES = 1 << 12  # values outside of the bounds that are listed


def reduce(observed: Observed, bounds: Bounds, most: int) -> Reduced:
    """One batch on the device of its tensors; see `device_summary.reduce`. Waits for the device."""
    binned = not is_line(observed)
    observed = observed.as_given_rows()
    x = observed.x.detach().float()
    z, means, sigmas = _normalized(x, observed)
    kept = torch.isfinite(x) & torch.isfinite(z)
    not_finite = ~kept
    if observed.valid is not None:
        valid = torch.from_numpy(observed.valid).to(x.device)[..., None]
        kept, not_finite = kept & valid, not_finite & valid
        padding = ~valid[: len(means), :, 0]
        means, sigmas = (t.masked_fill(padding, torch.nan) for t in (means, sigmas))
    groups, cells = _cells(observed, x, z, kept, binned)
    candidates = _candidates(x, kept, bounds, most)
    return Reduced(_sums(x, z, kept), not_finite.sum(), means, sigmas, cells, groups, candidates)


def _normalized(x: Tensor, observed: Observed) -> tuple[Tensor, Tensor, Tensor]:
    """z (B, P, C); mean and sigma (B, P) in float64 of a token norm, else empty (0, P)."""
    norm = observed.norm
    if isinstance(norm, GivenNorm):
        none = x.new_empty(0, observed.positions, dtype=torch.float64)
        return norm.z.float(), none, none
    assert isinstance(norm, TokenNorm)
    exact = x.double()
    mean = exact.mean(dim=-1) if norm.centered else torch.zeros_like(exact[..., 0])
    var = (exact - mean[..., None]).square().mean(dim=-1)
    # a token with an inf has no statistics
    scale = torch.rsqrt(var + norm.eps).masked_fill(~torch.isfinite(var), torch.nan)
    return (exact - mean[..., None]) * scale[..., None], mean, var.sqrt()


def _cell_of(x: Tensor) -> Tensor:
    """Index of the cell of each value, 0 .. CELLS - 1; see `bins.CELLS`."""
    bits = x.contiguous().view(torch.int32)
    negative = (bits < 0).long()
    k = ((bits & 0x7FFFFFFF) >> SHIFT).long() - FIRST
    outside = 2 * PER_SIGN + torch.where(k < 0, 0, 1 + negative)
    return torch.where((k >= 0) & (k < PER_SIGN), k + PER_SIGN * negative, outside)


def _cells(
    observed: Observed, x: Tensor, z: Tensor, kept: Tensor, binned: bool
) -> tuple[NDArray[np.int64], Tensor]:
    """The groups (G,) of the batch, and what it adds to their cells (kinds, G, CELLS, CellSum);
    none where it is not `binned`.
    """
    kinds = 1 + (observed.prefix_tokens > 0)
    if not binned:
        empty = x.new_empty(kinds, 0, CELLS, len(CellSum), dtype=torch.float64)
        return np.empty(0, np.int64), empty
    groups, group = np.unique(observed.groups, return_inverse=True)
    kind = torch.from_numpy(observed.kinds.astype(np.int64)).to(x.device)
    row = kind * len(groups) + torch.from_numpy(group).to(x.device)[:, None]
    index = (row[..., None] * CELLS + _cell_of(x))[kept]
    x64, z64 = x[kept].double(), z[kept].double()
    values = x64.new_empty(len(x64), len(CellSum))
    values[:, CellSum.COUNT] = 1
    values[:, CellSum.X], values[:, CellSum.Z] = x64, z64
    values[:, CellSum.ZZ], values[:, CellSum.XX] = z64.square(), x64.square()
    values[:, CellSum.XZ] = x64 * z64
    cells = values.new_zeros(kinds * len(groups) * CELLS, len(CellSum))
    cells = cells.index_add_(0, index, values).view(kinds, len(groups), CELLS, len(CellSum))
    return groups, cells


def _sums(x: Tensor, z: Tensor, kept: Tensor) -> Tensor:
    """(ChannelSum, C) of the elements that are kept."""
    every = (0, 1)
    sums = x.new_empty(len(ChannelSum), x.shape[2], dtype=torch.float64)
    for value, (total, squares, smallest, largest) in ((x, INPUT_ROWS), (z, NORMALIZED_ROWS)):
        exact = value.double()
        zeroed = exact.masked_fill(~kept, 0)
        sums[total], sums[squares] = zeroed.sum(dim=every), zeroed.square().sum(dim=every)
        sums[smallest] = exact.masked_fill(~kept, torch.inf).amin(dim=every)
        sums[largest] = exact.masked_fill(~kept, -torch.inf).amax(dim=every)
    sums[ChannelSum.COUNT] = kept.sum(dim=every)
    return sums


def _candidates(x: Tensor, kept: Tensor, bounds: Bounds, most: int) -> Candidates:
    """All values outside of the bounds, or the `most` largest and smallest of each channel."""
    low, high = (torch.from_numpy(end).to(x.device) for end in bounds)
    outside = kept & ((x > high) | (x < low))
    count = outside.sum().reshape(1)
    if int(count) > CANDIDATES:
        values, places = _farthest(x.flatten(0, 1), kept.flatten(0, 1), most)
    else:
        places = outside.flatten().nonzero()[:, 0]
        values = x.flatten()[places]
    return Candidates(values, places, count, CANDIDATES)


def _farthest(x: Tensor, kept: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Values and places (2, most, C), flat, of rows (R, C); of equal values those of the first
    rows. Place -1 where a channel has fewer.
    """
    every = torch.arange(x.numel(), device=x.device).view(x.shape)
    parts = []
    for arm in (x, -x):
        order = arm.masked_fill(~kept, -torch.inf).argsort(dim=0, descending=True, stable=True)
        rows = order[:most]
        parts.append((x.gather(0, rows), every.gather(0, rows).where(kept.gather(0, rows), -1)))
    values, places = (torch.stack(each).flatten() for each in zip(*parts, strict=True))
    return values, places
