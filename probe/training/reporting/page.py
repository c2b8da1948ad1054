"""The figures and the page of a training folder: report.html beside training.json."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from probe.errors import ProbeError, first_line
from probe.formatting import json_text, records
from probe.html import Finding, Page, RunPart, render
from probe.jobs.page_tables import described_table
from probe.plots import Frame
from probe.records import Progress, silent
from probe.store import open_run
from probe.store.outputs import is_run
from probe.store.step import Step
from probe.training.figure_files import figure_files
from probe.training.folder import read_record
from probe.training.reporting.figures import KINDS, WORDS, TrainingTables
from probe.training.tracking.checkpoints import number_of
from probe.training.tracking.figures import KINDS as TRACKED
from probe.training.tracking.figures import TrackedTables
from probe.training.tracking.page import shown, tracking_part
from probe.training.tracking.tables import (
    HEADS,
    TRACK,
    Tracked,
    table_files,
)
from probe.wording.columns import EPOCHS
from probe.wording.training import training_findings

FIGURES, REPORT, PROBES = "figures", "report.html", "probes"
FILES = (
    ("training.json", "recipe, model, data, versions and status"),
    ("epochs.csv", "the table of epochs of this page; any spreadsheet"),
    ("norms.csv", "what each normalizer holds after every epoch"),
    ("model.safetensors", 'the weights that were evaluated: probe.load_model("model.safetensors")'),
    ("checkpoints/", "weights of single epochs, for `probe-norms track`"),
    ("probes/", "a whole run for each epoch that was probed, and their table track.csv"),
    ("figures/", "the figures as PNG and SVG"),
)
# fields of a recipe that say what it is, not what it does
SAID = ("name", "source", "dataset", "flaws", "as_published")


def training_report(
    folder: str | os.PathLike[str], *, figures: bool = True, progress: Progress | None = None
) -> Path:
    """Draws the figures of a training into its `figures/` and writes its report.html; of probed
    epochs (`probes/`) also the table `track`, and a part of the page.

    Also of a training that is not finished: what there is of it. Raises UsageError for a folder
    that holds no training, ProbeError where its tables cannot be read.
    """
    path, report = Path(folder).expanduser(), progress or silent
    record = read_record(path)
    tables = training_tables(path)
    probed = _probed(path / PROBES)
    drawn = figure_files(KINDS, tables, progress=report) if figures else {}
    with Step(path) as step:
        for name, data in drawn.items():
            step.put(path / FIGURES / name, data)
        parts = [training_part(tables, record, drawn, path)]
        if probed is not None:
            parts.append(_probes(step, path, probed, report if figures else None))
        return step.put(path / REPORT, render(Page(parts[0].title, tuple(parts))).encode())


def training_tables(path: Path) -> TrainingTables:
    """The tables of a training folder. Raises UsageError where it holds none, ProbeError where they
    cannot be read.
    """
    return TrainingTables(_table(path, "epochs"), _table(path, "norms"), _frame(read_record(path)))


def training_part(
    tables: TrainingTables, record: Mapping[str, Any], pictures: Mapping[str, bytes], path: Path
) -> RunPart:
    """What the page says of the training; `pictures`: file name -> PNG of the figures drawn."""
    epochs, norms = records(tables.epochs), records(tables.norms)
    found = training_findings(epochs, norms, record)
    recipe = record.get("recipe") or {}
    return RunPart(
        "training",
        _title(record),
        _lead(record, epochs),
        facts=tuple(_facts(record)),
        warnings=tuple(_warnings(record)),
        findings=tuple(Finding(topic, text) for topic, text in found),
        notes=tuple(f"Known of the source: {flaw}" for flaw in recipe.get("flaws") or ()),
        layers=described_table(
            "training-epochs", "Epochs", EPOCHS, epochs, noun="epochs", controls=False
        )
        if epochs
        else None,
        figures=tuple(shown("training", pictures, tables.frame.heading, WORDS)),
        manifest=json_text(record),
        files=tuple((name, how) for name, how in FILES if (path / name.rstrip("/")).exists()),
        kicker="A training",
        layers_title="Epochs",
        about_title="About the training",
    )


def _probes(
    step: Step, path: Path, probed: Sequence[Tracked], progress: Progress | None
) -> RunPart:
    """Tables and figures of the probed epochs, and their part of the page."""
    tables = TrackedTables(probed)
    files = dict(table_files(tables.all_rows, "track", TRACK))
    if not tables.heads.empty:
        files |= table_files(tables.heads, "attention", HEADS)
    for name, data in files.items():
        step.put(path / PROBES / name, data)
    drawn = {} if progress is None else figure_files(TRACKED, tables, progress=progress)
    for name, data in drawn.items():
        step.put(path / FIGURES / name, data)
    return tracking_part(tables, "track", drawn, "Its layers over the epochs")


def _probed(folder: Path) -> list[Tracked] | None:
    """The runs of the probed epochs; None where there are none."""
    places = sorted(folder.iterdir()) if folder.is_dir() else []
    runs = [place for place in places if not place.name.startswith(".") and is_run(place)]
    tracked = [Tracked(number_of(place), open_run(place)) for place in runs]
    return sorted(tracked, key=lambda each: each.checkpoint.epoch) or None


def _table(path: Path, name: str) -> pd.DataFrame:
    file = path / f"{name}.parquet"
    try:
        return pd.read_parquet(file)
    except FileNotFoundError:
        raise ProbeError(f"training {path} has no {file.name} yet: no epoch is finished") from None
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise ProbeError(f"{file} cannot be read ({first_line(error)})") from None


def _title(record: Mapping[str, Any]) -> str:
    """`vit_tiny with dyt`."""
    recipe, model = record.get("recipe") or {}, record.get("model") or {}
    name = str(model.get("name") or recipe.get("model") or "a network")
    norm = recipe.get("norm")
    return f"{name.removeprefix('timm:')} with {norm}" if norm else name.removeprefix("timm:")


def _frame(record: Mapping[str, Any]) -> Frame:
    recipe = record.get("recipe") or {}
    parts = (_title(record), f"recipe {recipe['name']}" if recipe.get("name") else "")
    seed = record.get("seed")
    return Frame(", ".join(part for part in (*parts, f"seed {seed}" * (seed is not None)) if part))


def _lead(record: Mapping[str, Any], epochs: Sequence[Mapping[str, Any]]) -> str:
    recipe = record.get("recipe") or {}
    count = max((row["epoch"] for row in epochs), default=0)
    planned = recipe.get("epochs")
    of = f" of {planned}" if planned and planned != count else ""
    named = f"Recipe {recipe['name']}" if recipe.get("name") else "Training"
    published = ", as published" if record.get("as_published") else ""
    return f"{named}{published}; {count}{of} epochs."


def _warnings(record: Mapping[str, Any]) -> Iterator[str]:
    """A training that is not at its end."""
    status = record.get("status")
    if status not in ("finished", None):
        words = {"running": "has not ended", "interrupted": "was interrupted", "failed": "failed"}
        yield f"This training {words.get(str(status), str(status))}: what follows is not its end."


def _facts(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Model, data, recipe field by field, versions, in short lines."""
    recipe = dict(record.get("recipe") or {})
    set_by_user = set(record.get("overridden") or ())
    yield from _named(record, "Model", "model")
    if recipe.get("source"):
        yield "Source", str(recipe["source"])
    if recipe.get("dataset"):
        yield "Source's data", str(recipe["dataset"])
    yield from _named(record, "Data", "data")
    own = [_field(name, recipe[name]) for name in recipe if name in set_by_user]
    if own:
        yield "Set by the user", ", ".join(own)
    others = [
        _field(name, value)
        for name, value in recipe.items()
        if name not in SAID and name not in set_by_user and value not in (None, {}, [])
    ]
    yield "Recipe", ", ".join(others)
    yield (
        "Run",
        ", ".join(
            f"{name} {record[name]}" for name in ("seed", "device", "processes") if name in record
        ),
    )
    yield from _named(record, "Versions", "versions")


def _named(record: Mapping[str, Any], title: str, key: str) -> Iterator[tuple[str, str]]:
    value = record.get(key)
    if isinstance(value, Mapping):
        yield title, ", ".join(_field(name, v) for name, v in value.items() if v is not None)
    elif value:
        yield title, str(value)


def _field(name: str, value: Any) -> str:
    """`lr 0.05`; of a mapping `training (kind folder, chosen 800)`, without its long checksum."""
    if isinstance(value, Mapping):
        inside = ", ".join(_field(str(k), v) for k, v in value.items() if k != "identity")
        return f"{name} ({inside})"
    return f"{name} {_short(value)}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


__all__ = ["training_part", "training_report", "training_tables"]
