"""The normalization classes that users registered, by class; the nearest base class counts."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from torch import Tensor, nn

from probe.errors import UsageError
from probe.models.reading import conventions
from probe.models.reading.conventions import Names
from probe.models.reading.norm_types import NormType

USUAL = "(the name in use)"  # None is an answer of its own: there is no such parameter


@dataclass(frozen=True)
class Registration:
    """What a user said of a class: its type, and the attributes that hold w and b."""

    norm_type: NormType
    weight: str | None = USUAL
    bias: str | None = USUAL

    def names_in(self, module: nn.Module) -> Names:
        """The attributes of this module that hold w and b; None: it has none."""
        weight, bias = conventions.affine_names(module)
        return (
            weight if self.weight == USUAL else _present(module, self.weight),
            bias if self.bias == USUAL else _present(module, self.bias),
        )


REGISTERED: dict[type[nn.Module], Registration] = {}


def registered(module: nn.Module) -> Registration | None:
    """What a user said of the class of `module`, or of one of its bases."""
    bases = type(module).__mro__ if REGISTERED else ()
    found = (_registration(base) for base in bases)
    return next((registration for registration in found if registration is not None), None)


def _registration(cls: type) -> Registration | None:
    """That of the class itself, or of the class in the same place of the same file: a file that is
    given as a model is run under another module name than an import of it has.
    """
    if cls in REGISTERED or _place(cls) is None:
        return REGISTERED.get(cls)
    same_place = (REGISTERED[other] for other in REGISTERED if _place(other) == _place(cls))
    return next(same_place, None)


def _place(cls: type) -> tuple[str, str] | None:
    """The file and the name in it; None for a class of no file, or one inside of a function."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return (file, cls.__qualname__) if file and "<locals>" not in cls.__qualname__ else None


def _present(module: nn.Module, name: str | None) -> str | None:
    """A name that the user gave; None where the module has the attribute without a value."""
    if name is not None and not hasattr(module, name):
        own = ", ".join(own for own, _ in module.named_parameters(recurse=False)) or "none"
        raise UsageError(
            f"{type(module).__name__} is registered with the parameter {name!r}, which it does "
            f"not have; it has: {own}"
        )
    return name if name is not None and isinstance(getattr(module, name), Tensor) else None
