"""The report as one self-contained HTML page: tables, texts and pictures in, a string out."""

from __future__ import annotations

from probe.html.page import (
    Cell,
    Column,
    Comparison,
    Curve,
    Figure,
    Finding,
    Page,
    Picture,
    Row,
    RunPart,
    Table,
    render,
)

__all__ = [
    "Cell",
    "Column",
    "Comparison",
    "Curve",
    "Figure",
    "Finding",
    "Page",
    "Picture",
    "Row",
    "RunPart",
    "Table",
    "render",
]
