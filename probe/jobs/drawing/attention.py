"""Figures of attention beyond one run: several runs side by side, and the maps and the rollout of
one image.

Rollout: Abnar and Zuidema 2020, https://arxiv.org/abs/2005.00928.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from probe import plots
from probe.data import BadImage, open_images
from probe.errors import ProbeError, UsageError
from probe.formatting import csv_bytes
from probe.jobs.capturing.attention import nothing_read
from probe.jobs.drawing.tables import evenly, frame_of
from probe.jobs.figure_file import save
from probe.jobs.inputs import open_model, shown_name
from probe.layer_names import Patterns, select
from probe.models.attention import AttentionMap, attention_maps
from probe.models.loading.load import Model
from probe.paths import user_path
from probe.stats.rollout import attention_rollout
from probe.store.outputs import output_folder
from probe.store.run import Run, open_run, run_names
from probe.store.step import Step

SELECTED = 4  # layers whose maps are drawn where none are named


class Drawn(NamedTuple):
    """What was drawn, and why the rest was not: figure or layer -> reason."""

    paths: list[Path]
    left_out: dict[str, str]


def draw_runs(runs: Sequence[Run | str | Path], out: str | Path) -> list[Path]:
    """One figure of the attention distance of several runs, a panel each with one scale, and their
    rows as attention.csv.

    Raises UsageError for a run without an attention table.
    """
    opened = {str(run.path): run for run in map(open_run, runs)}  # each run once
    named = dict(zip(run_names(list(opened.values())), opened.values(), strict=True))
    tables = {name: run.attention() for name, run in named.items()}
    frames = {name: frame_of(run) for name, run in named.items()}
    warning = ", ".join(
        f"{name}: {frame.warning}" for name, frame in frames.items() if frame.warning
    )
    heading = next(iter(frames.values())).heading if len(frames) == 1 else ""
    rows = b"".join(
        csv_bytes(table.assign(run=name), header=index == 0)
        for index, (name, table) in enumerate(tables.items())
    )
    folder = output_folder(out)
    with Step(folder) as step:
        figure = plots.attention_distance(tables, frame=plots.Frame(heading, warning))
        return [
            step.put(folder / "attention.csv", rows),
            *save(figure, folder / "attention_distance", step.put),
        ]


def draw_attention(
    model: str | Model | nn.Module,
    image: str | Path,
    out: str | Path,
    *,
    query: tuple[int, int] | None = None,
    layers: Patterns | None = None,
    prefix_tokens: int | None = None,
    patch_size: int | tuple[int, int] | None = None,
    grid: tuple[int, int] | None = None,
    **options: Any,
) -> Drawn:
    """The attention of one image: per layer where the query patch looks, head by head, and the
    rollout through all layers.

    query: (row, column) of a patch; None: the middle one, and for the rollout the class token.
    layers: globs of attention layers, several joined by commas or in a list; None: four at equal
    steps of depth, of those without windows.
    options: those of load_model, for a model given by name.
    Left out, with the reason: layers with windows or pooled keys, and a rollout where layers differ
    in their tokens.
    Raises UsageError for an unknown layer, a patch outside of the grid or a file that is no image.
    """
    loaded = open_model(model, **options)
    inputs = _inputs(loaded, image)
    found = attention_maps(
        loaded.module, inputs, prefix_tokens=prefix_tokens, patch_size=patch_size, grid=grid
    )
    if not found:
        raise nothing_read(loaded, {})
    chosen = _chosen(found, layers)
    picture, frame = _picture(inputs[0], loaded.transform), _frame(loaded, image)
    folder = output_folder(out)
    drawn = Drawn([], {})
    with Step(folder) as step:
        for one in chosen:
            reason = _not_drawable(one)
            if reason:
                drawn.left_out[one.layer] = reason
                continue
            patch = query or (one.grid[0] // 2, one.grid[1] // 2)
            heading = plots.Frame(f"{frame.heading}, {one.layer}", frame.warning)
            figure = plots.attention_maps(
                picture, one.probabilities, one.grid, patch, frame=heading
            )
            name = f"attention_map_{re.sub(r'[^A-Za-z0-9._-]', '_', one.layer)}"
            drawn.paths.extend(save(figure, folder / name, step.put))
        rollout = _rollout(drawn, found, picture, query, frame)
        if rollout is not None:
            drawn.paths.extend(save(rollout, folder / "attention_rollout", step.put))
    if not drawn.paths:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in drawn.left_out.items())
        raise ProbeError(f"no attention map of {shown_name(loaded)} can be drawn: {reasons}")
    return drawn


def _rollout(
    drawn: Drawn,
    found: list[AttentionMap],
    picture: NDArray[np.float32],
    query: tuple[int, int] | None,
    frame: plots.Frame,
) -> Figure | None:
    reasons = {one.layer: reason for one in found if (reason := _not_drawable(one))}
    if reasons:
        layer, reason = next(iter(reasons.items()))
        drawn.left_out["rollout"] = f"it goes through all layers, and {layer} has {reason}"
        return None
    try:
        shares = attention_rollout([one.probabilities for one in found])
    except UsageError as reason:
        drawn.left_out["rollout"] = str(reason)
        return None
    return plots.rollout(picture, shares, found[-1].grid, query, frame=frame)


def _not_drawable(one: AttentionMap) -> str:
    """Why a layer has no map over the whole image; empty where it has."""
    if one.windows > 1:
        return f"{one.windows} windows, in which a patch sees its neighbours alone"
    if one.probabilities.shape[-1] != one.probabilities.shape[-2]:
        return (
            f"{one.probabilities.shape[-2]} queries and {one.probabilities.shape[-1]} pooled keys"
        )
    return ""


def _chosen(found: list[AttentionMap], layers: Patterns | None) -> list[AttentionMap]:
    """The maps of the layers that the patterns name, in execution order."""
    if layers is None:
        drawable = [one.layer for one in found if not _not_drawable(one)]
        return [one for one in found if one.layer in evenly(drawable or [found[0].layer], SELECTED)]
    chosen = select((one.layer for one in found), layers, "attention layers")
    return [one for one in found if one.layer in chosen]


def _inputs(model: Model, image: str | Path) -> Tensor:
    """(1, C, H, W) as the model takes it, on its device and in its dtype."""
    if model.transform is None:
        raise UsageError("a plain module has no transform for an image file; load it by name")
    if not user_path(image).is_file():
        raise UsageError(f"--image {image} is no file; give one image")
    source = open_images([image])
    try:
        pixels = model.transform(source.load(0))
    except BadImage as error:
        raise UsageError(f"--image {image} cannot be read: {error.reason}") from None
    like = next(model.module.parameters(), torch.empty(0))
    return pixels[None].to(device=like.device, dtype=like.dtype)


def _picture(pixels: Tensor, transform: Any) -> NDArray[np.float32]:
    """(H, W, 3) in 0 .. 1: what the model was given, its normalization undone; unknown
    normalizations are stretched to 0 .. 1.
    """
    values = pixels.detach().float().cpu()
    steps = [transform, *getattr(transform, "transforms", ())]
    known = next((step for step in steps if hasattr(step, "mean") and hasattr(step, "std")), None)
    if known is not None:
        mean, std = (
            torch.as_tensor(getattr(known, name)).float().cpu().reshape(-1, 1, 1)
            for name in ("mean", "std")
        )
        values = values * std + mean
    else:
        values = (values - values.min()) / (values.max() - values.min()).clamp_min(1e-12)
    return values.clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).numpy()


def _frame(model: Model, image: str | Path) -> plots.Frame:
    warning = "random weights: nothing was learned" if model.weights == "random" else ""
    return plots.Frame(f"{shown_name(model)}, {Path(image).name}", warning)
