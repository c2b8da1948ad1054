"""What a capture says of each layer: the records `layers` of the manifest (`run.layers`), the table
of `capture`, and that of the command `layers`.
"""

from __future__ import annotations

from dataclasses import replace

from probe.formatting import number, thousands, whole
from probe.wording.columns.column import Column
from probe.wording.columns.layers import (
    CHANNELS,
    DEPTH,
    KIND,
    LAYER,
    OUTPUT_ERROR,
    OWN_ALPHA,
    STATUS,
)

EPS = Column("eps", "What is added to the variance before its root.", "input", format=number)
AFFINE = Column(
    "affine",
    "Is each channel a line by construction, such as a BatchNorm with running statistics?",
    "bool",
    title="affine per channel",
    format=lambda value: "yes" if value else "no",
    left=True,
)

CAPTURED = (
    LAYER,
    Column("module", "Module path; `path#2` is its second call.", "text"),
    DEPTH,
    replace(KIND, rank=2, common=False),
    replace(CHANNELS, rank=0, common=False),
    EPS,
    AFFINE,
    OWN_ALPHA,
    Column(
        "affine_error",
        "Largest |output - (weight * normalized + bias)| over the sampled rows, relative to the "
        "largest output or 1.",
        "ratio",
    ),
    replace(STATUS, meaning="captured, not_called or not_finite.", values=""),
    OUTPUT_ERROR,
    Column(
        "count", "Elements that went through.", "count", title="elements", format=thousands, rank=0
    ),
    Column("positions", "Tokens or pixels of one image.", "count", format=whole, rank=1),
    Column("prefix_tokens", "Class and register tokens among them.", "count", title="prefix"),
    Column("not_finite", "Elements that are infinite or NaN.", "count"),
    Column(
        "inverse_sigma_mean",
        "Mean over tokens of one over the sigma of a token; of layers that normalize each token.",
        "1/input",
        title="1/sigma",
        format=number,
        rank=3,
    ),
    Column("sigma_mean", "Mean sigma of a token.", "input", title="sigma"),
    Column(
        "sigma_cv",
        "Standard deviation of sigma over tokens, relative to its mean.",
        "ratio",
        format=number,
        rank=4,
    ),
)

# Of a model that was not run; a layer is a row of `probe.list_norm_layers`.
MODEL_LAYERS = (
    replace(LAYER, name="name"),
    replace(KIND, rank=0, common=False),
    replace(CHANNELS, title="channels", rank=0, common=False),
    replace(EPS, rank=1),
    replace(AFFINE, rank=2),
    OUTPUT_ERROR,
)
