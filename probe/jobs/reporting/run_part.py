"""What the page says of one run: its tables read once, then sentences, tables and pictures of
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from probe.formatting import records
from probe.html import Curve, Finding, RunPart
from probe.html import Figure as Shown
from probe.jobs.drawing.tables import FigureTables, frame_of
from probe.jobs.page_tables import attention_table, layer_table
from probe.jobs.reporting.curves import curve_cards, how_to_read, left_out
from probe.jobs.reporting.figures import ATTENTION, NORMS, Words, whole_figures
from probe.jobs.reporting.findings import sentences
from probe.jobs.reporting.run_facts import facts_of, files_of, manifest_text
from probe.records import Progress
from probe.store.run import Run
from probe.wording import unusual_norms
from probe.wording.attention import not_read
from probe.wording.layers import kinds
from probe.wording.notes import missed, warnings_of

NAMED = 20  # skipped images and modules named in a note


class ReportedRun:
    """A run as the page shows it.

        reported = ReportedRun(open_run("runs/vit"), "run", drawn={}, progress=silent)
        page = Page(reported.title, (reported.part(),))

    `name`: prefix of its ids on the page. `drawn`: whole figures that were just drawn from its
    tables, by their kind.
    """

    def __init__(
        self,
        run: Run,
        name: str,
        drawn: Mapping[str, Path],
        progress: Progress,
        title: str = "",
        figures: bool = True,
    ) -> None:
        self.run, self.name, self.figures = run, name, figures
        self.title = title or model_title(run)
        self.tables = FigureTables(run)
        rows = [] if run.attention_only else records(run.alphas())
        self.rows = unusual_norms.with_errors(rows, unusual_norms.affine_errors(run.manifest))
        self.heads = heads_of(run)
        self._drawn, self._progress = drawn, progress

    @cached_property
    def shown(self) -> list[dict[str, Any]]:
        """The rows of the layers that have a card."""
        layers = set(self.tables.panels) if self.rows else set()
        return [row for row in self.rows if row["layer"] in layers]

    def part(self) -> RunPart:
        """All of it; sections without content stay empty, and the page leaves them out."""
        curves = self._curves()
        targets = {curve.layer: curve.name for curve in curves}
        return RunPart(
            self.name,
            self.title,
            self._lead(),
            facts=facts_of(self.run),
            warnings=tuple(warnings_of(self.run.manifest)),
            findings=tuple(self._findings()),
            notes=tuple(self._notes()),
            layers=layer_table(f"{self.name}-table", self.rows, targets) if self.rows else None,
            curves=curves,
            curves_note=" ".join(
                [*left_out(self.shown, self.rows, self.run), how_to_read(self.shown)]
            ),
            figures=self._whole(NORMS) if self.rows else (),
            attention=attention_table(f"{self.name}-heads", self.heads) if self.heads else None,
            attention_figures=self._whole(ATTENTION) if self.heads else (),
            manifest=manifest_text(self.run.manifest),
            files=files_of(self.run),
        )

    def _lead(self) -> str:
        """Weights and number of images, then what was looked at."""
        heading = frame_of(self.run).heading.removeprefix(model_title(self.run)).removeprefix(", ")
        seen = [kinds(self.rows)] if self.rows else []
        seen += [f"{len(self.heads)} attention heads"] if self.heads else []
        return ". ".join(part for part in (heading.capitalize(), "; ".join(seen)) if part) + "."

    def _findings(self) -> Iterator[Finding]:
        if not self.rows:
            yield Finding("Shape", self._no_layer())
        for topic, text in sentences(self.rows, self.heads, self._attention):
            yield Finding(topic, text)

    def _no_layer(self) -> str:
        if self.run.attention_only:
            return "This run looked at attention only."
        return "The model has no normalization layer that was chosen."

    def _notes(self) -> Iterator[str]:
        """What was skipped or could not be read, as sentences."""
        attention = self._attention if self._computes_attention else None
        unread_norms = unusual_norms.not_read(self.run.manifest)
        unusual = unusual_norms.unusual(self.rows, unread_norms, NAMED)
        for line in (*missed(self.run.manifest, NAMED), *unusual, *not_read(attention)):
            yield f"{line[:1].upper()}{line[1:]}."
        if not self.figures:
            yield (
                f"This page was made without pictures; `probe-norms report {self.run.path.name}` "
                "makes it with them."
            )

    def _curves(self) -> tuple[Curve, ...]:
        if not self.figures:
            return ()
        return tuple(curve_cards(self.tables, self.name, self.shown, self._progress))

    def _curves_note(self) -> str:
        """Which layers have a card, and how to read it."""
        return " ".join([*left_out(self.shown, self.rows, self.run), how_to_read(self.shown)])

    def _whole(self, chosen: Mapping[str, Words]) -> tuple[Shown, ...]:
        if not self.figures:
            return ()
        return tuple(whole_figures(self.tables, chosen, self.name, self._drawn))

    @property
    def _attention(self) -> Mapping[str, Any] | None:
        return self.run.manifest.get("attention")

    @property
    def _computes_attention(self) -> bool:
        return (self._attention or {}).get("status") != "none"


def model_title(run: Run) -> str:
    """The model of a run; the folder where it has no name."""
    return str((run.manifest.get("model") or {}).get("name") or run.path.name)


def heads_of(run: Run) -> list[dict[str, Any]]:
    """The rows of the attention table; none where the run has no table."""
    return records(run.attention()) if run.has("attention") else []
