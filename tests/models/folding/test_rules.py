"""The rules of `fold`: undone bit for bit, checked on an example, refused with a reason, and what
the report says.
"""

from __future__ import annotations

import copy

import pandas as pd
import pytest
import torch
from torch import nn

import probe
from probe.errors import ProbeError, UsageError
from probe.models.folding.fold import fold
from probe.models.folding.linear import LinearOp
from support.fold_cases import (
    change,
    convnext,
    folded,
    inputs,
    kept,
    run,
    same,
    state,
    trained,
    vit,
)


def test_undo_brings_back_the_same_objects():
    net = trained(nn.Sequential(nn.Linear(6, 6, bias=False), nn.BatchNorm1d(6)))
    linear, norm, weight = net[0], net[1], net[0].weight
    with fold(net, inputs(2, 6)) as result:
        assert net[0].bias is not None
        assert result.biases == ["0.bias"]
        assert result.removed == ["1"]
    assert (net[0], net[1]) == (linear, norm)
    assert net[0].weight is weight
    assert net[0].bias is None
    result.undo()
    assert net[1] is norm


def test_what_undo_brings_back_follows_the_module():
    net = trained(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)))
    result = fold(net, inputs(2, 6))
    net.double().train()
    result.undo()
    assert net[1].training
    assert {value.dtype for value in net.state_dict().values()} == {torch.float64, torch.int64}


def test_folded_parameters_keep_dtype_and_requires_grad():
    net = (
        trained(nn.Sequential(nn.Linear(6, 6, bias=False), nn.BatchNorm1d(6)))
        .to(torch.bfloat16)
        .requires_grad_(False)
    )
    fold(net, inputs(2, 6))
    assert {(p.dtype, p.requires_grad) for p in net.parameters()} == {(torch.bfloat16, False)}


def test_only_the_layers_asked_for_are_folded():
    module = trained(vit())
    result, _ = change(module, inputs(2, 3, 32, 32), layers="blocks.1.*,norm")
    assert list(result.report["layer"]) == ["blocks.1.norm1", "blocks.1.norm2", "norm"]
    assert (module.blocks[0].norm1.weight != 1).any()


def test_the_report_is_a_table_of_every_map():
    report = fold(trained(convnext()), inputs(1, 3, 32, 32)).report
    assert isinstance(report, pd.DataFrame)
    assert list(report.columns) == ["layer", "kind", "into", "direction", "status", "reason"]
    assert list(report["status"]) == ["kept"] + ["folded"] * 8
    assert report.set_index("layer")["into"]["stages.1.downsample.0"] == "stages.1.downsample.1"


class Patches(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 8, stride=8), nn.BatchNorm2d(4)
        self.image_size = 16

    def forward(self, pixel_values):
        assert pixel_values.shape[1:] == (1, 16, 16)
        return self.norm(self.conv(pixel_values))


@pytest.mark.parametrize(
    "example",
    [lambda x: x, lambda x: (x, "a label"), lambda x: {"pixel_values": x}, lambda x: None],
    ids=["tensor", "tuple", "mapping", "none"],
)
def test_the_example_may_be_a_tensor_a_tuple_a_mapping_or_nothing(example):
    assert len(folded(fold(Patches().eval(), example(inputs(1, 1, 16, 16))))) == 1


def test_the_module_is_left_alone_but_for_the_fold():
    """No hook, no attribute of the traced copy, no change of mode, and the example's numbers do not
    matter.
    """
    one = trained(vit(depth=1))
    other = copy.deepcopy(one)
    fold(one, inputs(1, 3, 32, 32))
    fold(other, inputs(4, 3, 32, 32) * 5)
    assert same(state(one), state(other))
    assert not any(
        child._forward_hooks or child._forward_pre_hooks or child.training
        for child in one.modules()
    )


class Fixed(nn.Module):
    """Multiplies with a float32 matrix that is no buffer, so it does not run in float64."""

    def __init__(self):
        super().__init__()
        self.norm, self.fc, self.matrix = nn.LayerNorm(6), nn.Linear(6, 5), [inputs(5, 5)]

    def forward(self, x):
        return self.fc(self.norm(x)) @ self.matrix[0]


def test_a_module_that_does_not_run_in_float64_is_folded_in_its_own_dtype():
    result, relative = change(trained(Fixed()), inputs(2, 6))
    assert relative < 1e-5
    assert folded(result) == {"norm": ("affine", "fc")}


class Reading(nn.Module):
    """Reads an attribute of its norm, which is gone after a fold."""

    def __init__(self):
        super().__init__()
        self.fc, self.norm = nn.Linear(6, 6), nn.BatchNorm1d(6)

    def forward(self, x):
        return self.norm(self.fc(x.to(self.norm.weight.dtype)))


def test_a_layer_that_the_model_looks_into_is_kept():
    result, relative = change(trained(Reading()), inputs(2, 6))
    assert relative == 0
    assert kept(result)["norm"].startswith(
        "the model does not run without it (AttributeError: 'Identity'"
    )


def test_a_map_that_would_change_the_outputs_is_taken_back_even_where_the_head_hides_it(
    monkeypatch,
):
    """One wrong fold among right ones, in a network whose output is zero whatever its blocks do."""
    exact = LinearOp.preceded_by

    def wrong(self, weight, bias, scale, shift):
        weight, bias = exact(self, weight, bias, scale, shift)
        return weight, bias + (self.name == "blocks.0.mlp.fc1") * 1e-3

    monkeypatch.setattr(LinearOp, "preceded_by", wrong)
    module = trained(vit())
    nn.init.zeros_(module.head.weight)
    nn.init.zeros_(module.head.bias)
    result = fold(module, inputs(1, 3, 32, 32))
    assert list(kept(result)) == ["blocks.0.norm2"]
    assert kept(result)["blocks.0.norm2"].startswith("the outputs on the example would change by ")
    assert len(folded(result)) == 4
    assert (module.blocks[0].norm2.weight != 1).any()


def test_weights_too_large_for_half_precision_are_refused():
    net = trained(
        nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 6), nn.Tanh())
    ).half()
    with torch.no_grad():
        net[0].bias.zero_()
        net[1].running_mean.zero_()
        net[1].running_var.fill_(1e-7)
        net[1].weight.fill_(6e4)
        net[1].eps = 0.0
    original = state(net)
    with pytest.raises(ProbeError, match="too large for the module's dtype: fold it in float32"):
        fold(net, inputs(2, 6) * 1e-4)
    assert same(state(net), original)


class Deciding(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(6), nn.Linear(6, 6)

    def forward(self, x):
        return self.fc(self.norm(x)) if x.sum() > 0 else x


REFUSED = {
    "training mode": (
        lambda: fold(vit().train(), inputs(1, 3, 32, 32)),
        "VisionTransformer is in training mode: .* call .eval",
    ),
    "twice": (
        lambda: [
            fold(m, inputs(2, 6))
            for m in [trained(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)))] * 2
        ],
        "folded already",
    ),
    "no norms": (
        lambda: fold(nn.Linear(6, 6).eval(), inputs(2, 6)),
        "Linear has no normalization layer",
    ),
    "no match": (
        lambda: fold(vit().eval(), inputs(1, 3, 32, 32), layers="block.*"),
        "--layers 'block.\\*' matches none",
    ),
    "no module": (lambda: fold("resnet50"), "a str is no model"),
    "wrong example": (
        lambda: fold(vit().eval(), inputs(2, 6)),
        "VisionTransformer does not run on the example",
    ),
    "no example": (
        lambda: fold(nn.Sequential(nn.LayerNorm(6)).eval()),
        r"random batch of shape \(2, 3, 224, 224\).*give example=",
    ),
    "no tensor": (lambda: fold(vit().eval(), "photo.png"), "example is a str; accepted: a tensor"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_use_is_refused_in_one_line(case):
    act, message = REFUSED[case]
    with pytest.raises(UsageError, match=message) as caught:
        act()
    assert "\n" not in str(caught.value)


def test_a_module_that_cannot_be_traced_is_refused():
    with pytest.raises(
        ProbeError,
        match="Deciding cannot be folded: torch.export does not see through its forward pass",
    ):
        fold(Deciding().eval(), inputs(2, 6))


def test_after_undo_a_module_can_be_folded_again():
    net = trained(nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)))
    x = inputs(3, 6)
    before = run(net, x)
    fold(net, x).undo()
    assert len(folded(fold(net, x))) == 1
    torch.testing.assert_close(run(net, x), before)


def test_fold_takes_a_loaded_model():
    model = probe.load_model("bundled:resnet_cifar10")
    result = probe.fold(model)
    assert result.module is model.module
    assert result.removed[0] == "bn1"
    assert repr(result) == "Fold(ResNet, 12 of 12 affine maps folded)"
