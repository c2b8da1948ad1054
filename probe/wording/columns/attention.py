"""attention.parquet, one row per head, and the table of attention layers that the terminal and the
page make from it (`probe.wording.attention.per_layer`).
"""

from __future__ import annotations

from dataclasses import replace

from probe.formatting import number, percent, whole
from probe.wording.columns.column import Column, Rows, any_has
from probe.wording.columns.layers import DEPTH, LAYER

DISTANCE = Column(
    "distance_px",
    "Mean attention distance: over images and query patches, the distances to all key patches "
    "weighed by the attention on them. Prefix tokens are left out.",
    "px",
)
PATCHES = Column(
    "distance_patches",
    "The same distance in steps on the grid of tokens.",
    "patches",
    title="patches",
)
PREFIX = Column(
    "prefix_mass",
    "Share of the attention of patches on class and register tokens.",
    "share",
    title="prefix %",
)
ENTROPY = Column("entropy", "Entropy of a patch's attention over all tokens.", "nats")
UNIFORM = Column("uniform_px", "Distance of attention that looks everywhere alike.", "px")
GRID = Column("grid", "Rows and columns of tokens.", "text")
STRIDE = Column(
    "token_stride", "Pixels of the input between neighbouring tokens.", "px", title="stride px"
)
WINDOWS = Column("windows", "Windows of an image; with one, every token sees every token.", "count")

HEADS = (
    LAYER,
    DEPTH,
    Column("head", "Number of the head as in the model, from 0.", "count"),
    DISTANCE,
    Column(
        "distance_px_raw",
        "The same without dividing by the attention that stays on patches.",
        "px",
        title="raw distance px",
    ),
    PATCHES,
    Column(
        "distance_px_std",
        "Standard deviation of the distance over images.",
        "px",
        title="std over images",
    ),
    PREFIX,
    ENTROPY,
    STRIDE,
    GRID,
    UNIFORM,
    Column("images", "Images that the means are over.", "count"),
    WINDOWS,
    Column("prefix_tokens", "Class, distillation and register tokens.", "count"),
)


def _pixels(rows: Rows) -> bool:
    """Distances are in patches alone where the pixels of a token are not known."""
    return any_has("distance_px")(rows)


ATTENTION_LAYERS = (
    LAYER,
    Column(
        "run",
        "Run, where several are shown.",
        "text",
        left=True,
        rank=1,
        wanted=any_has("run"),
        stored=False,
    ),
    Column(
        "heads",
        "Attention heads of the layer.",
        "count",
        format=whole,
        rank=0,
        page=True,
        stored=False,
    ),
    replace(
        DISTANCE,
        meaning="Mean attention distance of its heads, in pixels of the input.",
        format=number,
        rank=0,
        page=True,
        wanted=_pixels,
    ),
    Column(
        "range",
        "Distances of the heads that look nearest and farthest.",
        "px",
        title="min .. max",
        cell=lambda row: f"{number(row['low'])} .. {number(row['high'])}",
        rank=1,
        wanted=_pixels,
        stored=False,
    ),
    Column(
        "low",
        "Distance of the head that looks nearest.",
        "px",
        title="nearest",
        format=number,
        page=True,
        wanted=_pixels,
        stored=False,
    ),
    Column(
        "high",
        "Distance of the head that looks farthest.",
        "px",
        title="farthest",
        format=number,
        page=True,
        wanted=_pixels,
        stored=False,
    ),
    replace(
        PATCHES,
        meaning="Mean distance in steps on the grid of tokens.",
        format=number,
        rank=5,
        page=True,
    ),
    replace(UNIFORM, format=number, rank=0, page=True, wanted=_pixels),
    Column(
        "local",
        "Heads that look less than half as far as uniform attention.",
        "count",
        format=whole,
        rank=0,
        page=True,
        wanted=_pixels,
        stored=False,
    ),
    replace(
        PREFIX,
        format=percent,
        rank=2,
        page=True,
        wanted=lambda rows: any(row.get("prefix_mass") for row in rows),
    ),
    replace(
        ENTROPY,
        meaning="Entropy of a patch's attention, in nats; mean of the heads.",
        format=number,
        rank=3,
        page=True,
    ),
    replace(GRID, left=True, rank=4, page=True),
    replace(STRIDE, format=number, rank=6, page=True, wanted=any_has("token_stride")),
    replace(
        WINDOWS,
        format=whole,
        rank=4,
        page=True,
        wanted=lambda rows: any((row.get("windows") or 1) > 1 for row in rows),
    ),
)
