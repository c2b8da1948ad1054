"""Which curve stands in for each layer of a model that is to be converted.

Scope `channel`: the tanh that the run holds; erf and isru are fitted here, to the same uniform samples, without a shift. Scope
`layer`: what fits.parquet holds. A layer whose curve is not established (status other than `curved`) gets its line, as everywhere;
with curves="all" it gets its curve of least loss, unless that never leaves its straight part. Affine layers are lines.
"""

from __future__ import annotations

from collections.abc import Callable

from probe.curves import ChannelScope, fit_channels, least_squares
from probe.errors import UsageError, unknown
from probe.models.layers import matches
from probe.pipeline.fit_run import by_layer, fit, image_groups, uniform_rows
from probe.pipeline.stand_ins import FAMILY, LINE_REACH, SCOPES, Found, run_stand_ins
from probe.records import StandIn
from probe.store import Run

CURVES = ("established", "all")


def conversion_curves(
    run: Run, form: str, *, layers: str = "*", scope: str = "channel", curves: str = "established", progress: Callable[..., None]
) -> Found:
    """The stand-ins of the layers that match `layers`, and why others have none. Fits the run first where nothing is fitted yet.

    form: tanh, erf, isru or line. Raises UsageError for an unknown scope or choice of curves.
    """
    for what, given, accepted in (("--scope", scope, SCOPES), ("--curves", curves, CURVES)):
        if given not in accepted:
            raise unknown(what, given, accepted)
    if scope == "layer" and curves == "all":
        raise UsageError("--curves all: a run holds only established curves of scope layer; use --scope channel")
    if not (run.path / "fits.parquet").exists():
        fit(run, progress=progress)
    if scope == "layer":
        _need_family(run, FAMILY[form])
    held = form if scope == "layer" or form == "tanh" else "line"
    every, without = run_stand_ins(run, scope, held)
    found = {name: each for name, each in every.items() if _wanted(name, layers)}
    left_out = {name: why for name, why in without.items() if _wanted(name, layers)}
    if scope == "channel" and form != "line" and (form != "tanh" or curves == "all"):
        found |= _fitted_here(run, form, [name for name, each in found.items() if each.form == "line"], curves, progress)
    return found, left_out


def _wanted(name: str, layers: str) -> bool:
    """Does the module of a layer (`path`, or `path#k` for its k-th call) match the globs?"""
    return matches(name.partition("#")[0], layers)


def _need_family(run: Run, family: str) -> None:
    held = sorted(set(run.fits()["family"]))
    if family not in held:
        raise UsageError(f"run {run.path} was fitted without {family} (it holds {', '.join(held)}): `probe-norms fit {run.path}`")


def _fitted_here(run: Run, form: str, names: list[str], curves: str, progress: Callable[..., None]) -> dict[str, StandIn]:
    """The curves per channel of those of the layers `names` that are to have one."""
    affine = dict(zip(run.layers["layer"], run.layers["affine"], strict=True))
    moments, groups = by_layer(run.moments()), image_groups(run)
    found: dict[str, StandIn] = {}
    wanted = [name for name in names if not affine[name] and "#" not in name]  # a module called several times is never replaced
    for done, name in enumerate(wanted):
        progress("fit", done, len(wanted), name)
        x, z, of_image = uniform_rows(run, name, groups)
        if curves != "all" and not _established(fit_channels(x, z, of_image, [form])):
            continue
        curve = least_squares(x, z, of_image, form)
        largest = float(moments[name][["min_input", "max_input"]].abs().to_numpy().max())
        if curve is not None and curve.alpha * largest > LINE_REACH:
            weight, bias = (moments[name][column].to_numpy() for column in ("weight", "bias"))
            found[name] = StandIn(name, form, curve.alpha, 0.0, weight * curve.gamma, weight * curve.beta + bias)
    return found


def _established(scope: ChannelScope) -> bool:
    return any(fit.status == "curved" for fit in scope.fits)
