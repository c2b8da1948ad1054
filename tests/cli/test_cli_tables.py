"""Tables fit the terminal: no row wraps, the columns that matter most stay, and what is left out is
said.
"""

from __future__ import annotations

from typing import Any

import pytest

from probe.cli.views.grid import Column, columns_of, fit_columns, no_room, shorten
from probe.cli.views.run import notes
from probe.formatting import records
from probe.wording.columns import ALPHAS
from probe.wording.layers import best, interval, where_s
from support.fake_runs import FakeRun, alpha_row, resnet_alphas, vit_alphas

TABLES = {"vit": vit_alphas, "resnet": resnet_alphas}


@pytest.mark.parametrize("width", [80, 100, 120, 200])
@pytest.mark.parametrize("name", TABLES)
def test_no_row_is_wider_than_the_terminal_and_none_wraps(
    cli: Any, jobs: Any, monkeypatch: pytest.MonkeyPatch, name: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    frame = TABLES[name]()
    jobs.answers["analyze"] = FakeRun(alphas=frame)
    lines = cli("-q").out.splitlines()
    rows = lines[2 : 2 + len(frame)]
    assert [line.split()[0] for line in rows] == list(frame["layer"])
    assert lines[2 + len(frame)] == ""
    assert max(map(len, lines[: 2 + len(frame)])) <= width
    assert "…" not in "".join(rows)


@pytest.mark.parametrize(
    ("width", "headers"),
    [
        (80, ["layer", "status", "alpha [95 %]", "slope", "R2", "R2 line", "ceiling"]),
        (
            120,
            [
                "layer",
                "C",
                "status",
                "alpha [95 %]",
                "slope",
                "R2",
                "R2 line",
                "ceiling",
                "best",
                "1/std",
                "beyond %",
                "max |x|",
            ],
        ),
    ],
)
def test_columns_go_by_priority(width: int, headers: list[str]) -> None:
    rows = records(vit_alphas())
    grid = fit_columns(columns_of(ALPHAS, rows), rows, width)
    assert [column.header for column in grid.columns] == headers


def test_r2_is_the_number_of_the_file_whatever_the_status() -> None:
    facts = {"r2": 0.91, "linear_r2": 0.87, "alpha": 0.1}
    rows = [
        alpha_row(0, "s", status="curved", **facts),
        alpha_row(1, "straight", **facts | {"alpha": None}),
    ]
    grid = fit_columns(columns_of(ALPHAS, rows), rows, 200)
    at = [column.header for column in grid.columns].index("R2")
    assert [cells[at] for cells in grid.cells] == ["0.910", "0.910"]


def test_what_is_left_out_is_said_unless_all_rows_share_it() -> None:
    rows = records(vit_alphas())
    narrow = no_room(fit_columns(columns_of(ALPHAS, rows), rows, 80), also="alpha.csv")
    assert narrow == [
        "no room for: best, 1/std, beyond %, max |x| (a wider terminal, alpha.csv or --json shows "
        "them)"
    ]
    assert no_room(fit_columns(columns_of(ALPHAS, rows), rows, 120)) == []


def test_every_width_keeps_layer_status_slope_and_r2() -> None:
    rows = records(vit_alphas())
    for width in range(10, 150):
        grid = fit_columns(columns_of(ALPHAS, rows), rows, width)
        assert {"layer", "status", "slope", "R2"} <= {column.header for column in grid.columns}


def test_long_layer_names_keep_their_end() -> None:
    names = [f"backbone.very.long.prefix.stages.{n}.blocks.26.norm" for n in range(3)]
    rows = [alpha_row(n, name) for n, name in enumerate(names)]
    grid = fit_columns(columns_of(ALPHAS, rows), rows, 80)
    shown = [cells[0] for cells in grid.cells]
    assert all(
        text.startswith("…") and text.endswith(f"stages.{n}.blocks.26.norm")
        for n, text in enumerate(shown)
    )
    assert len(set(shown)) == 3
    assert shorten("abcdef", 4) == "…def"


def test_a_table_without_rows_has_its_headers() -> None:
    assert fit_columns([Column("a", str), Column("b", str, rank=1)], [], 80).cells == ()


def test_the_interval_is_left_out_where_there_is_none() -> None:
    row = {"alpha": 0.5, "alpha_low": None, "alpha_high": None, "established": True}
    assert interval(row) == "0.500"
    assert interval({"alpha": None}) == "-"
    assert interval(row | {"alpha_low": 0.4, "alpha_high": 0.6}) == "0.500 [0.400, 0.600]"


def test_an_alpha_that_is_not_established_stands_in_parentheses() -> None:
    row = {"alpha": 0.5, "alpha_low": 0.4, "alpha_high": 0.6, "established": False}
    assert interval(row) == "(0.500 [0.400, 0.600])"


def test_ties_are_counted_in_the_table() -> None:
    assert best({"best_family": "tanh", "tied": "erf|isru"}) == "tanh +2"
    assert best({"best_family": "erf", "tied": ""}) == "erf"
    assert best({"best_family": None}) == best({"best_family": ""}) == "-"


def test_where_the_s_is() -> None:
    rows = [
        alpha_row(n, f"norm{n}", status="curved", r2=0.9 + n / 1000, gain=n / 1000)
        for n in range(1, 9)
    ]
    line = where_s([*rows, alpha_row(9, "last")])
    assert line.startswith(
        "S-shaped: 8 of 9; R2 above that of a line: norm8 +0.008, norm7 +0.007, "
    )
    assert line.endswith("and 2 more")
    assert where_s([alpha_row(0, "norm")]) == ("shown to be S-shaped: none")
    rows = [alpha_row(0, "norm"), alpha_row(1, "last", status="undetermined")]
    assert where_s(rows) == "shown to be S-shaped: none (1 not decided)"


def test_massive_activations_are_named() -> None:
    assert "massive activations: norm (channels: 3)" in notes(
        [alpha_row(0, "norm", massive_channels=3.0)]
    )
