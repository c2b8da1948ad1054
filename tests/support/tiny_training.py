"""Trainings that take a second: images of plain colours in class folders, a ViT of two blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MODEL = "vit_tiny_patch16_224"
VIT = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
ASKED: dict[str, Any] = {
    "model_options": VIT,
    "epochs": 2,
    "batch_size": 8,
    "crop": "padded",
    "device": "cpu",
    "lr": 3e-3,
    "report": False,
}


def colour_folders(root: Path, classes: int = 3, images: int = 16, size: int = 16) -> Path:
    """root/train and root/val with a folder per class; class c is bright in colour c mod 3."""
    rng = np.random.default_rng(0)
    for split, count in (("train", images), ("val", max(4, images // 2))):
        for number in range(classes):
            folder = root / split / f"class{number}"
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 80, (size, size, 3), dtype=np.uint8)
                pixels[..., number % 3] += 100
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return root


def stripe_folders(root: Path, images: int = 128, size: int = 16) -> Path:
    """Four classes that no mean colour tells apart: noisy stripes of four directions, of random
    width, phase and colours.
    """
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size]
    across = (rows, columns, rows + columns, rows - columns)
    for split, count in (("train", images), ("val", images // 4)):
        for number, direction in enumerate(across):
            folder = root / split / f"direction{number}"
            folder.mkdir(parents=True)
            for index in range(count):
                period, phase = rng.uniform(4, 7), rng.uniform(0, 2 * np.pi)
                wave = np.sin(2 * np.pi * direction / period + phase)[..., None]
                colours = rng.uniform(20, 60, 3) * rng.choice([-1, 1], 3)
                pixels = 128 + wave * colours + rng.normal(0, 15, (size, size, 3))
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                image.save(folder / f"{index}.png")
    return root
