"""Capture: run a model over images, keep exact statistics and samples of every normalization layer,
write a run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from torch import Tensor, nn

from probe.compiling import ONCE, announced
from probe.data import none_used, worker_died
from probe.engines import Elsewhere, Means, find_engine
from probe.engines import Worker as EngineWorker
from probe.errors import ProbeError, UsageError
from probe.jobs.capturing.forward import autocast_dtype
from probe.jobs.capturing.halving import halved
from probe.jobs.capturing.keeper import Keeper
from probe.jobs.capturing.kept_tree import KeptTree
from probe.jobs.capturing.manifest import manifest_of
from probe.jobs.capturing.resume import begun, check_names, check_same, with_given
from probe.jobs.capturing.shares import Note, shares_of
from probe.jobs.capturing.travel import in_memory, loading_device, travelling
from probe.jobs.capturing.worker import Worker
from probe.jobs.capturing.write_run import write_attention, write_images, write_layers
from probe.jobs.inputs import (
    Inputs,
    Mask,
    Stream,
    check_images,
    check_layers,
    open_model,
    open_stream,
)
from probe.models.loading.load import Model
from probe.models.reading.layers import list_norm_layers
from probe.models.reading.registration import registered_names
from probe.models.reading.unchanged import unchanged
from probe.models.reading.unusual import unread_norms
from probe.offline import offline_means_all
from probe.records import Plan, Progress, silent
from probe.store import Run
from probe.wording.notes import table_metadata, warnings_of

W = TypeVar("W", bound=EngineWorker)
UNNAMED = "image #"  # images of a stream are called by their number


@offline_means_all
def capture(
    model: str | Model | nn.Module,
    data: Any = None,
    *,
    out: str | os.PathLike[str],
    weights: str = "pretrained",
    samples: int = 512,
    tail: int = 1000,
    layers: str = "*",
    mask: Mask | None = None,
    transform: Callable[[Any], Tensor] | None = None,
    num_images: int | None = None,
    batch_size: int = 8,
    workers: int = 0,
    device: str | None = None,
    dtype: str | None = None,
    autocast: str | None = None,
    prefix_tokens: int | None = None,
    attention: bool = False,
    patch_size: int | tuple[int, int] | None = None,
    grid: tuple[int, int] | None = None,
    seed: int = 0,
    offline: bool = False,
    engine: str = "local",
    address: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    loader_timeout: float | None = None,
    progress: Progress | None = None,
) -> Run:
    """Run `model` over `data` and write moments, profile and samples of every normalization layer
    to the folder `out`, or to an address in a storage that fsspec opens (`s3://BUCKET/runs/vit`):
    docs/scaling.md.

    model: a name (`vit_base_patch16_224`, `torchvision:resnet50`, `net.py:make`), a loaded Model,
    or any torch.nn.Module, which is run as it is, in the mode it is in; its buffers (running
    statistics) are afterwards as they were.
    data: None (bundled photographs), a folder of images or Parquet files, a file list, paths, a
    timm dataset URI, an iterable data set of images of the package datasets, or an iterable of
    batches: tensors, tuples whose first item is the input (a tensor or a list of images), or
    mappings passed as keyword arguments.
    num_images: how many of the images, chosen by the seed; None: all of them (the command line's
    default is 128). Of a stream of images the first so many; of an iterable, batches are read until
    so many were seen.
    mask: for padded batches, a function of the batch that returns a boolean (B, T) tensor, True at
    valid positions.
    samples: rows per layer. tail: extreme elements per layer. autocast: dtype of torch.autocast.
    prefix_tokens: class and register tokens at the start of the sequence, where a plain module does
    not say.
    attention: read the attention distance of every head in the same forward passes, too (table
    `attention`); patch_size (pixels) and grid (rows, columns) say for that what a plain module does
    not.
    engine: who deals out the batches; every engine gives the same run, and each of its workers has
    a copy of the model. local: this process; `processes`: of this machine; `ray`: on a cluster
    (address: HOST:PORT of its head, or auto), or on this machine.
    workers: of engine local the processes that read images (0: none); of the others those that run
    the model (0: one per GPU, or per core).
    resume: go on with an interrupted capture of the same model, data and options from its last
    state, which is written every half minute; the run is then the same, byte for byte on the CPU.
    Where there is none, the capture starts; a finished run of this job is returned as it is.
    Without resume and overwrite an interrupted capture goes on too, with a warning; another one
    than this is refused, and left as it is. overwrite: start anew.
    loader_timeout: seconds that the worker processes may take for a batch; None: any time.
    progress: called as progress(stage, done, total).

    Raises UsageError for wrong arguments and ProbeError where the job fails; `out` then holds no
    run.
    """
    _check(samples, tail, num_images)
    run_batches, cast = engine_of(engine, workers, address, device), autocast_dtype(autocast)
    report = progress or silent
    with ExitStack() as stack:
        begin = stack.enter_context(begun(out, resume, overwrite))
        writer = None if begin.finished is not None else stack.enter_context(begin.writer())
        check_layers(model, layers, weights, seed=seed, offline=offline)
        loaded = opened(run_batches, model, device, weights, dtype, seed, offline)
        stack.enter_context(unchanged(loaded.module))
        chosen = list_norm_layers(loaded.module, layers)
        stream = open_stream(
            loaded,
            data,
            num_images=num_images,
            batch_size=batch_size,
            workers=readers(run_batches, workers),
            seed=seed,
            mask=mask,
            transform=transform,
            loader_timeout=loader_timeout,
        )
        if resume:
            check_names(stream)
        if prefix_tokens is not None:
            loaded = replace(loaded, prefix_tokens=prefix_tokens)
        # the draw of rows counts on every position of the planned images, and a mask leaves some
        # out
        plan = Plan(None if mask else stream.images, samples, tail, seed, batch_size)
        overrides = {"prefix_tokens": prefix_tokens, "patch_size": patch_size, "grid": grid}
        job = manifest_of(loaded, autocast, stream, plan, layers, engine, [])
        job |= norm_facts(loaded.module) | {"attention": {"given": overrides} if attention else {}}
        job = with_given(job, loaded, mask, transform)
        if begin.finished is not None:
            check_same(os.fspath(out), begin.finished.manifest, job, bits=False)
            begin.say()
            return begin.finish(out)
        if begin.saved is not None:
            check_same(os.fspath(out), begin.saved.facts["job"], job, bits=True)
            begin.say()
        assert writer is not None
        writer.metadata = table_metadata(job)
        named = stream.description.get("identity") is not None
        keeps = engine == "local" or isinstance(run_batches, Elsewhere)
        kept = begin.checkpoint if keeps and named else None
        job |= {"overwrite": begin.replaces}
        keeper = stack.enter_context(Keeper(kept, job, loaded.module, stream, begin.saved))
        read_attention = overrides if attention else None
        make = partial(Worker, plan=plan, layers=layers, autocast=cast, attention=read_attention)
        make_worker = travelling(run_batches, make, loaded, device)
        worker = run_stream(
            run_batches, make_worker, stream, report, keeper=keeper if kept else None
        )
        seconds = keeper.seconds
        write_images(writer, stream)
        records = write_layers(writer, loaded.module, worker.layers(chosen), report)
        seen = {
            "not_captured": worker.functional,
            "images_seen": worker.images,
            **halved(worker.halving),
            "attention": write_attention(writer, worker.attention, overrides),
            **norm_facts(loaded.module),
        }
        manifest = manifest_of(loaded, autocast, stream, plan, layers, engine, records)
        manifest["model"]["device"] = worker.device  # of the workers
        manifest |= seen | {"times": times(keeper.started, seconds, worker.images)}
        writer.finish(manifest | {"warnings": warnings_of(manifest)})
        keeper.finished()
        return begin.finish(out, job if named else None)


def norm_facts(module: nn.Module) -> dict[str, dict[str, str]]:
    """What the manifest says of unusual norms, where there are some: classes that a user
    registered, and modules that look like norms and are not read.
    """
    facts = {"registered_norms": registered_names(), "not_read": unread_norms(module)}
    return {name: values for name, values in facts.items() if values}


def _check(samples: int, tail: int, num_images: int | None) -> None:
    if samples < 1:
        raise UsageError(f"--samples {samples}: must be at least 1")
    if tail < 2:
        raise UsageError(
            f"--tail {tail}: must be at least 2 (half for the largest, half for the smallest "
            "inputs)"
        )
    check_images(num_images)


def engine_of(name: str, workers: int, address: str | None, device: str | None) -> Any:
    """The engine with what the user says of its workers. Raises UsageError where it has no use for
    that.
    """
    gpus = device is None or device.startswith("cuda")
    return find_engine(name, Means(workers or None, address, gpus))


def readers(engine: Any, workers: int) -> int:
    """How many processes read for the process that runs the model; workers of an engine that has
    its own read for themselves.
    """
    return 0 if isinstance(engine, Elsewhere) else workers


def opened(
    engine: Any,
    model: str | Model | nn.Module,
    device: str | None,
    weights: str,
    dtype: str | None,
    seed: int,
    offline: bool,
) -> Model:
    """The model, where the engine needs it; a module that a user made stays where it is."""
    place = loading_device(engine, device)
    if isinstance(engine, Elsewhere) and not isinstance(model, str):
        place = None
    loaded = open_model(
        model, weights=weights, device=place, dtype=dtype, seed=seed, offline=offline
    )
    module = in_memory(engine, loaded.module)
    return loaded if module is loaded.module else replace(loaded, module=module)


def run_stream(
    engine: Any,
    make_worker: Callable[[], W],
    stream: Stream,
    report: Progress,
    stage: str = "capture",
    keeper: Keeper | None = None,
) -> W:
    """Every batch of the stream through the workers of an engine; the one that holds it all. A
    keeper, where there is one, has the state of the worker kept meanwhile.
    Raises ProbeError where there was no image, or not every one.
    """
    images = keeper.images if keeper is not None else 0

    def count(batch: Inputs | Note) -> None:
        nonlocal images
        images += len(batch)
        if isinstance(batch, Note):
            stream.read += batch.batches
            stream.skipped += batch.skipped
        if keeper is not None:
            keeper.after(batch)
        report(stage, images, stream.images)

    report(stage, images, stream.images)
    try:
        with announced(lambda: report("compile", 0, None, ONCE)):
            worker = _ran(engine, make_worker, stream, count, keeper)
    except RuntimeError as error:
        if (died := worker_died(error)) is None:
            raise
        raise died from error
    check_all_seen(images, stream)
    if not images and stream.skipped:
        raise none_used(len(stream.skipped), stream.skipped)
    if not images:
        raise ProbeError("no image went through the model: the data gave no batch")
    return worker


def _ran(
    engine: Any,
    make_worker: Callable[[], W],
    stream: Stream,
    count: Callable[[Any], None],
    keeper: Keeper | None,
) -> W:
    if isinstance(engine, Elsewhere):
        tree = None
        if keeper is not None:
            kept = KeptTree(make_worker, keeper.begin)
            keeper.first(lambda: kept)
            tree = kept.tree
        elsewhere: W = engine(make_worker, shares_of(stream), count, tree)
        stream.skipped.sort(key=_place)  # they came in any order
        return elsewhere
    batches: Iterable[Inputs] = stream.batches
    make: Callable[[], Any] = make_worker
    if keeper is not None:
        batches, make = keeper.dealt(), partial(keeper.first, make)
    worker: W = engine(make, batches, count)
    return worker


def check_all_seen(images: int, stream: Stream) -> None:
    """Raises ProbeError where images of the plan are neither seen nor skipped."""
    counted = images + len(stream.skipped)
    if stream.making is not None and stream.images is not None and counted != stream.images:
        raise ProbeError(
            f"{counted} of the {stream.images} planned images were seen: some were lost on the way "
            "to the workers, or came twice; start again"
        )


def _place(skipped: tuple[str, str]) -> tuple[int, str]:
    """Where a skipped image stands among others: the ids of named ones are sorted, and those of a
    stream end in their number.
    """
    name = skipped[0]
    return (int(name[len(UNNAMED) :]) if name.startswith(UNNAMED) else 0), name


def times(started: str, seconds: float, images: int) -> dict[str, Any]:
    """The only part of a run that differs from one time to the next."""
    speed = round(images / seconds, 3)
    return {
        "started": started,
        "seconds": round(seconds, 3),
        "images_per_second": speed,
    }
