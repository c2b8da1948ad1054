"""The model that a run was captured from, opened again and recognized by its weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from probe.errors import UsageError
from probe.jobs.inputs import open_model
from probe.models.loading.load import AS_GIVEN, Model
from probe.models.loading.origins.names import is_architecture
from probe.models.reading.layers import list_norm_layers
from probe.store import Run


def run_model(
    run: Run,
    model: str | Model | nn.Module | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    device: str | None = None,
    offline: bool = False,
) -> Model:
    """The model of `run`: loaded by the name in its manifest, or `model`, which must hold the same
    weights.

    weights: the checkpoint file, for a run of a file that does not lie where it lay. Raises
    UsageError where the model cannot be known from the manifest, where the weights are others than
    those of the run, and where a layer of the run is read by no class that is registered now.
    """
    known: dict[str, Any] = run.manifest.get("model") or {}
    if model is None:
        if known.get("origin") == "module":
            raise UsageError(
                f"run {run.path} is of a module {known.get('name')}, not of a named model: give "
                "it, in Python, as model="
            )
        if not known.get("name"):
            raise UsageError(
                f"run {run.path} does not say its model: give it, in Python, as model="
            )
        if not is_architecture(known["name"]):
            raise UsageError(
                f"run {run.path} names a model that is no architecture of timm, torchvision or "
                "probe: give it by --model, in Python as model="
            )
        model = known["name"]
    if isinstance(model, str):
        seed = int((run.manifest.get("plan") or {}).get("seed") or 0)
        loaded = open_model(
            model,
            weights=_weights(run, known, weights),
            device=device,
            dtype=known.get("dtype"),
            seed=seed,
            offline=offline,
        )
    else:
        loaded = open_model(model, device=device)
    if loaded.fingerprint != known.get("fingerprint"):
        raise UsageError(
            f"the weights of {loaded.name} are not those of run {run.path}: fingerprint "
            f"{_short(loaded.fingerprint)}, the run's is "
            f"{_short(known.get('fingerprint'))}; give the model that was captured, or capture "
            "this one"
        )
    _check_layers(run, loaded)
    return loaded


def _check_layers(run: Run, loaded: Model) -> None:
    """A run may have been captured with norm classes that its user registered."""
    read = {layer.name for layer in list_norm_layers(loaded.module)}
    layers = (str(layer.get("module", layer["layer"])) for layer in run.manifest.get("layers", ()))
    if lost := [name for name in layers if name not in read]:
        registered = run.manifest.get("registered_norms") or {}
        classes = ", ".join(f"{name}={kind}" for name, kind in registered.items()) or "none"
        raise UsageError(
            f"layer {lost[0]} of run {run.path} is not read now: norm classes were registered when "
            f"it was captured ({classes}): give the same (--norm-type, probe.register_norm)"
        )


def _weights(
    run: Run, known: dict[str, Any], given: str | os.PathLike[str] | None
) -> str | os.PathLike[str]:
    """Pretrained, random or a file: as given, else as the manifest names it."""
    if given is not None:
        return given
    weights = str(known.get("weights") or "pretrained")
    if weights == AS_GIVEN:  # by the factory of a Python file
        return "pretrained"
    if weights not in ("pretrained", "random") and not Path(weights).is_file():
        raise UsageError(
            f"run {run.path} is of the weights file {weights}, which is not here: give it by "
            "--weights FILE"
        )
    return weights


def _short(fingerprint: str | None) -> str:
    return (fingerprint or "unknown")[:15]
