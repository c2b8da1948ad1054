"""Which curve stands in for each layer of a model that is to be converted.

As everywhere (probe.jobs.replacing.stand_ins), a layer whose curve is not established (status other
than `curved`) gets its line; with curves="all" it gets its curve of least loss per channel, unless
that never leaves its straight part. Affine layers are lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from probe.curves import least_squares
from probe.curves.stand_in import StandIn
from probe.errors import UsageError, unknown
from probe.jobs.fitting.fit import by_layer, ensure_fitted, image_groups, uniform_rows
from probe.jobs.replacing.stand_ins import LINE_REACH, SCOPES, Found, run_stand_ins
from probe.layer_names import Patterns, matches
from probe.records import Progress
from probe.store import Run

CURVES = ("established", "all")


def conversion_curves(
    run: Run,
    form: str,
    *,
    layers: Patterns = "*",
    scope: str = "channel",
    curves: str = "established",
    progress: Progress,
) -> Found:
    """The stand-ins of the layers that match `layers`, and why others have none. Fits the run first
    where nothing is fitted yet.

    form: tanh, erf, isru or line. Raises UsageError for an unknown scope or choice of curves.
    """
    for what, given, accepted in (("--scope", scope, SCOPES), ("--curves", curves, CURVES)):
        if given not in accepted:
            raise unknown(what, given, accepted)
    if scope == "layer" and curves == "all":
        raise UsageError(
            "--curves all: a run holds only established curves of scope layer; use --scope channel"
        )
    ensure_fitted(run, progress)
    to_be_fitted = curves == "all" and form != "line"
    found, left_out = run_stand_ins(run, scope, "line" if to_be_fitted else form)
    found, left_out = _of_layers(found, layers), _of_layers(left_out, layers)
    if to_be_fitted:
        found |= _least_loss(run, form, list(found), progress)
    return found, left_out


def _of_layers(some: Mapping[str, Any], layers: Patterns) -> dict[str, Any]:
    """Those whose module (`path` of a layer `path`, or of its k-th call `path#k`) matches the
    globs.
    """
    return {name: each for name, each in some.items() if matches(name.partition("#")[0], layers)}


def _least_loss(run: Run, form: str, names: list[str], progress: Progress) -> dict[str, StandIn]:
    """The curves per channel of those of the layers `names` that can have one, fitted to the
    uniform samples.
    """
    affine = dict(zip(run.layers["layer"], run.layers["affine"], strict=True))
    moments, groups = by_layer(run.moments()), image_groups(run)
    found: dict[str, StandIn] = {}
    wanted = [
        name for name in names if not affine[name] and "#" not in name
    ]  # a module called several times is never replaced
    for done, name in enumerate(wanted):
        progress("fit", done, len(wanted), name)
        curve = least_squares(*uniform_rows(run, name, groups), form)
        largest = float(moments[name][["min_input", "max_input"]].abs().to_numpy().max())
        if curve is not None and curve.alpha * largest > LINE_REACH:
            weight, bias = (moments[name][column].to_numpy() for column in ("weight", "bias"))
            found[name] = StandIn(
                name, form, curve.alpha, 0.0, weight * curve.gamma, weight * curve.beta + bias
            )
    return found
