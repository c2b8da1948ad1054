"""How far the converted network is from the original one on images that it does not learn from:
what a distillation is judged by, without labels.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pandas as pd
from torch import nn

from probe.jobs.converting.evaluate import Comparison
from probe.jobs.converting.networks import WHOLE
from probe.models.reading.input_spread import input_spread
from probe.records import Progress
from probe.training.history import NORMS, Row, files_of, norm_table
from probe.training.norm_values import norm_rows
from probe.training.validation import evaluating

COLUMNS = {
    "epoch": "int64",
    "step": "int64",
    "learning_rate": "float64",
    "train_loss": "float64",
    "kl": "float64",
    "agreement": "float64",
    "seconds": "float64",
    "eval_seconds": "float64",
    "images_per_second": "float64",
}


class AgainstOriginal:
    """Rows of both tables for the network after a round. comparison: of the original and the
    converted network on the held-out images.
    """

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison

    def __call__(
        self, module: nn.Module, number: int, progress: Progress
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Columns of the table of rounds, rows of the table of norms."""
        began = time.perf_counter()
        with evaluating(module), input_spread(module) as spreads:
            score = self._comparison.score([WHOLE], again=True)
        std = {name: each.std for name, each in spreads.items() if each.count}
        row = {"kl": score.kl, "agreement": score.agreement}
        row["eval_seconds"] = time.perf_counter() - began
        return row, norm_rows(module, number, std)


def round_table(rows: Sequence[Row]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(COLUMNS)).astype(COLUMNS)


def round_files(rounds: Sequence[Row], norms: Sequence[Row]) -> dict[str, bytes]:
    """Both tables, by file name. They are called as those of a training."""
    return files_of({"epochs": round_table(rounds), "norms": norm_table(norms)})


__all__ = ["COLUMNS", "NORMS", "AgainstOriginal", "round_files", "round_table"]
