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

    x, y: (B, P, C) if channels_last else (B, C, P), any float dtype, on the model's device, without
    gradients; P positions per image.

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
    def prefix_tokens(self) -> int:
        """Per image."""
        return self.kinds.tobytes().count(1)

    @property
    def by_plane(self) -> bool:
        """Is an image read channel by channel? Else position by position."""
        planes = isinstance(self.norm, PlaneNorm) and not self.channels_last
        return planes and self.valid is None

    def as_given_rows(self) -> Observed:
        """The same observation channels-last with z computed: the general form, slower than the
        others.
        """
        x, y, norm, channels_last = given_rows(self.x, self.y, self.norm, self.channels_last)
        return replace(self, x=x, y=y, norm=norm, channels_last=channels_last)


def given_rows(
    x: Tensor, y: Tensor, norm: TokenNorm | PlaneNorm | GivenNorm, channels_last: bool
) -> tuple[Tensor, Tensor, TokenNorm | PlaneNorm | GivenNorm, bool]:
    """x, y (B, P, C) and z of these in place of a PlaneNorm; other norms have rows already."""
    if not isinstance(norm, PlaneNorm):
        return x, y, norm, channels_last
    if not channels_last:
        x, y = x.transpose(1, 2), y.transpose(1, 2)
    return x, y, GivenNorm((x.float() - norm.mean[:, None]) * norm.scale[:, None]), True


def is_line(observed: Observed) -> bool:
    """Is each channel one line, the same for every image? Its moments then say all of its map."""
    return isinstance(observed.norm, PlaneNorm) and observed.norm.fixed


def rows_of(
    tensor: Tensor, images: NDArray[np.int64], positions: NDArray[np.int64], channels_last: bool
) -> NDArray[np.float32]:
    """The values (N, C) at N (image, position) pairs of a (B, P, C) or (B, C, P) tensor on the
    host, in float32.
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
    """The values (N,) at N (image, position, channel) triples, in float32."""
    b, p, c = images, positions, channels
    return _picked(tensor, (b, p, c) if channels_last else (b, c, p))


def in_place(tensor: Tensor) -> NDArray[np.float32] | None:
    """The memory of a float32 tensor on the host, without a copy; None of any other."""
    if tensor.is_cpu and tensor.dtype == torch.float32:
        return tensor.numpy()
    return None


def float32(tensor: Tensor) -> NDArray[np.float32]:
    """The values of a tensor in float32 on the host, without gaps; a copy where they are not."""
    values = in_place(tensor)
    if values is None:
        values = tensor.to("cpu", torch.float32).numpy()
    return np.ascontiguousarray(values)


def _picked(tensor: Tensor, places: tuple[NDArray[np.int64] | slice, ...]) -> NDArray[np.float32]:
    """tensor[places], in float32."""
    values = in_place(tensor)
    if values is not None:
        picked: NDArray[np.float32] = values[places]
        return picked
    chosen = (
        torch.from_numpy(place) if isinstance(place, np.ndarray) else place for place in places
    )
    return float32(tensor[tuple(chosen)])
