"""Where a run goes when --out does not say it."""

from __future__ import annotations

import re
from pathlib import PurePath


def default_out(model: str, weights: str) -> str:
    """`runs/<model>`: without `timm:` and `bundled:`, with `-random` or the name of the checkpoint
    for other weights.
    """
    name = re.sub(r"^(timm|bundled):", "", model)
    kind = "" if weights == "pretrained" else f"-{PurePath(weights).stem}"
    return f"runs/{re.sub(r'[^A-Za-z0-9._-]+', '_', name + kind).lstrip('.') or 'model'}"
