"""Fits of scope `channel`: weights and biases come back, the pooled R2 is what it says, degenerate
rows stay finite.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from probe.curves import ChannelScope, family_of, fit_channels
from probe.errors import UsageError
from probe.records import Fit
from support.curve_maps import tokens_through_norm

FAMILIES = ["tanh", "erf", "isru", "arctan", "softsign"]
GROUPS = np.arange(256) * 16 // 256


def row(scope: ChannelScope, family: str) -> Fit:
    return next(fit for fit in scope.fits if fit.family == family)


def channels_of(
    name: str, alpha: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Inputs of unlike spread and center (256, 48), outputs w f(alpha x) + b, and w and b."""
    random = np.random.default_rng(seed)
    x = (
        random.normal(0, 1, (256, 48)) * np.exp(random.normal(0, 1, 48)) + random.normal(0, 1, 48)
    ).astype(np.float32)
    w, b = random.normal(1, 0.3, 48), random.normal(0, 1, 48)
    return x, w * family_of(name).value(alpha * x.astype(np.float64)) + b, w, b


def per_channel(name: str, x: np.ndarray, z: np.ndarray, t: float) -> float:
    """The loss at log alpha t, in float64."""
    f = family_of(name).value(np.exp(t) * x.astype(np.float64))
    d, e = f - f.mean(axis=0), z - z.mean(axis=0)
    gamma = (d * e).sum(axis=0) / (d * d).sum(axis=0)
    return float(((e - gamma * d) ** 2).sum())


@pytest.mark.parametrize("alpha", [0.3, 2.0])
@pytest.mark.parametrize("name", FAMILIES)
def test_weight_and_bias_of_every_channel_come_back(name: str, alpha: float) -> None:
    x, z, w, b = channels_of(name, alpha)
    scope = fit_channels(x, z, GROUPS, ["linear", name])
    fit = row(scope, name)
    assert (fit.status, fit.scope, fit.best, fit.groups, fit.count) == (
        "curved",
        "channel",
        True,
        16,
        x.size,
    )
    assert fit.alpha == pytest.approx(alpha, rel=1e-5)
    for found, true in ((scope.gamma[name], w), (scope.beta[name], b)):
        assert np.median(np.abs(found - true)) < 1e-6
        np.testing.assert_allclose(
            found, true, atol=3e-3
        )  # the worst: a channel that only sees the flat part, in float32
    np.testing.assert_allclose(scope.r2[name], 1, atol=3e-3)
    assert not row(scope, "linear").best


@pytest.mark.parametrize("name", FAMILIES)
def test_alpha_and_pooled_r2_agree_with_brute_force(name: str) -> None:
    x, z, _ = tokens_through_norm(0, tokens=256)
    fit = row(fit_channels(x, z, GROUPS, [name]), name)
    t = math.log(fit.alpha)
    found = minimize_scalar(
        lambda t: per_channel(name, x, z, t), bracket=(t - 0.1, t, t + 0.1), tol=1e-9
    )
    assert fit.alpha == pytest.approx(np.exp(found.x), rel=1e-5)
    assert fit.r2 == pytest.approx(1 - found.fun / ((z - z.mean()) ** 2).sum(), abs=1e-6)
    lines = sum(np.polyfit(x[:, c], z[:, c], 1, full=True)[1][0] for c in range(x.shape[1]))
    assert fit.linear_r2 == pytest.approx(1 - lines / ((z - z.mean()) ** 2).sum(), abs=1e-6)
    assert fit.rmse == pytest.approx(math.sqrt(found.fun / x.size), rel=1e-4)


def test_the_interval_is_that_of_refits_without_each_group() -> None:
    x, z, _ = tokens_through_norm(1, tokens=256)
    fit = row(fit_channels(x, z, GROUPS, ["tanh"]), "tanh")
    t = math.log(fit.alpha)
    kept = [g != GROUPS for g in range(16)]
    bracket = (t - 0.1, t, t + 0.1)
    found = [
        minimize_scalar(
            lambda t, k=k: per_channel("tanh", x[k], z[k], t), bracket=bracket, tol=1e-7
        )
        for k in kept
    ]
    assert math.log(fit.alpha_high / fit.alpha) == pytest.approx(
        half_of([each.x for each in found]), rel=0.05
    )
    lines = [per_channel("linear", x[k], z[k], 0.0) for k in kept]
    gains = [
        (line - each.fun) / ((z[k] - z[k].mean()) ** 2).sum()
        for k, line, each in zip(kept, lines, found, strict=True)
    ]
    half = half_of(list(np.log(gains)))
    assert math.log(fit.gain_high / fit.gain) == pytest.approx(half, rel=5e-3)
    assert math.log(fit.gain / fit.gain_low) == pytest.approx(half, rel=5e-3)
    assert row(fit_channels(x, z, GROUPS % 7, ["tanh"]), "tanh").alpha_low is None


def half_of(values: list[float]) -> float:
    """Half of the jackknife interval of 16 refits."""
    return 2.13145 * math.sqrt(15 * np.var(values))


def test_row_order_and_group_labels_do_not_matter() -> None:
    x, z, _, _ = channels_of("tanh", 0.6)
    order = np.random.default_rng(2).permutation(256)
    one, other = fit_channels(x, z, GROUPS), fit_channels(x[order], z[order], GROUPS[order] * 3 + 5)
    assert row(other, "tanh").alpha == pytest.approx(row(one, "tanh").alpha, rel=1e-6)
    assert row(other, "tanh").alpha_high == pytest.approx(row(one, "tanh").alpha_high, rel=1e-5)


def test_lines_are_linear_with_the_slope_of_every_channel() -> None:
    x, _, w, b = channels_of("tanh", 1.0)
    scope = fit_channels(x, w * x + b, GROUPS)
    for fit in scope.fits:
        assert (fit.status, fit.alpha, fit.gamma) == ("linear", None, None)
        assert fit.slope == pytest.approx(np.median(w), rel=1e-5)
        np.testing.assert_allclose(scope.gamma[fit.family], w, rtol=1e-4)
        np.testing.assert_allclose(scope.beta[fit.family], b, atol=1e-4)


def test_a_step_is_a_step() -> None:
    x, _, _, _ = channels_of("tanh", 1.0)
    fit = row(fit_channels(x, np.sign(x), GROUPS, ["tanh"]), "tanh")
    assert (fit.status, fit.alpha) == ("step", None)


def test_dead_channels_give_finite_numbers_and_disturb_nobody() -> None:
    """Constant input, constant output, both, and one far from zero."""
    x, z, w, _ = channels_of("tanh", 0.7)
    x[:, 0], z[:, 1] = 5.0, -3.0
    x[:, 2], z[:, 2] = 0.0, 1.0
    x[:, 3] = 100 + x[:, 3]
    scope = fit_channels(x, z, GROUPS)
    for table in (scope.gamma, scope.beta, scope.r2):
        assert all(np.isfinite(each).all() for each in table.values())
    assert row(scope, "tanh").alpha == pytest.approx(0.7, rel=1e-3)
    np.testing.assert_allclose(scope.gamma["tanh"][4:], w[4:], rtol=2e-3)
    assert scope.gamma["tanh"][0] == scope.gamma["tanh"][1] == scope.gamma["tanh"][2] == 0
    assert (scope.beta["tanh"][1], scope.beta["tanh"][2]) == (pytest.approx(-3), pytest.approx(1))


@pytest.mark.parametrize(
    ("x", "z", "status"),
    [
        (np.zeros((0, 8)), np.zeros((0, 8)), "too_few"),
        (np.ones((1, 8)), np.ones((1, 8)), "too_few"),
        (np.full((9, 8), 2.0), np.arange(72.0).reshape(9, 8), "constant"),
        (np.arange(72.0).reshape(9, 8), np.zeros((9, 8)), "constant"),
        (np.arange(72.0).reshape(9, 8), np.full((9, 8), np.nan), "not_finite"),
        (np.full((9, 8), np.inf), np.zeros((9, 8)), "not_finite"),
    ],
)
def test_rows_without_a_curve_have_their_status(x: np.ndarray, z: np.ndarray, status: str) -> None:
    scope = fit_channels(x, z, np.arange(len(x)))
    for fit in scope.fits:
        assert (fit.status, fit.alpha, fit.best) == (status, None, False)
        assert all(
            math.isfinite(each)
            for each in dataclasses.asdict(fit).values()
            if isinstance(each, float)
        )
        assert scope.gamma[fit.family].shape == (8,)


def test_a_shift_has_no_channel_scope() -> None:
    with pytest.raises(
        UsageError,
        match="family 'erf_shift' has no channel scope; families without a shift: linear, tanh",
    ):
        fit_channels(np.zeros((20, 4)), np.zeros((20, 4)), np.arange(20), ["erf_shift"])


@pytest.mark.parametrize("name", ["tanh", "erf", "isru"])
def test_a_curve_that_is_not_established_is_told_with_its_alpha(name: str) -> None:
    x, z, _ = tokens_through_norm(0, tokens=256)
    noise = np.random.default_rng(0).normal(0, 1, x.shape).astype(np.float32)
    scope = fit_channels(x, z * 0.05 + noise, GROUPS, [name])
    fit = row(scope, name)
    assert fit.status == "undetermined"
    assert fit.alpha > 0
    assert fit.r2 >= fit.linear_r2
    np.testing.assert_allclose(np.median(scope.gamma[name]), fit.gamma)
