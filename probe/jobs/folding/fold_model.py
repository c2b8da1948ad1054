"""Fold a model by name and write it: what was folded, how far the outputs moved, what the forward
pass costs before and after.
"""

from __future__ import annotations

import copy
import os
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from probe.errors import ProbeError, UsageError
from probe.jobs.capturing.forward import on_device
from probe.jobs.folding.folded_file import save_folded
from probe.jobs.folding.page import fold_page
from probe.jobs.inputs import Inputs, check_layers, describe, open_model, open_stream
from probe.jobs.model_file import model_file
from probe.jobs.speed import Speed, speed_rows
from probe.jobs.speed import measure_speed as time_forward
from probe.layer_names import Patterns
from probe.models.folding.fold import Fold, fold
from probe.models.loading.load import Model
from probe.models.reading.layers import affine_of, channels_of, norm_modules
from probe.offline import offline_means_all
from probe.records import Progress, silent
from probe.store.results import put
from probe.store.step import check_folder

BESIDE = ".html"  # ending of the page beside the file


@dataclass(frozen=True)
class Counts:
    """Normalization layers that still compute something, and those of them that apply an affine map
    of their own.
    """

    norms: int
    affines: int


@dataclass(frozen=True)
class Seconds:
    """Wall-clock time of one forward pass over the probe images."""

    best: float
    median: float


@dataclass(frozen=True)
class FoldedModel:
    """What `fold_model` did. `fold.report` has one row per map; deviation and relative are over all
    outputs of the probe images.
    """

    path: Path
    model: dict[str, Any]
    fold: Fold
    images: int
    before: Counts
    after: Counts
    seconds_before: Seconds
    seconds_after: Seconds
    repeats: int
    threads: int
    speed: list[Speed] = field(default_factory=list)  # where it was measured

    @property
    def page(self) -> Path:
        """Says all this, beside the file."""
        return self.path.with_suffix(BESIDE)

    def as_dict(self) -> dict[str, Any]:
        """As JSON: the fields, and the report as `layers`."""
        plain = {
            name: getattr(self, name)
            if isinstance(getattr(self, name), int)
            else asdict(getattr(self, name))
            for name in (
                "images",
                "before",
                "after",
                "seconds_before",
                "seconds_after",
                "repeats",
                "threads",
            )
        }
        measured = {"deviation": self.fold.deviation, "relative_deviation": self.fold.relative}
        rows = [asdict(outcome) for outcome in self.fold.outcomes]
        speed = {"speed": speed_rows(self.speed)} if self.speed else {}
        return {
            "file": str(self.path),
            "page": str(self.page),
            "model": self.model,
            **plain,
            **measured,
            **speed,
            "layers": rows,
        }


@offline_means_all
def fold_model(
    model: str | Model | nn.Module,
    data: Any = None,
    *,
    out: str | os.PathLike[str],
    weights: str = "pretrained",
    layers: Patterns = "*",
    num_images: int | None = 8,
    device: str | None = None,
    seed: int = 0,
    offline: bool = False,
    repeats: int = 10,
    measure_speed: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> FoldedModel:
    """Fold `model` and write it to `out` (.safetensors), from where `probe.load_folded` builds it
    again, and a page beside it (.html).

    data: images (or batches) to trace, check and time on, all of them in one forward pass; None:
    bundled photographs. measure_speed: besides, one image and 32, eager and compiled
    (probe.jobs.speed). A module or a loaded model is folded in place. Raises UsageError for wrong
    arguments, ProbeError where nothing can be folded.
    """
    path = model_file(out, overwrite, beside=(BESIDE,))
    if repeats < 1:
        raise UsageError(f"--repeats {repeats}: must be at least 1")
    report = progress or silent
    check_folder(path.parent)
    check_layers(model, layers, weights, seed=seed, offline=offline)
    loaded = open_model(model, weights=weights, device=device, seed=seed, offline=offline)
    inputs = _inputs(loaded, data, num_images, seed)
    report("fold", 0, None)
    original, before, described = (
        copy.deepcopy(loaded.module),
        counts(loaded.module),
        describe(loaded),
    )
    done = fold(loaded.module, inputs.kwargs or inputs.args, layers=layers)
    if not any(outcome.status == "folded" for outcome in done.outcomes):
        done.undo()
        raise ProbeError(
            f"no layer of {loaded.name} can be folded: {done.outcomes[0].layer}: "
            f"{done.outcomes[0].reason}"
        )
    times = alternating_times([original, done.module], inputs, repeats, report)
    speed = time_forward(original, done.module, inputs, progress=report) if measure_speed else []
    result = FoldedModel(
        path=save_folded(done, path, loaded, overwrite=overwrite),
        model=described,
        fold=done,
        images=len(inputs),
        before=before,
        after=counts(done.module),
        seconds_before=times[0],
        seconds_after=times[1],
        repeats=repeats,
        threads=torch.get_num_threads(),
        speed=speed,
    )
    put(result.page, fold_page(result.as_dict()))
    return result


def counts(module: nn.Module) -> Counts:
    """Normalization layers of a module, and how many of them apply an affine map: as a whole, or a
    weight and bias not 1 and 0.
    """
    norms = [(child, kind) for _, child, kind in norm_modules(module)]
    return Counts(
        len(norms), sum(kind.affine(child) or _has_affine(child) for child, kind in norms)
    )


def _has_affine(norm: nn.Module) -> bool:
    weight, bias = affine_of(norm, channels_of(norm))
    return bool((weight != 1).any() or bias.any())


def alternating_times(
    modules: list[nn.Module], inputs: Inputs, repeats: int, report: Progress
) -> list[Seconds]:
    """Time of one forward pass of each module, taken in turns so that both see the same load of the
    machine; one turn warms up.
    """
    taken: list[list[float]] = [[] for _ in modules]
    for turn in range(repeats + 1):
        for module, seconds in zip(modules, taken, strict=True):
            seconds.append(_seconds(module, inputs))
        report("time", turn, repeats)
    return [Seconds(min(seconds[1:]), statistics.median(seconds[1:])) for seconds in taken]


@torch.inference_mode()
def _seconds(module: nn.Module, inputs: Inputs) -> float:
    _wait()
    began = time.perf_counter()
    module(*inputs.args, **inputs.kwargs)
    _wait()
    return time.perf_counter() - began


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _inputs(model: Model, data: Any, num_images: int | None, seed: int) -> Inputs:
    """All images in one batch, on the model's device."""
    stream = open_stream(
        model,
        data,
        num_images=num_images,
        batch_size=num_images or 2**31,
        workers=0,
        seed=seed,
        mask=None,
        transform=None,
    )
    inputs = next(iter(stream.batches), None)
    if inputs is None:
        raise ProbeError("no image could be read to check the folded model on")
    return on_device(inputs, model.module)


__all__ = ["Counts", "FoldedModel", "Seconds", "alternating_times", "counts", "fold_model"]
