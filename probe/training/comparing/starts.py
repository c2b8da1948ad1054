"""Where the cells of a comparison start: each network is built before anything runs, so that a norm
that cannot be in it is told at once, and that all start equal but for their norms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from probe.errors import ProbeError, UsageError
from probe.models.reading.layers import list_norm_layers
from probe.paths import user_path
from probe.training.choice import Choice, choose, named_recipe
from probe.training.comparing.variants import Variant
from probe.training.images import TrainingImages
from probe.training.network import Network, build_network
from probe.training.recipe import Recipe

DECIDED = ("norm", "norm_options", "init", "seed")  # fields of a recipe that the cells decide


@dataclass(frozen=True)
class Asked:
    """What every cell is asked for, but for its norm and its seed."""

    recipe: str | Recipe | None
    as_published: bool
    fields: Mapping[str, Any]

    def choice(self, variant: Variant, seed: int, **more: Any) -> Choice:
        """The recipe of a cell. `{seed}` in the fields model and weights stands for its number."""
        return choose(self.base(variant), self.of(variant, seed, **more), self.as_published)

    def base(self, variant: Variant) -> str | Recipe | None:
        """The recipe that the fields of a cell override; without its norm for the network's own."""
        if variant.norm is not None or self.recipe is None:
            return self.recipe
        return replace(named_recipe(self.recipe), norm=None, norm_options={}, init=None)

    def of(self, variant: Variant, seed: int, **more: Any) -> dict[str, Any]:
        """The fields of a cell that are set."""
        named = {
            name: value.replace("{seed}", str(seed)) if name in ("model", "weights") else value
            for name, value in self.fields.items()
        }
        return {**named, **variant.fields, "seed": seed, **more}


def check_fields(fields: Mapping[str, Any]) -> None:
    """Raises UsageError for what the comparison itself decides."""
    for name in DECIDED:
        if fields.get(name) is not None:
            raise UsageError(
                f"--{name.replace('_', '-')} is what the comparison varies: write it in --norms "
                "(dyt:fitted, dyt+alpha_init=0.8) or --seeds"
            )


def check_starts(
    asked: Asked,
    chosen: Sequence[Variant],
    seeds: Sequence[int],
    images: TrainingImages,
    offline: bool,
) -> None:
    """Builds the network of every variant for the first seed. Raises UsageError that names all
    norms that cannot be in it, and where two networks differ outside of their norms.
    """
    refused: dict[str, str] = {}
    first: tuple[str, dict[str, Tensor]] | None = None
    for variant in chosen:
        try:
            network = _built(asked, variant, seeds[0], images, offline)
        except ProbeError as reason:
            refused[variant.label] = str(reason)
            continue
        outside = outside_of_norms(network.module)
        if first is None:
            first = (variant.label, outside)
        elif difference := _difference(first[1], outside):
            raise UsageError(
                f"{variant.label} and {first[0]} do not start equal outside of their norms "
                f"({difference}): compare them in a network whose norms are replaced, as of timm"
            )
    if refused:
        raise UsageError(_cannot(refused, len(chosen)))
    for seed in seeds[1:]:
        _check_file(asked.of(chosen[0], seed).get("weights"))


def _built(
    asked: Asked, variant: Variant, seed: int, images: TrainingImages, offline: bool
) -> Network:
    """The network at its start. `fitted` needs a run of the network, which comes later: what can be
    refused of the norm is refused of its own start, too.
    """
    init = "default" if variant.init == "fitted" else variant.init
    recipe = asked.choice(variant, seed, init=init).recipe
    _check_file(recipe.weights)
    if variant.init == "fitted" and recipe.weights == "random":
        raise UsageError(
            "a fitted start needs a trained network: give --weights pretrained or FILE"
        )
    return build_network(recipe, images.classes, None, None, offline)


def _check_file(weights: Any) -> None:
    words = (None, "random", "pretrained")
    if weights not in words and not user_path(str(weights)).is_file():
        raise UsageError(f"--weights {weights}: there is no such file")


def _cannot(refused: Mapping[str, str], count: int) -> str:
    """One line for all of them; a reason that holds for every norm is not one of the norm."""
    if len(set(refused.values())) == 1 and len(refused) == count:
        return next(iter(refused.values()))
    return "cannot be in this network: " + "; ".join(
        reason if reason.startswith(label) else f"{label}: {reason}"
        for label, reason in refused.items()
    )


def outside_of_norms(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer that belongs to no normalization layer, by name."""
    norms = [f"{layer.module}." for layer in list_norm_layers(module)]
    return {
        name: value
        for name, value in module.state_dict().items()
        if isinstance(value, Tensor) and not name.startswith(tuple(norms))
    }


def _difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str:
    return next(_differing(one, other), "")


def _differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Iterator[str]:
    for name in one.keys() ^ other.keys():
        yield f"one has no {name}"
    for name in one.keys() & other.keys():
        if one[name].shape != other[name].shape or not torch.equal(one[name], other[name]):
            yield name


__all__ = ["DECIDED", "Asked", "check_fields", "check_starts", "outside_of_norms"]
