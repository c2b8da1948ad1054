"""A run of hundreds of layers has figures and a page of bounded size, which say what they leave
out. Runs of up to 60 layers show all of them.
"""

from __future__ import annotations

import logging
import re
from html import unescape
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from probe.jobs.drawing import draw
from probe.jobs.drawing.tables import PANELS, FigureTables, first_of
from probe.jobs.reporting import curves, run_part
from probe.jobs.reporting.report import report
from probe.plots.points import POINTS
from probe.store.run import Run
from support import stored_runs
from support.stored_runs import figure_data

MANY = 500
EVERY = 20  # of which one is curved


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Run:
    statuses = ["curved" if depth % EVERY == 7 else "linear" for depth in range(MANY)]
    return stored_runs.store(tmp_path_factory.mktemp("deep") / "run", figure_data.make(statuses))


def names_in(figure: Figure) -> list[str]:
    return [text.get_text() for ax in figure.axes for text in ax.texts if text.get_gid() == "name"]


def curved(run: Run) -> set[str]:
    alphas = run.alphas()
    return set(alphas.loc[alphas["status"] == "curved", "layer"])


def test_established_curves_come_first_then_others_and_all_in_order() -> None:
    names = [f"n{i}" for i in range(100)]
    few, many = {"n40", "n50"}, set(names[10:])
    with_few = first_of(names, few, 12)
    assert len(with_few) == 12
    assert few < set(with_few)
    assert with_few == sorted(with_few, key=names.index)
    assert {with_few[0], with_few[-1]} == {"n0", "n99"}
    assert first_of(names, many, 4) == ["n10", "n40", "n69", "n99"]
    assert first_of(names[:3], few, 12) == names[:3]


@pytest.mark.slow
def test_s_curves_of_a_deep_run_has_a_bounded_number_of_panels_and_says_so(
    deep: Run, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "probe.jobs.drawing.draw"):
        figure = draw.figure(deep, "s_curves")
    assert len(names_in(figure)) == PANELS
    (heading,) = [text.get_text() for text in figure.texts if text.get_gid() == "heading"]
    assert heading.replace("\n", " ").endswith(
        f", {PANELS} of {MANY} layers, established curves first"
    )
    assert f"shows {PANELS} of {MANY} layers" in caplog.text
    assert curved(deep) <= set(FigureTables(deep).panels)


@pytest.mark.slow
def test_layers_chooses_which_and_up_to_60_are_all_shown(deep: Run) -> None:
    first = ",".join(deep.layers["layer"][:PANELS])
    assert FigureTables(deep, first).panels == list(deep.layers["layer"][:PANELS])
    figure = draw.figure(deep, "s_curves", layers="blocks.249.*")
    assert len(names_in(figure)) == 1
    assert "established curves first" not in " ".join(text.get_text() for text in figure.texts)


@pytest.mark.slow
def test_only_what_is_shown_is_read(deep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    samples = Run.samples

    def counted(run: Run, layer: str | None = None, **options: object) -> object:
        read.append(layer)
        return samples(run, layer, **options)

    monkeypatch.setattr(Run, "samples", counted)
    draw.figure(deep, "s_curves")
    assert len(read) == PANELS


@pytest.mark.slow
def test_the_page_of_a_deep_run_has_a_bounded_number_of_cards_and_every_layer_in_its_table(
    deep: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, "curve_picture", lambda *_given: None)
    monkeypatch.setattr(run_part, "whole_figures", lambda *_given: ())
    (path,) = report(deep)
    html = path.read_text(encoding="utf-8")
    text = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", html)))
    assert html.count('<figure class="curve"') == PANELS
    assert html.count('<tr data-status="') == MANY
    assert html.count('href="#run-curve-') >= PANELS
    linked = set(re.findall(r'href="#(run-curve-\d+)">[a-z]', html))
    assert linked == set(re.findall(r'<figure class="curve" id="([^"]+)"', html))
    assert len(linked) == PANELS
    assert f"{PANELS} of {MANY} layers are shown, spread over depth" in text
    assert "`probe-norms plot run --kind s_curves --layers NAMES` draws the others" in text
    assert "It leads to the S-curve of the layer, where it is shown." in text
    depths = deep.alphas().set_index("layer")["depth"]
    assert {f"run-curve-{depths[layer]}" for layer in curved(deep)} <= linked


@pytest.mark.slow
def test_the_whole_page_of_500_layers_stays_under_30_megabytes(deep: Run) -> None:
    (path,) = report(deep)
    html = path.read_bytes()
    assert html.count(b'alt="Normalized value against input') == PANELS
    assert len(html) < 30_000_000


@pytest.mark.slow
def test_a_card_is_bounded_whatever_a_layer_stored(deep: Run) -> None:
    """60 cards of about 35 kB: the page of any run fits into 30 MB."""
    tables = FigureTables(deep)
    layer = tables.panels[0]
    assert len(tables.thin([layer])[layer]) <= 3 * POINTS
    picture = curves.curve_picture(tables, layer)
    assert picture is not None
    assert len(picture.png) * PANELS * 4 / 3 < 20_000_000


def test_runs_of_60_layers_show_them_all_without_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, "curve_picture", lambda *_given: None)
    monkeypatch.setattr(run_part, "whole_figures", lambda *_given: ())
    run = stored_runs.store(tmp_path / "run", figure_data.make("curved", PANELS))
    assert FigureTables(run).panels == list(run.layers["layer"])
    html = report(run)[0].read_text(encoding="utf-8")
    assert html.count('<figure class="curve"') == PANELS
    assert "layers are shown" not in html
    assert "It leads to the S-curve of the layer." in html
