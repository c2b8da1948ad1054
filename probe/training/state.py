"""What a training continues from: weights, averaged weights, the state of the optimizer. Random
numbers need no state, being functions of where the training stands, and the rows of the tables so
far are in the tables.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from probe.errors import ProbeError, named_first_line
from probe.models.loading.weights import mismatch
from probe.training.folder import LAST
from probe.training.history import read_tables

WEIGHTS, AVERAGED, STATE = LAST


@dataclass
class Standing:
    """Where a training stands: `epoch` epochs are done, `step` updates of the next one, whose sums
    over images are loss, right, images and seconds.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    right: float = 0.0
    images: int = 0
    seconds: float = 0.0
    micro: int = 0  # images of a forward pass that the memory holds
    epochs: list[dict[str, Any]] = field(default_factory=list)  # rows of the tables
    norms: list[dict[str, Any]] = field(default_factory=list)

    def next_epoch(self) -> None:
        self.epoch += 1
        self.step = self.images = 0
        self.loss = self.right = self.seconds = 0.0


TABLES = ("epochs", "norms")
PLACE = tuple(each.name for each in fields(Standing) if each.name not in TABLES)


def weight_bytes(module: nn.Module, metadata: Mapping[str, str] | None = None) -> bytes:
    """The state dict of a module, sorted by name."""
    tensors = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in sorted(module.state_dict().items())
        if isinstance(value, Tensor)
    }
    return safetensors.torch.save(tensors, metadata=dict(metadata or {}))


def state_bytes(standing: Standing, optimizer: Any, scaler: Any) -> bytes:
    """As torch.load(weights_only=True) reads it."""
    buffer = io.BytesIO()
    content = {
        "standing": {name: getattr(standing, name) for name in PLACE},
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict() if scaler is not None else None,
    }
    torch.save(content, buffer)
    return buffer.getvalue()


def restore(
    folder: Path, module: nn.Module, averaged: nn.Module | None, optimizer: Any, scaler: Any
) -> Standing:
    """Everything as it was when `last/` was written. Raises ProbeError where it is damaged or of
    another shape.
    """
    try:
        load_weights(module, folder / WEIGHTS)
        if averaged is not None:
            load_weights(averaged, folder / AVERAGED)
        content = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        optimizer.load_state_dict(content["optimizer"])
        if scaler is not None and content["scaler"] is not None:
            scaler.load_state_dict(content["scaler"])
        place = {name: content["standing"][name] for name in PLACE}
        rows: dict[str, Any] = read_tables(folder)
        return Standing(**place, **rows)
    except ProbeError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, pickle.PickleError) as error:
        raise ProbeError(
            f"{folder / 'last'} is damaged ({named_first_line(error)}): give another --out, or "
            "--overwrite to begin anew"
        ) from error


def load_weights(module: nn.Module, path: Path) -> None:
    """Raises ProbeError for weights of another shape."""
    state = safetensors.torch.load_file(path)
    difference = mismatch(
        {name: each for name, each in module.state_dict().items() if isinstance(each, Tensor)},
        state,
    )
    if difference:
        raise ProbeError(f"{path} does not fit the network: {difference}")
    module.load_state_dict(state, strict=False)
