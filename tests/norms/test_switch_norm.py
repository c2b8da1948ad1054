"""Switchable normalization against the published training sequence in numpy, its limits, and the
checkpoints of the original.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe.errors import UsageError
from probe.norms import SwitchNorm

B, C, H, W = 3, 4, 2, 3
LOGITS = ([0.3, -0.2, 0.9], [-0.5, 0.4, 0.1])


def layer(**options):
    norm = SwitchNorm(C, channels_last=False, dtype=torch.float64, **options)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter, logits in zip((norm.mean_weight, norm.var_weight), LOGITS, strict=True):
            parameter.copy_(torch.tensor(logits[: len(parameter)], dtype=torch.float64))
        norm.weight.normal_()
        norm.bias.normal_()
    return norm


def batch(seed):
    rng = np.random.default_rng(seed)
    return rng.normal(rng.normal(size=(C, 1, 1)), 1 + rng.random((C, 1, 1)), (B, C, H, W))


def softmax(values):
    return np.exp(values) / np.exp(values).sum()


def batch_statistics(x):
    """m_bn, v_bn of shape (C,) as published: from the means and unbiased variances of the
    planes.
    """
    mean, var = x.mean((2, 3)), x.var((2, 3), ddof=1)
    return mean.mean(0), (var + mean**2).mean(0) - mean.mean(0) ** 2


def published(x, norm, running=None):
    mean_in, var_in = x.mean((2, 3)), x.var((2, 3), ddof=1)
    mean_ln = mean_in.mean(1, keepdims=True)
    var_ln = (var_in + mean_in**2).mean(1, keepdims=True) - mean_ln**2
    means, variances = [mean_in, mean_ln], [var_in, var_ln]
    if norm.using_bn:
        for values, value in zip((means, variances), running or batch_statistics(x), strict=True):
            values.append(value)
    count = len(means)
    a, d = (softmax(np.array(logits[:count])) for logits in LOGITS)
    mean = sum(w * v for w, v in zip(a, means, strict=True))[:, :, None, None]
    var = sum(w * v for w, v in zip(d, variances, strict=True))[:, :, None, None]
    weight, bias = (value.detach().numpy()[:, None, None] for value in (norm.weight, norm.bias))
    return weight * (x - mean) / np.sqrt(var + norm.eps) + bias


@pytest.mark.parametrize("momentum", [0.9, 0.997])
def test_training_uses_the_batch_and_keeps_a_running_mean_that_evaluation_uses(momentum):
    norm, mean, var = layer(momentum=momentum, eps=0.01), np.zeros(C), np.ones(C)
    for seed in range(4):
        x = batch(seed)
        np.testing.assert_allclose(
            norm.train()(torch.tensor(x)).detach().numpy(), published(x, norm), rtol=1e-11
        )
        new_mean, new_var = batch_statistics(x)
        mean, var = (
            momentum * mean + (1 - momentum) * new_mean,
            momentum * var + (1 - momentum) * new_var,
        )
        np.testing.assert_allclose(norm.running_mean.numpy(), mean.reshape(1, C, 1), rtol=1e-12)
        np.testing.assert_allclose(norm.running_var.numpy(), var.reshape(1, C, 1), rtol=1e-12)
        np.testing.assert_allclose(
            norm.eval()(torch.tensor(x)).detach().numpy(),
            published(x, norm, (mean, var)),
            rtol=1e-11,
        )


def test_sums_over_batches_become_the_statistics_of_all_of_them():
    norm, every = layer(using_moving_average=False), [batch(seed) for seed in range(3)]
    assert (norm.running_var == 0).all()
    for x in every:
        norm(torch.tensor(x))
    means, variances = (
        np.array(values) for values in zip(*map(batch_statistics, every), strict=True)
    )
    np.testing.assert_allclose(norm.running_mean.flatten().numpy(), means.sum(0), rtol=1e-12)
    np.testing.assert_allclose(
        norm.running_var.flatten().numpy(), (variances + means**2).sum(0), rtol=1e-12
    )
    norm.average_statistics(3)
    np.testing.assert_allclose(norm.running_mean.flatten().numpy(), means.mean(0), rtol=1e-12)
    np.testing.assert_allclose(
        norm.running_var.flatten().numpy(),
        (variances + means**2).mean(0) - means.mean(0) ** 2,
        rtol=1e-12,
    )


@pytest.mark.parametrize("training", [True, False])
def test_without_batch_statistics_two_logits_are_left_and_no_buffer(training):
    norm, x = layer(using_bn=False).train(training), batch(0)
    assert norm.mean_weight.shape == norm.var_weight.shape == (2,)
    assert list(norm.buffers()) == []
    np.testing.assert_allclose(
        norm(torch.tensor(x)).detach().numpy(), published(x, norm), rtol=1e-11
    )


@pytest.mark.parametrize(
    ("which", "axes"),
    [(0, (2, 3)), (1, (1, 2, 3)), (2, (0, 2, 3))],
    ids=["instance", "layer", "batch"],
)
def test_a_large_logit_chooses_one_normalizer(which, axes):
    """Its mean is the plain one; with n positions its variance is biased plus mean var_in / n,
    since var_in is the unbiased one.
    """
    norm, x = SwitchNorm(C, channels_last=False, dtype=torch.float64), batch(0)
    with torch.no_grad():
        norm.mean_weight[which] = norm.var_weight[which] = 60
    var_in = x.var((2, 3), ddof=1, keepdims=True)
    shared = var_in.mean(tuple(axis for axis in axes if axis < 2), keepdims=True)
    var = x.var(axes, keepdims=True) + shared / (H * W)
    expected = (x - x.mean(axes, keepdims=True)) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(
        norm(torch.tensor(x)).detach().numpy(), expected, rtol=1e-9, atol=1e-9
    )


def test_tokens_are_positions_of_a_column():
    images, tokens = layer(), SwitchNorm(C, dtype=torch.float64)
    tokens.load_state_dict(images.state_dict())
    x = torch.randn(B, 5, C, dtype=torch.float64)
    column = x.transpose(1, 2)[..., None]
    torch.testing.assert_close(
        tokens(x), images(column)[..., 0].transpose(1, 2), rtol=0, atol=1e-13
    )
    torch.testing.assert_close(tokens.running_var, images.running_var, rtol=0, atol=1e-13)


def test_gradients_go_through_all_statistics():
    norm = layer()
    x = torch.tensor(batch(0), requires_grad=True)
    parameters = tuple(norm.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: norm(x), (x, *parameters))


def test_a_large_offset_does_not_make_a_variance_negative():
    x = 3e4 + torch.randn(64, C, H, W, generator=torch.Generator().manual_seed(0))
    norm = SwitchNorm(C, channels_last=False)
    with torch.no_grad():
        norm.var_weight[1] = 60
    assert norm(x).isfinite().all()


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 1.0), ({"initial_var": 0.0}, 0.0), ({"using_moving_average": False}, 0.0)],
    ids=["here", "as published", "sums"],
)
def test_the_running_variance_starts_at_one_unless_asked_or_summed(options, expected):
    assert (SwitchNorm(C, **options).running_var == expected).all()


def test_a_last_gamma_starts_at_zero():
    assert (SwitchNorm(C, last_gamma=True).weight == 0).all()


@pytest.mark.parametrize("shape", [(2, 1, C), (2, C)])
def test_a_single_position_is_refused(shape):
    with pytest.raises(UsageError, match="SwitchNorm: "):
        SwitchNorm(C)(torch.zeros(shape))


def test_checkpoints_of_the_original_load_with_their_keys_and_shapes():
    rng = torch.Generator().manual_seed(0)
    state = {name: torch.rand(1, C, 1, 1, generator=rng) for name in ("weight", "bias")}
    state |= {name: torch.rand(3, generator=rng) for name in ("mean_weight", "var_weight")}
    state |= {name: torch.rand(1, C, 1, generator=rng) for name in ("running_mean", "running_var")}
    norm = SwitchNorm(C, channels_last=False)
    norm.load_state_dict(state)
    assert norm.state_dict().keys() == state.keys()
    for key, value in state.items():
        assert torch.equal(norm.state_dict()[key].flatten(), value.flatten()), key
    assert norm.weight.shape == norm.bias.shape == (C,)
    assert norm.running_mean.shape == norm.running_var.shape == (1, C, 1)
