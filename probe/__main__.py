"""`python -m probe` is the command line `probe-norms`."""

from __future__ import annotations

import sys

from probe.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
