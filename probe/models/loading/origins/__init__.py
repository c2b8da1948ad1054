"""Where networks come from by name: one file per origin, each with one function from Request to
Built.
"""

from __future__ import annotations

from collections.abc import Callable

from probe.models.loading.origins.bundled_models import build_bundled
from probe.models.loading.origins.common import Built, Request
from probe.models.loading.origins.hugging_face import build_hugging_face
from probe.models.loading.origins.python_file import build_from_file
from probe.models.loading.origins.timm_models import build_timm
from probe.models.loading.origins.torchvision_models import build_torchvision

ORIGINS: dict[str, Callable[[Request], Built]] = {
    "timm": build_timm,
    "torchvision": build_torchvision,
    "bundled": build_bundled,
    "hf": build_hugging_face,
    "file": build_from_file,
}

__all__ = ["ORIGINS", "Built", "Request"]
