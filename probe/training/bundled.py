"""Train the bundled networks on CIFAR-10 from its Parquet files.

    python -m probe.training.bundled vit_cifar10 --data cifar10/ --epochs 30 --out runs/train_vit

Recipe, the same for both networks: AdamW, no weight decay on biases and norms (timm's rule), linear
warm-up and cosine decay per step, label smoothing 0.1, random crop with 4 pixels of padding and
horizontal flip. Matrix products run in bfloat16 on a working copy, weights and updates are float32.
One seed, one run: the accuracy on the card is a single measurement. Progress is on disk after every
epoch; the same command continues an interrupted run.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.layers import set_fused_attn
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from probe.models.loading.bundled import ARCHITECTURES, MEAN, STD

PADDING = 4


def read_split(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """All images of a split as uint8 (N, 3, 32, 32) and their labels (N,)."""
    table = pq.read_table(sorted(folder.glob(f"{split}-*.parquet")))
    images = [
        np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB"))
        for row in table["image"].to_pylist()
    ]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor(
        table["label"].to_pylist()
    )


def normalize(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (images.float() / 255 - mean) / std


def augmented_batches(
    images: Tensor, labels: Tensor, batch_size: int, rng: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """One shuffled epoch of random crops (4 pixels of padding) and flips, normalized; the last
    partial batch is dropped.
    """
    padded = F.pad(images, (PADDING,) * 4)
    size = images.shape[-1]
    for index in torch.randperm(len(images), generator=rng).split(batch_size):
        if len(index) < batch_size:
            return
        top, left = torch.randint(0, 2 * PADDING + 1, (2, len(index), 1), generator=rng)
        flip = torch.rand(len(index), 1, generator=rng) < 0.5
        columns = torch.arange(size)
        columns = torch.where(flip, size - 1 - columns, columns) + left
        rows = torch.arange(size) + top
        crop = padded[index[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(
            0, 3, 1, 2
        )
        yield normalize(crop), labels[index]


@torch.inference_mode()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Top-1 in percent, evaluation mode, float32."""
    model.eval()
    hits = sum(
        int((model(normalize(x)).argmax(1) == y).sum())
        for x, y in zip(images.split(500), labels.split(500), strict=True)
    )
    return 100 * hits / len(images)


def bfloat16_copy(model: nn.Module) -> nn.Module:
    """A copy that computes in bfloat16 with its BatchNorms, whose running statistics need the
    digits, left in float32.
    """
    work = copy.deepcopy(model).to(torch.bfloat16)
    for module in work.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.float()
    return work


def train(
    name: str,
    data: Path,
    out: Path,
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    seed: int,
) -> float:
    set_fused_attn(
        False
    )  # the fused bfloat16 attention backward on CPU is four times slower than the plain one
    torch.manual_seed(seed)
    model = ARCHITECTURES[name]()
    work = bfloat16_copy(model).train()
    optimizer = create_optimizer_v2(model, opt="adamw", lr=lr, weight_decay=weight_decay)
    images, labels = read_split(data, "train")
    test = read_split(data, "test")
    steps = len(images) // batch_size
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=epochs * steps,
        warmup_t=2 * steps,
        warmup_lr_init=lr / 100,
        lr_min=lr / 1000,
        warmup_prefix=False,
        t_in_epochs=False,
    )
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        start = state["epoch"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        work.load_state_dict(state["model"])
    top1 = math.nan
    for epoch in range(start, epochs):
        began, losses = time.perf_counter(), []
        rng = torch.Generator().manual_seed(seed * 1000 + epoch)
        for step, (x, y) in enumerate(augmented_batches(images, labels, batch_size, rng)):
            scheduler.step_update(epoch * steps + step)
            logits = work(x.to(torch.bfloat16)).float()
            loss = F.cross_entropy(logits, y, label_smoothing=0.1)
            loss.backward()
            for weight, shadow in zip(model.parameters(), work.parameters(), strict=True):
                assert shadow.grad is not None  # every parameter takes part in the loss
                weight.grad, shadow.grad = shadow.grad.to(weight.dtype), None
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                for weight, shadow in zip(model.parameters(), work.parameters(), strict=True):
                    shadow.copy_(weight)
            losses.append(loss.item())
        for buffer, computed in zip(model.buffers(), work.buffers(), strict=True):
            buffer.copy_(computed)
        top1 = accuracy(model, *test)
        record = {
            "epoch": epoch + 1,
            "epochs": epochs,
            "loss": round(sum(losses) / len(losses), 4),
            "top1": round(top1, 2),
            "seconds": round(time.perf_counter() - began, 1),
        }
        with open(out / "log.jsonl", "a") as log:
            log.write(json.dumps(record) + "\n")
        print(record, flush=True)
        partial = out / "checkpoint.tmp"
        torch.save(
            {"epoch": epoch + 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()},
            partial,
        )
        partial.replace(checkpoint)
        save_file(model.state_dict(), out / f"{name}.safetensors")
    return top1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=sorted(ARCHITECTURES))
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder with CIFAR-10's train-*.parquet and test-*.parquet",
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for checkpoint, log and weights"
    )
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    train(**options)


if __name__ == "__main__":
    main()
