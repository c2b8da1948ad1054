"""Small tables in the shape of a training's and of a tracking's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

RESNET50 = ["bn1"] + [
    f"layer{stage + 1}.{block}.{norm}"
    for stage, blocks in enumerate((3, 4, 6, 3))
    for block in range(blocks)
    for norm in ("bn1", "bn2", "bn3", *(["downsample.1"] if block == 0 else []))
]
VIT = [f"blocks.{block}.norm{part}" for block in range(6) for part in (1, 2)] + ["norm"]


def epochs_table(epochs: int = 30, classes: int = 10) -> pd.DataFrame:
    """A row before training, then one per epoch; the loss falls, the accuracy rises."""
    x = np.arange(epochs + 1, dtype=np.float64)
    trained = np.where(x > 0, 1.0, np.nan)
    return pd.DataFrame(
        {
            "epoch": x.astype(int),
            "step": (x * 100).astype(int),
            "learning_rate": trained * 0.05 * (1 + np.cos(np.pi * x / (epochs + 1))),
            "train_loss": trained * (0.6 + 2 * np.exp(-x / 6)),
            "val_loss": 0.8 + 1.5 * np.exp(-x / 5) + 0.004 * x,
            "top1": 90 - 80 * np.exp(-x / 7),
            "top5": 99 - 49 * np.exp(-x / 4) if classes > 5 else np.nan,
            "seconds": trained * (12 + 0.3 * np.sin(x)),
            "eval_seconds": 2.0,
            "images_per_second": trained * 830,
        }
    )


def norms_table(
    layers: Sequence[str] = RESNET50,
    epochs: int = 30,
    quantities: Sequence[str] = ("alpha", "inverse_std", "input_std", "gain_mean", "gain_std"),
    start: float = 1.0,
) -> pd.DataFrame:
    """Every quantity of every layer after every epoch, from `start` to a value of its own."""
    rows = []
    for depth, layer in enumerate(layers):
        g = np.random.default_rng(depth)
        ends = dict(zip(quantities, g.uniform(0.2, 5, len(quantities)), strict=True))
        for epoch in range(epochs + 1):
            part = 1 - np.exp(-epoch / 8)
            for quantity, end in ends.items():
                value = start + (end - start) * part
                rows.append((epoch, layer, depth, "dyt", quantity, 0, value))
    columns = ["epoch", "layer", "depth", "kind", "quantity", "index", "value"]
    return pd.DataFrame(rows, columns=columns)


def tracked_table(
    layers: Sequence[str] = VIT,
    epochs: Sequence[int] = (0, 1, 2, 5, 10, 20),
    curved_from: Sequence[int | None] | None = None,
) -> pd.DataFrame:
    """A row per checkpoint and layer. curved_from: the epoch from which on each layer is curved;
    None: never. Before that it is linear, without an alpha at epoch 0.
    """
    starts = curved_from or [(5 * depth) % 25 for depth in range(len(layers))]
    rows = [
        _tracked(layer, depth, epoch, start is not None and epoch >= start)
        for epoch in epochs
        for depth, (layer, start) in enumerate(zip(layers, starts, strict=True))
    ]
    return pd.DataFrame(rows)


def _tracked(layer: str, depth: int, epoch: int, curved: bool) -> dict[str, object]:
    gain = 0.002 * (1 + depth) * (1 + epoch / 10) if curved else 2e-4 * (1 + epoch / 20)
    width = 3 + depth + epoch
    alpha = 2 / width if epoch or curved else np.nan
    return {
        "checkpoint": f"epoch_{epoch:03d}",
        "epoch": epoch,
        "layer": layer,
        "depth": depth,
        "kind": "layer_norm",
        "channels": 96,
        "status": "curved" if curved else "linear",
        "reason": None,
        "established": curved,
        "alpha": alpha,
        "gamma": 1 / alpha if epoch or curved else np.nan,
        "beta": 0.1,
        "slope": 1.0,
        "r2": 0.95 + gain,
        "linear_r2": 0.95,
        "gain": gain,
        "beyond_linear": 0.01 * (1 + depth) if curved else 1e-4,
        "max_abs_input": 2.0 * width,
        "min_input": -2.0 * width,
        "max_input": 1.5 * width,
        "images": 64,
        "sources": 64,
    }


def heads_table(
    layers: Sequence[str] = ("blocks.0.attn", "blocks.3.attn", "blocks.5.attn"),
    epochs: Sequence[int] = (0, 1, 2, 5, 10, 20),
    heads: int = 3,
) -> pd.DataFrame:
    """A row per checkpoint, attention layer and head; attention begins uniform, becomes local."""
    rows = [
        {
            "checkpoint": f"epoch_{epoch:03d}",
            "epoch": epoch,
            "layer": layer,
            "depth": depth,
            "head": head,
            "distance_px": 16.55 - 0.3 * epoch * (head + 1) / (depth + 1) / heads,
            "distance_patches": (16.55 - 0.3 * epoch * (head + 1) / (depth + 1) / heads) / 4,
            "uniform_px": 16.55,
        }
        for epoch in epochs
        for depth, layer in enumerate(layers)
        for head in range(heads)
    ]
    return pd.DataFrame(rows)
