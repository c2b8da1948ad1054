"""Dynamic Token Normalization: its limits, its positional weights, where they start, prefix tokens
and pools.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from timm.models import named_apply
from timm.models.vision_transformer import (
    init_weights_vit_jax,
    init_weights_vit_moco,
    init_weights_vit_timm,
)
from torch import nn

from probe.errors import UsageError
from probe.norms import DTN
from support.norm_references import affine, dtn, scaled_by_heads

B, C = 2, 12


def layer(**options):
    torch.manual_seed(0)
    norm = DTN(C, dtype=torch.float64, **{"num_heads": 4, "grid": (3, 2), **options})
    with torch.no_grad():
        for parameter in (norm.weight, norm.bias, norm.mean_norm_weight, norm.var_norm_weight):
            if parameter is not None:
                parameter.add_(torch.randn(parameter.shape, dtype=torch.float64))
    return norm


def tokens(count=6, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return (
        torch.randn(B, count, C, generator=rng, dtype=torch.float64)
        * torch.linspace(0.5, 2, C, dtype=torch.float64)
        + 0.3
    )


def set_to(norm, logit=None, weight=None):
    with torch.no_grad():
        if logit is not None:
            norm.mean_norm_weight.fill_(logit)
            norm.var_norm_weight.fill_(logit)
        if weight is not None:
            norm.pos_proj.weight.fill_(weight)


def z_of(norm, x):
    return norm.normalized(x).detach().numpy()


def test_a_share_of_one_is_layer_norm_of_the_scaled_tokens_with_the_unbiased_variance():
    norm, x = layer(), tokens()
    set_to(norm, logit=800.0)
    u = scaled_by_heads(x.numpy(), 4, 1e-5)
    expected = (u - u.mean(-1, keepdims=True)) / np.sqrt(u.var(-1, keepdims=True, ddof=1) + 1e-5)
    np.testing.assert_allclose(z_of(norm, x), expected, rtol=1e-11)


def test_a_share_of_none_with_equal_positions_is_instance_norm_of_the_scaled_tokens():
    norm, x = layer(), tokens()
    set_to(norm, logit=-800.0, weight=0.0)
    u = scaled_by_heads(x.numpy(), 4, 1e-5)
    expected = (u - u.mean(1, keepdims=True)) / np.sqrt(u.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(z_of(norm, x), expected, rtol=1e-10, atol=1e-12)


def test_a_share_of_none_with_a_sharp_peak_on_the_token_itself_leaves_no_difference_to_the_mean():
    norm, x = layer(), tokens()
    set_to(norm, logit=-800.0)
    with torch.no_grad():
        norm.pos_proj.weight.copy_(torch.tensor([0.0, 0.0, -200.0]).expand(4, 3))
    np.testing.assert_allclose(z_of(norm, x), np.zeros((B, 6, C)), atol=1e-9)


def test_positive_rescaling_of_a_head_at_a_token_changes_nothing():
    norm, x = layer(eps=1e-14), tokens()
    factors = torch.rand(B, 6, 4, dtype=torch.float64) * 50 + 0.1
    torch.testing.assert_close(
        norm(x * factors.repeat_interleave(C // 4, -1)), norm(x), rtol=0, atol=1e-10
    )


def test_the_positional_weights_of_each_token_sum_to_one_over_their_sources():
    norm = layer()
    weights = norm.pos_proj(norm.offsets)
    assert weights.shape == (4, 6, 6)
    torch.testing.assert_close(
        weights.sum(1), torch.ones(4, 6, dtype=torch.float64), rtol=0, atol=1e-14
    )
    assert (weights.sum(2) - 1).abs().max() > 0.1


def test_offsets_go_from_source_to_target_columns_first():
    """Grid of 3 rows and 2 columns: from token 1 (row 0, column 1) to token 4 (row 2, column 0)."""
    offsets = layer().offsets
    assert offsets[1, 4].tolist() == [-1, 2, 5]
    assert offsets[4, 1].tolist() == [1, -2, 5]
    assert offsets[0, 5].tolist() == [1, 2, 5]
    assert offsets.diagonal().eq(0).all()


def test_the_bias_of_the_projection_is_dead():
    norm, x = layer(), tokens()
    norm(x).square().sum().backward()
    assert norm.pos_proj.bias.grad.abs().max() < 1e-13
    assert norm.pos_proj.weight.grad.abs().min() > 1e-6
    before = norm(x)
    with torch.no_grad():
        norm.pos_proj.bias.add_(torch.arange(4.0))
    torch.testing.assert_close(norm(x), before, rtol=0, atol=1e-13)


def test_gradients_are_those_of_the_formula():
    norm, x = layer(), tokens()[:1].requires_grad_()
    names, values = zip(*norm.named_parameters(), strict=True)

    def output(x, *values):
        return torch.func.functional_call(norm, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(output, (x, *values), fast_mode=True)


@pytest.mark.parametrize("heads", [3, 4, 6, 9, 16])
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_heads_start_on_a_square_of_offsets_and_the_rest_at_random(heads, strength):
    torch.manual_seed(0)
    weight = DTN(144, num_heads=heads, locality_strength=strength).pos_proj.weight.detach().numpy()
    k = math.isqrt(heads)
    centre = (k - 1) / 2 if k % 2 == 0 else k // 2
    for h1 in range(k):
        for h2 in range(k):
            expected = [strength * 2 * (h2 - centre), strength * 2 * (h1 - centre), -strength]
            np.testing.assert_allclose(weight[h1 + k * h2], expected, rtol=1e-6)
    torch.manual_seed(0)
    random = DTN(144, num_heads=heads, local_init=False).pos_proj.weight.detach().numpy()
    np.testing.assert_allclose(weight[k * k :], strength * random[k * k :], rtol=1e-6)


def test_a_local_head_looks_at_the_token_at_its_offset():
    norm = DTN(18, num_heads=9, grid=(5, 6))
    weights = norm.pos_proj(norm.offsets)
    row, column = 2, 3
    for h1 in range(3):
        for h2 in range(3):
            source = int(weights[h1 + 3 * h2, :, row * 6 + column].argmax())
            assert divmod(source, 6) == (row - (h1 - 1), column - (h2 - 1))


@pytest.mark.parametrize(
    "init", [init_weights_vit_timm, init_weights_vit_jax, init_weights_vit_moco]
)
def test_the_local_start_survives_the_initialization_of_the_model_around_it(init):
    model = nn.Sequential(nn.Linear(C, C), DTN(C, num_heads=4, grid=(3, 2)))
    start, linear = model[1].pos_proj.weight.clone(), model[0].weight.clone()
    named_apply(init, model)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
    assert torch.equal(model[1].pos_proj.weight, start)
    assert not torch.equal(model[0].weight, linear)


def test_without_the_local_start_positions_begin_near_equal():
    weight = DTN(C, num_heads=4, local_init=False).pos_proj.weight
    assert 0 < weight.abs().max() < 0.1


def pooled_reference(norm, x, factor):
    """Statistics over means of factor x factor tokens, each used by all tokens of its pool."""
    (height, width), heads, size = norm.grid, norm.num_heads, C // norm.num_heads
    state = {name: value.detach().numpy() for name, value in norm.state_dict().items()}
    u = scaled_by_heads(x, heads, norm.eps)
    image = u.reshape(B, height // factor, factor, width // factor, factor, C)
    s = image.mean((2, 4)).reshape(B, -1, C)
    rows, columns = np.indices((height // factor, width // factor)).reshape(2, -1)
    mean_pos, var_pos = np.empty_like(s), np.empty_like(s)
    for h in range(heads):
        block, (a, b, c) = slice(h * size, (h + 1) * size), state["pos_proj.weight"][h]
        dx, dy = columns - columns[:, None], rows - rows[:, None]
        weights = np.exp(a * dx + b * dy + c * (dx**2 + dy**2))
        weights /= weights.sum(0)
        mean_pos[..., block] = np.einsum("ij,bic->bjc", weights, s[..., block])
        var_pos[..., block] = (
            np.einsum("ij,bic->bjc", weights, s[..., block] ** 2) - mean_pos[..., block] ** 2
        )
    pool_of = (
        np.arange(height)[:, None] // factor * (width // factor) + np.arange(width) // factor
    ).reshape(-1)
    l_mean, l_var = (
        np.repeat(1 / (1 + np.exp(-state[f"{name}_norm_weight"])), size) for name in ("mean", "var")
    )
    mean = (1 - l_mean) * mean_pos[:, pool_of] + l_mean * u.mean(-1, keepdims=True)
    var = (1 - l_var) * var_pos[:, pool_of] + l_var * u.var(-1, keepdims=True, ddof=1)
    return affine(state, (u - mean) / np.sqrt(var + norm.eps))


@pytest.mark.parametrize("grid", [(16, 8), (8, 16)])
def test_larger_grids_are_pooled_for_the_positional_statistics(grid):
    norm, x = layer(grid=grid, patch_size=4), tokens(128)
    assert norm.pool == 4
    np.testing.assert_allclose(
        norm(x).detach().numpy(), pooled_reference(norm, x.numpy(), 4), rtol=1e-10, atol=1e-11
    )


@pytest.mark.parametrize(
    ("grid", "patch_size", "pool"),
    [
        ((14, 14), 14, 1),
        ((56, 56), 14, 4),
        ((28, 28), 14, 2),
        ((28, 14), 14, 2),
        ((7, 7), 7, 1),
        ((14, 14), 7, 1),
        ((16, 16), 14, 1),
        ((24, 24), 14, 1),
        ((28, 28), 28, 1),
        ((15, 6), 5, 3),
    ],
)
def test_the_pool_follows_the_published_rule(grid, patch_size, pool):
    norm = DTN(4, num_heads=2, grid=grid, patch_size=patch_size, device="meta")
    assert norm.pool == pool
    assert norm.offsets.shape == (grid[0] * grid[1] // pool**2,) * 2 + (3,)


def test_prefix_tokens_are_normalized_within_themselves_and_seen_by_no_other():
    norm, x = layer(prefix_tokens=2), tokens(8)
    plain = layer()
    plain.load_state_dict(norm.state_dict())
    u = scaled_by_heads(x.numpy(), 4, 1e-5)[:, :2]
    expected = (u - u.mean(-1, keepdims=True)) / np.sqrt(u.var(-1, keepdims=True, ddof=1) + 1e-5)
    np.testing.assert_allclose(z_of(norm, x)[:, :2], expected, rtol=1e-11)
    torch.testing.assert_close(norm(x)[:, 2:], plain(x[:, 2:]), rtol=0, atol=1e-13)


def test_the_variance_only_form_takes_the_mean_of_the_token():
    norm, x = layer(only_var=True), tokens()
    state = {name: value.detach().numpy() for name, value in norm.state_dict().items()}
    assert norm.mean_norm_weight is None
    assert "mean_norm_weight" not in state
    np.testing.assert_allclose(
        norm(x).detach().numpy(),
        dtn(state, x.numpy(), {"num_heads": 4, "grid": (3, 2)}),
        rtol=1e-11,
    )


def test_images_are_grids_of_tokens():
    norm, images = layer(), layer(channels_last=False)
    x = tokens()
    image = x.transpose(1, 2).reshape(B, C, 3, 2)
    torch.testing.assert_close(
        images(image).flatten(2).transpose(1, 2), norm(x), rtol=0, atol=1e-13
    )


def test_equal_tokens_give_no_negative_variance():
    """In single precision the mean of squares minus the square of the mean falls under zero; eps is
    too small to hide it.
    """
    norm = DTN(C, num_heads=4, grid=(5, 5), eps=1e-12)
    set_to(norm, logit=-800.0)
    x = torch.randn(64, 1, C, generator=torch.Generator().manual_seed(0)).expand(-1, 25, -1)
    assert norm(x).isfinite().all()


def test_half_precision_keeps_the_offsets_and_the_weights_of_large_grids():
    """14 * 14 has squared distances up to 338, which bfloat16 cannot hold."""
    torch.manual_seed(0)
    half = DTN(C, num_heads=4, local_init=False).bfloat16()
    exact = DTN(C, num_heads=4).double()
    exact.load_state_dict(half.state_dict())
    torch.testing.assert_close(
        half.pos_proj(half.offsets).double(), exact.pos_proj(exact.offsets), rtol=1e-4, atol=1e-7
    )


def test_autocast_leaves_the_statistics_in_single_precision():
    norm, x = layer().float(), tokens().float()
    expected = norm(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(norm(x), expected)


def test_the_state_has_the_keys_and_shapes_of_the_original_and_not_the_offsets():
    shapes = {key: tuple(value.shape) for key, value in DTN(C, num_heads=4).state_dict().items()}
    gates = {"mean_norm_weight": (4,), "var_norm_weight": (4,)}
    assert shapes == {
        "weight": (C,),
        "bias": (C,),
        **gates,
        "pos_proj.weight": (4, 3),
        "pos_proj.bias": (4,),
    }


def test_the_offsets_follow_the_module():
    norm = DTN(C, num_heads=4, grid=(3, 2))
    norm(tokens().float())
    assert norm.to("meta").offsets.device.type == "meta"
    assert layer().float().double()(tokens()).dtype == torch.float64


@pytest.mark.parametrize(
    ("options", "count", "message"),
    [
        ({}, 7, r"DTN: input of shape \(2, 7, 12\) given; grid=3x2 needs 6 tokens"),
        (
            {"prefix_tokens": 1},
            6,
            r"DTN: input of shape \(2, 6, 12\) given; grid=3x2 and 1 prefix tokens needs 7 tokens",
        ),
    ],
)
def test_another_number_of_tokens_is_refused(options, count, message):
    with pytest.raises(UsageError, match=message):
        layer(**options)(tokens(count))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "num_heads=5 does not divide 12 channels"),
        ({"grid": (0, 3)}, r"grid=\(0, 3\), patch_size=14 given; sizes from 1 are needed"),
        (
            {"grid": (29, 28)},
            r"grid=\(29, 28\) are not multiples of the pool 2 .*patch_size=29 does without a pool",
        ),
        ({"prefix_tokens": -1}, "prefix_tokens=-1 given; a number from 0 is needed"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(options, message):
    with pytest.raises(UsageError, match=message) as caught:
        DTN(C, **options)
    assert "\n" not in str(caught.value)


def test_one_channel_has_no_variance_within_a_token():
    with pytest.raises(UsageError, match="1 channel given"):
        DTN(1)
