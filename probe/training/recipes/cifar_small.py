"""The networks that ship with this package, `bundled:vit_cifar10` and `bundled:resnet_cifar10`:
small ones on CIFAR-10, trained in an hour on two cores.

`python -m probe.training.bundled` trains both by it; their cards say what they reach.
"""

from __future__ import annotations

from probe.training.recipe import Recipe

RECIPE = Recipe(
    name="cifar-small",
    source="this package",
    dataset="CIFAR-10",
    model="bundled:vit_cifar10",
    image_size=32,
    crop="padded",
    padding=4,
    crop_pct=1.0,
    smoothing=0.1,
    opt="adamw",
    lr=1e-3,
    weight_decay=0.05,
    clip_grad=1.0,
    epochs=30,
    batch_size=128,
    step_per="update",
    warmup_epochs=2,
    warmup_lr=1e-5,
    min_lr=1e-6,
)
