"""A capture changes nothing of the user's model, and says what it found it in; wrong requests are
found before anything is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from probe.errors import UsageError
from probe.jobs import inputs
from probe.jobs.capturing.attention import attention_distance
from probe.jobs.capturing.capture import capture
from probe.models.reading.unchanged import unchanged
from probe.wording.notes import TRAINING, warnings_of


def network() -> nn.Sequential:
    """BatchNorm with a running mean that holds NaN, one that keeps none, and spectral norm."""
    module = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, track_running_stats=False),
        torch.nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 1)),
        nn.InstanceNorm2d(4, track_running_stats=True),
        nn.Dropout(),
    )
    module[1].running_mean[0] = torch.nan
    return module


def bits(module: nn.Module) -> dict[str, bytes]:
    return {
        name: value.detach().contiguous().view(-1).numpy().tobytes()
        for name, value in module.state_dict().items()
    }


BATCHES = [torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(1))] * 2


def test_a_capture_in_train_mode_leaves_every_bit_and_every_mode(tmp_path: Path) -> None:
    module = network().train()
    module[4].eval()
    before, modes = bits(module), [child.training for child in module.modules()]
    held = module[1].running_var
    capture(module, BATCHES, out=tmp_path / "r")
    assert bits(module) == before
    assert [child.training for child in module.modules()] == modes
    assert module[1].running_var is held
    module(BATCHES[0])
    assert bits(module) != before  # the very pass that was captured moves them


def test_a_capture_that_fails_leaves_the_model_too(tmp_path: Path) -> None:
    module = network().train()
    before = bits(module)
    with pytest.raises(RuntimeError):
        capture(module, [*BATCHES, torch.zeros(4, 9, 5, 5)], out=tmp_path / "r")
    assert bits(module) == before


def test_train_mode_is_said_and_evaluation_mode_is_not(tmp_path: Path) -> None:
    run = capture(network().train(), BATCHES, out=tmp_path / "train")
    assert warnings_of(run.manifest) == [TRAINING]
    run = capture(network().eval(), BATCHES, out=tmp_path / "eval")
    assert warnings_of(run.manifest) == []
    part = network().eval()
    part[1].train()
    assert warnings_of(capture(part, BATCHES, out=tmp_path / "part").manifest) == [TRAINING]


def test_attention_distance_leaves_the_model_too() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(8)
            self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.norm(x.flatten(2)).transpose(1, 2)
            return self.attend(x, x, x)[0]

    module = Net().train()
    before = bits(module)
    attention_distance(module, [torch.randn(2, 8, 4, 4)], grid=(4, 4), patch_size=1)
    assert bits(module) == before


def test_a_buffer_that_was_replaced_is_put_back() -> None:
    module = nn.BatchNorm1d(2)
    held = module.running_mean
    with unchanged(module):
        module.running_mean = torch.ones(2)
    assert module.running_mean is held


def test_a_negative_zero_and_tensors_of_inference_mode_come_back_too() -> None:
    with torch.inference_mode():
        module = nn.BatchNorm1d(2)
        module.running_mean.copy_(torch.tensor([-0.0, 1.0]))
        before = bits(module)
        with unchanged(module):
            module.running_mean.zero_()
    assert bits(module) == before


class Loads(Exception):
    """Something was loaded."""


def fail(*_: Any, **__: Any) -> Any:
    raise Loads


def test_an_occupied_place_is_found_before_the_model_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.txt").touch()
    monkeypatch.setattr(inputs, "load_model", fail)
    with pytest.raises(UsageError, match="is no run and holds other files"):
        capture("resnet50", out=tmp_path, layers="nothing")
    with pytest.raises(Loads):
        capture("resnet50", out=tmp_path / "free")


def test_wrong_layers_are_found_before_weights_are_downloaded_or_data_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from probe.models.loading.origins import timm_models

    monkeypatch.setattr(timm_models, "_pretrained", fail)
    monkeypatch.setattr(inputs, "open_images", fail)
    with pytest.raises(UsageError, match="'bloks.*' matches none of the"):
        capture("test_vit", out=tmp_path / "r", layers="bloks.*")
    with pytest.raises(UsageError, match=r"'!\*' takes away every one of the"):
        capture("test_vit", out=tmp_path / "r", layers="!*")
    with pytest.raises(Loads):
        capture("test_vit", out=tmp_path / "r", layers="blocks.*")
    with pytest.raises(UsageError, match="'bloks.*' matches none of the"):
        capture("bundled:vit_cifar10", out=tmp_path / "r", layers="bloks.*")


def test_layers_that_are_left_out_are_not_in_the_run(tmp_path: Path) -> None:
    run = capture("bundled:vit_cifar10", out=tmp_path / "r", num_images=2, layers="!blocks.*")
    assert [layer["layer"] for layer in run.manifest["layers"]] == ["norm"]
