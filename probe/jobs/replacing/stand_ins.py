"""What stands in for each layer: a curve in place of the norm and its affine, from a run, a table
of alphas or an exported file.

    output = w z + b  and  z ~ gamma f(alpha x + shift) + beta   give   w gamma f(alpha x + shift) +
    (w beta + b)

Scope `channel` has one gamma and beta per channel, scope `layer` one of each. A layer without alpha
gets its line. Export, replacement and conversion all start from here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import safetensors
from numpy.typing import NDArray

from probe.curves import fit_channels
from probe.curves.stand_in import StandIn
from probe.errors import UsageError, first_line, unknown
from probe.jobs.fitting.fit import by_layer, image_groups, uniform_rows
from probe.jobs.fitting.tables import largest_input
from probe.records import main_fits
from probe.store import Run, read_alphas

# alpha * max|input| of a line played by a curve: a tanh deviates from the line by at most 0.1 %
LINE_REACH = 0.05
SCOPES = ("channel", "layer")
FAMILY = {
    "tanh": "tanh",
    "erf": "erf_shift",
    "isru": "isru",
    "line": "linear",
}  # form -> fitted family of scope `layer`
TABLES = (".csv", ".json")
NOT_WANTED = "not asked for"

Affine = Mapping[str, tuple[NDArray[Any], NDArray[Any]]]  # layer -> weight, bias (C,)
Found = tuple[dict[str, StandIn], dict[str, str]]  # by layer: the stand-in; or why there is none


def run_stand_ins(
    run: Run, scope: str = "channel", form: str = "tanh", affine: Affine | None = None
) -> Found:
    """The stand-ins of the fitted layers of a run, and the status of those that have none.

    affine: weight and bias of the layers wanted; None: of all layers, as the run saw them.
    Per channel a run holds the curves of tanh and the lines; erf and isru are fitted here, to the
    same uniform rows.
    Raises UsageError for an unknown scope, and for a family that the run was fitted without.
    """
    if scope not in SCOPES:
        raise unknown("scope", scope, SCOPES)
    found: dict[str, StandIn] = {}
    left_out: dict[str, str] = {}
    channel_fits, moments = by_layer(run.channel_fits()), by_layer(run.moments())
    curves = _layer_curves(run, form) if scope == "layer" else {}
    for row in run.alphas().to_dict("records"):
        name, status = row["layer"], row["status"]
        if affine is not None and name not in affine:
            left_out[name] = NOT_WANTED
            continue
        if name not in moments or status in ("constant", "too_few", "not_finite", "not_called"):
            left_out[name] = status
            continue
        own = (
            affine[name]
            if affine is not None
            else tuple(moments[name][column].to_numpy() for column in ("weight", "bias"))
        )
        _check_channels(name, len(own[0]), len(moments[name]))
        row, channels = row | curves.get(name, {}), channel_fits[name]
        if scope == "channel" and form not in ("tanh", "line") and status != "affine":
            row, channels = _fitted_here(run, row, channels, form)
        curve = _curve(row, moments[name], channels, scope, form)
        if curve is None:
            left_out[name] = "no slope"
        else:
            found[name] = _with_affine(name, *curve, *own)
    return found, left_out


def _layer_curves(run: Run, form: str) -> dict[str, dict[str, Any]]:
    """alpha, shift, gamma, beta and slope of scope `layer` where they are of another family than
    the alpha table.
    """
    if form == "tanh":
        return {}
    fits = run.fits()
    if FAMILY[form] not in (held := set(fits["family"])):
        again = f"`probe-norms fit {run.path}` fits every family"
        raise UsageError(
            f"run {run.path} was fitted without {FAMILY[form]} (it holds "
            f"{', '.join(sorted(held))}): {again}"
        )
    return {
        row["layer"]: row
        for row in main_fits(fits, family=FAMILY[form])[
            ["layer", "alpha", "shift", "gamma", "beta", "slope"]
        ].to_dict("records")
    }


def _fitted_here(
    run: Run, row: dict[str, Any], channels: pd.DataFrame, form: str
) -> tuple[dict[str, Any], pd.DataFrame]:
    """The row and the channels of a layer with the curve of `form` in place of the tanh; no alpha
    where it is not established.
    """
    scope = fit_channels(*uniform_rows(run, row["layer"], image_groups(run)), [form])
    (fitted,) = scope.fits
    return row | {"alpha_channel": fitted.alpha}, channels.assign(
        gamma=scope.gamma[form], beta=scope.beta[form]
    )


def _curve(
    row: dict[str, Any], moments: pd.DataFrame, channels: pd.DataFrame, scope: str, form: str
) -> tuple[str, float, float, Any, Any] | None:
    """Form, alpha, shift, and per channel or layer what multiplies the curve and what is added to
    it; None without a line.
    """
    if form != "line" and scope == "channel" and pd.notna(row["alpha_channel"]):
        return (
            form,
            row["alpha_channel"],
            0.0,
            channels["gamma"].to_numpy(),
            channels["beta"].to_numpy(),
        )
    if form != "line" and scope == "layer" and pd.notna(row["alpha"]):
        return form, row["alpha"], _or_zero(row.get("shift")), row["gamma"], row["beta"]
    slope, offset = row["slope"], row["beta"]
    if scope == "channel" or row["status"] == "affine":
        slope, offset = channels["slope"].to_numpy(), channels["offset"].to_numpy()
    return _line(slope, offset, float(largest_input(moments).max()))


def _line(slope: Any, offset: Any, largest: float) -> tuple[str, float, float, Any, Any] | None:
    if not largest > 0 or not np.isfinite(slope).all() or not np.isfinite(offset).all():
        return None
    alpha = LINE_REACH / largest
    return "line", alpha, 0.0, slope / alpha, offset


def _with_affine(
    layer: str,
    form: str,
    alpha: float,
    shift: float,
    gain: Any,
    offset: Any,
    weight: Any,
    bias: Any,
) -> StandIn:
    return StandIn(layer, form, float(alpha), float(shift), weight * gain, weight * offset + bias)


def _or_zero(value: float | None) -> float:
    return 0.0 if value is None or pd.isna(value) else value


def _check_channels(layer: str, here: int, there: int) -> None:
    if here != there:
        raise UsageError(
            f"the alphas are of another model: {layer} has {here} channels, theirs {there}"
        )


def table_stand_ins(table: pd.DataFrame, affine: Affine) -> Found:
    """The stand-ins of scope `layer` that a table of alphas gives to the layers of `affine`.

    The table needs the columns layer, alpha, gamma, beta; slope and max_abs_input for layers
    without alpha.
    """
    if missing := [
        name for name in ("layer", "alpha", "gamma", "beta") if name not in table.columns
    ]:
        raise UsageError(
            f"the table of alphas has no column {', '.join(missing)}; give what export or "
            "run.alphas() makes"
        )
    if table["layer"].duplicated().any():
        raise UsageError(
            "the table of alphas has several rows of one layer; give what export or run.alphas() "
            "makes"
        )
    found: dict[str, StandIn] = {}
    left_out: dict[str, str] = {}
    for row in table.to_dict("records"):
        name = row["layer"]
        if name not in affine:
            left_out[name] = NOT_WANTED
            continue
        if pd.notna(channels := row.get("channels")):
            _check_channels(name, len(affine[name][0]), int(channels))
        curve = _table_curve(row)
        if isinstance(curve, str):
            left_out[name] = curve
        else:
            found[name] = _with_affine(name, *curve, *affine[name])
    return found, left_out


def _table_curve(row: dict[str, Any]) -> tuple[str, float, float, Any, Any] | str:
    """The curve or line of one row, or why it gives none."""
    if pd.notna(row["alpha"]):
        return "tanh", row["alpha"], 0.0, row["gamma"], row["beta"]
    if row.get("status") == "affine":
        return "affine: a table holds no line per channel; give the run or its .safetensors"
    status = row.get("status", "no alpha")
    if status in ("constant", "too_few", "not_finite", "not_called"):
        return status
    line = _line(row.get("slope", np.nan), row["beta"], row.get("max_abs_input", np.nan))
    return line or f"{status}: the row has no slope, beta or max_abs_input for its line"


def read_table(path: Path) -> pd.DataFrame:
    """A table of alphas as export writes it (.csv, .json). Raises UsageError for a file that holds
    no table.
    """
    try:
        if path.suffix == ".csv":
            return read_alphas(path)
        return pd.DataFrame(json.loads(path.read_bytes())).replace({None: np.nan})
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(
            f"alphas {str(path)!r} cannot be read as a table ({first_line(error)})"
        ) from error


def file_stand_ins(path: str | os.PathLike[str]) -> Found:
    """The stand-ins of an exported .safetensors file: `<layer>.alpha .weight .bias`, and `.shift`
    where the curve has one.
    """
    try:
        with safetensors.safe_open(path, "np") as file:
            arrays = {name: file.get_tensor(name).astype(np.float64) for name in file.keys()}  # noqa: SIM118 (no mapping)
            metadata = file.metadata() or {}
    except (OSError, TypeError, safetensors.SafetensorError) as error:
        raise UsageError(
            f"alphas {os.fspath(path)!r} cannot be read ({first_line(error)})"
        ) from error
    forms, left_out = (json.loads(metadata.get(key, "{}")) for key in ("stand_in", "left_out"))
    layers = [name.removesuffix(".alpha") for name in arrays if name.endswith(".alpha")]
    if not layers or any(
        f"{layer}.{part}" not in arrays for layer in layers for part in ("weight", "bias")
    ):
        raise UsageError(
            f"alphas {os.fspath(path)!r} holds no <layer>.alpha .weight .bias; give what export "
            "makes"
        )
    found = {}
    for layer in layers:
        alpha, shift = (
            float(arrays.get(f"{layer}.{part}", np.zeros(1)).reshape(-1)[0])
            for part in ("alpha", "shift")
        )
        weight, bias = arrays[f"{layer}.weight"], arrays[f"{layer}.bias"]
        found[layer] = StandIn(layer, forms.get(layer, "tanh"), alpha, shift, weight, bias)
    return found, left_out
