"""From workers that have seen all batches to the files of a run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
from torch import nn

from probe.jobs.capturing import tables
from probe.jobs.capturing.manifest import attention_record, layer_record
from probe.jobs.capturing.worker import CapturedLayers
from probe.jobs.inputs import Stream
from probe.models.attention import AttentionProbe
from probe.models.reading.layers import affine_of, norm_modules, own_alpha
from probe.records import Layer, Progress
from probe.stats.layer import LayerStatistics
from probe.store import RunWriter
from probe.store.schema import IMAGES, LISTED


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


def write_images(writer: RunWriter, stream: Stream) -> None:
    """The table of images, where they are too many for the manifest."""
    if len(stream.ids) > LISTED:
        images = range(len(stream.ids))
        writer.write_table(IMAGES, {"image": images, "name": stream.ids, "group": stream.groups})


def write_layers(
    writer: RunWriter, module: nn.Module, captured: CapturedLayers, report: Progress
) -> list[dict[str, Any]]:
    """Tables and samples by two threads, as compression releases the GIL; no more at a time, since
    each takes tens of megabytes. The widest layers come first, so that both end together. Returns
    the manifest's layer records.
    """
    modules = {name: child for name, child, _ in norm_modules(module)}
    called = [_Called(layer, each, modules) for layer, each in captured if each is not None]
    widest_first = sorted(called, key=lambda each: -each.layer.channels)
    report("store", 0, len(called))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(_Called.settle, called))
        tables_written = pool.submit(_write_tables, writer, called)
        samples = [pool.submit(each.write_samples, writer) for each in widest_first]
        errors = {}
        for count, (each, error) in enumerate(zip(widest_first, samples, strict=True), start=1):
            errors[each.layer.name] = error.result()
            report("store", count, len(called))
        tables_written.result()
    return [
        layer_record(layer, statistics, errors.get(layer.name))
        | {"own_alpha": own_alpha(modules[layer.module])}
        for layer, statistics in captured
    ]


class _Called:
    """A layer that was called: what is known of it."""

    def __init__(
        self, layer: Layer, statistics: LayerStatistics, modules: dict[str, nn.Module]
    ) -> None:
        self.layer, self.statistics = layer, statistics
        affine = affine_of(modules[layer.module], layer.channels)
        self.weight, self.bias = (values.numpy() for values in affine)

    def settle(self) -> None:
        self.statistics.settle()

    def write_samples(self, writer: RunWriter) -> float | None:
        """Returns how far the samples are from weight * normalized + bias."""
        columns = tables.sample_columns(self.statistics)
        writer.write_samples(self.layer.depth, self.layer.name, **columns)
        return tables.affine_error(columns["uniform"], self.weight, self.bias)

    def moments(self) -> pa.Table:
        return tables.moments_columns(self.layer, self.statistics, self.weight, self.bias)


def _write_tables(writer: RunWriter, called: list[_Called]) -> None:
    """Layer by layer: all of a table at once takes tens of megabytes."""
    writer.write_table("moments", (each.moments() for each in called))
    seen = [(each.layer, each.statistics) for each in called]
    for name, columns in (("profile", tables.profile_columns), ("rows", tables.token_columns)):
        parts = (columns(layer, statistics) for layer, statistics in seen)
        writer.write_table(name, (part for part in parts if part is not None))
