"""The evaluation transform of the bundled networks, without torchvision, whose import takes longer
than all else that a small network needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


@dataclass(frozen=True, repr=False, eq=False)
class EvaluationTransform:
    """A photograph to (3, size, size) float32: the short side to `size` pixels, the centre of the
    long one, (value - mean) / std of each colour. To the bit what the steps of torchvision give
    that its text names.
    """

    size: int
    mean: Tensor  # (3,)
    std: Tensor

    def __call__(self, photograph: Image.Image) -> Tensor:
        square = self._centre(self._resized(photograph.convert("RGB")))
        pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()
        values = pixels.to(torch.float32).div(255)
        return values.sub_(self.mean[:, None, None]).div_(self.std[:, None, None])

    def _resized(self, photograph: Image.Image) -> Image.Image:
        width, height = photograph.size
        long = int(self.size * max(width, height) / min(width, height))
        sides = (self.size, long) if width <= height else (long, self.size)
        if sides == photograph.size:
            return photograph
        return photograph.resize(sides, Image.Resampling.BICUBIC)

    def _centre(self, photograph: Image.Image) -> Image.Image:
        left, top = (round((side - self.size) / 2) for side in photograph.size)
        return photograph.crop((left, top, left + self.size, top + self.size))

    def __repr__(self) -> str:
        """As torchvision writes these steps, and as runs tell them."""
        steps: tuple[Any, ...] = (
            f"Resize(size={self.size}, interpolation=bicubic, max_size=None, antialias=True)",
            f"CenterCrop(size=({self.size}, {self.size}))",
            "MaybeToTensor()",
            f"Normalize(mean={self.mean}, std={self.std})",
        )
        return "\n    ".join(("Compose(", *steps)) + "\n)"
