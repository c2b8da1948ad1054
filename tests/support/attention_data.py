"""Tables of attention heads in the shape that a run stores: plausible numbers, not measured
ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Stage:
    """Layers of one token grid; `side` patches of `stride` pixels along a window."""

    layers: int
    heads: int
    side: int
    stride: float
    windows: int = 1
    prefix: int = 0


@cache
def uniform(side: int) -> float:
    """Mean distance between two patches of a square grid, in patches."""
    rows, columns = np.indices((side, side)).reshape(2, -1)
    return float(
        np.hypot(np.subtract.outer(rows, rows), np.subtract.outer(columns, columns)).mean()
    )


VITS: dict[str, list[Stage]] = {
    "vit_b": [Stage(12, 12, 14, 16, prefix=1)],
    "vit_s": [Stage(12, 6, 14, 16)],
    "vit_l": [Stage(24, 16, 14, 16, prefix=1)],
    "deep": [Stage(48, 24, 16, 14, prefix=5)],
    "swin_t": [
        Stage(2, 3, 7, 4, 64),
        Stage(2, 6, 7, 8, 16),
        Stage(6, 12, 7, 16, 4),
        Stage(2, 24, 7, 32),
    ],
    "one": [Stage(1, 3, 8, 4)],
}


def make(kind: str = "vit_b", seed: int = 0) -> pd.DataFrame:
    """Heads of early layers spread from near to far, those of late layers near uniform
    attention.
    """
    g, rows = np.random.default_rng(seed), []
    total, depth = sum(stage.layers for stage in VITS[kind]), 0
    for index, stage in enumerate(VITS[kind]):
        for block in range(stage.layers):
            name = (
                f"layers.{index}.blocks.{block}.attn"
                if len(VITS[kind]) > 1
                else f"blocks.{block}.attn"
            )
            rows += [
                _row(g, stage, name, depth, head, depth / max(total - 1, 1))
                for head in range(stage.heads)
            ]
            depth += 1
    return pd.DataFrame(rows)


def _row(
    g: np.random.Generator, stage: Stage, name: str, depth: int, head: int, late: float
) -> dict[str, Any]:
    most = uniform(stage.side)
    patches = most * (late + (1 - late) * g.uniform(0.3, 1.0)) * g.normal(1, 0.015)
    keys, side = stage.side**2 + stage.prefix, stage.side * round(stage.windows**0.5)
    return {
        "layer": name,
        "head": head,
        "distance_px": patches * stage.stride,
        "distance_px_raw": 0.95 * patches * stage.stride,
        "distance_patches": patches,
        "distance_px_std": 0.05 * patches * stage.stride,
        "prefix_mass": float(g.beta(1 + 4 * late, 8)) if stage.prefix else 0.0,
        "entropy": float(np.log(keys) * (1 - 0.5 * g.beta(1.2, 4))),
        "token_stride": stage.stride,
        "grid": f"{side}x{side}",
        "uniform_px": most * stage.stride,
        "images": 64,
        "depth": depth,
        "windows": stage.windows,
        "prefix_tokens": stage.prefix,
    }


def attention(heads: int, grid: tuple[int, int], prefix: int, seed: int = 0) -> np.ndarray:
    """(heads, N, N) that look near (head 0) to far, with some mass on the prefix tokens."""
    rows, columns = np.indices(grid).reshape(2, -1)
    distance = np.hypot(np.subtract.outer(rows, rows), np.subtract.outer(columns, columns))
    g, tokens = np.random.default_rng(seed), prefix + rows.size
    scores = g.normal(0, 0.5, (heads, tokens, tokens))
    for head in range(heads):
        scores[head, prefix:, prefix:] -= distance / (1 + 2 * head)
    weights = np.exp(scores)
    return weights / weights.sum(-1, keepdims=True)


def photograph(height: int = 64, width: int = 64) -> np.ndarray:
    """A smooth coloured picture."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return np.stack([x, y, 0.5 + 0.5 * np.sin(9 * x * y)], axis=2)
