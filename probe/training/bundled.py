"""Train the bundled networks on CIFAR-10 by the recipe `cifar-small`.

    python -m probe.training.bundled vit_cifar10 --data cifar10/ --epochs 30 --out runs/train_vit

A use of `probe.train`: the same command continues an interrupted training. At its end the weights
lie in OUT/NAME.safetensors, as they are shipped. One seed, one run: the accuracy on the card is a
single measurement.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from probe.models.loading.bundled import ARCHITECTURES
from probe.training.recipes.cifar_small import RECIPE
from probe.training.result import Training
from probe.training.train import train

FIELDS = ("epochs", "batch_size", "opt", "lr", "weight_decay", "seed", "precision")  # of the recipe


def train_bundled(name: str, data: Path, out: Path, **fields: Any) -> Training:
    """A network of ARCHITECTURES on CIFAR-10's train-*.parquet and test-*.parquet in `data`.

    fields: what `probe.train` takes, in place of the recipe's. Raises what `probe.train` raises.
    """
    training = train(
        f"bundled:{name}", data=str(data), out=str(out), recipe=RECIPE, say=say, **fields
    )
    save_file(training.module.state_dict(), out / f"{name}.safetensors")
    return training


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


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
    parser.add_argument("--out", type=Path, required=True, help="folder of the training")
    parser.add_argument("--device", help="as `probe-norms train` takes it")
    for field in FIELDS:
        default = getattr(RECIPE, field)
        parser.add_argument(
            f"--{field.replace('_', '-')}", type=type(default), help=f"the recipe's: {default}"
        )
    options = vars(parser.parse_args())
    train_bundled(**{name: value for name, value in options.items() if value is not None})


if __name__ == "__main__":
    main()
