"""What kind of normalization layer a module is, and how it holds the w and b of output = w z + b.

1. Classes that a user registered come first (`register_norm`), then the table of types.
2. The classes of torch, torchvision, timm and the zoo are known. Any other class is tried on random
   numbers, and is what its output says: a class that is called LayerNorm and does not subtract the
   mean is an RMS norm, a weight that is stored as w - 1 is found, the layout too. Where no type is
   right the name counts, and the error is kept.
3. A class that is in no table, but looks like a norm by its name, is tried with the token norms.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from probe.models.reading import conventions, formulas
from probe.models.reading.conventions import Names
from probe.models.reading.norm_types import NORM_TYPES, NormType, type_by_table
from probe.models.reading.registry import registered
from probe.models.reading.response_norms import RESPONSE_NORMS
from probe.models.reading.trial import EXACT, Trial, try_type

_KNOWN_PACKAGES = ("torch", "torchvision", "timm", "probe")
# not Normalize, which prepares images, nor normal cells
_LOOKS_LIKE_A_NORM = re.compile(
    r"(?i:norm(?!al(?!ization))|dyt|derf|dynamic(tanh|erf))|GRN$|InplaceAbn"
)
_HAS_SECOND_INPUT = re.compile(r"(?i)gated|adaptive|^ada|Ada[LRG]")  # no trial of one input sees it


@dataclass(frozen=True)
class Recognized:
    """A normalization layer: its type, where it holds w and b, and how right w z + b is.

    recognize(GemmaRMSNorm(8)).offset  # 1.0: w is 1 + the stored weight
    """

    norm_type: NormType
    names: Names
    offset: float = 0.0
    error: float | None = None  # None: no trial was needed, or none could be made

    @property
    def is_right(self) -> bool:
        """Did no trial show another output than w z + b?"""
        return self.error is None or self.error < EXACT


# most modules of a network are of these files of torch, and need no look at all
_WITHOUT_NORMS = {
    f"torch.nn.modules.{name}"
    for name in ("activation", "container", "conv", "dropout", "linear", "pooling")
}


def recognize(module: nn.Module) -> Recognized | None:
    """What the module is; None if it is no normalization layer that can be read."""
    own = registered(module)
    if own is not None:
        names = own.names_in(module)
        untried = Recognized(own.norm_type.holding(names), names)
        return _of_trial(try_type(module, own.norm_type, names)) or untried
    if type(module).__module__ in _WITHOUT_NORMS:
        return None
    by_name = type_by_table(module) or _first_match(RESPONSE_NORMS, module)
    names = conventions.affine_names(module)
    if by_name is None:
        return _by_looks(module, names)
    if not _needs_trial(module, by_name):
        return Recognized(by_name, names)
    return _of_trial(_best(module, (by_name, *_relatives(by_name)), names)) or Recognized(
        by_name, names
    )


def norm_type(module: nn.Module) -> NormType | None:
    """What kind of normalization layer `module` is; None if it is none."""
    recognized = recognize(module)
    return recognized.norm_type if recognized is not None else None


def neutral_affine(module: nn.Module) -> dict[str, Tensor]:
    """The values of the parameters that hold w and b at which w = 1 and b = 0."""
    recognized = recognize(module)
    names = recognized.names if recognized else conventions.affine_names(module)
    weight_at_1 = 1.0 - (recognized.offset if recognized else 0.0)
    neutral = zip(names, (weight_at_1, 0.0), strict=True)
    return {name: torch.full_like(getattr(module, name), value) for name, value in neutral if name}


def looks_like_a_norm(module: nn.Module) -> bool:
    """By its class name, and because it holds vectors only and no sub-module with parameters."""
    name, home = type(module).__name__, type(module).__module__
    return (
        _LOOKS_LIKE_A_NORM.search(name) is not None
        and not home.startswith("torch.nn.utils")
        and all(max(p.shape, default=1) == p.numel() for p in module.parameters())
        and not any(True for child in module.children() for _ in child.parameters())
    )


def _by_looks(module: nn.Module, names: Names) -> Recognized | None:
    if not looks_like_a_norm(module) or _HAS_SECOND_INPUT.search(type(module).__name__):
        return None
    best = _best(module, _TOKEN_NORMS, names)
    return _of_trial(best) if best is not None and best.confirms else None


def _needs_trial(module: nn.Module, norm_type: NormType) -> bool:
    """Not where the type reads w and b in its own way, nor where the class is a known one."""
    home = type(module).forward.__module__.partition(".")[0]
    names = conventions.affine_names(module)
    is_known = home in _KNOWN_PACKAGES and names[0] in (None, "weight")
    usual = norm_type.output_affine is conventions.output_affine
    # a trial chooses its input by the one axis of channels
    return usual and not is_known and len(conventions.normalized_shape(module)) <= 1


def _best(module: nn.Module, types: Iterable[NormType], names: Names) -> Trial | None:
    """The first type that the output of the module confirms, else the first that it can be tried
    with.
    """
    trials = []
    for candidate in types:
        trial = try_type(module, candidate, names)
        if trial is not None and trial.confirms:
            return trial
        trials.append(trial)
    return next((trial for trial in trials if trial is not None), None)


def _of_trial(trial: Trial | None) -> Recognized | None:
    if trial is None:
        return None
    norm_type = trial.norm_type.holding(trial.names, trial.offset)
    return Recognized(norm_type, trial.names, trial.offset, trial.error)


def _first_match(types: Iterable[NormType], module: nn.Module) -> NormType | None:
    return next((norm_type for norm_type in types if norm_type.matches(module)), None)


_FOREIGN = [each for each in NORM_TYPES if each.formula is not formulas.zoo_norm]


def foreign_kinds() -> tuple[str, ...]:
    """The kinds that the table of types has for classes of libraries, each once."""
    return tuple(dict.fromkeys(each.kind for each in _FOREIGN))


def foreign_type(kind: str) -> NormType:
    """The type of this name as libraries have it, not that of the zoo."""
    return next(each for each in (*_FOREIGN, *RESPONSE_NORMS) if each.kind == kind)


def _family(*kinds: str) -> tuple[NormType, ...]:
    return tuple(map(foreign_type, kinds))


_TOKEN_NORMS = _family(
    "layer_norm", "rms_norm", "layer_norm_2d", "rms_norm_2d", "simple_norm", "simple_norm_2d"
)
_FAMILIES = (_TOKEN_NORMS, _family("dyt", "dyt_2d"), _family("derf", "derf_2d"))


def _relatives(norm_type: NormType) -> tuple[NormType, ...]:
    """What a class may be instead, whatever it is called."""
    return next((family for family in _FAMILIES if norm_type in family), ())
