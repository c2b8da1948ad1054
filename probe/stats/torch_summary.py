"""The same reduction as the numba kernels, in torch, for tensors that live on an accelerator.

Sums are float64. On CUDA the order of additions into a bin is not fixed, so results repeat to
rounding, not to the bit.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probe.bins import CELLS, FIRST, PER_SIGN, SHIFT
from probe.stats.batch_summary import BatchSummary, Extremes
from probe.stats.observed import GivenNorm, Observed, TokenNorm, is_line
from probe.stats.profile import Profile
from probe.stats.sums import INPUT_ROWS, NORMALIZED_ROWS, CellSum, ChannelSum


def summarize(observed: Observed, profile: Profile, extremes: Extremes) -> BatchSummary:
    """One batch on the device of its tensors; see `summary.summarize`."""
    binned = not is_line(observed)
    observed = observed.as_given_rows()
    x = observed.x.detach().float()
    z, means, sigmas = _normalized(x, observed)
    kept = torch.isfinite(x) & torch.isfinite(z)
    not_finite = ~kept
    if observed.valid is not None:
        valid = torch.from_numpy(observed.valid).to(x.device)[..., None]
        kept, not_finite = kept & valid, not_finite & valid
        means, sigmas = (
            None if t is None else t.masked_fill(~valid[..., 0], torch.nan) for t in (means, sigmas)
        )
    # all that takes much memory comes before anything is added: where it runs out, nothing was
    sums = _sums(x, z, kept).cpu().numpy()
    cells = _cells(observed, x, z, kept) if binned else None
    mean, sigma = (None if t is None else t.cpu().numpy() for t in (means, sigmas))
    count = int(not_finite.sum())
    if cells is not None:
        profile.add(*cells)
    profile.batches += 1
    extremes.start(sums[:, ChannelSum.X_MIN], sums[:, ChannelSum.X_MAX])
    _collect_extremes(x, kept, extremes)
    return BatchSummary(sums, count, mean, sigma)


def _normalized(x: Tensor, observed: Observed) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """z (B, P, C); for a token norm also mean and sigma (B, P) in float64."""
    norm = observed.norm
    if isinstance(norm, GivenNorm):
        return norm.z.float(), None, None
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
    observed: Observed, x: Tensor, z: Tensor, kept: Tensor
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The groups (G,) of the batch, and what it adds to their cells (kinds, G, CELLS, CellSum)."""
    kinds = 1 + (observed.prefix_tokens > 0)
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
    return groups, cells.cpu().numpy()


def _sums(x: Tensor, z: Tensor, kept: Tensor) -> Tensor:
    """(B, ChannelSum, C) of the elements that are kept."""
    images, _, channels = x.shape
    sums = x.new_empty(images, len(ChannelSum), channels, dtype=torch.float64)
    for value, (total, squares, smallest, largest) in ((x, INPUT_ROWS), (z, NORMALIZED_ROWS)):
        exact = value.double()
        zeroed = exact.masked_fill(~kept, 0)
        sums[:, total], sums[:, squares] = zeroed.sum(dim=1), zeroed.square().sum(dim=1)
        sums[:, smallest] = exact.masked_fill(~kept, torch.inf).amin(dim=1)
        sums[:, largest] = exact.masked_fill(~kept, -torch.inf).amax(dim=1)
    sums[:, ChannelSum.COUNT] = kept.sum(dim=1)
    return sums


def _collect_extremes(x: Tensor, kept: Tensor, extremes: Extremes) -> None:
    """An image at a time, so that the first image's candidates already tighten the bounds of the
    next.
    """
    for b in range(len(x)):
        low, high = (torch.from_numpy(end).to(x.device) for end in extremes.bounds)
        position, channel = torch.nonzero(kept[b] & ((x[b] > high) | (x[b] < low)), as_tuple=True)
        if len(position):
            values = x[b][position, channel].cpu().numpy()
            extremes.collect(
                values, np.full(len(values), b), position.cpu().numpy(), channel.cpu().numpy()
            )
