"""One distillation in a process of its own, which a test may kill: arguments of `probe.distill` as
JSON.

python -m support.distilling_process '{"run": ..., "data": ..., "out": ...}'
"""

from __future__ import annotations

import json
import sys
from typing import Any

import probe
from probe.models.loading.load import Model, load_model
from support.tiny_training import MODEL, VIT

ASKED: dict[str, Any] = {
    "steps": 6,
    "train_batch_size": 8,
    "save_minutes": 1e-6,
    "num_images": 4,
    "device": "cpu",
}


def fresh_model() -> Model:
    """A ViT of two blocks with random weights, whose classes differ."""
    model = load_model(MODEL, weights="random", device="cpu", num_classes=3, **VIT)
    head: Any = model.module.get_submodule("head")
    head.weight.data.mul_(100)
    return model


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    probe.distill(asked.pop("run"), model=fresh_model(), **{**ASKED, **asked})
