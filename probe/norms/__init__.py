"""Published normalization layers, one file per paper."""

from probe.norms.derf import Derf
from probe.norms.dyt import DyT

__all__ = ["Derf", "DyT"]
