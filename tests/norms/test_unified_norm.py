"""Unified Normalization against the published training sequence, written again in numpy: values,
buffers, gradients of every step.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probe.errors import UsageError
from probe.norms import UnifiedNorm

B, T, C = 3, 6, 5
BUFFERS = ("running_var", "ema_gz", "buffer_x2", "buffer_gz", "skip_counter")


class PublishedSteps:
    """One object is one layer; `forward` and `backward` take turns."""

    def __init__(self, window, warmup, filtering, keep=0.9, eps=1e-5, step=0):
        (self.m_f, self.m_b), self.warmup, self.filtering, self.keep, self.eps = (
            window,
            warmup,
            filtering,
            keep,
            eps,
        )
        self.running_var, self.ema_gz, self.step, self.skip_counter = (
            np.ones(C),
            np.zeros(C),
            step,
            np.zeros(1),
        )
        self.buffer_x2, self.buffer_gz = np.zeros((self.m_f, C)), np.zeros((self.m_b, C))

    def forward(self, x, weight, bias, padding=None):
        self.step += 1
        t = self.step
        x2 = np.mean((x[~padding] if padding is not None else x.reshape(-1, C)) ** 2, axis=0)
        spread = np.sqrt(self.buffer_x2).var(ddof=1)
        self.buffer_x2[t % self.m_f] = x2
        self.skip = self.m_f <= 1
        if t >= self.warmup and self.filtering:
            gap = self.buffer_x2.mean(0) - geometric(self.buffer_x2)
            if np.any(gap > self.m_f * spread):
                self.buffer_x2[t % self.m_f] = self.running_var
                self.skip = True
                self.skip_counter += 1
        self.var = (
            x2 if t <= self.m_f or t < self.warmup or self.skip else geometric(self.buffer_x2)
        )
        self.r = np.ones(C)
        if t > max(1000, self.warmup) and not self.skip:
            self.r = np.clip(
                np.sqrt(self.var + self.eps) / np.sqrt(self.running_var + self.eps), 0.2, 5
            )
        self.z, self.weight = x / np.sqrt(self.var + self.eps), weight
        self.running_var = self.keep * self.running_var + (1 - self.keep) * self.var
        return weight * self.z + bias

    def backward(self, gy):
        t = self.step
        g = gy * self.weight * self.r
        gz = (g * self.z).mean((0, 1))
        self.buffer_gz[t % self.m_b] = self.ema_gz if self.skip else gz
        mean_gz = gz if t <= self.m_b or t < self.warmup or self.skip else self.buffer_gz.mean(0)
        self.ema_gz = self.keep * self.ema_gz + (1 - self.keep) * mean_gz
        dx = (g - (mean_gz if self.skip else self.ema_gz) * self.z) / np.sqrt(self.var + self.eps)
        return dx, (gy * self.r * self.z).sum((0, 1)), gy.sum((0, 1))


def geometric(values):
    with np.errstate(divide="ignore"):
        return np.exp(np.log(values).mean(0))


def layer(**options):
    torch.manual_seed(0)
    norm = UnifiedNorm(C, dtype=torch.float64, **options)
    with torch.no_grad():
        norm.weight.normal_(1, 0.3)
        norm.bias.normal_()
    return norm


def batch(step, scale=1.0):
    rng = np.random.default_rng(step)
    return scale * np.linspace(0.5, 2, C) * rng.normal(size=(B, T, C)), rng.normal(size=(B, T, C))


def compared(norm, steps, scales, padding=None):
    """Runs both side by side, one step per scale; returns the values of skip_counter and of the
    ratio on the way.
    """
    weight, bias = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    masks = {} if padding is None else {"pad_mask": torch.tensor(padding)}
    skipped, ratios = [], []
    for number, scale in enumerate(scales):
        x, gy = batch(number, scale)
        norm.zero_grad()
        leaf = torch.tensor(x, requires_grad=True)
        y = norm(leaf, **masks)
        y.backward(torch.tensor(gy))
        got = (
            y,
            norm.normalized(leaf),
            leaf.grad,
            norm.weight.grad,
            norm.bias.grad,
            *(getattr(norm, name) for name in BUFFERS),
        )
        wanted = [steps.forward(x, weight, bias, padding), steps.z, *steps.backward(gy)]
        wanted += [getattr(steps, name) for name in BUFFERS]
        for ours, theirs in zip(got, wanted, strict=True):
            np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-10, atol=1e-11)
        assert norm.iters.tolist() == [steps.step]
        skipped.append(int(norm.skip_counter))
        ratios.append(steps.r.copy())
    return skipped, np.array(ratios)


@pytest.mark.parametrize("masked", [False, True], ids=["all rows", "padding"])
@pytest.mark.parametrize(
    ("window", "warmup", "options"),
    [
        (3, 5, {}),
        (3, 1, {}),
        ((2, 4), 3, {"momentum": 0.6, "eps": 0.1}),
        ((4, 2), 0, {}),
        (1, 2, {}),
        ((1, 3), 2, {}),
        (4, 4000, {}),
    ],
)
def test_every_training_step_is_the_published_one_through_warm_up_and_round_the_window(
    window, warmup, options, masked
):
    norm = layer(window=window, warmup=warmup, **options)
    both = (window, window) if isinstance(window, int) else window
    steps = PublishedSteps(both, warmup, False, options.get("momentum", 0.9), norm.eps)
    padding = np.arange(B * T).reshape(B, T) % 5 == 4 if masked else None
    skipped, ratios = compared(norm, steps, np.linspace(1, 3, 10), padding)
    assert skipped == [0] * 10
    assert (ratios == 1).all()


def test_an_outlier_is_left_out_and_counted_and_the_next_batches_are_not():
    norm, steps = layer(window=4, warmup=6, filter_outliers=True), PublishedSteps((4, 4), 6, True)
    skipped, _ = compared(norm, steps, [1] * 8 + [30, 1, 1, 1, 0.001, 1, 1])
    assert skipped == [0] * 8 + [1] * 4 + [2] * 3


@pytest.mark.parametrize(("gap", "outlier"), [(0.9, False), (1.1, True)])
def test_an_outlier_lies_beyond_the_window_times_the_unbiased_variance_of_the_roots_before(
    gap, outlier
):
    """Roots 1 and 2 have variance 1/2, twice that is 1; the roots r and 2 of the new window have a
    gap of (r - 2)^2 / 2.
    """
    norm = UnifiedNorm(1, window=2, warmup=3, filter_outliers=True, dtype=torch.float64)
    norm.buffer_x2.copy_(torch.tensor([[1.0], [4.0]]))
    norm.iters.fill_(3)
    norm(torch.full((1, 3, 1), 2 + (2 * gap) ** 0.5, dtype=torch.float64))
    assert bool(norm.skip_counter) == outlier


def test_without_the_filter_nothing_is_left_out():
    norm, steps = layer(window=4, warmup=6), PublishedSteps((4, 4), 6, False)
    assert compared(norm, steps, [1] * 8 + [30, 1])[0][-1] == 0


def test_a_warm_up_shorter_than_the_window_makes_every_step_an_outlier_until_it_is_full():
    """As published: the geometric mean with a row of zeros is 0."""
    norm, steps = layer(window=4, warmup=1, filter_outliers=True), PublishedSteps((4, 4), 1, True)
    assert compared(norm, steps, [1, 1, 1])[0] == [1, 2, 3]


def test_after_a_thousand_steps_gradients_follow_the_ratio_of_the_roots_within_a_fifth_and_five():
    norm, steps = layer(window=2, warmup=5), PublishedSteps((2, 2), 5, False, step=998)
    norm.iters.fill_(998)
    _, ratios = compared(norm, steps, [1, 1, 2, 1, 60, 60, 60, 0.01, 0.01])
    assert (ratios[:2] == 1).all()
    assert ((ratios[2:4] != 1) & (ratios[2:4] > 0.2) & (ratios[2:4] < 5)).all()
    assert (ratios[4] == 5).any()
    assert (ratios[-1] == 0.2).any()


def test_a_skip_sets_the_ratio_to_one():
    norm, steps = (
        layer(window=4, warmup=6, filter_outliers=True),
        PublishedSteps((4, 4), 6, True, step=1200),
    )
    norm.iters.fill_(1200)
    skipped, ratios = compared(norm, steps, [1] * 8 + [30])
    assert skipped[-1] == skipped[-2] + 1
    assert (ratios[-2] != 1).any()
    assert (ratios[-1] == 1).all()


def test_one_number_in_the_window_has_no_spread_and_filters_nothing():
    norm = UnifiedNorm(1, window=1, warmup=1, filter_outliers=True)
    for scale in (1, 100, 1):
        norm(scale * torch.randn(2, 3, 1)).sum().backward()
    assert norm.skip_counter.item() == 0


def test_rows_without_a_batch_axis_count_as_one_image():
    (x, gy), norm, twin = batch(1), layer(), layer()
    flat, whole = (torch.tensor(values, requires_grad=True) for values in (x[0], x[:1]))
    y, expected = norm(flat, torch.zeros(T, dtype=torch.bool)), twin(whole)
    y.backward(torch.tensor(gy[0]))
    expected.backward(torch.tensor(gy[:1]))
    assert torch.equal(y, expected[0])
    assert torch.equal(flat.grad, whole.grad[0])


def test_the_line_at_evaluation_comes_from_the_running_variance_alone():
    norm = layer()
    norm.running_var.copy_(torch.linspace(0.5, 2, C))
    scale, shift = norm.eval_affine()
    x, _ = batch(1)
    np.testing.assert_allclose(
        norm.eval()(torch.tensor(x)).detach().numpy(), scale.numpy() * x + shift.numpy(), rtol=1e-12
    )


@pytest.mark.parametrize("window", [0, (2, 0), -1])
def test_an_empty_window_is_refused(window):
    with pytest.raises(UsageError, match="a number of steps from 1 is needed"):
        UnifiedNorm(C, window=window)


def test_checkpoints_of_the_original_load_with_their_keys_and_shapes():
    rng = torch.Generator().manual_seed(0)
    state = {
        name: torch.rand(C, generator=rng) for name in ("weight", "bias", "running_var", "ema_gz")
    }
    state |= {
        "buffer_x2": torch.rand(3, C, generator=rng),
        "buffer_gz": torch.rand(2, C, generator=rng),
    }
    state |= {"iters": torch.tensor([4321]), "skip_counter": torch.tensor([12])}
    norm = UnifiedNorm(C, window=(3, 2))
    norm.load_state_dict(state)
    assert norm.state_dict().keys() == state.keys()
    assert all(torch.equal(norm.state_dict()[key], value) for key, value in state.items())
