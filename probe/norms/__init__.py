"""Published normalization layers, one file per paper, with one constructor signature and one
registry.
"""

from probe.norms.base import Norm
from probe.norms.batch_norm import BatchNorm
from probe.norms.derf import Derf
from probe.norms.dtn import DTN
from probe.norms.dyisru import DyISRU
from probe.norms.dyt import DyT
from probe.norms.feature_norm import FeatureNorm
from probe.norms.group_norm import GroupNorm
from probe.norms.instance_norm import InstanceNorm
from probe.norms.layer_norm import LayerNorm
from probe.norms.learnable_scaler import LearnableScaler
from probe.norms.power_norm import PowerNorm
from probe.norms.registry import create_norm, list_norms
from probe.norms.rep_batch_norm import RepBatchNorm
from probe.norms.rms_norm import RMSNorm
from probe.norms.scale_norm import ScaleNorm
from probe.norms.switch_norm import SwitchNorm
from probe.norms.unified_norm import UnifiedNorm

__all__ = [
    "DTN",
    "BatchNorm",
    "Derf",
    "DyISRU",
    "DyT",
    "FeatureNorm",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "LearnableScaler",
    "Norm",
    "PowerNorm",
    "RMSNorm",
    "RepBatchNorm",
    "ScaleNorm",
    "SwitchNorm",
    "UnifiedNorm",
    "create_norm",
    "list_norms",
]
