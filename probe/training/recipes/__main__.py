"""`python -m probe.training.recipes > docs/recipes.md`."""

from __future__ import annotations

import sys

from probe.training.recipes.page import page

if __name__ == "__main__":
    sys.stdout.write(page())
