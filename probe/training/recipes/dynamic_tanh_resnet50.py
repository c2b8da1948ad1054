"""ResNet-50 with DyT in place of all 53 BatchNorms, on mini-ImageNet.

https://github.com/haeun161/Dynamic_Tanh: two notebooks, each a run with BatchNorm and one with DyT.
Accuracy of its 30th epoch, one run each, no seed (val top-1; seconds an epoch):

| start | BatchNorm | DyT |
|---|---|---|
| ImageNet weights | 89.97 (126) | 85.38 (179) |
| scratch | 66.76 (128) | 46.33 (179) |

alpha starts at 1 (0.5 "didn't work well"); weight decay is on all but alphas and biases: 107
tensors with and 107 without. Convolutions keep their ImageNet weights, the DyT layers start anew.
The run with BatchNorm: `--norm batch_norm --init match --no-decay none`.
"""

from __future__ import annotations

from dataclasses import replace

from probe.training.recipe import Recipe

SCRATCH = Recipe(
    name="dynamic-tanh-resnet50-scratch",
    source="https://github.com/haeun161/Dynamic_Tanh",
    dataset="mini-ImageNet (hfds/timm/mini-imagenet): 100 classes, 50,000 + 10,000 images",
    flaws=(
        "training and validation images are both from the training split of ImageNet-1k; the test "
        "split alone is clean",
        "one run each, without a seed",
    ),
    model="torchvision:resnet50",
    norm="dyt",
    norm_options={"alpha_init": 1.0},
    image_size=224,
    interpolation="bilinear",
    crop_pct=224 / 256,
    auto_augment="imagenet",
    smoothing=0.1,
    opt="momentum",  # timm's "sgd" is Nesterov's
    lr=0.05,
    weight_decay=1e-4,
    no_decay="*alpha*,*bias*",
    momentum=0.9,
    epochs=30,
    batch_size=128,
    drop_last=False,
)

FINETUNE = replace(
    SCRATCH,
    name="dynamic-tanh-resnet50-finetune",
    flaws=(
        "the ImageNet weights were trained on the validation images, which are from the training "
        "split of ImageNet-1k: the accuracy is optimistic; the test split alone is clean",
        "one run each, without a seed",
    ),
    model="torchvision:resnet50.IMAGENET1K_V1",
    weights="pretrained",
)
