"""The network of a tracking with the weights of one checkpoint after another.

A file that `train` wrote says itself of which network it is. Of any other the user names the model,
and the norm that was put in place of its own: it is then built by its name, its norms are replaced,
and the weights must fit exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from probe.errors import UsageError
from probe.jobs.inputs import open_model
from probe.models.loading.load import Model, load_model, resolve_device
from probe.models.loading.origins.common import load_exactly, read_state
from probe.models.loading.trained import is_trained_file
from probe.models.loading.weights import fingerprint
from probe.models.reading.layers import unwrapped
from probe.models.replacing.swap import swap


@dataclass(frozen=True)
class Architecture:
    """What it takes to build a network without its weights, as the user says it."""

    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)  # of the constructor
    norm: str | None = None  # of the zoo, in place of the model's own
    norm_layers: str = "*"
    norm_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Loading:
    """Where and how the networks run."""

    device: str | None = None
    dtype: str | None = None
    seed: int = 0
    offline: bool = False


def network_at(path: Path, wanted: Architecture, loading: Loading) -> Model:
    """The network with the weights of a checkpoint, in evaluation mode. Raises UsageError where
    they do not fit, and where neither the user nor the file says the model.
    """
    options: dict[str, Any] = dict(vars(loading))
    if wanted.model is None:
        if not is_trained_file(path):
            raise UsageError(f"checkpoint {path} does not say its model: give it by --model")
        if wanted.norm is not None:
            raise UsageError(
                f"--norm {wanted.norm} without --model: checkpoints that say their model say their "
                "norm, too; leave --norm out, or give --model"
            )
        return load_model(str(path), **options)
    if wanted.norm is None and not wanted.options:
        return load_model(wanted.model, weights=path, **options)
    return _rebuilt(wanted, path, options)


def _rebuilt(built: Architecture, path: Path, options: Mapping[str, Any]) -> Model:
    """Built with random weights, its norms replaced, then filled from the file."""
    state, source = read_state(path)
    network = _without_weights(built, state, options)
    load_exactly(network.module, state, network.name, path)
    network.module.to(resolve_device(options["device"]))
    note = f"; norms replaced by {built.norm}" if built.norm else ""
    return replace(
        network,
        weights=path.name,
        source=f"{source}{note}",
        fingerprint=fingerprint(network.module),
    )


def _without_weights(
    built: Architecture, state: Mapping[str, Tensor], options: Mapping[str, Any]
) -> Model:
    """The network before its weights; its number of classes is that of the file."""

    def make(**more: Any) -> Model:
        on_host = {**options, "device": "cpu", **built.options, **more}
        network = load_model(str(built.model), weights="random", **on_host)
        if built.norm is not None:
            swap(network.module, built.norm, layers=built.norm_layers, **built.norm_options)
        return network

    network = make()
    classes = _other_classes(network.module.state_dict(), state)
    if classes and network.origin in ("timm", "torchvision") and "num_classes" not in built.options:
        return make(num_classes=classes)
    return network


def _other_classes(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> int | None:
    """The number of classes of the file, where nothing else has another shape than expected."""
    other = [n for n, value in expected.items() if n in state and state[n].shape != value.shape]
    rows = {state[n].shape[0] for n in other if state[n].ndim}
    same_columns = all(state[n].shape[1:] == expected[n].shape[1:] for n in other)
    return rows.pop() if len(rows) == 1 and same_columns else None


@contextmanager
def borrowed(model: Model | nn.Module) -> Iterator[Callable[[Path], Model]]:
    """A network that the user made, filled with one checkpoint after another; after the block it
    has its own weights and modes again.

        with borrowed(module) as network:
            network(Path("epoch_003.safetensors"))  # a Model in evaluation mode
    """
    plain = open_model(model if isinstance(model, Model) else unwrapped(model))
    module = plain.module
    before = {name: value.detach().clone() for name, value in _tensors(module).items()}
    modes = [(child, child.training) for child in module.modules()]

    def filled(path: Path) -> Model:
        state, source = read_state(path)
        load_exactly(module, state, plain.name, path)
        return replace(plain, weights=path.name, source=source, fingerprint=fingerprint(module))

    module.eval()
    try:
        yield filled
    finally:
        module.load_state_dict({**module.state_dict(), **before})
        for child, training in modes:
            child.training = training


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    state = module.state_dict()
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


__all__ = ["Architecture", "Loading", "borrowed", "network_at"]
