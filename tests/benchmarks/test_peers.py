"""The check of `bench_peers.py` tells an output that was overwritten from one that was cloned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from peers import reference
from peers.adapters import Job, hooks_clone, hooks_detach, hooks_streaming, probe
from peers.check import right_layers


class Overwriting(nn.Module):
    """A LayerNorm that is left alone and two BatchNorms whose outputs are overwritten."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.LayerNorm(4)
        self.before_relu = nn.BatchNorm2d(4)
        self.before_sum = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (3, 5))
        x = torch.relu_(self.before_relu(x))
        y = self.before_sum(x * 2)
        y += x
        return y


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder as `prepare` leaves it, of ten images with 15 positions each."""
    torch.manual_seed(0)
    truth = reference.Truth(model(), images=10, samples=40)
    truth.record(images())
    (tmp_path / reference.TRUTH).mkdir()
    for depth, (layer, arrays) in enumerate(truth.arrays().items()):
        np.savez(tmp_path / reference.TRUTH / f"{depth}.npz", layer=layer, **arrays)
    np.savez(tmp_path / reference.ROWS, **{str(n): rows for n, rows in truth.rows.items()})
    return tmp_path


def model() -> nn.Module:
    torch.manual_seed(1)
    return reference.with_varied_norms(Overwriting().eval())


def images() -> Tensor:
    return torch.randn(10, 4, 3, 5, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("adapter", "outputs"),
    [(hooks_detach, 1), (hooks_clone, 3), (hooks_streaming, 3), (probe, 3)],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_overwritten_outputs_are_wrong_and_clones_are_right(
    work: Path, adapter: Callable[[Job], None], outputs: int
) -> None:
    out = work / "out"
    out.mkdir()
    rows = {int(n): chosen for n, chosen in np.load(work / reference.ROWS).items()}
    layers = ["tokens", "before_relu", "before_sum"]
    adapter(Job(model(), layers, list(images().split(4)), rows, out))
    assert right_layers(work, out) == {"layers": 3, "input": 3, "output": outputs}
