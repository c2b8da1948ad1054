"""Values to JSON: numpy numbers become numbers, paths become text, and what JSON has no word for (NaN, infinity) becomes null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """`value` made of what JSON can hold."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def json_bytes(value: Any) -> bytes:
    """Raises TypeError for what is no number, text, list or mapping."""
    return (json.dumps(plain(value), indent=1, allow_nan=False) + "\n").encode("ascii")
