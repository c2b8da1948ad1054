"""Distance, prefix mass and entropy of rows of attention scores, without a softmax that could end in 0/0.

With s the scores of one query, P the patch keys and O the others (prefix tokens, padding):
z = sum_P exp(s - max_P s), lse_P = max_P s + log z, w = mass on patches = 1 / (1 + exp(lse_O - lse_P)).
distance_px = sum_P exp(s - max_P s) d / z;  distance_px_raw = w * distance_px;  prefix_mass = 1 - w;
entropy = w * H_P + (1 - w) * H_O + h(w), H_P = log z - sum_P exp(s - max_P s) (s - max_P s) / z, h the entropy of (w, 1 - w).
As z >= 1, all mass on the class token still gives a finite distance.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASKED = -1e30  # -inf or a half-open infinity such as torch.finfo.min: no score, a mask
_FLOOR = -1000.0  # exp of it is 0, and 0 times it is 0, unlike with -inf


def row_statistics(scores: Tensor, distances: Tensor, prefix: int, real: Tensor | None, queries: slice) -> Tensor:
    """Sums (G, 5) over the queries of (G, L, S) scores: number of queries, distance, raw distance, prefix mass, entropy.

    Keys are `prefix` tokens, the patches of `distances` (L, P), and what an attention adds after them. `real` (G, P) is False at
    padding, which counts neither as key nor, at `queries`, as query.
    Queries whose patch keys are all masked are left out.
    """
    end = prefix + distances.shape[1]
    patch, other = scores[:, :, prefix:end], scores[:, :, :prefix]
    if end < scores.shape[2]:
        other = torch.cat([other, scores[:, :, end:]], dim=2)
    if real is not None:
        other = torch.cat([other, patch.masked_fill(real[:, None], -torch.inf)], dim=2)
        patch = patch.masked_fill(~real[:, None], -torch.inf)
    highest = patch.amax(2, keepdim=True)
    live = ~(highest[:, :, 0] <= _MASKED)  # not-a-number stays in sight
    if real is not None and patch.shape[2] == real.shape[1]:
        live &= real[:, queries]
    highest = highest.clamp(min=_MASKED)
    shifted = (patch - highest).clamp_(min=_FLOOR)
    weights = shifted.exp()
    z = weights.sum(2)
    entropy = z.log() - shifted.mul_(weights).sum(2) / z
    distance = weights.mul_(distances).sum(2) / z
    mass, entropy = _with_others(highest[:, :, 0] + z.log(), entropy, other)
    values = torch.stack([torch.ones_like(z), distance, distance * (1 - mass), mass, entropy], dim=2)
    return torch.where(live[:, :, None], values, 0).sum(1, dtype=torch.float64)


def _with_others(log_sum: Tensor, entropy: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Mass (G, L) on the other keys (G, L, O), and the entropy of the full row, from log-sum and entropy over patch keys."""
    if not other.shape[2]:
        return torch.zeros_like(entropy), entropy
    difference = torch.logsumexp(other, 2) - log_sum
    mass, patch_mass = difference.sigmoid(), (-difference).sigmoid()
    of_others = torch.special.entr(other.softmax(2)).sum(2).nan_to_num() if other.shape[2] > 1 else 0.0
    split = torch.special.entr(mass) + torch.special.entr(patch_mass)
    return mass, patch_mass * entropy + mass * of_others + split
