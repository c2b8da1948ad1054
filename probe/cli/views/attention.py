"""How far the attention heads of models look: one row per layer, then what to know about them in a
few lines; and what the result of a whole run says of attention.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probe.cli.terminal import print_json, print_table
from probe.cli.views.grid import Row, columns_of
from probe.errors import shown
from probe.formatting import records
from probe.wording.attention import count, not_read, per_layer, reach, was_read
from probe.wording.columns import ATTENTION_LAYERS
from probe.wording.notes import warnings_of

FACTS = ("name", "model", "weights", "status", "unreadable")  # of a model and of its attention


@dataclass(frozen=True)
class AttentionSummary:
    """The attention heads of one model or run.

        table = attention_distance("vit_tiny_patch16_224")
        show([AttentionSummary("vit_tiny_patch16_224", records(table), table.attrs)])

    `heads`: rows of the attention table; `manifest`: what stands there of model and attention.
    """

    name: str
    heads: Sequence[Row]
    manifest: Mapping[str, Any]

    @property
    def named_heads(self) -> list[dict[str, Any]]:
        """The heads with the run in each, for a table of several."""
        return [{"run": self.name, **head} for head in self.heads]

    @property
    def facts(self) -> dict[str, Any]:
        return {name: self.manifest[name] for name in FACTS if name in self.manifest}

    @property
    def warnings(self) -> list[str]:
        return warnings_of({"model": self.manifest})

    def lines(self) -> Iterator[str]:
        """Counts, what could not be read, and what must not be overlooked."""
        yield count(self.heads)
        yield from not_read(self.manifest)
        yield from (f"WARNING: {line}" for line in self.warnings)


def show(
    summaries: Sequence[AttentionSummary],
    drawn: Sequence[Path] = (),
    as_json: bool = False,
    run: str | None = None,
) -> None:
    """All heads as JSON, or one row per layer and what to know. `drawn`: files that were written;
    `run`: the new run.
    """
    several = len(summaries) > 1
    heads = [head for each in summaries for head in (each.named_heads if several else each.heads)]
    if as_json:
        print_json(_document(summaries, heads, drawn, run))
        return
    lines = [
        f"{each.name}: {line}" if several else line for each in summaries for line in each.lines()
    ]
    lines += [f"run: {run}"] if run else []
    if drawn:
        names = ", ".join(path.name for path in drawn)
        lines.append(f"figures and tables: {names} in {shown(drawn[0].parent)}")
    layers = per_layer(heads)
    print_table(columns_of(ATTENTION_LAYERS, layers), layers, lines)


def _document(
    summaries: Sequence[AttentionSummary],
    heads: Sequence[Row],
    drawn: Sequence[Path],
    run: str | None,
) -> dict[str, Any]:
    return {
        "of": {each.name: each.facts for each in summaries},
        "run": run,
        "heads": heads,
        "files": [shown(path) for path in drawn],
        "warnings": {each.name: each.warnings for each in summaries if each.warnings},
    }


def of_run(run: Any) -> list[str]:
    """What the result of a whole run says of attention: a line with the range of distances, and
    what could not be read.
    """
    record = run.manifest.get("attention")
    if not was_read(record):
        return not_read(record)
    heads = records(run.attention())
    counted = ", ".join(part for part in (count(heads), reach(heads)) if part)
    return [f"attention: {counted}", *not_read(record)]


def document(run: Any) -> dict[str, Any] | None:
    """The JSON form: what the manifest says, and all heads."""
    record = run.manifest.get("attention")
    if not record:
        return None
    return {**record, "table": records(run.attention()) if was_read(record) else []}
