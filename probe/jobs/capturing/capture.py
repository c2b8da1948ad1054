"""Capture: run a model over images, keep exact statistics and samples of every normalization layer,
write a run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from probe.engines import Engine, find_engine
from probe.engines import Worker as EngineWorker
from probe.errors import ProbeError, UsageError
from probe.jobs.capturing import tables
from probe.jobs.capturing.forward import autocast_dtype
from probe.jobs.capturing.manifest import attention_record, layer_record, manifest_of
from probe.jobs.capturing.worker import CapturedLayers, Worker
from probe.jobs.inputs import (
    Inputs,
    Mask,
    Stream,
    check_images,
    check_layers,
    describe,
    open_model,
    open_stream,
)
from probe.models.attention import AttentionProbe
from probe.models.loading.load import Model
from probe.models.reading.layers import affine_of, list_norm_layers, norm_modules, own_alpha
from probe.models.reading.registration import registered_names
from probe.models.reading.unchanged import unchanged
from probe.models.reading.unusual import unread_norms
from probe.records import Layer, Plan, Progress, silent
from probe.stats.layer import LayerStatistics
from probe.store import Run, RunWriter, open_run
from probe.wording.notes import table_metadata, warnings_of

W = TypeVar("W", bound=EngineWorker)


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
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Run `model` over `data` and write moments, profile and samples of every normalization layer
    to the folder `out`.

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
    engine: who deals out the batches (`probe.engines`); every engine gives the same run.
    progress: called as progress(stage, done, total).

    Raises UsageError for wrong arguments and ProbeError where the job fails; `out` then holds no
    run.
    """
    _check(samples, tail, num_images)
    run_batches, cast = find_engine(engine), autocast_dtype(autocast)
    report = progress or silent
    with ExitStack() as stack:
        writer = stack.enter_context(RunWriter(Path(out), overwrite))
        check_layers(model, layers, weights, seed=seed, offline=offline)
        loaded = open_model(
            model, weights=weights, device=device, dtype=dtype, seed=seed, offline=offline
        )
        writer.metadata = table_metadata({"model": describe(loaded)})
        stack.enter_context(unchanged(loaded.module))
        chosen = list_norm_layers(loaded.module, layers)
        stream = open_stream(
            loaded,
            data,
            num_images=num_images,
            batch_size=batch_size,
            workers=workers,
            seed=seed,
            mask=mask,
            transform=transform,
        )
        if prefix_tokens is not None:
            loaded = replace(loaded, prefix_tokens=prefix_tokens)
        # the draw of rows counts on every position of the planned images, and a mask leaves some
        # out
        plan = Plan(None if mask else stream.images, samples, tail, seed, batch_size)
        started, began = datetime.now(UTC), time.perf_counter()
        overrides = {"prefix_tokens": prefix_tokens, "patch_size": patch_size, "grid": grid}
        make_worker = partial(Worker, loaded, plan, layers, cast, overrides if attention else None)
        worker = run_stream(run_batches, make_worker, stream, report)
        seconds = time.perf_counter() - began
        records = _write(writer, loaded.module, worker.layers(chosen), report)
        seen = {
            "not_captured": worker.functional,
            "images_seen": worker.images,
            "attention": write_attention(writer, worker.attention, overrides),
            **norm_facts(loaded.module),
        }
        manifest = manifest_of(loaded, autocast, stream, plan, layers, engine, records)
        manifest |= seen | {"times": times(started, seconds, worker.images)}
        writer.finish(manifest | {"warnings": warnings_of(manifest)})
    return open_run(out)


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


def run_stream(
    engine: Engine,
    make_worker: Callable[[], W],
    stream: Stream,
    report: Progress,
    stage: str = "capture",
) -> W:
    """Every batch of the stream through the workers of an engine; the one that holds it all.
    Raises ProbeError where there was no image.
    """
    images = 0

    def count(batch: Inputs) -> None:
        nonlocal images
        images += len(batch)
        report(stage, images, stream.images)

    report(stage, 0, stream.images)
    worker = engine(make_worker, stream.batches, count)
    if not images:
        raise ProbeError("no image went through the model: the data gave no batch")
    return worker


def times(started: datetime, seconds: float, images: int) -> dict[str, Any]:
    """The only part of a run that differs from one time to the next."""
    speed = round(images / seconds, 3)
    return {
        "started": started.isoformat(),
        "seconds": round(seconds, 3),
        "images_per_second": speed,
    }


def write_attention(
    writer: RunWriter, probe: AttentionProbe | None, overrides: dict[str, Any]
) -> dict[str, Any]:
    """The attention table, where there is anything to write. Returns the manifest's entry
    `attention`; `overrides` is what the user said of the tokens.
    """
    rows = probe.rows() if probe is not None else []
    if rows:
        writer.write_table("attention", tables.attention_columns(rows))
    return attention_record(probe, rows) | ({"given": overrides} if probe is not None else {})


def _write(
    writer: RunWriter, module: nn.Module, captured: CapturedLayers, report: Progress
) -> list[dict[str, Any]]:
    """Samples by two threads, whose compression releases the GIL, and the tables meanwhile. Returns
    the manifest's layer records.
    """
    called = [(layer, statistics) for layer, statistics in captured if statistics is not None]
    report("store", 0, len(called))
    for _, statistics in called:
        statistics.settle()

    def write_samples(layer: Layer, statistics: LayerStatistics) -> None:
        writer.write_samples(layer.depth, layer.name, **tables.sample_columns(statistics))

    with ThreadPoolExecutor(2) as pool:
        written = [pool.submit(write_samples, *item) for item in called]
        records = _write_tables(writer, module, captured)
        for count, sample in enumerate(written, start=1):
            sample.result()
            report("store", count, len(called))
    return records


def _write_tables(
    writer: RunWriter, module: nn.Module, captured: CapturedLayers
) -> list[dict[str, Any]]:
    modules = {name: child for name, child, _ in norm_modules(module)}
    parts: dict[str, list[Any]] = {"moments": [], "profile": [], "rows": []}
    records = []
    for layer, statistics in captured:
        of_module = {"own_alpha": own_alpha(modules[layer.module])}
        if statistics is None:
            records.append(layer_record(layer, None) | of_module)
            continue
        affine = affine_of(modules[layer.module], layer.channels)
        weight, bias = (values.numpy() for values in affine)
        parts["moments"].append(tables.moments_columns(layer, statistics, weight, bias))
        parts["profile"].append(tables.profile_columns(layer, statistics))
        parts["rows"].append(tables.token_columns(layer, statistics))
        error = tables.affine_error(statistics, weight, bias)
        records.append(layer_record(layer, statistics, error) | of_module)
    for name, of_layers in parts.items():
        there = [part for part in of_layers if part is not None]
        writer.write_table(name, tables.joined(name, there))
    return records
