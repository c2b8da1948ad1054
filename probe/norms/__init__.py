"""Published normalization layers, one file per paper, with one constructor signature and one registry."""

from probe.norms.base import Norm
from probe.norms.derf import Derf
from probe.norms.dyt import DyT
from probe.norms.registry import create_norm, list_norms

__all__ = ["Derf", "DyT", "Norm", "create_norm", "list_norms"]
