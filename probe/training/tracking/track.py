"""Track: the same images through a network at every checkpoint of its training; when does each
normalization layer become S-shaped?

1. Each checkpoint is opened, captured and fitted into a run of its own, all on the same images and
   rows, so that what differs between two runs is what was learned.
2. A run that is finished and of these weights, images and settings is not made again: a tracking
   that was killed goes on, and one of a longer training adds what is new.
3. The tables, figures and page are made of the runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor, nn

from probe.curves.families import FAMILIES as ALL_FAMILIES
from probe.engines import connected
from probe.errors import ProbeError, UsageError, first_line, unknown
from probe.jobs.inputs import check_images
from probe.models.loading.load import Model
from probe.norms.registry import norm_maker
from probe.records import Progress, placed, silent
from probe.store import Run
from probe.store.outputs import on_this_machine
from probe.training.tracking.checkpoints import Checkpoint, find_checkpoints
from probe.training.tracking.networks import Architecture, Loading, borrowed, network_at
from probe.training.tracking.page import write_results
from probe.training.tracking.record import RUNS, check_place, write_record
from probe.training.tracking.runs import (
    FAMILIES,
    Capturing,
    clear_damaged,
    finished_run,
    probe_checkpoint,
    same_images,
)
from probe.training.tracking.tables import Tracked, attention_table, track_table

Network = Callable[[Path], Model]  # opens the network with the weights of a file


@dataclass(frozen=True)
class Tracking:
    """What `track` gives: tables, and where the runs, figures and the page are."""

    path: Path
    table: pd.DataFrame  # one row per checkpoint and layer
    attention: pd.DataFrame  # one row per checkpoint, layer and head
    runs: Mapping[str, Run]  # by the name of the checkpoint
    failed: Mapping[str, str]  # checkpoints that could not be opened: name -> reason
    captured: tuple[str, ...]  # checkpoints that were captured now; the others were there
    unit: str  # what the numbers of the checkpoints count: epoch, step or checkpoint

    def __repr__(self) -> str:
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"Tracking({str(self.path)!r}, {len(self.runs)} checkpoints{failed})"


def track(
    checkpoints: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    model: str | Model | nn.Module | None = None,
    data: Any = None,
    *,
    out: str | os.PathLike[str],
    norm: str | None = None,
    norm_layers: str = "*",
    norm_options: Mapping[str, Any] | None = None,
    model_options: Mapping[str, Any] | None = None,
    layers: str = "*",
    attention: bool = False,
    num_images: int | None = None,
    batch_size: int = 8,
    workers: int = 0,
    engine: str = "local",
    address: str | None = None,
    samples: int = 512,
    tail: int = 1000,
    seed: int = 0,
    device: str | None = None,
    dtype: str | None = None,
    autocast: str | None = None,
    transform: Callable[[Any], Tensor] | None = None,
    families: Sequence[str] = FAMILIES,
    figures: bool = True,
    report: bool = True,
    overwrite: bool = False,
    offline: bool = False,
    progress: Progress | None = None,
) -> Tracking:
    """Capture and fit the network at every checkpoint into the folder `out`; tables, figures and a
    page of how the curve, alpha, gain, extremes and attention of each layer change.

        probe.track("checkpoints/", "vit_base_patch16_224", "photos/", out="tracks/vit_b").table

    checkpoints: files (.safetensors, or .pth read without running code), folders of them, or the
    folder of a finished `probe.train`.
    model: a name, or a network of your own, which afterwards has the weights it had; None: what the
    checkpoints say of themselves.
    norm, norm_layers, norm_options: norms of the zoo that the network was trained with, as
    `replace_norms` takes them; None: what the checkpoints say. model_options: of the constructor.
    data and the other options: those of `capture`. families: curves that are fitted; the line and
    tanh always.
    out: new, or a tracking with the same settings, which goes on. overwrite: make all runs anew.
    progress: called as progress(stage, done, total, message).

    A checkpoint that does not fit is a row with its reason, and in `.failed`. Raises UsageError for
    wrong arguments and where no checkpoint fits, ProbeError where the job fails; the runs that are
    finished then stay.
    """
    check_images(num_images)
    for family in families:
        if family not in ALL_FAMILIES:
            raise unknown("families", family, ALL_FAMILIES)
    if norm is not None:
        norm_maker(norm)  # an unknown one, before anything is loaded
    found = find_checkpoints(checkpoints)
    cutting = batch_size, workers, engine, address
    capturing = Capturing(layers, attention, num_images, samples, tail, seed, autocast, *cutting)
    wanted = Architecture(
        model if isinstance(model, str) else None,
        model_options or {},
        norm,
        norm_layers,
        norm_options or {},
    )
    folder = on_this_machine(out)
    settings = {**capturing.settings, "norm": norm}
    check_place(folder, settings, overwrite)
    images = same_images(data, capturing)
    loading = Loading(device, dtype, seed, offline)
    with connected(engine, address), _networks(model, wanted, loading) as network:
        make = _Runs(folder, network, images, capturing, tuple(families), transform, overwrite)
        tracked = _each(make, found, settings, progress or silent)
    write_results(folder, tracked, figures=figures, report=report, progress=progress)
    return Tracking(
        folder,
        track_table(tracked),
        attention_table(tracked),
        {each.checkpoint.name: each.run for each in tracked if each.run is not None},
        {each.checkpoint.name: each.reason for each in tracked if each.run is None},
        tuple(make.captured),
        found[0].unit,
    )


@contextmanager
def _networks(
    model: str | Model | nn.Module | None, wanted: Architecture, loading: Loading
) -> Iterator[Network]:
    """What opens the network of each checkpoint."""
    if model is None or isinstance(model, str):
        yield partial(network_at, wanted=wanted, loading=loading)
        return
    if wanted.norm is not None or wanted.options:
        raise UsageError(
            "norm= and model_options= go with a model by its name; replace the norms of a network "
            "of your own first (probe.replace_norms)"
        )
    with borrowed(model) as network:
        yield network


class _Runs:
    """Makes the run of a checkpoint, or finds it."""

    def __init__(
        self,
        folder: Path,
        network: Network,
        data: Any,
        capturing: Capturing,
        families: tuple[str, ...],
        transform: Callable[[Any], Tensor] | None,
        overwrite: bool,
    ) -> None:
        self.folder, self._network, self._data = folder, network, data
        self._capturing, self._families = capturing, families
        self._transform, self._overwrite = transform, overwrite
        self.captured: list[str] = []

    def __call__(self, checkpoint: Checkpoint, progress: Progress) -> Tracked:
        try:
            model = self._network(checkpoint.path)
        except ProbeError as reason:
            return Tracked(checkpoint, None, first_line(reason))
        place = self.folder / RUNS / checkpoint.name
        run = None
        if not self._overwrite:
            run = finished_run(place, model, self._data, self._capturing, self._families)
        if run is None:
            run = self._captured(model, place, progress)
            self.captured.append(checkpoint.name)
        return Tracked(checkpoint, run)

    def _captured(self, model: Model, place: Path, progress: Progress) -> Run:
        options = dict(vars(self._capturing))
        clear_damaged(place)
        return probe_checkpoint(
            model,
            self._data,
            place,
            families=self._families,
            transform=self._transform,
            overwrite=True,
            progress=progress,
            **options,
        )


def _each(
    make: _Runs, found: Sequence[Checkpoint], settings: Mapping[str, Any], report: Progress
) -> list[Tracked]:
    """Every checkpoint in turn; what is done stands in the record after each."""
    tracked: list[Tracked] = []
    for number, checkpoint in enumerate(found, start=1):
        where = f"checkpoint {number} of {len(found)}, {checkpoint.name}"
        tracked.append(make(checkpoint, placed(report, where)))
        if any(each.run is not None for each in tracked):
            write_record(make.folder, settings, tracked, len(found))
    if all(each.run is None for each in tracked):
        raise UsageError(_none_fits(tracked))
    return tracked


def _none_fits(tracked: Sequence[Tracked]) -> str:
    reasons = {each.reason for each in tracked}
    if len(reasons) == 1:  # of one checkpoint, or nothing that lies in the checkpoints
        return reasons.pop()
    return f"none of the {len(tracked)} checkpoints can be opened; the first: {tracked[0].reason}"


__all__ = ["Tracking", "track"]
