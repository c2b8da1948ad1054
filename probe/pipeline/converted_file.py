"""A converted model as one safetensors file: the whole state dict, and in the metadata what it takes to build the model again.

Metadata (https://huggingface.co/docs/safetensors/index#format; all values are texts, the last ones JSON): format `probe-convert`,
version, model, origin, weights, source and fingerprint of the original, norm, scope, curves, dtype; layers (module path -> form of
its curve), left_out (layer -> why it was kept), options of the constructor, measured.
"""

from __future__ import annotations

import dataclasses
import glob
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
from torch import Tensor, nn

from probe.errors import UsageError
from probe.models.layers import list_norm_layers
from probe.models.load import Model, load_model, resolve_device
from probe.models.origins.common import load_exactly
from probe.models.replace import swap
from probe.models.replacement import form_of
from probe.models.weights import fingerprint
from probe.pipeline.inputs import open_model
from probe.records import StandIn
from probe.store.alphas import sorted_header
from probe.store.disk import replace_file
from probe.store.plain import json_bytes

FORMAT = "probe-convert"
VERSION = 1


def save_converted(model: Model, metadata: Mapping[str, Any], path: Path) -> Path:
    """Write the state dict of a converted model; `metadata` says how to build it (see the module)."""
    known = {"format": FORMAT, "version": str(VERSION), **metadata, "options": constructor_options(model)}
    texts = {key: value if isinstance(value, str) else json_bytes(value).decode().strip() for key, value in known.items()}
    state = model.module.state_dict()
    tensors = {
        name: value.detach().cpu().contiguous().clone() for name, value in sorted(state.items()) if isinstance(value, Tensor)
    }
    return replace_file(path, sorted_header(safetensors.torch.save(tensors, metadata=texts)))


def constructor_options(model: Model) -> dict[str, Any]:
    """What the constructor must be told so that the shapes fit: the number of classes, which a checkpoint may have changed."""
    classes = getattr(model.module, "num_classes", None)
    if model.origin == "torchvision":
        heads = [child.out_features for child in model.module.modules() if isinstance(child, nn.Linear)]
        classes = heads[-1] if heads else None
    return {"num_classes": classes} if isinstance(classes, int) and model.origin in ("timm", "torchvision") else {}


def load_converted(
    path: str | os.PathLike[str], model: Model | nn.Module | None = None, *, device: str | None = None, offline: bool = False
) -> Model:
    """The converted model of a file that `convert` wrote, in evaluation mode: architecture, replaced layers, weights.

    model: an unconverted model of the same architecture, which is converted in place; None: it is built by its name, without a
    download. Raises UsageError for a file of another kind, and where it does not fit the model.
    """
    path = Path(path).expanduser()
    known = read_metadata(path)
    if model is None:
        if known["origin"] == "module":
            raise UsageError(f"{path} is of a module {known['model']}, not of a named model: give one as model=")
        loaded = load_model(
            known["model"], weights="random", device="cpu", dtype=known["dtype"], offline=offline, **known["options"]
        )
    else:
        loaded = open_model(model)
    _place_layers(loaded.module, known, path)
    load_exactly(loaded.module, safetensors.torch.load_file(path), loaded.name, path)
    if model is None or device is not None:
        loaded.module.to(resolve_device(device))
    return dataclasses.replace(loaded, weights=path.name, fingerprint=fingerprint(loaded.module), source=path.name)


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a converted file, its JSON read. Raises UsageError for any other file."""
    try:
        with safetensors.safe_open(path, "np") as file:
            texts = file.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise UsageError(f"{path} cannot be read as a converted model ({str(error).splitlines()[0]})") from None
    if texts.get("format") != FORMAT:
        raise UsageError(f"{path} is no converted model: its format is {texts.get('format')!r}, not {FORMAT!r}")
    if int(texts["version"]) > VERSION:
        raise UsageError(f"{path} has version {texts['version']}; this version reads up to {VERSION}: update probe-norms")
    return {**texts, **{key: json.loads(texts[key]) for key in ("layers", "left_out", "options", "measured")}}


def _place_layers(module: nn.Module, known: Mapping[str, Any], path: Path) -> None:
    """Norms of the zoo, with any values, where the file has them."""
    channels = {layer.name: layer.channels for layer in list_norm_layers(module)}
    if missing := [name for name in known["layers"] if name not in channels]:
        raise UsageError(f"{path} does not fit this model: it has no normalization layer {', '.join(missing[:3])}")
    form = str(form_of(known["norm"]))
    some = {name: StandIn(name, form, 1.0, 0.0, np.ones(channels[name]), np.zeros(channels[name])) for name in known["layers"]}
    swap(module, known["norm"], layers=",".join(map(glob.escape, some)), init="fitted", stand_ins=some)
