"""Figures of a training and of a tracking: what is drawn is what the tables say."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probe.plots import Frame, by_epoch, tracking, tracking_curves, training, training_alpha
from probe.training.reporting import figures as of_training
from probe.training.tracking import figures as of_tracking
from support import training_data as data
from support.figure_data import check_legible, words

FRAME = Frame(
    "vit_base_patch16_224, 31 checkpoints, 128 images of 14 photographs", "random weights"
)


def drawn(ax: Axes, gid: str) -> np.ndarray:
    [line] = [each for each in ax.lines if each.get_gid() == gid]
    return np.asarray(line.get_ydata(), dtype=float)


def gids(ax: Axes) -> list[str]:
    return [str(each.get_gid()) for each in ax.lines]


def names(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts if text.get_gid() == "name"]


FIGURES: dict[str, Callable[[list[str], list[int]], Figure]] = {
    "gain": lambda layers, epochs: tracking.gain_by_epoch(
        data.tracked_table(layers, epochs), frame=FRAME
    ),
    "alpha": lambda layers, epochs: tracking.alpha_by_epoch(
        data.tracked_table(layers, epochs), frame=FRAME
    ),
    "extremes": lambda layers, epochs: tracking.extremes_by_epoch(
        data.tracked_table(layers, epochs), frame=FRAME
    ),
    "shape": lambda layers, epochs: tracking.shape_by_epoch(
        data.tracked_table(layers, epochs), frame=FRAME, unit="step"
    ),
    "curves": lambda layers, epochs: tracking_curves.curves_by_epoch(
        data.tracked_table(layers, epochs), layers[:6], frame=FRAME
    ),
    "attention": lambda layers, epochs: tracking.attention_by_epoch(
        data.heads_table([f"{name}.attn" for name in layers], epochs), frame=FRAME
    ),
    "training": lambda layers, epochs: training.training_curves(
        data.epochs_table(epochs[-1]), frame=FRAME
    ),
    "alpha evolution": lambda layers, epochs: training.alpha_evolution(
        data.norms_table(layers, epochs[-1]), frame=FRAME
    ),
    "parameters": lambda layers, epochs: training.norm_parameters(
        data.norms_table(layers, epochs[-1], list(training.QUANTITIES)), frame=FRAME
    ),
    "final alpha": lambda layers, epochs: training_alpha.final_alpha(
        data.norms_table(layers, epochs[-1]), frame=FRAME
    ),
    "alpha and 1/std": lambda layers, epochs: training_alpha.alpha_with_inverse_std(
        data.norms_table(layers, epochs[-1]), layers[:4], frame=FRAME
    ),
}


@pytest.mark.parametrize(
    "epochs",
    [
        pytest.param([1], marks=pytest.mark.slow),
        [0, 5],
        pytest.param([0, 1, 2, 5, 10, 300], marks=pytest.mark.slow),
        list(range(31)),
    ],
    ids=len,
)
@pytest.mark.parametrize("layers", [["norm"], data.VIT, data.RESNET50], ids=len)
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_legible_for_any_number_of_layers_and_epochs(
    name: str, layers: list[str], epochs: list[int]
) -> None:
    check_legible(FIGURES[name](layers, epochs))


@pytest.mark.parametrize("figures", [of_tracking, of_training], ids=["tracking", "training"])
def test_every_figure_of_a_page_has_its_words(figures: ModuleType) -> None:
    assert list(figures.KINDS) == list(figures.WORDS)


def test_a_line_per_layer_holds_its_values_and_a_gap_where_there_is_none() -> None:
    table = data.tracked_table(["a", "b"], (0, 1, 5), curved_from=[0, 1])
    ax = tracking.alpha_by_epoch(table).axes[0]
    rows = table[table["layer"] == "a"]
    np.testing.assert_allclose(drawn(ax, "line a"), rows["alpha"])
    np.testing.assert_allclose(drawn(ax, "line b"), [2 / 5, 2 / 9])  # none at epoch 0
    assert ax.get_yscale() == "log"


def test_what_is_not_established_is_pale_and_hollow() -> None:
    table = data.tracked_table(["a"], (0, 1, 5), curved_from=[5])
    ax = tracking.gain_by_epoch(table).axes[0]
    np.testing.assert_allclose(drawn(ax, "line a"), [np.nan, np.nan, table["gain"].iloc[2]])
    np.testing.assert_allclose(drawn(ax, "not established"), table["gain"])
    [pale] = [line for line in ax.lines if line.get_gid() == "not established"]
    assert pale.get_alpha() == by_epoch.PALE
    assert len(drawn(ax, "hollow")) == 2
    assert len(drawn(ax, "filled")) == 1


def test_dots_do_not_hide_the_lines_of_a_long_training() -> None:
    long = tracking.gain_by_epoch(data.tracked_table(["a"], range(40))).axes[0]
    assert not {"hollow", "filled"} & set(gids(long))


def test_the_threshold_is_in_the_figure_of_gains_whatever_the_gains_are() -> None:
    for start in (0, None):
        table = data.tracked_table(["a"], (0, 5), curved_from=[start])
        ax = tracking.gain_by_epoch(table).axes[0]
        np.testing.assert_allclose(drawn(ax, "threshold"), 1e-3)
        assert ax.get_ylim()[0] < 1e-3 < ax.get_ylim()[1]


def test_gains_below_the_floor_are_drawn_there() -> None:
    table = data.tracked_table(["a"], (0, 5)).assign(gain=[-1e-3, 1e-7])
    ax = tracking.gain_by_epoch(table).axes[0]
    np.testing.assert_allclose(drawn(ax, "line a"), tracking.FLOOR)


def test_layers_that_are_a_fan_of_lines_have_no_gain() -> None:
    table = data.tracked_table(["a", "b"], (0, 5))
    table.loc[table["layer"] == "b", "status"] = "affine"
    assert "line b" not in gids(tracking.gain_by_epoch(table).axes[0])


def test_a_few_lines_carry_names_the_highest_and_the_lowest_among_them() -> None:
    norms = data.norms_table(data.RESNET50, 10, ["alpha"])
    ax = training.alpha_evolution(norms).axes[0]
    last = norms[norms["epoch"] == 10].sort_values("value")["layer"]
    assert len(names(ax)) == 7
    assert {last.iloc[0], last.iloc[-1]} <= set(names(ax))
    assert sum(gid.startswith("line ") for gid in gids(ax)) == 53


def test_depth_is_a_colour_that_grows_lighter() -> None:
    figure = training.alpha_evolution(data.norms_table(data.VIT, 3, ["alpha"]))
    lines = {line.get_gid(): line.get_color() for line in figure.axes[0].lines}
    lightness = [sum(lines[f"line {name}"][:3]) for name in data.VIT]
    assert lightness == sorted(lightness)
    assert figure.axes[1].get_ylabel() == "depth (execution order)"


def test_every_status_stands_where_its_checkpoint_and_layer_are() -> None:
    table = data.tracked_table(["a", "b"], (0, 10, 20), curved_from=[10, None])
    ax = tracking.shape_by_epoch(table).axes[0]
    marks = {
        line.get_gid(): sorted(zip(line.get_xdata(), line.get_ydata(), strict=True))
        for line in ax.lines
    }
    assert marks["status curved"] == [(1, 0), (2, 0)]
    assert marks["status linear"] == [(0, 0), (0, 1), (1, 1), (2, 1)]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "10", "20"]


def test_curves_span_the_inputs_that_their_checkpoint_saw() -> None:
    table = data.tracked_table(["a"], (0, 10), curved_from=[10])
    ax = tracking_curves.curves_by_epoch(table, ["a"]).axes[0]
    pale, curve = (
        next(line for line in ax.lines if line.get_gid() == gid)
        for gid in ("not established", "curve")
    )
    row = table.iloc[1]
    x, z = np.asarray(curve.get_xdata()), np.asarray(curve.get_ydata())
    assert (x[0], x[-1]) == (row["min_input"], row["max_input"])
    np.testing.assert_allclose(z, row["gamma"] * np.tanh(row["alpha"] * x) + row["beta"])
    np.testing.assert_allclose(pale.get_ydata(), np.asarray(pale.get_xdata()) + 0.1)  # its line
    assert pale.get_alpha() == by_epoch.PALE


def test_a_layer_without_any_curve_says_what_it_is() -> None:
    table = data.tracked_table(["a"], (0, 1)).assign(
        status="not_called", alpha=np.nan, slope=np.nan, min_input=np.nan, max_input=np.nan
    )
    assert "not called" in words(tracking_curves.curves_by_epoch(table, ["a"]))


def test_attention_starts_at_zero_and_shows_uniform_attention() -> None:
    heads = data.heads_table(["a.attn"], (0, 10), heads=2)
    ax = tracking.attention_by_epoch(heads).axes[0]
    assert ax.get_ylim()[0] == 0
    np.testing.assert_allclose(drawn(ax, "uniform"), 16.55)
    np.testing.assert_allclose(
        drawn(ax, "line a.attn"), heads.groupby("epoch")["distance_px"].mean()
    )


def test_without_pixels_distances_are_in_patches() -> None:
    heads = data.heads_table(["a.attn"], (0, 10)).assign(distance_px=np.nan, uniform_px=np.nan)
    ax = tracking.attention_by_epoch(heads).axes[0]
    assert ax.get_ylabel() == "Mean attention distance (patches)"
    assert "uniform" not in gids(ax)


def test_a_training_shows_loss_accuracy_and_time() -> None:
    epochs = data.epochs_table(5)
    loss, accuracy, seconds = training.training_curves(epochs).axes
    np.testing.assert_allclose(drawn(loss, "val_loss"), epochs["val_loss"])
    np.testing.assert_allclose(drawn(loss, "train_loss"), epochs["train_loss"][1:])
    np.testing.assert_allclose(drawn(accuracy, "top1"), epochs["top1"])
    assert seconds.get_ylim()[0] == 0
    assert (loss.get_ylabel(), seconds.get_ylabel()) == ("Loss", "Seconds per epoch")


def test_a_panel_without_data_is_left_out() -> None:
    epochs = data.epochs_table(5, classes=3).assign(seconds=np.nan, eval_seconds=np.nan)
    _, accuracy = training.training_curves(epochs).axes
    assert gids(accuracy) == ["top1"]  # no top-5 of three classes


def test_the_mean_over_heads_stands_for_a_layer() -> None:
    norms = pd.DataFrame(
        {
            "epoch": [1] * 4,
            "layer": ["a", "a", "b", "c"],
            "depth": [0, 0, 1, 2],
            "kind": ["dtn", "dtn", "dtn", "switch_norm"],  # whose shares sum to one
            "quantity": ["mean_share"] * 4,
            "index": [0, 1, 0, 0],
            "value": [0.2, 0.6, 0.5, 0.3],
        }
    )
    rows = training.of_quantity(norms, "mean_share")
    assert list(rows["value"]) == pytest.approx([0.4, 0.5])


def test_a_quantity_that_is_zero_everywhere_has_no_panel() -> None:
    norms = data.norms_table(["a", "b"], 3, ["gain_mean", "gain_negative_share"])
    norms.loc[norms["quantity"] == "gain_negative_share", "value"] = 0.0
    assert training.told_quantities(norms) == ["gain_mean"]


def test_final_alpha_is_that_of_the_last_epoch_a_negative_one_by_amount() -> None:
    norms = data.norms_table(["a", "b"], 3, ["alpha", "inverse_std"])
    last = (norms["epoch"] == 3) & (norms["quantity"] == "alpha") & (norms["layer"] == "b")
    norms.loc[last, "value"] *= -1
    ax = training_alpha.final_alpha(norms).axes[0]
    points = {each.get_gid(): np.asarray(each.get_offsets()) for each in ax.collections}
    ends = norms[norms["epoch"] == 3].pivot(index="layer", columns="quantity", values="value")
    np.testing.assert_allclose(points["alpha"], [ends.loc["a", ["inverse_std", "alpha"]]])
    np.testing.assert_allclose(points["negative"], [ends.loc["b", ["inverse_std", "alpha"]].abs()])
    assert "identity" in gids(ax)


def test_alpha_and_inverse_std_share_a_panel() -> None:
    norms = data.norms_table(["a", "b"], 4, ["alpha", "inverse_std"])
    ax = training_alpha.alpha_with_inverse_std(norms, ["b"]).axes[0]
    rows = norms[norms["layer"] == "b"].pivot(index="epoch", columns="quantity", values="value")
    np.testing.assert_allclose(drawn(ax, "alpha"), rows["alpha"])
    np.testing.assert_allclose(drawn(ax, "inverse_std"), rows["inverse_std"])
