"""A training that learns, in under a minute."""

from __future__ import annotations

import pytest

import probe
from support.tiny_training import MODEL, stripe_folders

VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 48, "depth": 2, "num_heads": 3}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(stripe_folders(tmp_path_factory.mktemp("data")))


@pytest.mark.slow
def test_a_small_vit_learns_what_chance_cannot(data, tmp_path):
    done = probe.train(
        MODEL,
        "layer_norm",
        data=data,
        out=str(tmp_path / "t"),
        model_options=VIT,
        epochs=20,
        batch_size=32,
        crop="padded",
        padding=1,
        hflip=0.0,  # it would turn one diagonal into the other
        lr=2e-3,
        warmup_epochs=2,
        device="cpu",
    )
    table = done.epochs
    assert table["top1"].iloc[0] < 40
    assert table["top1"].iloc[-1] > 80  # chance is 25
    assert table["train_loss"].iloc[-1] < table["train_loss"].iloc[1]
