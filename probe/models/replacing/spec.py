"""What is to come in place of normalization layers, checked before anything is built.

Starts: `default`, the norm's own initial values; `match`, the layer's affine and running
statistics, so that the function stays where it can; `fitted`, the curve that was fitted to the
layer (a `StandIn`); besides them those that a norm has of its own (its option `init`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from probe.curves import StandIn
from probe.errors import UsageError, unknown
from probe.models.replacing.curve_norms import NormChoice, fitted_family, norm_label
from probe.models.replacing.initial_values import NotReplaced
from probe.norms.registry import norm_families, norm_maker, norm_options

INITS = ("default", "match", "fitted")


@dataclass(frozen=True)
class ReplacementSpec:
    """A norm, its start and its options: ReplacementSpec("dyt", "match", options={...}).

    Raises UsageError for what no layer could satisfy.
    """

    norm: NormChoice
    init: str = "default"
    stand_ins: Mapping[str, StandIn] | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)  # layer -> why it has no stand-in
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        accepted = norm_options(norm_maker(self.norm))
        if self.init not in INITS and (accepted is None or "init" not in accepted):
            raise unknown("init", self.init, INITS)
        if self.init != "fitted" and self.stand_ins is not None:
            raise UsageError(
                f"alphas are given, but init {self.init!r} does not use them; use init 'fitted' "
                "or leave alphas out"
            )
        if self.init == "fitted":
            self._check_fitted()

    def _check_fitted(self) -> None:
        if self.stand_ins is None:
            raise UsageError(
                "init 'fitted' needs fitted curves: give alphas= (a run, a table or a file), or "
                "init 'default' or 'match'"
            )
        fitted_family(self.norm, "layer")
        if not (self.options.get("affine", True) and self.options.get("bias", True)):
            raise UsageError("init 'fitted' needs a weight and a bias; leave affine= and bias= out")

    @property
    def name(self) -> str:
        return norm_label(self.norm)

    @property
    def families(self) -> tuple[str, ...]:
        """The curve families that the norm can start as; () where it is no curve."""
        return norm_families(self.norm)

    def stand_in(self, layer: str, channels: int) -> StandIn:
        """What the norm starts from in place of `layer`. Raises NotReplaced where there is none
        that it can be.
        """
        stand_in = (self.stand_ins or {}).get(layer)
        if stand_in is None:
            raise NotReplaced(f"no stand-in: {self._missing(layer)}")
        if not stand_in.is_line and stand_in.family not in self.families:
            raise NotReplaced(
                f"its stand-in is a curve of family {stand_in.family}; {self.name} is one of "
                f"{' or '.join(self.families)}"
            )
        if len(stand_in.weight) != channels:
            raise UsageError(
                f"the alphas are of another model: {layer} has {channels} channels, its stand-in "
                f"{len(stand_in.weight)}"
            )
        return stand_in

    def _missing(self, layer: str) -> str:
        """Why there is no stand-in for a layer."""
        if layer in self.left_out:
            return self.left_out[layer]
        named = [*(self.stand_ins or {}), *self.left_out]
        if calls := [name for name in named if name.startswith(f"{layer}#")]:
            return (
                f"the layer is called {len(calls)} times in a forward pass, each with a curve of "
                "its own"
            )
        return (
            "the alphas do not name the layer (they name "
            f"{', '.join(named[:3]) or 'none'}{', ...' if len(named) > 3 else ''})"
        )
