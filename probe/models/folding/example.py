"""The input on which a module is traced and checked: given by the user, or random numbers of the
model's own input size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from probe.errors import UsageError, first_line

IMAGES = 2  # of a random batch
SIZE = 224  # pixels, where the module does not say


@dataclass(frozen=True)
class Example:
    """What the module is called with."""

    args: tuple
    kwargs: dict[str, Any]
    given: bool  # by the user, not random

    def to(self, module: nn.Module) -> Example:
        """On the device and in the floating dtype of the module's parameters."""
        like = next(
            (value for value in module.parameters() if value.is_floating_point()), torch.empty(0)
        )

        def moved(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            return leaf.detach().to(like.device, like.dtype if leaf.is_floating_point() else None)

        return Example(tree_map(moved, self.args), tree_map(moved, self.kwargs), self.given)

    def outputs(self, module: nn.Module) -> list[Tensor]:
        """Every floating tensor that the module returns."""
        with torch.no_grad():
            leaves = tree_leaves(module(*self.args, **self.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]

    def checked_outputs(self, module: nn.Module) -> list[Tensor]:
        """`outputs`; raises UsageError where the module does not run or returns nothing that could
        be compared.
        """
        what = (
            "the example"
            if self.given
            else f"a random batch of shape {tuple(tree_leaves(self.args)[0].shape)}"
        )
        advice = "" if self.given else "; give example="
        try:
            outputs = self.outputs(module)
        except Exception as error:  # whatever the module's own code raises on a wrong input
            raise UsageError(
                f"{type(module).__name__} does not run on {what} "
                f"({first_line(error)[:200]}){advice}"
            ) from error
        if not any(bool(output.isfinite().any()) for output in outputs):
            raise UsageError(
                f"{type(module).__name__} returns no finite numbers on {what} that could be "
                f"compared{advice}"
            )
        return outputs


def example_of(module: nn.Module, given: Any = None, size: tuple[int, ...] = ()) -> Example:
    """The example from what the user gave: a tensor, a tuple whose first item is the input, a
    mapping, or None for a random batch.

    size: (C, H, W) of the random batch, where it is known. Raises UsageError for another example.
    """
    if given is None:
        shape = size if size and all(size) else _input_size(module)
        random = torch.randn(IMAGES, *shape, generator=torch.Generator().manual_seed(0))
        return Example((random,), {}, False).to(module)
    if isinstance(given, Mapping):
        return Example((), dict(given), True).to(module)
    if isinstance(given, tuple | list) and given:
        given = given[0]
    if not isinstance(given, Tensor):
        raise UsageError(
            f"example is a {type(given).__name__}; accepted: a tensor, a tuple whose first item "
            "is the input tensor, or a mapping"
        )
    return Example((given,), {}, True).to(module)


def _input_size(module: Any) -> tuple[int, int, int]:
    """(C, H, W) as timm, transformers or torchvision write it on a model; else of the first
    convolution, at 224 pixels.
    """
    first = next((child for child in module.modules() if isinstance(child, nn.Conv2d)), None)
    channels = first.in_channels if first is not None else 3
    known = getattr(module, "pretrained_cfg", None) or {}
    for size in (
        getattr(getattr(module, "patch_embed", None), "img_size", None),
        (known.get("input_size") or ())[1:] if isinstance(known, Mapping) else None,
        getattr(getattr(module, "config", None), "image_size", None),
        getattr(module, "image_size", None),
    ):
        if isinstance(size, int):
            return channels, size, size
        if (
            isinstance(size, tuple | list)
            and len(size) == 2
            and all(isinstance(side, int) for side in size)
        ):
            return channels, int(size[0]), int(size[1])
    return channels, SIZE, SIZE


def deviation(reference: list[Tensor], found: list[Tensor]) -> tuple[float, float]:
    """Largest |found - reference|, and the largest of it over max |reference| of the same output;
    infinite where not comparable.
    """
    if [tensor.shape for tensor in reference] != [tensor.shape for tensor in found]:
        return torch.inf, torch.inf
    absolute = relative = 0.0
    for before, after in zip(reference, found, strict=True):
        usable = before.isfinite()
        if not torch.equal(usable, after.isfinite()):
            return torch.inf, torch.inf
        if usable.any():
            before, after = before[usable].double(), after[usable].double()
            largest, scale = float((after - before).abs().max()), float(before.abs().max())
            absolute = max(absolute, largest)
            relative = max(
                relative,
                largest / scale if scale else torch.inf * bool(largest) if largest else 0.0,
            )
    return absolute, relative


__all__ = ["Example", "deviation", "example_of"]
