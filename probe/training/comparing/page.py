"""The tables, figures and page of a comparison, made of its folder alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from probe.formatting import json_text, records
from probe.html import Finding, Page, RunPart, render
from probe.jobs.page_tables import described_table
from probe.records import Progress, silent
from probe.store.outputs import output_folder
from probe.store.step import Step
from probe.training.comparing.figures import KINDS, WORDS
from probe.training.comparing.opened import Compared, model_of, open_comparison
from probe.training.comparing.tables import (
    CELL_TABLE,
    COMPARISON,
    GRID_TABLE,
    HEADS_OF_CELLS,
    LAYERS,
    grid_table,
    head_table,
    layer_table,
)
from probe.training.figure_files import USUAL, figure_files
from probe.training.tracking.page import shown
from probe.training.tracking.tables import table_files
from probe.wording.columns import COMPARISON as COLUMNS
from probe.wording.comparing import comparison_findings
from probe.wording.phrases import plural

FIGURES, REPORT = "figures", "report.html"
FILES = (
    ("comparison.csv", "the table of this page; any spreadsheet"),
    ("cells.csv", "one row per norm and seed"),
    ("layers.csv", "what was fitted to each layer of each final network"),
    ("attention.csv", "one row per norm, seed, attention layer and head"),
    ("grid.csv", "the learning rates that were tried"),
    ("cells/", "the trainings, for `probe-norms report`, `plot` and `--model`"),
    ("runs/", "a whole run of each final network"),
    ("figures/", "the figures as PNG and SVG"),
    ("comparison.json", "what was asked, what became of each cell, forward times"),
)


def write_results(
    folder: Path,
    *,
    figures: bool = True,
    report: bool = True,
    progress: Progress | None = None,
) -> Path:
    """Tables, figures and report.html of a comparison, all in one step. Returns the page."""
    compared = open_comparison(folder)
    files = dict(_tables(compared))
    drawn = (
        figure_files(KINDS, compared.figure_tables, progress=progress or silent) if figures else {}
    )
    with Step(folder) as step:
        for name, data in files.items():
            step.put(folder / name, data)
        for name, data in drawn.items():
            step.put(folder / FIGURES / name, data)
        if report:
            part = comparison_part(compared, drawn)
            step.put(folder / REPORT, render(Page(part.title, (part,))).encode())
    return folder / REPORT


def plot_comparison(
    folder: Path,
    kinds: Sequence[str] | None = None,
    formats: Sequence[str] = USUAL,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Writes the figures of a comparison into `out` (default: its `figures/`)."""
    tables = open_comparison(folder).figure_tables
    files = figure_files(KINDS, tables, chosen=kinds, formats=formats, progress=progress or silent)
    place = folder / FIGURES if out is None else output_folder(out)
    with Step(place) as step:
        return [step.put(place / name, data) for name, data in files.items()]


def _tables(compared: Compared) -> Iterator[tuple[str, bytes]]:
    tables = {
        "comparison": (compared.comparison, COMPARISON),
        "cells": (compared.cells, CELL_TABLE),
        "layers": (layer_table(compared.runs), LAYERS),
        "attention": (head_table(compared.runs), HEADS_OF_CELLS),
        "grid": (grid_table(compared.record.get("grid") or ()), GRID_TABLE),
    }
    for name, (table, schema) in tables.items():
        if not table.empty or name in ("comparison", "cells"):
            yield from table_files(table, name, schema).items()


def comparison_part(compared: Compared, pictures: Mapping[str, bytes]) -> RunPart:
    """What the page says; `pictures`: file name -> PNG of the figures drawn."""
    rows, record = records(compared.comparison), compared.record
    return RunPart(
        "comparison",
        f"{model_of(record)}: {plural(len(rows), 'norm')}",
        _lead(record),
        facts=tuple(_facts(record)),
        warnings=tuple(_warnings(compared)),
        findings=tuple(Finding(topic, text) for topic, text in comparison_findings(rows)),
        layers=described_table(
            "comparison-table", "Norms", COLUMNS, rows, noun="norms", controls=False
        )
        if rows
        else None,
        figures=tuple(shown("comparison", pictures, compared.figure_tables.frame.heading, WORDS)),
        manifest=json_text(record),
        files=tuple((name, how) for name, how in FILES if _is_there(compared, name)),
        kicker="The same training with each norm",
        layers_title="Norms",
        about_title="About the comparison",
    )


def _is_there(compared: Compared, name: str) -> bool:
    """Is it, or will it be with this page?"""
    made = {"comparison.csv", "cells.csv", "figures/", "comparison.json"}
    made |= {"layers.csv"} if compared.runs else set()
    return name in made or (compared.folder / name.rstrip("/")).exists()


def _lead(record: Mapping[str, Any]) -> str:
    recipe = record.get("recipe") or {}
    rate = "chosen per norm" if record.get("grid") else f"{recipe.get('lr'):g} for all"
    return (
        f"Recipe {recipe.get('name')}, {recipe.get('epochs')} epochs, learning rate {rate}; "
        f"{plural(len(record.get('seeds') or ()), 'seed')}, which share start, order and "
        "augmentation over the norms."
    )


def _facts(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    recipe, data = dict(record.get("recipe") or {}), record.get("data") or {}
    set_by_user = record.get("overridden") or ()
    told = {name: recipe.get(name) for name in set_by_user if name != "seed"}
    yield "Norms", ", ".join(record.get("norms") or ())
    yield "Reference", str(record.get("reference"))
    yield "Seeds", ", ".join(str(seed) for seed in record.get("seeds") or ())
    yield "Data", ", ".join(f"{name} {value}" for name, value in data.items() if value is not None)
    yield "Set by the user", ", ".join(f"{name} {value}" for name, value in told.items())
    forward = record.get("forward") or {}
    if forward:
        yield "Forward passes", f"batches of {forward['batch']}, on {forward['device']}, in turns"


def _warnings(compared: Compared) -> Iterator[str]:
    record = compared.record
    planned = len(record.get("norms") or ()) * len(record.get("seeds") or ())
    if record.get("status") != "finished":
        yield f"{len(compared.outcomes)} of {planned} trainings are there: this is not the end."


__all__ = ["plot_comparison", "write_results"]
