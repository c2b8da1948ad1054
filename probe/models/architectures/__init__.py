"""Networks that timm lacks, in timm's registry: importing this package registers them.

Each is a plain network of its paper, with the norms of its layers chosen by name (`norm=`).
"""

from __future__ import annotations

from probe.models.architectures import cifar_vits, late_class_token, learnable_scaler_vits, pvt
from probe.models.architectures.registration import OWN_MODELS, takes_norm

__all__ = [
    "OWN_MODELS",
    "cifar_vits",
    "late_class_token",
    "learnable_scaler_vits",
    "pvt",
    "takes_norm",
]
