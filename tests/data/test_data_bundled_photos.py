"""The bundled photographs are real ones from the scikit-image wheel, cut into crops that never
change.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from probe.data import bundled_photos
from probe.data.bundled_photos import CROPS, PHOTOGRAPHS, bundled_crops, crop_box
from probe.errors import ProbeError


def test_every_crop_is_a_square_inside_its_photograph_and_none_is_repeated() -> None:
    for size in [(512, 512), (384, 303), (300, 451)]:
        boxes = [crop_box(size, number) for number in range(len(CROPS))]
        assert len(set(boxes)) == len(boxes)
        for left, top, right, bottom in boxes:
            assert right - left == bottom - top >= min(size) // 2
            assert (left >= 0, top >= 0, right <= size[0], bottom <= size[1]) == (True,) * 4


def test_crops_of_all_photographs_differ_and_hold_a_picture() -> None:
    crops = bundled_crops()
    assert len(crops) == len(PHOTOGRAPHS) * len(CROPS) >= 64
    pixels = {crop.id: crop.read().resize((32, 32)) for crop in crops if crop.number < 3}
    assert len({image.tobytes() for image in pixels.values()}) == len(pixels)
    assert all(np.asarray(image).std() > 4 for image in pixels.values())


def test_photographs_that_the_wheel_lacks_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = bundled_photos._wheel_folder()
    (tmp_path / "coffee.png").symlink_to(real / "coffee.png")
    # without its right view
    (tmp_path / "motorcycle_left.png").symlink_to(real / "motorcycle_left.png")
    monkeypatch.setattr(bundled_photos, "_wheel_folder", lambda: tmp_path)
    assert {crop.photograph for crop in bundled_crops()} == {"coffee"}
    (tmp_path / "coffee.png").unlink()
    with pytest.raises(ProbeError, match="give --data FOLDER"):
        bundled_crops()


def test_a_missing_scikit_image_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled_photos, "find_spec", lambda name: None)
    with pytest.raises(ProbeError, match="scikit-image, which is not installed"):
        bundled_crops()
