"""One training in a process of its own, which a test may kill: arguments of `probe.train` as JSON.

python -m support.training_process '{"data": ..., "out": ...}'
"""

from __future__ import annotations

import json
import sys

import probe

if __name__ == "__main__":
    probe.train(**json.loads(sys.argv[1]))
