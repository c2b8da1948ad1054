"""Classes that the table of kinds does not know are what they compute, not what they are called."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from probe.models.folding.fold import fold
from probe.models.reading.layers import (
    affine_of,
    channels_of,
    eval_affine,
    list_norm_layers,
    norm_type,
    own_alpha,
)
from probe.models.reading.observe import BatchContext
from probe.models.reading.recognize import recognize
from probe.models.reading.tap import tap
from probe.models.reading.trial import written_out
from probe.models.reading.unusual import affine_errors, unread_norms

C = 8


class Own(nn.Module):
    """A class of somebody's own, with random weights in float64."""

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.eps = 1e-5
        rng = torch.Generator().manual_seed(4)
        for name, shape in (shapes or {"weight": (C,)}).items():
            value = torch.rand(shape, generator=rng, dtype=torch.float64) + 0.3
            self.register_parameter(name, nn.Parameter(value))


def rms(x: torch.Tensor, axis: int = -1) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(axis, keepdim=True) + 1e-5)


def centered(x: torch.Tensor, axis: int = -1) -> torch.Tensor:
    return rms(x - x.mean(axis, keepdim=True), axis)


class GemmaRMSNorm(Own):
    def forward(self, x):
        return rms(x) * (1.0 + self.weight)


class T5LayerNorm(Own):
    def forward(self, hidden_states):
        return self.weight * rms(hidden_states)


class CohereLayerNorm(Own):
    def forward(self, x):
        return self.weight * centered(x)


class NemotronLayerNorm1P(nn.LayerNorm):
    def forward(self, x):
        return F.layer_norm(x, self.normalized_shape, self.weight + 1, self.bias, self.eps)


class SqueezeBertLayerNorm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 1)).permute(0, 2, 1)


class VitDetLayerNorm(Own):
    def forward(self, x):
        return centered(x, 1) * self.weight[:, None, None] + self.bias[:, None, None]


class RMSNorm(Own):  # as many write it, with names of their own
    def forward(self, x):
        return rms(x) * self.g + self.offset


class L2Norm(Own):
    def forward(self, x):
        return rms(x)


class ScaledByGamma(Own):  # no name of a norm: not tried
    def forward(self, x):
        return rms(x) * self.weight


class GammaBetaNorm(Own):
    def forward(self, x):
        return centered(x) * self.gamma + self.beta


TOKENS, IMAGES, SEQUENCE = (3, 5, C), (3, C, 4, 5), (3, C, 7)
TWO = {"weight": (C,), "bias": (C,)}
GREEK = {"gamma": (C,), "beta": (C,)}
CASES = [
    (GemmaRMSNorm(), "rms_norm", TOKENS),
    (T5LayerNorm(), "rms_norm", TOKENS),
    (CohereLayerNorm(), "layer_norm", TOKENS),
    (NemotronLayerNorm1P(C), "layer_norm", TOKENS),
    (SqueezeBertLayerNorm(C), "layer_norm_2d", SEQUENCE),
    (VitDetLayerNorm(**TWO), "layer_norm_2d", IMAGES),
    (GammaBetaNorm(**GREEK), "layer_norm", TOKENS),
    (RMSNorm(offset=(C,), g=(C,)), "rms_norm", TOKENS),
]
EACH = pytest.mark.parametrize(
    ("module", "kind", "shape"), CASES, ids=[type(case[0]).__name__ for case in CASES]
)


def seen_of(module, shape):
    """x, z and y of one call, as the tap hands them on, channels last in float64."""
    found = []
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    with tap(nn.Sequential(module), "*", lambda _, __, seen: found.append(seen)) as hooks:
        hooks.begin(BatchContext(np.arange(len(x)), np.arange(len(x))))
        with torch.no_grad():
            module(x)
    seen = found[0].as_given_rows()
    z = written_out(seen.norm, seen.x, norm_type(nn.LayerNorm(C)))
    return seen.x, z, seen.y


@EACH
def test_a_class_is_the_kind_that_its_output_shows(module, kind, shape):
    (layer,) = list_norm_layers(nn.Sequential(module))
    assert (layer.kind, layer.channels) == (kind, C)


@EACH
def test_weight_times_normalized_plus_bias_is_the_output_of_its_own_forward(module, kind, shape):
    module = module.double()
    _, z, y = seen_of(module, shape)
    weight, bias = affine_of(module, C)
    torch.testing.assert_close(weight * z + bias, y, rtol=0, atol=1e-9)


def test_the_stored_weight_of_gemma_is_one_less_than_w():
    module = GemmaRMSNorm()
    assert recognize(module).offset == 1.0
    torch.testing.assert_close(affine_of(module, C)[0], 1 + module.weight.detach())


def test_a_norm_without_parameters_is_found_by_its_name_and_its_output():
    found = recognize(L2Norm(unused=(1,)))
    assert found.norm_type.kind == "rms_norm"
    assert found.names == (None, None)


def test_a_module_that_is_not_called_a_norm_is_none():
    assert recognize(ScaledByGamma()) is None


def test_a_trial_leaves_module_and_statistics_as_they_were():
    class MyBatchNorm(nn.BatchNorm2d):
        def forward(self, x):
            return super().forward(x)

    module = MyBatchNorm(C).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    called = []
    module.register_forward_hook(lambda *_: called.append(1))
    assert recognize(module).error < 1e-4
    assert called == []
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_modules_on_the_meta_device_are_tried_too():
    with torch.device("meta"):
        (layer,) = list_norm_layers(nn.Sequential(T5LayerNorm()))
    assert layer.kind == "rms_norm"


# --- outputs that are not w z + b, and norms that cannot be read ---------------------------------


class LeakyLayerNorm(nn.LayerNorm):
    def forward(self, x):
        return F.leaky_relu(super().forward(x))


class MysteryNorm(Own):
    def forward(self, x):
        return x / x.abs().amax(-1, keepdim=True) * self.weight


class RMSNormGated(Own):
    def forward(self, x, gate=None):
        return rms(x) * self.weight * (1 if gate is None else F.silu(gate))


def test_a_subclass_with_another_output_keeps_its_kind_and_shows_its_error():
    module = nn.Sequential(LeakyLayerNorm(C), nn.LayerNorm(C))
    assert [layer.kind for layer in list_norm_layers(module)] == ["layer_norm", "layer_norm"]
    errors = affine_errors(module)
    assert list(errors) == ["0"]
    assert errors["0"] > 0.1


@pytest.mark.parametrize("cls", [MysteryNorm, RMSNormGated])
def test_a_norm_that_cannot_be_read_is_named(cls):
    module = nn.Sequential(nn.LayerNorm(C), cls())
    assert len(list_norm_layers(module)) == 1
    assert unread_norms(module) == {"1": cls.__name__}


def test_blocks_that_hold_norms_are_not_named():
    class ConvNorm(nn.Sequential):
        pass

    module = nn.Sequential(ConvNorm(nn.Conv2d(3, C, 1), nn.BatchNorm2d(C)))
    assert unread_norms(module) == {}


# --- dynamic tanh as it is published --------------------------------------------------------------


class DynamicTanh(nn.Module):
    """As https://github.com/jiachenzhu/DyT has it."""

    def __init__(self, normalized_shape, channels_last=True):
        super().__init__()
        self.normalized_shape, self.channels_last = normalized_shape, channels_last
        self.alpha = nn.Parameter(torch.tensor([0.7]))
        self.weight = nn.Parameter(torch.rand(normalized_shape) + 0.5)
        self.bias = nn.Parameter(torch.rand(normalized_shape))

    def forward(self, x):
        shape = (-1,) if self.channels_last else (-1, 1, 1)
        weight, bias = (value.view(shape) for value in (self.weight, self.bias))
        return torch.tanh(self.alpha * x) * weight + bias


class DyT(nn.Module):
    """As the listing of the paper has it, on tokens and without a flag."""

    def __init__(self, channels, planes=False):
        super().__init__()
        self.planes = planes
        self.alpha = nn.Parameter(torch.tensor([0.7]))
        self.gamma = nn.Parameter(torch.rand(channels) + 0.5)
        self.beta = nn.Parameter(torch.rand(channels))

    def forward(self, x):
        shape = (-1, 1, 1) if self.planes else (-1,)
        return self.gamma.view(shape) * torch.tanh(self.alpha * x) + self.beta.view(shape)


class UntriableDyT(DyT):
    def forward(self, x):
        raise RuntimeError("needs a kernel that is not here")


@pytest.mark.parametrize(
    ("module", "kind", "shape"),
    [
        (DynamicTanh(C), "dyt", TOKENS),
        (DynamicTanh((C,)), "dyt", TOKENS),
        (DynamicTanh(C, channels_last=False), "dyt_2d", IMAGES),
        (DyT(C), "dyt", TOKENS),
        (DyT(C, planes=True), "dyt_2d", IMAGES),
    ],
)
def test_dynamic_tanh_as_published_is_read_in_its_own_layout(module, kind, shape):
    (layer,) = list_norm_layers(nn.Sequential(module))
    assert (layer.kind, layer.channels, channels_of(module)) == (kind, C, C)
    x, z, y = seen_of(module.double(), shape)
    torch.testing.assert_close(z, torch.tanh(0.7 * x), rtol=0, atol=1e-6)
    weight, bias = affine_of(module, C)
    torch.testing.assert_close(weight * z + bias, y, rtol=0, atol=1e-6)


class DynamicErf(DynamicTanh):
    """As the authors have it, with a shift."""

    def __init__(self, normalized_shape, channels_last=True):
        super().__init__(normalized_shape, channels_last)
        self.shift = nn.Parameter(torch.tensor([0.2]))

    def forward(self, x):
        shape = (-1,) if self.channels_last else (-1, 1, 1)
        weight, bias = (value.view(shape) for value in (self.weight, self.bias))
        return torch.erf(self.alpha * x + self.shift) * weight + bias


class Derf(DyT):
    """As others have it: the shift is called s."""

    def __init__(self, channels):
        super().__init__(channels)
        self.s = nn.Parameter(torch.tensor([0.2]))

    def forward(self, x):
        return self.gamma * torch.erf(self.alpha * x + self.s) + self.beta


@pytest.mark.parametrize(
    ("module", "kind", "shape"),
    [
        (DynamicErf(C), "derf", TOKENS),
        (DynamicErf(C, channels_last=False), "derf_2d", IMAGES),
        (Derf(C), "derf", TOKENS),
    ],
)
def test_dynamic_erf_as_published_is_read_in_its_own_layout(module, kind, shape):
    (layer,) = list_norm_layers(nn.Sequential(module))
    assert (layer.kind, layer.channels) == (kind, C)
    x, z, y = seen_of(module.double(), shape)
    torch.testing.assert_close(z, torch.erf(0.7 * x + 0.2), rtol=0, atol=1e-6)
    weight, bias = affine_of(module, C)
    torch.testing.assert_close(weight * z + bias, y, rtol=0, atol=1e-6)
    assert own_alpha(module) == pytest.approx(0.7)


def test_the_greek_alpha_of_the_listing_is_read_and_folded():
    alpha, gamma, beta = "\N{GREEK SMALL LETTER ALPHA}\N{GREEK SMALL LETTER GAMMA}\u03b2"

    class DyT(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_parameter(alpha, nn.Parameter(torch.tensor([0.5])))
            self.register_parameter(gamma, nn.Parameter(torch.rand(C)))
            self.register_parameter(beta, nn.Parameter(torch.rand(C)))

        def forward(self, x):
            return getattr(self, gamma) * torch.tanh(getattr(self, alpha) * x) + getattr(self, beta)

    net = nn.Sequential(nn.Linear(C, C), DyT(), nn.Linear(C, 4)).eval()
    x = torch.randn(3, 5, C)
    before = net(x)
    assert own_alpha(net[1]) == 0.5
    report = fold(net, x).report
    assert dict(zip(report["direction"], report["status"], strict=True)) == {
        "alpha": "folded",
        "affine": "folded",
    }
    assert own_alpha(net[1]) == 1.0
    torch.testing.assert_close(net(x), before)


def test_a_layer_whose_output_is_more_than_w_z_plus_b_is_not_folded():
    net = nn.Sequential(LeakyLayerNorm(C), nn.Linear(C, 4)).eval()
    with torch.no_grad():
        net[0].weight.fill_(2.0)
    (row,) = fold(net, torch.randn(3, 5, C)).report.to_dict("records")
    assert row["status"] == "kept"
    assert "its output is not weight * normalized + bias" in row["reason"]


def test_a_dynamic_tanh_that_no_trial_can_run_is_on_tokens():
    class DyT(UntriableDyT):
        pass

    assert norm_type(DyT(C)).kind == "dyt"


class DetrFrozenBatchNorm2d(nn.Module):
    """As the DETR family of transformers has it: buffers only, and an eps that is written out."""

    def __init__(self):
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(C, dtype=torch.float64) + 0.3)

    def forward(self, x):
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


@pytest.mark.parametrize("training", [False, True])
def test_the_frozen_batch_norm_of_detr_is_a_line_per_channel_in_either_mode(training):
    module = DetrFrozenBatchNorm2d().train(training)
    (layer,) = list_norm_layers(nn.Sequential(module))
    assert (layer.kind, layer.channels, layer.eps, layer.affine) == ("batch_norm", C, 1e-5, True)
    x, _, y = seen_of(module, IMAGES)
    scale, shift = eval_affine(module)
    torch.testing.assert_close(scale * x + shift, y, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["Normalize", "NormalCell"])
def test_what_only_begins_like_a_norm_is_not_named(name):
    module = nn.Sequential(nn.LayerNorm(C), type(name, (nn.Module,), {})())
    assert unread_norms(module) == {}
