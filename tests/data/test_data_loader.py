"""Batches are the same for any number of workers; broken images are left out and named; a dead
worker is one line.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from probe.data import ImageSource, cut_batches, iterate, open_images
from probe.errors import ProbeError, UsageError


def to_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


def own_size(image: Image.Image) -> torch.Tensor:
    return torch.zeros(3, *image.size)


def refuses(image: Image.Image) -> torch.Tensor:
    raise ValueError("no\nthanks")


def die(index: int) -> Image.Image:
    os._exit(3)


@pytest.fixture
def photos(tmp_path: Path) -> ImageSource:
    """Eleven images, the third, fourth and last of which are broken."""
    for i in range(11):
        Image.new("RGB", (6, 6), (i, 2 * i, 0)).save(tmp_path / f"{i:02d}.png")
    for i in (2, 3, 10):
        (tmp_path / f"{i:02d}.png").write_bytes(b"broken")
    return open_images(tmp_path)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_any_number_of_workers_gives_the_same_batches(photos: ImageSource, workers: int) -> None:
    batches = list(iterate(photos, to_tensor, batch_size=4, workers=workers))
    assert [b.indices.tolist() for b in batches] == [[0, 1], [4, 5, 6, 7], [8, 9]]
    assert [[name for name, _ in b.skipped] for b in batches] == [
        ["02.png", "03.png"],
        [],
        ["10.png"],
    ]
    for batch in batches:
        expected = torch.stack([to_tensor(photos.load(i)) for i in batch.indices])
        assert torch.equal(batch.inputs, expected)
        assert batch.indices.dtype == np.int64


def test_a_batch_of_broken_images_is_empty_and_the_rest_goes_on(photos: ImageSource) -> None:
    batches = list(iterate(photos, to_tensor, batch_size=2))
    assert [len(b) for b in batches] == [2, 0, 2, 2, 2, 0]
    assert batches[1].skipped[0] == ("02.png", "not an image, or of no format that can be read")


@pytest.mark.parametrize("workers", [0, 1])
def test_only_broken_images_fail_the_job_with_the_first_reasons(
    tmp_path: Path, workers: int
) -> None:
    for i in range(5):
        (tmp_path / f"{i}.jpg").write_bytes(b"")
    with pytest.raises(
        ProbeError, match=r"none of the 5 images could be used \(0.jpg: not an image.*2.jpg: not an"
    ) as caught:
        list(iterate(open_images(tmp_path), to_tensor, 2, workers))
    assert "3.jpg" not in str(caught.value)


def test_a_transform_that_fails_is_a_reason_like_any_other(photos: ImageSource) -> None:
    with pytest.raises(ProbeError, match="00.png: transform failed: ValueError: no;"):
        list(iterate(photos, refuses))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_transform_of_unequal_shapes_is_one_line(tmp_path: Path, workers: int) -> None:
    for i in (4, 5):
        Image.new("RGB", (i, 4)).save(tmp_path / f"{i}.png")
    with pytest.raises(
        UsageError, match=r"different shapes \(\[\(3, 4, 4\), \(3, 5, 4\)\]\)"
    ) as caught:
        list(iterate(open_images(tmp_path), own_size, 2, workers))
    assert "\n" not in str(caught.value)


def test_a_transform_must_give_tensors(photos: ImageSource) -> None:
    with pytest.raises(UsageError, match="the transform gives a Image; it must give a tensor"):
        list(iterate(photos, lambda image: image))


def test_a_dead_worker_is_one_line() -> None:
    source = ImageSource(("a",), ("a",), {}, die)
    with pytest.raises(ProbeError, match="worker process died.*--workers") as caught:
        list(iterate(source, to_tensor, workers=1))
    assert "\n" not in str(caught.value)


def test_loading_leaves_the_random_numbers_of_the_caller_alone(photos: ImageSource) -> None:
    before = torch.get_rng_state()
    list(iterate(photos, to_tensor, workers=1))
    assert torch.equal(before, torch.get_rng_state())


def test_batches_are_consecutive_runs_of_the_index() -> None:
    assert [b.tolist() for b in cut_batches(5, 2)] == [[0, 1], [2, 3], [4]]
    assert list(cut_batches(0, 2)) == []


@pytest.mark.parametrize(("option", "value"), [("batch_size", 0), ("workers", -1)])
def test_impossible_numbers_are_refused(photos: ImageSource, option: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"{option} is {value}"):
        iterate(photos, to_tensor, **{option: value})
