"""ViT-B with Derf in place of LayerNorm, from scratch: the authors' recipe.

Chen et al. 2025, Stronger Normalization-Free Transformers, https://arxiv.org/abs/2512.10938, code
at https://github.com/zlab-princeton/Derf. Published top-1 on ImageNet, LayerNorm / DyT / Derf:
ViT-B 82.3 / 82.5 / 82.8, ViT-L 83.1 / 83.6 / 83.8, of averaged weights.

The recipe of DyT but for the stochastic depth: 0.15 (the default of its code; `dyt-vit` has 0.1).
ViT-L: `--model vit_large_patch16_224 --drop-path 0.5 --betas 0.9,0.95`.
"""

from __future__ import annotations

from dataclasses import replace

from probe.training.recipes.dyt_vit import RECIPE as DYT

RECIPE = replace(
    DYT,
    name="derf-vit",
    source="https://arxiv.org/abs/2512.10938, https://github.com/zlab-princeton/Derf",
    norm="derf",
    norm_options={"alpha_init": 0.5, "shift_init": 0.0},
    drop_path=0.15,
)
