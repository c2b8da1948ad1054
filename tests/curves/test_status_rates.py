"""How often a status is wrong, over draws of images from populations whose gain is known.

An image has a scale of its own, and each of its tokens one more; z = tanh(alpha x) plus noise, with
alpha such that the tanh gains exactly so much R2 over a line in the whole population.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from probe.curves import fit_profile
from probe.records import GROUPS
from support.curve_maps import in_bins

DRAWS = 100
IMAGES = 64
TOKENS, CHANNELS = 16, 24
NOISE = 0.15  # standard deviation, of that of the input
AT_MOST = 5  # wrong statuses in 100 draws


def inputs(images: int, rng: np.random.Generator, spread: float = 0.3) -> NDArray[np.float64]:
    """x (images, TOKENS * CHANNELS): lognormal scales of images and of tokens."""
    image = np.exp(spread * rng.standard_normal((images, 1, 1)))
    token = np.exp(0.3 * rng.standard_normal((images, TOKENS, 1)))
    x = image * token * rng.standard_normal((images, TOKENS, CHANNELS))
    return x.reshape(images, -1)


def gain_of(alpha: float, x: NDArray[np.float64]) -> float:
    """What a tanh explains more than the best line, of the variance of z, in the population."""
    curve = np.tanh(alpha * x) / alpha
    line = curve - (curve * x).mean() / (x * x).mean() * x
    return float((line**2).mean() / ((curve**2).mean() + NOISE**2))


def alpha_of(gain: float, x: NDArray[np.float64]) -> float:
    low, high = 1e-3, 3.0
    for _ in range(50):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if gain_of(middle, x) < gain else (low, middle)
    return low


POPULATION = inputs(4000, np.random.default_rng(99)).ravel()


def statuses(gain: float, images: int = IMAGES, draws: int = DRAWS) -> Counter[str]:
    alpha = alpha_of(gain, POPULATION) if gain else 0.0
    seen: Counter[str] = Counter()
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        x = inputs(images, rng)
        z = np.tanh(alpha * x) / alpha if alpha else x
        z = z + NOISE * rng.standard_normal(x.shape)
        group = np.repeat(np.arange(images) % GROUPS, x.shape[1])
        binned = in_bins(x.ravel(), z.ravel(), group)
        (fit,) = fit_profile(binned, families=["tanh"], weightings=("population",))
        seen[fit.status] += 1
    return seen


@pytest.mark.parametrize("gain", [0.0, 5e-4])
def test_a_gain_under_the_bound_is_hardly_ever_called_curved(gain: float) -> None:
    assert statuses(gain)["curved"] < AT_MOST


@pytest.mark.parametrize("gain", [2e-3, 1e-2])
def test_a_gain_over_the_bound_is_hardly_ever_called_linear(gain: float) -> None:
    assert statuses(gain)["linear"] < AT_MOST


def test_with_enough_images_a_line_and_a_curve_are_both_told() -> None:
    assert statuses(0.0)["linear"] > 90
    assert statuses(1e-2)["curved"] > 90


@pytest.mark.parametrize("gain", [0.0, 1e-2])
def test_under_eight_images_nothing_is_decided(gain: float) -> None:
    assert statuses(gain, images=7, draws=10) == {"undetermined": 10}
