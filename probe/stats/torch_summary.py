"""The same reduction as the numba kernels, in torch, for tensors that live on an accelerator.

Sums are float64. On CUDA the order of additions into a bin is not fixed, so results repeat to rounding, not to the bit.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from probe.bins import BINS, FIRST, PER_SIGN, SHIFT, SUMS
from probe.stats.observed import GivenNorm, Observed, TokenNorm
from probe.stats.records import Bounds, Collect, Summary


def summarize(observed: Observed, bounds: Bounds, collect: Collect) -> Summary:
    """Statistics of one batch on the device of its tensors; see `summary.summarize`."""
    observed = observed.as_given_rows()
    x = observed.x.detach().float()
    z, means, sigmas = _normalized(x, observed)
    kept = torch.isfinite(x) & torch.isfinite(z)
    not_finite = ~kept
    if observed.valid is not None:
        valid = torch.from_numpy(observed.valid).to(x.device)[..., None]
        kept, not_finite = kept & valid, not_finite & valid
        means, sigmas = (None if t is None else t.masked_fill(~valid[..., 0], torch.nan) for t in (means, sigmas))
    cells = _cells(x, z, kept, torch.from_numpy(observed.kinds).to(x.device))
    _collect_tail(x, kept, bounds, collect)
    host = (None if t is None else t.cpu().numpy() for t in (means, sigmas))
    return Summary(cells.cpu().numpy(), _sums(x, z, kept).cpu().numpy(), int(not_finite.sum()), *host)


def _normalized(x: Tensor, observed: Observed) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """z (B, P, C); for a token norm also mean and sigma (B, P) in float64."""
    norm = observed.norm
    if isinstance(norm, GivenNorm):
        return norm.z.float(), None, None
    assert isinstance(norm, TokenNorm)
    exact = x.double()
    mean = exact.mean(dim=-1) if norm.centered else torch.zeros_like(exact[..., 0])
    var = (exact - mean[..., None]).square().mean(dim=-1)
    scale = torch.rsqrt(var + norm.eps).masked_fill(~torch.isfinite(var), torch.nan)  # a token with an inf has no statistics
    return (exact - mean[..., None]) * scale[..., None], mean, var.sqrt()


def _bins(x: Tensor) -> Tensor:
    """Index of the bin of each value, 0 .. BINS - 1."""
    bits = x.contiguous().view(torch.int32)
    magnitude = (((bits & 0x7FFFFFFF) >> SHIFT) - FIRST + 1).clamp(0, PER_SIGN)
    return PER_SIGN + torch.where(bits < 0, -magnitude, magnitude).long()


def _cells(x: Tensor, z: Tensor, kept: Tensor, kinds: Tensor) -> Tensor:
    images, count = len(x), 1 + int(kinds.any())
    row = torch.arange(images, device=x.device)[:, None] * count + kinds.long()
    index = (row[..., None] * BINS + _bins(x))[kept]
    x64, z64 = x[kept].double(), z[kept].double()
    values = torch.stack([torch.ones_like(x64), x64, z64, z64.square(), x64.square(), x64 * z64], dim=1)
    return values.new_zeros(images * count * BINS, SUMS).index_add_(0, index, values).view(images, count, BINS, SUMS)


def _sums(x: Tensor, z: Tensor, kept: Tensor) -> Tensor:
    """(B, 9, C) as in `kernels`."""
    parts = []
    for value in (x, z):
        zeroed = value.double().masked_fill(~kept, 0)
        smallest, largest = (value.double().masked_fill(~kept, end) for end in (torch.inf, -torch.inf))
        parts += [zeroed.sum(dim=1), zeroed.square().sum(dim=1), smallest.amin(dim=1), largest.amax(dim=1)]
    return torch.stack([*parts, kept.sum(dim=1).double()], dim=1)


def _collect_tail(x: Tensor, kept: Tensor, bounds: Bounds, collect: Collect) -> None:
    """An image at a time, so that the first image's candidates already tighten the bounds of the next."""
    for b in range(len(x)):
        low, high = (torch.from_numpy(np.ascontiguousarray(end)).to(x.device) for end in bounds)
        position, channel = torch.nonzero(kept[b] & ((x[b] > high) | (x[b] < low)), as_tuple=True)
        if len(position):
            values = x[b][position, channel].cpu().numpy()
            bounds = collect(values, np.full(len(values), b), position.cpu().numpy(), channel.cpu().numpy())
