"""The result of a tracking: a document for machines (--json), or one row per layer and what was
found.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from probe.cli.terminal import print_json, print_table
from probe.cli.views.grid import columns_of
from probe.cli.views.run import figures, report_of, styles
from probe.formatting import records
from probe.wording.columns import CHANGES
from probe.wording.phrases import plural
from probe.wording.tracking import layer_changes, tracking_findings


def show(tracking: Any, as_json: bool) -> None:
    """`tracking`: what `probe.track` gives."""
    rows, heads = records(tracking.table), records(tracking.attention)
    changes = layer_changes(rows)
    findings = tracking_findings(rows, heads, tracking.unit)
    if as_json:
        print_json(
            {
                "out": str(tracking.path),
                "checkpoints": list(tracking.runs),
                "captured": list(tracking.captured),
                "failed": dict(tracking.failed),
                "changes": changes,
                "findings": dict(findings),
                "layers": rows,
                "attention": heads,
                "figures": [str(path) for path in figures(tracking)],
                "report": report_of(tracking),
            }
        )
        return
    lines = [*(f"{topic}: {text}" for topic, text in findings), *_places(tracking)]
    print_table(columns_of(CHANGES, changes), changes, lines, styles(changes), also="track.csv")


def _places(tracking: Any) -> Iterator[str]:
    """What was done now, and where it is."""
    there = len(tracking.runs) - len(tracking.captured)
    kept = f", {there} found finished" if there else ""
    yield f"captured: {plural(len(tracking.captured), 'checkpoint')}{kept}"
    yield f"table: {Path(tracking.path) / 'track.csv'}"
    if drawn := figures(tracking):
        yield f"figures: {len({path.stem for path in drawn})} in {drawn[0].parent}"
    if page := report_of(tracking):
        yield f"report: {page}"
