"""Which curve stands in for each layer of a model that is to be converted.

As everywhere (probe.jobs.replacing.stand_ins), a layer has its curve, or its line where the fit has
no alpha (affine layers, and where the search ends at a bound). curves="established" gives a line to
those layers as well whose curve is not shown to be better than one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from probe.errors import unknown
from probe.jobs.fitting.fit import ensure_fitted
from probe.jobs.replacing.stand_ins import CURVES, SCOPES, StandIns, run_stand_ins
from probe.layer_names import Patterns, matches
from probe.records import Progress
from probe.store import Run


def conversion_curves(
    run: Run,
    family: str,
    *,
    layers: Patterns = "*",
    scope: str = "channel",
    curves: str = "all",
    progress: Progress,
) -> StandIns:
    """The stand-ins of the layers that match `layers`, and why others have none. Fits the run first
    where nothing is fitted yet.

    family: of probe.curves.FAMILIES. Raises UsageError for an unknown scope or choice of curves.
    """
    check_choice(scope, curves)
    ensure_fitted(run, progress)
    stand_ins, left_out = run_stand_ins(run, scope, family, curves=curves)
    return _of_layers(stand_ins, layers), _of_layers(left_out, layers)


def check_choice(scope: str, curves: str) -> None:
    """Raises UsageError for an unknown scope or choice of curves."""
    for option, value, accepted in (("--scope", scope, SCOPES), ("--curves", curves, CURVES)):
        if value not in accepted:
            raise unknown(option, value, accepted)


def _of_layers(by_layer: Mapping[str, Any], layers: Patterns) -> dict[str, Any]:
    """Those whose module (`path` of a layer `path`, or of its k-th call `path#k`) matches the
    globs.
    """
    return {
        layer: value
        for layer, value in by_layer.items()
        if matches(layer.partition("#")[0], layers)
    }
