"""What a training runs on, by accelerate: devices, processes, precision, trackers."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from probe.errors import ProbeError, UsageError, first_line, unknown
from probe.models.loading.load import resolve_device

PROJECT = "probe-norms"  # what trackers call it


def plain_attention(module: nn.Module, precision: str, device: torch.device) -> None:
    """timm's attention as two products of matrices, where torch's fused one is slow: in bf16 on the
    CPU its backward pass takes most of a training's time.
    """
    if precision == "bf16" and device.type == "cpu":
        for layer in module.modules():
            if getattr(layer, "fused_attn", False) is True:
                layer.fused_attn = False  # type: ignore[assignment]


@contextmanager
def accelerated(device: str | None, precision: str, log: str | None, out: Path) -> Iterator[Any]:
    """An Accelerator for the block, with a tracker of the name `log`.

    Raises UsageError for a device, a precision or a tracker that is not there.
    """
    from accelerate import Accelerator
    from accelerate.utils import ProjectConfiguration

    _check_tracker(log)
    wanted = resolve_device(device)
    if wanted.type == "cpu" and precision == "fp16":
        raise UsageError("--precision fp16 needs a GPU; on the CPU give bf16 or no")
    if wanted.type == "cuda" and wanted.index is not None:
        torch.cuda.set_device(wanted.index)
    try:
        accelerator = Accelerator(
            cpu=wanted.type == "cpu",
            mixed_precision=precision,
            log_with=log,
            project_config=ProjectConfiguration(str(out), logging_dir=str(out)),
        )
    except ValueError as error:  # of accelerate: precision, environment
        raise UsageError(f"--precision {precision}: {first_line(error)}") from error
    try:
        yield accelerator
    finally:
        accelerator.end_training()
        _forget()


def _forget() -> None:
    """accelerate keeps device and precision of the first Accelerator for the whole process; the
    next training may want others.
    """
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def _check_tracker(log: str | None) -> None:
    """Raises UsageError for a tracker that accelerate does not know, ProbeError for a missing
    package.
    """
    if log is None:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    if log not in LOGGER_TYPE_TO_CLASS:
        raise unknown("--log", log, LOGGER_TYPE_TO_CLASS)
    packages = {"tensorboard": ("tensorboard", "tensorboardX"), "comet_ml": ("comet_ml",)}
    names = packages.get(log, (log,))
    if not any(importlib.util.find_spec(name) for name in names):
        raise ProbeError(f"--log {log} needs the package `{names[0]}`: pip install {names[0]}")


def start_tracker(accelerator: Any, log: str | None, out: Path, config: dict[str, Any]) -> None:
    """Event files go to out/tensorboard, runs of others where they keep theirs."""
    if log is None:
        return
    options = {"wandb": {"dir": str(out), "name": out.name}} if log == "wandb" else {}
    plain = {key: each for key, each in config.items() if isinstance(each, int | float | str)}
    accelerator.init_trackers(
        log if log == "tensorboard" else PROJECT, config=plain, init_kwargs=options
    )
