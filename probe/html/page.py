"""Records of the page and the one function that turns them into HTML (templates/report.html).

Every text may come from outside (names of layers, models, files) and is escaped. The page names no
address: pictures are data URIs, style and script stand in it, and its content security policy
allows these two by their hash and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from probe.formatting import visible


@dataclass(frozen=True)
class Column:
    """One column of a table; `help` is the explanation that stands below the table; numbers are
    aligned right.
    """

    header: str
    help: str = ""
    number: bool = True


@dataclass(frozen=True)
class Cell:
    """`text` as shown; `key` by which the column is sorted (None: an empty cell, sorted last);
    `target`: id it leads to.
    """

    text: str
    key: float | str | None = None
    target: str = ""
    status: str = ""


@dataclass(frozen=True)
class Row:
    """The first cell names the row; `status` is what the filter chooses by."""

    cells: tuple[Cell, ...]
    status: str = ""


@dataclass(frozen=True)
class Table:
    name: str  # id on the page
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    noun: str = "layers"
    controls: bool = True  # can it be sorted and filtered?

    @property
    def statuses(self) -> list[str]:
        """Those of the rows, each once; nothing to choose where all are the same."""
        found = list(dict.fromkeys(row.status for row in self.rows if row.status))
        return found if len(found) > 1 else []

    @property
    def notes(self) -> list[Column]:
        return [column for column in self.columns if column.help]


@dataclass(frozen=True)
class Picture:
    """A PNG and what it shows, in words for those who do not see it."""

    png: bytes
    alt: str

    @cached_property
    def uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png).decode()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, which stand at bytes 16 to 24 of a PNG."""
        return int.from_bytes(self.png[16:20], "big"), int.from_bytes(self.png[20:24], "big")


@dataclass(frozen=True)
class Figure:
    name: str  # id on the page
    title: str
    caption: str
    picture: Picture


@dataclass(frozen=True)
class Curve:
    """The S-curve of a layer with its numbers; without a picture where nothing was seen of the
    layer.
    """

    name: str  # id on the page
    layer: str
    status: str
    facts: tuple[tuple[str, str], ...]
    picture: Picture | None = None


@dataclass(frozen=True)
class Finding:
    topic: str
    text: str


@dataclass(frozen=True)
class RunPart:
    """What the page says of one run; a section without content is left out.

        table = Table("run-table", "Layers", (Column("layer", number=False),), rows)
        RunPart("run", "vit_b", "Pretrained weights, 64 images.", layers=table,
                findings=(Finding("Shape", "5 of 25 layers are S-shaped."),))

    Texts are plain: the template escapes them. Ids of tables, curves and figures begin with `name`,
    so that several runs fit on one page.
    """

    name: str  # prefix of its ids
    title: str
    lead: str
    facts: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    layers: Table | None = None
    curves: tuple[Curve, ...] = ()
    curves_note: str = ""
    figures: tuple[Figure, ...] = ()
    speed: Table | None = None
    attention: Table | None = None
    attention_figures: tuple[Figure, ...] = ()
    manifest: str = ""
    files: tuple[tuple[str, str], ...] = ()
    kicker: str = "What its normalization layers compute"
    layers_title: str = "Layers"
    about_title: str = "About the run"

    @property
    def sections(self) -> list[tuple[str, str]]:
        """Id and title of the sections that have content."""
        wanted = {
            ("found", "What was found"): self.findings,
            ("layers", self.layers_title): self.layers,
            ("curves", "S-curves"): self.curves,
            ("figures", "Figures"): self.figures,
            ("speed", "Speed"): self.speed,
            ("attention", "Attention"): self.attention,
            ("run", self.about_title): True,
        }
        return [
            (f"{self.name}-{name}", title) for (name, title), content in wanted.items() if content
        ]


@dataclass(frozen=True)
class Comparison:
    """Several runs side by side."""

    table: Table
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True)
class Page:
    """The whole document: one run, or several, after their comparison where there is one.

    html = render(Page("vit_b", (part,)))
    html = render(Page("vit_b, resnet50", (one, other), Comparison(table, figures)))
    """

    title: str
    parts: tuple[RunPart, ...]
    comparison: Comparison | None = None


def render(page: Page) -> str:
    """The whole document, without control characters. The same page gives the same text."""
    style, script = asset("style.css"), asset("table.js")
    template = environment().get_template("report.html")
    text = template.render(
        page=page, style=Markup(style), script=Markup(script), policy=policy(style, script)
    )
    return visible(text, keep="\n\t")


def policy(style: str, script: str) -> str:
    """Nothing is loaded but pictures within the page; a script or style that slipped in by a name
    would not run.
    """
    return (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def asset(name: str) -> str:
    """A file of templates/ as it is."""
    loader = environment().loader
    assert loader is not None
    return loader.get_source(environment(), name)[0]


@lru_cache(maxsize=1)
def environment() -> Environment:
    return Environment(
        loader=PackageLoader("probe.html", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
