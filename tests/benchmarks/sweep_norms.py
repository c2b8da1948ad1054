"""Which normalization layers of timm's models are read, and which are not. Not collected by pytest;
run by hand (some minutes):

    python tests/benchmarks/sweep_norms.py [--models 'convnext*'] [--every]

Models are built without memory for their weights, three of each file of timm, or every one. A line
per class: its kind and the number of its layers; then classes that look like a norm and are not
read, layers whose output is not weight * normalized + bias, and models without any layer.
"""

from __future__ import annotations

import argparse
from collections import Counter

import timm
import torch

from probe.models.reading.layers import norm_modules
from probe.models.reading.unusual import affine_errors, unread_norms


def three_of_each_file(pattern: str) -> list[str]:
    names = []
    for file in timm.list_modules():
        own = timm.list_models(pattern, module=file)
        names += {own[0], own[len(own) // 2], own[-1]} if own else ()
    return sorted(set(names))


def sweep(names: list[str]) -> None:
    read, unread, wrong, without = Counter(), Counter(), Counter(), []
    for name in names:
        with torch.device("meta"):
            module = timm.create_model(name)
        layers = [(type(norm).__name__, kind.kind) for _, norm, kind in norm_modules(module)]
        read.update(layers)
        unread.update(unread_norms(module).values())
        wrong[name] = len(affine_errors(module))
        without += [name] * (not layers)
    for (cls, kind), layers in read.most_common():
        print(f"{layers:7} {cls:24} {kind}")
    print(f"{len(names)} models, {read.total()} layers read")
    print("not read:", dict(unread) or "none")
    print("output is not weight * normalized + bias:", dict(+wrong) or "none")
    print("models without a normalization layer:", ", ".join(without) or "none")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="*")
    parser.add_argument("--every", action="store_true")
    options = parser.parse_args()
    sweep(timm.list_models(options.models) if options.every else three_of_each_file(options.models))
