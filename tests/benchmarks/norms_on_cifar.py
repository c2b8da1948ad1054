"""The comparisons of docs/comparison.md, on CIFAR-10: nine norms in a small ViT; BatchNorm and DyT
in a small ResNet, from scratch and from the networks trained with BatchNorm.

    python tests/benchmarks/norms_on_cifar.py vit cifar10/ runs/norms_on_cifar
    python tests/benchmarks/norms_on_cifar.py resnet cifar10/ runs/norms_on_cifar

    python tests/benchmarks/norms_on_cifar.py export runs/norms_on_cifar figures/comparison

cifar10/ holds train-*.parquet and test-*.parquet. Each is a `probe.compare_norms`: killed, the same
command goes on. A cell takes a minute or two; several commands may share the work by --seeds and
--norms, and one without them then puts all together. `export` copies figures and raw
tables, and prints the tables of the page.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from PIL import Image

import probe
from probe.jobs.reporting.figures import FIGURE_COLOURS, with_palette

COMMON: dict[str, Any] = {
    "train_images": 5000,
    "val_images": 2000,
    "batch_size": 32,
    "lr": 1e-3,
    "warmup_epochs": 0.5,
    "clip_grad": 1.0,
    "crop": "padded",
    "crop_pct": 1.0,
    "image_size": 32,
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2470, 0.2435, 0.2616),
    "device": "cpu",
}
VIT: dict[str, Any] = {
    "model": "vit_tiny_patch16_224",
    "model_options": {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 64,
        "depth": 4,
        "num_heads": 2,
        "class_token": False,
        "global_pool": "avg",
    },
    "norm_layers": "blocks.*",
    "norms": "layer_norm,batch_norm,dyt,derf,rms_norm,unified_norm,learnable_scaler,rep_batch_norm,"
    "dtn",
    "epochs": 5,
    "probe_images": 32,
}
RESNET: dict[str, Any] = {
    "model": "bundled:resnet_cifar10",
    "norms": "batch_norm,dyt",
    "train_images": 10_000,
    "epochs": 5,
    "batch_size": 64,
    "precision": "bf16",
    "probe_images": 32,
}
# each seed starts from the BatchNorm network of its own seed
FINETUNED: dict[str, Any] = RESNET | {
    "norms": "own,dyt:default,dyt:fitted",
    "epochs": 3,
}


def vit(data: str, out: Path, seeds: list[int], norms: str | None) -> None:
    compare(data, out / "vit", VIT | {"seeds": seeds, "norms": norms or VIT["norms"]})


def resnet(data: str, out: Path, seeds: list[int], _norms: str | None) -> None:
    compare(data, out / "resnet", RESNET | {"seeds": seeds})
    trained = out / "resnet" / "cells" / "batch_norm" / "seed_{seed}" / "model.safetensors"
    more = {"weights": str(trained), "seeds": seeds}
    compare(data, out / "resnet_trained", FINETUNED | more)


COPIED = ("comparison.csv", "cells.csv", "attention.csv")
FIGURES = ("accuracy_by_norm", "comparison_curves", "alpha_by_norm", "s_curves_by_norm")
FIGURES += ("attention_by_norm", "cost_against_accuracy")


def export(out: str, place: Path) -> None:
    """Tables and figures of every comparison in `out` into the folder `place`."""
    place.mkdir(parents=True, exist_ok=True)
    for folder in sorted(Path(out).iterdir()):
        for file in filter(Path.is_file, (folder / name for name in COPIED)):
            shutil.copyfile(file, place / f"{folder.name}_{file.name}")
        pictures = (folder / "figures" / f"{name}.png" for name in FIGURES)
        for file in filter(Path.is_file, pictures):
            small = with_palette(Image.open(file), FIGURE_COLOURS)
            (place / f"{folder.name}_{file.name}").write_bytes(small)
        print(f"{folder.name}\n\n{table_of(pd.read_csv(folder / 'comparison.csv'))}\n")


def table_of(comparison: pd.DataFrame) -> str:
    """As Markdown."""
    lines = ["| norm | n | top-1 % | std | difference [95 %] |", "| --- | --- | --- | --- | --- |"]
    for row in comparison.itertuples():
        interval = f" [{row.difference_low:+.2f}, {row.difference_high:+.2f}]"
        shown = f"{row.difference:+.2f}{interval if row.pairs > 1 else ''}" if row.pairs else ""
        std = f"{row.top1_std:.2f}" if row.n > 1 else ""
        lines.append(f"| `{row.norm}` | {row.n} | {row.top1_mean:.2f} | {std} | {shown} |")
    return "\n".join(lines)


def compare(data: str, out: Path, settings: dict[str, Any]) -> None:
    comparison = probe.compare_norms(data=data, out=str(out), progress=say, **COMMON | settings)
    print(comparison.table.to_string(), flush=True)


def say(stage: str, done: int, total: int | None, message: str = "") -> None:
    """The cells as they begin and end."""
    if stage != "read" and (done == total or stage == "time"):
        print(time.strftime("%H:%M:%S"), stage, done, total, message, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("which", choices=("vit", "resnet", "export"))
    parser.add_argument("data", help="CIFAR-10 as Parquet files; of export: OUT")
    parser.add_argument("out", type=Path, help="folder of the comparisons; of export: the figures")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--norms", help="fewer norms of the ViT, with commas between")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.which == "export":
        export(given.data, given.out)
        return
    compare_all = {"vit": vit, "resnet": resnet}[given.which]
    compare_all(given.data, given.out.resolve(), given.seeds, given.norms)


if __name__ == "__main__":
    main()
