"""What a normalizer has learned, as numbers: one row per layer, quantity and index.

alpha, shift                DyT, Derf
beta                        DyISRU: the number under its root
mean_share, var_share       DTN: sigmoid of its logits, the share of the token's own statistics;
                            index = head. SwitchNorm: its weights; index 0 IN, 1 LN, 2 BN
position_weight             DTN's positional projection; index = 3 * head + k
gain_mean, gain_std, gain_negative_share    over the channels of the weight
running_scale               mean over channels of the root of the running variance or second
                            moment
input_std, inverse_std      of the layer's input over a fixed set of images, and 1 over it
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from probe.models.reading.conventions import curve_names
from probe.models.reading.layers import list_norm_layers
from probe.models.reading.recognize import norm_type
from probe.norms.dyisru import DyISRU

RUNNING = ("running_var", "running_phi")
Value = tuple[str, int, float]


def norm_rows(
    module: nn.Module, epoch: int, input_std: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Rows of the table `norms` for every normalization layer. input_std: of the layers' inputs,
    by path.
    """
    rows = []
    for layer in list_norm_layers(module):
        own = {"epoch": epoch, "layer": layer.name, "depth": layer.depth, "kind": layer.kind}
        values = [*values_of(module.get_submodule(layer.module))]
        if layer.name in input_std:
            std = input_std[layer.name]
            values += [("input_std", 0, std), ("inverse_std", 0, 1 / std if std else float("inf"))]
        rows += [own | {"quantity": q, "index": i, "value": v} for q, i, v in values]
    return rows


def values_of(norm: nn.Module) -> Iterator[Value]:
    """(quantity, index, value) of one normalization layer."""
    yield from _curve(norm)
    yield from _shares(norm)
    weight = getattr(norm, "weight", None)
    if isinstance(weight, Tensor) and weight.numel():
        gain = weight.detach().double().reshape(-1)
        yield "gain_mean", 0, float(gain.mean())
        yield "gain_std", 0, float(gain.std(correction=0))
        yield "gain_negative_share", 0, float((gain < 0).double().mean())
    for name in RUNNING:
        running = getattr(norm, name, None)
        if isinstance(running, Tensor) and running.numel():
            yield "running_scale", 0, float(running.detach().double().clamp(min=0).sqrt().mean())


def _curve(norm: nn.Module) -> Iterator[Value]:
    kind = norm_type(norm)
    names = curve_names(norm) if kind is not None and kind.has_alpha else (None, None)
    for quantity, name in zip(("alpha", "shift"), names, strict=True):
        value = getattr(norm, name) if name else None
        if isinstance(value, Tensor):
            for index, each in enumerate(value.detach().double().reshape(-1).tolist()):
                yield quantity, index, each
    if isinstance(norm, DyISRU):
        yield "beta", 0, float(norm.beta.detach().double())


def _shares(norm: nn.Module) -> Iterator[Value]:
    """How DTN and SwitchNorm mix their statistics."""
    for quantity, name, switch in (
        ("mean_share", "mean_norm_weight", "mean_weight"),
        ("var_share", "var_norm_weight", "var_weight"),
    ):
        logits, weights = getattr(norm, name, None), getattr(norm, switch, None)
        shares: list[float] = []
        if isinstance(logits, Tensor):
            shares = torch.sigmoid(logits.detach().double()).tolist()
        elif isinstance(weights, Tensor):
            shares = weights.detach().double().reshape(-1).softmax(0).tolist()
        yield from ((quantity, index, share) for index, share in enumerate(shares))
    positions = getattr(getattr(norm, "pos_proj", None), "weight", None)
    if isinstance(positions, Tensor):
        for index, value in enumerate(positions.detach().double().reshape(-1).tolist()):
            yield "position_weight", index, value
