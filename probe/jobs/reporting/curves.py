"""One card per layer: its S-curve, the numbers below it, and how to read the marks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from probe import plots
from probe.html import Curve, Picture
from probe.jobs.drawing.tables import FigureTables
from probe.jobs.figure_file import pixels
from probe.jobs.reporting.figures import with_palette
from probe.jobs.sharing import shared
from probe.plots import fan as fans
from probe.plots import layout, s_curve, style
from probe.records import Progress, Status
from probe.store.run import Run
from probe.wording.columns import ALPHAS
from probe.wording.phrases import Row

CURVE_COLOURS = 64
CURVE_HEIGHT = 2.3  # inches of the panel

POINTS = (
    "The value before the layer's own affine against its input, one dot per element: pale ones "
    "are a uniform sample, darker ones the most extreme inputs, from the dotted lines on and far "
    "more of them than a uniform sample holds."
)
NOT_ESTABLISHED = "Pale red is a tanh that is not shown to be better than a line."
MARKS = {
    Status.CURVED: "Solid red is the tanh fitted to every element.",
    Status.LINEAR: NOT_ESTABLISHED,
    Status.UNDETERMINED: NOT_ESTABLISHED,
    Status.MIXTURE: NOT_ESTABLISHED,
    Status.AFFINE: "A layer that is affine per channel is a fan of lines, one per channel, "
    "coloured by their slopes.",
}
DASHED = "Dashed is the tanh that weighs the range of the input evenly, where it bends."
ENLARGE = "Choose a panel to enlarge it."

_COLUMNS = {column.name: column for column in ALPHAS}


def left_out(shown: Sequence[Row], rows: Sequence[Row], run: Run) -> Iterator[str]:
    """What the page says where not every layer has a card."""
    if len(shown) == len(rows):
        return
    yield (
        f"{len(shown)} of {len(rows)} layers are shown, spread over depth, those whose curve is "
        "established first. The table has them all; "
        f"`probe-norms plot {run.path.name} --kind s_curves --layers NAMES` draws the others."
    )


def how_to_read(rows: Sequence[Row]) -> str:
    """What the marks in the panels mean; only of those that are there."""
    statuses = {str(row["status"]) for row in rows}
    marks = list(dict.fromkeys(text for status, text in MARKS.items() if status in statuses))
    if Status.CURVED in statuses:
        marks.append(DASHED)
    return " ".join([POINTS, *marks, ENLARGE])


def curve_cards(
    tables: FigureTables, name: str, rows: Sequence[Row], progress: Progress
) -> Iterator[Curve]:
    """The cards in execution order; `name`: prefix of their ids."""
    layers = [str(row["layer"]) for row in rows]

    def report(drawn: int) -> None:
        progress("report", drawn, len(layers), layers[drawn] if drawn < len(layers) else "")

    pictures = shared(partial(curve_picture, tables), layers, report) if layers else []
    for row, layer, shown in zip(rows, layers, pictures, strict=True):
        name_on_page = f"{name}-curve-{row['depth']}"
        yield Curve(name_on_page, layer, str(row["status"]), tuple(card_facts(row)), shown)


def card_facts(row: Row) -> Iterator[tuple[str, str]]:
    """What stands below a curve; only what the layer has."""
    for label, column in _labels(row).items():
        text = _COLUMNS[column].text(row)
        if text != "-":
            yield label, f"{text} %" if column == "beyond_linear" else text


def _labels(row: Row) -> Mapping[str, str]:
    """Label -> column of the table; what the status makes meaningless is left out."""
    labels = {
        "\u03b1": "alpha",
        "slopes": "slopes",
        "slope" if row.get("slope_min") is None else "median": "slope",
        "R\u00b2": "r2",
        "R\u00b2 line": "linear_r2",
        "ceiling": "r2_ceiling",
        "best": "best_family",
        "beyond": "beyond_linear",
        "max |x|": "max_abs_input",
    }
    if row["status"] == Status.AFFINE:
        del labels["best"], labels["R\u00b2"]  # it would be that of the line again
    return labels


def curve_picture(tables: FigureTables, layer: str) -> Picture | None:
    """The panel of one layer, without its name, which stands beside it; None where nothing was
    stored of it.
    """
    if tables.statuses[layer] == Status.NOT_CALLED:
        return None
    samples = tables.thin([layer]).get(layer)
    if samples is None or samples.empty:
        return None
    with style.theme():
        room = layout.Room(left=0.5, right=0.08, top=0.06, title=0.06, bottom=0.42)
        frame = plots.Frame(warning=tables.frame.warning)
        figure, (ax,), _ = layout.grid(
            1, 1, CURVE_HEIGHT, style.ONE_COLUMN, room, frame, legend_lines=0
        )
        ax.set_xlabel(s_curve.X_LABEL)
        ax.set_ylabel(s_curve.Y_LABEL)
        fan = tables.fan
        norm = fans.slope_norm(fan) if not fan.empty else None
        plots.s_curves(
            samples, tables.fits, ax, layer=layer, shape=tables.shape, fan=fan, fan_norm=norm
        )
    return Picture(
        with_palette(pixels(figure), CURVE_COLOURS),
        f"Normalized value against input of layer {layer}, element by element",
    )
