"""The script that trains the bundled networks, on a handful of made-up images."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm.layers
import torch
from PIL import Image
from safetensors.torch import load_file

from probe.models.loading.bundled import ARCHITECTURES
from probe.training.bundled import augmented_batches, normalize, read_split, train
from probe.training.card import schedule_of


@pytest.fixture(autouse=True)
def fused_attention_as_before():
    before = timm.layers.use_fused_attn()
    yield
    timm.layers.set_fused_attn(bool(before))


@pytest.fixture
def cifar(tmp_path):
    """Twelve training and four test images in the layout of CIFAR-10's Parquet files."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        images = []
        for _ in range(count):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(file, "PNG")
            images.append({"bytes": file.getvalue(), "path": None})
        table = pa.table({"image": images, "label": [i % 10 for i in range(count)]})
        pq.write_table(table, tmp_path / f"{split}-00000-of-00001.parquet")
    return tmp_path


def run(cifar, out, epochs):
    train(
        "resnet_cifar10",
        cifar,
        out,
        epochs=epochs,
        batch_size=4,
        lr=1e-3,
        weight_decay=0.05,
        seed=0,
    )
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_an_interrupted_training_goes_on_where_it_stopped(cifar, tmp_path):
    assert [record["epoch"] for record in run(cifar, tmp_path / "out", 1)] == [1]
    assert [record["epoch"] for record in run(cifar, tmp_path / "out", 2)] == [1, 2]
    weights = load_file(tmp_path / "out" / "resnet_cifar10.safetensors")
    ARCHITECTURES["resnet_cifar10"]().load_state_dict(weights)
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert (
        float(weights["bn1.running_mean"].abs().max()) > 0
    )  # the statistics of the working copy came back


def test_augmented_batches_are_shifted_or_flipped_images(cifar):
    images, labels = read_split(cifar, "train")
    assert images.shape == (12, 3, 32, 32)
    batches = list(augmented_batches(images, labels, 5, torch.Generator().manual_seed(0)))
    assert [len(x) for x, _ in batches] == [5, 5]  # the rest of two is dropped
    x, y = batches[0]
    padded = normalize(torch.nn.functional.pad(images, (4, 4, 4, 4)))
    for crop, label in zip(x, y, strict=True):
        candidates = padded[labels == label]
        shifts = [(i, j) for i in range(9) for j in range(9)]
        cut = torch.cat([candidates[:, :, i : i + 32, j : j + 32] for i, j in shifts])
        assert any(torch.equal(crop, c) or torch.equal(crop, c.flip(-1)) for c in cut)


def test_a_card_says_where_the_schedule_was_changed():
    assert schedule_of([{"epochs": 3}] * 3) == ""
    assert (
        "2 epochs of a cosine schedule of 9, then 1 epochs of a cosine schedule of 3"
        in schedule_of([{"epochs": 9}, {"epochs": 9}, {"epochs": 3}])
    )
