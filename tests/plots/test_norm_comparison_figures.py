"""Figures of a comparison of norms: every seed is a dot, every interval a line, nothing is cut."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from probe.plots import Frame, norm_comparison
from probe.plots.norm_comparison_alpha import alpha_by_norm
from probe.training.comparing import figures
from probe.training.comparing.tables import comparison_table
from support.figure_data import check_legible
from support.training_data import VIT, norms_table

FRAME = Frame("vit_tiny_patch16_224, 3 seeds, 5 epochs of 5,000 images")
NINE = "layer_norm batch_norm dyt:fitted derf rms_norm unified_norm learnable_scaler+init=ones own"


def cells(norms: list[str], seeds: int = 3) -> pd.DataFrame:
    """A row per norm and seed; the norms rise by a point."""
    g = np.random.default_rng(0)
    rows = [
        {
            "norm": norm,
            "seed": seed,
            "status": "finished",
            "reason": None,
            "lr": 1e-3,
            "top1": 40 + place + g.normal(),
            "val_loss": 1.5,
            "train_loss": 1.6,
            "parameters": 1000,
            "seconds_per_epoch": 10.0 + place,
            "attention_px": 10.0,
        }
        for seed in range(seeds)
        for place, norm in enumerate(norms)
    ]
    return pd.DataFrame(rows)


def times(norms: list[str]) -> dict[str, dict[str, float]]:
    return {norm: {"forward_ms": 5.0 + place} for place, norm in enumerate(norms)}


def epochs(norms: list[str], seeds: int = 3) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"norm": norm, "seed": seed, "epoch": epoch, "top1": 30 + epoch + place + seed / 2,
             "train_loss": 2 - epoch / 9 if epoch else np.nan}
            for place, norm in enumerate(norms)
            for seed in range(seeds)
            for epoch in range(6)
        ]
    )  # fmt: skip


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("norms", [["layer_norm", "dyt"], NINE.split()], ids=len)
def test_every_figure_is_legible(norms: list[str], seeds: int) -> None:
    table = cells(norms, seeds)
    summary = comparison_table(table, norms[0], times(norms))
    check_legible(norm_comparison.accuracy_by_norm(table, summary, frame=FRAME))
    check_legible(norm_comparison.comparison_curves(epochs(norms, seeds), norms, frame=FRAME))
    check_legible(norm_comparison.cost_against_accuracy(summary, frame=FRAME))


def test_the_reference_is_named_inside_whether_it_is_the_best_or_the_worst() -> None:
    for order in (["own", "dyt"], ["dyt", "own"]):
        table = cells(order)
        check_legible(
            norm_comparison.accuracy_by_norm(table, comparison_table(table, "own", {}), frame=FRAME)
        )


@pytest.mark.parametrize("count", [1, 2, 4])
def test_learned_alphas_are_legible(count: int) -> None:
    tables = {f"dyt+alpha_init=0.{n}": norms_table(VIT, epochs=5) for n in range(count)}
    check_legible(alpha_by_norm(tables, frame=FRAME))


def test_every_seed_is_a_dot_and_a_failed_norm_says_so() -> None:
    table = cells(["layer_norm", "dyt", "derf"])
    broken = table["norm"] == "derf"
    table.loc[broken, "status"] = "failed"
    table.loc[broken, "top1"] = np.nan
    summary = comparison_table(table, "layer_norm", {})
    ax = norm_comparison.accuracy_by_norm(table, summary).axes[0]
    drawn = {str(line.get_gid()): np.sort(line.get_xdata()) for line in ax.lines}
    for norm in ("layer_norm", "dyt"):
        expected = table.loc[table["norm"] == norm, "top1"]
        np.testing.assert_allclose(drawn[f"seeds {norm}"], np.sort(expected))
        np.testing.assert_allclose(drawn[f"mean {norm}"], [expected.mean()] * 2)
    assert [text.get_text() for text in ax.texts] == ["failed"]


def test_the_interval_is_drawn_from_end_to_end() -> None:
    table = cells(["layer_norm", "dyt"])
    summary = comparison_table(table, "layer_norm", {})
    ax = norm_comparison.accuracy_by_norm(table, summary).axes[1]
    [line] = [each for each in ax.lines if each.get_gid() == "interval dyt"]
    row = summary.set_index("norm").loc["dyt"]
    np.testing.assert_allclose(line.get_xdata(), [row.difference_low, row.difference_high])


def test_every_figure_has_its_words() -> None:
    assert list(figures.KINDS) == list(figures.WORDS)
