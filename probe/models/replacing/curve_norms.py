"""Which norms of the zoo can start as a fitted curve, and as the curve of which family.

Where norms and curves meet: a norm names its families (`Norm.families`), a family says whether it
has a shift; neither part imports the other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from probe.curves import family_of
from probe.curves.stand_in import LINE
from probe.errors import UsageError
from probe.norms.registry import NORMS, norm_families

NormChoice = str | Callable[..., nn.Module]  # a name of the zoo, a class or a partial of one


def curve_norms() -> list[str]:
    """The norms on tokens that can start as a fitted curve; those that are lines come last."""
    names = [name for name in NORMS if norm_families(name) and not name.endswith("_2d")]
    return sorted(names, key=lambda name: norm_families(name) == (LINE,))


def fitted_family(norm: NormChoice, scope: str) -> str:
    """The family whose fit of this scope the norm starts from: its most general one.

    Scope `channel` is fitted without a shift. Raises UsageError for a norm that is no curve, or
    none of this scope.
    """
    families = norm_families(norm)
    if not families:
        raise UsageError(
            f"init 'fitted' is for {', '.join(curve_norms())}; {norm_label(norm)} takes 'default' "
            "or 'match'"
        )
    usable = [name for name in families if scope != "channel" or not family_of(name).shifted]
    if not usable:
        raise UsageError(
            f"{norm_label(norm)} is a curve of {', '.join(families)}, which is fitted per layer "
            "only: use scope 'layer'"
        )
    return usable[0]


def norm_label(norm: NormChoice) -> str:
    """What a norm is called: its name, or that of its class."""
    maker = norm.func if isinstance(norm, partial) else norm
    return maker if isinstance(maker, str) else getattr(maker, "__name__", type(maker).__name__)
