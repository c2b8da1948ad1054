"""Distance, prefix mass and entropy of rows of attention scores, without a softmax that could end
in 0/0.

With s the scores of one query, P the patch keys, O the others (prefix tokens, padding), and lse the
logarithm of the sum of exp: p = softmax over P, log p = s - lse_P, w = mass on patches = 1 / (1 +
exp(lse_O - lse_P)); distance_px = sum_P p d;  distance_px_raw = w * distance_px;  prefix_mass = 1 -
w; entropy = w * H_P + (1 - w) * H_O + h(w), H_P = - sum_P p log p, h the entropy of (w, 1 - w).
p sums to one over the patches, so all mass on the class token still gives a finite distance.
"""

from __future__ import annotations

import torch
from torch import Tensor

MASKED = -1e30  # -inf or a half-open infinity such as torch.finfo.min: no score, a mask
_FLOOR = -1000.0  # exp of it is 0, and 0 times it is 0, unlike with -inf


def row_statistics(scores: Tensor, distances: Tensor, prefix: int, masked: bool) -> Tensor:
    """Sums (G, 5) over the queries of (G, L, S) scores: number of queries, distance, raw distance,
    prefix mass, entropy.

    The keys from `prefix` on are the patches of `distances` (L, P). `masked`: some scores may be
    -inf. Queries whose patch keys are all masked are left out.
    """
    last = prefix + distances.shape[1]
    patch, other = scores[:, :, prefix:last], _others(scores, prefix, last)
    logs = patch.log_softmax(2)
    if masked:
        highest = patch.amax(2)
        live = ~(highest <= MASKED)  # not-a-number stays in sight
        log_sum = highest - logs.amax(2)
        logs = logs.clamp_(min=_FLOOR)
    else:
        live, log_sum = None, patch[:, :, 0] - logs[:, :, 0]
    share = logs.exp()
    entropy = -logs.mul_(share).sum(2)
    distance = share.mul_(distances).sum(2)
    mass, entropy = _with_others(log_sum, entropy, other)
    values = torch.stack(
        [torch.ones_like(mass), distance, distance * (1 - mass), mass, entropy], dim=2
    )
    return (values if live is None else torch.where(live[:, :, None], values, 0)).sum(
        1, dtype=torch.float64
    )


def _others(scores: Tensor, prefix: int, last: int) -> Tensor:
    """(G, L, O) of the keys that are no patches."""
    before, after = scores[:, :, :prefix], scores[:, :, last:]
    return torch.cat([before, after], 2)


def _with_others(log_sum: Tensor, entropy: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Mass (G, L) on the other keys (G, L, O), and the entropy of the full row, from log-sum and
    entropy over patch keys.
    """
    if not other.shape[2]:
        return torch.zeros_like(entropy), entropy
    difference = torch.logsumexp(other, 2) - log_sum
    mass, patch_mass = difference.sigmoid(), (-difference).sigmoid()
    of_others = (
        torch.special.entr(other.softmax(2)).sum(2).nan_to_num() if other.shape[2] > 1 else 0.0
    )
    split = torch.special.entr(mass) + torch.special.entr(patch_mass)
    return mass, patch_mass * entropy + mass * of_others + split
