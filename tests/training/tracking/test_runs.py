"""Probing a network in the middle of its training changes nothing of the training."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from probe.models.reading.unchanged import unchanged
from probe.store import verify_run
from probe.training.tracking.runs import probe_checkpoint
from support.captures import token_batches

pytestmark = pytest.mark.long


class Learner(nn.Module):
    """A norm with running statistics, one without, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.batch_norm, self.drop = nn.LayerNorm(8), nn.BatchNorm1d(8), nn.Dropout(0.5)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.batch_norm(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return self.head(self.drop(x).mean(1))


def training(probed: Path | None) -> dict[str, torch.Tensor]:
    """Six updates, with a look at the network after the third; its weights at the end."""
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    module = Learner().train()
    module.batch_norm.eval()  # a part that was frozen
    optimizer = torch.optim.AdamW(module.parameters(), 0.01)
    for step in range(6):
        x = torch.randn(4, 5, 8) * random.random() * np.random.rand()  # noqa: NPY002
        module(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if probed is not None and step == 2:
            run = probe_checkpoint(module, token_batches(16), probed, samples=40, tail=20)
            assert run.manifest["model"]["training"] is False
            assert verify_run(run) == []
    assert (module.training, module.batch_norm.training) == (True, False)
    return module.state_dict()


def test_a_training_that_is_probed_is_the_training_that_is_not(tmp_path: Path) -> None:
    probed = training(tmp_path / "probes" / "epoch_003")
    alone = training(None)
    assert all(torch.equal(value, alone[name]) for name, value in probed.items())


def test_gradients_of_the_weights_stay(tmp_path: Path) -> None:
    module = Learner()
    module(torch.randn(4, 5, 8)).sum().backward()
    before = module.head.weight.grad
    assert before is not None
    kept = before.clone()
    probe_checkpoint(module, token_batches(8), tmp_path / "run", samples=20, tail=4)
    assert module.head.weight.grad is before
    assert torch.equal(before, kept)


def test_a_job_that_fails_leaves_no_run_and_the_modes(tmp_path: Path) -> None:
    module: Any = Learner().train()
    with unchanged(module), pytest.raises(RuntimeError):
        probe_checkpoint(module, [torch.zeros(2, 5, 9)], tmp_path / "run")
    assert module.training
    assert module.norm.training
    assert list(tmp_path.iterdir()) == []
