"""The result of a capture: what was seen of each layer."""

from __future__ import annotations

from typing import Any

from probe.cli.failure import PROGRAM
from probe.cli.terminal import print_json, print_table
from probe.cli.views import attention as attention_view
from probe.cli.views.grid import columns_of
from probe.cli.views.run import document, styles, warned
from probe.errors import shown
from probe.formatting import records
from probe.wording.columns import CAPTURED
from probe.wording.layers import counts
from probe.wording.unusual_norms import affine_errors, with_errors


def show_capture(run: Any, as_json: bool) -> None:
    rows = with_errors(records(run.layers), affine_errors(run.manifest))
    if as_json:
        print_json(document(run, rows))
        return
    lines = [
        counts(rows),
        *attention_view.of_run(run),
        f"run: {shown(run.path)}",
        f"next: {PROGRAM} fit {shown(run.path)}",
        *warned(run.manifest, rows),
    ]
    print_table(columns_of(CAPTURED, rows), rows, lines, styles(rows))
