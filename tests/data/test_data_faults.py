"""Faults of files and of loader processes: one line names them, or they cost themselves only."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from probe.data import iterate, open_images
from probe.errors import ProbeError, UsageError
from probe.jobs.inputs import open_model, open_stream

NOBODY = "~no-such-user-here/x"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "photos"
    (place / "below").mkdir(parents=True)
    for name in ("a.png", "b.png", "below/c.png"):
        Image.new("RGB", (8, 8), (9, 99, 200)).save(place / name)
    return place


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image, np.float32))


def killed(image: Image.Image) -> torch.Tensor:
    os.kill(os.getpid(), signal.SIGKILL)
    return as_tensor(image)


def stuck(image: Image.Image) -> torch.Tensor:
    time.sleep(60)
    return as_tensor(image)


def test_a_link_to_itself_costs_itself_only(folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    (folder / "below" / "loop.png").symlink_to("loop.png")
    source = open_images(folder)
    assert source.ids == ("a.png", "b.png", "below/c.png", "below/loop.png")
    [batch] = iterate(source, as_tensor)
    assert [name for name, _ in batch.skipped] == ["below/loop.png"]
    assert not source.description["unreadable"]


@pytest.mark.parametrize("path", [NOBODY, "a\0b"])
def test_a_path_that_cannot_be_is_one_line(path: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{path}\n")
    for data in (path, [path], tmp_path / "list.txt"):
        with pytest.raises(UsageError, match="home folder of ~no-such-user-here|NUL character"):
            open_images(data)


def test_a_killed_loader_worker_is_one_line(folder: Path) -> None:
    with pytest.raises(ProbeError, match="a loader worker process died .out of memory.*--workers"):
        list(iterate(open_images(folder), killed, batch_size=1, workers=1))


def test_a_stuck_loader_worker_is_named_with_its_images(folder: Path) -> None:
    with pytest.raises(ProbeError) as caught:
        list(iterate(open_images(folder), stuck, batch_size=2, workers=1, timeout=1))
    assert str(caught.value) == (
        "the loader workers gave no batch for 1 s (--loader-timeout), waiting for 2 images, a.png "
        "to b.png: is a disk stuck? Give more seconds, or --workers 0"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loader_timeout": 5, "workers": 0}, "--loader-timeout 5: is for the processes of --work"),
        ({"loader_timeout": -1, "workers": 1}, "--loader-timeout -1: must be more than 0 seconds"),
    ],
)
def test_a_time_out_that_could_do_nothing_is_refused(options: dict[str, int], message: str) -> None:
    rest = {"num_images": None, "batch_size": 2, "seed": 0, "mask": None, "transform": None}
    with pytest.raises(UsageError, match=message):
        open_stream(open_model(torch.nn.LayerNorm(4)), None, **rest, **options)
