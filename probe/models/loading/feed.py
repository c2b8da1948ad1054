"""How the transformed images of a batch reach a network: most take them stacked, some do not."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from torch import Tensor


class Feed(StrEnum):
    """What a network is called with."""

    STACKED = "stacked"  # one tensor (B, ...)
    LIST = "list"  # a list of B tensors of any size: detection networks of torchvision
    TWICE = "twice"  # the batch as both of two frames, between which nothing moves: optical flow

    def arguments(self, images: Tensor | list[Tensor]) -> tuple[Any, ...]:
        """The positional arguments for the images of one batch."""
        return (images, images) if self is Feed.TWICE else (images,)


__all__ = ["Feed"]
