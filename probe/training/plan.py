"""What a training will do, in lines for people, said before it begins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from probe.formatting import number, thousands
from probe.training.network import of_batches
from probe.training.optimizer import undecayed
from probe.training.order import Order
from probe.training.recipe import Recipe
from probe.training.schedules import base_rate


def plan_lines(task: Any) -> Iterator[str]:
    """Network, data, updates, optimizer; what differs from the recipe, what to look out for."""
    recipe, images, network = task.recipe, task.images, task.network
    parameters = sum(each.numel() for each in network.module.parameters())
    published = ", as published" if task.choice.as_published else ""
    yield f"recipe {recipe.name}{published}: {recipe.source}"
    if task.choice.overridden:
        yield f"  set by you: {_pairs(recipe, sorted(task.choice.overridden))}"
    yield (
        f"  network: {network.name}, {parameters / 1e6:.3f} M parameters, images of "
        f"{network.look.size[0]} x {network.look.size[1]}"
    )
    for note in network.notes:
        yield f"  {note}"
    yield (
        f"  data: {thousands(len(images.training))} training and "
        f"{thousands(len(images.validation))} validation images of {images.classes} classes"
    )
    yield from _updates(task)
    yield f"  images: {', '.join(_augmentation(recipe))}"
    free = undecayed(network.module, recipe)
    tensors = sum(each.requires_grad for each in network.module.parameters())
    yield (
        f"  {recipe.opt}, weight decay {recipe.weight_decay:g} on {tensors - len(free)} tensors, "
        f"none on {len(free)}; learning rate {number(base_rate(recipe))}, {recipe.sched} per "
        f"{recipe.step_per} to {recipe.min_lr:g}, {recipe.warmup_epochs:g} epochs of warm-up"
    )
    yield f"  loss: {', '.join(_loss(recipe))}"
    for flaw in recipe.flaws:
        yield f"  known of the source: {flaw}"


def _updates(task: Any) -> Iterator[str]:
    recipe, processes = task.recipe, task.accelerator.num_processes
    order = Order(
        len(task.images.training), recipe.batch_size, recipe.drop_last, recipe.repeats, recipe.seed
    )
    micro = task.options.share(recipe.batch_size, processes)
    passes = -(-recipe.batch_size // (micro * processes))
    parts = f", {passes} forward passes of {micro} each" if passes > 1 else ""
    on = f"{processes} processes" if processes > 1 else "one process"
    yield (
        f"  {recipe.epochs} epochs of {order.steps} updates, {recipe.batch_size} images an update "
        f"on {on}{parts}, on {task.accelerator.device}, precision {recipe.precision}"
    )
    layers = of_batches(task.network.module)
    if layers and micro < recipe.batch_size:
        yield (
            f"  {len(layers)} norms take the statistics of a batch, here of {micro} images, not of "
            f"{recipe.batch_size}; running statistics are those of the first process"
        )


def _augmentation(recipe: Recipe) -> Iterator[str]:
    low, high = recipe.scale
    resized = f"random areas of {low:g} to {high:g}"
    yield f"padded by {recipe.padding} and cropped" if recipe.crop == "padded" else resized
    yield f"mirrored {recipe.hflip:g}"
    for name in ("auto_augment", "color_jitter", "reprob", "mixup", "cutmix", "repeats"):
        if value := getattr(recipe, name):
            yield f"{name} {value}"


def _loss(recipe: Recipe) -> Iterator[str]:
    yield "cross-entropy"
    for name in ("smoothing", "feature_decay", "attention_loss", "clip_grad"):
        if value := getattr(recipe, name):
            yield f"{name} {value:g}"
    if recipe.ema is not None:
        yield f"weights averaged with {recipe.ema:g}, and those evaluated"


def _pairs(recipe: Recipe, names: list[str]) -> str:
    return ", ".join(f"{name}={getattr(recipe, name)}" for name in names)
