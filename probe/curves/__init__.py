"""Fit element-wise curves to the input-output map of a layer: numpy, scipy and numba, no torch, no
I/O.
"""

from __future__ import annotations

from probe.curves.binned import BinnedMap, beyond_linear, median_abs, saturation, share_outside
from probe.curves.channel_fit import (
    CHANNEL_FAMILIES,
    ChannelScope,
    fit_channels,
)
from probe.curves.families import (
    FAMILIES,
    LINE,
    Family,
    families_of,
    family_of,
    predict,
)
from probe.curves.pooled import pooled_line, sampled_ceiling, sampled_median_abs
from probe.curves.profile_fit import WEIGHTINGS, fit_profile
from probe.curves.selection import (
    interval,
    is_mixture,
    sources_to_decide,
    status_of,
    tied_with_best,
    without_curve,
)
from probe.curves.stand_in import Affine, StandIn

__all__ = [
    "CHANNEL_FAMILIES",
    "FAMILIES",
    "LINE",
    "WEIGHTINGS",
    "Affine",
    "BinnedMap",
    "ChannelScope",
    "Family",
    "StandIn",
    "beyond_linear",
    "families_of",
    "family_of",
    "fit_channels",
    "fit_profile",
    "interval",
    "is_mixture",
    "median_abs",
    "pooled_line",
    "predict",
    "sampled_ceiling",
    "sampled_median_abs",
    "saturation",
    "share_outside",
    "sources_to_decide",
    "status_of",
    "tied_with_best",
    "without_curve",
]
