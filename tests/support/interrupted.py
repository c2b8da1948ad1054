"""A small capture of image files that can be broken off anywhere, and gone on with."""

from __future__ import annotations

import os
import random
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from probe.jobs.capturing.capture import capture
from probe.store import Run, checkpoint, open_run
from support.captures import Everything

IMAGES, BATCH = 26, 3
GRID = {"grid": (1, 11), "patch_size": 4, "prefix_tokens": 1}


class BrokenOff(BaseException):
    """Stands in for a Ctrl-C."""


class Restless(Everything):
    """In train mode: its BatchNorm moves its running statistics, and its dropout draws."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.3)
        self.train()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.drop(x) + self.batch_norm.running_mean)


def tokens(image: Image.Image) -> torch.Tensor:
    """An image as tokens (12, 8)."""
    grey = np.asarray(image.convert("L").resize((8, 12)), np.float32)
    return torch.from_numpy(grey / 64 - 2)


def write_images(folder: Path) -> Path:
    """Small images; one cannot be read, and a batch has none that can."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(IMAGES):
        pixels = rng.integers(0, 255, (12, 8)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")
    for index in (4, 12, 13, 14):
        (folder / f"{index:02d}.png").write_text("no image")
    return folder


def job(images: Path, out: Path, module: nn.Module | None = None, **options: Any) -> Run:
    """The capture; every option can be another one."""
    torch.manual_seed(1)
    few: dict[str, Any] = {"samples": 40, "tail": 80, "batch_size": BATCH, "attention": True}
    given = few | GRID | {"transform": tokens} | options
    return capture(Everything() if module is None else module, images, out=out, **given)


def state_after_each_batch(monkeypatch: Any) -> None:
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", 1e9)


def break_off(images: int, error: type[BaseException] = BrokenOff) -> Callable[..., None]:
    """A progress that raises once so many images are done."""

    def progress(stage: str, done: int, total: int | None, message: str = "") -> None:
        if stage == "capture" and done >= images:
            raise error

    return progress


def contents(run: Run) -> dict[str, bytes]:
    """Every file of a run; of the manifest all but the times."""
    files = {
        path.relative_to(run.path).as_posix(): path.read_bytes()
        for path in sorted(run.path.rglob("*"))
        if path.is_file()
    }
    del files["manifest.json"]
    rest = {name: value for name, value in open_run(run.path).manifest.items() if name != "times"}
    return files | {"manifest": repr(rest).encode()}


def killed_in_a_child(images: Path, out: Path, seed: int, resume: bool) -> int:
    """Runs the capture in a child of this process, which kills itself at a random place: in the
    midst of a forward pass, or in the midst of the writing of a state. Returns its status.
    """
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        checkpoint.EVERY, checkpoint.SHARE = 0.0, 1e9  # type: ignore[misc]
        rng = random.Random(seed)
        module = Everything()
        left = rng.randrange(10, 80)

        def step(*_: Any) -> None:
            nonlocal left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

        for child_module in module.modules():
            child_module.register_forward_hook(step)
        for name in ("fsync", "replace", "unlink"):
            whole = getattr(os, name)
            setattr(os, name, lambda *a, _whole=whole, **o: (step(), _whole(*a, **o))[1])
        job(images, out, module, resume=resume)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


__all__ = ["BrokenOff", "Restless", "break_off", "contents", "job", "tokens"]
