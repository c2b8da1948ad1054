"""Fit the curves to every layer of a finished run: profile and samples in, tables of fits and
alphas out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probe.compiling import ONCE, announced
from probe.curves import (
    CHANNEL_FAMILIES,
    FAMILIES,
    BinnedMap,
    ChannelScope,
    fit_channels,
    fit_profile,
    is_mixture,
    median_abs,
    pooled_line,
    sampled_ceiling,
    sampled_median_abs,
    sources_to_decide,
)
from probe.errors import ProbeError, unknown
from probe.jobs.fitting.tables import alpha_row, channel_rows
from probe.jobs.sharing import second_process, shared
from probe.records import GROUPS, Fit, Progress, Status, main_fits, silent
from probe.store import Run, open_run
from probe.store.replacement import copy_captured, whole_run
from probe.store.schema import TABLES
from probe.wording.evidence import seen_images
from probe.wording.notes import table_metadata

TOKEN_FAMILIES = ("linear", "tanh")  # fitted to prefix and to patch tokens alone, too
_OF_ROWS = ("image", "channel", "input", "normalized", "stratum")

Groups = Callable[[NDArray[np.int64]], NDArray[np.int64]]  # image index -> jackknife group


@dataclass(frozen=True)
class LayerFit:
    """What is fitted to one layer."""

    fits: list[Fit]
    alpha: dict[str, Any]  # ALPHAS row
    channels: pd.DataFrame | None = None  # CHANNEL_FITS rows


@dataclass(frozen=True)
class LayerData:
    """What a run holds of one layer that was captured."""

    moments: pd.DataFrame
    profile: pd.DataFrame | None  # None: affine per channel
    x: NDArray[np.float32]  # (N, C) input of the uniform rows
    z: NDArray[np.float32]  # (N, C) normalized
    groups: NDArray[np.int64]  # (N,) jackknife group

    def binned(self, tokens: str = "all") -> BinnedMap:
        """The map in bins; `tokens`: all, patch or prefix."""
        assert self.profile is not None
        low, high = float(self.moments["min_input"].min()), float(self.moments["max_input"].max())
        return BinnedMap.from_frame(self.profile, low, high, tokens)


def fit(
    run: Run | str,
    families: Sequence[str] | None = None,
    save: bool = True,
    progress: Progress | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> pd.DataFrame:
    """Fit every family to every layer. Returns one row per layer, family, scope, weighting and
    token kind.

    families: names of curve families (None: all); the line and tanh are always fitted, as statuses
    and alphas rest on them. Families that the run was fitted with before stay.
    save: write fits, channel fits and the alpha table (CSV, JSON) into the run.
    progress: called as progress("fit", layers done, layers, name of the layer).
    out: a folder, or an address, for a copy of the run that holds the fits, in place of the run
    itself, which may lie where nothing can be written; overwrite: over a run that is there.

    Raises ProbeError, before the work, where the run cannot be written.
    """
    run = open_run(run)
    if out is not None:
        names = None if families is None else _families(families, fitted_families(run))
        with whole_run(out, overwrite) as place:
            copy_captured(run, place)
            return fit(open_run(place), names, progress=progress)
    if save:
        with run.results(f"`probe-norms fit {run.path} --out DIR` fits a copy of it"):
            pass
    frame, results = _fit_layers(run, families, progress or silent)
    if save:
        _save(run, frame, results)
    return frame


def _fit_layers(
    run: Run, families: Sequence[str] | None, report: Progress
) -> tuple[pd.DataFrame, list[LayerFit]]:
    """One row per layer, family, scope, weighting and token kind; and the same by layer."""
    layers = run.layers.to_dict("records")

    def progress(done: int) -> None:
        report("fit", done, len(layers), layers[done]["layer"] if done < len(layers) else "")

    job = _FitJob(run, _families(families, fitted_families(run)), by_layer(run.moments()))
    with second_process(__name__), announced(lambda: report("compile", 0, None, ONCE)):
        results = shared(job, layers, progress)
    rows = [
        {"layer": result.alpha["layer"], "depth": result.alpha["depth"], **row.as_dict()}
        for result in results
        for row in result.fits
    ]
    return pd.DataFrame(rows), results


class _FitJob:
    """Fits the layers of a run one by one, given as rows of its `layers`. The profile does not
    travel: it is read anew.
    """

    def __init__(self, run: Run, families: list[str], moments: dict[str, pd.DataFrame]) -> None:
        self.run, self.families, self.moments = run, families, moments

    def __getstate__(self) -> dict[str, Any]:
        return {"run": self.run, "families": self.families, "moments": self.moments}

    @cached_property
    def _profiles(self) -> dict[str, pd.DataFrame]:
        return by_layer(self.run.profile())

    def __call__(self, layer: dict[str, Any]) -> LayerFit:
        result = self._fit(layer)
        images, sources = seen_images(self.run.manifest)
        result.alpha.update(images=images, sources=sources)
        result.alpha["sources_to_decide"] = _sources_to_decide(result.alpha)
        return result

    def _fit(self, layer: dict[str, Any]) -> LayerFit:
        name = layer["layer"]
        moments, profile = self.moments.get(name), self._profiles.get(name)
        seen = moments is not None and (layer["affine"] or profile is not None)
        if layer["status"] != Status.CAPTURED or not seen:
            return _without_fit(layer, self.families, moments)
        assert moments is not None
        sampled = uniform_rows(self.run, name, image_groups(self.run))
        return _fit_layer(layer, LayerData(moments, profile, *sampled), self.families)


def ensure_fitted(run: Run | str | Path, progress: Progress | None = None) -> Run:
    """The run, fitted first with every family where it holds no fits yet."""
    run = open_run(run)
    if not run.has("fits"):
        fit(run, progress=progress)
    return run


def by_layer(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each layer."""
    return {str(name): rows for name, rows in table.groupby("layer", sort=False, observed=True)}


def _save(run: Run, fits: pd.DataFrame, results: list[LayerFit]) -> None:
    channels = [result.channels for result in results if result.channels is not None]
    nothing = pd.DataFrame(columns=TABLES["channel_fits"].names)
    tables = {
        "fits": fits,
        "channel_fits": pd.concat(channels, ignore_index=True) if channels else nothing,
    }
    alphas = pd.DataFrame([result.alpha for result in results])
    run.save_fits(tables, alphas, table_metadata(run.manifest))


def fitted_families(run: Run) -> set[str]:
    """The families that the run holds fits of; all, where these are damaged and made anew."""
    try:
        return set(run.fits()["family"]) if run.has("fits") else set()
    except ProbeError:
        return set(FAMILIES)


def _families(names: Iterable[str] | None, before: Iterable[str]) -> list[str]:
    """The wanted families and those fitted before, in the order of the registry, the line and tanh
    among them. Raises UsageError for an unknown name.
    """
    wanted = set(FAMILIES if names is None else names)
    for name in wanted:
        if name not in FAMILIES:
            raise unknown("--families", name, FAMILIES)
    return [name for name in FAMILIES if name in wanted | {"linear", "tanh"} | set(before)]


def _sources_to_decide(row: dict[str, Any]) -> int | None:
    """About how many sources would tell a curve from a line, where these do not."""
    if row["status"] != Status.UNDETERMINED:
        return None
    return sources_to_decide(row["gain"], row["gain_low"], row["gain_high"], row["sources"])


def image_groups(run: Run) -> Groups:
    """Jackknife group of each image: as the capture stored it, else the running number."""
    data = run.manifest.get("data") or {}
    stored = data.get("groups")
    if not stored and isinstance(data.get("images"), int):  # too many for the manifest
        stored = run.images()["group"]
    if stored is None or not len(stored):
        return lambda images: images % GROUPS
    known = np.asarray(stored, dtype=np.int64)
    return lambda images: known[images]


def uniform_rows(
    run: Run, layer: str, groups: Groups
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Input and normalized (N, C) of the uniform rows, and their jackknife groups (N,)."""
    rows = run.samples(layer, columns=_OF_ROWS)
    rows = rows[(rows.pop("stratum") == "uniform").to_numpy()]
    channels = int(rows["channel"].max()) + 1 if len(rows) else 0
    if not channels:
        empty = np.empty((0, 0), np.float32)
        return empty, empty, np.empty(0, np.int64)
    x, z = (rows[column].to_numpy().reshape(channels, -1).T for column in ("input", "normalized"))
    return x, z, groups(rows["image"].to_numpy()[: len(x)].astype(np.int64))


def _fit_layer(layer: dict[str, Any], data: LayerData, families: list[str]) -> LayerFit:
    binned = None if layer["affine"] else data.binned()
    fits, scope = _lines(data) if binned is None else _curves(data, binned, families)
    middle = median_abs(binned) if binned is not None else sampled_median_abs(data.x)
    channels = channel_rows(layer["layer"], data.moments, scope, middle, data.x, fits)
    return LayerFit(fits, alpha_row(layer, fits, data.moments, binned, channels), channels)


def _without_fit(
    layer: dict[str, Any], families: list[str], moments: pd.DataFrame | None
) -> LayerFit:
    """A layer that was never called, saw infinities, or nothing at all (everything masked): rows
    that say so.
    """
    captured = layer["status"] == Status.CAPTURED
    status = Status.TOO_FEW if captured else str(layer["status"])
    fits = [
        Fit(family, "layer", "population", status, count=int(layer["count"] or 0))
        for family in families
    ]
    return LayerFit(fits, alpha_row(layer, fits, moments))


def _lines(data: LayerData) -> tuple[list[Fit], ChannelScope]:
    """A layer that is affine per channel: the line over all channels, and one for each. No family
    says more.
    """
    scope = fit_channels(data.x, data.z, data.groups, families=("linear",))
    count, mean, var, slope, offset = (
        data.moments[name].to_numpy()
        for name in ("count", "mean_input", "var_input", "slope", "offset")
    )
    ceiling = sampled_ceiling(data.x, data.z)
    pooled = pooled_line(count, mean, var, slope, offset, ceiling)
    return [pooled, *(replace(row, status=Status.AFFINE, alpha=None) for row in scope.fits)], scope


def _curves(
    data: LayerData, binned: BinnedMap, families: list[str]
) -> tuple[list[Fit], ChannelScope]:
    """Every family over all elements, per channel, and over prefix and patch tokens alone."""
    scope = fit_channels(
        data.x,
        data.z,
        data.groups,
        families=[name for name in CHANNEL_FAMILIES if name in families],
    )
    fits = told_apart(fit_profile(binned, families=families), scope.fits) + scope.fits
    assert data.profile is not None
    kinds = sorted(data.profile["tokens"].unique())
    for tokens in kinds if len(kinds) > 1 else ():
        fits += fit_profile(
            data.binned(tokens), families=TOKEN_FAMILIES, weightings=("population",)
        )
    return fits, scope


def told_apart(layer: list[Fit], channel: list[Fit]) -> list[Fit]:
    """The fits of the whole layer: `mixture` where its bend is only the spread of its channels."""
    tanh = next(iter(main_fits(layer, family="tanh")), None)
    per_channel = next((fit for fit in channel if fit.family == "tanh"), None)
    if tanh is None or not is_mixture(tanh, per_channel):
        return layer
    bent = (Status.CURVED, Status.STEP, Status.SUPERLINEAR)
    return [replace(fit, status=Status.MIXTURE) if fit.status in bent else fit for fit in layer]
