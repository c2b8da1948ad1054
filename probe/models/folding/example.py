"""The input on which a module is traced and checked: given by the user, or random numbers of the
model's own input size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    """What the module is called with.

    example = example_of(module, images)
    example.outputs(module)
    """

    args: tuple
    kwargs: dict[str, Any]
    is_random: bool  # not given by the user

    def to(self, module: nn.Module) -> Example:
        """On the device and in the floating dtype of the module's parameters."""
        floating = (value for value in module.parameters() if value.is_floating_point())
        like = next(floating, torch.empty(0))

        def moved(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            return leaf.detach().to(like.device, like.dtype if leaf.is_floating_point() else None)

        return Example(tree_map(moved, self.args), tree_map(moved, self.kwargs), self.is_random)

    def outputs(self, module: nn.Module) -> list[Tensor]:
        """Every floating tensor that the module returns."""
        with torch.no_grad():
            leaves = tree_leaves(module(*self.args, **self.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]

    def checked_outputs(self, module: nn.Module) -> list[Tensor]:
        """`outputs`; raises UsageError where the module does not run or returns nothing that could
        be compared.
        """
        model, advice = type(module).__name__, "; give example=" if self.is_random else ""
        try:
            outputs = self.outputs(module)
        except Exception as error:  # whatever the module's own code raises on a wrong input
            reason = first_line(error)[:200]
            raise UsageError(
                f"{model} does not run on {self._description} ({reason}){advice}"
            ) from error
        if not any(bool(output.isfinite().any()) for output in outputs):
            raise UsageError(
                f"{model} returns no finite numbers on {self._description} that could be "
                f"compared{advice}"
            )
        return outputs

    @property
    def _description(self) -> str:
        if self.is_random:
            return f"a random batch of shape {tuple(self.args[0].shape)}"
        return "the example"


def example_of(module: nn.Module, example: Any = None, size: tuple[int, ...] = ()) -> Example:
    """The example from what the user gave: a tensor, a tuple whose first item is the input, a
    mapping, or None for a random batch.

    size: (C, H, W) of the random batch, where it is known. Raises UsageError for another example.
    """
    if example is None:
        shape = size if size and all(size) else _input_size(module)
        random = torch.randn(IMAGES, *shape, generator=torch.Generator().manual_seed(0))
        return Example((random,), {}, is_random=True).to(module)
    if isinstance(example, Mapping):
        return Example((), dict(example), is_random=False).to(module)
    if isinstance(example, tuple | list) and example:
        example = example[0]
    if not isinstance(example, Tensor):
        raise UsageError(
            f"example is a {type(example).__name__}; accepted: a tensor, a tuple whose first item "
            "is the input tensor, or a mapping"
        )
    return Example((example,), {}, is_random=False).to(module)


def _input_size(module: Any) -> tuple[int, int, int]:
    """(C, H, W) as timm, transformers or torchvision write it on a model; else of the first
    convolution, at 224 pixels.
    """
    first = next((child for child in module.modules() if isinstance(child, nn.Conv2d)), None)
    channels = first.in_channels if first is not None else 3
    for size in _stated_sizes(module):
        if isinstance(size, int):
            return channels, size, size
        if _is_pair(size):
            return channels, int(size[0]), int(size[1])
    return channels, SIZE, SIZE


def _stated_sizes(module: Any) -> Iterator[Any]:
    yield getattr(getattr(module, "patch_embed", None), "img_size", None)
    timm_config = getattr(module, "pretrained_cfg", None) or {}
    if isinstance(timm_config, Mapping):
        yield (timm_config.get("input_size") or ())[1:]
    yield getattr(getattr(module, "config", None), "image_size", None)
    yield getattr(module, "image_size", None)


def _is_pair(size: Any) -> bool:
    is_sequence = isinstance(size, tuple | list) and len(size) == 2
    return is_sequence and all(isinstance(side, int) for side in size)


def deviation(reference: list[Tensor], outputs: list[Tensor]) -> tuple[float, float]:
    """Largest |output - reference|, and the largest of it over max |reference| of the same output;
    infinite where not comparable.
    """
    if [tensor.shape for tensor in reference] != [tensor.shape for tensor in outputs]:
        return torch.inf, torch.inf
    absolute = relative = 0.0
    for before, after in zip(reference, outputs, strict=True):
        usable = before.isfinite()
        if not torch.equal(usable, after.isfinite()):
            return torch.inf, torch.inf
        if usable.any():
            before, after = before[usable].double(), after[usable].double()
            largest, scale = float((after - before).abs().max()), float(before.abs().max())
            absolute = max(absolute, largest)
            relative = max(relative, _ratio(largest, scale))
    return absolute, relative


def _ratio(change: float, scale: float) -> float:
    """Of a change to the size of what changed; infinite where something came from nothing."""
    if scale:
        return change / scale
    return torch.inf if change else 0.0


__all__ = ["Example", "deviation", "example_of"]
