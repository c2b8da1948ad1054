"""Do the tables of a run agree with each other and with its manifest? Each problem one line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from probe.store.run import Run
from probe.store.schema import VALUES

_SIDES = ("input", "output")


def check_moments(moments: pd.DataFrame, captured: pd.DataFrame) -> Iterator[str]:
    moments = moments[moments["layer"].isin(captured.index)]
    for side in _SIDES:
        mean, var, low, high = (
            moments[f"{name}_{side}"].to_numpy() for name in ("mean", "var", "min", "max")
        )
        finite = np.isfinite(mean) & np.isfinite(var) & np.isfinite(low) & np.isfinite(high)
        slack = 1e-6 * (np.abs(low) + np.abs(high))  # the rounding of a sum
        ordered = (low - slack <= mean) & (mean <= high + slack) & (var >= 0)
        yield from _where(moments, ~finite, f"moments: the {side} statistics are not finite")
        yield from _where(
            moments,
            finite & ~ordered,
            f"moments: min <= mean <= max or var >= 0 does not hold for the {side}",
        )
    seen = moments.groupby("layer", observed=True)["count"].agg(["sum", "size"])
    for layer, row in captured.iterrows():
        count, channels = (
            (int(value) for value in seen.loc[layer]) if layer in seen.index else (0, 0)
        )
        if count != row["count"]:
            yield (
                f"layer {layer}: the moments saw {count} elements, the manifest says {row['count']}"
            )
        if channels != row["channels"]:
            yield (
                f"layer {layer}: the moments have {channels} channels, the manifest says "
                f"{row['channels']}"
            )


def check_profile(
    profile: pd.DataFrame, moments: pd.DataFrame, captured: pd.DataFrame
) -> Iterator[str]:
    sums = profile[
        ["sum_input", "sum_normalized", "sum_normalized_sq", "sum_input_sq", "sum_product"]
    ].to_numpy(copy=True)
    # an affine layer has no profile; older versions kept one without second moments
    captured = captured[~captured["affine"].astype(bool)]
    inside = profile["layer"].isin(captured.index).to_numpy()
    bad = inside & (~np.isfinite(sums).all(axis=1) | (profile["count"].to_numpy() <= 0))
    yield from _where(profile, bad, "profile: a cell is empty or not finite")
    seen = profile.groupby("layer", observed=True)["count"].sum()
    exact = moments.groupby("layer", observed=True)["count"].sum()
    for layer in captured.index:
        if seen.get(layer, 0) != exact.get(layer, 0):
            yield (
                f"layer {layer}: the profile saw {seen.get(layer, 0)} elements, the moments "
                f"{exact.get(layer, 0)}"
            )


def check_attention(table: pd.DataFrame) -> Iterator[str]:
    """Every head once, shares within 0 to 1, distances within the diagonal of the grid. A missing
    number is no problem.
    """
    sides = table["grid"].str.extract(r"^(\d+)x(\d+)$").astype(float)
    diagonal = np.hypot(sides[0] - 1, sides[1] - 1)
    far = (
        (table["distance_patches"] < 0)
        | (table["distance_patches"] > diagonal + 1e-6)
        | (table["distance_px"] < 0)
    )
    yield from _where(table, far.to_numpy(), "attention: a distance lies outside its grid")
    share = (
        (table["prefix_mass"] < -1e-6)
        | (table["prefix_mass"] > 1 + 1e-6)
        | (table["entropy"] < -1e-6)
    )
    yield from _where(
        table, share.to_numpy(), "attention: prefix mass outside 0 to 1, or entropy below 0"
    )
    expected = table.groupby("layer", sort=False, observed=True).cumcount()
    yield from _where(
        table, (table["head"] != expected).to_numpy(), "attention: a head is missing or there twice"
    )


def check_samples(run: Run, layer: str, moments: pd.DataFrame) -> Iterator[str]:
    samples = run.samples(layer)
    if not np.isfinite(samples[list(VALUES)].to_numpy()).all():
        yield f"layer {layer}: samples are not finite"
    moments = moments.set_index("channel")
    yield from _uniform(layer, samples, moments, run.manifest)
    span = samples.groupby("channel")["input"].agg(["min", "max"])
    exact = moments.reindex(span.index)
    if ((span["min"] < exact["min_input"]) | (span["max"] > exact["max_input"])).any():
        yield f"layer {layer}: samples of the input lie outside the exact range in the moments"


def _uniform(
    layer: str, samples: pd.DataFrame, moments: pd.DataFrame, manifest: dict[str, Any]
) -> Iterator[str]:
    """The number of uniform rows: in all channels the same, and as planned. moments: those of the
    layer, by channel.

    Skipped images may cost rows, as these are drawn before it is known which images can be read;
    and so may batches that skip the layer.
    """
    found = (
        samples[samples["stratum"] == "uniform"]
        .groupby("channel")
        .size()
        .reindex(moments.index, fill_value=0)
    )
    due = moments["count"].clip(upper=_wanted(manifest))
    if found.nunique() > 1:
        yield (
            f"layer {layer}: {found.min()} to {found.max()} uniform samples in its channels, not "
            "the same number in each"
        )
        return
    too_many = bool((found > due).any())
    may_be_few = _skipped(manifest) or _missed(layer, moments, manifest)
    too_few = bool((found < due).any()) and _wanted(manifest) is not None and not may_be_few
    if too_many or too_few:
        yield f"layer {layer}: {found.max()} uniform samples in each channel, {due.max()} are due"


def _skipped(manifest: dict[str, Any]) -> bool:
    """Were there images that could not be read?"""
    data = manifest.get("data")
    return bool(data.get("skipped")) if isinstance(data, dict) else False


def _missed(layer: str, moments: pd.DataFrame, manifest: dict[str, Any]) -> bool:
    """Was the layer called at fewer positions than it has in all images together?"""
    records = {record["layer"]: record for record in manifest.get("layers", ())}
    positions = records.get(layer, {}).get("positions") or 0
    images = manifest.get("images_seen")
    return isinstance(images, int) and bool((moments["count"] < positions * images).any())


def _wanted(manifest: dict[str, Any]) -> int | None:
    """Rows per layer that the plan asked for."""
    plan = manifest.get("plan")
    return plan.get("samples") if isinstance(plan, dict) else None


def _where(
    frame: pd.DataFrame, bad: np.ndarray[Any, np.dtype[np.bool_]], problem: str
) -> Iterator[str]:
    if bad.any():
        layers = list(dict.fromkeys(frame.loc[bad, "layer"]))
        yield (
            f"{problem} ({int(bad.sum())} rows; "
            f"{', '.join(layers[:3])}{', ...' if len(layers) > 3 else ''})"
        )
