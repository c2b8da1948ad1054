"""What a comparison of norms tells people: one row per norm and what was found; --json for
machines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import typer

from probe.cli.progress import progress_bar
from probe.cli.terminal import print_json, print_table
from probe.cli.views.grid import columns_of
from probe.cli.views.run import figures, report_of
from probe.errors import UsageError
from probe.formatting import records
from probe.wording.columns import COMPARISON
from probe.wording.comparing import comparison_findings


def run_comparison(
    fields: Mapping[str, Any], *, quiet: bool, as_json: bool, **options: Any
) -> None:
    """The command behind its options. Exit code 1 where a cell failed."""
    for name, example in (("norms", "layer_norm,dyt"), ("data", "photos/"), ("out", "compared")):
        if options[name] is None:
            raise UsageError(f"--{name} is missing; e.g. --{name} {example}")
    options["lr_grid"] = rates_of(options["lr_grid"])
    asked = {name: value for name, value in {**fields, **options}.items() if value is not None}
    with progress_bar(quiet, message=str(fields.get("model") or "")) as progress:
        from probe.training.comparing.compare import compare_norms

        comparison = compare_norms(progress=progress, **asked)
    show(comparison, as_json)
    if (comparison.cells["status"] != "finished").any():
        raise typer.Exit(1)


def rates_of(text: str | None) -> tuple[float, ...]:
    """`3e-4,1e-3` as numbers above 0. Raises UsageError."""
    try:
        rates = tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        rates = (0.0,)
    if not all(rate > 0 for rate in rates):
        raise UsageError(f"--lr-grid {text}: numbers above 0 with commas between, e.g. 3e-4,1e-3")
    return rates


def show(comparison: Any, as_json: bool) -> None:
    """`comparison`: what `probe.compare_norms` gives."""
    rows = records(comparison.table)
    findings = comparison_findings(rows)
    if as_json:
        print_json(
            {
                "out": str(comparison.path),
                **comparison.record,
                "comparison": rows,
                "trainings": records(comparison.cells),
                "findings": dict(findings),
                "figures": [str(path) for path in figures(comparison)],
                "report": report_of(comparison),
            }
        )
        return
    lines = [*(f"{topic}: {text}" for topic, text in findings), *_places(comparison)]
    print_table(columns_of(COMPARISON, rows), rows, lines, also="comparison.csv")


def _places(comparison: Any) -> Iterator[str]:
    yield f"table: {comparison.path / 'comparison.csv'}"
    if drawn := figures(comparison):
        yield f"figures: {len({path.stem for path in drawn})} in {drawn[0].parent}"
    if page := report_of(comparison):
        yield f"report: {page}"
