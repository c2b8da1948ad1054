"""Images of random bytes are read or left out with a reason; never another error.

Trials are drawn by fixed seeds, so that a failure comes again.
"""

from __future__ import annotations

import io
import random
import warnings

import numpy as np
import pytest
from PIL import Image, features

from probe.data.images import BadImage, read_image

FORMATS = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "TGA", "JPEG2000", "WEBP", "AVIF"]


def image_bytes(kind: str, mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Bytes changed (headers more often than the rest), or the end cut off."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        reach = len(changed) if chance.random() < 0.5 else min(len(changed), 64)
        changed[chance.randrange(reach)] = chance.randrange(256)
    return bytes(changed[: chance.randint(1, len(changed))] if chance.random() < 0.2 else changed)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_image_of_random_bytes_is_read_or_left_out(kind: str) -> None:
    needed = {"JPEG2000": "jpg_2000", "WEBP": "webp", "AVIF": "avif"}.get(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow tells of features that it does not know
        if needed and not features.check(needed):
            pytest.skip(f"this Pillow has no {kind}")
    original, chance = image_bytes(kind), random.Random(kind)
    read = 0
    for trial in range(150):
        data = mutated(original, chance)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of damaged metadata
                image = read_image(io.BytesIO(data))
            assert image.mode == "RGB", (kind, trial)
            read += 1
        except BadImage as reason:
            if "\n" in str(reason):
                pytest.fail(f"{kind}, trial {trial}: {reason}")
    assert 0 < read < 150
