"""Networks that `convert` wrote: a safetensors file that says in its metadata which network it is
of and in place of which layers it has a norm of the zoo, so that `load_model` builds it again.

Older files call the family of a line `line` and that of every derf `erf`; loading needs neither.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from torch import nn

from probe.curves import StandIn
from probe.errors import UsageError
from probe.models.loading.file_metadata import Format, read_metadata
from probe.models.loading.origins.common import Built, Request, load_exactly
from probe.models.reading.layers import list_norm_layers
from probe.models.replacing.curve_norms import curve_norms, fitted_family
from probe.models.replacing.swap import swap

CONVERTED = Format("probe-convert", 1, "converted", ("layers", "left_out", "options", "measured"))
FILE_OPTIONS = ("num_classes",)


def build_converted(build: Callable[[Request], Built], request: Request, name: str) -> Built:
    """The network of the file in a request: architecture, replaced layers, weights. Raises
    UsageError where the file is of another network than `name`.
    """
    path = request.path
    assert path is not None
    metadata = read_metadata(path, CONVERTED)
    if metadata["model"] != name:
        raise UsageError(f"{path} is of model {metadata['model']!r}, not {name!r}")
    options = {**trusted_options(metadata["options"], path), **request.options}
    built = build(replace(request, weights="random", path=None, options=options))
    install_norms(built.module, metadata, path)
    load_exactly(built.module, safetensors.torch.load_file(path), name, path)
    return replace(built, source=path.name)


def install_norms(module: nn.Module, metadata: Mapping[str, Any], path: Path) -> None:
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


def trusted_options(options: Any, path: Path) -> dict[str, int]:
    """The options of a constructor that a file may give: those that `constructor_options` writes.

    Any other could make the constructor read a file of its choice, and run the code in it.
    """
    if not isinstance(options, Mapping):
        raise UsageError(f"{path} is damaged: its options are no mapping")
    for name, value in options.items():
        if name not in FILE_OPTIONS:
            raise UsageError(
                f"{path} asks for an option of the model that files may not set; accepted: "
                f"{', '.join(FILE_OPTIONS)}. Load the model yourself and give it as model="
            )
        if type(value) is not int or value < 1:
            raise UsageError(f"{path} is damaged: {name} is no whole number of at least 1")
    return dict(options)


__all__ = ["CONVERTED", "build_converted", "install_norms", "trusted_options"]
