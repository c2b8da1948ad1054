"""The tables of the report: alphas per layer, attention per layer, runs side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from probe.formatting import number, quality, share
from probe.html import Cell, Column, Row, Table
from probe.wording import layers as findings
from probe.wording.attention import per_layer
from probe.wording.layers import Row as Values


class Field(NamedTuple):
    """A column with what it shows of a row, and the value that it is sorted by."""

    column: Column
    text: Callable[[Values], str]
    key: Callable[[Values], Any]
    wanted: bool = True


def layer_table(name: str, rows: Sequence[Values], targets: Mapping[str, str]) -> Table:
    """One row per layer in execution order; `targets`: layer -> id of its S-curve. Columns that say
    nothing are left out, as are kind and channels where they are the same everywhere: the head of
    the page says them.
    """
    fields = [field for field in _layer_fields(rows) if field.wanted]
    made = []
    for row in rows:
        status = str(row["status"])
        first = Cell(str(row["layer"]), row["depth"], targets.get(str(row["layer"]), ""))
        cells = [
            _cell(field, row, status if field.column.header == "status" else "") for field in fields
        ]
        made.append(Row((first, *cells), status))
    head = Column(
        "layer", "Module path, in execution order; it leads to the S-curve of the layer.", False
    )
    return Table(
        name, "Normalization layers", (head, *(field.column for field in fields)), tuple(made)
    )


def _cell(field: Field, row: Values, status: str = "") -> Cell:
    return Cell(field.text(row), field.key(row), status=status)


def _layer_fields(rows: Sequence[Values]) -> list[Field]:
    def has(name: str) -> bool:
        return any(row.get(name) is not None for row in rows)

    def differs(name: str) -> bool:
        return len({row[name] for row in rows}) > 1

    curves = any(row["status"] != "affine" for row in rows)
    line = "R\u00b2 line" if curves else "R\u00b2 one line"
    return [
        _words("kind", "Type of the layer.", differs("kind")),
        _field("C", "channels", str, "Channels.", differs("channels")),
        Field(
            Column("status", STATUS_HELP, False),
            lambda row: str(row["status"]).replace("_", " "),
            lambda row: str(row["status"]),
        ),
        Field(
            Column(
                "\u03b1 [95 %]",
                "Alpha of the tanh fitted to every element, with its interval over images; only "
                "where a curve bends.",
            ),
            findings.interval,
            lambda row: row.get("alpha"),
            has("alpha"),
        ),
        Field(
            Column("slope", "Slope at the centre; of affine layers the median over the channels."),
            lambda row: number(findings.central_slope(row)),
            findings.central_slope,
        ),
        Field(
            Column(
                "slopes",
                "Smallest and largest slope over the channels of an affine layer; sorted by the "
                "largest.",
            ),
            findings.slopes,
            lambda row: row.get("slope_max"),
            has("slope_min"),
        ),
        Field(
            Column(
                "R\u00b2",
                "Share of variance that the tanh explains where a layer is S-shaped, else the "
                "line.",
            ),
            lambda row: quality(findings.shown_r2(row)),
            findings.shown_r2,
            curves and has("r2"),
        ),
        _field(
            line,
            "linear_r2",
            quality,
            "Share of variance that one straight line for all channels explains.",
            has("linear_r2"),
        ),
        _field(
            "ceiling",
            "r2_ceiling",
            quality,
            "R\u00b2 of the best element-wise curve there could be.",
            has("r2_ceiling"),
        ),
        Field(
            Column("best", "Best family of curves; +2: two more are tied with it.", False),
            findings.best,
            lambda row: row.get("best_family") or None,
            curves,
        ),
        _field(
            "1/std",
            "inverse_std",
            number,
            "One over the standard deviation of all inputs of the layer.",
        ),
        _field(
            "beyond %",
            "beyond_linear",
            share,
            "Share of elements where the curve is less than half as steep as in its centre.",
            has("beyond_linear"),
        ),
        _field("max |x|", "max_abs_input", number, "Largest input by amount."),
    ]


STATUS_HELP = (
    "curved: S-shaped, a tanh beats the line; linear: no curve does; affine: a line per channel "
    "by construction; superlinear: "
    "bends, but not as a saturating curve; step: steeper than the search for alpha reaches; "
    "constant, too few, not finite, not "
    "called: nothing to fit."
)


def _words(name: str, help: str, wanted: bool = True) -> Field:
    return Field(
        Column(name, help, False), lambda row: str(row[name]), lambda row: str(row[name]), wanted
    )


def _field(
    header: str, name: str, text: Callable[[Any], str], help: str, wanted: bool = True
) -> Field:
    return Field(
        Column(header, help), lambda row: text(row.get(name)), lambda row: row.get(name), wanted
    )


def attention_table(name: str, heads: Sequence[Values]) -> Table:
    """One row per attention layer in execution order."""
    rows = per_layer(heads)

    def has(name: str) -> bool:
        return any(row.get(name) is not None for row in rows)

    pixels = has("distance_px")
    fields = [
        _field("heads", "heads", str, "Attention heads of the layer."),
        _field(
            "distance px",
            "distance_px",
            number,
            "Mean attention distance of its heads, in pixels of the input.",
            pixels,
        ),
        _field("nearest", "low", number, "Distance of the head that looks nearest.", pixels),
        _field("farthest", "high", number, "Distance of the head that looks farthest.", pixels),
        _field(
            "patches", "distance_patches", number, "Mean distance in steps on the grid of tokens."
        ),
        _field(
            "uniform px",
            "uniform_px",
            number,
            "Distance of attention that looks everywhere alike.",
            pixels,
        ),
        _field(
            "local",
            "local",
            _whole,
            "Heads that look less than half as far as uniform attention.",
            pixels,
        ),
        _field(
            "prefix %",
            "prefix_mass",
            share,
            "Share of the attention of patches on class and register tokens.",
            any(row.get("prefix_mass") for row in rows),
        ),
        _field(
            "entropy",
            "entropy",
            number,
            "Entropy of a patch's attention, in nats; mean of the heads.",
        ),
        _words("grid", "Rows and columns of tokens."),
        _field(
            "stride px",
            "token_stride",
            number,
            "Pixels of the input between neighbouring tokens.",
            has("token_stride"),
        ),
        _field(
            "windows",
            "windows",
            _whole,
            "Windows of an image.",
            any((row.get("windows") or 1) > 1 for row in rows),
        ),
    ]
    fields = [field for field in fields if field.wanted]
    made = [
        Row((Cell(str(row["layer"]), row["depth"]), *(_cell(field, row) for field in fields)))
        for row in rows
    ]
    head = Column("layer", "Module path, in execution order.", False)
    return Table(name, "Attention layers", (head, *(field.column for field in fields)), tuple(made))


def _whole(value: Any) -> str:
    return "-" if value is None else str(int(value))


def comparison_table(titles: Sequence[str], numbers: Sequence[Mapping[str, Any]]) -> Table:
    """The key numbers turned round: a row for each number, a column for each run; a dash where a
    run has none.
    """
    names = list(dict.fromkeys(name for row in numbers for name in row if name != "run"))
    rows = [
        Row((Cell(name.replace("_", " ")), *(Cell(_shown(row.get(name))) for row in numbers)))
        for name in names
    ]
    return Table(
        "runs",
        "Key numbers of the runs",
        (Column("", number=False), *(Column(title) for title in titles)),
        tuple(rows),
    )


def _shown(value: Any) -> str:
    return number(value) if isinstance(value, float) or value is None else str(value)
