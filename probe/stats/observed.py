"""What one layer saw in one batch, laid out for the statistics. Made by the tap, read by the
kernels; it lives for one hook call.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class TokenNorm:
    """z = (x - m) / sqrt(sigma^2 + eps) with m and sigma over the channels of each row (LayerNorm);
    m = 0 if not centered (RMSNorm).
    """

    eps: float
    centered: bool


@dataclass(frozen=True)
class PlaneNorm:
    """z = (x - mean) * scale with mean and scale (B, C) (BatchNorm, InstanceNorm, GroupNorm)."""

    mean: Tensor
    scale: Tensor
    # the same for every image and batch: BatchNorm and InstanceNorm with running statistics
    fixed: bool


@dataclass(frozen=True)
class GivenNorm:
    """z itself, laid out as x."""

    z: Tensor


@dataclass(frozen=True)
class Observed:
    """Input and output of one layer for one batch.

    x, y: (B, P, C) if channels_last else (B, C, P), any float dtype, on the model's device; P
    positions per image.

        observed = Observed(
            x, norm1(x), TokenNorm(eps=1e-6, centered=True), channels_last=True,
            images=np.arange(8), groups=np.arange(8) % 16, kinds=np.zeros(197, np.uint8),
        )
        statistics.update(observed, choice)  # LayerStatistics; before x or y can change in place
    """

    x: Tensor
    y: Tensor
    norm: TokenNorm | PlaneNorm | GivenNorm
    channels_last: bool
    images: NDArray[np.int64]  # (B,) image index, -1 where the batch axis does not hold images
    groups: NDArray[np.int64]  # (B,) jackknife group of the image
    kinds: NDArray[np.uint8]  # (P,) 1 for prefix tokens, 0 for patch tokens
    valid: NDArray[np.bool_] | None = None  # (B, P) False for padding

    @property
    def positions(self) -> int:
        return self.x.shape[1] if self.channels_last else self.x.shape[2]

    @property
    def channels(self) -> int:
        return self.x.shape[2] if self.channels_last else self.x.shape[1]

    @property
    def by_plane(self) -> bool:
        """Is an image read channel by channel? Else position by position."""
        planes = isinstance(self.norm, PlaneNorm) and not self.channels_last
        return planes and self.valid is None

    def as_given_rows(self) -> Observed:
        """The same observation channels-last with z computed: the general form, slower than the
        others.
        """
        if not isinstance(self.norm, PlaneNorm):
            return self
        x = self.x if self.channels_last else self.x.transpose(1, 2)
        y = self.y if self.channels_last else self.y.transpose(1, 2)
        z = (x.float() - self.norm.mean[:, None]) * self.norm.scale[:, None]
        return replace(self, x=x, y=y, norm=GivenNorm(z), channels_last=True)


def is_line(observed: Observed) -> bool:
    """Is each channel one line, the same for every image? Its moments then say all of its map."""
    return isinstance(observed.norm, PlaneNorm) and observed.norm.fixed


def rows_of(
    tensor: Tensor, images: NDArray[np.int64], positions: NDArray[np.int64], channels_last: bool
) -> NDArray[np.float32]:
    """The values (N, C) at N (image, position) pairs of a (B, P, C) or (B, C, P) tensor, float32 on
    the host.
    """
    b, p = images, positions
    return _picked(tensor, (b, p) if channels_last else (b, slice(None), p))


def elements_of(
    tensor: Tensor,
    images: NDArray[np.int64],
    positions: NDArray[np.int64],
    channels: NDArray[np.int64],
    channels_last: bool,
) -> NDArray[np.float32]:
    """The values (N,) at N (image, position, channel) triples, float32 on the host."""
    b, p, c = images, positions, channels
    return _picked(tensor, (b, p, c) if channels_last else (b, c, p))


def _picked(tensor: Tensor, places: tuple[NDArray[np.int64] | slice, ...]) -> NDArray[np.float32]:
    """tensor[places], float32 on the host."""
    if tensor.device.type == "cpu" and tensor.dtype == torch.float32:
        picked: NDArray[np.float32] = tensor.detach().numpy()[places]
        return picked
    on_device = (
        torch.from_numpy(place).to(tensor.device) if isinstance(place, np.ndarray) else place
        for place in places
    )
    return tensor[tuple(on_device)].detach().to("cpu", torch.float32).numpy()
