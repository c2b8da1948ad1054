"""Norms whose statistics come from the input alone: layer, RMS, instance, group, scale and feature
normalization.
"""

from __future__ import annotations

import pytest
import timm.layers as tl
import torch
from torch import nn

from probe.errors import UsageError
from probe.norms import create_norm, list_norms
from support.norm_cases import CHANNELS, inputs, made, ready

SAME_IN_BOTH_MODES = [
    name
    for name in list_norms()
    if name.removesuffix("_2d") not in {"batch_norm", "rep_batch_norm", "switch_norm"}
]


@pytest.mark.parametrize(
    "name", [name for name in SAME_IN_BOTH_MODES if name not in {"power_norm", "unified_norm"}]
)
def test_training_and_evaluation_are_the_same(name):
    norm, x = ready(name), inputs(name, seed=9)
    assert torch.equal(norm.train()(x), norm.eval()(x))


@pytest.mark.parametrize(
    ("name", "options", "other"),
    [
        ("layer_norm", {"eps": 1e-3}, nn.LayerNorm(CHANNELS, eps=1e-3)),
        ("layer_norm", {"bias": False}, nn.LayerNorm(CHANNELS, bias=False)),
        ("layer_norm_2d", {"eps": 1e-6}, tl.LayerNorm2d(CHANNELS)),
        ("rms_norm", {"eps": 1e-6}, tl.RmsNorm(CHANNELS)),
        ("rms_norm_2d", {"eps": 1e-6}, tl.RmsNorm2d(CHANNELS)),
        ("group_norm_2d", {"num_heads": 4}, nn.GroupNorm(4, CHANNELS)),
        ("instance_norm_2d", {"unbiased": False}, nn.InstanceNorm2d(CHANNELS, affine=True)),
    ],
)
def test_it_computes_what_the_module_of_the_library_does(name, options, other):
    norm, x = ready(name, **options), inputs(name, seed=9)
    other.double().load_state_dict(norm.state_dict())
    torch.testing.assert_close(norm(x), other(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(5, CHANNELS), (2, 3, 4, CHANNELS), (2, 3, 2, 2, CHANNELS)])
@pytest.mark.parametrize(
    "name",
    [
        "layer_norm",
        "rms_norm",
        "batch_norm",
        "scale_norm",
        "dyt",
        "feature_norm",
        "learnable_scaler",
    ],
)
def test_token_norms_take_any_number_of_axes_before_the_channels(name, shape):
    norm, x = ready(name), torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(
        norm(x).reshape(-1, CHANNELS), norm(x.reshape(1, -1, CHANNELS))[0], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("name", ["instance_norm", "group_norm"])
def test_statistics_over_tokens_run_over_every_axis_between_batch_and_channels(name):
    norm, x = ready(name), torch.randn(2, 3, 4, CHANNELS, dtype=torch.float64)
    torch.testing.assert_close(norm(x).flatten(1, 2), norm(x.flatten(1, 2)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["instance_norm", "instance_norm_2d"])
def test_one_token_has_no_unbiased_variance_and_the_error_says_what_does(name):
    x = torch.randn(2, CHANNELS, 1, 1) if name.endswith("_2d") else torch.randn(2, 1, CHANNELS)
    with pytest.raises(
        UsageError, match=r"one token per image, shape \(2, .*unbiased=False takes it"
    ):
        create_norm(name, CHANNELS, unbiased=True)(x)
    y = create_norm(name, CHANNELS, unbiased=False)(x)
    assert torch.equal(y, torch.zeros_like(x))


@pytest.mark.parametrize("name", ["instance_norm", "instance_norm_2d"])
def test_no_tokens_at_all_are_a_layout_error(name):
    with pytest.raises(UsageError, match=r"shape \(2, 8\) given; \(B, .* is needed"):
        create_norm(name, CHANNELS)(torch.randn(2, CHANNELS))


def test_images_have_the_biased_variance_and_tokens_the_unbiased_one():
    assert create_norm("instance_norm", CHANNELS).unbiased
    assert not create_norm("instance_norm_2d", CHANNELS).unbiased


def test_groups_are_between_tokens_and_blocks_of_neighbouring_channels():
    norm, x = made("group_norm", num_heads=2).double(), inputs("group_norm", images=1)
    z = norm(x)[0].detach()
    for block in (z[:, :4], z[:, 4:]):
        assert abs(float(block.mean())) < 1e-12
        assert float(block.var(correction=0)) == pytest.approx(1, abs=1e-4)
    assert float(z.mean(1).abs().max()) > 0.1  # single tokens are not centred


@pytest.mark.parametrize("heads", [0, 3, 16])
@pytest.mark.parametrize("name", ["group_norm", "group_norm_2d"])
def test_heads_that_do_not_divide_the_channels_are_refused(name, heads):
    with pytest.raises(UsageError, match=f"num_heads={heads} does not divide 8 channels"):
        create_norm(name, CHANNELS, num_heads=heads)


def test_images_have_32_groups_as_published():
    assert create_norm("group_norm_2d", 64).num_heads == 32


@pytest.mark.parametrize("per_channel", [True, False])
def test_scale_norm_starts_as_rms_norm_without_eps(per_channel):
    norm, x = made("scale_norm", per_channel=per_channel, dtype=torch.float64), inputs("scale_norm")
    assert norm.weight.shape == (CHANNELS if per_channel else 1,)
    torch.testing.assert_close(norm(x), made("rms_norm", eps=0.0).double()(x), rtol=0, atol=1e-12)


def test_the_eps_of_scale_norm_is_a_bound_and_not_added():
    norm = made("scale_norm", eps=0.5)
    x = torch.zeros(1, 2, CHANNELS)
    x[0, 0, 0], x[0, 1, 0] = 0.4, 0.6
    torch.testing.assert_close(norm(x)[0, :, 0], torch.tensor([0.4 / 0.5, 1.0]) * CHANNELS**0.5)


@pytest.mark.parametrize("per_channel", [True, False])
def test_scale_norm_takes_the_affine_of_another_norm_in_its_own_unit(per_channel):
    norm = made("scale_norm", per_channel=per_channel).double()
    weight = torch.full((CHANNELS,), 1.5, dtype=torch.float64)
    norm.match_affine(weight, torch.ones(CHANNELS))
    assert norm.weight.unique().item() == pytest.approx(1.5 * CHANNELS**0.5)
    assert torch.allclose(norm.output_affine()[0], weight)
    assert not norm.output_affine()[1].any()


def test_min_max_features_lie_between_0_and_1():
    norm, x = made("feature_norm", eps=1e-9).double(), inputs("feature_norm")
    y = norm(x)
    assert float(y.min()) == 0
    assert float(y.max()) == pytest.approx(1)
    assert not list(norm.parameters())


def test_features_keep_small_inputs_small_by_default():
    assert made("feature_norm").eps == 1.0


def test_an_unknown_method_is_named():
    with pytest.raises(
        UsageError, match="method 'z-score' is unknown.*did you mean zscore.*known: minmax, zscore"
    ):
        create_norm("feature_norm", CHANNELS, method="z-score")
