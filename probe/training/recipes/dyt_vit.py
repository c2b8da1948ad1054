"""ViT-B with DyT in place of LayerNorm, from scratch: the authors' recipe.

Zhu et al. 2025, Transformers without Normalization, https://arxiv.org/abs/2503.10622, code at
https://github.com/jiachenzhu/DyT. Published top-1 on ImageNet, LayerNorm / DyT: ViT-B 82.3 / 82.5,
ViT-L 83.1 / 83.6, ConvNeXt-B 83.7 / 83.7, ConvNeXt-L 84.3 / 84.4, of averaged weights.

ViT-L: `--model vit_large_patch16_224 --drop-path 0.4 --betas 0.9,0.95`; ConvNeXt-B and -L:
`--drop-path 0.5`. LayerNorm: `--norm layer_norm`. alpha has no weight decay, like all tensors of
one dimension.
"""

from __future__ import annotations

from probe.training.recipe import Recipe

RECIPE = Recipe(
    name="dyt-vit",
    source="https://arxiv.org/abs/2503.10622, https://github.com/jiachenzhu/DyT",
    dataset="ImageNet-1k",
    model="vit_base_patch16_224",
    model_options={"global_pool": "avg"},
    norm="dyt",
    norm_options={"alpha_init": 0.5},
    drop_path=0.1,
    image_size=224,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    crop_pct=224 / 256,
    auto_augment="rand-m9-mstd0.5-inc1",
    color_jitter=0.4,
    reprob=0.25,
    mixup=0.8,
    cutmix=1.0,
    smoothing=0.1,
    opt="adamw",
    lr=4e-3,
    lr_base_batch=4096,
    weight_decay=0.05,
    epochs=300,
    batch_size=4096,
    ema=0.9999,
    step_per="update",
    warmup_epochs=20,
    warmup_lr=0.0,
    warmup_prefix=True,
    min_lr=1e-6,
)
