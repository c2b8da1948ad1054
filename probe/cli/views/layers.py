"""The normalization layers of a model that was not run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from probe.cli.terminal import print_json, print_table
from probe.cli.views.grid import Row, columns_of
from probe.cli.views.run import SHOWN
from probe.wording.columns import MODEL_LAYERS
from probe.wording.layers import kinds
from probe.wording.phrases import plural
from probe.wording.unusual_norms import unusual, with_errors


def show(
    model: str,
    layers: Sequence[Row],
    errors: Mapping[str, float],
    unread: Mapping[str, str],
    as_json: bool,
) -> None:
    """`layers` as Layer.as_dict gives them; `errors` of their outputs; modules that were not
    read.
    """
    rows = with_errors(layers, errors, "name")
    if as_json:
        print_json({"model": model, "layers": rows, "not_read": dict(unread)})
        return
    line = f"{model}: {plural(len(rows), 'normalization layer')}: {kinds(rows)}"
    lines = [line, *unusual(rows, unread, SHOWN)]
    print_table(columns_of(MODEL_LAYERS, rows), rows, lines)
