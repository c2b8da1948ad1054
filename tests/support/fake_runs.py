"""A finished run without files, for tests of what is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

VIT = [f"blocks.{block}.norm{part}" for block in range(8) for part in (1, 2)] + ["norm"]
EMPTY = [
    "alpha",
    "alpha_low",
    "alpha_high",
    "alpha_channel",
    "alpha_channel_low",
    "alpha_channel_high",
    "gain_low",
    "gain_high",
    "channel_gain",
    "sources_to_decide",
    "slope_min",
    "slope_median",
    "slope_max",
    "slope_cv",
    "mean_std_spread",
]


def alpha_row(depth: int, layer: str, **values: Any) -> dict[str, Any]:
    """A row of the alpha table; a straight layer unless told otherwise."""
    row: dict[str, Any] = {
        "layer": layer,
        "depth": depth,
        "kind": "layer_norm",
        "channels": 128,
        "gamma": 1.0,
        "beta": 0.0,
        "slope": 1.234567,
        "r2": 0.99964,
        "linear_r2": 0.99951,
        "r2_ceiling": 0.99971,
        "gain": 0.00013,
        "status": "linear",
        "established": False,
        "best_family": "tanh",
        "tied": "erf|isru|arctan",
        "images": 64,
        "sources": 64,
        "input_std": 0.812345,
        "inverse_std": 1.231,
        "mean_inverse_sigma": 1.3,
        "sigma_cv": 0.05,
        "own_alpha": None,
        "beyond_linear": 0.0104,
        "saturation": 0.001,
        "max_abs_input": 51.2345,
        "massive_channels": 0,
        "count": 532480,
    }
    return row | dict.fromkeys(EMPTY) | values


def vit_alphas() -> pd.DataFrame:
    """The 17 layers of a small ViT, of which the first three are curved."""
    rows = [alpha_row(depth, layer) for depth, layer in enumerate(VIT)]
    for depth, gain in ((0, 0.028), (1, 0.0123), (2, 0.0041)):
        rows[depth] |= {
            "status": "curved",
            "established": True,
            "gain": gain,
            "alpha": 0.069123,
            "alpha_low": 0.067234,
            "alpha_high": 0.070911,
            "linear_r2": 0.95,
        }
        rows[depth]["r2"] = 0.95 + gain
    return pd.DataFrame(rows)


def resnet_alphas() -> pd.DataFrame:
    """The 53 BatchNorms of a ResNet-50: all affine, each a fan of lines."""
    names = ["bn1"] + [
        f"layer{stage + 1}.{block}.bn{part}"
        for stage, n in enumerate((3, 4, 6, 3))
        for block in range(n)
        for part in (1, 2, 3)
    ]
    names += [f"layer{stage}.0.downsample.1" for stage in range(1, 5)]
    fan = {
        "slope": None,
        "r2": 0.43,
        "linear_r2": 0.43,
        "slope_min": 0.1234,
        "slope_median": 0.87,
        "slope_max": 12.34,
        "gain": 0.0,
        "best_family": "",
        "tied": "",
    }
    bn = {"kind": "batch_norm", "channels": 2048, "status": "affine", "beyond_linear": None} | fan
    return pd.DataFrame([alpha_row(depth, name, **bn) for depth, name in enumerate(names)])


class FakeRun:
    """Answers like a run of the store."""

    def __init__(
        self,
        path: str | Path = "runs/vit_cifar10",
        alphas: pd.DataFrame | None = None,
        **manifest: Any,
    ) -> None:
        self.path = Path(path)
        self._alphas = vit_alphas() if alphas is None else alphas
        self.manifest = {
            "model": {"name": "vit_cifar10", "origin": "bundled", "weights": "pretrained"},
            "images_seen": 64,
            "data": {"sources": 14},
            **manifest,
        }

    def alphas(self) -> pd.DataFrame:
        return self._alphas

    @property
    def layers(self) -> pd.DataFrame:
        kept = self._alphas[["layer", "depth", "kind", "channels", "count"]]
        facts = {
            "eps": 1e-6,
            "affine": False,
            "positions": 65,
            "prefix_tokens": 1,
            "status": "captured",
            "not_finite": 0,
        }
        return kept.assign(**facts, inverse_sigma_mean=1.3, sigma_mean=0.8, sigma_cv=float("nan"))
