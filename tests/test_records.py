"""The records that travel between the parts."""

from __future__ import annotations

import pickle

import pandas as pd
import pytest

from probe.records import Fit, Status, main_fits


@pytest.mark.parametrize("status", Status)
def test_a_status_is_its_name_and_says_what_it_means(status: Status) -> None:
    assert Status(status.value) is status
    assert f"{status}" == status.value
    assert pickle.loads(pickle.dumps(status)) is status
    assert status.meaning
    assert "\n" not in status.meaning


def test_only_layers_with_a_curve_or_a_line_are_fitted() -> None:
    fitted = {status.value for status in Status if status.fitted}
    straight_or_open = {"linear", "affine", "superlinear", "mixture", "undetermined"}
    assert fitted == straight_or_open | {"curved", "step"}
    assert {status for status in Status if status.shaped} == {Status.CURVED, Status.STEP}


def test_main_fits_are_of_the_whole_layer_every_element_once_and_all_tokens() -> None:
    main = [Fit(family, "layer", "population", "curved") for family in ("linear", "tanh")]
    others = [
        Fit("tanh", "channel", "population", "curved"),
        Fit("tanh", "layer", "range", "curved"),
        Fit("tanh", "layer", "population", "curved", tokens="patch"),
    ]
    fits = [others[0], main[0], others[1], main[1], others[2]]
    assert main_fits(fits) == main
    assert main_fits(fits, family="tanh") == main[1:]
    assert main_fits(fits, scope="channel") == others[:1]
    table = pd.DataFrame([fit.as_dict() for fit in fits])
    assert main_fits(table).index.tolist() == [1, 3]
    assert main_fits(table, family="tanh", weighting="range").index.tolist() == [2]
    assert main_fits(table[:0]).empty
