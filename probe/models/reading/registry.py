"""The normalization classes that users registered, by class; the nearest base class counts."""

from __future__ import annotations

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

    def with_names(self, module: nn.Module) -> NormType:
        """The type, told where this module holds w and b."""
        return self.norm_type.holding(self.names_in(module))


REGISTERED: dict[type[nn.Module], Registration] = {}


def registered(module: nn.Module) -> Registration | None:
    """What a user said of the class of `module`, or of one of its bases."""
    bases = type(module).__mro__ if REGISTERED else ()
    return next((REGISTERED[base] for base in bases if base in REGISTERED), None)


def _present(module: nn.Module, name: str | None) -> str | None:
    """A name that the user gave; None where the module has the attribute without a value."""
    if name is not None and not hasattr(module, name):
        own = ", ".join(own for own, _ in module.named_parameters(recurse=False)) or "none"
        raise UsageError(
            f"{type(module).__name__} is registered with the parameter {name!r}, which it does "
            f"not have; it has: {own}"
        )
    return name if name is not None and isinstance(getattr(module, name), Tensor) else None
