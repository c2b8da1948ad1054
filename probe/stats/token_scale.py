"""How the scale of the tokens of a layer varies: sums over tokens of their sigma (LayerNorm,
RMSNorm).
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probe.stats.compile_kernels import kernel
from probe.stats.state import State


@kernel
def _sums(sigmas: Any) -> Any:
    """Number, sum, sum of squares and of inverses of those that are positive and finite."""
    tokens = sigma = squared = inverse = 0.0
    for each in sigmas:
        if 0.0 < each < math.inf:
            tokens += 1.0
            sigma += each
            squared += each * each
            inverse += 1.0 / each
    return tokens, sigma, squared, inverse


@dataclass
class TokenScale:
    """Streaming sums over tokens; tokens without a positive, finite sigma are left out."""

    tokens: float = 0.0
    sigma: float = 0.0
    sigma_squared: float = 0.0
    inverse_sigma: float = 0.0

    def update(self, sigmas: NDArray[np.float64]) -> None:
        self.merge(TokenScale(*_sums(sigmas.ravel())))

    def merge(self, other: TokenScale) -> None:
        self.tokens += other.tokens
        self.sigma += other.sigma
        self.sigma_squared += other.sigma_squared
        self.inverse_sigma += other.inverse_sigma

    def state(self) -> State:
        return {"sums": np.array(astuple(self), np.float64)}

    def restore(self, state: State) -> None:
        self.tokens, self.sigma, self.sigma_squared, self.inverse_sigma = state["sums"].tolist()

    def read(self) -> tuple[float, float, float]:
        """Mean of 1/sigma, mean of sigma, coefficient of variation of sigma; NaN where no token was
        seen.
        """
        if self.tokens == 0:
            return np.nan, np.nan, np.nan
        mean = self.sigma / self.tokens
        variance = max(self.sigma_squared / self.tokens - mean**2, 0)
        return self.inverse_sigma / self.tokens, mean, np.sqrt(variance) / mean
