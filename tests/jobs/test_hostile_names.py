"""Names of layers, images and models are data: whatever they hold, tables, figures, pages and the
terminal stay whole.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from probe import compare, export_alphas, report
from probe.cli.failure import one_line
from probe.formatting import CONTROL, csv_bytes, csv_cell, from_csv_cell, json_text, visible
from probe.jobs.drawing.attention import draw_runs
from probe.jobs.drawing.draw import KINDS, plot
from probe.jobs.reporting.report import write_report
from probe.store.run import Run
from support import stored_runs
from support.stored_runs import attention_data, figure_data

NASTY = [
    "carriage\rreturn",
    "new\nline.norm",
    "$x^{$",
    "\x1b[2J\x1b]0;owned\x07",
    "=cmd|' /C calc'!A0",
    "right\u202eleft",
    "back\\slash\\x41",
    "'quoted",
    '-minus, comma\t"quote"',
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A fitted run whose layers, attention layers and model have such names."""
    tables = figure_data.make(["curved", "linear", "affine"] * 3, names=NASTY)
    heads = attention_data.make("one")
    first = heads["layer"].iloc[0]
    heads["layer"] = heads["layer"].replace(first, "$\\frac{$\n\x1b[31m")
    out = tmp_path_factory.mktemp("names") / "run $y^{$"
    return stored_runs.store(out, tables, heads=heads, name="$m_{$\r\n\x1b[0m")


def test_the_table_of_alphas_is_read_back_and_holds_no_control_character(run: Run) -> None:
    assert list(run.alphas()["layer"]) == NASTY
    text = (run.path / "alpha.csv").read_bytes().decode()
    assert not CONTROL.search(text.replace("\n", ""))
    for row in csv.reader(io.StringIO(text, newline="")):
        assert not row[0].startswith(("=", "+", "-", "@", "\t", "\r"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_is_drawn_and_is_sound_xml(kind: str, run: Run, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        [path] = plot(run, kinds=[kind], formats=["svg"], out=tmp_path)
    text = path.read_text(encoding="utf-8")
    ET.fromstring(text)
    assert "\x1b" not in text


def test_report_and_comparisons_are_made(run: Run, tmp_path: Path) -> None:
    page = write_report(run, figures=False).read_text(encoding="utf-8")
    assert not CONTROL.search(page.replace("\n", "").replace("\t", ""))
    assert "owned" in page
    compare(run, run, out=tmp_path)
    draw_runs([run], tmp_path)
    for name in ("compare.csv", "attention.csv"):
        rows = list(csv.reader(io.StringIO((tmp_path / name).read_text(), newline="")))
        assert len({len(row) for row in rows}) == 1


def test_the_page_with_its_pictures_is_made(run: Run, tmp_path: Path) -> None:
    [page] = report(run, out=tmp_path / "report.html")
    assert "\x1b" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["fit", "verify", "compare"])
def test_the_terminal_gets_no_control_character(command: str, run: Run, tmp_path: Path) -> None:
    copy = shutil.copytree(run.path, tmp_path / "run $y^{$")
    runs = [str(copy)] * (2 if command == "compare" else 1)
    done = subprocess.run(
        [sys.executable, "-m", "probe", command, *runs], capture_output=True, text=True
    )
    for text in (done.stdout, done.stderr):
        assert not CONTROL.search(text.replace("\n", ""))


def test_export_of_such_names_comes_back(run: Run, tmp_path: Path) -> None:
    export_alphas(run, tmp_path / "alpha.json")
    rows = json.loads((tmp_path / "alpha.json").read_text())
    assert [row["layer"] for row in rows] == NASTY


@pytest.mark.parametrize("text", [*NASTY, "plain", "blocks.0.norm1", "", "@", "\\", "'", "\ud800"])
def test_a_cell_comes_back_as_it_was(text: str) -> None:
    assert from_csv_cell(csv_cell(text)) == text
    assert not CONTROL.search(csv_cell(text))


def test_ordinary_names_stand_in_files_as_they_are() -> None:
    for text in ("blocks.0.norm1", "layer1.0.bn1#2", "tanh|erf", "stem/norm", "größe"):
        assert csv_cell(text) == visible(text) == text


def test_numbers_are_no_formulas() -> None:
    import pandas as pd

    assert csv_bytes(pd.DataFrame({"a": [-1.5], "b": ["-x"]})) == b"a,b\n-1.5,'-x\n"


def test_json_for_the_terminal_holds_no_control_character_and_is_read_back() -> None:
    value = {name: name for name in [*NASTY, "\x7f\x9b"]}
    assert json.loads(json_text(value)) == value
    assert not CONTROL.search(json_text(value).replace("\n", ""))


def test_a_very_long_argument_is_not_echoed() -> None:
    for given in ("x" * 5000, "x " * 2500, "\x1b[2J" * 1000):
        line = one_line(f"data {given!r} does not exist; give a folder")
        assert len(line) <= 2000
        assert line.endswith("give a folder")
        assert line.isprintable()


def test_the_command_line_does_not_echo_it_either() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "probe", "verify", "y" * 5000], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert len(done.stderr) < 600
    assert done.stderr.count("\n") == 1
