"""What a recipe does to the images: timm's transforms for training and evaluation, its mixup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

from PIL import ImageChops
from torch import Tensor

from probe.errors import UsageError, first_line
from probe.models.loading.load import Model
from probe.training.randomness import Stream, seeded
from probe.training.recipe import Recipe

Transform = Callable[[Any], Tensor]
TORCHVISION_POLICIES = ("cifar10", "imagenet", "svhn")  # timm has none of the CIFAR policy
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Look:
    """How images reach the network, the same in training and evaluation."""

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float


def look_of(recipe: Recipe, model: Model) -> Look:
    """The recipe's settings, and where it is silent the model's own."""
    from timm.data.config import resolve_data_config

    own = dict(resolve_data_config({}, model=model.module))
    mean, std = normalization(model.transform) or IMAGENET
    sides = model.input_size[-2:] if len(model.input_size) == 3 and all(model.input_size) else ()
    size = (recipe.image_size, recipe.image_size) if recipe.image_size else sides
    if not size:
        raise UsageError(f"{model.name} does not tell the size of its images: give --image-size N")
    return Look(
        (int(size[0]), int(size[1])),
        recipe.mean or mean,
        recipe.std or std,
        recipe.interpolation,
        recipe.crop_pct or _own_crop(model, float(own["crop_pct"])),
    )


def _own_crop(model: Model, of_timm: float) -> float:
    """timm's share of the resized image; 1 for other networks with small images."""
    return of_timm if model.origin == "timm" or model.input_size[-1] > 64 else 1.0


def normalization(transform: Any) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std of a transform that has them, or of a step in it."""
    for step in (transform, *getattr(transform, "transforms", ())):
        mean, std = getattr(step, "mean", None), getattr(step, "std", None)
        if mean is not None and std is not None:
            return tuple(map(float, mean)), tuple(map(float, std))
    return None


def training_transform(recipe: Recipe, look: Look) -> Transform:
    """Raises UsageError for an augmentation that timm does not know."""
    from timm.data.transforms_factory import create_transform

    torchvision_policy = recipe.auto_augment in TORCHVISION_POLICIES
    settings: dict[str, Any] = {
        "scale": recipe.scale,
        "hflip": recipe.hflip,
        "color_jitter": recipe.color_jitter,
        "auto_augment": None if torchvision_policy else recipe.auto_augment,
        "interpolation": look.interpolation,
        "mean": look.mean,
        "std": look.std,
        "re_prob": recipe.reprob,
    }
    try:
        transform = create_transform(look.size, is_training=True, **settings)
    except (AssertionError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UsageError(
            f"--auto-augment {recipe.auto_augment}: no policy of timm ({first_line(error)}); "
            "accepted: rand-m9-mstd0.5-inc1, augmix-m5-w4-d2, original, v0, 3a, or torchvision's "
            f"{', '.join(TORCHVISION_POLICIES)}"
        ) from error
    for step in transform.transforms:
        _mend_posterize(step)
    if recipe.crop == "padded":
        transform.transforms[:1] = _padded(recipe, look)
    if torchvision_policy:
        _insert_policy(transform.transforms, str(recipe.auto_augment))
    return transform


def _mend_posterize(policy: Any) -> None:
    """timm's posterize asks Pillow for 0 bits at its strongest, which newer versions of it refuse:
    that image is black, as older versions made it.
    """
    steps = [*getattr(policy, "ops", ()), *chain(*getattr(policy, "policy", ()))]
    for step in steps:
        if step.name.startswith("Posterize"):
            step.aug_fn = partial(_posterize, step.aug_fn)


def _posterize(original: Callable[..., Any], image: Any, bits: int, **options: Any) -> Any:
    if bits > 0:
        return original(image, bits, **options)
    return ImageChops.constant(image.convert("L"), 0).convert(image.mode)


def _padded(recipe: Recipe, look: Look) -> list[Any]:
    """Short side to the size, then a random crop of the padded image."""
    from torchvision import transforms

    how = transforms.InterpolationMode(look.interpolation)
    return [
        transforms.Resize(min(look.size), interpolation=how),
        transforms.CenterCrop(look.size),
        transforms.RandomCrop(look.size, padding=recipe.padding),
    ]


def _insert_policy(steps: list[Any], name: str) -> None:
    """Before the image becomes a tensor."""
    from torchvision import transforms

    policy = transforms.AutoAugment(transforms.AutoAugmentPolicy(name))
    place = next(i for i, step in enumerate(steps) if "ToTensor" in type(step).__name__)
    steps.insert(place, policy)


def evaluation_transform(look: Look) -> Transform:
    """Resize, centre crop, normalize."""
    from timm.data.transforms_factory import create_transform

    return create_transform(
        look.size,
        is_training=False,
        interpolation=look.interpolation,
        mean=look.mean,
        std=look.std,
        crop_pct=look.crop_pct,
    )


class Mixing:
    """timm's mixup and cutmix, with the numbers of an update: the same for every part of its
    batch. Targets are classes (B,) without mixing, else shares of classes (B, K).
    """

    def __init__(self, recipe: Recipe, classes: int) -> None:
        self._seed, self._mixup = recipe.seed, None
        if recipe.mixup > 0 or recipe.cutmix > 0:
            from timm.data.mixup import Mixup

            self._mixup = Mixup(
                mixup_alpha=recipe.mixup,
                cutmix_alpha=recipe.cutmix,
                label_smoothing=recipe.smoothing,
                num_classes=classes,
            )

    def __call__(self, images: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """A symmetric part of the batch of update `step`. The image in the middle of an odd number
        is its own partner and stays as it is.
        """
        if self._mixup is None:
            return images, labels
        from timm.data.mixup import mixup_target

        half, odd = divmod(len(images), 2)
        outer = _without(len(images), half if odd else None)
        mixed = images.clone()
        targets = mixup_target(
            labels, self._mixup.num_classes, 1.0, smoothing=self._mixup.label_smoothing
        )
        if len(outer):
            with seeded(self._seed, Stream.MIX, step):
                mixed[outer], targets[outer] = self._mixup(images[outer], labels[outer])
        return mixed, targets


def _without(length: int, middle: int | None) -> Sequence[int]:
    return [place for place in range(length) if place != middle]


__all__ = [
    "Look",
    "Mixing",
    "evaluation_transform",
    "look_of",
    "normalization",
    "training_transform",
]
