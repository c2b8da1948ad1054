"""The figure of a conversion: each layer alone and with those before it, what was replaced, legible
at its printed size.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from probe import plots
from probe.plots.convert import FLOOR
from support import figure_data

FRAME = plots.Frame(
    "vit_base_patch16_224, dyt, scope channel, 64 images", "random weights: nothing was learned"
)
RESNET = [
    "bn1",
    *(f"layer{i // 4 + 1}.{i % 4}.{n}" for i in range(16) for n in ("bn1", "bn2", "bn3")),
    *"abcd",
]


def table(
    count: int = 17, names: list[str] | None = None, labels: bool = False, families: str = "mixed"
) -> pd.DataFrame:
    """Plausible costs; the last layer cannot be replaced if `families` is mixed."""
    names = names or figure_data.layer_names(count)
    g, n = np.random.default_rng(0), len(names)
    kl = 10.0 ** g.uniform(-5, -1, n)
    mixed = ["tanh" if i < n / 2 else "linear" for i in range(n)]
    rows = pd.DataFrame(
        {
            "layer": names,
            "depth": np.arange(n),
            "family": mixed if families == "mixed" else [families] * n,
            "rel_error": g.uniform(0.1, 0.3, n),
            "kl": kl,
            "agreement": 1 - kl,
            "accuracy": 0.7 - kl if labels else np.nan,
            "rel_error_cumulative": np.linspace(0.2, 0.6, n),
            "kl_cumulative": kl.cumsum(),
            "agreement_cumulative": np.linspace(0.99, 0.4, n),
            "accuracy_cumulative": np.linspace(0.7, 0.3, n) if labels else np.nan,
            "replaced": True,
        }
    )
    if families == "mixed" and n > 1:
        rows.loc[n - 1, [c for c in rows if rows[c].dtype == float]] = np.nan
        rows.loc[n - 1, ["family", "replaced"]] = ["", False]
    return rows


def drawn(figure: Figure, gid: str) -> Line2D:
    return next(line for ax in figure.axes for line in ax.lines if line.get_gid() == gid)


def test_every_number_of_the_table_is_drawn() -> None:
    rows = table(labels=True)
    figure = plots.conversion_by_depth(rows, accuracy=0.72)
    for suffix in ("", "_cumulative"):
        for name, unit in (("rel_error", 1), ("kl", 1), ("agreement", 100), ("accuracy", 100)):
            np.testing.assert_allclose(
                drawn(figure, name + suffix).get_ydata(), unit * rows[name + suffix]
            )
    assert set(np.asarray(drawn(figure, "original").get_ydata())) == {72.0}


def test_errors_and_kl_stand_on_log_axes_and_zero_on_the_floor_of_float32() -> None:
    rows = table(families="tanh").assign(kl=0.0, rel_error=0.0)
    figure = plots.conversion_by_depth(rows)
    assert [ax.get_yscale() for ax in figure.axes] == ["log", "log", "linear"]
    assert set(np.asarray(drawn(figure, "kl").get_ydata())) == {FLOOR["kl"]}
    assert figure.axes[1].get_ylim()[0] < FLOOR["kl"]


def test_rows_are_put_in_execution_order() -> None:
    figure = plots.conversion_by_depth(table(families="tanh").iloc[::-1])
    assert (np.diff(np.asarray(drawn(figure, "rel_error_cumulative").get_ydata())) > 0).all()


def test_curves_lines_and_layers_left_out_are_told_apart() -> None:
    figure = plots.conversion_by_depth(table())
    assert len(np.asarray(drawn(figure, "stand-in curve").get_xdata())) == 9
    assert len(np.asarray(drawn(figure, "stand-in line").get_xdata())) == 7
    assert np.asarray(drawn(figure, "stand-in ").get_xdata()).tolist() == [16]


@pytest.mark.parametrize("some", [True, False])
def test_replaced_layers_are_tinted_where_not_all_are(some: bool) -> None:
    rows = table(families="tanh")
    if some:
        rows["replaced"] = rows["depth"] >= 12
    figure = plots.conversion_by_depth(rows)
    bands = [patch for patch in figure.axes[0].patches if patch.get_gid() == "replaced"]
    assert len(bands) == (5 if some else 0)
    assert ("replaced in the end" in figure_data.words(figure)) is some


def test_without_labels_nothing_is_said_of_top_1() -> None:
    assert "top-1" not in figure_data.words(plots.conversion_by_depth(table()))
    assert "top-1 of the original" in figure_data.words(
        plots.conversion_by_depth(table(labels=True), accuracy=0.7)
    )


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize(
    "names",
    [figure_data.layer_names(1), figure_data.layer_names(25), RESNET],
    ids=["1", "25", "53"],
)
def test_every_size_is_legible(names: list[str], labels: bool) -> None:
    rows = table(names=names, labels=labels)
    rows.loc[rows["depth"] % 2 == 0, "replaced"] = False
    figure_data.check_legible(
        plots.conversion_by_depth(rows, accuracy=0.7 if labels else None, frame=FRAME)
    )


def test_infinite_kl_is_left_out() -> None:
    rows = table(families="tanh")
    rows.loc[3, "kl"] = np.inf
    figure = plots.conversion_by_depth(rows)
    assert np.isnan(np.asarray(drawn(figure, "kl").get_ydata())[3])
    assert np.isfinite(figure.axes[1].get_ylim()).all()
