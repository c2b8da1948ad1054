"""What a finished run tells: a document for machines (--json), or a table and a few lines for
people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from probe.cli.failure import PROGRAM
from probe.cli.terminal import print_json, print_table
from probe.cli.views import attention as attention_table
from probe.cli.views import layers as layer_table
from probe.cli.views.grid import Column
from probe.formatting import number, records
from probe.wording.layers import counts, functional, missed, skipped, warnings_of
from probe.wording.unusual_norms import affine_errors, not_read, unusual

SHOWN = 5  # skipped images named below the table; all of them stand in --json and in the manifest


def document(run: Any, rows: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """The JSON form; `layers` are the rows of the table with every column."""
    manifest = run.manifest
    return {
        "run": str(run.path),
        "model": manifest.get("model"),
        "layers": list(rows),
        "skipped_images": skipped(manifest),
        "not_captured": functional(manifest),
        "not_read": not_read(manifest),
        "affine_errors": affine_errors(manifest),
        "attention": attention_table.document(run),
        "warnings": warnings_of(manifest),
        **more,
    }


def figures(run: Any) -> list[Path]:
    return sorted(
        path for path in (Path(run.path) / "figures").glob("*") if path.suffix in (".png", ".svg")
    )


def attention_lines(manifest: Mapping[str, Any]) -> list[str]:
    """Skipped images, norms that were not captured, random weights."""
    lines = [*missed(manifest, SHOWN), *unusual(affine_errors(manifest), not_read(manifest))]
    return lines + [f"WARNING: {line}" for line in warnings_of(manifest)]


def report_of(run: Any) -> str | None:
    """Path of the page that shows the run, where it was written."""
    path = Path(run.path) / "report.html"
    return str(path) if path.exists() else None


def show_run(run: Any, as_json: bool) -> None:
    """The result of a run that has been fitted."""
    rows = records(run.alphas())
    pictures, page = figures(run), report_of(run)
    if as_json:
        print_json(document(run, rows, figures=[str(path) for path in pictures], report=page))
        return
    lines = [*layer_table.notes(rows), *attention_table.of_run(run), f"run: {run.path}"]
    if pictures:
        endings = ", ".join(sorted({path.suffix[1:] for path in pictures}))
        lines.append(
            f"figures: {len({path.stem for path in pictures})} ({endings}) in {pictures[0].parent}"
        )
    if page:
        lines.append(f"report: {page}")
    lines += attention_lines(run.manifest)
    print_table(
        layer_table.layer_columns(rows),
        rows,
        lambda grid: layer_table.left_out(grid) + lines,
        layer_table.styles(rows),
    )


def show_fits(run: Any, fits: Any, as_json: bool) -> None:
    """The result of a new fit: the same table; the JSON form has every family, scope and weighting
    beside it.
    """
    if as_json:
        print_json(document(run, records(run.alphas()), fits=records(fits)))
    else:
        show_run(run, False)


def show_capture(run: Any, as_json: bool) -> None:
    """The result of a capture: what was seen of each layer."""
    rows = records(run.layers)
    if as_json:
        print_json(document(run, rows))
        return
    lines = [
        counts(rows),
        *attention_table.of_run(run),
        f"run: {run.path}",
        f"next: {PROGRAM} fit {run.path}",
    ]
    lines += attention_lines(run.manifest)
    print_table(CAPTURED, rows, lambda grid: lines, layer_table.styles(rows))


CAPTURED = [
    Column("layer", lambda row: str(row["layer"]), left=True),
    Column("kind", lambda row: str(row["kind"]), rank=2, left=True),
    Column("C", lambda row: str(row["channels"])),
    Column("status", lambda row: str(row["status"]), left=True),
    Column("elements", lambda row: "-" if row.get("count") is None else f"{int(row['count']):,}"),
    Column(
        "positions",
        lambda row: "-" if row.get("positions") is None else str(int(row["positions"])),
        rank=1,
    ),
    Column("1/sigma", lambda row: number(row.get("inverse_sigma_mean")), rank=3),
    Column("sigma cv", lambda row: number(row.get("sigma_cv")), rank=4),
]
