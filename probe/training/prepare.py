"""From what is asked to a loop that can run: everything that a training is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from probe import __version__
from probe.errors import UsageError
from probe.jobs.model_file import model_bytes
from probe.models.loading.trained import TRAINED
from probe.records import Progress
from probe.training.augment import Mixing, evaluation_transform, training_transform
from probe.training.batches import Shares, kept
from probe.training.choice import Choice
from probe.training.folder import LAST
from probe.training.images import Labelled, TrainingImages
from probe.training.loop import Loop
from probe.training.network import Network, classifier_of, of_batches
from probe.training.optimizer import create_optimizer
from probe.training.options import Options
from probe.training.order import Order
from probe.training.recipe import Recipe
from probe.training.saving import Saving
from probe.training.state import Standing, restore
from probe.training.survey import Survey
from probe.training.update import Updater
from probe.training.validation import Validation

Say = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """A training that was checked and can be set up."""

    choice: Choice
    options: Options
    images: TrainingImages
    network: Network
    accelerator: Any
    folder: Path
    progress: Progress
    say: Say

    @property
    def recipe(self) -> Recipe:
        return self.choice.recipe


def prepare(task: Task, after_epoch: Callable[[int, nn.Module], None]) -> Loop:
    """The loop, where the folder left it."""
    recipe, accelerator = task.recipe, task.accelerator
    module = task.network.module.to(accelerator.device)
    averaged = _averaged(module, recipe)
    optimizer = accelerator.prepare_optimizer(create_optimizer(module, recipe))
    training, validation = (
        kept(part, task.progress) for part in (task.images.training, task.images.validation)
    )
    updater = Updater(
        module,
        optimizer,
        accelerator,
        recipe,
        Mixing(recipe, task.images.classes),
        micro_batch(task),
        task.say,
    )
    saving = Saving(
        task.folder,
        record_of(task),
        module,
        averaged,
        optimizer,
        accelerator.scaler,
        module_bytes=lambda evaluated: trained_bytes(task, evaluated),
        is_first=accelerator.is_main_process,
        epochs=recipe.epochs,
        keep_every=task.options.keep_every,
        minutes=task.options.save_minutes,
    )
    standing = _standing(task, module, averaged, optimizer, saving)
    updater.micro = standing.micro or updater.micro
    return Loop(
        recipe,
        module,
        averaged,
        optimizer,
        updater,
        _shares(task, training),
        _survey(task, validation),
        saving,
        standing,
        log=accelerator.log if task.options.log else lambda values, step: None,
        say=task.say,
        progress=task.progress,
        after_epoch=after_epoch,
    )


def check(task: Task) -> None:
    """Raises UsageError for an augmentation or an optimizer that there is not, for batches that
    cannot be made, and for single images where a norm takes the statistics of a batch.
    """
    recipe, data = task.recipe, task.images.training
    training_transform(recipe, task.network.look)
    create_optimizer(task.network.module, recipe)
    order = _order(recipe, data)
    if not order.steps:
        raise UsageError(
            f"{len(data)} training images do not fill a batch of {recipe.batch_size}: give a "
            "smaller --batch-size, or --no-drop-last"
        )
    layers = of_batches(task.network.module)
    if layers and micro_batch(task) == 1:
        raise UsageError(
            f"one image per forward pass, but {layers[0]} takes the statistics of a batch: give a "
            "larger --batch-size or --micro-batch, or another --norm"
        )


def _order(recipe: Recipe, data: Labelled) -> Order:
    return Order(len(data), recipe.batch_size, recipe.drop_last, recipe.repeats, recipe.seed)


def micro_batch(task: Task) -> int:
    """Images of a forward pass."""
    return task.options.share(task.recipe.batch_size, task.accelerator.num_processes)


def _averaged(module: nn.Module, recipe: Recipe) -> Any:
    if recipe.ema is None:
        return None
    from timm.utils import ModelEmaV3

    return ModelEmaV3(module, decay=recipe.ema)


def _standing(
    task: Task, module: nn.Module, averaged: Any, optimizer: Any, saving: Saving
) -> Standing:
    """Where the folder left the training; its beginning in a new one."""
    if not (task.folder / LAST[-1]).exists():
        return Standing()
    inner = averaged.module if averaged is not None else None
    standing = restore(task.folder, module, inner, optimizer, task.accelerator.scaler)
    saving.resumed(standing)
    task.say(f"continues: {saving.place}")
    return standing


def _shares(task: Task, data: Labelled) -> Shares:
    recipe = task.recipe
    return Shares(
        data,
        training_transform(recipe, task.network.look),
        _order(recipe, data),
        rank=task.accelerator.process_index,
        processes=task.accelerator.num_processes,
        workers=task.options.workers,
    )


def _survey(task: Task, data: Labelled) -> Survey:
    transform = evaluation_transform(task.network.look)
    validation = Validation(
        data, transform, micro_batch(task), task.options.workers, task.accelerator
    )
    return Survey(validation, data, transform, task.accelerator)


def record_of(task: Task) -> dict[str, Any]:
    """training.json: the recipe as it is used, field by field, and what it is used on."""
    import accelerate
    import timm

    network, accelerator = task.network, task.accelerator
    return {
        "status": "running",
        "probe": __version__,
        **task.choice.as_dict(),
        "model": {
            "name": network.name,
            "parameters": sum(each.numel() for each in network.module.parameters()),
            "weights": network.model.weights,
            "start": network.model.fingerprint,
            "classes": task.images.classes,
            "replaced": len(network.replaced),
        },
        "image": _image(network),
        "data": {
            "training": task.images.training.described,
            "validation": task.images.validation.described,
        },
        "seed": task.recipe.seed,
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "versions": {
            "torch": torch.__version__,
            "timm": timm.__version__,
            "accelerate": accelerate.__version__,
        },
        "notes": network.notes,
    }


def _image(network: Network) -> dict[str, Any]:
    look = asdict(network.look)
    return {key: list(each) if isinstance(each, tuple) else each for key, each in look.items()}


def trained_bytes(task: Task, module: nn.Module) -> bytes:
    """The file of a trained network, which load_model builds again."""
    network = task.network
    head = classifier_of(module)
    metadata = {
        "model": network.name,
        "origin": network.model.origin,
        "options": network.constructor,
        "norm": network.norm or "",
        "norm_options": network.norm_options,
        "layers": list(network.replaced),
        "head": [head[0], head[1].out_features] if head else [],
        "image": _image(network),
        "scores": {},
        "recipe": task.recipe.name,
    }
    return model_bytes(module, TRAINED, metadata)
