"""Captures of a network while it trains: with `probe_every` a run per K-th epoch, on the same
images, so that the S-curves of its layers can be followed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from probe.models.loading.weights import fingerprint
from probe.training.augment import evaluation_transform
from probe.training.folder import probe_name
from probe.training.prepare import Task
from probe.training.tracking.runs import probe_checkpoint

IMAGES = 128  # of the validation images, as a capture takes by default


def probing(task: Task) -> Callable[[int, nn.Module], None]:
    """What to do with the evaluated network after each epoch, numbered from 0."""
    every = task.options.probe_every

    def probe_it(number: int, module: nn.Module) -> None:
        if every is not None and number % every == 0 and task.accelerator.is_main_process:
            _probe(task, number, module)

    return probe_it


def _probe(task: Task, number: int, module: nn.Module) -> None:
    look = task.network.look
    model = replace(
        task.network.model,
        module=module,
        weights=f"epoch {number}",
        source=task.recipe.name,
        transform=evaluation_transform(look),
        input_size=(3, *look.size),
        fingerprint=fingerprint(module),
    )
    probe_checkpoint(
        model,
        task.images.validation.data,
        task.folder / probe_name(number),
        num_images=IMAGES,
        seed=task.recipe.seed,
        attention=True,
        overwrite=True,
        progress=task.progress,
    )
