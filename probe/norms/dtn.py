"""Dynamic Token Normalization: statistics between a token's channels (as LayerNorm) mixed with
statistics over neighbouring tokens.

Shao et al. 2022, Dynamic Token Normalization Improves Vision Transformers,
https://arxiv.org/abs/2112.02624. x is (B, k + h*w, C) if channels_last, else (B, C, h, w): k prefix
tokens, then the tokens of the grid row by row. Heads are blocks of neighbouring channels; training
and evaluation are the same; every gradient is the ordinary one.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from probe.errors import UsageError
from probe.norms.base import Norm, channels_per_head, wide
from probe.norms.dtn_positions import PositionProjection, grid_offsets, pool_factor


class DTN(Norm):
    """With u = x / sqrt(mean of x^2 over the head + eps), per token and head; G heads, positional
    weights P (`PositionProjection`):

    within the token:   mean_ln, var_ln = mean and unbiased variance of u over all channels;
    between tokens:     mean_pos = sum over i of P[i, j] u_i,  var_pos = sum over i of P[i, j] u_i^2
    - mean_pos^2, not below 0;
    mixed per head:     mean = (1 - l) mean_pos + l mean_ln with l = sigmoid(mean_norm_weight), var
    likewise with var_norm_weight; y = weight * (u - mean) / sqrt(var + eps) + bias.

    only_var: mean = mean_ln. Grids with a side over 14 are averaged by `pool_factor` before the
    positional statistics, which are then repeated for each token of a pool; patch_size=max(grid)
    keeps them apart. Prefix tokens (class, registers) have no place on the
    grid: they are normalized with mean_ln and var_ln, and no other token's statistics see them. (As
    published there are none.)

    local_init (see `PositionProjection.local`) survives the initialization of the surrounding
    model; as published it got lost.
    """

    fewest_axes: ClassVar = 3
    mean_norm_weight: nn.Parameter | None  # (G,) None with only_var
    var_norm_weight: nn.Parameter  # (G,)
    offsets: Tensor  # (n, n, 3) of the pooled grid

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        num_heads: int = 1,
        grid: tuple[int, int] = (14, 14),
        patch_size: int = 14,
        prefix_tokens: int = 0,
        only_var: bool = False,
        local_init: bool = True,
        locality_strength: float = 1.0,
        affine: bool = True,
        bias: bool = True,
        channels_last: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        channels_per_head(channels, num_heads)
        super().__init__(
            channels,
            eps=eps,
            affine=affine,
            bias=bias,
            channels_last=channels_last,
            device=device,
            dtype=dtype,
        )
        if channels < 2:
            raise UsageError("DTN: 1 channel given; the variance within a token needs 2")
        if prefix_tokens < 0:
            raise UsageError(f"DTN: prefix_tokens={prefix_tokens} given; a number from 0 is needed")
        self.num_heads, self.grid, self.prefix_tokens = num_heads, (grid[0], grid[1]), prefix_tokens
        self.pool = _pool(self.grid, patch_size)
        self.local_init, self.locality_strength = local_init, locality_strength
        for name, wanted in (("mean_norm_weight", not only_var), ("var_norm_weight", True)):
            logit = (
                nn.Parameter(torch.empty(num_heads, device=device, dtype=dtype)) if wanted else None
            )
            self.register_parameter(name, logit)
        self.pos_proj = PositionProjection(num_heads, device=device, dtype=dtype)
        self.register_buffer("offsets", self._offsets(device), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """weight 1, bias 0, both kinds of statistics by halves, positional weights local (or
        random).
        """
        super().reset_parameters()
        for logit in (self.mean_norm_weight, self.var_norm_weight):
            if logit is not None:
                nn.init.zeros_(logit)
        if self.local_init:
            self.pos_proj.local(self.locality_strength)
        else:
            self.pos_proj.random()
        self.offsets.copy_(
            self._offsets(self.offsets.device)
        )  # for a module that was made on the meta device

    def check(self, x: Tensor) -> None:
        super().check(x)
        (height, width), k = self.grid, self.prefix_tokens
        if x.shape[1:].numel() != (k + height * width) * self.num_features:
            prefix = f" and {k} prefix tokens" if k else ""
            raise UsageError(
                f"DTN: input of shape {tuple(x.shape)} given; grid={height}x{width}{prefix} needs "
                f"{k + height * width} tokens"
            )

    def normalized(self, x: Tensor) -> Tensor:
        """(u - mean) / sqrt(var + eps)."""
        device = x.device.type if torch.amp.is_autocast_available(x.device.type) else "cpu"
        with torch.autocast(
            device, enabled=False
        ):  # var_pos is a difference of products: not in half precision
            tokens = wide(x).movedim(self.axis, -1)
            z = self._normalized(tokens.flatten(1, -2)).view(tokens.shape)
        return z.movedim(-1, self.axis).to(x.dtype)

    def _normalized(self, x: Tensor) -> Tensor:
        heads = x.unflatten(-1, (self.num_heads, -1))
        heads = heads / torch.sqrt(
            heads.square().mean(-1, keepdim=True) + self.eps
        )  # (B, T, G, C_h)
        var_ln, mean_ln = torch.var_mean(heads, dim=(2, 3), correction=1, keepdim=True)
        mean_pos, var_pos = self._between_tokens(heads[:, self.prefix_tokens :])
        mean = self._mixed(self.mean_norm_weight, mean_pos, mean_ln)
        var = self._mixed(self.var_norm_weight, var_pos, var_ln)
        return ((heads - mean) / torch.sqrt(var + self.eps)).flatten(-2)

    def _between_tokens(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """mean_pos and var_pos (B, h*w, G, C_h)."""
        pooled = self._pooled(tokens).transpose(1, 2)  # (B, G, n, C_h)
        weights = (
            self.pos_proj(self.offsets).transpose(1, 2).to(pooled.dtype)
        )  # row j: the weights of its sources
        mean, square = (
            (weights @ torch.cat([pooled, pooled.square()], dim=-1))
            .transpose(1, 2)
            .chunk(2, dim=-1)
        )
        return self._spread(mean), self._spread((square - mean.square()).clamp(min=0))

    def _mixed(self, logit: Tensor | None, between: Tensor, within: Tensor) -> Tensor:
        """(B, T, G, C_h): (1 - l) between + l within at the tokens of the grid, `within` at prefix
        tokens.
        """
        if logit is None:
            return within
        share = torch.sigmoid(wide(logit))[:, None]
        k = self.prefix_tokens
        mixed = (1 - share) * between + share * within[:, k:]
        return torch.cat([within[:, :k].expand(-1, -1, *mixed.shape[2:]), mixed], dim=1)

    def _pooled(self, tokens: Tensor) -> Tensor:
        """(B, n, G, C_h) means of pool x pool tokens."""
        if self.pool == 1:
            return tokens
        image = tokens.flatten(2).transpose(1, 2).unflatten(2, self.grid)
        return (
            F.avg_pool2d(image, self.pool).flatten(2).transpose(1, 2).unflatten(2, tokens.shape[2:])
        )

    def _spread(self, pooled: Tensor) -> Tensor:
        """Each pooled value at all tokens of its pool."""
        if self.pool == 1:
            return pooled
        height, width = (side // self.pool for side in self.grid)
        image = pooled.unflatten(1, (height, width))
        return image.repeat_interleave(self.pool, 1).repeat_interleave(self.pool, 2).flatten(1, 2)

    def _offsets(self, device: Any) -> Tensor:
        return grid_offsets(self.grid[0] // self.pool, self.grid[1] // self.pool, device)

    def extra_repr(self) -> str:
        shown = (
            f"num_heads={self.num_heads}, grid={self.grid}, pool={self.pool}, "
            f"prefix_tokens={self.prefix_tokens}"
        )
        return f"{super().extra_repr()}, {shown}, only_var={self.mean_norm_weight is None}"


def _pool(grid: tuple[int, int], patch_size: int) -> int:
    if min(*grid, patch_size) < 1:
        raise UsageError(
            f"DTN: grid={grid}, patch_size={patch_size} given; sizes from 1 are needed"
        )
    pool = pool_factor(grid, patch_size)
    if grid[0] % pool or grid[1] % pool:
        raise UsageError(
            f"DTN: the sides of grid={grid} are not multiples of the pool {pool} that "
            f"patch_size={patch_size} makes; "
            f"patch_size={max(grid)} does without a pool"
        )
    return pool
