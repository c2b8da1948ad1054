"""What happens when memory runs out, and when numbers stop being finite."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import probe
from probe.errors import ProbeError
from support.tiny_training import colour_folders


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(colour_folders(tmp_path_factory.mktemp("data")))


class Narrow(nn.Module):
    """A network on a device that holds so many images at once in training."""

    def __init__(self, most: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.most, self.seen = most, []
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(3 * 16 * 16, 8), nn.LayerNorm(8), nn.Linear(8, 3)
        )

    def forward(self, images):
        if self.training:
            self.seen.append(len(images))
            if len(images) > self.most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.body(images)


PLAIN = {
    "epochs": 2,
    "batch_size": 8,
    "crop": "padded",
    "device": "cpu",
    "image_size": 16,
    "mixup": 0.2,
    "opt": "sgd",  # Adam would not see a gradient that is a multiple
    "lr": 0.05,
}


def test_out_of_memory_halves_the_micro_batch_and_trains_the_same(data, tmp_path):
    lines: list[str] = []
    narrow = Narrow(2)
    done = probe.train(narrow, data=data, out=str(tmp_path / "a"), say=lines.append, **PLAIN)
    whole = probe.train(Narrow(8), data=data, out=str(tmp_path / "b"), **PLAIN)
    said = [line for line in lines if line.startswith("out of memory")]
    assert said == [
        "out of memory: 4 images per forward pass from here on, 2 of them per update",
        "out of memory: 2 images per forward pass from here on, 4 of them per update",
    ]
    assert narrow.seen[:3] == [8, 4, 2]
    assert set(narrow.seen[2:]) == {2}
    weights = load_file(whole.weights)
    for name, value in load_file(done.weights).items():
        torch.testing.assert_close(value, weights[name], rtol=1e-4, atol=1e-6)


def test_memory_for_not_even_one_image_is_told(data, tmp_path):
    with pytest.raises(ProbeError, match="out of memory with one image at a time"):
        probe.train(Narrow(0), data=data, out=str(tmp_path / "a"), **PLAIN)


class Breaking(nn.Module):
    """Its layer `bad` gives infinities from the sixth training step on, or infinite gradients."""

    def __init__(self, where: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8), nn.LayerNorm(8))
        self.bad = Bad(where)
        self.head = nn.Linear(8, 3)

    def forward(self, images):
        return self.head(self.bad(self.first(images)))


class Bad(nn.Module):
    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.inner = nn.Identity()

    def forward(self, x):
        x = self.inner(x)
        if not self.training:
            return x
        self.steps += 1
        if self.steps < 8:
            return x
        if self.where == "forward":
            return x / 0
        return x + 1e-30 * (x - x).abs().sqrt()  # the slope of the root at 0 is infinite


def test_weights_that_are_not_finite_are_told_by_name(data, tmp_path):
    broken = Breaking("nowhere")
    broken.head.weight.data[0, 0] = float("nan")
    with pytest.raises(ProbeError, match="update 1 .* not finite, for head.weight is not;"):
        probe.train(broken, data=data, out=str(tmp_path / "a"), **PLAIN)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("forward", "the loss of update 8 (epoch 2) is not finite, first at the output of bad;"),
        (
            "backward",
            "the gradient of update 8 (epoch 2) is not finite, first in the backward pass of bad;",
        ),
    ],
)
def test_numbers_that_are_not_finite_stop_with_the_layer(where, told, data, tmp_path):
    with pytest.raises(ProbeError) as stopped:
        probe.train(Breaking(where), data=data, out=str(tmp_path / "a"), **PLAIN)
    assert told in str(stopped.value)
    assert "holds 1 of 2 epochs" in str(stopped.value)
    assert json.loads((tmp_path / "a" / "training.json").read_text())["status"] == "failed"
    weights = load_file(tmp_path / "a" / "last" / "model.safetensors")
    assert all(torch.isfinite(value).all() for value in weights.values())
