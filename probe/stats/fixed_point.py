"""How an accelerator sums the elements of a batch in the bins of a profile.

Thousands of threads add to a bin at once, in any order. Sums of float64 then differ in their last
digits from one run to the next, sums of float32 lose small elements beside a large sum; sums of
int64 do neither. What is added is first measured in units that make it about one in size:

- x in units of its bin: the power of two below it. The open bins at both ends are kept apart by
  exponent, so that each of them has a unit, too.
- z of a token norm in units of a power of two above its bound, sqrt(C).

The products x, z, x x, z z, x z are then rounded to whole multiples of 1/quantum, a power of two as
large as the number of elements allows: 2^-39 for 2^20 elements of one group, 2^-35 for 2^24. Other
norms have no bound on z, and one huge value would leave no digits for the rest: their cells are
float64 and repeat to rounding, not to the bit.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from probe.bins import CELLS, MANTISSA_BITS, MAX_EXPONENT, MIN_EXPONENT, PER_SIGN
from probe.stats.observed import GivenNorm, PlaneNorm, TokenNorm
from probe.stats.sums import CELL_WIDTH, CellSum

NEAR_ZERO = 2 * PER_SIGN  # index of the cell around zero, here and in `bins.CELLS`
FIRST_OPEN = NEAR_ZERO + 1
# Open cells by exponent, of one sign; 127 is the largest exponent of a float32.
OPEN = 127 - MAX_EXPONENT
FIXED_CELLS = FIRST_OPEN + 2 * OPEN
FINEST = 46  # the square of a float32 has no more digits behind the point


@dataclass(frozen=True)
class Measure:
    """What the sums of cells are multiples of; see above."""

    whole: bool
    quantum: float
    z_unit: float

    @classmethod
    def of(cls, norm: TokenNorm | PlaneNorm | GivenNorm, rows: int, channels: int) -> Measure:
        """For cells of at most so many rows of a batch."""
        if not isinstance(norm, TokenNorm):
            return cls(whole=False, quantum=1.0, z_unit=1.0)
        # x is below 2 of its units, its square below 4: 2^61 of 2^63 leaves room for rounding
        digits = 59 - math.ceil(math.log2(rows * channels))
        return cls(
            whole=True,
            quantum=2.0 ** min(digits, FINEST),
            z_unit=2.0 ** math.ceil(math.log2(channels) / 2),
        )

    def no_cells(self, copies: int, kinds: int, device: torch.device) -> Tensor:
        """Empty cells (copies, kinds, FIXED_CELLS, CELL_WIDTH)."""
        dtype = torch.int64 if self.whole else torch.float64
        return torch.zeros(copies, kinds, FIXED_CELLS, CELL_WIDTH, dtype=dtype, device=device)

    def decoded(self, fixed: Tensor) -> Tensor:
        """The cells (..., CELLS, CellSum) float64 of those above."""
        values = fixed[..., : len(CellSum)].double() * _units(self, fixed.device)
        cells = values.new_empty(*values.shape[:-2], CELLS, len(CellSum))
        cells[..., :FIRST_OPEN, :] = values[..., :FIRST_OPEN, :]
        both_ends = values[..., FIRST_OPEN:, :].unflatten(-2, (2, OPEN))
        cells[..., FIRST_OPEN:, :] = both_ends.sum(dim=-2)
        return cells


@functools.lru_cache(maxsize=64)
def _units(measure: Measure, device: torch.device) -> Tensor:
    """(FIXED_CELLS, CellSum) of the whole numbers."""
    x, z = _x_units(), torch.tensor(measure.z_unit, dtype=torch.float64)
    units = {
        CellSum.X: x,
        CellSum.Z: z,
        CellSum.XX: x * x,
        CellSum.ZZ: z * z,
        CellSum.XZ: x * z,
        CellSum.COUNT: torch.full_like(z, measure.quantum),
    }
    columns = [units[name].expand(FIXED_CELLS) for name in CellSum]
    return (torch.stack(columns, dim=1) / measure.quantum).to(device)


def _x_units() -> Tensor:
    """The power of two (FIXED_CELLS,) float64 that x is measured in, per cell."""
    inner = MIN_EXPONENT + (torch.arange(PER_SIGN) >> MANTISSA_BITS)
    outer = MAX_EXPONENT + 1 + torch.arange(OPEN)
    exponents = torch.cat([inner, inner, torch.tensor([MIN_EXPONENT]), outer, outer])
    return torch.exp2(exponents.double())
