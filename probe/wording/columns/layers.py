"""alpha.csv and alpha.json, and the table of layers of the terminal and the page: one row per
normalization layer in execution order.
"""

from __future__ import annotations

from dataclasses import replace

from probe.formatting import number, percent, r_squared, whole
from probe.wording import unusual_norms
from probe.wording.columns.column import Column, any_has
from probe.wording.layers import (
    all_affine,
    best,
    central_slope,
    interval,
    slopes,
    status_help,
)

LAYER = Column(
    "layer",
    "Module path, in execution order.",
    "text",
    key=lambda row: row["depth"],
    left=True,
    rank=0,
    page=True,
)
DEPTH = Column("depth", "Place in execution order, from 0.", "count")
KIND = Column("kind", "Type of the layer.", "text", left=True, rank=7, page=True, common=True)
CHANNELS = Column(
    "channels", "Channels.", "count", title="C", format=whole, rank=6, page=True, common=True
)
STATUS = Column(
    "status",
    "What is known of the map of the layer.",
    "text",
    left=True,
    rank=0,
    page=True,
    values=status_help(),
)

LINE = Column(
    "linear_r2",
    "Share of variance that one straight line for all channels explains.",
    "R2",
    title="R2 line",
    format=r_squared,
    rank=2,
    page=True,
    wanted=lambda rows: any_has("linear_r2")(rows) and not all_affine(rows),
)

OUTPUT_ERROR = Column(
    unusual_norms.OUTPUT_ERROR,
    "Largest |output - (weight * normalized + bias)|, relative to the largest output, where it is "
    "more than rounding.",
    "ratio",
    title="output off",
    format=number,
    rank=0,
    page=True,
    wanted=any_has(unusual_norms.OUTPUT_ERROR),
    stored=False,
)

OWN_ALPHA = Column(
    "own_alpha",
    "Alpha of the layer itself, where it is a DyT or a Derf: z = f(alpha * x + shift).",
    "1/input",
    title="own alpha",
    format=number,
    rank=1,
    page=True,
    wanted=any_has("own_alpha"),
)

ALPHAS = (
    LAYER,
    DEPTH,
    KIND,
    CHANNELS,
    STATUS,
    OUTPUT_ERROR,
    Column(
        "alpha",
        "Alpha of the tanh fitted to every element, with its interval over images; in "
        "parentheses where the curve is not established, and none where the search has no "
        "optimum.",
        "1/input",
        title="alpha [95 %]",
        cell=interval,
        left=True,
        rank=1,
        page=True,
        wanted=any_has("alpha"),
    ),
    Column("alpha_low", "Lower end of the 95 % interval of alpha.", "1/input"),
    Column("alpha_high", "Upper end of the 95 % interval of alpha.", "1/input"),
    Column(
        "established",
        "Is the curve shown to be better than a line (status curved)?",
        "bool",
    ),
    Column(
        "alpha_channel",
        "Alpha of the tanh with a scale and an offset of its own for each channel, as a DyT "
        "layer has them; fitted to the sampled rows.",
        "1/input",
    ),
    Column("alpha_channel_low", "Lower end of its 95 % interval.", "1/input"),
    Column("alpha_channel_high", "Upper end of its 95 % interval.", "1/input"),
    OWN_ALPHA,
    Column("gamma", "Scale of the fitted tanh: gamma * tanh(alpha * x) + beta.", "z"),
    Column("beta", "Offset of the fitted curve or line.", "z"),
    Column(
        "slope",
        "Slope at the centre; of affine layers the median over the channels.",
        "1/input",
        cell=lambda row: number(central_slope(row)),
        key=central_slope,
        rank=0,
        page=True,
    ),
    Column(
        "slopes",
        "Smallest and largest slope over the channels of an affine layer; sorted by the largest.",
        "1/input",
        cell=slopes,
        key=lambda row: row.get("slope_max"),
        rank=1,
        page=True,
        wanted=any_has("slope_min"),
        stored=False,
    ),
    Column(
        "r2",
        "Share of variance that the tanh explains, whatever the status; of affine layers one "
        "line for all channels.",
        "R2",
        title="R2",
        format=r_squared,
        rank=0,
        page=True,
        wanted=lambda rows: any_has("r2")(rows) and not all_affine(rows),
    ),
    LINE,
    replace(
        LINE,
        name="one_line_r2",
        title="R2 one line",
        cell=lambda row: r_squared(row.get("linear_r2")),
        key=lambda row: row.get("linear_r2"),
        meaning="The same as R2 line, where every layer is a fan of lines.",
        wanted=lambda rows: any_has("linear_r2")(rows) and all_affine(rows),
        stored=False,
    ),
    Column(
        "r2_ceiling",
        "R2 of the best element-wise curve there could be; of affine layers from the sampled rows.",
        "R2",
        title="ceiling",
        format=r_squared,
        rank=3,
        page=True,
        wanted=any_has("r2_ceiling"),
    ),
    Column("gain", "r2 less linear_r2: what the tanh explains more than a line.", "R2"),
    Column("gain_low", "Lower end of the 95 % interval of the gain.", "R2"),
    Column("gain_high", "Upper end of the 95 % interval of the gain.", "R2"),
    Column(
        "channel_gain",
        "The same in scope channel: what a tanh for each channel explains more than a line for "
        "each; small beside a large gain where only the lines of the channels differ (mixture).",
        "R2",
    ),
    Column(
        "best_family",
        "Family of curves of the highest R2; +2: two more are tied with it (column tied names "
        "them).",
        "text",
        title="best",
        cell=best,
        key=lambda row: row.get("best_family") or None,
        left=True,
        rank=9,
        page=True,
        wanted=lambda rows: not all_affine(rows),
    ),
    Column(
        "tied",
        "Families that are not told from the best one by the paired interval of log(ceiling - "
        "R2), with | between; never one that contains the other.",
        "text",
    ),
    Column("images", "Images that the run saw.", "count"),
    Column("sources", "Independent photographs that these images are of.", "count"),
    Column(
        "sources_to_decide",
        "About how many photographs would decide an undetermined layer, were its gain as it is "
        "estimated here.",
        "count",
    ),
    Column("input_std", "Standard deviation of all inputs of the layer.", "input"),
    Column(
        "inverse_std",
        "One over the standard deviation of all inputs of the layer.",
        "1/input",
        title="1/std",
        format=number,
        rank=4,
        page=True,
    ),
    Column(
        "mean_inverse_sigma",
        "Mean over tokens of one over the sigma of a token; of layers that normalize each token.",
        "1/input",
    ),
    Column("sigma_cv", "Standard deviation of sigma over tokens, relative to its mean.", "ratio"),
    Column(
        "beyond_linear",
        "Share of elements where the curve is less than half as steep as in its centre.",
        "share",
        title="beyond %",
        format=percent,
        rank=8,
        page=True,
        wanted=any_has("beyond_linear"),
    ),
    Column("saturation", "Share of elements with |alpha * x| > 2.", "share"),
    Column(
        "max_abs_input",
        "Largest input by amount.",
        "input",
        title="max |x|",
        format=number,
        rank=5,
        page=True,
    ),
    Column(
        "massive_channels",
        "Channels whose largest |input| is over 100 and over 1000 times the layer's median.",
        "count",
    ),
    Column("count", "Elements that went through the layer.", "count", title="elements"),
    Column("slope_min", "Smallest slope over the channels of an affine layer.", "1/input"),
    Column("slope_median", "Median slope over those channels.", "1/input"),
    Column("slope_max", "Largest slope over those channels.", "1/input"),
    Column("slope_cv", "Standard deviation of those slopes, relative to their mean.", "ratio"),
    Column(
        "mean_std_spread",
        "Standard deviation over channels of the mean of a channel's input over its standard "
        "deviation: how far the lines of an affine layer lie apart.",
        "ratio",
    ),
)
