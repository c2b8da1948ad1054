"""A deep, thin ViT without normalization layers: a learned gain per channel in place of each.

https://github.com/nghiemtuan/LearnableScaler, a fork of timm 0.8.21; the command of its page. Two
losses from inside of the network hold values down (probe/training/losses.py), and the learning
rate is lower in the first phase. Published top-1 on ImageNet / ImageNet-V2, LayerNorm -> scalers:

| patch, channels, blocks | LayerNorm | scalers |
|---|---|---|
| 16, 192, 24 | 77.14 / 64.9 | 78.77 / 67.02 |
| 16, 192, 36 | 76.2 / - | 79.77 / 68.21 |
| 16, 288, 24 | 78.2 / 65.71 | 79.72 / 68.16 |
| 32, 288, 24 | 69.93 / 55.81 | 74.53 / 60.82 |
| 32, 288, 36 | 67.86 / 53.35 | 75.71 / 62.76 |
"""

from __future__ import annotations

from probe.training.recipe import Recipe

RECIPE = Recipe(
    name="learnable-scaler-vit",
    source="https://github.com/nghiemtuan/LearnableScaler",
    dataset="ImageNet-1k",
    flaws=(
        "feature decay is multiplied by its weight twice, and the attention loss by the weight of "
        "feature decay: 0.01 and 0.003 in effect, not 0.1 and 0.03; --as-published does so",
        "gains start at N(0, 1), of random sign, where ones were written",
        "its page says 76.32 % for the baseline in one place and 76.2 in another, and not whether "
        "the baselines had the same schedule and losses; one run each",
    ),
    as_published={"squared_losses": True},
    model="vit_learnable_scaler_embed_dim192_patch16_head3_depth36",
    norm="learnable_scaler",
    image_size=224,
    auto_augment="rand-m7-mstd0.5",
    mixup=0.1,
    cutmix=1.0,
    smoothing=0.1,
    feature_decay=0.1,
    attention_loss=0.03,
    attention_loss_layers=6,
    opt="lamb",
    lr=0.005,
    weight_decay=0.02,
    clip_grad=14.0,
    epochs=300,
    batch_size=2048,  # 256 images, 8 times
    sched="two_phase",
    epoch_factor=0.8,
    epoch_threshold=0.5,
    precision="bf16",
)
