"""The page of a conversion: FILE.html beside the converted model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from probe.formatting import json_text, number, records
from probe.html import Figure, Finding, Page, Picture, RunPart, render
from probe.jobs.inputs import shown_name
from probe.jobs.page_tables import described_table, speed_table
from probe.jobs.speed import speed_rows
from probe.models.loading.load import Model
from probe.norms.registry import norm_families
from probe.wording.columns import CONVERSION
from probe.wording.conversion import left_as_they_were, measured_on, refinement, replacement
from probe.wording.phrases import sentences
from probe.wording.speed import conclusion

TITLE = "What each layer costs"
CAPTION = (
    "Along depth: the error of the layer's output, KL of the model's outputs from the original's, "
    "and the share of images that keep their class; each layer replaced alone, and together with "
    "all before it."
)


def conversion_page(
    result: Any, original: Model, metadata: Mapping[str, object], figure: bytes
) -> bytes:
    """HTML of a `Conversion` (probe.jobs.converting.result). original: what the model said of
    itself before; metadata: what the converted file says; figure: its PNG.
    """
    heading = f"{shown_name(original)} with {result.asked['norm']}"
    part = RunPart(
        "conversion",
        heading,
        sentences(list(replacement(result, records(result.table)))[:1]),
        facts=tuple(_facts(result, original)),
        findings=tuple(_findings(result)),
        notes=tuple(sentences([note]) for note in _notes(result, original)),
        layers=described_table("conversion-layers", "Layers", CONVERSION, records(result.table)),
        figures=(Figure("conversion-by-depth", TITLE, CAPTION, Picture(figure, CAPTION)),),
        speed=speed_table("conversion-speed", speed_rows(result.speed)) if result.speed else None,
        manifest=json_text(metadata),
        kicker="Its normalization layers replaced",
        about_title="About the conversion",
    )
    return render(Page(heading, (part,))).encode()


def _findings(result: Any) -> Iterator[Finding]:
    rows = records(result.table)
    yield Finding("Replaced", sentences(replacement(result, rows)))
    if refined := list(refinement(result)):
        yield Finding("Refined", sentences(refined))
    costly = [row for row in rows if row["kl"] is not None]
    if costly:
        most = max(costly, key=lambda row: row["kl"])
        yield Finding(
            "Most costly alone",
            f"{most['layer']}: KL {number(most['kl'])} nats, relative output error "
            f"{number(most['rel_error'])}.",
        )
    if result.speed:
        yield Finding("Speed", sentences([conclusion(result.speed)]))


def _notes(result: Any, original: Model) -> Iterator[str]:
    if original.weights == "random":
        yield "random weights: nothing was learned"
    yield from result.notes
    yield from left_as_they_were(result, records(result.table), norm_families(result.asked["norm"]))
    yield from (speed.note for speed in result.speed if speed.note)


def _facts(result: Any, original: Model) -> Iterator[tuple[str, str]]:
    yield "Model", f"{shown_name(original)}, weights {original.weights}"
    yield "Asked for", ", ".join(f"{name} {value}" for name, value in result.asked.items())
    yield "Images", measured_on(result)
    if result.calibration:
        yield "Calibrated on", result.calibration.data
