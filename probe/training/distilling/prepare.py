"""From a converted network and its original to rounds that can run: images, parameters, optimizer,
and the folder from which the same command continues.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from probe import __version__
from probe.errors import UsageError
from probe.jobs.converting.eval_data import read_eval_data
from probe.jobs.converting.evaluate import Comparison
from probe.jobs.converting.networks import as_one
from probe.jobs.inputs import shown_name
from probe.models.loading.load import Model
from probe.models.loading.weights import fingerprint
from probe.records import Progress
from probe.training.augment import look_of, training_transform
from probe.training.batches import Shares, kept
from probe.training.distilling.asked import Asked, recipe_of
from probe.training.distilling.draws import Draws, rounds_of
from probe.training.distilling.images import Images
from probe.training.distilling.loop import Best, DistillingLoop
from probe.training.distilling.survey import AgainstOriginal, round_files
from probe.training.distilling.updating import DistillingUpdater
from probe.training.folder import LAST, RECORD, check_same, read_record, training_folder
from probe.training.optimizer import create_optimizer
from probe.training.recipe import Recipe
from probe.training.saving import Saving
from probe.training.state import Standing, restore, weight_bytes


def prepare(
    asked: Asked,
    model: Model,
    original: Model,
    groups: list[dict[str, Any]],
    blocks: tuple[Mapping[str, Tensor], Mapping[str, Tensor]],
    accelerator: Any,
    images: Images,
    progress: Progress,
    say: Any,
) -> DistillingLoop:
    """The loop, where the folder left it."""
    recipe, module = recipe_of(asked, model), model.module
    optimizer = accelerator.prepare_optimizer(create_optimizer(module, recipe, groups))
    micro = min(asked.micro_batch or recipe.batch_size, recipe.batch_size)
    updater = DistillingUpdater(
        module,
        original.module,
        blocks,
        asked.block_weight,
        optimizer,
        accelerator,
        recipe,
        micro,
        say,
    )
    best = Best(module)
    record = record_of(asked, recipe, model, original, images)
    saving = Saving(
        asked.folder,
        record,
        module,
        best,
        optimizer,
        accelerator.scaler,
        module_bytes=weight_bytes,
        is_first=True,
        epochs=recipe.epochs,
        keep_every=None,
        minutes=asked.save_minutes,
        unit="rounds",
        tables=round_files,
    )
    standing = Standing()
    _check_folder(asked, record)
    if (asked.folder / LAST[-1]).exists():
        standing = restore(asked.folder, module, best.module, optimizer, accelerator.scaler)
        saving.resumed(standing)
        say(f"continues: {saving.place}")
    updater.micro = standing.micro or updater.micro
    _, each = rounds_of(asked.steps)
    draws = Draws(len(images.training), recipe.batch_size, each, asked.seed)
    transform = training_transform(recipe, look_of(recipe, model))
    loop = DistillingLoop(
        recipe,
        module,
        None,
        optimizer,
        updater,
        Shares(kept(images.training, progress), transform, draws, workers=asked.workers),
        _judge(asked, model, original, images, progress),
        saving,
        standing,
        log=lambda values, step: None,
        say=say,
        progress=progress,
        after_epoch=lambda number, network: None,
        best=best,
    )
    loop.after_epoch = loop.keep_best
    return loop


def _check_folder(asked: Asked, record: Mapping[str, Any]) -> None:
    """Raises UsageError where the folder holds another distillation, which `overwrite` empties."""
    if not (asked.folder / RECORD).exists():
        return
    try:
        check_same(read_record(asked.folder), record, asked.folder)
    except UsageError:
        if not asked.overwrite:
            raise
        training_folder(asked.folder, overwrite=True)


def _judge(
    asked: Asked, model: Model, original: Model, images: Images, progress: Progress
) -> AgainstOriginal:
    data = read_eval_data(
        original,
        images.held_out,
        None,
        num_images=None,
        batch_size=asked.batch_size,
        workers=asked.workers,
        seed=asked.seed,
        transform=None,
        progress=progress,
        labelled=False,
    )
    return AgainstOriginal(Comparison(*as_one(original, model), data))


def record_of(
    asked: Asked, recipe: Recipe, model: Model, original: Model, images: Images
) -> dict[str, Any]:
    """What the folder says of the distillation: nothing of it may differ when it continues."""
    fields = {key: value for key, value in asdict(recipe).items() if value is not None}
    own = {"train": asked.train, "steps": asked.steps, "block_weight": asked.block_weight}
    return {
        "status": "running",
        "probe": __version__,
        "recipe": _plain({**fields, **own}),
        "model": {
            "name": shown_name(model),
            "original": original.fingerprint,
            "start": fingerprint(model.module),
        },
        "data": {"training": images.training.described, "held_out": len(images.held_out)},
        "versions": {"torch": torch.__version__},
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(each) if isinstance(each, tuple) else each for key, each in values.items()}
