"""What the manifest of a run holds that must not be overlooked, in one line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from probe.wording.phrases import listed, plural

RANDOM = "RANDOM WEIGHTS: the model was not trained; these numbers say nothing about a trained one"
TRAINING = (
    "TRAIN MODE: the model, or a part of it, ran in train mode, with batch statistics and dropout; "
    "running statistics that moved were put back"
)


def warnings_of(manifest: Mapping[str, Any]) -> list[str]:
    """What makes the numbers worthless, or others than at evaluation."""
    warnings = [RANDOM] if is_random(manifest) else []
    return [*warnings, TRAINING] if _model(manifest).get("training") else warnings


def is_random(manifest: Mapping[str, Any]) -> bool:
    """Had the model random weights?"""
    return bool(_model(manifest).get("weights") == "random")


def skipped(manifest: Mapping[str, Any]) -> list[Any]:
    """The images that could not be read: `image` and `reason` of each."""
    return list((manifest.get("data") or {}).get("skipped") or [])


def functional(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Normalizations called as functions, which no hook sees: calls in one forward pass by the
    module that makes them.
    """
    return dict(manifest.get("not_captured") or {})


def _model(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    model = manifest.get("model")
    return model if isinstance(model, Mapping) else {}


def missed(manifest: Mapping[str, Any], most: int) -> Iterator[str]:
    """Skipped images and norms that were not captured, at most `most` of each by name."""
    if images := skipped(manifest):
        named = [f"{item['image']} ({item['reason']})" for item in images]
        yield f"skipped images: {len(images)}: {listed(named, most)}"
    if calls := functional(manifest):
        named = [f"{name or 'the model itself'} ({plural(n, 'call')})" for name, n in calls.items()]
        yield (
            "functional norms (F.layer_norm, ...), not captured: "
            f"{listed(named, most, noun='modules')}"
        )
