"""Training of the bundled networks, on a handful of made-up images, and what their cards read."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from probe.models.loading.bundled import ARCHITECTURES, MEAN, STD, transform
from probe.training import bundled
from probe.training.augment import look_of, training_transform
from probe.training.bundled import train_bundled
from probe.training.card import read_log, schedule_of
from probe.training.network import build_network
from probe.training.randomness import Stream, seeded
from probe.training.recipes.cifar_small import RECIPE


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """Twelve training and ten test images in the layout of CIFAR-10's Parquet files."""
    folder = tmp_path_factory.mktemp("cifar")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 10)):
        images = []
        for _ in range(count):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(file, "PNG")
            images.append({"bytes": file.getvalue(), "path": None})
        table = pa.table({"image": images, "label": [i % 10 for i in range(count)]})
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return folder


QUICK = {"epochs": 2, "batch_size": 4, "warmup_epochs": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def trained(cifar, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "resnet"
    return train_bundled("resnet_cifar10", cifar, out, **QUICK)


def test_the_weights_lie_as_they_are_shipped(trained):
    weights = load_file(trained.path / "resnet_cifar10.safetensors")
    ARCHITECTURES["resnet_cifar10"]().load_state_dict(weights)
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert float(weights["bn1.running_mean"].abs().max()) > 0


def test_a_finished_training_is_not_done_again(trained, cifar):
    before = (trained.path / "training.json").stat().st_mtime_ns
    again = train_bundled("resnet_cifar10", cifar, trained.path, **QUICK)
    assert (trained.path / "training.json").stat().st_mtime_ns == before
    assert again.epochs.equals(trained.epochs)


def test_the_command_has_the_fields_of_the_recipe(cifar, tmp_path, monkeypatch):
    asked: dict[str, object] = {}
    monkeypatch.setattr(bundled, "train_bundled", lambda **given: asked.update(given))
    arguments = ["vit_cifar10", "--data", str(cifar), "--out", str(tmp_path), "--lr", "2e-3"]
    monkeypatch.setattr(sys, "argv", ["bundled", *arguments, "--epochs", "12"])
    bundled.main()
    assert asked == {
        "name": "vit_cifar10",
        "data": cifar,
        "out": tmp_path,
        "lr": 2e-3,
        "epochs": 12,
    }


def test_images_are_shifted_or_mirrored_and_seen_as_in_evaluation():
    network = build_network(RECIPE, 10)
    look = look_of(RECIPE, network.model)
    assert look.size == (32, 32)
    assert (look.mean, look.std) == (pytest.approx(MEAN), pytest.approx(STD))
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (32, 32, 3), dtype=np.uint8))
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (MEAN, STD))
    pixels = transform()(image) * std + mean
    padded = torch.nn.functional.pad(pixels, (4, 4, 4, 4))
    shifts = [padded[:, i : i + 32, j : j + 32] for i in range(9) for j in range(9)]
    candidates = torch.stack([view for cut in shifts for view in (cut, cut.flip(-1))])
    augment, places = training_transform(RECIPE, look), set()
    for copy in range(12):
        with seeded(0, Stream.AUGMENT, 0, 0, copy):
            crop = augment(image) * std + mean
        distances = (candidates - crop).abs().amax(dim=(1, 2, 3))
        assert float(distances.min()) < 1e-5
        places.add(int(distances.argmin()))
    assert len(places) > 6


def test_a_card_reads_a_training_and_the_logs_of_before(trained, tmp_path):
    log = read_log(trained.path)
    assert [record["epoch"] for record in log] == [1, 2]
    assert {record["epochs"] for record in log} == {2}
    assert log[-1]["top1"] == trained.epochs["top1"].iloc[-1]
    assert log[-1]["loss"] == trained.epochs["train_loss"].iloc[-1]
    old = [{"epoch": 1, "epochs": 9, "loss": 2.0, "top1": 11.5}]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, old)))
    assert read_log(tmp_path / "log.jsonl") == old


def test_a_card_says_where_the_schedule_was_changed():
    assert schedule_of([{"epochs": 3}] * 3) == ""
    assert (
        "2 epochs of a cosine schedule of 9, then 1 epochs of a cosine schedule of 3"
        in schedule_of([{"epochs": 9}, {"epochs": 9}, {"epochs": 3}])
    )
