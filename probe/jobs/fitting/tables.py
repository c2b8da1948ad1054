"""From the fits of one layer to its rows in the tables of a run: channel_fits and alpha."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probe.curves import FAMILIES, BinnedMap, ChannelScope, beyond_linear, saturation
from probe.records import Fit, Status, main_fits

# |x| above both: this, and this times the layer's median |x| (Sun et al. 2024, arXiv 2402.17762)
MASSIVE = (100.0, 1000.0)

_OF_THE_LAYER = ("layer", "depth", "kind", "channels", "own_alpha", "count", "sigma_cv")
_OF_THE_FIT = (
    *("alpha", "gamma", "beta", "slope", "r2", "linear_r2", "r2_ceiling"),
    *("gain", "gain_low", "gain_high", "alpha_low", "alpha_high", "status"),
)
_WHERE_KNOWN = (
    *("beyond_linear", "saturation", "input_std", "inverse_std", "max_abs_input"),
    *("massive_channels", "slope_min", "slope_median", "slope_max", "slope_cv"),
    "mean_std_spread",
)


def find(fits: Sequence[Fit], family: str, scope: str) -> Fit | None:
    """The fit of a family over all tokens with every element counted once."""
    return next(iter(main_fits(fits, family=family, scope=scope)), None)


def channel_rows(
    layer: str,
    moments: pd.DataFrame,
    scope: ChannelScope,
    median_x: float,
    x: NDArray[np.float32],
    fits: Sequence[Fit],
) -> pd.DataFrame:
    """CHANNEL_FITS of one layer: tanh at the layer's one alpha, the line, extremes and massive
    channels. median_x: median of |x| of the layer. x (N, C): uniform rows.
    """
    missing = np.full(len(moments), np.nan)
    curve = find(scope.fits, "tanh", "channel")
    alpha = curve.alpha if curve is not None else None
    gamma, beta, r2 = (
        getattr(scope, name)["tanh"] if alpha is not None else missing
        for name in ("gamma", "beta", "r2")
    )
    slope, offset = moments["slope"].to_numpy(), moments["offset"].to_numpy()
    if np.isnan(slope).all() and "linear" in scope.gamma:
        slope, offset = scope.gamma["linear"], scope.beta["linear"]
    largest = largest_input(moments)
    columns = {
        "layer": layer,
        "channel": moments["channel"].to_numpy(),
        "alpha": np.nan if alpha is None else alpha,
        "gamma": gamma,
        "beta": beta,
        "r2": r2,
        "slope": slope,
        "offset": offset,
        "extremes": _extremes(x, find(fits, "tanh", "layer"), missing),
        "max_abs_input": largest,
        "massive": (largest > MASSIVE[0]) & (largest > MASSIVE[1] * median_x),
    }
    return pd.DataFrame(columns)


def _extremes(
    x: NDArray[np.float32], tanh: Fit | None, missing: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Share of each channel in the elements beyond the linear range; missing where the layer has no
    curve.
    """
    if tanh is None or tanh.alpha is None or not len(x):
        return missing
    beyond = (np.abs(tanh.alpha * x) > FAMILIES[tanh.family].half_slope).sum(axis=0)
    return beyond / max(int(beyond.sum()), 1)


def largest_input(moments: pd.DataFrame) -> NDArray[np.float64]:
    """Largest |input| per channel."""
    return np.maximum(moments["min_input"].abs(), moments["max_input"].abs()).to_numpy()


def alpha_row(
    layer: dict[str, Any],
    fits: Sequence[Fit],
    moments: pd.DataFrame | None = None,
    binned: BinnedMap | None = None,
    channels: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """The layer's line in alpha.csv: the tanh of scope `layer` over all elements, beside what it
    should be read with.

    Layers without a tanh (affine ones) show their line. moments, binned, channels: None for a layer
    that has none.
    """
    shown = find(fits, "tanh", "layer") or next(
        (fit for fit in fits if fit.scope == "layer"), fits[0]
    )
    row = {name: layer[name] for name in _OF_THE_LAYER}
    row |= {name: getattr(shown, name) for name in _OF_THE_FIT}
    row |= {
        "established": shown.alpha is not None and shown.status == Status.CURVED,
        **_of_channels(find(fits, "tanh", "channel")),
        **_ranking(fits),
        "mean_inverse_sigma": layer["inverse_sigma_mean"],
    }
    row |= dict.fromkeys(_WHERE_KNOWN)
    if channels is not None:
        row["massive_channels"] = int(channels["massive"].sum())
    if binned is not None and shown.alpha is not None:
        row |= {
            "beyond_linear": beyond_linear(binned, shown.alpha),
            "saturation": saturation(binned, shown.alpha),
        }
    if moments is not None:
        row |= _input_facts(moments) | (_fan_of_lines(moments) if layer["affine"] else {})
    return row


def _of_channels(tanh: Fit | None) -> dict[str, float | None]:
    """The tanh of scope `channel`: one alpha for all channels, and its gain over their lines."""
    return {
        "alpha_channel": tanh.alpha if tanh else None,
        "alpha_channel_low": tanh.alpha_low if tanh else None,
        "alpha_channel_high": tanh.alpha_high if tanh else None,
        "channel_gain": tanh.gain if tanh else None,
    }


def _ranking(fits: Sequence[Fit]) -> dict[str, str]:
    """The best family of scope `layer` over all elements, and those that are not told from it."""
    main = main_fits(fits)
    return {
        "best_family": next((fit.family for fit in main if fit.best), ""),
        "tied": "|".join(fit.family for fit in main if fit.tied),
    }


def _input_facts(moments: pd.DataFrame) -> dict[str, float]:
    """Standard deviation over all elements of the layer (pooled over channels), its inverse, and
    the largest |input|.
    """
    count, mean, var = (moments[name].to_numpy() for name in ("count", "mean_input", "var_input"))
    if not count.sum():
        return {}
    centre = np.average(mean, weights=count)
    std = float(np.sqrt(np.average(var + (mean - centre) ** 2, weights=count)))
    return {
        "input_std": std,
        "inverse_std": 1 / std if std > 0 else np.nan,
        "max_abs_input": float(largest_input(moments).max()),
    }


def _fan_of_lines(moments: pd.DataFrame) -> dict[str, float]:
    """Slopes over the channels of an affine layer, and the spread of mean/std of their inputs: how
    far the fan is from a line.
    """
    slope = moments["slope"].to_numpy()
    std = np.sqrt(moments["var_input"].to_numpy())
    ratio = np.divide(
        moments["mean_input"].to_numpy(), std, out=np.full(len(std), np.nan), where=std > 0
    )
    mean = float(slope.mean())
    return {
        "slope": float(np.median(slope)),
        "slope_min": float(slope.min()),
        "slope_median": float(np.median(slope)),
        "slope_max": float(slope.max()),
        "slope_cv": float(slope.std() / abs(mean)) if mean else np.nan,
        "mean_std_spread": float(np.nanstd(ratio)) if np.isfinite(ratio).any() else np.nan,
    }
