"""One update of a distillation: the converted network comes closer to the original one.

    loss = KL(p || q) + w * mean over blocks of |h' - h|^2 / |h|^2

p and q are the softmax of the original's and the converted network's logits, h and h' the outputs
of a block. The error of a block is relative to the token (B, T, C), elsewhere to the image, so that
tokens of every scale count alike. Both networks are in evaluation mode: running statistics that are
left stay as they are, nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from probe.models.reading.block_outputs import block_names
from probe.training.augment import Mixing
from probe.training.network import logits_of
from probe.training.recipe import Recipe
from probe.training.update import Updater

TINY = (
    1e-3  # of the mean square of all tokens: a token that is nearly zero counts no more than that
)


class DistillingUpdater(Updater):
    """Updates of a converted network towards `teacher`. blocks: what both networks' blocks gave out
    in their last pass, as probe.models.reading.block_outputs has them.
    """

    training_mode = False

    def __init__(
        self,
        module: nn.Module,
        teacher: nn.Module,
        blocks: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
        block_weight: float,
        optimizer: Any,
        accelerator: Any,
        recipe: Recipe,
        micro: int,
        say: Callable[[str], None],
    ) -> None:
        mixing = Mixing(recipe, 0)
        super().__init__(module, optimizer, accelerator, recipe, mixing, micro, say)
        self._teacher, self._block_weight = teacher, block_weight
        self._outputs, self._targets = blocks

    def losses(self, images: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Sum of the loss over the images, and images with the original's class."""
        with self.accelerator.autocast():
            with torch.no_grad():
                wanted = logits_of(self._teacher(images)).float()
            logits = logits_of(self.module(images)).float()
        loss = divergence(wanted, logits).sum()
        if self._block_weight and self._outputs:
            errors = [
                relative_error(self._outputs[name], target)
                for name, target in self._targets.items()
            ]
            loss = loss + self._block_weight * len(images) * torch.stack(errors).mean()
        return loss, (logits.detach().argmax(1) == wanted.argmax(1)).sum()


def divergence(wanted: Tensor, logits: Tensor) -> Tensor:
    """(B,) KL(p || q) in nats."""
    p, q = wanted.log_softmax(1), logits.log_softmax(1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(1)


def relative_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean over tokens (B, T, C), or images, of |h' - h|^2 / |h|^2."""
    axes = (-1,) if target.ndim == 3 else tuple(range(1, target.ndim))
    size = target.float().square().mean(axes)
    error = (output.float() - target.float()).square().mean(axes)
    return (error / (size + TINY * size.mean() + 1e-12)).mean()


def common_blocks(module: nn.Module, teacher: nn.Module) -> list[str]:
    """The blocks that both networks have."""
    return [name for name in block_names(module) if name in set(block_names(teacher))]
