"""A converted network learns from its original, without labels: `probe.distill(run, data=...)`.

1. The run's network is converted, and calibrated if asked for (probe.jobs.converting).
2. Rounds of updates bring outputs and block outputs closer to those of the original network, by
   the normalizers' parameters alone or by all; after each round both networks are compared on
   images that are held out.
3. The weights of the best round, the start among them, are what is written.

Beside the file stands the folder FILE.distilling until it is done: the same call continues there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from probe.errors import UsageError
from probe.jobs.converting.convert import convert
from probe.jobs.converting.networks import Slots
from probe.jobs.converting.result import Conversion, Distillation
from probe.jobs.model_file import model_file
from probe.models.loading.load import Model
from probe.models.reading.block_outputs import block_outputs
from probe.offline import offline_means_all
from probe.records import Progress, silent
from probe.store import Run
from probe.training.distilling.asked import Asked
from probe.training.distilling.images import Images, open_unlabelled
from probe.training.distilling.loop import best_round
from probe.training.distilling.parameters import parameter_groups, trained_alone
from probe.training.distilling.prepare import prepare
from probe.training.distilling.survey import round_table
from probe.training.distilling.updating import common_blocks
from probe.training.folder import training_folder
from probe.training.machine import accelerated
from probe.training.update import random_numbers_kept

SUFFIX = ".distilling"
Say = Callable[[str], None]


@offline_means_all
def distill(
    run: Run | str | os.PathLike[str],
    to: str = "dyt",
    *,
    data: Any,
    out: str | os.PathLike[str],
    steps: int = 500,
    train: str = "norms",
    train_images: int | None = None,
    lr: float | None = None,
    train_batch_size: int = 64,
    block_weight: float = 1.0,
    precision: str = "no",
    micro_batch: int | None = None,
    save_minutes: float = 1.0,
    eval_data: Any = None,
    workers: int = 0,
    seed: int = 0,
    device: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    say: Say = lambda line: None,
    **options: Any,
) -> Conversion:
    """Convert the network of `run` and let it learn from the original for `steps` updates, without
    labels; returns the conversion, with `.distillation`.

    data: images to learn from, as open_images takes them (labels are not read); train_images: how
    many of them, None: all. out: the .safetensors file. train: `norms`, the parameters of the
    replaced layers alone, or `all`. lr: learning rate of the norms' weights and biases; None: a
    measured one. train_batch_size: images of an update; micro_batch: of a forward pass;
    block_weight: of the blocks' errors beside the KL of the outputs; save_minutes: between saves.
    eval_data: what the result is measured on; other options go to `convert` (layers=, calibrate=,
    scope=, model=, ...). engine=, address= and `workers` say there who measures it; the network
    learns in this process, for which `workers` processes read images.
    say: called with one line of text for people now and then.

    The same call continues a distillation that was interrupted. Raises UsageError for what cannot
    be asked, Interrupted at Ctrl-C, ProbeError where numbers stop being finite.
    """
    target = model_file(out, overwrite)
    asked = Asked(
        data,
        target.with_suffix(SUFFIX),
        steps,
        train,
        train_images,
        train_batch_size,
        lr,
        block_weight,
        precision,
        micro_batch,
        workers,
        seed,
        save_minutes,
        overwrite,
    )
    images, report = open_unlabelled(asked), progress or silent

    def refine(model: Model, original: Model, slots: Slots) -> Distillation:
        return _distilled(asked, images, model, original, slots, device, report, say)

    result = convert(
        run,
        to,
        out=target,
        data=eval_data,
        workers=workers,
        seed=seed,
        device=device,
        overwrite=overwrite,
        progress=progress,
        refine=refine,
        **options,
    )
    shutil.rmtree(asked.folder, ignore_errors=True)
    return result


def _distilled(
    asked: Asked,
    images: Images,
    model: Model,
    original: Model,
    slots: Slots,
    device: str | None,
    progress: Progress,
    say: Say,
) -> Distillation:
    """The model learns; what it was like goes into the result."""
    if model.transform is None:
        raise UsageError(
            f"{model.name} has no transform for image files, which a distillation needs"
        )
    training_folder(asked.folder, overwrite=False)
    original.module.eval()
    names = common_blocks(model.module, original.module)
    groups = parameter_groups(model.module, slots, asked.train)
    with ExitStack() as stack:
        accelerator = stack.enter_context(accelerated(device, asked.precision, None, asked.folder))
        stack.enter_context(random_numbers_kept(accelerator.device))
        stack.enter_context(trained_alone(model.module, groups))
        blocks = (
            stack.enter_context(block_outputs(model.module, names)),
            stack.enter_context(block_outputs(original.module, names)),
        )
        loop = prepare(asked, model, original, groups, blocks, accelerator, images, progress, say)
        loop.run()
    model.module.load_state_dict(loop.best.module.state_dict())
    model.module.eval()
    rounds = round_table(loop.standing.epochs)
    return Distillation(
        rounds=rounds,
        train=asked.train,
        steps=int(rounds["step"].iloc[-1]),
        best_round=best_round(rounds["kl"].tolist()),
        images=len(images.training),
        held_out=len(images.held_out) if images.apart else 0,
        blocks=len(names),
    )
