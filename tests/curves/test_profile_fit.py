"""Fits of scope `layer`: known maps come back, every input has a status, and bins tell what the
whole population tells.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import special

from probe.curves import FAMILIES, BinnedMap, fit_profile, predict
from probe.curves.points import problem
from probe.curves.profile_fit import solve_case
from probe.curves.varpro import evaluate
from probe.errors import UsageError
from probe.records import Fit
from support.curve_maps import brute_force, in_bins, normal_inputs, tokens_through_norm

Map = Callable[[np.ndarray], np.ndarray]
CURVED = [name for name in FAMILIES if name != "linear"]


def only(
    binned: BinnedMap, family: str, weighting: str = "population", jackknife: bool = True
) -> Fit:
    (fit,) = fit_profile(binned, [family], [weighting], jackknife)
    return fit


@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0])
def test_a_dyt_layer_gives_back_its_alpha(alpha: float) -> None:
    x = normal_inputs()
    fit = only(in_bins(x, np.tanh(alpha * x)), "tanh")
    assert fit.status == "curved"
    assert fit.alpha == pytest.approx(alpha, rel=2e-5)
    assert fit.gamma == pytest.approx(1, abs=2e-5)
    assert fit.beta == pytest.approx(0, abs=2e-5)
    assert fit.slope == pytest.approx(alpha, rel=2e-5)
    assert fit.r2 == pytest.approx(1, abs=2e-6)
    assert fit.best


@pytest.mark.parametrize("name", CURVED)
@pytest.mark.parametrize("gamma", [2.5, -0.8])
def test_a_scalar_map_of_every_family_gives_all_its_parameters(name: str, gamma: float) -> None:
    """problem x family; alpha is positive, the sign is in gamma; the family itself is among the
    best.
    """
    x, shift = normal_inputs(seed=1), 0.6 if FAMILIES[name].shifted else None
    fits = {
        fit.family: fit
        for fit in fit_profile(
            in_bins(x, predict(name, x, 1.3, shift, gamma, 0.4)), weightings=["population"]
        )
    }
    fit, tolerance = fits[name], 5e-4 if name == "hardtanh" else 1e-4
    assert fit.status == "curved"
    assert fit.alpha == pytest.approx(1.3, rel=tolerance)
    assert fit.gamma == pytest.approx(gamma, rel=tolerance)
    assert fit.beta == pytest.approx(0.4, abs=2e-4)
    assert fit.shift == (None if shift is None else pytest.approx(shift, abs=1e-4))
    steep = float(FAMILIES[name].derivative(np.array(shift or 0.0)))
    assert fit.slope == pytest.approx(fit.gamma * fit.alpha * steep)
    assert fit.best


@pytest.mark.parametrize("shift", [-1.4, 0.25, 2.0])
def test_a_derf_layer_gives_back_alpha_and_shift(shift: float) -> None:
    x = normal_inputs(seed=2)
    fit = only(in_bins(x, special.erf(0.5 * x + shift)), "erf_shift")
    assert (fit.alpha, fit.shift) == (pytest.approx(0.5, rel=2e-4), pytest.approx(shift, abs=2e-4))
    assert (fit.gamma, fit.beta) == (pytest.approx(1, abs=5e-4), pytest.approx(0, abs=5e-4))


def test_isru_is_the_curve_of_an_element_under_rms_norm() -> None:
    """z = x / sqrt((x^2 + rest) / C) with the rest alike everywhere is isru with alpha 1/sqrt(rest)
    and gamma sqrt(C).
    """
    x, channels, rest = normal_inputs(seed=3, scale=20), 64, 600.0
    fits = {
        fit.family: fit
        for fit in fit_profile(
            in_bins(x, x / np.sqrt((x * x + rest) / channels)), weightings=["population"]
        )
    }
    assert fits["isru"].best
    assert fits["isru"].alpha == pytest.approx(rest**-0.5, rel=1e-4)
    assert fits["isru"].gamma == pytest.approx(math.sqrt(channels), rel=1e-4)
    assert not fits["tanh"].best


STRAIGHT: dict[str, Map] = {
    "line": lambda x: 3 * x - 2,
    "falling": lambda x: -0.01 * x,
    "nearly straight": lambda x: np.tanh(0.02 * x),
}
NOISY: dict[str, Map] = {
    "noise": lambda x: np.random.default_rng(9).normal(0, 1, x.shape),
    "line and noise": lambda x: x + np.random.default_rng(9).normal(0, 1, x.shape),
}


@pytest.mark.parametrize("weighting", ["population", "range"])
@pytest.mark.parametrize("name", CURVED)
@pytest.mark.parametrize("kind", STRAIGHT)
def test_a_straight_map_is_linear_with_its_slope_and_no_alpha(
    kind: str, name: str, weighting: str
) -> None:
    x = normal_inputs(20_000, seed=4)
    z = STRAIGHT[kind](x)
    fit = only(in_bins(x, z), name, weighting)
    assert (fit.status, fit.alpha, fit.gamma, fit.alpha_low) == ("linear", None, None, None)
    if weighting == "population":
        slope, intercept = np.polyfit(x, z, 1)
        assert fit.slope == pytest.approx(slope, rel=5e-4, abs=2e-4)
        assert fit.beta == pytest.approx(intercept, rel=5e-4, abs=2e-5)


@pytest.mark.parametrize("name", CURVED)
@pytest.mark.parametrize("kind", NOISY)
def test_chance_is_never_curved(kind: str, name: str) -> None:
    """Noise has a best alpha, too; it is told, and no more than that."""
    x = normal_inputs(20_000, seed=4)
    fit = only(in_bins(x, NOISY[kind](x)), name)
    assert fit.status in ("linear", "undetermined")
    assert fit.gain_low < 5e-4
    assert (fit.alpha is None) == (fit.gamma is None) == (fit.alpha_low is None)


@pytest.mark.parametrize("name", CURVED)
def test_a_curve_that_is_not_established_is_told_with_its_alpha(name: str) -> None:
    x = normal_inputs(400, seed=6)
    z = np.tanh(0.35 * x) + np.random.default_rng(2).normal(0, 0.15, len(x))
    fit = only(in_bins(x, z), name)
    assert fit.status == "undetermined"
    assert fit.alpha_low < fit.alpha < fit.alpha_high
    assert None not in (fit.gamma, fit.beta, fit.slope)


OTHER: dict[str, tuple[Map, str]] = {
    "cubic": (lambda x: x + 0.2 * x**3, "superlinear"),
    "sinh": (lambda x: np.sinh(1.2 * x), "superlinear"),
    "sign": (np.sign, "step"),
    "constant": (np.zeros_like, "constant"),
    "constant far from zero": (lambda x: np.full_like(x, 1e4), "constant"),
    "nan": (lambda x: np.where(x > 3, np.nan, x), "not_finite"),
    "inf": (lambda x: np.where(x > 3, np.inf, x), "not_finite"),
}


@pytest.mark.parametrize("name", [name for name in CURVED if not FAMILIES[name].shifted])
@pytest.mark.parametrize("kind", OTHER)
def test_other_maps_have_their_status(kind: str, name: str) -> None:
    x = normal_inputs(20_000, seed=5)
    curve, status = OTHER[kind]
    fit = only(in_bins(x, curve(x)), name)
    assert fit.status == status
    assert (fit.alpha, fit.gamma) == (None, None)
    assert all(
        math.isfinite(each) for each in dataclasses.asdict(fit).values() if isinstance(each, float)
    )
    if status in ("superlinear", "step"):
        assert fit.slope == pytest.approx(np.polyfit(x, curve(x), 1)[0], rel=1e-3)


FEW: dict[str, tuple[list[float], str]] = {
    "nothing": ([], "too_few"),
    "one element": ([1.5], "too_few"),
    "nine elements": ([*range(9)], "too_few"),
    "one input": ([2.5] * 50, "constant"),
    "two inputs": ([2.5, -1.0] * 50, "too_few"),
    "zeros": ([0.0] * 50, "constant"),
}


@pytest.mark.parametrize("name", CURVED)
@pytest.mark.parametrize("kind", FEW)
def test_inputs_without_a_curve_have_their_status(kind: str, name: str) -> None:
    inputs, status = FEW[kind]
    x = np.array(inputs, dtype=float)
    binned = (
        in_bins(x, 2 * x + 1)
        if inputs
        else BinnedMap(
            np.zeros(0, dtype=np.int64), *[np.zeros((16, 0))] * 6, min_x=math.inf, max_x=-math.inf
        )
    )
    for fit in fit_profile(binned, [name]):
        assert (fit.status, fit.alpha, fit.count, fit.best) == (status, None, len(inputs), False)


def test_a_line_through_two_inputs_is_kept() -> None:
    fit = only(in_bins(np.array([2.5, -1.0] * 50), np.array([6.0, -1.0] * 50)), "linear")
    assert (fit.status, fit.best) == ("linear", True)
    assert fit.slope == pytest.approx(2)


@pytest.mark.parametrize("center", [True, False], ids=["layer_norm", "rms_norm"])
@pytest.mark.parametrize("name", ["tanh", "erf", "isru", "arctan", "softsign"])
def test_bins_tell_what_a_brute_force_fit_of_all_elements_tells(name: str, center: bool) -> None:
    x, z, group = tokens_through_norm(0, center=center)
    fit = only(in_bins(x, z, group), name, jackknife=False)
    alpha, gamma, beta, r2 = brute_force(name, x, z, fit.alpha)
    assert fit.alpha == pytest.approx(alpha, rel=5e-4)
    assert fit.slope == pytest.approx(gamma * alpha * FAMILIES[name].slope_at_zero, rel=5e-4)
    assert fit.beta == pytest.approx(beta, abs=1e-4)
    assert fit.r2 == pytest.approx(r2, abs=1e-4)
    assert fit.rmse == pytest.approx(math.sqrt((1 - r2) * z.var()), rel=5e-4)
    slope, intercept = np.polyfit(x.ravel(), z.ravel(), 1)
    line = only(in_bins(x, z, group), "linear")
    assert (line.slope, line.beta) == (
        pytest.approx(slope, rel=1e-4),
        pytest.approx(intercept, abs=1e-5),
    )
    assert (
        line.r2
        == fit.linear_r2
        == pytest.approx(np.corrcoef(x.ravel(), z.ravel())[0, 1] ** 2, abs=1e-4)
    )


def test_hardtanh_ends_in_the_deepest_of_its_shallow_minima() -> None:
    """Its corners make a minimum of every heavy point in the far ends."""
    x, z, group = tokens_through_norm(0)
    binned = in_bins(x, z, group)
    fit = only(binned, "hardtanh", jackknife=False)
    around = fit.alpha * np.exp(np.linspace(-0.04, 0.04, 401))
    assert fit.r2 >= max_r2(binned, "hardtanh", around, None, "population") - 1e-7
    alpha, _, _, r2 = brute_force("hardtanh", x, z, fit.alpha)
    assert (fit.alpha, fit.r2) == (pytest.approx(alpha, rel=5e-3), pytest.approx(r2, abs=1e-4))


def test_quality_is_ordered_line_curve_ceiling() -> None:
    x, z, group = tokens_through_norm(1)
    for fit in fit_profile(in_bins(x, z, group)):
        assert fit.linear_r2 <= fit.r2 + 1e-12
        assert fit.r2 <= fit.r2_ceiling <= 1
        assert fit.gain == pytest.approx(fit.r2 - fit.linear_r2)
        assert (fit.groups, fit.count) == (16, x.size)


@pytest.mark.parametrize("name", ["tanh", "isru", "hardtanh", "erf_shift"])
@pytest.mark.parametrize("weighting", ["population", "range"])
def test_the_best_of_several_local_optima_is_found(name: str, weighting: str) -> None:
    """A narrow step at the centre and a wide S in rare extremes: two valleys in log alpha."""
    x = np.concatenate([normal_inputs(40_000, 6, 0.1), normal_inputs(2000, 7, 30.0)])
    for share in (0.02, 0.2, 2.0):
        binned = in_bins(x, np.tanh(x / 20) + share * np.tanh(30 * x))
        fit = only(binned, name, weighting, jackknife=False)
        lower, upper = 1e-3 / binned.max_abs, 300 / binned.max_abs
        best = max_r2(binned, name, np.geomspace(lower, upper, 400), fit.shift, weighting)
        assert fit.r2 >= best - 2e-5


def max_r2(
    binned: BinnedMap, name: str, alphas: np.ndarray, shift: float | None, weighting: str
) -> float:
    """The largest R2 at any of these alphas, gamma and beta in closed form."""
    points = problem(binned, weighting, jackknife=False).total
    w, z = points.w[0], points.z[0] - points.w[0] @ points.z[0]
    f = FAMILIES[name].value(alphas[:, None] * points.x + (shift or 0.0))
    d = f - (f @ w)[:, None]
    return float((((d * w) @ z) ** 2 / np.maximum((d * d) @ w, 1e-300)).max() / points.tss[0])


def test_range_weighs_what_the_eye_sees_and_population_what_the_elements_say() -> None:
    """Straight where nearly all elements are, an S in the extremes: only the range sees it."""
    x = np.concatenate([normal_inputs(60_000, 8, 0.05), normal_inputs(600, 9, 3.0)])
    fits = {
        fit.weighting: fit
        for fit in fit_profile(
            in_bins(x, np.tanh(x) + np.random.default_rng(1).normal(0, 1, x.shape)), ["tanh"]
        )
    }
    assert fits["range"].status == "curved"
    assert fits["range"].alpha == pytest.approx(1, rel=0.2)
    assert fits["range"].gain > 5 * fits["population"].gain


def test_scaling_input_and_output_scales_the_parameters() -> None:
    x, z, group = tokens_through_norm(2, tokens=300)
    one, other = only(in_bins(x, z, group), "tanh"), only(in_bins(x * 1024, -z / 8, group), "tanh")
    assert other.alpha == pytest.approx(one.alpha / 1024, rel=1e-5)
    assert other.gamma == pytest.approx(-one.gamma / 8, rel=1e-5)
    assert other.r2 == pytest.approx(one.r2, abs=1e-6)
    assert other.alpha_high == pytest.approx(one.alpha_high / 1024, rel=1e-4)


def test_groups_decide_whether_there_is_an_interval() -> None:
    x, z, group = tokens_through_norm(3, tokens=300)
    eight, seven = only(in_bins(x, z, group % 8), "tanh"), only(in_bins(x, z, group % 7), "tanh")
    assert eight.alpha_low < eight.alpha < eight.alpha_high
    assert eight.gain_low < eight.gain < eight.gain_high
    assert (seven.groups, seven.alpha_low, seven.alpha_high, seven.gain_low) == (
        7,
        None,
        None,
        None,
    )
    assert (eight.status, seven.status) == ("curved", "undetermined")
    assert seven.alpha == pytest.approx(eight.alpha)
    assert only(in_bins(x, z, group), "tanh", jackknife=False).alpha_low is None


def test_replicates_refit_alpha() -> None:
    """The interval is the jackknife of fits that each leave one group out, made one by one."""
    x, z, group = tokens_through_norm(4, tokens=300)
    fit = only(in_bins(x, z, group), "tanh")
    logs = np.log(
        [
            only(in_bins(x[group != g], z[group != g]), "tanh", jackknife=False).alpha
            for g in range(16)
        ]
    )
    half = 2.13145 * math.sqrt(15 / 16 * ((logs - logs.mean()) ** 2).sum())
    assert math.log(fit.alpha_high / fit.alpha) == pytest.approx(half, rel=0.02)
    assert math.log(fit.alpha / fit.alpha_low) == pytest.approx(half, rel=0.02)


def test_a_replicate_may_fall_into_another_valley() -> None:
    """Without group 0, which alone has the wide S, alpha is that of the narrow one, and the refit
    gets there.
    """
    narrow, wide = normal_inputs(16_000, 11, 0.1), normal_inputs(2000, 12, 30.0)
    x, group = (
        np.concatenate([narrow, wide]),
        np.concatenate([np.arange(16_000) % 16, np.zeros(2000, dtype=np.int64)]),
    )
    task = problem(in_bins(x, np.tanh(x / 20) + 0.05 * np.tanh(30 * x), group), "population")
    best, refits = solve_case(task, FAMILIES["tanh"])
    found = evaluate(
        FAMILIES["tanh"],
        best.theta,
        task.replicates.x,
        task.replicates.w[:1],
        task.replicates.z[:1],
    )
    assert np.exp(best.theta[0, 0]) < 0.2 < 0.3 * np.exp(refits.theta[0, 0])
    assert refits.loss[0] < 0.9 * found.loss[0]
    np.testing.assert_allclose(refits.theta[1:, 0], best.theta[0, 0], atol=0.05)


def test_a_gain_that_rests_on_one_group_is_not_curved() -> None:
    """Its interval reaches down to no gain; alone, the other groups are a line."""
    x = normal_inputs(32_000, seed=10)
    group = np.arange(32_000) % 16
    binned = in_bins(x, np.where(group == 0, 3 * np.tanh(2 * x), 0.4 * x), group)
    fit = only(binned, "tanh")
    assert fit.gain > 1e-3 > 5e-4 > fit.gain_low
    assert fit.status == "undetermined"


def test_one_fit_per_family_and_weighting_in_the_order_asked() -> None:
    x = normal_inputs(2000)
    fits = fit_profile(in_bins(x, np.tanh(x)), ["erf", "linear"], ["range", "population"])
    assert [(fit.family, fit.weighting, fit.scope) for fit in fits] == [
        ("erf", "range", "layer"),
        ("linear", "range", "layer"),
        ("erf", "population", "layer"),
        ("linear", "population", "layer"),
    ]
    with pytest.raises(UsageError, match="family 'tan' is unknown"):
        fit_profile(in_bins(x, x), ["tan"])
    with pytest.raises(UsageError, match="weighting 'widths' is unknown; known: population, range"):
        fit_profile(in_bins(x, x), ["tanh"], ["widths"])


@pytest.mark.slow
def test_intervals_cover_the_value_of_all_images() -> None:
    """Tokens of an image share a scale; at least 85 % of the draws of 64 of 512 images cover the
    alpha of all 512.
    """
    random = np.random.default_rng(0)
    scale = np.exp(random.normal(0, 0.5, 64))
    scale[:3] *= 15
    x = random.normal(0, 1, (512, 16, 64)) * scale * np.exp(random.normal(0, 0.3, (512, 1, 1)))
    x = x.astype(np.float32).astype(np.float64)
    z = (x - x.mean(axis=2, keepdims=True)) / x.std(axis=2, keepdims=True)
    truth = only(in_bins(x, z), "tanh", jackknife=False).alpha
    covered = 0
    for _ in range(60):
        drawn = random.choice(512, 64, replace=False)
        fit = only(
            in_bins(
                x[drawn],
                z[drawn],
                np.broadcast_to((np.arange(64) % 16)[:, None, None], (64, 16, 64)),
            ),
            "tanh",
        )
        covered += fit.alpha_low <= truth <= fit.alpha_high
    assert covered >= 51
