"""Convert a model with norm classes of its user's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import probe
from probe.errors import UsageError
from probe.models.reading.registry import REGISTERED

C = 8


class Ratio(nn.Module):
    """w x / max|x|, a norm by no name."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 2, C))

    def forward(self, x):
        return self.scale * ratio(self, x)


def ratio(module, x):
    return x / x.abs().amax(-1, keepdim=True)


def network() -> nn.Module:
    torch.manual_seed(0)
    head = nn.Flatten(), nn.Linear(5 * C, 4)
    return nn.Sequential(nn.LayerNorm(C), nn.Linear(C, C), Ratio(), *head).eval()


def batches() -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return [3 * torch.randn(4, 5, C, generator=rng) for _ in range(8)]


@pytest.fixture
def run(tmp_path):
    probe.register_norm(Ratio, ratio)
    try:
        yield probe.capture(network(), batches(), out=tmp_path / "run")
    finally:
        REGISTERED.clear()


def test_a_layer_of_a_registered_class_gets_a_stand_in_with_its_own_weight(run):
    done = probe.convert(run, model=network(), data=batches())
    assert done.table.set_index("layer")["replaced"].to_dict() == {"0": True, "2": True}
    gamma = done.model.module[2].weight.detach() / Ratio().scale.detach()  # w * gamma is stored
    assert gamma.std() < 0.05 * gamma.mean()


def test_without_the_registration_the_layer_is_named_and_nothing_is_converted(run):
    probe.unregister_norm(Ratio)
    with pytest.raises(UsageError, match=r"layer 2 of run .* is not read now: .*Ratio=ratio") as no:
        probe.convert(run, model=network(), data=batches())
    assert "\n" not in str(no.value)


def test_a_converted_file_asks_for_the_registration(run, tmp_path):
    out = tmp_path / "dyt.safetensors"
    probe.convert(run, model=network(), data=batches(), out=out)
    assert type(probe.load_converted(out, model=network()).module[2]).__name__ == "DyT"
    probe.unregister_norm(Ratio)
    with pytest.raises(UsageError, match=r"no normalization layer 2 .*probe.register_norm"):
        probe.load_converted(out, model=network())
