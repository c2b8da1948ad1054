"""Small tables in the shape of a run's: tokens of different scale through a LayerNorm, or channels
through a BatchNorm.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Text

FAMILIES = (
    "linear",
    "tanh",
    "erf",
    "isru",
    "arctan",
    "softsign",
    "hardtanh",
    "tanh_shift",
    "erf_shift",
)
CHANNELS, ROWS, TAIL, PREFIX, POSITIONS = 12, 40, 20, 4, 9


@dataclass
class Tables:
    """What the figure functions take."""

    samples: pd.DataFrame
    fits: pd.DataFrame
    alphas: pd.DataFrame
    moments: pd.DataFrame
    rows: pd.DataFrame
    layers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def fan(self) -> pd.DataFrame:
        lines = self.moments[self.moments["slope"].notna()]
        return lines.rename(columns={"min_input": "low", "max_input": "high"})[
            ["layer", "channel", "slope", "offset", "low", "high"]
        ]

    @property
    def names(self) -> list[str]:
        return [layer["layer"] for layer in self.layers]


def layer_names(count: int) -> list[str]:
    return [f"blocks.{i // 2}.norm{i % 2 + 1}" for i in range(count - 1)] + ["norm"]


def make(
    statuses: list[str] | str = "curved",
    count: int = 3,
    names: list[str] | None = None,
    seed: int = 0,
) -> Tables:
    """`count` layers; `statuses`: one for all or one for each of curved, linear, affine,
    not_finite, not_called.
    """
    every = [statuses] * (len(names) if names else count) if isinstance(statuses, str) else statuses
    names = names or layer_names(len(every))
    parts = [
        _layer(name, depth, status, seed)
        for depth, (name, status) in enumerate(zip(names, every, strict=True))
    ]
    tables = {
        key: pd.concat([part[key] for part in parts], ignore_index=True)
        for key in ("samples", "fits", "alphas", "moments", "rows")
    }
    return Tables(**tables, layers=[part["layer"] for part in parts])


def _layer(name: str, depth: int, status: str, seed: int) -> dict[str, Any]:
    g = np.random.default_rng([seed, depth])
    affine = status == "affine"
    where = np.sort(g.choice(POSITIONS * 16, ROWS, replace=False))
    image, position = where // POSITIONS, where % POSITIONS
    x = g.normal(0, 1, (ROWS, CHANNELS)) * np.exp(g.normal(0, 0.5, (ROWS, 1))) * (1 + depth)
    x[:, 3] *= 6  # the channel that carries the extremes
    mean, sigma = x.mean(1, keepdims=True), x.std(1, keepdims=True)
    slope, offset = np.exp(g.normal(0, 0.7, CHANNELS)), g.normal(0, 0.5, CHANNELS)
    z = slope * x + offset if affine else (x - mean) / sigma
    if status == "not_finite":
        z = np.full_like(z, np.nan)
    uniform = _elements(name, x, z, image, position, "uniform")
    tail = uniform.iloc[
        np.argsort(uniform["input"].abs().to_numpy(), kind="stable")[-TAIL:]
    ].assign(stratum="tail", image=99)
    prefix = _elements(
        name, x[:PREFIX] / 5, z[:PREFIX], np.arange(PREFIX) + 20, np.zeros(PREFIX, int), "prefix"
    )
    samples = pd.concat([uniform, tail, prefix], ignore_index=True).sort_values(
        ["channel", "stratum"], kind="stable"
    )
    moments = pd.DataFrame(
        {
            "layer": name,
            "channel": np.arange(CHANNELS),
            "min_input": x.min(0),
            "max_input": x.max(0),
        }
    )
    moments = moments.assign(slope=slope if affine else np.nan, offset=offset if affine else np.nan)
    seen = status != "not_called"
    return {
        "samples": samples if seen else samples.iloc[:0],
        "fits": _fits(name, depth, status),
        "alphas": _alpha_row(name, depth, status, float(x.std()), slope),
        "moments": moments if seen else moments.iloc[:0],
        "rows": pd.DataFrame(
            {
                "layer": name,
                "image": image,
                "position": position,
                "mean": mean[:, 0],
                "sigma": sigma[:, 0],
            }
        )[: 0 if affine or not seen else None],
        "layer": {
            "layer": name,
            "depth": depth,
            "kind": "batch_norm" if affine else "layer_norm",
            "channels": CHANNELS,
            "affine": affine,
            "positions": POSITIONS,
            "prefix_tokens": 0 if affine else 1,
            "status": status if status in ("not_finite", "not_called") else "captured",
        },
    }


def _elements(
    name: str, x: np.ndarray, z: np.ndarray, image: np.ndarray, position: np.ndarray, stratum: str
) -> pd.DataFrame:
    n = len(x)
    return pd.DataFrame(
        {
            "layer": name,
            "image": np.tile(image, CHANNELS).astype(np.int32),
            "position": np.tile(position, CHANNELS).astype(np.int32),
            "channel": np.repeat(np.arange(CHANNELS), n).astype(np.int32),
            "input": x.T.ravel().astype(np.float32),
            "normalized": z.T.ravel().astype(np.float32),
            "output": z.T.ravel().astype(np.float32),
            "stratum": stratum,
        }
    )


def _fits(name: str, depth: int, status: str) -> pd.DataFrame:
    """Plausible numbers, not fitted ones: what is tested is that the figure shows what the table
    says.
    """
    rows = []
    scopes = [("layer", "population", tokens) for tokens in ("all", "patch", "prefix")] + [
        ("layer", "range", "all"),
        ("channel", "population", "all"),
    ]
    for scope, weighting, tokens in scopes:
        for i, family in enumerate(FAMILIES[: 1 if status == "affine" else None]):
            curved = status == "curved" and family != "linear"
            rows.append(
                {
                    "layer": name,
                    "depth": depth,
                    "family": family,
                    "scope": scope,
                    "weighting": weighting,
                    "tokens": tokens,
                    "status": "linear" if status == "curved" and family == "linear" else status,
                    "alpha": 0.2 / (1 + depth) * (2 if tokens == "prefix" else 1)
                    if curved
                    else None,
                    "shift": 0.1 if curved and family.endswith("shift") else None,
                    "gamma": 3.0 if curved else None,
                    "beta": 0.05,
                    "slope": 0.5 / (1 + depth) if status != "not_finite" else None,
                    "r2": 0.97 - 0.002 * i if family != "linear" else 0.9,
                    "linear_r2": 0.9,
                    "r2_ceiling": 0.98,
                    "alpha_low": 0.15 / (1 + depth) if curved else None,
                    "alpha_high": 0.25 / (1 + depth) if curved else None,
                }
            )
    frame = pd.DataFrame(rows)
    numbers = [
        "alpha",
        "shift",
        "gamma",
        "beta",
        "slope",
        "r2",
        "linear_r2",
        "r2_ceiling",
        "alpha_low",
        "alpha_high",
    ]
    frame[numbers] = frame[numbers].astype(np.float64)
    if status in ("not_finite", "not_called"):
        frame[numbers] = np.nan
    return frame


def _alpha_row(name: str, depth: int, status: str, std: float, slope: np.ndarray) -> pd.DataFrame:
    curved, affine, failed = (
        status == "curved",
        status == "affine",
        status in ("not_finite", "not_called"),
    )
    row = {
        "layer": name,
        "depth": depth,
        "kind": "batch_norm" if affine else "layer_norm",
        "channels": CHANNELS,
        "status": status,
        "alpha": 0.2 / (1 + depth) if curved else np.nan,
        "alpha_low": 0.15 / (1 + depth) if curved else np.nan,
        "alpha_high": 0.25 / (1 + depth) if curved else np.nan,
        "slope": np.nan if affine or failed else 0.5 / (1 + depth),
        "r2": np.nan if failed else 0.97,
        "linear_r2": np.nan if failed else 0.9,
        "gain": np.nan if failed else 0.07,
        "established": curved,
        "inverse_std": np.nan if failed else 1 / std,
        "input_std": np.nan if failed else std,
        "beyond_linear": 0.01 * (1 + depth) if curved else np.nan,
        "saturation": 0.001 * (1 + depth) if curved else np.nan,
        "max_abs_input": np.nan if failed else 30.0 * (1 + depth),
        "massive_channels": int(depth == 1),
        "slope_min": slope.min() if affine else np.nan,
        "slope_median": float(np.median(slope)) if affine else np.nan,
        "slope_max": slope.max() if affine else np.nan,
    }
    return pd.DataFrame([row])


def texts(figure: Figure) -> list[Text]:
    """Every text that is drawn: tick labels outside the limits of their axis are not."""
    figure.draw_without_rendering()
    hidden = set()
    for ax in figure.axes:
        for axis, limits in ((ax.xaxis, sorted(ax.get_xlim())), (ax.yaxis, sorted(ax.get_ylim()))):
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not limits[0] <= tick.get_loc() <= limits[1]:
                    hidden |= {id(tick.label1), id(tick.label2)}
    found = figure.findobj(Text)
    return [
        text
        for text in found
        if text.get_visible() and text.get_text().strip() and id(text) not in hidden
    ]


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in texts(figure))


def check_legible(figure: Figure) -> None:
    """No text under 7 pt, none outside the figure, no two on top of each other."""
    every = texts(figure)
    assert every
    assert min(text.get_size() for text in every) >= 7, "text under 7 pt"
    boxes = np.array(
        [Text.get_window_extent(text).extents for text in every]
    )  # of an annotation without its arrow
    width, height = figure.bbox.width, figure.bbox.height
    outside = [
        t.get_text()
        for t, b in zip(every, boxes, strict=True)
        if b[0] < 0 or b[1] < 0 or b[2] > width or b[3] > height
    ]
    assert not outside, f"outside the figure: {outside}"
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    over = np.minimum(high - low, 1e9).min(axis=2)
    np.fill_diagonal(over, 0)
    pairs = [
        (every[i].get_text(), every[j].get_text())
        for i, j in zip(*np.nonzero(over > 1.0), strict=True)
        if i < j
    ]
    assert not pairs, f"on top of each other: {pairs[:5]}"
