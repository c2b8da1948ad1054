"""A converted model as one safetensors file.

Metadata beside that of every model file (probe.jobs.model_file), format `probe-convert`: weights,
source and fingerprint of the original, norm, scope, curves, dtype; layers (module path -> family of
its curve), left_out (layer -> why it was kept), measured.

Older files call the family of a line `line` and that of every derf `erf`; loading needs neither.
"""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from torch import nn

from probe.curves import StandIn
from probe.errors import UsageError
from probe.jobs.model_file import Format, constructor_options, model_bytes, original, read_metadata
from probe.models.loading.load import Model, resolve_device
from probe.models.loading.origins.common import load_exactly
from probe.models.loading.weights import fingerprint
from probe.models.reading.layers import list_norm_layers
from probe.models.replacing.curve_norms import curve_norms, fitted_family
from probe.models.replacing.swap import swap
from probe.paths import user_path

CONVERTED = Format("probe-convert", 1, "converted", ("layers", "left_out", "options", "measured"))


def converted_bytes(model: Model, metadata: Mapping[str, Any]) -> bytes:
    """The file of a converted model; `metadata` says how to build it (see the module)."""
    return model_bytes(model.module, CONVERTED, {**metadata, "options": constructor_options(model)})


def load_converted(
    path: str | os.PathLike[str],
    model: Model | nn.Module | None = None,
    *,
    device: str | None = None,
    offline: bool = False,
) -> Model:
    """The converted model of a file that `convert` wrote, in evaluation mode: architecture,
    replaced layers, weights.

    model: an unconverted model of the same architecture, which is converted in place; None: it is
    built by its name, without a download. Raises UsageError for a file of another kind, and where
    it does not fit the model.
    """
    path = user_path(path)
    metadata = read_metadata(path, CONVERTED)
    loaded = original(metadata, path, model, offline)
    _install_norms(loaded.module, metadata, path)
    load_exactly(loaded.module, safetensors.torch.load_file(path), loaded.name, path)
    if model is None or device is not None:
        loaded.module.to(resolve_device(device))
    return dataclasses.replace(
        loaded, weights=path.name, fingerprint=fingerprint(loaded.module), source=path.name
    )


def _install_norms(module: nn.Module, metadata: Mapping[str, Any], path: Path) -> None:
    """Norms of the zoo, with any values, where the file has them."""
    layers, norm = metadata["layers"], metadata.get("norm")
    if not isinstance(layers, dict) or norm not in curve_norms():
        raise UsageError(f"{path} is damaged: its layers are no mapping, or its norm is unknown")
    channels = {layer.name: layer.channels for layer in list_norm_layers(module)}
    if missing := [name for name in layers if name not in channels]:
        raise UsageError(
            f"{path} does not fit this model: it has no normalization layer "
            f"{', '.join(missing[:3])} (of a class of your own: probe.register_norm, as before)"
        )
    family = fitted_family(norm, "layer")
    ones = {
        name: StandIn(name, family, 1.0, 0.0, np.ones(channels[name]), np.zeros(channels[name]))
        for name in layers
    }
    patterns = ",".join(map(glob.escape, ones))
    swap(module, norm, layers=patterns, init="fitted", stand_ins=ones)
