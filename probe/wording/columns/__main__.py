"""`python -m probe.wording.columns`: prints docs/columns.md."""

from __future__ import annotations

import sys

from probe.wording.columns.markdown import page

if __name__ == "__main__":
    sys.stdout.write(page())
