"""The normalization layers of a model that was not run."""

from __future__ import annotations

from collections.abc import Sequence

from probe.cli.terminal import print_json, print_table
from probe.cli.views.grid import Row, columns_of
from probe.wording.columns import MODEL_LAYERS
from probe.wording.layers import kinds
from probe.wording.phrases import plural


def show(model: str, layers: Sequence[Row], as_json: bool) -> None:
    """`layers` as Layer.as_dict gives them."""
    if as_json:
        print_json({"model": model, "layers": layers})
        return
    line = f"{model}: {plural(len(layers), 'normalization layer')}: {kinds(layers)}"
    print_table(columns_of(MODEL_LAYERS, layers), layers, [line])
