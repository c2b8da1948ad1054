"""Images in: where they come from, how they are decoded, how they become batches. What cannot be
used is counted and named.
"""

from __future__ import annotations

from probe.data.images import BadImage
from probe.data.labels import Labels, labels_of
from probe.data.loader import Batch, cut_batches, iterate, load_batch
from probe.data.source import ImageSource
from probe.data.sources import open_images

__all__ = [
    "BadImage",
    "Batch",
    "ImageSource",
    "Labels",
    "cut_batches",
    "iterate",
    "labels_of",
    "load_batch",
    "open_images",
]
