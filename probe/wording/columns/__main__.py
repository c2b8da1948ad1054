"""`python -m probe.wording.columns`: prints docs/columns.md."""

from __future__ import annotations

from probe.wording.columns.markdown import page

if __name__ == "__main__":
    print(page(), end="")
