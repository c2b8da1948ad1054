"""The result of a conversion, and the files it leaves: the converted model, a table and a figure
beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from probe.formatting import csv_bytes
from probe.jobs.converting.converted_file import converted_bytes
from probe.jobs.converting.evaluate import Score
from probe.jobs.figure_file import Put, save
from probe.jobs.inputs import shown_name
from probe.models.loading.load import Model
from probe.models.replacing.swap import Swap

BESIDE = (".csv", ".png", ".svg")  # endings of the files beside the model


@dataclass(frozen=True)
class Conversion:
    """What `convert` did.

    table: one row per layer in execution order: layer, depth, kind, affine, family (of its curve;
    linear: a line); rel_error, kl, agreement and accuracy of the layer replaced alone, and with
    `_cumulative` together with every layer before it; replaced (in the converted model), reason
    (why a layer cannot be replaced).
    """

    table: pd.DataFrame
    model: Model  # converted in place
    # .undo() brings the original layers back; None where no layer is within the tolerance
    swap: Swap | None
    score: Score  # of the converted model
    accuracy: float | None  # of the original, where there are labels
    images: int
    data: str  # what the images are
    asked: dict[str, str]  # norm, scope, curves
    tolerance: float | None
    notes: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


def write(result: Conversion, original: Model, path: Path, put: Put) -> list[Path]:
    """The converted model as `path`, its table and its figure. original: what the model said of
    itself before; put: that of the step in which they are written.
    """
    # matplotlib takes its time, and --out may not be given
    from probe.plots.convert import conversion_by_depth
    from probe.plots.layout import Frame

    table = result.table
    rows = csv_bytes(table)
    files = [
        put(path, converted_bytes(result.model, _metadata(result, original))),
        put(path.with_suffix(".csv"), rows),
    ]
    heading = (
        f"{shown_name(original)}, {result.asked['norm']}, scope {result.asked['scope']}, "
        f"{result.images} images"
    )
    random = "random weights: nothing was learned" if original.weights == "random" else ""
    figure = conversion_by_depth(table, accuracy=result.accuracy, frame=Frame(heading, random))
    return files + save(figure, path.with_suffix(""), put)


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
    }
