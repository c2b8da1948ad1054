"""`plot` draws what a run has data for, the same bytes each time, and says in one line what it
cannot draw.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from probe.errors import ProbeError, UsageError
from probe.jobs.drawing.draw import ATTENTION_KINDS, KINDS, figure, plot
from probe.jobs.drawing.tables import FigureTables, evenly, is_prefix
from probe.store.results import put
from probe.store.run import Run
from support import stored_runs
from support.stored_runs import attention_data, figure_data


@pytest.fixture
def vit(tmp_path: Path) -> Run:
    """Five LayerNorms: curved, linear, not finite and never called; and one attention layer."""
    tables = figure_data.make(["curved", "linear", "not_finite", "not_called", "curved"])
    return stored_runs.store(tmp_path / "vit", tables, heads=attention_data.make("one"))


@pytest.fixture
def resnet(tmp_path: Path) -> Run:
    return stored_runs.store(tmp_path / "resnet", figure_data.make("affine", 3))


def test_draws_every_figure_as_png_and_svg(vit: Run) -> None:
    paths = plot(vit)
    drawn = [
        kind for kind in KINDS if kind != "lines"
    ]  # that one is of layers that are affine per channel
    assert [path.name for path in paths] == [
        f"{kind}.{ending}" for kind in drawn for ending in ("png", "svg")
    ]
    assert {path.parent for path in paths} == {vit.path / "figures"}
    assert all(
        path.read_bytes().startswith(b"\x89PNG" if path.suffix == ".png" else b"<?xml")
        for path in paths
    )
    assert sorted(p.name for p in (vit.path / "figures").iterdir()) == sorted(
        path.name for path in paths
    )


def test_the_same_run_gives_the_same_bytes(vit: Run, tmp_path: Path) -> None:
    kinds = ["s_curves", "by_position", "families"]
    first, second = (plot(vit, kinds, out=tmp_path / name) for name in ("a", "b"))
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name
    assert b"<dc:date>" not in first[1].read_bytes()


def test_progress_names_each_figure_and_comes_to_its_end(resnet: Run) -> None:
    said: list[tuple] = []
    plot(
        resnet,
        ["s_curves", "extremes"],
        formats=["svg"],
        progress=lambda *report: said.append(report),
    )
    assert said == [
        ("figures", 0, 2, "s_curves"),
        ("figures", 1, 2, "extremes"),
        ("figures", 2, 2, ""),
    ]


def test_dense_marks_are_an_image_inside_the_svg(vit: Run) -> None:
    (svg,) = plot(vit, ["s_curves_selected"], formats=["svg"])
    text = svg.read_text(encoding="utf-8")
    assert "<image" in text
    assert text.count("<use") < 600  # ticks and letters, not the 1500 points


def test_an_affine_run_leaves_out_what_it_has_no_data_for(
    resnet: Run, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "probe.jobs.drawing.draw"):
        drawn = {path.stem for path in plot(resnet, formats=["svg"])}
    assert drawn == set(KINDS) - set(ATTENTION_KINDS) - {"families", "tokens"}
    assert "figure tokens left out: no layer sees prefix tokens" in caplog.text


def test_a_figure_asked_for_that_has_no_data_is_an_error(resnet: Run) -> None:
    with pytest.raises(
        ProbeError, match=r"figure tokens of .* cannot be drawn: no layer sees prefix tokens"
    ):
        plot(resnet, ["tokens"])


def test_layers_restrict_the_attention_figures_too(vit: Run) -> None:
    assert set(FigureTables(vit, "blocks.0.*").attention["layer"]) == {"blocks.0.attn"}
    assert FigureTables(vit, "blocks.0.attn").names == []
    with pytest.raises(ProbeError, match=r"cannot be drawn: no attention layer is called norm"):
        plot(vit, ["attention_heads"], layers="norm")


def test_a_run_of_attention_alone_draws_its_figures_and_no_other(tmp_path: Path) -> None:
    run = stored_runs.store_attention(tmp_path / "run", attention_data.make("one"))
    assert {path.stem for path in plot(run, formats=["svg"])} == set(ATTENTION_KINDS)
    with pytest.raises(
        ProbeError,
        match=r"figure s_curves of .* cannot be drawn: the run holds attention distances only",
    ):
        plot(run, ["s_curves"])


def test_a_figure_of_attention_that_was_not_read_says_why(resnet: Run) -> None:
    with pytest.raises(
        ProbeError,
        match=r"has no attention table: it was captured without; `probe-norms attention --model",
    ):
        plot(resnet, ["attention_distance"])


@pytest.mark.parametrize("kind", KINDS)
def test_random_weights_stand_in_every_figure(kind: str, tmp_path: Path) -> None:
    tables = (
        figure_data.make("affine", 3) if kind == "lines" else figure_data.make(["curved", "linear"])
    )
    heads = attention_data.make("one")
    run = stored_runs.store(tmp_path / "run", tables, weights="random", heads=heads)
    figure = KINDS[kind](FigureTables(run))
    (mark,) = [text for text in figure.texts if text.get_gid() == "warning"]
    assert "RANDOM WEIGHTS" in mark.get_text()


def test_layers_restrict_every_table(vit: Run) -> None:
    tables = FigureTables(vit, ["blocks.0.*", "norm"])
    assert tables.names == ["blocks.0.norm1", "blocks.0.norm2", "norm"]
    assert tables.selected == tables.names
    assert set(tables.fits["layer"]) == set(tables.alphas["layer"]) == set(tables.names)


def test_the_fan_holds_slope_offset_and_range_of_affine_layers(resnet: Run, vit: Run) -> None:
    fan = FigureTables(resnet).fan
    assert list(fan.columns) == ["layer", "channel", "slope", "offset", "low", "high"]
    assert len(fan) == 3 * figure_data.CHANNELS
    assert FigureTables(vit).fan.empty


def test_another_family_can_be_drawn_if_it_was_fitted(vit: Run, tmp_path: Path) -> None:
    erf, tanh = (
        plot(vit, ["s_curves"], formats=["svg"], out=tmp_path / f, family=f)[0]
        for f in ("erf", "tanh")
    )
    assert erf.read_bytes() != tanh.read_bytes()
    fits = vit.fits()
    vit.save_table("fits", fits[fits["family"].isin(["linear", "tanh"])])
    with pytest.raises(
        UsageError, match=r"family 'erf' was not fitted in run .*; fitted: linear, tanh"
    ):
        plot(vit, ["s_curves"], family="erf")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"kinds": ["s_curve"]},
            r"figure 's_curve' is unknown \(did you mean s_curves.*known: s_curves, "
            r"s_curves_selected",
        ),
        ({"formats": ["gif"]}, "format 'gif' is unknown.*known: png, svg, pdf"),
        ({"layers": ["blocks.9.*"]}, r"'blocks.9.\*' matches none of the \d+ layers of run"),
        ({"family": "sigmoid"}, "family 'sigmoid' is unknown"),
        ({"formats": []}, "no format given"),
    ],
)
def test_names_that_do_not_exist_are_one_line(
    vit: Run, options: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        plot(vit, **options)
    assert "\n" not in str(caught.value)
    assert not (vit.path / "figures").exists()


def test_a_run_that_is_not_fitted_says_what_to_do(tmp_path: Path) -> None:
    run = stored_runs.store(tmp_path / "run", figure_data.make(), fitted=False)
    with pytest.raises(UsageError, match=r"has no fits yet: `probe-norms fit"):
        plot(run)


def test_a_folder_that_cannot_be_made_is_one_line(vit: Run, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UsageError, match="taken is a file; give a folder"):
        plot(vit, out=tmp_path / "taken")
    with pytest.raises(ProbeError, match="cannot be written"):
        plot(vit, out=tmp_path / "taken" / "figures")


def test_nothing_to_show_at_all(tmp_path: Path) -> None:
    """No layer was ever called."""
    run = stored_runs.store(tmp_path / "run", figure_data.make("not_called", 2))
    with pytest.raises(ProbeError, match="no layer has samples"):
        plot(run, ["s_curves"])
    assert {path.stem for path in plot(run, formats=["png"])} == set()


def test_leaves_no_pyplot_figure(vit: Run) -> None:
    import matplotlib.pyplot as plt

    plot(vit, ["alpha_vs_inverse_std"], formats=["png"])
    assert not plt.get_fignums()


def test_pdf_has_no_date(vit: Run, tmp_path: Path) -> None:
    a, b = (
        plot(vit, ["alpha_vs_inverse_std"], formats=["pdf"], out=tmp_path / name)[0].read_bytes()
        for name in "ab"
    )
    assert a == b
    assert b"CreationDate" not in a


def test_selected_layers_are_evenly_spaced_by_depth() -> None:
    assert evenly([str(i) for i in range(25)], 4) == ["0", "8", "16", "24"]
    assert evenly(["a", "b"], 4) == ["a", "b"]


def test_prefix_tokens_of_each_head_are_found() -> None:
    """q/k norms run over (head, token): 3 heads of 5 tokens, the first two of each being prefix."""
    plain = pd.Series({"prefix_tokens": 2, "positions": 5})
    heads = pd.Series({"prefix_tokens": 6, "positions": 15})
    assert np.flatnonzero(is_prefix(np.arange(5), plain, 2)).tolist() == [0, 1]
    assert np.flatnonzero(is_prefix(np.arange(15), heads, 2)).tolist() == [0, 1, 5, 6, 10, 11]


def test_one_figure_shows_itself_in_a_notebook_and_writes_nothing(vit: Run) -> None:
    shown = figure(vit, "s_curves_selected")
    assert shown._repr_png_().startswith(b"\x89PNG")
    assert not (vit.path / "figures").exists()


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [("s_curve", UsageError, "s_curves"), ("alpha_vs_inverse_std", ProbeError, "no layer")],
)
def test_one_figure_that_cannot_be_drawn_says_why(
    resnet: Run, kind: str, error: type[Exception], words: str
) -> None:
    table = resnet.alphas().assign(
        slope=np.nan, status="constant", slope_min=np.nan, slope_median=np.nan, slope_max=np.nan
    )
    put(resnet.path / "alpha.csv", table.to_csv(index=False).encode())
    with pytest.raises(error, match=words):
        figure(resnet, kind)
