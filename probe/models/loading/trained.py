"""Networks that `train` wrote: a safetensors file that says in its metadata which architecture it
is of and which normalizers take the place of its own, so that `load_model` builds it again.

Metadata, format `probe-train`: model, origin, options (of the constructor), norm, norm_options,
layers (module paths of the replaced ones), head (path and classes of the last layer), image (size,
mean, std, interpolation, crop_pct), and what people want to know.

Everything is checked before it is used; a file can name networks and normalizers of this machine,
and run nothing.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import nn

from probe.errors import UsageError, unknown
from probe.models.loading.converted import CONVERTED, build_converted
from probe.models.loading.file_metadata import Format, metadata_of, read_metadata
from probe.models.loading.origins.common import Built, Request, load_exactly
from probe.models.loading.origins.names import is_architecture
from probe.models.loading.weights import SAFETENSORS
from probe.models.reading.layers import list_norm_layers
from probe.models.replacing.swap import swap
from probe.norms.registry import NORMS, norm_options

TRAINED = Format(
    "probe-train", 1, "trained", ("options", "norm_options", "layers", "head", "image", "scores")
)
# options of constructors whose text is a choice of the constructor's own, no place to read from
TEXTS = ("global_pool", "pos_embed", "class_token", "pool_type", "norm", "norm_layer", "act_layer")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def is_trained_file(path: Path) -> bool:
    """Was this file written by `train`?"""
    return format_of(path) == TRAINED.name


def is_converted_file(path: Path) -> bool:
    """Was this file written by `convert`?"""
    return format_of(path) == CONVERTED.name


def format_of(path: Path) -> str | None:
    """What a safetensors file says it is; None for another file, or one that says nothing."""
    if path.suffix != SAFETENSORS:
        return None
    try:
        return metadata_of(path).get("format")
    except (OSError, safetensors.SafetensorError):  # whoever reads its weights says what is wrong
        return None


def builder_of(path: Path) -> Callable[..., Built] | None:
    """What builds the network of a file that `train` or `convert` wrote; None for another file."""
    return {TRAINED.name: build_trained, CONVERTED.name: build_converted}.get(format_of(path) or "")


def trained_model(path: Path) -> str:
    """The name of the network that a trained or converted file is of. Raises UsageError for another
    file, and where the name could run code.
    """
    if not path.is_file():
        raise UsageError(f"model {str(path)!r} is not a file")
    known = read_metadata(path, CONVERTED if is_converted_file(path) else TRAINED)
    name = known["model"]
    if known["origin"] == "module":
        raise UsageError(
            f"{path} is of a module {name}, not of a named model: load its tensors into that module"
        )
    if not is_architecture(name):
        raise UsageError(
            f"{path} names a model that is no architecture of timm, torchvision or probe: give "
            f"that model by its name, with --weights {path}"
        )
    return str(name)


def build_trained(build: Callable[[Request], Built], request: Request, name: str) -> Built:
    """The network of the file in a request: architecture, normalizers, head, weights, and the
    images as it was trained on. Raises UsageError where the file is of another network than `name`.
    """
    path = request.path
    assert path is not None
    known = _checked(path)
    if known["model"] != name:
        raise UsageError(f"{path} is of model {known['model']!r}, not {name!r}")
    options = {**_options(known["options"]), **request.options}
    built = build(replace(request, weights="random", path=None, options=options))
    _install_head(built.module, known["head"], path)
    _install_norms(built.module, known, path)
    load_exactly(built.module, safetensors.torch.load_file(path), name, path)
    return replace(built, source=path.name, **_images(known["image"], path))


def _checked(path: Path) -> dict[str, Any]:
    """The metadata. Raises UsageError for a damaged one."""
    known = read_metadata(path, TRAINED)
    _check_constructor(known["options"], path)
    if known.get("norm"):
        _check_norm(known["norm"], known["norm_options"], path)
    layers = known["layers"]
    if not isinstance(layers, list) or not all(isinstance(name, str) for name in layers):
        raise UsageError(f"{path} is damaged: its layers are no list of names")
    return known


def _images(image: Any, path: Path) -> dict[str, Any]:
    """Transform and size of the images at evaluation."""
    from timm.data.transforms_factory import create_transform

    try:
        height, width = map(int, image["size"])
        transform = create_transform(
            (height, width),
            is_training=False,
            interpolation=str(image["interpolation"]),
            mean=tuple(map(float, image["mean"])),
            std=tuple(map(float, image["std"])),
            crop_pct=float(image["crop_pct"]),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UsageError(f"{path} is damaged: its image settings cannot be used") from error
    return {"transform": transform, "input_size": (3, height, width)}


def replace_head(module: nn.Module, name: str, classes: int) -> None:
    """A fresh linear layer with so many outputs in place of the one at `name`."""
    old = module.get_submodule(name)
    assert isinstance(old, nn.Linear)
    new = nn.Linear(old.in_features, classes, bias=old.bias is not None)
    parent, _, attribute = name.rpartition(".")
    setattr(module.get_submodule(parent), attribute, new)
    if isinstance(getattr(module, "num_classes", None), int):
        module.num_classes = classes  # type: ignore[assignment]


def _install_head(module: nn.Module, head: Any, path: Path) -> None:
    """The last layer with the classes of the file, where the network has another number."""
    if not head:
        return
    try:
        name, classes = head
        old = module.get_submodule(name)
        fits = isinstance(old, nn.Linear) and type(classes) is int and 0 < classes <= 1_000_000
    except (AttributeError, TypeError, ValueError):
        fits = False
    if not fits:
        raise UsageError(f"{path} does not fit this model: it has no such last layer")
    if old.out_features != classes:
        replace_head(module, name, classes)


def _install_norms(module: nn.Module, known: Mapping[str, Any], path: Path) -> None:
    """The normalizers of the file in place of the network's own, with any values. Raises UsageError
    where the network has no such layers.
    """
    if not known.get("norm"):
        return
    names = {layer.name for layer in list_norm_layers(module)}
    if missing := [name for name in known["layers"] if name not in names]:
        raise UsageError(
            f"{path} does not fit this model: it has no normalization layer "
            f"{', '.join(missing[:3])}"
        )
    patterns = ",".join(glob.escape(name) for name in known["layers"])
    options = _options(known["norm_options"])
    swap(module, known["norm"], layers=patterns, init="default", **options)


def _check_constructor(options: Any, path: Path) -> None:
    """Numbers, switches and listed words only: a path among the options could make a constructor
    read a file of the file's choice.
    """
    if not isinstance(options, Mapping):
        raise UsageError(f"{path} is damaged: its options are no mapping")
    for name, value in options.items():
        if name == "norm_options" and "norm" in options:
            _check_norm(options["norm"], value, path)
            continue
        word = isinstance(value, str) and name in TEXTS and _WORD.fullmatch(value) is not None
        if not _WORD.fullmatch(name) or not (word or value is None or _is_number(value)):
            raise UsageError(
                f"{path} asks for an option of the model that files may not set: {name[:40]!r}; "
                "build the network yourself and load the weights into it"
            )


def _check_norm(norm: Any, options: Any, path: Path) -> None:
    if norm not in NORMS:
        raise unknown(f"norm of {path}", str(norm)[:40], NORMS)
    accepted = set(norm_options(norm) or ()) - {"device", "dtype"}
    if not isinstance(options, Mapping) or not all(
        name in accepted and (_is_number(value) or (isinstance(value, str) and len(value) < 20))
        for name, value in options.items()
    ):
        raise UsageError(f"{path} is damaged: its norm_options are none of {norm}")


def _is_number(value: Any) -> bool:
    """A number, a switch, or a short list of such."""
    if isinstance(value, list):
        return len(value) <= 8 and all(isinstance(each, int | float) for each in value)
    return isinstance(value, int | float)


def _options(value: Any) -> Any:
    """As the constructors take them: JSON knows no tuples."""
    if isinstance(value, Mapping):
        return {name: _options(each) for name, each in value.items()}
    return tuple(value) if isinstance(value, list) else value
