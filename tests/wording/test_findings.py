"""Findings as sentences: every number in them stands in a table."""

from __future__ import annotations

import pytest

from probe.formatting import records
from probe.records import Status
from probe.wording.attention import attention_findings
from probe.wording.layer_findings import OWN_SENTENCES, layer_findings
from probe.wording.layers import status_help
from support import figure_data
from support.fake_runs import alpha_row


def test_sentences_hold_the_numbers_of_the_tables() -> None:
    rows = records(figure_data.make(["curved", "curved", "linear", "affine"]).alphas)
    rows[0] |= {"best_family": "erf", "tied": "tanh|isru", "r2_ceiling": 0.98}
    rows[1] |= {"best_family": "erf", "r2": 0.95, "gain": 0.05}
    said = {finding.topic: finding.text for finding in layer_findings(rows)}
    assert said["Shape"].startswith(
        "2 of 4 layers are S-shaped; the first is blocks.0.norm1 (number 1 in execution order), "
        "the last"
    )
    assert (
        "a tanh explains 0.970 of the variance, a straight line 0.900 (gain 0.07)" in said["Shape"]
    )
    assert said["Alpha"].startswith(
        "The fitted \u03b1 goes from 0.100 (blocks.0.norm2) to 0.200 (blocks.0.norm1)."
    )
    assert "The tanh reaches 99.0 %" in said["Alpha"]
    assert (
        said["Best curve"] == "Highest R\u00b2, of 2 S-shaped layers: erf 2. "
        "Not told from the best one: tanh 1, isru 1."
    )
    assert "Massive activations: blocks.0.norm2 (channels: 1)." in said["Extremes"]
    assert "The largest input is 120 by amount, in norm." in said["Extremes"]


def test_heads_are_told_by_their_reach() -> None:
    heads = [
        {
            "layer": "a",
            "depth": 0,
            "head": 0,
            "distance_px": 10.0,
            "uniform_px": 100.0,
            "prefix_mass": 0.1,
        },
        {
            "layer": "b",
            "depth": 1,
            "head": 1,
            "distance_px": 90.0,
            "uniform_px": 100.0,
            "prefix_mass": 0.3,
        },
    ]
    (said,) = attention_findings(heads)
    assert "2 heads in 2 layers: 1 local" in said.text
    assert (
        "Nearest: head 1 of a with 10.0 px; farthest: head 2 of b with 90.0 px (heads count from "
        "1)." in said.text
    )
    assert (
        "Patches put 20.0 % of their attention on class and register tokens on average, 30.0 % in "
        "head 2 of b." in said.text
    )
    assert attention_findings([]) == []


@pytest.mark.parametrize("status", Status)
def test_no_status_is_passed_over_in_silence(status: Status) -> None:
    """Layers of a status without a sentence of its own are named with what it means."""
    said = " ".join(text for _, text in layer_findings([alpha_row(0, "norm", status=status.value)]))
    if status not in OWN_SENTENCES:
        meaning = status.meaning.replace("R2", "R\u00b2")
        assert f"{status.words.capitalize()} ({meaning}): norm." in said
    if status is not Status.CAPTURED:
        assert f"{status.words}: {status.meaning}" in status_help()
