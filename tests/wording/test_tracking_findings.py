"""Sentences of a tracking: since when a layer is curved, from the table alone."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from probe.formatting import records
from probe.wording.tracking import layer_changes, tracking_findings
from support.training_data import heads_table, tracked_table

NAMES = {"c": "curved", "l": "linear", "u": "undetermined", "a": "affine", "m": "mixture"}


def rows(**layers: str) -> list[dict[str, Any]]:
    """A letter per checkpoint and layer: `norm1="llcc"`."""
    found: list[dict[str, Any]] = []
    for depth, (layer, letters) in enumerate(layers.items()):
        for epoch, letter in enumerate(letters):
            row = {"checkpoint": f"e{epoch}", "epoch": epoch, "layer": layer, "depth": depth}
            found.append(row | {"status": NAMES[letter], "images": 64, "sources": 64})
    return found


def said(topic: str, *table: Any, **layers: str) -> str:
    found = table[0] if table else rows(**layers)
    return dict(tracking_findings(found)).get(topic, "")


@pytest.mark.parametrize(
    ("statuses", "since", "before"),
    [
        ("cccc", 0, None),
        ("llcc", 2, "linear"),
        ("lucc", 2, "undetermined"),
        ("clcc", 2, "linear"),
        ("cucc", 2, "undetermined"),
        ("lllc", 3, "linear"),
        ("cccl", None, None),
        ("cccu", None, None),
        ("llll", None, None),
        ("c", 0, None),
    ],
)
def test_since_is_the_earliest_checkpoint_after_which_none_is_otherwise(
    statuses: str, since: int | None, before: str | None
) -> None:
    [change] = layer_changes(rows(norm=statuses))
    assert (change["since"], change["before"]) == (since, before)
    assert change["from_the_first"] == (since == 0)
    assert change["curved"] == statuses.count("c")
    assert change["undecided"] == statuses.count("u")


def test_a_checkpoint_that_failed_is_no_status_of_any_layer() -> None:
    table = [*rows(norm="ccc"), {"checkpoint": "e9", "epoch": 9, "layer": None, "reason": "broken"}]
    [change] = layer_changes(table)
    assert (change["since"], change["checkpoints"]) == (0, 3)
    assert "Could not be opened: e9 (broken)." in said("Checkpoints", table)
    assert "3 checkpoints, epoch 0 to 2" in said("Checkpoints", table)


def test_the_order_of_the_rows_does_not_matter() -> None:
    table = rows(a="llcc", b="cccc")
    assert layer_changes(table[::-1]) == layer_changes(table)


def test_the_step_into_the_s_is_told_with_what_was_known_before() -> None:
    text = said("When", a="cccc", b="llcc", c="lucc", d="llll")
    assert text == (
        "3 of 4 layers are shown to be S-shaped at the last checkpoint. From the first checkpoint "
        "(epoch 0) on: a. From epoch 2 on: b (linear at epoch 1), c (not decided at epoch 1)."
    )


def test_layers_that_are_a_curve_themselves_are_counted_apart() -> None:
    table = rows(a="cc", b="cc")
    own = [row | {"own_alpha": 0.5 if row["layer"] == "a" else None} for row in table]
    assert "1 DyT or Derf layer among them is so by construction." in said("When", own)
    assert "by construction" not in said("When", table)


def test_all_of_them_from_the_first_on_need_no_list() -> None:
    assert said("When", a="cc", b="cc").endswith("(epoch 0) on: all of them.")


def test_a_training_without_an_s_says_so() -> None:
    assert said("When", a="ll", b="lu") == (
        "None of 2 layers is shown to be S-shaped at the last checkpoint."
    )
    text = said("Not curved", a="ll", b="lu", c="cl")
    assert "Of the others at the last checkpoint: 2 linear, 1 undetermined." in text
    assert "Curved at earlier checkpoints, but not at the last: c (1 of 2)." in text
    assert "Not decided by so few images: b." in text


def test_the_numbers_of_checkpoints_are_called_by_their_unit() -> None:
    table = rows(a="lc")
    text = dict(tracking_findings(table, unit="step"))["When"]
    assert "From step 1 on: a (linear at step 0)." in text


def test_alpha_gain_and_extremes_are_those_of_the_table() -> None:
    table = records(tracked_table(["a", "b"], (0, 10), curved_from=[0, 10]))
    found = dict(tracking_findings(table))
    assert (
        "multiplied by 0.23 (median of 1 layer); it moves most in a, from 0.667 to 0.154"
        in (found["Alpha"])
    )
    assert "in b at epoch 10: a tanh explains 0.0080 of R\u00b2 more" in found["Gain"]
    assert "from 1.0 % at epoch 0 to 1.5 % at epoch 10" in found["Extremes"]
    assert "The largest input of all is 28.0 by amount, in b at epoch 10." in found["Extremes"]


def test_attention_is_told_where_it_was_read() -> None:
    heads = records(heads_table())
    text = dict(tracking_findings(rows(a="cc"), heads))["Attention"]
    assert text.startswith("The mean attention distance of all 9 heads goes from 16.6 px at epoch")
    assert "Attention" not in dict(tracking_findings(rows(a="cc")))


def test_an_empty_table_says_nothing() -> None:
    assert tracking_findings(records(pd.DataFrame(columns=["layer"]))) == []
