"""What each family of torchvision's networks makes of one photograph.

The transform is the one that torchvision ships with the weights (`weights.transforms()`); what it
leaves open for a single photograph is settled here:

    classification, segmentation   as it is
    detection                      as it is; networks take a list of images of any size
    video                          the photograph as every one of FRAMES frames: a clip that stands
    optical flow                   the photograph, SIDE x SIDE pixels, as both frames: no motion
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from probe.models.loading.feed import Feed

FRAMES = 16  # what mvit is built for; s3d needs 14, the others take any number
SIDE = 256  # optical flow wants multiples of 8, from 128 up


@dataclass(frozen=True)
class StandingClip:
    """A photograph to a clip (C, T, H, W) of FRAMES equal frames, by the preset of a video
    network.
    """

    preset: Callable[[Tensor], Tensor]  # (T, C, H, W) -> (C, T, H, W)

    def __call__(self, image: Any) -> Tensor:
        from torchvision.transforms.functional import pil_to_tensor

        return self.preset(pil_to_tensor(image).expand(FRAMES, -1, -1, -1))


@dataclass(frozen=True)
class StandingFrame:
    """A photograph to one frame (C, SIDE, SIDE) by the preset for optical flow, which takes two."""

    preset: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

    def __call__(self, image: Any) -> Tensor:
        from torchvision.transforms import functional as F

        square = F.center_crop(F.resize(image, SIDE), SIDE)
        pixels = F.pil_to_tensor(square)
        return self.preset(pixels, pixels)[0]


def photographs_for(preset: Any, name: str) -> tuple[Callable[[Any], Tensor], Feed]:
    """The transform from a photograph to what network `name` takes, and how batches reach it."""
    kind = type(preset).__name__
    if kind == "VideoClassification":
        return StandingClip(preset), Feed.STACKED
    if kind == "OpticalFlow":
        return StandingFrame(preset), Feed.TWICE
    return preset, Feed.LIST if kind == "ObjectDetection" else Feed.STACKED


__all__ = ["StandingClip", "StandingFrame", "photographs_for"]
