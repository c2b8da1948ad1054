"""The result of a conversion, and the files it leaves: the converted model; a table, a figure and a
page beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from probe.formatting import csv_bytes, records
from probe.jobs.converting.calibrate import Calibration
from probe.jobs.converting.converted_file import converted_bytes
from probe.jobs.converting.page import conversion_page
from probe.jobs.converting.scores import Score
from probe.jobs.figure_file import Put, picture, save
from probe.jobs.inputs import shown_name
from probe.jobs.speed import Speed, speed_rows
from probe.models.loading.load import Model
from probe.models.replacing.swap import Swap

BESIDE = (".csv", ".png", ".svg", ".html")  # endings of the files beside the model


@dataclass(frozen=True)
class Distillation:
    """What a distillation did. rounds: a row per round, and one before the first (epoch 0): KL in
    nats and agreement with the original on the held-out images, 0 of them where there are too few
    images: then on those that it learned from.
    """

    rounds: pd.DataFrame
    train: str  # norms or all
    steps: int
    best_round: int  # whose weights were taken
    images: int  # learned from
    held_out: int
    blocks: int  # whose outputs were compared

    def as_dict(self) -> dict[str, object]:
        """As the file and --json say it."""
        names = ("train", "steps", "best_round", "images", "held_out", "blocks")
        return {**{name: getattr(self, name) for name in names}, "rounds": records(self.rounds)}


@dataclass(frozen=True)
class Conversion:
    """What `convert` did.

    table: one row per layer in execution order: layer, depth, kind, affine, family (of its curve;
    linear: a line); rel_error, kl, agreement and accuracy of the layer replaced alone, and with
    `_cumulative` together with every layer before it; replaced (in the converted model), reason
    (why a layer cannot be replaced). All that is of the plain conversion; of a calibrated one there
    is a column calibrated besides: the share of the way to its solution that the layer went.
    """

    table: pd.DataFrame
    model: Model  # converted in place
    # .undo() brings the original layers back (what else a distillation of all parameters changed
    # stays changed); None where no layer is within the tolerance
    swap: Swap | None
    score: Score  # of the converted model after its last step
    accuracy: float | None  # of the original, where there are labels
    images: int
    data: str  # what the images are
    asked: dict[str, str]  # norm, scope, curves
    tolerance: float | None
    calibration: Calibration | None = None
    distillation: Distillation | None = None
    # converted, calibrated, distilled: the score after each step that was taken
    stages: dict[str, Score] = field(default_factory=dict)
    speed: list[Speed] = field(default_factory=list)  # where it was measured
    notes: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


def as_dict(calibration: Calibration) -> dict[str, object]:
    """As the file and --json say it."""
    return {**dataclasses.asdict(calibration), "steps": dict(calibration.steps)}


def write(result: Conversion, original: Model, path: Path, put: Put) -> list[Path]:
    """The converted model as `path`, its table, figure and page. original: what the model said of
    itself before; put: that of the step in which they are written.
    """
    # matplotlib takes its time, and --out may not be given
    from probe.plots.convert import conversion_by_depth
    from probe.plots.layout import Frame

    table, metadata = result.table, _metadata(result, original)
    files = [
        put(path, converted_bytes(result.model, metadata)),
        put(path.with_suffix(".csv"), csv_bytes(table)),
    ]
    heading = (
        f"{shown_name(original)}, {result.asked['norm']}, scope {result.asked['scope']}, "
        f"{result.images} images"
    )
    random = "random weights: nothing was learned" if original.weights == "random" else ""
    figure = conversion_by_depth(table, accuracy=result.accuracy, frame=Frame(heading, random))
    files += save(figure, path.with_suffix(""), put)
    page = conversion_page(result, original, metadata, picture(figure))
    return [*files, put(path.with_suffix(".html"), page)]


def _metadata(result: Conversion, original: Model) -> Mapping[str, object]:
    table = result.table
    replaced, kept = table[table["replaced"]], table[~table["replaced"]]
    parameter = next(result.model.module.parameters(), None)
    return {
        **result.asked,
        "model": shown_name(original),
        "origin": original.origin,
        "weights": original.weights,
        "source": original.source,
        "fingerprint": original.fingerprint,
        "dtype": "float32" if parameter is None else str(parameter.dtype).removeprefix("torch."),
        "layers": dict(zip(replaced["layer"], replaced["family"], strict=True)),
        "left_out": {
            row.layer: row.reason or "not within the tolerance" for row in kept.itertuples()
        },
        "measured": {
            **dataclasses.asdict(result.score),
            "accuracy_before": result.accuracy,
            "tolerance": result.tolerance,
            "images": result.images,
            "data": result.data,
        },
        **steps_taken(result),
    }


def steps_taken(result: Conversion) -> dict[str, object]:
    """What came after the conversion, as the file and --json say it."""
    steps: dict[str, object] = {}
    if result.calibration:
        steps["calibration"] = as_dict(result.calibration)
    if result.distillation:
        steps["distillation"] = result.distillation.as_dict()
    if result.speed:
        steps["speed"] = speed_rows(result.speed)
    if result.calibration or result.distillation:
        steps["stages"] = {name: dataclasses.asdict(each) for name, each in result.stages.items()}
    return steps
