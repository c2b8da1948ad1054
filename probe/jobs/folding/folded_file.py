"""A folded model as one safetensors file.

Metadata beside that of every model file (probe.jobs.model_file), format `probe-fold`: weights,
source and fingerprint of the original; removed (paths of the layers that are gone), biases (names
of the parameters that were created), folded (layer, into and direction of each map that moved).
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from probe.errors import UsageError
from probe.jobs.model_file import (
    Format,
    constructor_options,
    model_bytes,
    model_file,
    original,
    read_metadata,
)
from probe.models.folding.edits import Edits
from probe.models.folding.fold import Fold, mark_folded
from probe.models.loading.load import Model, resolve_device
from probe.models.loading.weights import fingerprint, mismatch
from probe.paths import user_path
from probe.store.results import put

FOLDED = Format("probe-fold", 1, "folded", ("options", "removed", "biases", "folded"))


def save_folded(
    fold: Fold, path: str | os.PathLike[str], model: Model | None = None, *, overwrite: bool = False
) -> Path:
    """Write the state dict of a folded module; with `model`, as load_model made it, `load_folded`
    can build it by its name.

    Raises UsageError for another ending than .safetensors and for an existing file without
    overwrite.
    """
    path = model_file(path, overwrite)
    moved = [outcome for outcome in fold.outcomes if outcome.status == "folded"]
    known = {**_identity(fold, model), "removed": fold.removed, "biases": fold.biases}
    known["folded"] = [
        {"layer": one.layer, "into": one.into, "direction": one.direction} for one in moved
    ]
    return put(path, model_bytes(fold.module, FOLDED, known))


def load_folded(
    path: str | os.PathLike[str],
    model: Model | nn.Module | None = None,
    *,
    device: str | None = None,
    offline: bool = False,
) -> Model:
    """The folded model of a file that `fold` or `save_folded` wrote, in evaluation mode:
    architecture, missing layers, weights.

    model: an unfolded model of the same architecture, which is changed in place; None: it is built
    by its name, without a download.
    Raises UsageError for a file of another kind, and where it does not fit the model.
    """
    path = user_path(path)
    known = read_metadata(path, FOLDED)
    loaded = original(known, path, model, offline)
    _fill(loaded, known, path)
    if model is None or device is not None:
        loaded.module.to(resolve_device(device))
    loaded.module.eval()
    return dataclasses.replace(
        loaded, weights=path.name, fingerprint=fingerprint(loaded.module), source=path.name
    )


def _identity(fold: Fold, model: Model | None) -> dict[str, Any]:
    if model is None:
        return {"model": type(fold.module).__name__, "origin": "module", "options": {}}
    name = model.name if model.origin == "module" else model.full_name
    own = {"model": name, "origin": model.origin, "weights": model.weights, "source": model.source}
    return {**own, "fingerprint": model.fingerprint, "options": constructor_options(model)}


def _fill(model: Model, known: dict[str, Any], path: Path) -> None:
    """Takes the missing layers away, makes the new biases, and loads the tensors, in the file's own
    dtypes.

    Raises UsageError where the file does not fit; the module then is as it was.
    """
    state = safetensors.torch.load_file(path)
    edits = Edits()
    try:
        for layer in known["removed"]:
            edits.remove_norm(model.module, layer)
        for name in known["biases"]:
            owner, _, bias = name.rpartition(".")
            like = next(iter(model.module.get_submodule(owner).parameters(recurse=False)))
            edits.set_parameter(model.module, owner, bias, torch.empty(state[name].shape), like)
        difference = mismatch(model.module.state_dict(), state)
    except (AttributeError, KeyError, StopIteration) as error:
        # a path that this model does not have
        difference = f"no place for {error.args[0] if error.args else 'its layers'}"
    if difference:
        edits.undo()
        raise UsageError(f"{path} does not fit model {model.name!r}: {difference}")
    device = next((value.device for value in model.module.parameters()), torch.device("cpu"))
    model.module.load_state_dict(
        {name: value.to(device) for name, value in state.items()}, assign=True
    )
    mark_folded(model.module, known["removed"])


__all__ = ["load_folded", "read_metadata", "save_folded"]
