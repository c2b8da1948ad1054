"""Prefix and patch tokens each have their points and their curve."""

from __future__ import annotations

import numpy as np
import pandas as pd

from probe import plots
from support import figure_data


def with_tokens(tables: figure_data.Tables) -> pd.DataFrame:
    return tables.samples.assign(
        tokens=np.where(tables.samples["position"] == 0, "prefix", "patch")
    )


def test_each_kind_has_its_points_and_its_curve() -> None:
    tables = figure_data.make(count=1)
    samples = with_tokens(tables)
    ax = plots.prefix_and_patch(samples, tables.fits)
    for kind, alpha in (("patch", 0.2), ("prefix", 0.4)):
        (dots,) = [c for c in ax.collections if c.get_gid() == kind]
        assert len(dots.get_offsets()) == (samples["tokens"] == kind).sum()
        (curve,) = [x for x in ax.lines if x.get_gid() == f"{kind} fit"]
        x, z = curve.get_data()
        np.testing.assert_allclose(z, 3.0 * np.tanh(alpha * x) + 0.05)


def test_a_curve_ends_where_its_tokens_end() -> None:
    """Nothing is drawn where no token of that kind was seen."""
    tables = figure_data.make(count=1)
    samples = with_tokens(tables)
    ax = plots.prefix_and_patch(samples, tables.fits)
    (curve,) = [x for x in ax.lines if x.get_gid() == "prefix fit"]
    seen = samples.loc[samples["tokens"] == "prefix", "input"]
    np.testing.assert_allclose(
        [min(curve.get_xdata()), max(curve.get_xdata())], [seen.min(), seen.max()]
    )


def test_the_grid_names_both_alphas() -> None:
    tables = figure_data.make(count=2)
    figure = plots.token_grid(with_tokens(tables), tables.fits, tables.names)
    text = figure_data.words(figure)
    assert "\u03b1 0.200  R\u00b2 0.968/0.980" in text
    assert "\u03b1 0.400  R\u00b2 0.968/0.980" in text


def test_one_kind_alone_is_drawn() -> None:
    tables = figure_data.make(count=1)
    ax = plots.prefix_and_patch(with_tokens(tables).query("tokens == 'patch'"), tables.fits)
    assert {c.get_gid() for c in ax.collections} == {"patch"}
