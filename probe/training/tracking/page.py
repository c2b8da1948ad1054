"""The page of a tracking, and the one step in which its tables, figures and page are written."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from probe.formatting import records
from probe.html import Figure as Shown
from probe.html import Finding, Page, RunPart, render
from probe.jobs.page_tables import described_table
from probe.jobs.reporting.figures import Words, shown_figure
from probe.jobs.reporting.run_facts import facts_of
from probe.layer_names import Patterns
from probe.records import Progress, silent
from probe.store import Run, open_run
from probe.store.step import Step
from probe.training.figure_files import figure_files
from probe.training.tracking.checkpoints import Checkpoint
from probe.training.tracking.figures import KINDS, WORDS, TrackedTables
from probe.training.tracking.record import FIGURES, REPORT, RUNS, read_record
from probe.training.tracking.tables import FAILED, HEADS, TRACK, Tracked, table_files
from probe.wording.columns import CHANGES
from probe.wording.notes import missed, warnings_of
from probe.wording.tracking import layer_changes, tracking_findings

FILES = (
    ("track.csv", "one row per checkpoint and layer; any spreadsheet"),
    ("track.parquet", 'the same: pandas.read_parquet("track.parquet")'),
    ("attention.csv", "one row per checkpoint, layer and head"),
    ("runs/", 'a whole run of each checkpoint: probe.open_run("runs/NAME")'),
    ("figures/", "the figures as PNG and SVG"),
    ("track.json", "checkpoints, settings and model"),
)


def write_results(
    folder: Path,
    tracked: Sequence[Tracked],
    *,
    figures: bool = True,
    report: bool = True,
    progress: Progress | None = None,
) -> None:
    """Tables, figures and report.html of a tracking, all in one step."""
    tables = TrackedTables(tracked)
    files = dict(table_files(tables.all_rows, "track", TRACK))
    if not tables.heads.empty:
        files |= table_files(tables.heads, "attention", HEADS)
    pictures = figure_files(KINDS, tables, progress=progress or silent) if figures else {}
    with Step(folder) as step:
        for name, data in files.items():
            step.put(folder / name, data)
        for name, data in pictures.items():
            step.put(folder / FIGURES / name, data)
        if report:
            part = tracking_part(tables, "track", pictures)
            step.put(folder / REPORT, render(Page(part.title, (part,))).encode())
    if figures:
        _forget(folder / FIGURES, keep=pictures)


def _forget(folder: Path, keep: Mapping[str, bytes]) -> None:
    """Figures of an earlier tracking that this one has no data for would show other numbers."""
    for file in folder.glob("*_by_epoch.*"):
        if file.name not in keep:
            with suppress(OSError):
                file.unlink()


def tracking_part(
    tables: TrackedTables, name: str, pictures: Mapping[str, bytes], title: str = ""
) -> RunPart:
    """What a page says of a tracking; `pictures`: file name -> PNG of the figures drawn; title:
    where it is not the name of the network.
    """
    rows, heads = records(tables.all_rows), records(tables.heads)
    changes = layer_changes(rows)
    run = _last_run(tables)
    findings = tracking_findings(rows, heads, tables.unit)
    return RunPart(
        name,
        title or tables.name,
        _lead(tables, changes),
        facts=(*facts_of(run), ("Checkpoints", ", ".join(_names(tables)))),
        warnings=tuple(warnings_of(run.manifest)),
        findings=tuple(Finding(topic, text) for topic, text in findings),
        notes=tuple(_notes(tables, run)),
        layers=described_table(f"{name}-table", "Layers over the training", CHANGES, changes),
        figures=tuple(shown(name, pictures, tables.frame.heading, WORDS)),
        files=FILES,
        kicker="When its normalization layers become S-shaped",
        about_title="About the tracking",
    )


def shown(
    name: str, pictures: Mapping[str, bytes], heading: str, words: Mapping[str, Words]
) -> Iterator[Shown]:
    """The figures that were drawn, in the order of their words."""
    for kind, said in words.items():
        if f"{kind}.png" in pictures:
            image = Image.open(io.BytesIO(pictures[f"{kind}.png"]))
            yield shown_figure(image, f"{name}-{kind}", said, heading)


def _last_run(tables: TrackedTables) -> Run:
    return [each.run for each in tables.tracked if each.run is not None][-1]


def _names(tables: TrackedTables) -> Iterator[str]:
    for each in tables.tracked:
        failed = "" if each.run is not None else ", not opened"
        yield f"{each.checkpoint.name} ({tables.unit} {each.checkpoint.epoch}{failed})"


def _lead(tables: TrackedTables, changes: Sequence[Mapping[str, Any]]) -> str:
    heading = tables.frame.heading.removeprefix(tables.name).removeprefix(", ")
    return f"{heading[:1].upper()}{heading[1:]}; {len(changes)} normalization layers."


def _notes(tables: TrackedTables, run: Run) -> Iterator[str]:
    """What failed, was skipped or could not be read."""
    for each in tables.tracked:
        if each.run is None:
            yield f"Checkpoint {each.checkpoint.name} could not be opened: {each.reason}."
    for line in missed(run.manifest, 20):
        yield f"{line[:1].upper()}{line[1:]}."


def open_tracking(folder: Path, layers: Patterns | None = None) -> TrackedTables:
    """The tables of a finished tracking, from its runs. Raises UsageError where there is none."""
    record = read_record(folder)
    tracked = [
        Tracked(
            Checkpoint(
                Path(entry["file"]), entry["checkpoint"], entry["epoch"], str(record.get("unit"))
            ),
            None if entry["status"] == FAILED else open_run(folder / RUNS / entry["checkpoint"]),
            entry.get("reason") or "",
        )
        for entry in record["checkpoints"]
    ]
    return TrackedTables(tracked, layers)
