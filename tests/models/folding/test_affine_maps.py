"""Single maps and what is in their way: small modules, each with what must become of its layer
`norm`.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import timm.layers as tl
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from probe.norms.registry import create_norm as zoo
from support.fold_cases import fold_together, trained


class Net(nn.Module):
    """Named layers and a function of them: `Net(lambda m, x: m.fc(m.norm(x)), norm=...,
    fc=...)`.
    """

    def __init__(self, function: Any, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(self, x)


def behind(map: nn.Module, norm: nn.Module) -> Net:
    return Net(lambda m, x: F.relu(m.norm(m.map(x))), map=map, norm=norm)


def ahead(norm: nn.Module, map: nn.Module) -> Net:
    return Net(lambda m, x: F.relu(m.map(m.norm(x))), norm=norm, map=map)


def attention(m: Any, x: Any) -> Any:
    return F.scaled_dot_product_attention(m.q(x), m.k(x), m.v(x))


def self_attention(mha: nn.Module, x: Any) -> Any:
    return mha(x, x, x, need_weights=False)[0]


def rep_vgg(m: Any, x: Any) -> Any:
    return F.relu(m.map(x) + m.norm(x))


def gated(norm: nn.Module, x: Any) -> Any:
    return norm(x) * torch.sigmoid(x)


def branched(m: Any, x: Any) -> Any:
    return F.relu(m.norm(x)) + m.other(x)


def with_zeros_of_its_shape(m: Any, x: Any) -> Any:
    return m.map(x) + x.new_zeros(x.shape[:2]).sum()


def class_and_mean(x: Any, drop: nn.Module) -> Any:
    return torch.cat([x[:, 0], drop(x).mean(1)], 1)


torch.manual_seed(0)  # the networks of the tables are made at import: the same ones in every run
BN1, BN2, LN, LN2 = nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, tl.LayerNorm2d
CONV, UP, FC = nn.Conv2d, nn.ConvTranspose2d, nn.Linear
CHOSEN = torch.tensor([4, 0, 2])
IMAGES, TOKENS, VECTORS = (2, 4, 6, 5), (2, 7, 6), (3, 6)

# into the linear layer before it
BEFORE = {
    "conv": (behind(CONV(4, 6, 3, padding=1), BN2(6)), IMAGES),
    "no bias": (behind(CONV(4, 6, 3, bias=False), BN2(6)), IMAGES),
    "groups, stride, dilation": (
        behind(CONV(4, 6, 3, stride=2, padding=2, dilation=2, groups=2), BN2(6)),
        IMAGES,
    ),
    "reflection": (behind(CONV(4, 6, 3, padding=1, padding_mode="reflect"), BN2(6)), IMAGES),
    "same": (behind(CONV(4, 6, 3, padding="same"), BN2(6)), IMAGES),
    "1d": (behind(nn.Conv1d(4, 6, 3), BN1(6)), (2, 4, 9)),
    "3d": (behind(nn.Conv3d(4, 6, 2), nn.BatchNorm3d(6)), (2, 4, 3, 4, 3)),
    "transposed": (behind(UP(4, 6, 3, stride=2), BN2(6)), IMAGES),
    "transposed, groups, no bias": (behind(UP(4, 6, 3, groups=2, bias=False), BN2(6)), IMAGES),
    "linear": (behind(FC(6, 5), BN1(5)), VECTORS),
    "no affine": (behind(CONV(4, 6, 3), BN2(6, affine=False)), IMAGES),
    "norm and activation": (behind(CONV(4, 6, 3), tl.BatchNormAct2d(6)), IMAGES),
    "frozen": (behind(CONV(4, 6, 3), torchvision.ops.FrozenBatchNorm2d(6)), IMAGES),
    "frozen, activation": (behind(CONV(4, 6, 3), tl.FrozenBatchNormAct2d(6)), IMAGES),
    "tracking InstanceNorm": (
        behind(CONV(4, 6, 3), nn.InstanceNorm2d(6, affine=True, track_running_stats=True)),
        IMAGES,
    ),
    "flattened between": (
        Net(lambda m, x: F.relu(m.norm(m.map(x).flatten(0, 1))), map=FC(6, 5), norm=BN1(5)),
        TOKENS,
    ),
    "channels shuffled between": (
        Net(
            lambda m, x: F.relu(m.norm(F.channel_shuffle(m.map(x), 2))),
            map=CONV(4, 6, 1),
            norm=BN2(6),
        ),
        IMAGES,
    ),
    "RepBN": (behind(FC(6, 5), zoo("rep_batch_norm", 5)), TOKENS),
    "scaler": (behind(FC(6, 5), zoo("learnable_scaler", 5)), TOKENS),
    "scaler on images": (behind(CONV(4, 6, 3), zoo("learnable_scaler_2d", 6)), IMAGES),
    "batch norm on tokens": (behind(FC(6, 5), zoo("batch_norm", 5)), TOKENS),
}

# into the linear layers after it
AFTER = {
    "linear, no bias": (ahead(BN1(6), FC(6, 5, bias=False)), VECTORS),
    "conv, groups": (ahead(BN2(4), CONV(4, 6, 2, groups=2)), IMAGES),
    "wrapped padding": (ahead(BN2(4), CONV(4, 6, 3, padding=1, padding_mode="circular")), IMAGES),
    "pointwise transposed, groups": (ahead(BN2(4), UP(4, 6, 1, groups=2, bias=False)), IMAGES),
    "all pixels flattened": (
        Net(lambda m, x: m.map(m.norm(x).flatten(1)), norm=BN2(4), map=FC(120, 5)),
        IMAGES,
    ),
    "scaler": (ahead(zoo("learnable_scaler", 6), FC(6, 5, bias=False)), TOKENS),
}

# weight and bias into the linear layers after it
AFFINE = {
    "LayerNorm": (ahead(LN(6), FC(6, 5)), TOKENS),
    "LayerNorm without bias": (ahead(LN(6, bias=False), FC(6, 5, bias=False)), TOKENS),
    "RMSNorm": (ahead(nn.RMSNorm(6), FC(6, 5, bias=False)), TOKENS),
    "GroupNorm": (ahead(nn.GroupNorm(2, 4), CONV(4, 6, 1)), IMAGES),
    "InstanceNorm": (ahead(nn.InstanceNorm2d(4, affine=True), CONV(4, 6, 1)), IMAGES),
    "downsampling of ConvNeXt": (ahead(LN2(4), CONV(4, 6, 2, stride=2)), IMAGES),
    "scale alone, padded conv": (ahead(zoo("scale_norm_2d", 4), CONV(4, 6, 3, padding=1)), IMAGES),
    "scale alone, transposed": (
        ahead(zoo("rms_norm_2d", 4), UP(4, 6, 3, stride=2, padding=1, groups=2)),
        IMAGES,
    ),
    "DyISRU": (ahead(zoo("dyisru", 6), FC(6, 5)), TOKENS),
    "Derf": (ahead(zoo("derf", 6), FC(6, 5)), TOKENS),
    "class token": (Net(lambda m, x: m.map(m.norm(x)[:, 0]), norm=LN(6), map=FC(6, 5)), TOKENS),
    "mean of patches": (
        Net(lambda m, x: m.map(m.norm(x)[:, 1:].mean(1)), norm=LN(6), map=FC(6, 5)),
        TOKENS,
    ),
    "its shape is read": (
        Net(lambda m, x: with_zeros_of_its_shape(m, m.norm(x)), norm=LN(6), map=FC(6, 5)),
        TOKENS,
    ),
    "chosen tokens": (
        Net(lambda m, x: m.map(m.norm(x)[:, CHOSEN]), norm=LN(6), map=FC(6, 5)),
        TOKENS,
    ),
    "class token beside the mean": (
        Net(
            lambda m, x: m.map(class_and_mean(m.norm(x), m.drop)),
            norm=LN(6),
            drop=nn.Dropout(0.5),
            map=FC(12, 5),
        ),
        TOKENS,
    ),
    "pooled": (
        Net(
            lambda m, x: m.map(F.adaptive_avg_pool2d(m.norm(x), 1).flatten(1)),
            norm=LN2(4),
            map=FC(4, 5),
        ),
        IMAGES,
    ),
    "back on the grid": (
        Net(
            lambda m, x: m.map(m.norm(x).transpose(1, 2).reshape(2, 6, 7, 1)),
            norm=LN(6),
            map=CONV(6, 5, 1),
        ),
        TOKENS,
    ),
    "DropPath": (
        Net(lambda m, x: m.map(m.path(m.norm(x))), norm=LN(6), path=tl.DropPath(0.5), map=FC(6, 5)),
        TOKENS,
    ),
    "functional linear": (
        Net(lambda m, x: F.linear(m.norm(x), m.map.weight, m.map.bias), norm=LN(6), map=FC(6, 5)),
        TOKENS,
    ),
    "three readers": (
        Net(
            lambda m, x: attention(m, m.norm(x)),
            norm=LN(6),
            q=FC(6, 4),
            k=FC(6, 4, bias=False),
            v=FC(6, 4),
        ),
        TOKENS,
    ),
    "MultiheadAttention": (
        Net(
            lambda m, x: self_attention(m.mha, m.norm(x)),
            norm=LN(6),
            mha=nn.MultiheadAttention(6, 2, batch_first=True),
        ),
        TOKENS,
    ),
}

INTO = {"three readers": "q, k, v", "MultiheadAttention": "mha.in_proj"}
MOVED = {
    f"{direction}: {name}": (net, shape, direction, INTO.get(name, "map"))
    for direction, table in (("before", BEFORE), ("after", AFTER), ("affine", AFFINE))
    for name, (net, shape) in table.items()
}


@pytest.fixture(scope="module")
def moved_cases():
    nets = {name: (trained(net).double(), shape) for name, (net, shape, _, _) in MOVED.items()}
    return fold_together(nets, torch.float64)


@pytest.mark.parametrize("name", MOVED)
def test_a_map_moves_without_changing_the_output(moved_cases, name):
    _, _, direction, into = MOVED[name]
    case = moved_cases[name]
    assert [outcome for outcome in case.outcomes if outcome[0] == "folded"] == [
        ("folded", direction, into, "")
    ]
    assert case.relative < 1e-12
    assert case.changed
    assert case.undone


def tied(m: Net) -> Net:
    m.other.weight = m.map.weight
    return m


# what keeps a layer, as the report says it
KEPT = {
    "zeros outside need the shift": (
        ahead(BN2(4), CONV(4, 6, 3, padding=1)),
        IMAGES,
        "map pads with zeros",
    ),
    "zeros by the padding 'same'": (
        ahead(BN2(4), CONV(4, 6, 3, padding="same")),
        IMAGES,
        "map pads with zeros",
    ),
    "zeros by an operation of their own": (
        Net(lambda m, x: m.map(F.pad(m.norm(x), (1, 1))), norm=LN2(4), map=CONV(4, 6, 3)),
        IMAGES,
        "pad .* is in the way",
    ),
    "uneven positions": (
        ahead(BN2(4), UP(4, 6, 3, stride=2)),
        IMAGES,
        "map is a transposed convolution, where a shift",
    ),
    "activation": (
        Net(lambda m, x: m.map(F.relu(m.norm(x))), norm=LN(6), map=FC(6, 5)),
        TOKENS,
        "relu .* is in the way",
    ),
    "activation before": (
        Net(lambda m, x: m.norm(F.relu(m.map(x))), map=CONV(4, 6, 1), norm=BN2(6)),
        IMAGES,
        "before: relu",
    ),
    "activation of its own": (
        ahead(tl.BatchNormAct2d(4), CONV(4, 6, 1)),
        IMAGES,
        "after: its own activation comes after it",
    ),
    "maximum": (
        Net(lambda m, x: m.map(m.norm(x).amax(1)), norm=LN(6), map=FC(6, 5)),
        TOKENS,
        "amax .* is in the way",
    ),
    "clamp far out": (
        Net(lambda m, x: m.map(m.norm(x).clamp(-1e3, 1e3)), norm=LN(6), map=FC(6, 5)),
        TOKENS,
        "clamp .* is in the way",
    ),
    "residual sum": (
        Net(lambda m, x: x + m.norm(m.map(x)), map=FC(6, 6), norm=LN(6)),
        TOKENS,
        "add .* reads it together with another tensor",
    ),
    "reader beside": (
        Net(lambda m, x: m.map(m.norm(x)) + m.norm(x), norm=LN(6), map=FC(6, 6)),
        TOKENS,
        "called 2 times in one forward pass",
    ),
    "other reader of the input": (
        Net(lambda m, x: gated(m.norm, m.map(x)), map=CONV(4, 6, 1), norm=BN2(6)),
        IMAGES,
        "before: sigmoid .* is in the way",
    ),
    "other layer reads the input": (
        Net(lambda m, x: branched(m, m.map(x)), map=FC(6, 6), norm=BN1(6), other=FC(6, 6)),
        VECTORS,
        "before: its input is also read by other",
    ),
    "identity branch of RepVGG": (
        Net(lambda m, x: rep_vgg(m, F.relu(x)), map=CONV(4, 4, 3, padding=1), norm=BN2(4)),
        IMAGES,
        "before: its input is made by .*; after: add .* reads it together with another tensor",
    ),
    "returned": (
        Net(lambda m, x: m.norm(m.map(x)), map=FC(6, 6), norm=LN(6)),
        TOKENS,
        "the model returns it",
    ),
    "layer called twice": (
        Net(lambda m, x: m.map(m.map(m.norm(x))), norm=LN(6), map=FC(6, 6)),
        TOKENS,
        "map.weight is used 2 times in one forward pass",
    ),
    "shared weight": (
        tied(
            Net(
                lambda m, x: m.map(m.norm(x)) + m.other(x), norm=LN(6), map=FC(6, 5), other=FC(6, 5)
            )
        ),
        TOKENS,
        "weight is used 2 times",
    ),
    "computed weight": (
        ahead(LN(6), nn.utils.parametrizations.weight_norm(FC(6, 5))),
        TOKENS,
        "a weight of linear .* is computed or no parameter",
    ),
    "tokens mixed": (
        Net(lambda m, x: m.map(m.norm(x).transpose(1, 2)), norm=LN(6), map=FC(7, 5)),
        TOKENS,
        "its channels do not lie along the channels of map",
    ),
    "axis of tokens": (
        Net(lambda m, x: F.relu(m.norm(m.map(x))), map=FC(6, 5), norm=BN1(7)),
        TOKENS,
        "before: its channels do not",
    ),
    "input of the model": (
        Net(lambda m, x: F.relu(m.norm(x)), norm=BN2(4)),
        IMAGES,
        "before: its input is made by the model's input",
    ),
    "weights over several axes": (
        Net(lambda m, x: m.map(m.norm(x)), norm=LN((6, 5)), map=FC(5, 5)),
        IMAGES,
        "its weight lies along several axes",
    ),
    "in training mode": (
        ahead(BN1(6), FC(6, 5)),
        VECTORS,
        "it is in training mode",
    ),
    "no running statistics": (
        Net(
            lambda m, x: F.relu(m.norm(m.map(x))),
            map=CONV(4, 6, 1),
            norm=BN2(6, track_running_stats=False),
        ),
        IMAGES,
        "relu .* is in the way",
    ),
    "RepBN on its way from LayerNorm": (
        behind(FC(6, 5), zoo("rep_batch_norm", 5, decay_steps=10)),
        TOKENS,
        "nothing to fold: its weight is 1 and its bias 0",
    ),
    "never called": (
        Net(lambda m, x: m.map(x), norm=LN(6), map=FC(6, 5)),
        TOKENS,
        "it is not called on the example",
    ),
}


@pytest.fixture(scope="module")
def kept_cases():
    nets = {name: (trained(net), shape) for name, (net, shape, _) in KEPT.items()}
    nets["in training mode"][0].norm.train()
    return fold_together(nets, torch.float32)


@pytest.mark.parametrize("name", KEPT)
def test_what_is_not_exact_is_kept_with_the_reason(kept_cases, name):
    case = kept_cases[name]
    ((status, _, into, reason),) = case.outcomes
    assert (status, into) == ("kept", "")
    assert re.search(KEPT[name][2], reason), reason
    assert case.relative == 0
    assert not case.changed
