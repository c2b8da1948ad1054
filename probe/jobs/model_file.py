"""A changed model as one safetensors file: the whole state dict, and in the metadata what it takes
to build the model again.

Metadata (https://huggingface.co/docs/safetensors/index#format): values are texts, all but plain
texts JSON. Every file has format, version, model, origin and options of the constructor; what else
it holds is told where the files are made.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from probe.errors import UsageError
from probe.formatting import json_bytes
from probe.jobs.inputs import open_model
from probe.models.loading.converted import trusted_options
from probe.models.loading.file_metadata import Format, read_metadata
from probe.models.loading.load import Model, load_model
from probe.models.loading.origins.names import is_architecture
from probe.store.alphas import sorted_header
from probe.store.outputs import output_file


def model_file(
    path: str | os.PathLike[str], overwrite: bool = False, beside: Sequence[str] = ()
) -> Path:
    """The model file to write; `beside`: endings of what is written with it. Raises UsageError."""
    return output_file(
        path,
        "model.safetensors",
        endings=(".safetensors",),
        beside=beside,
        overwrite=overwrite,
    )


def model_bytes(module: nn.Module, kind: Format, metadata: Mapping[str, Any]) -> bytes:
    """The content of a file with the state dict of `module`; same content, same bytes."""
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
    return sorted_header(safetensors.torch.save(tensors, metadata=texts))


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
    if not is_architecture(known["model"]):
        raise UsageError(
            f"{path} names a model that is no architecture of timm, torchvision or probe: load it "
            "yourself and give it as model="
        )
    return load_model(
        known["model"],
        weights="random",
        device="cpu",
        dtype=known.get("dtype"),
        offline=offline,
        **trusted_options(known["options"], path),
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


__all__ = [
    "Format",
    "constructor_options",
    "model_bytes",
    "model_file",
    "original",
    "read_metadata",
]
