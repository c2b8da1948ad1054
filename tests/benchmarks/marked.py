"""The measured part of a page of the documentation, between two marks."""

from __future__ import annotations

from pathlib import Path

BEGIN, END = "<!-- measured -->\n", "<!-- end of measured -->"


def write_measured(path: Path, text: str) -> None:
    """Replaces what stands between the marks of the page."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{path}: has no marks {BEGIN.strip()} and {END}")
    path.write_text(f"{before}{begin}{text}{end}{after}", encoding="utf-8")
