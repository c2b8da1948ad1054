"""A converted model as one safetensors file.

Metadata beside that of every model file (probe.jobs.model_file), format `probe-convert`: weights,
source and fingerprint of the original, norm, scope, curves, dtype; layers (module path -> family of
its curve), left_out (layer -> why it was kept), measured.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import safetensors.torch
from torch import nn

from probe.jobs.model_file import constructor_options, model_bytes, original, read_metadata
from probe.models.loading.converted import CONVERTED, install_norms
from probe.models.loading.load import Model, resolve_device
from probe.models.loading.origins.common import load_exactly
from probe.models.loading.weights import fingerprint
from probe.paths import user_path


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
    install_norms(loaded.module, metadata, path)
    load_exactly(loaded.module, safetensors.torch.load_file(path), loaded.name, path)
    if model is None or device is not None:
        loaded.module.to(resolve_device(device))
    return dataclasses.replace(
        loaded, weights=path.name, fingerprint=fingerprint(loaded.module), source=path.name
    )
