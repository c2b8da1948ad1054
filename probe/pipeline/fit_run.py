"""Fit the curves to every layer of a finished run: profile and samples in, tables of fits and alphas out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probe.curves import (
    FAMILIES,
    BinnedMap,
    ChannelScope,
    beyond_linear,
    fit_channels,
    fit_profile,
    median_abs,
    saturation,
)
from probe.errors import unknown
from probe.records import GROUPS, Fit
from probe.store import Run, open_run, write_alphas

CHANNEL_FAMILIES = ("linear", "tanh", "erf", "isru")  # the curves that a layer of the zoo can represent, and the line
MASSIVE = 100.0, 1000.0  # |x| above both: this, and this times the layer's median |x| (Sun et al. 2024, arXiv 2402.17762)
EXTREME = 0.8813735870195430  # |alpha x| where tanh has half its central slope


@dataclass(frozen=True)
class LayerFit:
    """What is fitted to one layer."""

    fits: list[Fit]
    channels: pd.DataFrame | None  # CHANNEL_FITS rows
    alpha: dict[str, object]  # ALPHAS row


def fit(
    run: Run | str, families: Sequence[str] | None = None, save: bool = True, progress: Callable[..., None] | None = None
) -> pd.DataFrame:
    """Fit every family to every layer. Returns one row per layer, family, scope, weighting and token kind.

    families: names of curve families (None: all); the line and tanh are always fitted, as statuses and alphas rest on them.
    save: write fits, channel fits and the alpha table (CSV, JSON) into the run.
    """
    run = open_run(run)
    chosen = _families(families)
    layers = run.layers.to_dict("records")
    moments = {name: rows for name, rows in run.moments().groupby("layer", sort=False)}
    profiles = {name: rows for name, rows in run.profile().groupby("layer", sort=False)}
    groups = _image_groups(run)
    results = []
    for done, layer in enumerate(layers):
        if progress:
            progress("fit", done, len(layers), layer["layer"])
        results.append(_fit_layer(run, layer, moments.get(layer["layer"]), profiles.get(layer["layer"]), groups, chosen))
    frame = pd.DataFrame(
        [
            {"layer": layer["layer"], "depth": layer["depth"], **row.as_dict()}
            for layer, result in zip(layers, results, strict=True)
            for row in result.fits
        ]
    )
    if save:
        channels = [result.channels for result in results if result.channels is not None]
        run.save_table("fits", frame)
        run.save_table(
            "channel_fits",
            pd.concat(channels, ignore_index=True) if channels else pd.DataFrame({name: [] for name in CHANNEL_COLUMNS}),
        )
        alphas = pd.DataFrame([result.alpha for result in results])
        for name in ("alpha.csv", "alpha.json"):
            write_alphas(alphas, run.path / name)
    if progress:
        progress("fit", len(layers), len(layers), "")
    return frame


CHANNEL_COLUMNS = ("layer", "channel", "alpha", "gamma", "beta", "r2", "slope", "offset", "extremes", "max_abs_input", "massive")


def _families(names: Iterable[str] | None) -> list[str]:
    if names is None:
        return list(FAMILIES)
    wanted = set(names)
    for name in wanted:
        if name not in FAMILIES:
            raise unknown("--families", name, FAMILIES)
    return [name for name in FAMILIES if name in wanted | {"linear", "tanh"}]


def _image_groups(run: Run) -> Callable[[NDArray[np.int64]], NDArray[np.int64]]:
    """Jackknife group of each image: as the capture stored it, else the running number."""
    stored = run.manifest["data"].get("groups")
    known = np.asarray(stored, dtype=np.int64) if stored else None
    return lambda images: known[images] if known is not None else images % GROUPS


def _fit_layer(
    run: Run,
    layer: dict[str, object],
    moments: pd.DataFrame | None,
    profile: pd.DataFrame | None,
    groups: Callable[[NDArray[np.int64]], NDArray[np.int64]],
    families: list[str],
) -> LayerFit:
    name, status = str(layer["layer"]), str(layer["status"])
    if moments is None or profile is None or status != "captured":
        failed = [Fit(family, "layer", "population", status, count=int(layer["count"] or 0)) for family in families]
        return LayerFit(failed, None, _alpha_row(layer, failed, None, None, moments, None))
    low, high = float(moments["min_input"].min()), float(moments["max_input"].max())
    binned = BinnedMap.from_frame(profile, low, high)
    x, z, image_groups = _uniform(run, name, groups)
    if layer["affine"]:
        fits = [
            replace(row, status="affine", alpha=None)
            for row in fit_profile(binned, families=["linear"], weightings=("population",))
        ]
        scope = fit_channels(x, z, image_groups, families=("linear",))
        fits += [replace(row, status="affine", alpha=None) for row in scope.fits]
    else:
        fits = fit_profile(binned, families=families)
        scope = fit_channels(x, z, image_groups, families=[name for name in CHANNEL_FAMILIES if name in families])
        fits += scope.fits
        for tokens in sorted(set(profile["tokens"])) if profile["tokens"].nunique() > 1 else ():
            part = BinnedMap.from_frame(profile, low, high, tokens)
            fits += fit_profile(part, families=[f for f in ("linear", "tanh") if f in families], weightings=("population",))
    tanh = next((row for row in fits if _is(row, "tanh", "layer")), None)
    channels = _channel_rows(name, moments, scope, binned, x, tanh)
    return LayerFit(fits, channels, _alpha_row(layer, fits, binned, channels, moments, tanh))


def _is(row: Fit, family: str, scope: str) -> bool:
    return (row.family, row.scope, row.weighting, row.tokens) == (family, scope, "population", "all")


def _uniform(
    run: Run, layer: str, groups: Callable[[NDArray[np.int64]], NDArray[np.int64]]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Input and normalized (N, C) of the uniform rows, and their jackknife groups (N,)."""
    rows = run.samples(layer, stratum="uniform")
    channels = int(rows["channel"].max()) + 1 if len(rows) else 0
    if not channels:
        empty = np.empty((0, 0), np.float32)
        return empty, empty, np.empty(0, np.int64)
    x, z = (rows[column].to_numpy().reshape(channels, -1).T for column in ("input", "normalized"))
    return x, z, groups(rows["image"].to_numpy()[: len(x)].astype(np.int64))


def _channel_rows(
    layer: str, moments: pd.DataFrame, scope: ChannelScope, binned: BinnedMap, x: NDArray[np.float32], tanh: Fit | None
) -> pd.DataFrame:
    channels = len(moments)
    nothing = np.full(channels, np.nan)
    channel_tanh = next((row for row in scope.fits if row.family == "tanh"), None)
    alpha = channel_tanh.alpha if channel_tanh is not None else None
    gamma, beta, r2 = ((nothing,) * 3) if alpha is None else (scope.gamma["tanh"], scope.beta["tanh"], scope.r2["tanh"])
    slope, offset = moments["slope"].to_numpy(), moments["offset"].to_numpy()
    if np.isnan(slope).all() and "linear" in scope.gamma:
        slope, offset = scope.gamma["linear"], scope.beta["linear"]
    extremes = nothing
    if tanh is not None and tanh.alpha is not None and len(x):
        beyond = (np.abs(tanh.alpha * x) > EXTREME).sum(axis=0)
        extremes = beyond / beyond.sum() if beyond.any() else np.zeros(channels)
    largest = np.maximum(moments["min_input"].abs(), moments["max_input"].abs()).to_numpy()
    massive = (largest > MASSIVE[0]) & (largest > MASSIVE[1] * median_abs(binned))
    columns = (
        layer,
        moments["channel"].to_numpy(),
        np.nan if alpha is None else alpha,
        gamma,
        beta,
        r2,
        slope,
        offset,
        extremes,
        largest,
        massive,
    )
    return pd.DataFrame(dict(zip(CHANNEL_COLUMNS, columns, strict=True)))


def _alpha_row(
    layer: dict[str, object],
    fits: list[Fit],
    binned: BinnedMap | None,
    channels: pd.DataFrame | None,
    moments: pd.DataFrame | None,
    tanh: Fit | None,
) -> dict[str, object]:
    """The layer's line in alpha.csv: the tanh of scope `layer` over all elements, beside what it should be read with."""
    shown = tanh or next((row for row in fits if row.scope == "layer"), fits[0])
    channel_tanh = next((row for row in fits if _is(row, "tanh", "channel")), None)
    best = [
        row.family for row in fits if row.best and row.scope == "layer" and row.weighting == "population" and row.tokens == "all"
    ]
    row: dict[str, object] = {name: layer[name] for name in ("layer", "depth", "kind", "channels")}
    row |= {
        name: getattr(shown, name)
        for name in ("alpha", "gamma", "beta", "slope", "r2", "linear_r2", "r2_ceiling", "alpha_low", "alpha_high", "status")
    }
    row |= {"alpha_channel": channel_tanh.alpha if channel_tanh else None, "best_family": "|".join(best)}
    row |= {"mean_inverse_sigma": layer["inverse_sigma_mean"], "sigma_cv": layer["sigma_cv"], "count": layer["count"]}
    row |= dict.fromkeys(("beyond_linear", "saturation", "input_std", "inverse_std", "max_abs_input", "massive_channels"))
    row |= dict.fromkeys(("slope_min", "slope_median", "slope_max", "slope_cv", "mean_std_spread"))
    if moments is not None:
        row |= _input_facts(moments)
    if channels is not None:
        row["massive_channels"] = int(channels["massive"].sum())
    if binned is not None and shown.alpha is not None:
        row |= {"beyond_linear": beyond_linear(binned, shown.alpha), "saturation": saturation(binned, shown.alpha)}
    if layer["affine"] and moments is not None:
        row |= _fan_of_lines(moments)
    return row


def _input_facts(moments: pd.DataFrame) -> dict[str, float]:
    """Standard deviation over all elements of the layer (pooled over channels), its inverse, and the largest |input|."""
    count, mean, var = (moments[name].to_numpy() for name in ("count", "mean_input", "var_input"))
    if not count.sum():
        return {}
    centre = np.average(mean, weights=count)
    std = float(np.sqrt(np.average(var + (mean - centre) ** 2, weights=count)))
    largest = float(np.maximum(moments["min_input"].abs(), moments["max_input"].abs()).max())
    return {"input_std": std, "inverse_std": 1 / std if std > 0 else np.nan, "max_abs_input": largest}


def _fan_of_lines(moments: pd.DataFrame) -> dict[str, float]:
    """Slopes over the channels of an affine layer, and the spread of mean/std of their inputs: how far the fan is from one line."""
    slope = moments["slope"].to_numpy()
    std = np.sqrt(moments["var_input"].to_numpy())
    ratio = np.divide(moments["mean_input"].to_numpy(), std, out=np.full(len(std), np.nan), where=std > 0)
    mean = float(slope.mean())
    return {
        "slope": float(np.median(slope)),
        "slope_min": float(slope.min()),
        "slope_median": float(np.median(slope)),
        "slope_max": float(slope.max()),
        "slope_cv": float(slope.std() / abs(mean)) if mean else np.nan,
        "mean_std_spread": float(np.nanstd(ratio)) if np.isfinite(ratio).any() else np.nan,
    }
