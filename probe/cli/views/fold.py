"""The result of a fold: a document for machines, or a table and a few lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from probe.cli.terminal import print_json, print_table
from probe.cli.views.grid import columns_of
from probe.wording.columns import FOLD
from probe.wording.folding import deviation, folded, times
from probe.wording.notes import warnings_of
from probe.wording.speed import speed_lines


def show(fold: Mapping[str, Any], as_json: bool) -> None:
    """`fold` as FoldedModel.as_dict gives it (probe.jobs.folding.fold_model)."""
    if as_json:
        print_json({**fold, "warnings": warnings_of(fold)})
        return
    rows = fold["layers"]
    styles = ["" if row["status"] == "folded" else "dim" for row in rows]
    print_table(columns_of(FOLD, rows), rows, list(lines(fold)), styles)


def lines(fold: Mapping[str, Any]) -> Iterator[str]:
    """What the table does not say: why layers are kept, counts, deviation, times, where the files
    are.
    """
    yield from folded(fold)
    yield deviation(fold)
    yield times(fold)
    yield from speed_lines([SimpleNamespace(**row) for row in fold.get("speed", [])])
    yield f'file: {fold["file"]}; load it with probe.load_folded("{fold["file"]}")'
    yield f"page: {fold['page']}"
    yield from (f"WARNING: {line}" for line in warnings_of(fold))
