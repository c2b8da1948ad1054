"""From workers that have seen all batches to the files of a run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch import nn

from probe.jobs.capturing import tables
from probe.jobs.capturing.manifest import attention_record, layer_record
from probe.jobs.capturing.worker import CapturedLayers
from probe.models.attention import AttentionProbe
from probe.models.reading.layers import affine_of, norm_modules, own_alpha
from probe.records import Layer, Progress
from probe.stats.layer import LayerStatistics
from probe.store import RunWriter


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


def write_layers(
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
