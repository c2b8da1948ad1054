"""Images in: where they come from, how they are decoded, how they become batches. What cannot be
used is counted and named.
"""

from __future__ import annotations

from probe.data.images import BadImage
from probe.data.labels import Labels, labels_of
from probe.data.loader import (
    Batch,
    cut_batches,
    cut_stream,
    iterate,
    iterate_stream,
    load_batch,
    none_used,
    read_batch,
    worker_died,
)
from probe.data.source import ImageSource
from probe.data.sources import open_images
from probe.data.streams import ImageStream, image_stream_of, is_stream_name, open_image_stream

__all__ = [
    "BadImage",
    "Batch",
    "ImageSource",
    "ImageStream",
    "Labels",
    "cut_batches",
    "cut_stream",
    "image_stream_of",
    "is_stream_name",
    "iterate",
    "iterate_stream",
    "labels_of",
    "load_batch",
    "none_used",
    "open_image_stream",
    "open_images",
    "read_batch",
    "worker_died",
]
