"""PowerNorm against the published training sequence, written again in numpy: values, buffers and
gradients of every step.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe.errors import UsageError
from probe.norms import PowerNorm
from support.norm_references import scaled_by_heads

B, T, C = 3, 5, 8


class PublishedSteps:
    """One object is one layer; `forward` and `backward` take turns. Rows are (B, T), statistics
    (C,).
    """

    def __init__(self, heads, warmup, keep=0.9, keep_gradient=0.9, eps=1e-5):
        self.heads, self.warmup, self.keep, self.keep_gradient, self.eps = (
            heads,
            warmup,
            keep,
            keep_gradient,
            eps,
        )
        self.phi, self.ema, self.step = np.ones(C), np.zeros(C), 0

    def forward(self, x, weight, bias, padding=None):
        self.step += 1
        t, phi = self.step, self.phi
        self.x, self.weight = x, weight
        u = scaled_by_heads(x, self.heads, 1e-5)
        self.v = (u[~padding] if padding is not None else u.reshape(-1, C)).__pow__(2).mean(0)
        self.z = u / np.sqrt((self.v if t <= self.warmup else phi) + self.eps)
        if t < self.warmup:
            phi = phi * (t - 1) / t + self.v / t
        self.phi = self.keep * phi + (1 - self.keep) * self.v
        return weight * self.z + bias

    def backward(self, gy):
        q = gy * self.weight - (1 - self.keep_gradient) * self.ema * self.z
        self.ema = self.ema + (q * self.z).mean((0, 1))
        du = q / np.sqrt((self.v if self.step < self.warmup else self.phi) + self.eps)
        blocks, gradient = (a.reshape(B, T, self.heads, -1) for a in (self.x, du))
        root = np.sqrt((blocks**2).mean(-1, keepdims=True) + 1e-5)
        dx = gradient / root - blocks * (gradient * blocks).mean(-1, keepdims=True) / root**3
        return dx.reshape(B, T, C), (gy * self.z).sum((0, 1)), gy.sum((0, 1))


def layer(**options):
    torch.manual_seed(0)
    norm = PowerNorm(C, dtype=torch.float64, **options)
    with torch.no_grad():
        norm.weight.normal_(1, 0.3)
        norm.bias.normal_()
    return norm


def batch(step, scale=1.0):
    rng = np.random.default_rng(step)
    return scale * rng.normal(rng.normal(size=C), 1 + rng.random(C), (B, T, C)), rng.normal(
        size=(B, T, C)
    )


def trained_step(norm, x, gy, **masks):
    """(y, z, dx, dw, db) of one training step."""
    norm.zero_grad()
    leaf = torch.tensor(x, requires_grad=True)
    y = norm(leaf, **masks)
    y.backward(torch.tensor(gy))
    return [
        value.detach().numpy()
        for value in (y, norm.normalized(leaf), leaf.grad, norm.weight.grad, norm.bias.grad)
    ]


@pytest.mark.parametrize("masked", [False, True], ids=["all rows", "padding"])
@pytest.mark.parametrize(
    ("heads", "warmup", "options"),
    [
        (2, 4, {}),
        (1, 1, {}),
        (8, 0, {"eps": 0.1}),
        (4, 100, {}),
        (2, 2, {"alpha_fwd": 0.7, "alpha_bkw": 0.4}),
    ],
)
def test_every_training_step_is_the_published_one_before_at_and_after_warm_up(
    heads, warmup, options, masked
):
    norm = layer(num_heads=heads, warmup=warmup, **options)
    steps = PublishedSteps(
        heads, warmup, options.get("alpha_fwd", 0.9), options.get("alpha_bkw", 0.9), norm.eps
    )
    weight, bias = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    padding = np.arange(B * T).reshape(B, T) % 4 == 3 if masked else None
    masks = {"pad_mask": torch.tensor(padding)} if masked else {}
    for step in range(1, 8):
        x, gy = batch(step, scale=step)
        expected = [steps.forward(x, weight, bias, padding), steps.z, *steps.backward(gy)]
        for got, wanted in zip(trained_step(norm, x, gy, **masks), expected, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(
            norm.running_phi.numpy(), steps.phi.reshape(1, C, 1, 1), rtol=1e-12
        )
        np.testing.assert_allclose(
            norm.ema_gz.numpy(), steps.ema.reshape(1, C, 1, 1), rtol=1e-10, atol=1e-12
        )
        assert norm.iters.tolist() == [step]


def test_the_first_step_of_warm_up_leaves_the_moment_of_its_batch():
    norm, (x, gy) = layer(num_heads=2, warmup=3), batch(1)
    trained_step(norm, x, gy)
    u = scaled_by_heads(x, 2, 1e-5)
    np.testing.assert_allclose(norm.running_phi.flatten().numpy(), (u**2).mean((0, 1)), rtol=1e-13)


def test_no_mean_is_subtracted():
    norm = layer(num_heads=C)  # one channel per head: u is the sign of x
    z = norm.normalized(torch.full((B, T, C), 3.0, dtype=torch.float64))
    assert torch.allclose(z, torch.ones_like(z), atol=1e-4)


def test_padding_is_normalized_and_changes_nothing_for_the_other_rows():
    mask = torch.zeros(B, T, dtype=torch.bool)
    mask[0, 2] = True
    x, _ = batch(1)
    other = x.copy()
    other[0, 2] = np.nan
    first, second = (layer(num_heads=2)(torch.tensor(values), mask) for values in (x, other))
    assert torch.equal(first[~mask], second[~mask])
    assert first[mask].isfinite().all()


def test_the_gradient_buffer_moves_where_the_input_needs_no_gradient():
    norm, (x, gy) = layer(), batch(1)
    norm(torch.tensor(x)).backward(torch.tensor(gy))
    assert (norm.ema_gz != 0).all()


def test_checkpoints_of_the_original_load_with_their_keys_and_shapes():
    rng = torch.Generator().manual_seed(0)
    state = {"weight": torch.rand(C, generator=rng), "bias": torch.rand(C, generator=rng)}
    state |= {name: torch.rand(1, C, 1, 1, generator=rng) for name in ("running_phi", "ema_gz")} | {
        "iters": torch.tensor([7])
    }
    norm = PowerNorm(C)
    norm.load_state_dict(state)
    assert norm.state_dict().keys() == state.keys()
    assert all(torch.equal(norm.state_dict()[key], value) for key, value in state.items())


def test_heads_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(UsageError, match="num_heads=3 does not divide 8 channels"):
        PowerNorm(C, num_heads=3)
