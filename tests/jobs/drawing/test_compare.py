"""`compare` says in one row per run what tells them apart, and draws curves over the fan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from probe.errors import UsageError
from probe.jobs.capturing.capture import capture
from probe.jobs.drawing.compare import compare, compare_figure, scope_figure, scope_r2
from probe.jobs.fitting.fit import fit
from probe.store.run import Run
from support import stored_runs
from support.captures import arrays, token_batches
from support.stored_runs import figure_data


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Run, Run]:
    vit = figure_data.make(["curved", "curved", "linear", "not_finite"])
    resnet = figure_data.make("affine", 3)
    return (
        stored_runs.store(tmp_path / "vit", vit, name="vit_tiny"),
        stored_runs.store(tmp_path / "resnet", resnet, name="resnet18", weights="random"),
    )


def test_one_row_per_run_with_its_counts(pair: tuple[Run, Run]) -> None:
    table = compare(*pair)
    assert table["run"].tolist() == ["vit", "resnet"]
    assert table["kinds"].tolist() == ["layer_norm 4", "batch_norm 3"]
    assert table[["layers", "curved", "linear", "affine", "other"]].to_numpy().tolist() == [
        [4, 2, 1, 0, 1],
        [3, 0, 0, 3, 0],
    ]


def test_runs_of_one_folder_name_are_told_by_their_paths(tmp_path: Path) -> None:
    runs = [
        stored_runs.store(tmp_path / name / "run", figure_data.make("curved", 2)) for name in "ab"
    ]
    assert compare(*runs)["run"].tolist() == [str(run.path) for run in runs]


def test_medians_are_over_the_layers_that_have_the_number(pair: tuple[Run, Run]) -> None:
    table = compare(*pair).set_index("run")
    assert table.loc["vit", "median_alpha"] == pytest.approx(0.15)
    assert table.loc["vit", "median_r2_tanh"] == pytest.approx(0.97)
    assert table.loc["vit", "median_r2_line_per_channel"] == pytest.approx(0.9)
    assert table.loc["vit", "max_abs_input"] == pytest.approx(90)
    assert pd.isna(table.loc["resnet", "median_alpha"])


def test_no_tanh_is_reported_for_affine_layers(pair: tuple[Run, Run]) -> None:
    assert pd.isna(compare(*pair).set_index("run").loc["resnet", "median_r2_tanh"])


def test_writes_table_and_figure_only_where_told(pair: tuple[Run, Run], tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    compare(pair[0].path, str(pair[1].path))
    assert sorted(tmp_path.iterdir()) == before
    table = compare(*pair, out=tmp_path / "new" / "compared")
    assert sorted(p.name for p in (tmp_path / "new" / "compared").iterdir()) == [
        "compare.csv",
        *("compare.png", "compare.svg", "r2_by_scope.png", "r2_by_scope.svg"),
    ]
    assert (
        pd.read_csv(tmp_path / "new" / "compared" / "compare.csv")["run"].tolist()
        == table["run"].tolist()
    )


def test_the_figure_names_both_models_and_the_random_one(pair: tuple[Run, Run]) -> None:
    figure = compare_figure(*pair)
    assert figure is not None
    text = figure_data.words(figure)
    assert "vit_tiny, pretrained weights: layer_norm 4" in text
    assert "resnet18, random weights: batch_norm 3" in text
    assert text.count("16 images") == 1  # as many in both runs
    assert "RESNET: RANDOM WEIGHTS" in text
    figure_data.check_legible(figure)


def test_runs_without_fits_say_what_to_do(pair: tuple[Run, Run], tmp_path: Path) -> None:
    bare = stored_runs.store(tmp_path / "bare", figure_data.make(), fitted=False)
    with pytest.raises(UsageError, match="has no alphas yet"):
        compare(pair[0], bare)


def test_r2_by_scope_shows_each_scope_of_each_run(pair: tuple[Run, Run]) -> None:
    figure = scope_figure(*pair)
    drawn = {str(line.get_gid()): line.get_ydata() for line in figure.axes[0].lines}
    assert [name.split(" ")[-1] for name in drawn] == ["layer_r2", "channel_r2"] * 2
    of_run = scope_r2(pair[0])
    assert of_run["layer"].tolist() == pair[0].layers["layer"].tolist()[: len(of_run)]
    first = next(iter(drawn.values()))
    assert list(first) == of_run["layer_r2"].dropna().tolist()
    assert "RESNET: RANDOM WEIGHTS" in figure_data.words(figure)
    figure_data.check_legible(figure)


def test_a_line_per_channel_never_explains_less_of_the_same_elements(tmp_path: Path) -> None:
    """Of a LayerNorm whose channels differ, against both lines by hand over the sampled rows."""
    module = torch.nn.Sequential(torch.nn.LayerNorm(8))
    spread = torch.linspace(0.2, 3, 8)
    run = capture(module, [spread * batch for batch in token_batches()], out=tmp_path / "run")
    fit(run)
    (row,) = scope_r2(run).to_dict("records")
    x, z = (each.astype(np.float64) for each in arrays(run, "0", "input", "normalized"))
    total = ((z - z.mean()) ** 2).sum()
    slope, offset = np.polyfit(x.ravel(), z.ravel(), 1)
    one = ((z - slope * x - offset) ** 2).sum()
    each = sum(
        ((z[:, c] - np.polyval(np.polyfit(x[:, c], z[:, c], 1), x[:, c])) ** 2).sum()
        for c in range(8)
    )
    assert row["layer_r2"] == pytest.approx(1 - one / total, abs=1e-6)
    assert row["channel_r2"] == pytest.approx(1 - each / total, abs=1e-6)
    assert row["channel_r2"] > row["layer_r2"]
