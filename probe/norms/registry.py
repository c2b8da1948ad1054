"""Every normalizer by name. `create_norm` takes a name, a class or a partial; a new norm needs one
line in `NORMS`, and says itself which curves it can start as (`Norm.families`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from probe.errors import UsageError, unknown
from probe.norms.batch_norm import BatchNorm
from probe.norms.derf import Derf
from probe.norms.dtn import DTN
from probe.norms.dyisru import DyISRU
from probe.norms.dyt import DyT
from probe.norms.feature_norm import FeatureNorm
from probe.norms.group_norm import GroupNorm
from probe.norms.instance_norm import InstanceNorm
from probe.norms.layer_norm import LayerNorm
from probe.norms.learnable_scaler import LearnableScaler
from probe.norms.power_norm import PowerNorm
from probe.norms.rep_batch_norm import RepBatchNorm
from probe.norms.rms_norm import RMSNorm
from probe.norms.scale_norm import ScaleNorm
from probe.norms.switch_norm import SwitchNorm
from probe.norms.unified_norm import UnifiedNorm

Maker = Callable[..., nn.Module]

NORMS: dict[str, Maker] = {
    "layer_norm": LayerNorm,
    "layer_norm_2d": partial(LayerNorm, channels_last=False),
    "rms_norm": RMSNorm,
    "rms_norm_2d": partial(RMSNorm, channels_last=False),
    "batch_norm": BatchNorm,
    "batch_norm_2d": partial(BatchNorm, channels_last=False),
    "instance_norm": InstanceNorm,
    "instance_norm_2d": partial(InstanceNorm, unbiased=False, channels_last=False),
    "group_norm": GroupNorm,
    "group_norm_2d": partial(GroupNorm, num_heads=32, channels_last=False),
    "switch_norm": SwitchNorm,
    "switch_norm_2d": partial(SwitchNorm, channels_last=False),
    "scale_norm": ScaleNorm,
    "scale_norm_2d": partial(ScaleNorm, channels_last=False),
    "power_norm": PowerNorm,
    "unified_norm": UnifiedNorm,
    "dtn": DTN,
    "learnable_scaler": LearnableScaler,
    "learnable_scaler_2d": partial(LearnableScaler, channels_last=False),
    "dyt": DyT,
    "dyt_2d": partial(DyT, channels_last=False),
    "derf": Derf,
    "derf_2d": partial(Derf, channels_last=False),
    "dyisru": DyISRU,
    "dyisru_2d": partial(DyISRU, channels_last=False),
    "feature_norm": FeatureNorm,
    "rep_batch_norm": RepBatchNorm,
    "rep_batch_norm_2d": partial(RepBatchNorm, channels_last=False),
}


def list_norms() -> list[str]:
    """The names that `create_norm` knows. `NAME_2d` works on images (B, C, H, W), the others on
    tokens (B, ..., C).
    """
    return list(NORMS)


def create_norm(norm: str | Maker, channels: int, **options: Any) -> nn.Module:
    """The normalizer `norm` (a name, a class or a partial of one) for `channels` channels.

    Raises UsageError for a name that is not listed and for an option that the norm does not take.
    """
    maker = norm_maker(norm)
    known = norm_options(norm)
    wrong = [name for name in options if known is not None and name not in known]
    if wrong:
        name = norm if isinstance(norm, str) else _class_of(maker).__name__
        raise UsageError(
            f"{name} takes no option {', '.join(wrong)}; it takes {', '.join(known or ())}"
        )
    return maker(channels, **options)


def norm_maker(norm: str | Maker) -> Maker:
    """What makes the normalizer `norm`."""
    if not isinstance(norm, str):
        return norm
    if norm not in NORMS:
        raise unknown("norm", norm, NORMS)
    return NORMS[norm]


def norm_options(norm: str | Maker) -> list[str] | None:
    """Options of a normalizer in the order of its constructor; None if it takes any. The layout is
    fixed by the name.
    """
    maker = norm_maker(norm)
    parameters = list(inspect.signature(_class_of(maker)).parameters.values())[1:]
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    fixed = {"channels_last"} if isinstance(norm, str) else set()
    return [parameter.name for parameter in parameters if parameter.name not in fixed]


def norm_families(norm: str | Maker) -> tuple[str, ...]:
    """The curve families that a normalizer can start as, the most general first; () for no curve.

    Raises UsageError for a name that is not listed.
    """
    families: tuple[str, ...] = getattr(_class_of(norm_maker(norm)), "families", ())
    return families


def norm_name(module: nn.Module) -> str | None:
    """The registry name of a module of the zoo (its class and its layout); None for any other
    module.
    """
    for base in type(module).__mro__:
        for name, maker in NORMS.items():
            layout = (maker.keywords if isinstance(maker, partial) else {}).get(
                "channels_last", True
            )
            if _class_of(maker) is base and getattr(module, "channels_last", None) is layout:
                return name
    return None


def _class_of(maker: Any) -> Any:
    return maker.func if isinstance(maker, partial) else maker
