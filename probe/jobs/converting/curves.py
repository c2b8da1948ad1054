"""Which curve stands in for each layer of a model that is to be converted.

As everywhere (probe.jobs.replacing.stand_ins), a layer whose curve is not established (status other
than `curved`) gets its line; with curves="all" it gets its curve of least loss per channel, unless
that never leaves its straight part. Affine layers are lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from probe.curves import LINE_REACH, StandIn, least_squares
from probe.curves.stand_in import LINE
from probe.errors import UsageError, unknown
from probe.jobs.fitting.fit import by_layer, ensure_fitted, image_groups, uniform_rows
from probe.jobs.fitting.tables import largest_input
from probe.jobs.replacing.stand_ins import SCOPES, StandIns, run_stand_ins
from probe.layer_names import matches
from probe.records import Progress
from probe.store import Run

CURVES = ("established", "all")


def conversion_curves(
    run: Run,
    family: str,
    *,
    layers: str = "*",
    scope: str = "channel",
    curves: str = "established",
    progress: Progress,
) -> StandIns:
    """The stand-ins of the layers that match `layers`, and why others have none. Fits the run first
    where nothing is fitted yet.

    family: of probe.curves.FAMILIES. Raises UsageError for an unknown scope or choice of curves.
    """
    for option, value, accepted in (("--scope", scope, SCOPES), ("--curves", curves, CURVES)):
        if value not in accepted:
            raise unknown(option, value, accepted)
    if scope == "layer" and curves == "all":
        raise UsageError(
            "--curves all: a run holds only established curves of scope layer; use --scope channel"
        )
    ensure_fitted(run, progress)
    least_loss = curves == "all" and family != LINE
    stand_ins, left_out = run_stand_ins(run, scope, LINE if least_loss else family)
    stand_ins, left_out = _of_layers(stand_ins, layers), _of_layers(left_out, layers)
    if least_loss:
        stand_ins |= _of_least_loss(run, family, list(stand_ins), progress)
    return stand_ins, left_out


def _of_layers(by_layer: Mapping[str, Any], layers: str) -> dict[str, Any]:
    """Those whose module (`path` of a layer `path`, or of its k-th call `path#k`) matches the
    globs.
    """
    return {
        layer: value
        for layer, value in by_layer.items()
        if matches(layer.partition("#")[0], layers)
    }


def _of_least_loss(
    run: Run, family: str, layers: list[str], progress: Progress
) -> dict[str, StandIn]:
    """The curves per channel of those of the layers that can have one, fitted to the uniform
    samples.
    """
    is_affine = dict(zip(run.layers["layer"], run.layers["affine"], strict=True))
    moments, groups = by_layer(run.moments()), image_groups(run)
    # a module called several times (`path#k`) is never replaced
    curved = [layer for layer in layers if not is_affine[layer] and "#" not in layer]
    stand_ins: dict[str, StandIn] = {}
    for done, layer in enumerate(curved):
        progress("fit", done, len(curved), layer)
        curve = least_squares(*uniform_rows(run, layer, groups), family)
        max_abs = float(largest_input(moments[layer]).max())
        if curve is not None and curve.alpha * max_abs > LINE_REACH:
            stand_ins[layer] = StandIn.of_fit(
                layer,
                family,
                alpha=curve.alpha,
                gamma=curve.gamma,
                beta=curve.beta,
                affine=(moments[layer]["weight"].to_numpy(), moments[layer]["bias"].to_numpy()),
            )
    return stand_ins
