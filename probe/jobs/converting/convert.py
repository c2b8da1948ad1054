"""Convert a pretrained model without training: fitted curves in place of its normalization layers,
and what that costs; calibrated on request.

Every layer is replaced alone, and behind the replaced ones before it in execution order; with a
tolerance, only the layers that are replaceable within it are replaced in the end. What the numbers
mean: probe.jobs.converting.evaluate.
"""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import pandas as pd
from torch import Tensor, nn

from probe.curves import StandIn
from probe.engines import Elsewhere, connected
from probe.errors import UsageError, unknown
from probe.jobs.capturing.capture import engine_of, readers
from probe.jobs.capturing.travel import loading_device
from probe.jobs.converting.curves import check_choice, conversion_curves
from probe.jobs.converting.eval_data import EvalData, read_eval_data
from probe.jobs.converting.evaluate import Comparison
from probe.jobs.converting.improve import Refine, improve
from probe.jobs.converting.networks import activate
from probe.jobs.converting.result import BESIDE, Conversion, write
from probe.jobs.converting.table import choose, layer_rows, measured, passes
from probe.jobs.fitting.fit import ensure_fitted
from probe.jobs.inputs import check_images
from probe.jobs.model_file import model_file
from probe.jobs.reopen import run_model
from probe.layer_names import Patterns, select
from probe.models.loading.load import Model
from probe.models.loading.weights import fingerprint
from probe.models.replacing.curve_norms import curve_norms, fitted_family
from probe.models.replacing.swap import ModuleSlot, Swap, swap
from probe.offline import offline_means_all
from probe.records import Progress, silent
from probe.store import Run, open_run
from probe.store.results import step_into


@offline_means_all
def convert(
    run: Run | str | os.PathLike[str],
    to: str = "dyt",
    *,
    out: str | os.PathLike[str] | None = None,
    layers: Patterns = "*",
    scope: str = "channel",
    curves: str = "all",
    calibrate: bool = False,
    calibration_data: Any = None,
    data: Any = None,
    num_images: int | None = None,
    tolerance: float | None = None,
    model: str | Model | nn.Module | None = None,
    weights: str | os.PathLike[str] | None = None,
    transform: Callable[[Any], Tensor] | None = None,
    batch_size: int = 32,
    workers: int = 0,
    engine: str = "local",
    address: str | None = None,
    device: str | None = None,
    seed: int = 0,
    offline: bool = False,
    overwrite: bool = False,
    measure_speed: bool = False,
    progress: Progress | None = None,
    refine: Refine | None = None,
) -> Conversion:
    """Replace the layers of the model of `run` by their fitted curves, measure what that changes,
    and save the converted model.

    to: dyt, derf, dyisru, learnable_scaler (a line per channel), or another norm of the zoo that
    can start as a fitted curve. out: a .safetensors file, with a table, a figure and a page
    (.html) beside it; None: nothing is written. layers: globs. scope: `channel` or `layer`.
    curves: `all`, the curve of least loss in every layer that has one; `established`, a line where
    a layer's curve is not shown to be better.
    calibrate: refit the replaced layers one after the other behind each other, label-free, on
    calibration_data (None: the run's own images): see probe.jobs.converting.calibrate.
    data: what is compared on, with labels where it has them (a folder of one sub-folder per class,
    a dataset with labels, batches (input, target)); None: the run's own images. num_images: how
    many of them, chosen by `seed`; None: all.
    tolerance: replace only layers that are replaceable within it. They are tried in the order of
    their KL alone, and a layer stays as it was if the loss with it and those taken before exceeds
    the tolerance. Loss: the drop of accuracy where there are labels, else 1 - agreement with the
    original, on `data`.
    model: the captured model, where the manifest cannot name it (plain modules); it is converted in
    place. weights: its checkpoint.
    engine, address, workers: who measures what the layers cost, as `capture` takes them; with equal
    threads the numbers are the same. Workers in other processes read the images themselves, and
    this process keeps none. Calibrating, learning and measuring the time are work of this process;
    the scores after that are again by the engine, to whose processes the changed model travels
    anew.
    measure_speed: the forward pass before and after, eager and compiled, on the first images
    (probe.jobs.speed). refine: called with the converted model, its original and the slots of its
    layers before it is measured for the last time and written (probe.distill).

    Raises UsageError for wrong arguments and a model that is not the run's, ProbeError where the
    job fails.
    """
    report = progress or silent
    _check(to, tolerance)
    check_images(num_images)
    run_batches = engine_of(engine, workers, address, device)
    loading_device(run_batches, device)  # one that no worker has is refused
    target = None if out is None else model_file(out, overwrite, beside=BESIDE)
    run = open_run(run)
    select(run.layers["layer"], layers, f"layers of run {run.path}")
    check_choice(scope, curves)
    with ExitStack() as stack:
        stack.enter_context(connected(engine, address))
        loaded = run_model(run, model, weights=weights, device=device, offline=offline)
        ensure_fitted(run, progress)
        step = stack.enter_context(step_into(target, [run.path])) if target is not None else None
        stand_ins, left_out = conversion_curves(
            run,
            fitted_family(to, scope),
            layers=layers,
            scope=scope,
            curves=curves,
            progress=report,
        )
        read = partial(
            read_eval_data,
            loaded,
            run=run,
            batch_size=batch_size,
            workers=readers(run_batches, workers),
            seed=seed,
            transform=transform,
            progress=report,
        )
        kept = not isinstance(run_batches, Elsewhere)
        compared = read(data, num_images=num_images, kept=kept)
        trial = swap(
            loaded.module, to, layers=layers, init="fitted", stand_ins=stand_ins, left_out=left_out
        )
        rows = layer_rows(run, trial, layers, stand_ins, left_out)
        compare = partial(Comparison, loaded, data=compared, engine=run_batches, device=device)
        table, comparison = _measure(compare, rows, trial, tolerance, report)
        chosen = table.loc[table["replaced"], "layer"].tolist()
        swapped = _swap_only(loaded.module, to, chosen, stand_ins) if chosen else None
        asked = (data, num_images, calibration_data)
        again = not kept or any(option is not None for option in asked)
        own = partial(read, calibration_data, num_images=None, labelled=False)
        steps = improve(
            loaded,
            _by_layer(swapped, chosen) if swapped is not None else {},
            stand_ins,
            comparison,
            images=(own if again else lambda: compared) if calibrate else None,
            refine=refine,
            timed=measure_speed,
            progress=report,
        )
        if steps.calibration is not None:
            table["calibrated"] = table["layer"].map(steps.calibration.steps)
        result = Conversion(
            table=table,
            model=dataclasses.replace(loaded, fingerprint=fingerprint(loaded.module)),
            swap=swapped,
            score=[*steps.stages.values()][-1],
            **vars(steps),
            accuracy=comparison.accuracy,
            images=comparison.images,
            data=compared.description,
            asked={"norm": to, "scope": scope, "curves": curves},
            tolerance=tolerance,
            notes=_notes(compared, comparison, tolerance),
        )
        if target is not None and step is not None and swapped is not None:
            result.files.extend(write(result, loaded, target, step.put))
        return result


def _check(to: str, tolerance: float | None) -> None:
    """Raises UsageError for what cannot be done, before anything is loaded."""
    if to not in curve_norms():
        raise unknown("--to", to, curve_norms())
    if tolerance is not None and not 0 <= tolerance <= 1:
        raise UsageError(f"--tolerance {tolerance:g}: must be a share of the images, from 0 to 1")


def _measure(
    compare: Callable[..., Comparison],
    rows: list[dict[str, Any]],
    trial: Swap,
    tolerance: float | None,
    progress: Progress,
) -> tuple[pd.DataFrame, Comparison]:
    """The table, and what it was measured with. Undoes the trial swap: the model is the original
    afterwards.
    """
    slots = _by_layer(trial, [row["layer"] for row in rows if row["family"]])
    done = total = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress("convert", min(done, total), total)

    try:
        with compare(slots=slots, on_passes=count) as comparison:
            total = passes(len(slots), tolerance) * len(comparison.data)
            table = measured(comparison, rows)
            chosen = choose(comparison, table, tolerance)
            comparison.score(chosen)
    finally:
        activate(slots, slots)
        trial.undo()
    progress("convert", total, total)
    return table.assign(replaced=table["layer"].isin(chosen)), comparison


def _by_layer(trial: Swap, names: list[str]) -> dict[str, list[ModuleSlot]]:
    """The slots of each replaced layer, in execution order."""
    modules = {name: trial.module.get_submodule(name) for name in names}
    return {
        name: [slot for slot in trial.slots if slot.new is new] for name, new in modules.items()
    }


def _swap_only(
    module: nn.Module, to: str, chosen: list[str], stand_ins: Mapping[str, StandIn]
) -> Swap:
    patterns = ",".join(glob.escape(name) for name in chosen)
    return swap(module, to, layers=patterns, init="fitted", stand_ins=stand_ins)


def _notes(compared: EvalData, comparison: Comparison, tolerance: float | None) -> list[str]:
    notes = []
    if tolerance and tolerance * comparison.images < 1:
        notes.append(
            f"a tolerance of {tolerance:g} is less than one of {comparison.images} images: no "
            "image may change; give more"
        )
    if compared.labels is not None and not comparison.labelled:
        classes = (
            compared.classes if compared.classes is not None else int(compared.labels.max()) + 1
        )
        notes.append(
            f"no accuracy: the data has {classes} classes and the model {comparison.classes}"
        )
    if skipped := compared.stream.skipped:
        name, reason = skipped[0]
        notes.append(f"{len(skipped)} images could not be read, such as {name} ({reason})")
    return notes
