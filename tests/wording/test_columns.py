"""Columns are described once and completely, for screen, page and documentation."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from probe.cli.views.grid import columns_of
from probe.formatting import records
from probe.jobs.drawing.compare import key_numbers
from probe.jobs.page_tables import layer_table
from probe.jobs.reporting.comparison import all_numbers
from probe.store.schema import ALPHAS, LAYERS, SAMPLE_SCHEMA, TABLES
from probe.wording import columns
from probe.wording.columns import Column, in_terminal, on_page
from probe.wording.columns.markdown import page, table_of
from support import attention_data, figure_data, stored_runs
from support.fake_runs import alpha_row, resnet_alphas, vit_alphas

DOCS = Path(__file__).parents[2] / "docs" / "columns.md"
FILES: dict[str, Collection[str]] = {
    "alpha.csv, alpha.json": ALPHAS,
    "layers in manifest.json": LAYERS,
    "samples/": SAMPLE_SCHEMA.names,
    **{f"{name}.parquet": schema.names for name, schema in TABLES.items()},
}
EVERY = [(title, column) for title, table in columns.TABLES.items() for column in table]


@pytest.mark.parametrize("title", FILES)
def test_every_field_of_every_file_is_described_once(title: str) -> None:
    described = [column.name for column in columns.TABLES[title] if column.stored]
    assert len(described) == len(set(described))
    assert set(FILES[title]) <= set(described)
    if title != "layers in manifest.json":  # its records hold more than `run.layers` shows
        assert set(described) <= set(FILES[title])


@pytest.mark.parametrize(
    ("title", "column"), EVERY, ids=[f"{title}: {column.name}" for title, column in EVERY]
)
def test_a_description_is_a_sentence_with_a_known_unit(title: str, column: Column) -> None:
    assert column.meaning[-1] in ".?"
    assert column.unit in columns.UNITS
    assert column.header.isascii()  # for terminals


def test_the_page_of_the_documentation_is_made_from_the_descriptions() -> None:
    again = "run `python -m probe.wording.columns > docs/columns.md`"
    assert DOCS.read_text(encoding="utf-8") == page(), again


def test_a_bar_in_a_cell_is_no_border_of_the_table() -> None:
    rows = table_of([Column("max", "Largest |input|.", "input")]).splitlines()
    assert rows[-1] == r"| `max` | input | Largest \|input\|. |"


def test_terminal_and_page_show_the_same_columns_in_the_same_order() -> None:
    rows = records(vit_alphas()) + [alpha_row(17, "head", kind="rms_norm", channels=64)]
    shown = [column for column, _ in in_terminal(columns.ALPHAS, rows)]
    assert shown == on_page(columns.ALPHAS, rows)
    heads = layer_table("t", rows, {}).columns
    assert [head.header for head in heads] == [column.typeset for column in shown]
    assert (heads[4].header, heads[6].header) == ("\u03b1 [95 %]", "R\u00b2")


def test_what_all_rows_share_goes_first_in_the_terminal_and_is_left_out_of_the_page() -> None:
    rows = records(vit_alphas())
    ranks = {column.header: column.rank for column in columns_of(columns.ALPHAS, rows)}
    assert sorted(ranks, key=lambda name: ranks[name])[-2:] == ["C", "kind"]
    assert not {"C", "kind"} & {column.header for column in on_page(columns.ALPHAS, rows)}


def test_layers_that_are_all_fans_of_lines_have_no_columns_of_curves() -> None:
    shown = {column.header for column in on_page(columns.ALPHAS, records(resnet_alphas()))}
    assert {"slopes", "R2 one line"} <= shown
    assert not {"best", "R2", "alpha [95 %]"} & shown


def test_every_key_number_of_a_run_has_its_column(tmp_path: Path) -> None:
    tables = figure_data.make(["curved", "linear", "affine"])
    run = stored_runs.store(tmp_path / "run", tables, heads=attention_data.make("one"))
    described = {column.name for column in columns.COMPARED}
    assert set(all_numbers(run)) | {"run"} == described
    stored = {column.name for column in columns.COMPARED if column.stored}
    assert set(key_numbers(run)) | {"run"} == stored
