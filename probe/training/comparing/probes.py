"""Runs of the networks of a comparison: of each at its end, so that S-curves and attention stand
side by side, and of the start that fitted norms begin as.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from probe.data import ImageSource
from probe.errors import ProbeError, UsageError
from probe.models.loading.load import Model, load_model
from probe.models.loading.origins.python_file import is_file_name
from probe.records import Progress, placed
from probe.store import Run
from probe.training.augment import evaluation_transform
from probe.training.comparing.cells import Outcome
from probe.training.comparing.starts import Asked
from probe.training.comparing.variants import OWN, variants
from probe.training.images import Labelled, TrainingImages
from probe.training.network import build_network
from probe.training.portions import part
from probe.training.result import Training
from probe.training.tracking.runs import (
    FAMILIES,
    Capturing,
    clear_damaged,
    finished_run,
    probe_checkpoint,
)

RUNS = "runs"
OF_STARTS = ("linear", "tanh", "erf", "isru")  # what a norm can begin as


def run_of(
    model: Model,
    data: ImageSource,
    place: Path,
    progress: Progress,
    families: Sequence[str] = FAMILIES,
    attention: bool = True,
) -> Run:
    """The run at `place`, captured and fitted unless it is there already."""
    capturing = Capturing(attention=attention)
    there = finished_run(place, model, data, capturing, families)
    if there is not None:
        return there
    clear_damaged(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    return probe_checkpoint(
        model,
        data,
        place,
        families=families,
        overwrite=True,
        progress=progress,
        **vars(capturing),
    )


def final_model(training: Training, device: str | torch.device | None) -> Model:
    """The network of a finished training; one of a Python file by its name there."""
    name, weights = str(training.record["model"]["name"]), str(training.weights)
    if is_file_name(name):
        return load_model(name, weights=weights, device=device)
    return load_model(weights, device=device)


def final_runs(
    folder: Path,
    outcomes: Sequence[Outcome],
    data: ImageSource,
    device: str | None,
    progress: Progress,
) -> dict[str, Run]:
    """The run of each finished cell by its name. A network that cannot be captured is left out."""
    runs: dict[str, Run] = {}
    finished = [each for each in outcomes if each.training is not None]
    for number, outcome in enumerate(finished, start=1):
        assert outcome.training is not None
        said = placed(progress, f"run {number} of {len(finished)}, {outcome.cell}")
        name = outcome.cell.name
        try:
            runs[name] = run_of(
                final_model(outcome.training, device), data, folder / RUNS / name, said
            )
        except UsageError:
            raise
        except ProbeError:
            continue
    return runs


def starting_runs(
    folder: Path,
    asked: Asked,
    seeds: Sequence[int],
    images: TrainingImages,
    data: ImageSource,
    offline: bool,
    progress: Progress,
) -> Mapping[int, str]:
    """The run that fitted norms of each seed begin from: of the trained network before its norms
    are replaced, on training images, without their labels.
    """
    (own,) = variants([OWN])
    several = "{seed}" in str(asked.fields.get("weights")) + str(asked.fields.get("model"))
    places: dict[int, str] = {}
    for seed in seeds:
        place = folder / RUNS / "start" / (f"seed_{seed}" if several else "all")
        if str(place) not in places.values():
            recipe = asked.choice(own, seed).recipe
            network = build_network(recipe, images.classes, None, None, offline)
            model = replace(
                network.model,
                transform=evaluation_transform(network.look),
                input_size=(3, *network.look.size),
            )
            said = placed(progress, f"the start of seed {seed}" if several else "the start")
            run_of(model, data, place, said, OF_STARTS, attention=False)
        places[seed] = str(place)
    return places


def some_of(data: Labelled, count: int) -> ImageSource:
    """Images at equal steps through a part of the data, with the identity of just these."""
    step = max(1, len(data) // count)
    return part(data, range(0, len(data), step)[:count]).source


__all__ = ["RUNS", "final_model", "final_runs", "run_of", "some_of", "starting_runs"]
