"""ViT-S and T2T-ViT-S with LayerNorm, BatchNorm, Unified Normalization or DTN, on CIFAR.

https://github.com/lllirunze/Research-on-Dynamic-Normalization-method-in-Vision-Transformer: images
at 224 pixels, 1200 epochs of Adam. `--norm layer_norm`, `batch_norm`, `unified_norm` or `dtn`
chooses the norm before attention and feed-forward layer of each block; nothing else differs.

Published top-1 / top-5, one run each:

| data | network | LN | BN | UN | DTN |
|---|---|---|---|---|---|
| CIFAR-10 | ViT-S | 91.88 / 99.67 | 91.63 / 99.72 | 89.52 / 99.68 | 92.96 / 99.85 |
| CIFAR-10 | T2T | 93.14 / 99.89 | 92.29 / 99.68 | 90.56 / 99.76 | 92.98 / 99.89 |
| CIFAR-100 | ViT-S | 71.75 / 91.68 | 68.53 / 89.72 | 66.07 / 89.10 | 68.24 / 90.67 |
| CIFAR-100 | T2T | 71.61 / 91.61 | 68.96 / 89.65 | 73.03 / 92.31 | 75.59 / 93.63 |

As published the networks of the norms differ in more than the norm (`as_published` of the model),
and the cosine of 1200 epochs is stepped at every batch.
"""

from __future__ import annotations

from dataclasses import replace

from probe.training.recipe import Recipe

VIT = Recipe(
    name="vit-cifar",
    source="https://github.com/lllirunze/Research-on-Dynamic-Normalization-method-in-Vision-Transformer",
    dataset="CIFAR-10 or CIFAR-100 at 224 pixels",
    flaws=(
        "its cosine of 1200 epochs is stepped per batch: the rate goes up and down every 2400 "
        "updates (6.1 epochs); --as-published does so",
        "its networks of the four norms differ in more than the norm: DTN's has a class token that "
        "joins late, other positions and no norms around the patches; --as-published has these",
        "its accuracies are means over batches, and BatchNorm and UN had the statistics of a third "
        "of a batch (three GPUs)",
        "Adam with weight decay as an L2 penalty, on all parameters",
    ),
    as_published={
        "sched": "cosine_per_batch",
        "step_per": "update",
        "model_options": {"as_published": True},
    },
    model="vit_s_cifar",
    norm="layer_norm",
    image_size=224,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
    interpolation="bilinear",
    crop_pct=224 / 256,
    auto_augment="cifar10",
    opt="adam",
    lr=1e-3,
    weight_decay=5e-5,
    no_decay="none",
    betas=(0.9, 0.999),
    epochs=1200,
    batch_size=128,
    drop_last=False,
    min_lr=1e-5,
    seed=42,
)

T2T = replace(
    VIT,
    name="t2t-vit-cifar",
    model="t2t_vit_s_cifar",
    flaws=(
        VIT.flaws[0],
        "its networks of the four norms differ in more than the norm: 14 blocks for UN (of 1152 "
        "hidden channels) and DTN (with dropout 0.1), 12 for the others; with 12, DTN had 65.91 on "
        "CIFAR-100, not 75.59; --as-published has these",
        *VIT.flaws[2:],
    ),
)
