"""A small network on images, checkpoints of it as a training leaves them, and photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 8  # pixels; 2 x 2 patches of 4 pixels

# The same network in a file, as the command line takes it: `net.py:make`.
SOURCE = """
from support.checkpoints import Small, pixels

def make():
    return Small(), pixels
"""


class Small(nn.Module):
    """Patches, two LayerNorms with attention between them, a norm and three classes."""

    def __init__(self, norm: type[nn.Module] = nn.LayerNorm) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.norm1, self.qkv, self.norm2 = norm(8), nn.Linear(8, 24), norm(8)
        self.mix, self.norm, self.head = nn.Linear(8, 8), norm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        x = x + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(self.norm(x + self.mix(self.norm2(x))).mean(1))


def pixels(image: Image.Image) -> Tensor:
    """(3, SIDE, SIDE) float32, 0 to 1."""
    return torch.from_numpy(np.asarray(image, np.float32) / 255).permute(2, 0, 1).contiguous()


def at_epoch(epoch: int) -> dict[str, Tensor]:
    """The weights after an epoch: inputs of the norms grow and spread, as they do in training."""
    module = Small()
    with torch.no_grad():
        for name, value in module.named_parameters():
            if not name.startswith("norm"):
                value.mul_(1 + 0.5 * epoch)
    return module.state_dict()


def write_checkpoints(folder: Path, epochs: Sequence[int] = (0, 1, 2)) -> Path:
    """epoch_000.safetensors, ... in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for epoch in epochs:
        save_file(at_epoch(epoch), folder / f"epoch_{epoch:03d}.safetensors")
    return folder


def write_photographs(folder: Path, count: int = 20) -> Path:
    """Images of different brightness and contrast."""
    folder.mkdir(parents=True, exist_ok=True)
    g = np.random.default_rng(0)
    for number in range(count):
        contrast = np.exp(g.normal(0, 1))
        values = 128 + 40 * contrast * g.normal(0, 1, (SIDE, SIDE, 3))
        image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
        image.save(folder / f"{number:03d}.png")
    return folder


def write_network(folder: Path) -> str:
    """The model's name for the command line."""
    file = folder / "net.py"
    file.write_text(SOURCE, encoding="utf-8")
    return f"{file}:make"
