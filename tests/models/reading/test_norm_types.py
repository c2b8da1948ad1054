"""One entry of the table makes a class a normalization layer for the whole package."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import probe
from probe.models.reading import norm_types
from probe.models.reading.norm_types import NORM_TYPES, NormType
from probe.stats.observed import GivenNorm


class MaxNorm(nn.Module):
    """weight * x / (max |x| + eps) + bias over the channels of axis 1, named as torch does."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_features, self.eps = channels, 1e-2
        self.weight = nn.Parameter(torch.linspace(-1, 2, channels))
        self.bias = nn.Parameter(torch.linspace(3, 4, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spread = (-1, *[1] * (x.ndim - 2))
        return self.weight.view(spread) * max_normalized(self, x) + self.bias.view(spread)


class OwnNames(MaxNorm):
    """The same with names that nobody else uses."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.gain, self.offset = self.weight, self.bias
        self.width, self.fuzz = self.num_features, self.eps
        del self.weight, self.bias, self.num_features, self.eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spread = (-1, *[1] * (x.ndim - 2))
        return self.gain.view(spread) * max_normalized(self, x) + self.offset.view(spread)


def max_normalized(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return x / (x.abs().amax(1, keepdim=True) + 1e-2)


PLAIN = NormType(
    "max_norm",
    lambda module: type(module) is MaxNorm,
    lambda module, x: GivenNorm(max_normalized(module, x)),
    channels_last=False,
)
OWN_NAMES = replace(
    PLAIN,
    kind="own_names",
    matches=lambda module: isinstance(module, OwnNames),
    channels=lambda module: module.width,
    eps=lambda module: module.fuzz,
    output_affine=lambda module, _: (module.gain.double(), module.offset.double()),
)


@pytest.fixture(params=[(PLAIN, MaxNorm), (OWN_NAMES, OwnNames)], ids=["torch's", "its own"])
def registered(request, monkeypatch):
    """A type with torch's names, or with its own, in the table: (entry, class)."""
    entry, norm_class = request.param
    monkeypatch.setattr(norm_types, "NORM_TYPES", (*NORM_TYPES, entry))
    return entry, norm_class


@torch.no_grad()
def test_a_type_of_one_entry_is_listed_captured_and_fitted(registered, tmp_path):
    entry, norm_class = registered
    norm, images = norm_class(4), torch.randn(32, 4, 3, 3)
    model = nn.Sequential(norm).eval()
    (layer,) = probe.list_norm_layers(model)
    assert (layer.kind, layer.channels, layer.eps) == (entry.kind, 4, 1e-2)
    run = probe.capture(model, images.split(8), out=tmp_path / "run", num_images=32)
    moments, samples = run.moments().sort_values("channel"), run.samples("0")
    assert moments["weight"].tolist() == pytest.approx([-1, 0, 1, 2])
    assert moments["bias"].tolist() == pytest.approx([3, 10 / 3, 11 / 3, 4])
    assert run.manifest["layers"][0]["affine_error"] < 1e-6
    image, position, channel = (torch.tensor(samples[c]) for c in ("image", "position", "channel"))
    expected = max_normalized(norm, images).flatten(2)[image, channel, position]
    assert samples["normalized"].tolist() == pytest.approx(expected.tolist())
    assert probe.fit(run, families=["linear", "tanh"])["layer"].unique().tolist() == ["0"]


def test_without_its_entry_it_is_no_normalization_layer():
    with pytest.raises(probe.UsageError, match="Sequential has no normalization layer"):
        probe.list_norm_layers(nn.Sequential(MaxNorm(4)))


def test_the_affine_of_a_type_of_one_entry_can_be_folded(monkeypatch):
    monkeypatch.setattr(norm_types, "NORM_TYPES", (*NORM_TYPES, PLAIN))
    model = nn.Sequential(MaxNorm(4), nn.Conv2d(4, 2, 1)).eval()
    images = torch.randn(2, 4, 3, 3)
    with torch.no_grad():
        before = model(images)
        result = probe.fold(model, images)
        torch.testing.assert_close(model(images), before, rtol=0, atol=1e-5)
    assert result.report[["layer", "kind", "into", "status"]].values.tolist() == [
        ["0", "max_norm", "1", "folded"]
    ]
