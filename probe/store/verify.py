"""What is wrong with a finished run: each problem one line."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from probe.errors import ProbeError, first_line
from probe.records import Status
from probe.store.run import Run, open_run
from probe.store.schema import ATTENTION, CAPTURED, MADE_BY, SAMPLES, VALUES, missing_columns

_SIDES = ("input", "output")


def verify_run(path: str | os.PathLike[str] | Run) -> list[str]:
    """Problems of a run, empty where there is none. Raises UsageError where `path` is no finished
    run at all.

    Checked: every file is there with its bytes and rows; statistics are finite and ordered;
    moments, profile, samples and the manifest agree about how much was seen; sampled inputs lie
    within the exact range of their channel; attention distances lie within their grid.
    """
    run = open_run(path)
    problems = list(_files(run)) or list(_older(run))
    if problems:
        return problems  # the contents of damaged files, or of older ones, say nothing
    if f"{ATTENTION}.parquet" in run.manifest.get("files", {}):
        problems += _attention(run.attention())
    if run.attention_only:
        return problems
    problems += _derived(run)
    moments, profile = run.moments(), run.profile()
    captured = run.layers[run.layers["status"] == Status.CAPTURED].set_index("layer")
    problems += _moments(moments, captured)
    problems += _profile(profile, moments, captured)
    for layer in captured.index:
        problems += _samples(run, layer, moments[moments["layer"] == layer])
    return problems


def _files(run: Run) -> Iterator[str]:
    files = run.manifest.get("files", {})
    for name in _due(run):
        if f"{name}.parquet" not in files:
            yield f"{name}.parquet: never written"
    for name, expected in files.items():
        path = run.path / name
        try:
            data = path.read_bytes()
        except OSError as error:
            yield f"{name}: missing or unreadable ({error.strerror})"
            continue
        if hashlib.sha256(data).hexdigest() != expected["sha256"]:
            yield f"{name}: the content changed (sha256 differs from the manifest)"
        elif (rows := pq.read_metadata(path).num_rows) != expected["rows"]:
            yield f"{name}: {rows} rows, the manifest says {expected['rows']}"
    present = {f"{SAMPLES}/{path.name}" for path in (run.path / SAMPLES).glob("*")}
    for name in sorted(present - set(files)):
        yield f"{name}: not in the manifest"


def _due(run: Run) -> tuple[str, ...]:
    """The tables that a run of its kind must hold."""
    return (ATTENTION,) if run.attention_only else CAPTURED


def _older(run: Run) -> Iterator[str]:
    """Tables of another version of this package."""
    written = [
        name
        for name in (*CAPTURED, ATTENTION)
        if f"{name}.parquet" in run.manifest.get("files", {})
    ]
    for name in written:
        if missing := missing_columns(name, pq.read_schema(run.path / f"{name}.parquet")):
            yield f"{name}.parquet: {missing}"


def _derived(run: Run) -> Iterator[str]:
    known = set(run.layers["layer"])
    for name in MADE_BY:
        path = run.path / ("alpha.csv" if name == "alphas" else f"{name}.parquet")
        if not path.exists():
            continue
        try:
            strange = sorted(set(getattr(run, name)()["layer"]) - known)
        except (ProbeError, ValueError) as error:
            yield f"{path.name}: unreadable ({first_line(error)})"
            continue
        if strange:
            yield f"{path.name}: layers that the run does not have: {', '.join(strange[:3])}"


def _moments(moments: pd.DataFrame, captured: pd.DataFrame) -> Iterator[str]:
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


def _profile(profile: pd.DataFrame, moments: pd.DataFrame, captured: pd.DataFrame) -> Iterator[str]:
    sums = profile[
        ["sum_input", "sum_normalized", "sum_normalized_sq", "sum_input_sq", "sum_product"]
    ].to_numpy(copy=True)
    inside = profile["layer"].isin(captured.index).to_numpy()
    lines = profile["layer"].isin(captured.index[captured["affine"]]).to_numpy()
    sums[lines, 2:] = 0  # the second moments of a line are not kept
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


def _attention(table: pd.DataFrame) -> Iterator[str]:
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


def _samples(run: Run, layer: str, moments: pd.DataFrame) -> Iterator[str]:
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

    Skipped images may cost rows, as these are drawn before it is known which images can be read.
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
    too_few = bool((found < due).any()) and _wanted(manifest) is not None and not _skipped(manifest)
    if too_many or too_few:
        yield f"layer {layer}: {found.max()} uniform samples in each channel, {due.max()} are due"


def _skipped(manifest: dict[str, Any]) -> bool:
    """Were there images that could not be read?"""
    data = manifest.get("data")
    return bool(data.get("skipped")) if isinstance(data, dict) else False


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
