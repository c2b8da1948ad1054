"""One training, said in full: what a recipe file declares and what each flag of `train` overrides.

Numbers are those of the source that the recipe names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """A training. Fields keep timm's names where timm has the concept.

    The learning rate is `lr`, or with `lr_base_batch` `lr * batch_size / lr_base_batch`.
    """

    name: str
    source: str  # paper or repository and its address
    dataset: str  # what the source trains on, for people
    # What the source does that is a fault, or that its own text says otherwise; one sentence each.
    flaws: tuple[str, ...] = ()
    # Overrides of `--as-published`: the source with its faults.
    as_published: Mapping[str, Any] = field(default_factory=dict)

    # The network
    model: str = "vit_small_patch16_224"
    model_options: Mapping[str, Any] = field(default_factory=dict)
    weights: str = "random"  # random, pretrained or a file
    norm: str | None = None  # of probe.norms; None: the model's own
    norm_options: Mapping[str, Any] = field(default_factory=dict)
    norm_layers: str = "*"  # which layers are replaced
    init: str | None = None  # of replace_norms; None: fitted with alphas, else default
    drop_path: float | None = None  # None: the model's own

    # The images; sizes in pixels
    image_size: int | None = None  # None: the model's own
    mean: tuple[float, ...] | None = None  # None: the model's own
    std: tuple[float, ...] | None = None
    interpolation: str = "bicubic"
    crop: str = "resized"  # resized (RandomResizedCrop) or padded (RandomCrop with `padding`)
    scale: tuple[float, float] = (0.08, 1.0)  # area of the random resized crop
    padding: int = 4  # pixels of `padded`
    crop_pct: float | None = None  # of the evaluation; None: the model's own
    hflip: float = 0.5
    auto_augment: str | None = None  # timm's string: rand-m9-mstd0.5-inc1, original, cifar10
    color_jitter: float | None = None
    reprob: float = 0.0  # random erasing
    mixup: float = 0.0
    cutmix: float = 0.0
    repeats: int = 0  # repeated augmentation: how often an image is in an epoch; 0: once

    # The loss
    smoothing: float = 0.0
    feature_decay: float = 0.0
    attention_loss: float = 0.0
    attention_loss_layers: int = 0

    # The optimizer
    opt: str = "adamw"
    lr: float = 1e-3
    lr_base_batch: int | None = None
    weight_decay: float = 0.05
    # which parameters go without weight decay: 1d (timm's rule: 1-d tensors and what the model
    # names), none, or glob patterns over parameter names joined by commas
    no_decay: str = "1d"
    betas: tuple[float, float] | None = None
    momentum: float = 0.9
    clip_grad: float | None = None
    epochs: int = 300  # of the whole training: warm-up and cooldown are among them
    batch_size: int = 128  # images of an optimizer step, over all processes
    drop_last: bool = True
    ema: float | None = None  # decay of the averaged weights, which are then what is evaluated

    # The schedule
    sched: str = "cosine"  # a name of training/schedules.py
    step_per: str = "epoch"  # epoch, update
    warmup_epochs: float = 0
    warmup_lr: float = 1e-6
    warmup_prefix: bool = False  # the decay begins after the warm-up, not under it
    min_lr: float = 0.0
    cooldown_epochs: int = 0  # at min_lr, after the decay
    decay_every: float = 30  # epochs, of sched=step
    decay_rate: float = 0.1
    epoch_factor: float = 0.8  # of sched=two_phase
    epoch_threshold: float = 0.5

    seed: int = 0
    precision: str = "no"  # accelerate's: no, bf16, fp16
