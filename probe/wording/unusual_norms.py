"""Normalization layers that are not what they seem: modules that look like one and are not read,
and layers whose output is not weight * normalized + bias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from probe.formatting import number

# Above what half precision does to an output: bfloat16 keeps 8 bits of the largest one.
TELLING = 0.02


def affine_errors(manifest: Mapping[str, Any]) -> dict[str, float]:
    """Layers whose output on the images is not weight * normalized + bias, with the largest error
    relative to the largest output.
    """
    errors = {
        str(layer["layer"]): layer.get("affine_error") for layer in manifest.get("layers") or []
    }
    return {name: error for name, error in errors.items() if error is not None and error > TELLING}


def not_read(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Modules that look like normalization layers and were not read: path and class."""
    return dict(manifest.get("not_read") or {})


def unusual(errors: Mapping[str, float], unread: Mapping[str, str], most: int = 3) -> list[str]:
    """One line for each of the two, at most `most` layers by name; none where all is usual."""
    lines = []
    if errors:
        named = [f"{name} (relative error {number(error)})" for name, error in errors.items()]
        lines.append(
            f"output is not weight * normalized + bias: {_listed(named, most)}: the curves hold "
            "for its normalized value only; probe.register_norm can say what the class computes"
        )
    if unread:
        named = [f"{name or 'the model itself'} ({cls})" for name, cls in unread.items()]
        lines.append(
            f"not read, though by its name a normalization layer: {_listed(named, most)}: "
            "probe.register_norm or --norm-type says what the class computes"
        )
    return lines


def _listed(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
