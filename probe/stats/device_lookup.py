"""Input, output and normalized value of single rows and elements of a batch, picked on the device
of its tensors; `lookup` does so on the host. All of it is enqueued, nothing waits.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from probe.stats.batch_summary import Reduced
from probe.stats.observed import GivenNorm, Observed, PlaneNorm, TokenNorm
from probe.stats.samples import CandidateRows
from probe.stats.transfer import to_device


def picked_rows(observed: Observed, rows: CandidateRows, with_z: bool) -> dict[str, Tensor]:
    """x, y (n, C) float32 of some rows of the batch; z where it is asked for, but not of a
    TokenNorm, of which x says it.
    """
    norm, last = observed.norm, observed.channels_last
    image, position = to_device(np.stack([rows.batch, rows.position]), observed.x.device)
    x, y = (_rows(tensor, image, position, last) for tensor in (observed.x, observed.y))
    if not with_z or isinstance(norm, TokenNorm):
        return {"x": x, "y": y}
    if isinstance(norm, GivenNorm):
        return {"x": x, "y": y, "z": _rows(norm.z, image, position, last)}
    mean, scale = _planes(norm, observed)
    return {"x": x, "y": y, "z": (x - mean[image]) * scale[image]}


def picked_elements(observed: Observed, reduced: Reduced) -> Tensor:
    """(3, n) float32: the values of the candidates, their z and their y. What stands in the gaps of
    the list means nothing.
    """
    listed = reduced.candidates
    token, channel = _divided(listed.places.clamp(min=0), observed.channels)
    image, position = _divided(token, observed.positions)
    last = observed.channels_last
    where = (image, position, channel) if last else (image, channel, position)
    y, norm, exact = observed.y[where], observed.norm, listed.values.double()
    if isinstance(norm, GivenNorm):
        z = norm.z[where]
    elif isinstance(norm, PlaneNorm):
        mean, scale = (t[image, channel].double() for t in _planes(norm, observed))
        z = (exact - mean) * scale
    else:
        mean, sigma = (t.flatten()[token] for t in (reduced.means, reduced.sigmas))
        z = (exact - mean) * (1 / torch.sqrt(sigma * sigma + norm.eps))
    return torch.stack([listed.values, z.float(), y.float()])


def _rows(tensor: Tensor, image: Tensor, position: Tensor, channels_last: bool) -> Tensor:
    """(n, C) float32 of (B, P, C) or (B, C, P)."""
    rows = tensor[image, position] if channels_last else tensor[image, :, position]
    return rows.detach().float()


def _planes(norm: PlaneNorm, observed: Observed) -> tuple[Tensor, Tensor]:
    """Mean and scale (B, C)."""
    images = len(observed.images)
    return norm.mean.expand(images, -1), norm.scale.expand(images, -1)


def _divided(index: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """Quotient and remainder."""
    quotient = index // by
    return quotient, index - quotient * by
