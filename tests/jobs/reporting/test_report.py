"""`report` writes one page per run, or one of several: the same bytes for the same run, whatever
the run holds.
"""

from __future__ import annotations

import io
import re
import shutil
from html import unescape
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from probe.errors import UsageError
from probe.jobs.drawing.draw import figure, plot
from probe.jobs.figure_file import picture, pixels
from probe.jobs.reporting import curves as report_curves
from probe.jobs.reporting import figures as report_figures
from probe.jobs.reporting import run_part
from probe.jobs.reporting.report import report, write_report
from probe.jobs.reporting.run_facts import manifest_text
from probe.store.run import Run, open_run
from support import stored_runs
from support.manifests import without_results
from support.stored_runs import attention_data, figure_data


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures are drawn, which take most of the time."""
    monkeypatch.setattr(report_curves, "curve_picture", lambda *_given: None)
    monkeypatch.setattr(run_part, "whole_figures", lambda *_given: ())


@pytest.fixture
def vit(tmp_path: Path) -> Run:
    tables = figure_data.make(["curved", "linear", "not_finite", "not_called", "curved"])
    return stored_runs.store(tmp_path / "vit", tables, heads=attention_data.make("one"))


def text_of(path: Path) -> str:
    """What a reader sees: without tags, style and script."""
    page = path.read_text(encoding="utf-8")
    bare = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", bare)))


def test_the_page_of_a_real_run_says_and_shows_every_layer(
    vit_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_part, "whole_figures", lambda *_given: ())
    run = open_run(shutil.copytree(vit_run.path, tmp_path / "run"))
    (path,) = report(run)
    assert path == run.path / "report.html"
    text, html = text_of(path), path.read_text(encoding="utf-8")
    alphas = run.alphas()
    for row in alphas.itertuples():
        assert f'href="#run-curve-{row.depth}">{row.layer}</a>' in html
        assert (
            f'alt="Normalized value against input of layer {row.layer}, element by element"' in html
        )
    curved = alphas[alphas["status"] == "curved"]
    assert (
        f"{len(curved)} of 17 layers are S-shaped; the first is {curved.iloc[0]['layer']}" in text
    )
    assert "bundled:vit_cifar10" in text
    assert f"{run.manifest['model']['fingerprint']}" in text
    assert len(html) < 17 * 100_000


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes_and_no_figure_that_is_there_is_drawn_again(
    vit: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = plot(vit, formats=["png"])
    first = report([vit.path])[0].read_bytes()

    def again(tables: object) -> None:
        raise AssertionError("drawn again")

    there = {path.stem for path in drawn}
    monkeypatch.setattr(report_figures, "KINDS", report_figures.KINDS | dict.fromkeys(there, again))
    assert write_report(vit, drawn=drawn).read_bytes() == first
    assert (
        first.count(b"data:image/png;base64,") == len(there - {"s_curves", "s_curves_selected"}) + 3
    )  # curves with samples


def test_without_figures_the_page_has_tables_and_says_why(vit: Run) -> None:
    path = write_report(vit, figures=False)
    assert "<img" not in path.read_text(encoding="utf-8")
    assert "`probe-norms report vit` makes it with them" in text_of(path)
    assert "blocks.0.norm1" in text_of(path)


def test_layers_without_curves_are_rows_and_cards_that_say_so(vit: Run, plain: None) -> None:
    text = text_of(report(vit)[0])
    assert "Not finite (infinities or NaN went through): blocks.1.norm1." in text
    assert "Not called (the model did not use it on these images): blocks.1.norm2." in text


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        (["affine"] * 3, "3 layers are affine per channel by construction: each is a fan of lines"),
        (
            ["linear"] * 2,
            "None of 2 layers is shown to be S-shaped. 2 layers are shown to be straight: a tanh "
            "gains under 0.001 of R\u00b2 over a line.",
        ),
        (["not_called", "not_called"], "Not called"),
        (["curved"], "1 of 1 layer is S-shaped; it is norm, number 1 in execution order."),
    ],
)
def test_any_kind_of_run_renders(
    statuses: list[str], said: str, tmp_path: Path, plain: None
) -> None:
    run = stored_runs.store(tmp_path / "run", figure_data.make(statuses))
    text = text_of(report(run)[0])
    assert said in text
    assert ("\u03b1 [95 %]" in text) == ("curved" in statuses)


def test_a_run_of_affine_layers_is_drawn_as_fans(tmp_path: Path) -> None:
    run = stored_runs.store(tmp_path / "run", figure_data.make(["affine", "not_called"]))
    html = report(run)[0].read_text(encoding="utf-8")
    assert html.count('alt="Normalized value against input') == 1
    assert 'id="run-lines"' in html
    assert 'id="run-families"' not in html


def test_a_run_of_attention_alone_has_its_page(tmp_path: Path) -> None:
    run = stored_runs.store_attention(tmp_path / "run", attention_data.make("one"))
    path = report(run)[0]
    assert "This run looked at attention only." in text_of(path)
    assert "3 heads in 1 layer" in text_of(path)
    assert path.read_text(encoding="utf-8").count("<img") == 4


def test_a_run_without_fits_is_fitted_first(vit_run: Run, tmp_path: Path) -> None:
    before = vit_run.fits()
    run = open_run(without_results(shutil.copytree(vit_run.path, tmp_path / "run")))
    assert not run.has("fits")
    write_report(run, figures=False)
    pd.testing.assert_frame_equal(run.fits(), before)


def test_random_weights_skipped_images_and_missed_norms_stand_out(vit: Run) -> None:
    vit.manifest["model"]["weights"] = "random"
    vit.manifest["data"]["skipped"] = [{"image": "<b>.png", "reason": "truncated"}]
    vit.manifest["not_captured"] = {"blocks.0": 2}
    vit.manifest["attention"] = {"status": "unreadable", "unreadable": {"attn": "linear attention"}}
    html = write_report(vit, figures=False).read_text(encoding="utf-8")
    assert '<p class="warning" role="alert"><strong>Warning</strong> RANDOM WEIGHTS' in html
    assert "Skipped images: 1: &lt;b&gt;.png (truncated)." in html
    assert "not captured: blocks.0 (2 calls)." in html
    assert "Attention that cannot be read: attn (linear attention)." in html


def test_names_from_outside_are_escaped_everywhere(tmp_path: Path, plain: None) -> None:
    name = "<script>alert(1)</script>"
    tables = figure_data.make(["curved", "linear"], names=[f"{name}.a", "</style>'\"&amp;"])
    run = stored_runs.store(tmp_path / "run", tables, name=name)
    html = report(run)[0].read_text(encoding="utf-8")
    assert html.count("<script") == html.count("</script") == html.count("</style") == 1
    assert "&amp;amp;" in html


def test_several_runs_are_one_page_that_begins_with_their_comparison(
    vit: Run, tmp_path: Path, plain: None
) -> None:
    resnet = stored_runs.store(
        tmp_path / "resnet", figure_data.make("affine", 2), weights="random", name="resnet18"
    )
    heads = stored_runs.store_attention(tmp_path / "heads", attention_data.make("one"))
    paths = report([vit, resnet, heads], out=tmp_path / "all.html")
    assert paths == [tmp_path / "all.html"]
    html, text = paths[0].read_text(encoding="utf-8"), text_of(paths[0])
    assert text.index("Key numbers of the runs") < text.index("What was found")
    assert [f'id="run{n}"' in html for n in (1, 2, 3, 4)] == [True, True, True, False]
    assert "Four layers of each run" in text
    ids = re.findall(r' id="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    assert not (vit.path / "report.html").exists()


def test_each_run_gets_its_own_page_without_out(vit: Run, tmp_path: Path, plain: None) -> None:
    other = stored_runs.store(tmp_path / "other", figure_data.make(["linear"]))
    assert report([vit, str(other.path)]) == [vit.path / "report.html", other.path / "report.html"]


def test_progress_names_each_layer_and_comes_to_its_end(tmp_path: Path, plain: None) -> None:
    run = stored_runs.store(tmp_path / "run", figure_data.make(["curved", "linear"]))
    said: list[tuple] = []
    report(run, progress=lambda *told: said.append(told))
    assert said == [
        ("report", 0, 2, "blocks.0.norm1"),
        ("report", 1, 2, "norm"),
        ("report", 2, 2, ""),
    ]


def test_wrong_places_are_refused_in_a_line(vit: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is a folder; give a file, such as .*report\.html"):
        report(vit, out=tmp_path)
    with pytest.raises(UsageError, match="no run given"):
        report([])
    with pytest.raises(UsageError, match="does not exist"):
        report(tmp_path / "nothing")


def test_the_palette_keeps_the_picture_and_saves_space(vit: Run) -> None:
    (path,) = plot(vit, ["families"], formats=["png"])
    with Image.open(path) as before:
        small = report_figures.with_palette(before, 160)
        assert len(small) < 0.6 * path.stat().st_size
        with Image.open(io.BytesIO(small)) as after:
            assert before.size == after.size


def test_pixels_are_those_of_the_picture(vit: Run) -> None:
    drawn = figure(vit, "families")
    with Image.open(io.BytesIO(picture(drawn))) as encoded:
        assert encoded.tobytes() == pixels(drawn).tobytes()


def test_the_manifest_is_shown_without_times_and_long_lists_are_cut() -> None:
    text = manifest_text(
        {
            "times": {"started": "2026"},
            "data": {"images": [f"i{n}" for n in range(50)]},
            "plan": {"seed": 0},
        }
    )
    assert "2026" not in text
    assert '"i19"' in text
    assert '"i20"' not in text
    assert "... 30 more" in text
