"""Named recipes: one small file each, with the source's own numbers."""

from __future__ import annotations

from probe.training.recipe import Recipe

RECIPES: dict[str, Recipe] = {}
