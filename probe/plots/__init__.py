"""Figures: tidy tables in, Axes or Figure out. No function here reads a file, fits a curve or leaves a pyplot figure open."""

from __future__ import annotations

from probe.plots.layout import Frame
from probe.plots.s_curve import s_curve_grid, s_curves
from probe.plots.style import theme

__all__ = ["Frame", "s_curve_grid", "s_curves", "theme"]
