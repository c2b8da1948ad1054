"""Normalization layers that are not what they seem: modules that look like one and are not read,
and layers whose output is not weight * normalized + bias.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from probe.wording.phrases import Row, listed

# Errors of the output above what rounding does to it: bfloat16 keeps 8 bits of the largest one.
IN_FLOAT32, IN_HALF = 1e-3, 0.02

OUTPUT_ERROR = "output_error"  # the name that the error of a layer has in the rows of a table


def affine_errors(manifest: Mapping[str, Any]) -> dict[str, float]:
    """Layers whose output on the images is not weight * normalized + bias, with the largest error
    relative to the largest output.
    """
    layers = manifest.get("layers") or []
    errors = {str(layer["layer"]): layer.get("affine_error") or 0.0 for layer in layers}
    rounding = IN_HALF if _computes_in_half(manifest) else IN_FLOAT32
    return {name: error for name, error in errors.items() if error > rounding}


def _computes_in_half(manifest: Mapping[str, Any]) -> bool:
    model = manifest.get("model") or {}
    return any("16" in str(model.get(name)) for name in ("dtype", "autocast"))


def not_read(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Modules that look like normalization layers and were not read: path and class."""
    return dict(manifest.get("not_read") or {})


def with_errors(
    rows: Sequence[Row], errors: Mapping[str, float], key: str = "layer"
) -> list[dict[str, Any]]:
    """The rows of a table of layers, each with the error of its output; None where it is what it
    seems. key: the field with the name of the layer.
    """
    return [{**row, OUTPUT_ERROR: errors.get(str(row[key]))} for row in rows]


def unusual(rows: Sequence[Row], unread: Mapping[str, str], most: int) -> Iterator[str]:
    """One line for the errors in the rows and one for what was not read, at most `most` by name."""
    if any(row[OUTPUT_ERROR] is not None for row in rows):
        yield (
            "output is not weight * normalized + bias where the table has an error of it: those "
            "curves hold for the normalized value only; probe.register_norm says what a class "
            "computes"
        )
    if unread:
        named = [f"{name or 'the model itself'} ({cls})" for name, cls in unread.items()]
        yield (
            f"not read, though by its name a normalization layer: {listed(named, most)}: "
            "probe.register_norm or --norm-type says what the class computes"
        )
