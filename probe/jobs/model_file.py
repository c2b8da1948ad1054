"""A changed model as one safetensors file: the whole state dict, and in the metadata what it takes
to build the model again.

Metadata (https://huggingface.co/docs/safetensors/index#format): values are texts, all but plain
texts JSON. Every file has format, version, model, origin and options of the constructor; what else
it holds is told where the files are made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from probe.errors import UsageError, first_line
from probe.formatting import json_bytes
from probe.jobs.inputs import open_model
from probe.models.loading.load import Model, is_registered, load_model
from probe.store.alphas import sorted_header
from probe.store.disk import replace_file


@dataclass(frozen=True)
class Format:
    """A kind of model file: its name in the metadata, the version this code writes, how people call
    it, what is JSON in it.
    """

    name: str
    version: int
    called: str  # "converted"
    json: Sequence[str]


def write_model(module: nn.Module, kind: Format, metadata: Mapping[str, Any], path: Path) -> Path:
    """Write the state dict of `module`; same content, same bytes."""
    known = {"format": kind.name, "version": str(kind.version), **metadata}
    texts = {
        key: value if isinstance(value, str) else json_bytes(value).decode().strip()
        for key, value in known.items()
    }
    state = sorted(module.state_dict().items())
    tensors = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in state
        if isinstance(value, Tensor)
    }
    return replace_file(path, sorted_header(safetensors.torch.save(tensors, metadata=texts)))


def read_metadata(path: Path, kind: Format) -> dict[str, Any]:
    """The metadata of a file of this kind, its JSON read. Raises UsageError for any other file."""
    try:
        with safetensors.safe_open(path, "np") as file:
            texts = file.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise UsageError(
            f"{path} cannot be read as a {kind.called} model ({first_line(error)})"
        ) from None
    if texts.get("format") != kind.name:
        raise UsageError(
            f"{path} is no {kind.called} model: its format is {texts.get('format')!r}, not "
            f"{kind.name!r}"
        )
    if int(texts["version"]) > kind.version:
        raise UsageError(
            f"{path} has version {texts['version']}; this version reads up to {kind.version}: "
            "update probe-norms"
        )
    return {**texts, **{key: json.loads(texts[key]) for key in kind.json}}


def original(
    known: Mapping[str, Any], path: Path, model: Model | nn.Module | None, offline: bool
) -> Model:
    """The architecture before the change: the given model, or one built by its name, on the host
    and without a download.
    """
    if model is not None:
        return open_model(model)
    if known["origin"] == "module":
        raise UsageError(
            f"{path} is of a module {known['model']}, not of a named model: give one as model="
        )
    if not is_registered(known["model"]):
        raise UsageError(
            f"{path} is of {known['model']}, which is not loaded on the word of a file: load it "
            "and give it as model="
        )
    return load_model(
        known["model"],
        weights="random",
        device="cpu",
        dtype=known.get("dtype"),
        offline=offline,
        **known["options"],
    )


def constructor_options(model: Model) -> dict[str, Any]:
    """What the constructor must be told so that the shapes fit: the number of classes, which a
    checkpoint may have changed.
    """
    classes = getattr(model.module, "num_classes", None)
    if model.origin == "torchvision":
        heads = [
            child.out_features for child in model.module.modules() if isinstance(child, nn.Linear)
        ]
        classes = heads[-1] if heads else None
    return (
        {"num_classes": classes}
        if isinstance(classes, int) and model.origin in ("timm", "torchvision")
        else {}
    )
