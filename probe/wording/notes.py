"""What the manifest of a run holds that must not be overlooked, in one line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from probe.wording.evidence import too_few_sources
from probe.wording.phrases import listed, plural

RANDOM = "RANDOM WEIGHTS: the model was not trained; these numbers say nothing about a trained one"
TRAINING = (
    "TRAIN MODE: the model, or a part of it, ran in train mode, with batch statistics and dropout; "
    "running statistics that moved were put back"
)


def warnings_of(manifest: Mapping[str, Any]) -> list[str]:
    """What makes the numbers worthless, others than at evaluation, or leaves every status open."""
    few = too_few_sources(manifest) if manifest.get("layers") else ""
    training = TRAINING if _model(manifest).get("training") else ""
    random = RANDOM if is_random(manifest) else ""
    return [line for line in (random, training, few, in_parts(manifest)) if line]


def in_parts(manifest: Mapping[str, Any]) -> str:
    """That the memory ran out and batches went through the model in parts; empty: never."""
    halved = manifest.get("halved")
    if not isinstance(halved, Mapping):
        return ""
    return (
        f"IN PARTS: the memory of the GPU ran out (batches that did not fit: {halved['batches']}), "
        f"and they went through the model in parts of at most "
        f"{plural(halved['images_per_pass'], 'image')}, which changes sums by rounding only"
    )


def table_metadata(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What the files of a run's tables say beside their numbers: `warning`, where the model gives
    cause for one.
    """
    warnings = warnings_of({"model": _model(manifest)})
    return {"warning": "; ".join(warnings)} if warnings else {}


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


def on_batch_statistics(manifest: Mapping[str, Any]) -> list[str]:
    """BatchNorms that took mean and variance from the batch at hand, not the running ones."""
    layers = manifest.get("layers") or []
    return [
        str(layer["layer"])
        for layer in layers
        if layer.get("kind") == "batch_norm" and not layer.get("affine")
    ]


def _model(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    model = manifest.get("model")
    return model if isinstance(model, Mapping) else {}


def missed(manifest: Mapping[str, Any], most: int) -> Iterator[str]:
    """Skipped images, norms that were not captured or are not what they are at evaluation; at most
    `most` of each by name.
    """
    if images := skipped(manifest):
        named = [f"{item['image']} ({item['reason']})" for item in images]
        yield f"skipped images: {len(images)}: {listed(named, most)}"
    if batches := on_batch_statistics(manifest):
        yield (
            "BatchNorm on the statistics of each batch (train mode, or none tracked): each channel "
            "is a line in every batch, with other lines in the next one: "
            f"{listed(batches, most, noun='layers')}"
        )
    if calls := functional(manifest):
        named = [f"{name or 'the model itself'} ({plural(n, 'call')})" for name, n in calls.items()]
        yield (
            "functional norms (F.layer_norm, ...), not captured: "
            f"{listed(named, most, noun='modules')}"
        )
