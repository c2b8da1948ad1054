"""What is compared: a normalizer with its start and its options, and the trainings of it.

own                             the network's own norms, nothing replaced
dyt                             of probe.norms, from its own start
dyt:fitted                      from curves fitted to the layers of a trained network
dyt+alpha_init=0.8              with options, joined by +
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from probe.errors import UsageError, unknown
from probe.norms.registry import NORMS, norm_maker
from probe.training.flags import pairs

OWN = "own"
INITS = ("default", "match", "fitted")


@dataclass(frozen=True)
class Variant:
    """label: as the user wrote it, in tables and figures. norm: None for the network's own."""

    label: str
    norm: str | None
    init: str | None
    options: Mapping[str, Any] = field(compare=False, hash=False)  # the label holds them

    @property
    def folder(self) -> str:
        """Its label as a name of folders."""
        return re.sub(r"[^A-Za-z0-9._+=-]", "-", self.label)

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of a recipe that it decides; None leaves one as the recipe has it."""
        return {"norm": self.norm, "init": self.init, "norm_options": dict(self.options) or None}


@dataclass(frozen=True)
class Cell:
    """One training of a comparison."""

    variant: Variant
    seed: int

    @property
    def name(self) -> str:
        """Of its folder, under `cells/` and under `runs/`."""
        return f"{self.variant.folder}/seed_{self.seed}"

    def __str__(self) -> str:
        return f"{self.variant.label}, seed {self.seed}"


def variants(norms: str | Iterable[str]) -> list[Variant]:
    """The variants in their order, each once. Raises UsageError for an unknown norm, and for fewer
    than one.
    """
    texts = norms.split(",") if isinstance(norms, str) else list(norms)
    labels = list(dict.fromkeys(text.strip() for text in texts if text.strip()))
    if not labels:
        raise UsageError("no norms to compare: give --norms layer_norm,batch_norm,dyt")
    return [_variant(label) for label in labels]


def _variant(label: str) -> Variant:
    named, *options = label.split("+")
    name, colon, init = named.partition(":")
    if name != OWN and name not in NORMS:
        raise unknown("norm", name, [OWN, *NORMS])
    if colon and init not in INITS:
        raise unknown(f"start of {name}", init, INITS)
    if name == OWN:
        if colon or options:
            raise UsageError(f"{label}: the network's own norms have no start and no options")
        return Variant(label, None, None, {})
    norm_maker(name)
    return Variant(label, name, init or None, _options(label, options))


def _options(label: str, options: Sequence[str]) -> dict[str, Any]:
    try:
        return {name: value for text in options for name, value in pairs(text).items()}
    except ValueError:
        raise UsageError(
            f"{label}: options of a norm are written NORM+name=value, e.g. dyt+alpha_init=0.8"
        ) from None


def reference_of(chosen: Sequence[Variant], label: str | None) -> Variant:
    """What the others are compared with: the first, where none is named. Raises UsageError."""
    if label is None:
        return chosen[0]
    for variant in chosen:
        if variant.label == label:
            return variant
    raise unknown("--reference", label, [variant.label for variant in chosen])


def seeds_of(seeds: int | Sequence[int]) -> tuple[int, ...]:
    """N stands for 0 .. N-1. Raises UsageError for none, a negative one and one given twice."""
    numbers = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise UsageError(f"--seeds {seeds}: give a number of seeds, at least 1")
    return numbers
