"""One training, said in full: what a recipe file declares and what each flag of `train` overrides.

Numbers are those of the source that the recipe names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any


@dataclass(frozen=True)
class Recipe:
    """A training. Fields keep timm's names where timm has the concept. Beside the type of each
    stands the help of its flag; None leaves a matter to the network.

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
    model: Annotated[str, "Network, as every command takes it."] = "vit_small_patch16_224"
    model_options: Annotated[
        Mapping[str, Any], "Options of its constructor, e.g. img_size=32,patch_size=4."
    ] = field(default_factory=dict)
    weights: Annotated[str, "random, pretrained or a checkpoint FILE to start from."] = "random"
    norm: Annotated[
        str | None, "Normalizer in place of the network's own; see probe.norms.list_norms()."
    ] = None
    norm_options: Annotated[
        Mapping[str, Any], "Options of the normalizer, e.g. num_heads=6,grid=14x14."
    ] = field(default_factory=dict)
    norm_layers: Annotated[str, "Layers to replace: 'blocks.*,!*.norm2'."] = "*"
    init: Annotated[str | None, "Start of the normalizers: default, match or fitted."] = None
    drop_path: Annotated[float | None, "Share of dropped residual branches."] = None

    # The images; sizes in pixels
    image_size: Annotated[int | None, "Side of the images in pixels."] = None
    mean: Annotated[tuple[float, ...] | None, "Mean of the colours, of 0 to 1."] = None
    std: Annotated[tuple[float, ...] | None, "Standard deviation of the colours."] = None
    interpolation: Annotated[str, "bicubic, bilinear or nearest."] = "bicubic"
    crop: Annotated[
        str, "resized: a random area, resized; padded: a random place in the padded image."
    ] = "resized"
    scale: Annotated[tuple[float, float], "Area of the random resized crop."] = (0.08, 1.0)
    padding: Annotated[int, "Pixels around the image, of --crop padded."] = 4
    crop_pct: Annotated[float | None, "Share of the resized image that evaluation sees."] = None
    hflip: Annotated[float, "Share of mirrored images."] = 0.5
    auto_augment: Annotated[
        str | None,
        "timm's policy (rand-m9-mstd0.5-inc1, original) or torchvision's (cifar10, imagenet).",
    ] = None
    color_jitter: Annotated[float | None, "Strength of colour changes."] = None
    reprob: Annotated[float, "Share of images with an erased rectangle."] = 0.0
    mixup: Annotated[float, "Alpha of mixup; 0: none."] = 0.0
    cutmix: Annotated[float, "Alpha of cutmix; 0: none."] = 0.0
    repeats: Annotated[int, "Copies of an image in an epoch (repeated augmentation); 0: one."] = 0

    # The loss
    smoothing: Annotated[float, "Label smoothing."] = 0.0
    feature_decay: Annotated[float, "Weight of the penalty on large residual values."] = 0.0
    attention_loss: Annotated[float, "Weight of the penalty on diffuse attention."] = 0.0
    attention_loss_layers: Annotated[int, "Attention layers with that penalty, from the first."] = 0
    squared_losses: Annotated[
        bool, "Both weights times feature_decay: the fault with which they were published."
    ] = False

    # The optimizer
    opt: Annotated[str, "Optimizer of timm."] = "adamw"
    lr: Annotated[float, "Learning rate; with --lr-base-batch that of such a batch."] = 1e-3
    lr_base_batch: Annotated[int | None, "Batch size for which the learning rate holds."] = None
    weight_decay: Annotated[float, "Weight decay."] = 0.05
    no_decay: Annotated[
        str, "Parameters without it: 1d (timm's rule), none, or globs over names."
    ] = "1d"
    betas: Annotated[tuple[float, float] | None, "Betas of the optimizer."] = None
    momentum: Annotated[float, "Momentum, of optimizers that have one."] = 0.9
    clip_grad: Annotated[float | None, "Largest norm of the gradient."] = None
    epochs: Annotated[int, "Epochs, warm-up and cooldown among them."] = 300
    batch_size: Annotated[int, "Images of an update, over all processes."] = 128
    drop_last: Annotated[bool, "Leave out a last batch that is not full."] = True
    ema: Annotated[float | None, "Decay of averaged weights, which are then what is evaluated."] = (
        None
    )

    # The schedule
    sched: Annotated[str, "Schedule: cosine, two_phase, step, constant, ..."] = "cosine"
    step_per: Annotated[str, "What the schedule follows: epoch or update."] = "epoch"
    warmup_epochs: Annotated[float, "Epochs of linear warm-up."] = 0
    warmup_lr: Annotated[float, "Learning rate at its beginning."] = 1e-6
    warmup_prefix: Annotated[bool, "The decay begins after the warm-up, not under it."] = False
    min_lr: Annotated[float, "Learning rate at the end."] = 0.0
    cooldown_epochs: Annotated[int, "Epochs at that rate, after the decay."] = 0
    decay_every: Annotated[float, "Epochs between steps of --sched step."] = 30
    decay_rate: Annotated[float, "Factor of each."] = 0.1
    epoch_factor: Annotated[float, "Factor of the first phase of --sched two_phase."] = 0.8
    epoch_threshold: Annotated[float, "Share of the epochs at which it ends."] = 0.5

    seed: Annotated[int, "Decides weights, order, augmentation and dropout."] = 0
    precision: Annotated[str, "no (float32), bf16 or fp16."] = "no"
