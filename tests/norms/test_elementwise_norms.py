"""DyT, Derf, DyISRU and LearnableScaler: start values, limits and bounds."""

from __future__ import annotations

import math

import pytest
import torch

from probe.errors import UsageError
from probe.norms import create_norm
from support.norm_cases import CHANNELS, inputs, made


@pytest.mark.parametrize("channels", [8, 384])
@pytest.mark.parametrize(
    ("name", "slope"), [("dyt", 0.5), ("derf", 1 / math.sqrt(math.pi)), ("dyisru", 0.5)]
)
def test_the_slope_at_0_of_a_fresh_one(name, slope, channels):
    x = torch.zeros(1, 1, channels, dtype=torch.float64, requires_grad=True)
    create_norm(name, channels, dtype=torch.float64)(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, slope))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "bound"), [("dyt", 1.0), ("derf", 1.0), ("dyisru", math.sqrt(CHANNELS))]
)
def test_far_out_it_stays_at_its_bound(name, bound, dtype):
    norm, x = made(name, dtype=dtype), torch.full((1, 1, CHANNELS), 6e4, dtype=dtype)
    torch.testing.assert_close(norm(x), torch.full_like(x, bound))
    torch.testing.assert_close(norm(-x), torch.full_like(x, -bound))


def test_dyisru_is_rms_norm_where_the_other_channels_sum_to_beta():
    """What the paper derives: RMSNorm of channel i with the sum of squares of the other channels
    held fixed.
    """
    x = inputs("dyisru", images=1)[:, :1]
    expected = made("rms_norm", eps=0.0).double()(x)
    for channel in range(CHANNELS):
        beta = float(x.square().sum() - x[..., channel].square().sum())
        y = made("dyisru", beta_init=beta, dtype=torch.float64)(x)
        torch.testing.assert_close(y[..., channel], expected[..., channel], rtol=1e-12, atol=0)


def test_the_shift_of_derf_moves_the_curve():
    norm, x = made("derf", alpha_init=2.0, shift_init=1.0), torch.full((1, 1, CHANNELS), -0.5)
    assert not norm(x).any()


@pytest.mark.parametrize("name", ["learnable_scaler", "learnable_scaler_2d"])
def test_a_scaler_starts_from_a_normal_draw_as_published(name):
    torch.manual_seed(0)
    weight = create_norm(name, 20_000).weight.detach()
    assert float(weight.mean()) == pytest.approx(0, abs=0.03)
    assert float(weight.std()) == pytest.approx(1, abs=0.03)
    assert float((weight.abs() < 0.1).float().mean()) == pytest.approx(0.08, abs=0.01)


@pytest.mark.parametrize("init", ["ones", "match"])
@pytest.mark.parametrize("name", ["learnable_scaler", "learnable_scaler_2d"])
def test_a_scaler_can_start_as_the_identity(name, init):
    norm, x = made(name, init=init).double(), inputs(name)
    assert torch.equal(norm(x), x)


def test_a_scaler_takes_the_affine_of_another_norm():
    norm = made("learnable_scaler", init="match")
    weight, bias = torch.rand(CHANNELS), torch.rand(CHANNELS)
    norm.match_affine(weight, bias)
    assert torch.equal(norm.weight, weight)
    assert torch.equal(norm.bias, bias)


def test_an_unknown_init_is_named():
    with pytest.raises(UsageError, match="init 'norm' is unknown.*known: normal, ones, match"):
        create_norm("learnable_scaler", CHANNELS, init="norm")


@pytest.mark.parametrize("name", ["dyt", "derf", "dyisru", "learnable_scaler"])
def test_norms_without_statistics_have_no_eps(name):
    assert not hasattr(made(name), "eps")
