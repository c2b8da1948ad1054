"""Figures: tidy tables in, Axes or Figure out. No function here reads a file, fits a curve or
leaves a pyplot figure open.
"""

from __future__ import annotations

from probe.plots.alpha import alpha_vs_inverse_std
from probe.plots.attention import (
    attention_distance,
    distance_by_depth,
    sorted_distances,
    sorted_heads,
)
from probe.plots.attention_depth import (
    entropy_by_depth,
    prefix_mass_and_entropy,
    prefix_mass_by_depth,
)
from probe.plots.attention_heatmap import distance_cells, distance_heatmap
from probe.plots.attention_overlay import attention_map, attention_maps, rollout
from probe.plots.colored import by_channel, by_channel_grid, by_position, by_position_grid
from probe.plots.compare import Side, compare_grid
from probe.plots.convert import conversion_by_depth
from probe.plots.extremes import extremes_by_depth
from probe.plots.families import families_by_depth
from probe.plots.fitted import Shape
from probe.plots.layout import Frame
from probe.plots.lines import lines_by_depth, r2_by_scope
from probe.plots.s_curve import s_curves
from probe.plots.s_curve_grid import s_curve_grid
from probe.plots.style import theme
from probe.plots.tokens import prefix_and_patch, token_grid

__all__ = [
    "Frame",
    "Shape",
    "Side",
    "alpha_vs_inverse_std",
    "attention_distance",
    "attention_map",
    "attention_maps",
    "by_channel",
    "by_channel_grid",
    "by_position",
    "by_position_grid",
    "compare_grid",
    "conversion_by_depth",
    "distance_by_depth",
    "distance_cells",
    "distance_heatmap",
    "entropy_by_depth",
    "extremes_by_depth",
    "families_by_depth",
    "lines_by_depth",
    "prefix_and_patch",
    "prefix_mass_and_entropy",
    "prefix_mass_by_depth",
    "r2_by_scope",
    "rollout",
    "s_curve_grid",
    "s_curves",
    "sorted_distances",
    "sorted_heads",
    "theme",
    "token_grid",
]
