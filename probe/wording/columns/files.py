"""Columns of the other tables of a run, which nothing shows as they are."""

from __future__ import annotations

from probe.wording.columns.column import Column

_LAYER = Column("layer", "Module path.", "text")
_CHANNEL = Column("channel", "Number of the channel, from 0.", "count")
_IMAGE = Column("image", "Place of the image in the sorted list, from 0.", "count")
_POSITION = Column("position", "Token or pixel of the image, row by row; 0 = class token.", "count")


def _spread(side: str, what: str) -> tuple[Column, ...]:
    """Mean, variance and range of one side of a layer."""
    return (
        Column(f"mean_{side}", f"Mean of {what}.", side),
        Column(f"var_{side}", f"Variance of {what}, the square of its unit.", side),
        Column(f"min_{side}", f"Smallest value of {what}.", side),
        Column(f"max_{side}", f"Largest value of {what}.", side),
    )


FITS = (
    _LAYER,
    Column("depth", "Place in execution order, from 0.", "count"),
    Column("family", "Form of the curve: linear, tanh, erf, ...", "text"),
    Column(
        "scope",
        "layer: one gamma and beta for all channels, fitted to every element; channel: those of "
        "each channel, fitted to the uniform sample, with medians over channels shown.",
        "text",
    ),
    Column(
        "weighting",
        "population: every element counts once; range: the range of the input counts evenly, for "
        "pictures only.",
        "text",
    ),
    Column("tokens", "all, or patch or prefix (class and register) tokens alone.", "text"),
    Column("alpha", "Of gamma * f(alpha * x + shift) + beta; none where nothing bends.", "1/input"),
    Column("shift", "Of the families that have one.", "ratio"),
    Column("gamma", "Scale of the curve.", "z"),
    Column("beta", "Offset of the curve or line.", "z"),
    Column("slope", "Slope at the centre; of a line its slope.", "1/input"),
    Column("r2", "Share of variance that the curve explains.", "R2"),
    Column("r2_ceiling", "The most that any element-wise curve could explain.", "R2"),
    Column("linear_r2", "Share of variance that the line explains.", "R2"),
    Column("gain", "r2 less linear_r2.", "R2"),
    Column("gain_low", "Lower end of its 95 % interval over images.", "R2"),
    Column("gain_high", "Upper end of that interval.", "R2"),
    Column("rmse", "Root of the mean squared residual.", "z"),
    Column("alpha_low", "Lower end of the 95 % interval of alpha over images.", "1/input"),
    Column("alpha_high", "Upper end of that interval.", "1/input"),
    Column("status", "What is known of this fit: see the statuses.", "text"),
    Column("best", "Has no other family a higher R2?", "bool"),
    Column("tied", "Is it not told from the best one, by a paired interval?", "bool"),
    Column("groups", "Groups of images that the intervals are over; none under 8.", "count"),
    Column("count", "Elements.", "count"),
)
CHANNEL_FITS = (
    _LAYER,
    _CHANNEL,
    Column("alpha", "The one alpha of the layer in scope channel.", "1/input"),
    Column("gamma", "Scale of the tanh of this channel.", "z"),
    Column("beta", "Its offset.", "z"),
    Column("r2", "Share of this channel's variance that it explains.", "R2"),
    Column("slope", "Slope of the line of this channel.", "1/input"),
    Column("offset", "Its offset.", "z"),
    Column("extremes", "Share of this channel in the elements beyond the linear part.", "share"),
    Column("max_abs_input", "Largest input by amount.", "input"),
    Column("massive", "Is that over 100 and over 1000 times the layer's median |input|?", "bool"),
)
MOMENTS = (
    _LAYER,
    _CHANNEL,
    Column("count", "Elements.", "count"),
    *_spread("input", "the input"),
    *_spread("output", "the output"),
    Column("weight", "The layer's own weight for this channel.", "ratio"),
    Column("bias", "Its own bias.", "output"),
    Column("slope", "Of a layer that is affine per channel: its slope.", "1/input"),
    Column("offset", "Of such a layer: its offset.", "z"),
)
PROFILE = (
    _LAYER,
    Column("tokens", "patch or prefix.", "text"),
    Column("group", "Group of images, 0 to 15.", "count"),
    Column("bin", "Bin of the input; `probe.bins` has their edges.", "count"),
    Column("count", "Elements in the bin.", "count"),
    Column("sum_input", "Of these: sum of the input.", "sum"),
    Column("sum_normalized", "Sum of the normalized value.", "sum"),
    Column("sum_normalized_sq", "Sum of its squares; none for affine layers.", "sum"),
    Column("sum_input_sq", "Sum of the squares of the input; none for affine layers.", "sum"),
    Column("sum_product", "Sum of input times normalized; none for affine layers.", "sum"),
)
ROWS = (
    _LAYER,
    _IMAGE,
    _POSITION,
    Column("mean", "Mean of the token over channels, as the layer computes it.", "input"),
    Column("sigma", "Its standard deviation with eps; of RMSNorm the root mean square.", "input"),
)
IMAGES = (
    _IMAGE,
    Column("name", "Name of the image, as the data gives it.", "text"),
    Column("group", "Group of images, 0 to 15.", "count"),
)
SAMPLES = (
    _LAYER,
    _IMAGE,
    _POSITION,
    _CHANNEL,
    Column("input", "Value that enters the layer.", "input"),
    Column("normalized", "Value before the layer's own affine.", "z"),
    Column("output", "Value that leaves the layer.", "output"),
    Column(
        "stratum",
        "uniform: drawn at random, for estimates; prefix: more class and register tokens; tail: "
        "the most extreme inputs.",
        "text",
    ),
)
