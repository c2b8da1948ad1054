"""A status is spelled in one place: everything that shows or asks one goes through the members."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.colors import is_color_like
from matplotlib.lines import Line2D

import probe
from probe.cli.views.run import styles
from probe.plots.depth_axis import status_legend
from probe.records import Status

ROOT = Path(probe.__file__).parent
VALUES = {status.value for status in Status}


@pytest.mark.parametrize("status", Status)
def test_every_status_has_a_meaning_a_mark_a_colour_and_a_row_style(status: Status) -> None:
    assert status.meaning
    [entry] = status_legend([status.value])
    assert is_color_like(entry.get_color())
    assert entry.get_marker() in {*Line2D.markers, "$?$"}
    assert entry.get_label() == status.words
    assert styles([{"status": status.value}])[0] in ("bold", "red", "dim", "")


def test_rows_are_bold_where_a_layer_is_an_s_and_red_where_it_broke() -> None:
    rows = [{"status": status.value} for status in Status]
    by_status = dict(zip(Status, styles(rows), strict=True))
    assert {s for s, style in by_status.items() if style == "bold"} == {
        s for s in Status if s.shaped
    }
    assert by_status[Status.NOT_FINITE] == "red"
    assert {by_status[s] for s in Status if s.empty} == {"dim"}


def literals(node: ast.expr) -> Iterator[str]:
    """The texts that an expression consists of: one, or those of a tuple, list or set."""
    for part in getattr(node, "elts", [node]):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def asks_a_status(node: ast.expr) -> bool:
    return "status" in ast.unparse(node)


def spelled(tree: ast.AST) -> set[str]:
    """Statuses that are written as texts where a status is compared (`==`, `in`, `isin`)."""
    texts: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "isin":
            sides = [node.func, *node.args]
        else:
            continue
        if any(map(asks_a_status, sides)):
            texts |= {text for side in sides for text in literals(side)}
    return texts & VALUES


@pytest.mark.parametrize(
    "source",
    [
        'row["status"] == "curved"',
        '"affine" != fit.status',
        'status in ("constant", "too_few")',
        'alphas[~alphas["status"].isin(["curved", "affine"])]',
    ],
)
def test_a_status_compared_as_a_text_is_seen(source: str) -> None:
    assert spelled(ast.parse(source))


@pytest.mark.parametrize(
    "source",
    ['row["status"] == Status.CURVED', 'family == "linear"', 'record["status"] == "finished"'],
)
def test_other_texts_are_not_taken_for_a_status(source: str) -> None:
    assert not spelled(ast.parse(source))


def test_no_module_compares_a_status_with_a_text() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): texts
        for path in sorted(ROOT.rglob("*.py"))
        if (texts := spelled(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert found == {}
