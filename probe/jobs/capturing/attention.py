"""Attention distance: how far each head of a model looks, on average over images and query patches.

d[layer, head] = mean over images and query patches of sum_k A[q, k] * |position q - position k|, in
pixels of the input (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929; Raghu et al. 2021,
https://arxiv.org/abs/2108.08810).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor, nn

from probe.errors import ProbeError
from probe.jobs.capturing.capture import engine_of, opened, readers, run_stream, times
from probe.jobs.capturing.forward import forward, input_size
from probe.jobs.capturing.halving import Halving, Key, halved
from probe.jobs.capturing.manifest import attention_manifest, attention_record
from probe.jobs.capturing.resume import refuse_interrupted
from probe.jobs.capturing.tables import attention_columns
from probe.jobs.capturing.travel import travelling
from probe.jobs.capturing.write_run import write_attention, write_images
from probe.jobs.inputs import (
    Inputs,
    Mask,
    check_images,
    describe,
    open_stream,
    shown_name,
)
from probe.models.attention import AttentionProbe
from probe.models.loading.load import Model
from probe.models.reading.exclusive import alone
from probe.models.reading.unchanged import unchanged
from probe.offline import offline_means_all
from probe.records import Progress, silent
from probe.stats.results import Results
from probe.store import RunWriter
from probe.store.checkpoint import Checkpoint
from probe.store.outputs import output_copy
from probe.wording.notes import table_metadata


@offline_means_all
def attention_distance(
    model: str | Model | nn.Module,
    data: Any = None,
    *,
    weights: str = "pretrained",
    num_images: int | None = None,
    batch_size: int = 8,
    workers: int = 0,
    seed: int = 0,
    device: str | None = None,
    dtype: str | None = None,
    offline: bool = False,
    mask: Mask | None = None,
    transform: Callable[[Any], Tensor] | None = None,
    patch_size: int | tuple[int, int] | None = None,
    grid: tuple[int, int] | None = None,
    prefix_tokens: int | None = None,
    engine: str = "local",
    address: str | None = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """How far each attention head of `model` looks on `data`: one row per layer and head, in
    execution order.

    model, data, num_images, mask, transform, workers, engine and address: as `capture` takes them.
    patch_size (pixels), grid (rows, columns) and prefix_tokens (class and register tokens, which
    are left out as queries and keys) say what a plain module does not.
    out: a folder, or an address, for a finished run that holds this table alone;
    `open_run(out).attention()` reads it again.

    Columns: layer (module path), head, distance_px (softmax over patch keys only), distance_px_raw
    (over all keys, prefix mass lost), distance_patches, distance_px_std (over images), prefix_mass,
    entropy (nats), token_stride (pixels), grid, uniform_px (what uniform attention on this grid
    gives), images, depth, windows (per image; 1: global), prefix_tokens.
    `table.attrs["unreadable"]` names the attention that was left out, with the reason.

    Raises UsageError for wrong arguments, and ProbeError where there is no attention that can be
    read.
    """
    check_images(num_images)
    run_batches = engine_of(engine, workers, address, device)
    with ExitStack() as stack:
        writer = None
        if out is not None:
            out, _ = output_copy(out, overwrite)
            checkpoint = stack.enter_context(Checkpoint(out))
            refuse_interrupted(checkpoint, overwrite)
            writer = stack.enter_context(RunWriter(Path(out), overwrite))
        loaded = opened(run_batches, model, device, weights, dtype, seed, offline)
        if writer is not None:
            writer.metadata = table_metadata({"model": describe(loaded)})
        stack.enter_context(unchanged(loaded.module))
        stream = open_stream(
            loaded,
            data,
            num_images=num_images,
            batch_size=batch_size,
            workers=readers(run_batches, workers),
            seed=seed,
            mask=mask,
            transform=transform,
        )
        started, began = datetime.now(UTC).isoformat(), time.perf_counter()
        overrides = {"prefix_tokens": prefix_tokens, "patch_size": patch_size, "grid": grid}
        make = partial(AttentionWorker, overrides=overrides)
        make_worker = travelling(run_batches, make, loaded, device)
        report = progress or silent
        worker = run_stream(run_batches, make_worker, stream, report, "attention")
        seconds = time.perf_counter() - began
        table = _table(loaded, worker.probe)
        if writer is not None:
            write_images(writer, stream)
            manifest = attention_manifest(loaded, stream, seed, batch_size, engine)
            seen = {
                "images_seen": worker.images,
                **halved(worker.halving),
                "attention": write_attention(writer, worker.probe, overrides),
            }
            writer.finish(manifest | seen | {"times": times(started, seconds, worker.images)})
            checkpoint.publish()
    return table


class AttentionWorker:
    """Runs batches and reads their attention, nothing else.

        with AttentionWorker(model, {"grid": (14, 14)}) as worker:
            for batch in stream.batches:
                worker.update(batch)
        worker.probe.rows(), worker.probe.unreadable

    A context manager: hooks are there inside of the block only. `overrides` are what
    AttentionProbe takes. A worker that was pickled keeps what it read, without the model.
    """

    def __init__(self, model: Model, overrides: dict[str, Any]) -> None:
        self.images = 0
        self.probe = AttentionProbe(model.module, **overrides)
        self.halving = Halving(model.module)
        self._results = Results()  # those on their way from a device
        self._model = model
        self._block = ExitStack()

    def __enter__(self) -> AttentionWorker:
        with ExitStack() as block:
            block.enter_context(alone(self._model.module))
            block.enter_context(self.probe)
            self._block = block.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._block.__exit__(*error)
        if error[0] is None:  # what was read is there behind the block
            self._results.settle()

    def update(self, batch: Inputs) -> None:
        """One forward pass. Raises ProbeError where the first one shows that there is nothing to
        read.
        """
        self.halving.run(batch, self._pass)
        self.images += len(batch)
        if not self.probe.calls:
            raise nothing_read(self._model, self.probe.unreadable)

    def _pass(self, batch: Inputs, left_out: frozenset[Key], seen: set[Key]) -> None:
        size = input_size(batch)
        with self._results.of_pass():
            self.probe.begin(
                len(batch), size, batch.valid, batch.place, left_out, seen, self._results
            )
            forward(self._model, batch)

    def merge(self, other: AttentionWorker) -> None:
        """Take over what another worker saw of other batches."""
        self._results.settle()
        other._results.settle()
        self.halving.merge(other.halving)
        self.probe.merge(other.probe)
        self.images += other.images

    def __getstate__(self) -> dict[str, Any]:
        """What was read; the model stays behind."""
        self._results.settle()
        kept = {"images": self.images, "probe": self.probe, "halving": self.halving}
        return kept | {"_results": Results()}


def nothing_read(model: Model, unreadable: dict[str, str]) -> ProbeError:
    """The one line for a model without attention, or without any that can be read."""
    if not unreadable:
        return ProbeError(f"{shown_name(model)} has no attention: a forward pass computes none")
    reasons = [f"{path}: {reason}" for path, reason in list(unreadable.items())[:3]]
    more = f"; and {len(unreadable) - 3} more" if len(unreadable) > 3 else ""
    return ProbeError(
        f"none of the attention of {shown_name(model)} can be read: {'; '.join(reasons)}{more}"
    )


def _table(model: Model, probe: AttentionProbe) -> pd.DataFrame:
    """The rows as pandas; what could not be read stands in its attrs."""
    rows = probe.rows()
    if not rows:
        raise nothing_read(model, probe.unreadable)
    table = attention_columns(rows).to_pandas()
    table.attrs = {
        "model": shown_name(model),
        "weights": model.weights,
        **attention_record(probe, rows),
    }
    return table
