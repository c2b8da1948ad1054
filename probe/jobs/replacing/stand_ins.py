"""What stands in for each layer of a run: its curve, or its line where it has no alpha.

    output = w z + b   and   z ~ gamma f(alpha x + shift) + beta

Scope `channel` has one gamma and beta per channel, scope `layer` one of each. Export, replacement
and conversion all start from here; the arithmetic is that of probe.curves.stand_in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from probe.curves import LINE, Affine, StandIn, fit_channels
from probe.errors import UsageError, unknown
from probe.jobs.fitting.fit import by_layer, image_groups, uniform_rows
from probe.jobs.fitting.tables import largest_input
from probe.records import Status, main_fits
from probe.store import Run

SCOPES = ("channel", "layer")
CURVES = ("all", "established")
ALPHA_FAMILY = "tanh"  # of the alpha table
IN_CHANNEL_FITS = (ALPHA_FAMILY, LINE)  # the families of channel_fits.parquet
WITHOUT_MAP = tuple(status for status in Status if not status.fitted)
NOT_WANTED = "not asked for"

Affines = Mapping[str, Affine]  # by layer
StandIns = tuple[dict[str, StandIn], dict[str, str]]  # by layer: the stand-in; or why there is none


def run_stand_ins(
    run: Run,
    scope: str = "channel",
    family: str = ALPHA_FAMILY,
    affines: Affines | None = None,
    curves: str = "all",
) -> StandIns:
    """The stand-ins of the fitted layers of a run, and the status of those that have none.

    family: the curve wanted; "linear": the line of every layer. affines: weight and bias of the
    layers wanted; None: of all layers, as the run saw them. curves: "all", or "established": the
    line of each layer whose curve is not.
    Per channel a run holds the curves of tanh and the lines; others are fitted here, to the same
    uniform rows.
    Raises UsageError for an unknown scope, and for a family that the run was fitted without.
    """
    if scope not in SCOPES:
        raise unknown("scope", scope, SCOPES)
    stand_ins: dict[str, StandIn] = {}
    left_out: dict[str, str] = {}
    for record in _records(run, scope, family, curves == "established"):
        reason = _reason_without(record, affines)
        if reason is not None:
            left_out[record.layer] = reason
            continue
        affine = affines[record.layer] if affines is not None else record.affine
        check_channels(record.layer, len(affine[0]), len(record.moments))
        if scope == "channel":
            stand_in = _per_channel(record.fitted_per_channel(run, family), family, affine)
        else:
            stand_in = _per_layer(record, family, affine)
        if stand_in is None:
            left_out[record.layer] = "no slope"
        else:
            stand_ins[record.layer] = stand_in
    return stand_ins, left_out


@dataclass(frozen=True)
class _Record:
    """What a run knows of the map of one layer."""

    row: dict[str, Any]  # of the alpha table, with the curve of the family that is wanted
    line: dict[str, float]  # slope and beta of the line of scope layer
    established_only: bool
    moments: pd.DataFrame  # empty where the layer was never called
    channels: pd.DataFrame  # rows of channel_fits

    @property
    def layer(self) -> str:
        return str(self.row["layer"])

    @property
    def affine(self) -> Affine:
        """Weight and bias (C,) as the run saw them."""
        return self.moments["weight"].to_numpy(), self.moments["bias"].to_numpy()

    @property
    def max_abs(self) -> float:
        return float(largest_input(self.moments).max())

    def fitted_per_channel(self, run: Run, family: str) -> _Record:
        """With alpha, gamma and beta of a family that channel_fits does not hold."""
        if family in IN_CHANNEL_FITS or self.row["status"] == Status.AFFINE:
            return self
        scope = fit_channels(*uniform_rows(run, self.layer, image_groups(run)), [family])
        (fit,) = scope.fits
        return replace(
            self,
            row=self.row | {"alpha_channel": fit.alpha, "status_channel": fit.status},
            channels=self.channels.assign(gamma=scope.gamma[family], beta=scope.beta[family]),
        )

    def alpha(self, scope: str) -> float | None:
        """Of the curve that is wanted; None where there is none, or none that counts."""
        alpha, status = (
            (self.row["alpha_channel"], self.row.get("status_channel"))
            if scope == "channel"
            else (self.row["alpha"], self.row["status"])
        )
        if pd.isna(alpha) or (self.established_only and status != Status.CURVED):
            return None
        return float(alpha)


def _records(run: Run, scope: str, family: str, established_only: bool) -> list[_Record]:
    channels, moments, fits = by_layer(run.channel_fits()), by_layer(run.moments()), run.fits()
    curves = _layer_curves(run, family) if scope == "layer" else {}
    lines = _rows_by_layer(main_fits(fits, family=LINE), ("slope", "beta"))
    per_channel = main_fits(fits, family=ALPHA_FAMILY, scope="channel")
    status = {row.layer: {"status_channel": row.status} for row in per_channel.itertuples()}
    nothing = pd.DataFrame()
    return [
        _Record(
            row | curves.get(row["layer"], {}) | status.get(row["layer"], {}),
            lines.get(row["layer"], {}),
            established_only,
            moments.get(row["layer"], nothing),
            channels.get(row["layer"], nothing),
        )
        for row in run.alphas().to_dict("records")
    ]


def _reason_without(record: _Record, affines: Affines | None) -> str | None:
    """Why a layer has no stand-in; None where it should have one."""
    if affines is not None and record.layer not in affines:
        return NOT_WANTED
    status = record.row["status"]
    return str(status) if record.moments.empty or status in WITHOUT_MAP else None


def _layer_curves(run: Run, family: str) -> dict[str, dict[str, Any]]:
    """alpha, shift, gamma, beta and slope of scope `layer` where they are of another family than
    the alpha table.
    """
    if family == ALPHA_FAMILY:
        return {}
    fits = run.fits()
    if family not in (fitted := set(fits["family"])):
        raise UsageError(
            f"run {run.path} was fitted without {family} (it holds {', '.join(sorted(fitted))}): "
            f"`probe-norms fit {run.path}` fits every family"
        )
    columns = ("alpha", "shift", "gamma", "beta", "status")
    return _rows_by_layer(main_fits(fits, family=family), columns)


def _rows_by_layer(fits: pd.DataFrame, columns: Sequence[str]) -> dict[str, dict[str, Any]]:
    rows = fits[["layer", *columns]].to_dict("records")
    return {row["layer"]: {name: row[name] for name in columns} for row in rows}


def _per_channel(record: _Record, family: str, affine: Affine) -> StandIn | None:
    """One gamma and beta per channel, or a line each."""
    channels, alpha = record.channels, record.alpha("channel")
    if family != LINE and alpha is not None:
        gamma, beta = channels["gamma"].to_numpy(), channels["beta"].to_numpy()
        return StandIn.of_fit(
            record.layer, family, alpha=alpha, gamma=gamma, beta=beta, affine=affine
        )
    return _lines(record, affine)


def _per_layer(record: _Record, family: str, affine: Affine) -> StandIn | None:
    """One gamma and beta, or one line; affine layers have a line per channel."""
    row, alpha = record.row, record.alpha("layer")
    if family != LINE and alpha is not None:
        curve = {"alpha": alpha, "gamma": row["gamma"], "beta": row["beta"]}
        if pd.notna(row.get("shift")):
            curve["shift"] = row["shift"]
        return StandIn.of_fit(record.layer, family, affine=affine, **curve)
    if row["status"] == Status.AFFINE:
        return _lines(record, affine)
    return StandIn.of_line(
        record.layer,
        slope=record.line.get("slope", np.nan),
        offset=record.line.get("beta", np.nan),
        max_abs=record.max_abs,
        affine=affine,
    )


def _lines(record: _Record, affine: Affine) -> StandIn | None:
    slope, offset = (record.channels[name].to_numpy() for name in ("slope", "offset"))
    return StandIn.of_line(
        record.layer, slope=slope, offset=offset, max_abs=record.max_abs, affine=affine
    )


def check_channels(layer: str, here: int, there: int) -> None:
    """Raises UsageError where the alphas have other channels than the layer."""
    if here != there:
        raise UsageError(
            f"the alphas are of another model: {layer} has {here} channels, theirs {there}"
        )
