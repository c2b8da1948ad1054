"""How much the images of a run can decide: how many there are, of how many photographs, and about
how many would decide what these do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from probe.records import MIN_GROUPS
from probe.wording.layers import undecided
from probe.wording.phrases import Row, listed, plural, rows_with

FAR_MORE = 10_000  # images: beyond this an estimate from so few says only "many more"


def seen_images(manifest: Mapping[str, Any]) -> tuple[int, int]:
    """How many images a run saw, and of how many independent sources (photographs) they are.

    Where a data set does not name its sources, each image is one.
    """
    data = manifest.get("data") or {}
    listed_images = data.get("images")
    planned = len(listed_images) if isinstance(listed_images, list) else listed_images
    images = int(manifest.get("images_seen") or planned or 0)
    return images, min(int(data.get("sources") or images), images)


def seen(manifest: Mapping[str, Any]) -> str:
    """`64 images of 14 photographs`; `64 images` where each is a photograph of its own."""
    images, sources = seen_images(manifest)
    text = plural(images, "image")
    return text if sources == images else f"{text} of {plural(sources, 'photograph')}"


def too_few_sources(manifest: Mapping[str, Any]) -> str:
    """What so few photographs cannot decide; empty where there are enough for intervals."""
    images, sources = seen_images(manifest)
    if not images or sources >= MIN_GROUPS:
        return ""
    return (
        f"{plural(sources, 'independent image')} cannot decide whether a layer bends: no layer is "
        f"called curved or linear under {MIN_GROUPS} (128 or more are advised)"
    )


def undecided_layers(rows: Sequence[Row], most: int = 4) -> str:
    """`not decided: 2 layers: blocks.1.norm1 (about 90 images would decide), ...`; empty where
    nothing is open.
    """
    open_rows = undecided(rows)
    if not open_rows:
        return ""
    text = f"not decided: {plural(len(open_rows), 'layer')}"
    estimated = rows_with(open_rows, "sources_to_decide")
    if not estimated:
        return f"{text} (no intervals with so few independent images)"
    named = [f"{row['layer']} ({_needed(row['sources_to_decide'])})" for row in estimated]
    return f"{text}: {listed(named, most)}"


def _needed(count: float) -> str:
    """About how many independent images would decide."""
    if count > FAR_MORE:
        return f"over {FAR_MORE:,} images would decide"
    return f"about {int(count)} images would decide"
