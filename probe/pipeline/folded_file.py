"""A folded model as one safetensors file: the whole state dict, and in the metadata what it takes to build the model again.

Metadata (https://huggingface.co/docs/safetensors/index#format; all values are texts, the last ones JSON): format `probe-fold`, version,
model, origin, weights, source and fingerprint of the original; options of the constructor, removed (paths of the layers that are gone),
biases (names of the parameters that were created), folded (layer, into and direction of each map that moved).
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from probe.errors import UsageError
from probe.models.fold import Fold, mark_folded
from probe.models.folding.install import Edits
from probe.models.load import Model, load_model, resolve_device
from probe.models.weights import fingerprint, mismatch
from probe.pipeline.converted_file import constructor_options
from probe.pipeline.inputs import open_model
from probe.store.alphas import sorted_header
from probe.store.disk import replace_file
from probe.store.plain import json_bytes

FORMAT = "probe-fold"
VERSION = 1
LISTS = ("options", "removed", "biases", "folded")


def save_folded(fold: Fold, path: str | os.PathLike[str], model: Model | None = None, *, overwrite: bool = False) -> Path:
    """Write the state dict of a folded module; with `model`, as load_model made it, `load_folded` can build it by its name.

    Raises UsageError for another ending than .safetensors and for an existing file without overwrite.
    """
    path = free_path(path, overwrite)
    known: dict[str, Any] = {"format": FORMAT, "version": str(VERSION), **_identity(fold, model)}
    known |= {"removed": fold.removed, "biases": fold.biases}
    moved = [outcome for outcome in fold.outcomes if outcome.status == "folded"]
    known["folded"] = [{"layer": one.layer, "into": one.into, "direction": one.direction} for one in moved]
    texts = {key: value if isinstance(value, str) else json_bytes(value).decode().strip() for key, value in known.items()}
    state = fold.module.state_dict()
    tensors = {
        name: value.detach().cpu().contiguous().clone() for name, value in sorted(state.items()) if isinstance(value, Tensor)
    }
    return replace_file(path, sorted_header(safetensors.torch.save(tensors, metadata=texts)))


def free_path(path: str | os.PathLike[str], overwrite: bool) -> Path:
    """The file to write. Raises UsageError where it has another ending, or exists and may not be replaced."""
    path = Path(path).expanduser()
    if path.suffix != ".safetensors":
        raise UsageError(f"--out {path}: must end in .safetensors")
    if path.is_dir():
        raise UsageError(f"--out {path} is a folder; give a file")
    if path.exists() and not overwrite:
        raise UsageError(f"--out {path} exists; give another file, or --overwrite")
    return path


def load_folded(
    path: str | os.PathLike[str], model: Model | nn.Module | None = None, *, device: str | None = None, offline: bool = False
) -> Model:
    """The folded model of a file that `fold` or `save_folded` wrote, in evaluation mode: architecture, missing layers, weights.

    model: an unfolded model of the same architecture, which is changed in place; None: it is built by its name, without a download.
    Raises UsageError for a file of another kind, and where it does not fit the model.
    """
    path = Path(path).expanduser()
    known = read_metadata(path)
    if model is None:
        if known["origin"] == "module":
            raise UsageError(f"{path} is of a module {known['model']}, not of a named model: give one as model=")
        loaded = load_model(known["model"], weights="random", device="cpu", offline=offline, **known["options"])
    else:
        loaded = open_model(model)
    _fill(loaded, known, path)
    if model is None or device is not None:
        loaded.module.to(resolve_device(device))
    loaded.module.eval()
    return dataclasses.replace(loaded, weights=path.name, fingerprint=fingerprint(loaded.module), source=path.name)


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a folded file, its JSON read. Raises UsageError for any other file."""
    try:
        with safetensors.safe_open(path, "np") as file:
            texts = file.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise UsageError(f"{path} cannot be read as a folded model ({str(error).splitlines()[0]})") from None
    if texts.get("format") != FORMAT:
        raise UsageError(f"{path} is no folded model: its format is {texts.get('format')!r}, not {FORMAT!r}")
    if int(texts["version"]) > VERSION:
        raise UsageError(f"{path} has version {texts['version']}; this version reads up to {VERSION}: update probe-norms")
    return {**texts, **{key: json.loads(texts[key]) for key in LISTS}}


def _identity(fold: Fold, model: Model | None) -> dict[str, Any]:
    if model is None:
        return {"model": type(fold.module).__name__, "origin": "module", "options": {}}
    name = model.name if model.origin == "module" else model.full_name
    own = {"model": name, "origin": model.origin, "weights": model.weights, "source": model.source}
    return {**own, "fingerprint": model.fingerprint, "options": constructor_options(model)}


def _fill(model: Model, known: dict[str, Any], path: Path) -> None:
    """Takes the missing layers away, makes the new biases, and loads the tensors, in the file's own dtypes.

    Raises UsageError where the file does not fit; the module then is as it was.
    """
    state = safetensors.torch.load_file(path)
    edits = Edits()
    try:
        for layer in known["removed"]:
            edits.take_away(model.module, layer)
        for name in known["biases"]:
            owner, _, bias = name.rpartition(".")
            like = next(iter(model.module.get_submodule(owner).parameters(recurse=False)))
            edits.set_parameter(model.module, owner, bias, torch.empty(state[name].shape), like)
        difference = mismatch(model.module.state_dict(), state)
    except (AttributeError, KeyError, StopIteration) as error:  # a path that this model does not have
        difference = f"no place for {error.args[0] if error.args else 'its layers'}"
    if difference:
        edits.undo()
        raise UsageError(f"{path} does not fit model {model.name!r}: {difference}")
    device = next((value.device for value in model.module.parameters()), torch.device("cpu"))
    model.module.load_state_dict({name: value.to(device) for name, value in state.items()}, assign=True)
    mark_folded(model.module, known["removed"])


__all__ = ["free_path", "load_folded", "read_metadata", "save_folded"]
