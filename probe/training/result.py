"""A training that is there: its tables, its record, its network."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from probe.models.loading.load import Model, load_model
from probe.training.folder import MODEL, read_record


@dataclass
class Training:
    """What `train` returns, and `open_training` opens.

    path: its folder. record: training.json. module: the network that was evaluated; of a training
    that was opened again it is built when it is first asked for.
    """

    path: Path
    record: dict[str, Any]
    trained: nn.Module | None = None  # where it was trained just now

    @property
    def epochs(self) -> pd.DataFrame:
        """One row per epoch: see docs/training.md."""
        return pd.read_parquet(self.path / "epochs.parquet")

    @property
    def norms(self) -> pd.DataFrame:
        """One row per epoch, layer, quantity and index."""
        return pd.read_parquet(self.path / "norms.parquet")

    @property
    def weights(self) -> Path:
        """The file of the weights that were evaluated."""
        return self.path / MODEL

    @cached_property
    def model(self) -> Model:
        """The trained network as load_model gives it. Raises UsageError for one of a plain module,
        which cannot be built by a name.
        """
        return load_model(str(self.weights), device="cpu")

    @property
    def module(self) -> nn.Module:
        return self.model.module if self.trained is None else self.trained.eval()


def open_training(path: str | os.PathLike[str]) -> Training:
    """The training in a folder. Raises UsageError where there is none."""
    return Training(Path(path).expanduser(), read_record(path))
