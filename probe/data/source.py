"""What a source of images is: ids, the photograph that each came from, and a function that reads
one of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from probe.records import GROUPS

Reader = Callable[[int], Image.Image]


@dataclass(frozen=True)
class ImageSource:
    """Images in a fixed order. Picklable, so that loader workers and engines can read it."""

    ids: tuple[str, ...]
    # the photograph that each image came from; its own id where every image is a photograph
    sources: tuple[str, ...]
    description: dict[str, Any]  # JSON: kind, location, identity, found, chosen, ...
    read: Reader  # image index -> RGB image; raises BadImage

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def groups(self) -> np.ndarray:
        """Jackknife group of each image, (N,) int64 in 0 .. 15: rank of its source among the sorted
        distinct sources, mod 16.
        """
        return np.unique(np.array(self.sources), return_inverse=True)[1].astype(np.int64) % GROUPS

    def load(self, index: int) -> Image.Image:
        """Image `index` as RGB. Raises BadImage with the reason."""
        return self.read(index)

    def part(self, places: Sequence[int] | np.ndarray) -> ImageSource:
        """The images at these places, in their order; the description stays that of all."""
        rows = [int(place) for place in places]
        return replace(
            self,
            ids=tuple(self.ids[row] for row in rows),
            sources=tuple(self.sources[row] for row in rows),
            read=_Picked(self.read, tuple(rows)),
        )


@dataclass(frozen=True)
class _Picked:
    """Reads some of the images of a source."""

    read: Reader
    places: tuple[int, ...]

    def __call__(self, index: int) -> Image.Image:
        return self.read(self.places[index])


def choose(found: int, num_images: int | None, seed: int) -> np.ndarray:
    """Sorted places of the chosen images among `found` ones: all, or a seeded draw without
    replacement.
    """
    if num_images is None or num_images >= found:
        return np.arange(found)
    return np.sort(np.random.default_rng(seed).choice(found, num_images, replace=False))


def describe(
    kind: str, location: str, items: Iterable[tuple[str, Any]], found: int, **more: Any
) -> dict[str, Any]:
    """The manifest entry. `identity` is the SHA-256 of the (id, size) pairs of the chosen
    images.
    """
    pairs = [list(item) for item in items]
    digest = hashlib.sha256(json.dumps(pairs, ensure_ascii=True).encode()).hexdigest()
    return {
        "kind": kind,
        "location": location,
        "identity": f"sha256:{digest}",
        "found": found,
        "chosen": len(pairs),
        **more,
    }
