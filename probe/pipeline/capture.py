"""Capture: run a model over images, keep exact statistics and samples of every normalization layer, write a run."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from probe.engines import local
from probe.errors import ProbeError, UsageError
from probe.models.layers import affine_of, list_norm_layers, norm_modules
from probe.models.load import Model
from probe.models.observe import BatchContext
from probe.models.tap import Tap, tap
from probe.pipeline import tables
from probe.pipeline.inputs import Inputs, Mask, Stream, describe, open_model, open_stream
from probe.records import Layer, Plan, finite_or_none
from probe.stats.layer import LayerStatistics
from probe.stats.observed import Observed
from probe.stats.samples import RowChoice
from probe.store import Run, RunWriter, open_run

Progress = Callable[..., None]


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
    seed: int = 0,
    offline: bool = False,
    engine: str = "local",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Run `model` over `data` and write moments, profile and samples of every normalization layer to the folder `out`.

    model: a name (`vit_base_patch16_224`, `torchvision:resnet50`, `bundled:vit_cifar10`), a loaded Model, or any torch.nn.Module, which
    is run as it is, in the mode it is in.
    data: None (bundled photographs), a folder, a file list, paths, a timm dataset URI, or an iterable of batches: tensors, tuples whose
    first item is the input, or mapping passed as keyword arguments.
    mask: for padded batches, a function of the batch that returns a boolean (B, T) tensor, True at valid positions.
    samples: rows per layer; tail: extreme elements per layer; autocast: dtype of torch.autocast; prefix_tokens: class and register
    tokens at the start of the sequence, where a plain module does not say.

    Raises UsageError for wrong arguments and ProbeError where the job fails; `out` then holds no run.
    """
    _check(samples, tail, engine, num_images)
    report = progress or (lambda *args, **kwargs: None)
    with RunWriter(Path(out), overwrite) as writer:
        loaded = open_model(model, weights=weights, device=device, dtype=dtype, seed=seed, offline=offline)
        chosen = list_norm_layers(loaded.module, layers)
        stream = open_stream(
            loaded, data, num_images=num_images, batch_size=batch_size, workers=workers, seed=seed, mask=mask, transform=transform
        )
        plan = Plan(images=stream.images, samples=samples, tail=tail, seed=seed, batch_size=batch_size)
        if prefix_tokens is not None:
            loaded.prefix_tokens = prefix_tokens
        began = time.perf_counter(), datetime.now(UTC)
        with tap(loaded.module, layers, receive=lambda *seen: worker.receive(*seen)) as hooks:
            worker = Worker(loaded, plan, hooks, autocast)

            def done(batch: Inputs) -> None:
                report("capture", worker.images, stream.images)

            report("capture", 0, stream.images)
            local.run(lambda: worker, stream.batches, done)
        if not worker.images:
            raise ProbeError("no image went through the model: the data gave no batch")
        seconds = time.perf_counter() - began[0]
        found = worker.layers(chosen)
        report("store", 0, len(found))
        records = _write(writer, loaded.module, found, report)
        manifest = _manifest(loaded, stream, plan, records, hooks, layers, autocast)
        times = {
            "started": began[1].isoformat(),
            "seconds": round(seconds, 3),
            "images_per_second": round(worker.images / seconds, 3),
        }
        writer.finish(manifest | {"images_seen": worker.images, "times": times})
    return open_run(out)


def _check(samples: int, tail: int, engine: str, num_images: int | None) -> None:
    if samples < 1:
        raise UsageError(f"--samples {samples}: must be at least 1")
    if tail < 2:
        raise UsageError(f"--tail {tail}: must be at least 2 (half for the largest, half for the smallest inputs)")
    if num_images is not None and num_images < 1:
        raise UsageError(f"--num-images {num_images}: must be at least 1")
    if engine != "local":
        raise UsageError(f"--engine {engine!r} is unknown; known: local")


class Worker:
    """Runs batches and keeps one accumulator per layer call. Memory does not grow with the number of images."""

    def __init__(self, model: Model, plan: Plan, hooks: Tap, autocast: str | None) -> None:
        self.images = 0
        self.statistics: dict[tuple[str, int], LayerStatistics] = {}
        self._model, self._plan, self._hooks = model, plan, hooks
        self._choices: dict[bytes, RowChoice] = {}
        self._device = next((p.device for p in model.module.parameters()), torch.device("cpu"))
        self._autocast = _dtype(autocast) if autocast else None

    def update(self, batch: Inputs) -> None:
        """One forward pass without gradients; the hooks do the rest."""
        context = BatchContext(batch.images, batch.groups, self._model.prefix_tokens, batch.valid)
        self._hooks.begin(context)
        args, kwargs = _to(batch.args, self._device), _to(batch.kwargs, self._device)
        first = self._hooks.counting_functional(self._model.module) if not self.images else nullcontext()
        cast = torch.autocast(self._device.type, self._autocast) if self._autocast else nullcontext()
        with torch.no_grad(), first, cast:
            self._model.module(*args, **kwargs)
        self.images += len(batch)

    def receive(self, name: str, call: int, observed: Observed) -> None:
        key = (name, call)
        if key not in self.statistics:
            self.statistics[key] = LayerStatistics(self._plan, observed.channels)
        grid = observed.kinds.tobytes()
        if grid not in self._choices:
            self._choices[grid] = RowChoice(self._plan, observed.kinds)
        self.statistics[key].update(observed, self._choices[grid])

    def merge(self, other: Worker) -> None:
        for key, statistics in other.statistics.items():
            if key in self.statistics:
                self.statistics[key].merge(statistics)
            else:
                self.statistics[key] = statistics
        self.images += other.images

    def layers(self, chosen: list[Layer]) -> list[tuple[Layer, LayerStatistics | None]]:
        """Layers in execution order, then those never called. A module called k times is k layers `name#1` .. `name#k`."""
        known = {layer.module: layer for layer in chosen}
        several = {name for name, call in self.statistics if call > 1}
        found: list[tuple[Layer, LayerStatistics | None]] = []
        for (name, call), statistics in self.statistics.items():
            layer = known[name]
            full = f"{name}#{call}" if name in several else name
            channels = len(statistics.moments.count)
            found.append((Layer(full, name, len(found), layer.kind, channels, layer.eps, layer.affine), statistics))
        called = {name for name, _ in self.statistics}
        for layer in chosen:
            if layer.module not in called:
                found.append(
                    (Layer(layer.name, layer.name, len(found), layer.kind, layer.channels, layer.eps, layer.affine), None)
                )
        return found


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _to(item, device) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_to(item, device) for item in value)
    return value


def _dtype(name: str) -> torch.dtype:
    known = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in known:
        raise UsageError(f"--autocast {name!r} is unknown; known: {', '.join(known)}")
    return known[name]


def _write(
    writer: RunWriter, module: nn.Module, found: list[tuple[Layer, LayerStatistics | None]], report: Progress
) -> list[dict[str, Any]]:
    """Samples by two threads, then the tables. Returns the manifest's layer records."""
    modules = {name: child for name, child, _ in norm_modules(module)}
    moments, profiles, tokens, records = [], [], [], []

    def samples(item: tuple[Layer, LayerStatistics | None]) -> None:
        layer, statistics = item
        if statistics is not None:
            writer.write_samples(layer.depth, layer.name, **tables.sample_columns(statistics))

    with ThreadPoolExecutor(2) as pool:
        for done, _ in enumerate(pool.map(samples, found), start=1):
            report("store", done, len(found))
    for layer, statistics in found:
        if statistics is None:
            records.append(_record(layer, None, None))
            continue
        weight, bias = (values.numpy() for values in affine_of(modules[layer.module], layer.channels))
        moments.append(tables.moments_columns(layer, statistics, weight, bias))
        profiles.append(tables.profile_columns(layer, statistics))
        tokens.append(tables.token_columns(layer, statistics))
        records.append(_record(layer, statistics, tables.affine_error(statistics, weight, bias)))
    for name, frames in (("moments", moments), ("profile", profiles), ("rows", [frame for frame in tokens if frame is not None])):
        writer.write_table(name, pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=tables.EMPTY[name]))
    return records


def _record(layer: Layer, statistics: LayerStatistics | None, error: float | None) -> dict[str, Any]:
    record: dict[str, Any] = {"layer": layer.name} | {k: v for k, v in layer.as_dict().items() if k != "name"}
    if statistics is None:
        return record | {"status": "not_called"}
    inverse, sigma, cv = statistics.scale.read()
    return record | {
        "status": "not_finite" if statistics.not_finite else "captured",
        "positions": statistics.positions,
        "prefix_tokens": statistics.prefix_tokens,
        "not_finite": statistics.not_finite,
        "count": int(statistics.moments.count.sum()),
        "inverse_sigma_mean": finite_or_none(inverse),
        "sigma_mean": finite_or_none(sigma),
        "sigma_cv": finite_or_none(cv),
        "affine_error": finite_or_none(error),
    }


def _manifest(
    model: Model, stream: Stream, plan: Plan, records: list[dict[str, Any]], hooks: Tap, layers: str, autocast: str | None
) -> dict[str, Any]:
    packages = ("torch", "torchvision", "timm", "numpy", "numba", "pyarrow", "pandas", "scipy")
    return {
        "model": describe(model) | {"autocast": autocast},
        "data": stream.description
        | {
            "images": stream.ids,
            "groups": stream.groups,
            "skipped": [{"image": name, "reason": why} for name, why in stream.skipped],
        },
        "plan": {
            "images": plan.images,
            "samples": plan.samples,
            "tail": plan.tail,
            "seed": plan.seed,
            "batch_size": plan.batch_size,
        }
        | {"layers": layers, "engine": "local"},
        "layers": records,
        "not_captured": dict(sorted(hooks.functional.items())),
        "versions": {name: version(name) for name in packages}
        | {
            "python": platform.python_version(),
            "platform": f"{sys.platform} {platform.machine()}",
            "threads": torch.get_num_threads(),
        },
    }
