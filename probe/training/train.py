"""Train a network with other normalizers: `probe.train("vit_small_patch16_224", "dyt", data=...)`.

1. The recipe is completed and checked; the data is opened and its classes counted.
2. The network is built with the recipe's norm and a head for the classes, and tried on one image.
3. The folder is opened: a training that is there continues, if it is the same one.
4. Epochs run; after each, tables and state take their place together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from torch import nn

from probe.errors import UsageError
from probe.models.loading.load import Model
from probe.records import Progress, silent
from probe.store.outputs import on_this_machine
from probe.training.choice import Choice, choose
from probe.training.folder import RECORD, check_same, read_record, training_folder
from probe.training.images import TrainingImages, open_training_images
from probe.training.launch import check_processes, launched, run_processes
from probe.training.losses import extra_losses
from probe.training.machine import accelerated, plain_attention, start_tracker
from probe.training.network import build_network
from probe.training.options import Options
from probe.training.plan import plan_lines
from probe.training.portions import Portions
from probe.training.prepare import Task, check, prepare, record_of
from probe.training.probing import probing
from probe.training.recipe import Recipe
from probe.training.reporting.page import training_report
from probe.training.result import Training, open_training
from probe.training.schedules import learning_rate
from probe.training.update import random_numbers_kept

Say = Callable[[str], None]


def train(
    model: str | Model | nn.Module | None = None,
    norm: str | None = None,
    *,
    data: str,
    out: str,
    recipe: str | Recipe | None = None,
    as_published: bool = False,
    val_data: str | None = None,
    train_images: int | None = None,
    val_images: int | None = None,
    held_back: float | None = None,
    alphas: Any = None,
    device: str | None = None,
    workers: int = 0,
    processes: int = 1,
    micro_batch: int | None = None,
    keep_every: int | None = None,
    probe_every: int | None = None,
    save_minutes: float = 5.0,
    log: str | None = None,
    report: bool = True,
    offline: bool = False,
    overwrite: bool = False,
    progress: Progress = silent,
    say: Say = lambda line: None,
    **overrides: Any,
) -> Training:
    """Train a network and return its training: `.path .epochs .norms .module`.

    model: a name as load_model takes it, or a network that is there already; None: the recipe's.
    norm: of probe.norms, in place of the network's own. data: a folder with train/ and val/, a
    folder of Parquet files, or a timm dataset; val_data: the validation part where it is elsewhere.
    train_images, val_images: only so many of each part, of each class its share; held_back: the
    share of the training images that is validated on in place of the other part, to choose by.
    recipe: a name of probe.training.recipes, a Recipe, or None for the plain one; overrides: what
    is to differ from it (epochs=, lr=, batch_size=, ...). alphas: what `init="fitted"` starts from.
    micro_batch: images of a forward pass; keep_every, probe_every: epochs between kept weights and
    between captures; save_minutes: between saves within an epoch; log: a tracker of accelerate;
    report: figures and report.html at the end.
    say: called with one line of text for people now and then.

    The same call continues a training that was interrupted. Raises UsageError for what cannot be
    asked, Interrupted at Ctrl-C, ProbeError where numbers stop being finite.
    """
    given = None if isinstance(model, str) else model
    name = model if given is None else _shown(given)
    choice = choose(recipe, {"model": name, "norm": norm, **overrides}, as_published)
    options = Options(
        data=str(data),
        out=str(out),
        val_data=val_data,
        train_images=train_images,
        val_images=val_images,
        held_back=held_back,
        alphas=alphas,
        device=device,
        workers=workers,
        processes=processes,
        micro_batch=micro_batch,
        keep_every=keep_every,
        probe_every=probe_every,
        save_minutes=save_minutes,
        log=log,
        report=report,
        offline=offline,
        overwrite=overwrite,
    )
    return _train(choice, options, given, progress, say)


def planned(**asked: Any) -> list[str]:
    """What `train` would do with these arguments, in lines for people; nothing is written. Raises
    what it would raise before it begins.
    """
    names = {each.name for each in fields(Options)}
    options = Options(**{key: each for key, each in asked.items() if key in names})
    alone = {key: each for key, each in asked.items() if key not in names}
    named = {key: alone.pop(key) for key in ("recipe", "as_published") if key in alone}
    choice = choose(named.get("recipe"), alone, bool(named.get("as_published")))
    with _checked(choice, options, None, silent, lambda line: None) as task:
        return list(plan_lines(task))


def _shown(model: Model | nn.Module) -> str:
    return model.full_name if isinstance(model, Model) else type(model).__name__


def _train(
    choice: Choice,
    options: Options,
    given: Model | nn.Module | None,
    progress: Progress,
    say: Say,
) -> Training:
    if options.processes > 1 and not launched():
        return _by_several(choice, options, given, progress, say)
    with _checked(choice, options, given, progress, say) as task:
        with task.accelerator.main_process_first():
            overwrite = options.overwrite and task.accelerator.is_main_process
            folder = training_folder(options.out, overwrite)
        for line in plan_lines(task):
            task.say(line)
        if finished := _finished(task):
            return finished
        start_tracker(task.accelerator, options.log, folder, choice.as_dict()["recipe"])
        with random_numbers_kept(task.accelerator.device):
            loop = prepare(task, probing(task))
            with extra_losses(loop.module, choice.recipe) as loop.updater.extra:
                loop.run()
        if options.report and task.accelerator.is_main_process:
            training_report(folder, progress=progress)
        return Training(folder, loop.saving.record, loop.evaluated)


def _by_several(
    choice: Choice,
    options: Options,
    given: Model | nn.Module | None,
    progress: Progress,
    say: Say,
) -> Training:
    """The same in processes of their own."""
    if given is not None:
        raise UsageError("several processes need a model by its name; give one, or processes=1")
    check_processes(options.processes, options.device)
    run_processes(options.processes, in_a_process, (choice, options), progress, say)
    return open_training(options.out)


def in_a_process(choice: Choice, options: Options, progress: Progress, say: Say) -> None:
    """What each of several processes does."""
    _train(choice, options, None, progress, say)


@contextmanager
def _checked(
    choice: Choice,
    options: Options,
    given: Model | nn.Module | None,
    progress: Progress,
    say: Say,
) -> Iterator[Task]:
    """Everything that can be refused is refused here, before anything is written."""
    recipe, folder = choice.recipe, on_this_machine(options.out)
    learning_rate(recipe, 0, 1)
    images = portioned(options)
    network = build_network(recipe, images.classes, given, options.alphas, options.offline)
    with accelerated(options.device, recipe.precision, options.log, folder) as accelerator:
        plain_attention(network.module, recipe.precision, accelerator.device)
        if not accelerator.is_main_process:
            progress, say = silent, _unheard
        task = Task(choice, options, images, network, accelerator, folder, progress, say)
        check(task)
        yield task


def portioned(options: Options) -> TrainingImages:
    """The images of a training: both parts of the data, or what the options make of them."""
    portions = Portions(options.train_images, options.val_images, options.held_back)
    return portions.of(open_training_images(options.data, options.val_data))


def _unheard(_: str) -> None:
    """What processes but the first say."""


def _finished(task: Task) -> Training | None:
    """The training that the folder holds, if it is this one and done. Raises UsageError for
    another.
    """
    if not (task.folder / RECORD).exists():
        return None
    before = read_record(task.folder)
    check_same(before, record_of(task), task.folder)
    if before["status"] != "finished":
        return None
    task.say(f"{task.folder} holds this training already, finished")
    return Training(task.folder, before)
