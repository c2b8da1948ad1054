"""From what a user gives (names, paths, modules, iterables of batches) to a module and a stream of
batches for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from probe.data import (
    ImageSource,
    ImageStream,
    image_stream_of,
    is_stream_name,
    open_image_stream,
    open_images,
)
from probe.errors import UsageError
from probe.jobs.image_batches import (
    Inputs,
    Mask,
    Stream,
    image_stream,
    valid_positions,
)
from probe.layer_names import Patterns, chooses_all
from probe.models.loading.load import (
    AS_GIVEN,
    Model,
    load_model,
    resolve_device,
    resolve_dtype,
    split_name,
)
from probe.models.loading.weights import fingerprint
from probe.models.reading.layers import list_norm_layers, unwrapped
from probe.records import GROUPS

# where the transform of a model comes from that has none of its own
TRANSFORM_FROM = {
    "file": "its function may return (module, transform)",
    "hf": "its folder may hold a preprocessor_config.json",
}


def open_model(model: str | Model | nn.Module, **options: Any) -> Model:
    """A loaded model, a name to load (options: those of load_model), or any module, which is used
    as it is, mode included.
    """
    if isinstance(model, Model):
        return model
    if isinstance(model, nn.Module):
        return _plain_model(unwrapped(model), options.get("device"), options.get("dtype"))
    return load_model(model, **options)


def check_layers(
    model: str | Model | nn.Module, layers: Patterns, weights: Any, **options: Any
) -> None:
    """Raises UsageError for layers that a named model has not, before its weights are downloaded:
    the architecture alone is built for that. Where all layers are wanted, nothing is.
    """
    if isinstance(model, str) and weights == "pretrained" and not chooses_all(layers):
        # no download, and a factory may be costly
        if split_name(model)[0] in ("file", "bundled", "trained"):
            return
        bare = load_model(model, weights="random", device="cpu", **options)
        list_norm_layers(bare.module, layers)


def _plain_model(module: nn.Module, device: str | None, dtype: str | None) -> Model:
    """Any module as a Model: no transform of its own, prefix tokens as timm spells them; moved only
    where asked to.
    """
    if device is not None:
        module = module.to(resolve_device(device))
    if dtype is not None:
        module = module.to(resolve_dtype(dtype))
    prefix = getattr(module, "num_prefix_tokens", 0)
    return Model(
        module=module,
        name=type(module).__name__,
        origin="module",
        weights=AS_GIVEN,
        transform=None,
        input_size=(3, 0, 0),
        prefix_tokens=prefix if isinstance(prefix, int) else 0,
        fingerprint=fingerprint(module),
    )


def describe(model: Model) -> dict[str, Any]:
    """The model as the manifest tells it."""
    parameters = list(model.module.parameters())
    return {
        "name": shown_name(model),
        "origin": model.origin,
        "weights": model.weights,
        "source": model.source,
        "fingerprint": model.fingerprint,
        "input_size": list(model.input_size),
        "prefix_tokens": model.prefix_tokens,
        "parameters": sum(p.numel() for p in parameters),
        "dtype": str(parameters[0].dtype).removeprefix("torch.") if parameters else None,
        "device": str(parameters[0].device) if parameters else None,
        "training": any(child.training for child in model.module.modules()),
        "transform": str(model.transform),
    }


def shown_name(model: Model) -> str:
    """As load_model takes it; a plain module by its class."""
    return model.name if model.origin == "module" else model.full_name


def is_images(data: Any) -> bool:
    """Does `data` name images (None, a path, a list of paths) rather than hold batches?"""
    if data is None or isinstance(data, str | os.PathLike | ImageSource):
        return True
    return (
        isinstance(data, list | tuple)
        and bool(data)
        and all(isinstance(item, str | os.PathLike) for item in data)
    )


def check_images(num_images: int | None) -> None:
    """Raises UsageError for a number of images below 1."""
    if num_images is not None and num_images < 1:
        raise UsageError(f"--num-images {num_images}: must be at least 1")


def open_stream(
    model: Model,
    data: Any,
    *,
    num_images: int | None,
    batch_size: int,
    workers: int,
    seed: int,
    mask: Mask | None,
    transform: Callable[[Any], Tensor] | None,
    loader_timeout: float | None = None,
) -> Stream:
    """The batches of `data` for `model`. Raises UsageError where they cannot be made (no images, no
    transform).

    num_images: of image files so many are chosen by the seed; of a stream of images the first so
    many are read, of batches as many (to the end of a batch); None: all.
    loader_timeout: seconds that the worker processes may take for a batch.
    """
    _check_timeout(loader_timeout, workers)
    if batch_size < 1:
        raise UsageError(f"--batch-size {batch_size}: must be at least 1")
    images: ImageSource | ImageStream | None
    images = open_image_stream(data) if is_stream_name(data) else image_stream_of(data)
    if images is not None or is_images(data):
        transform = transform or model.transform
        if transform is None:
            raise UsageError(
                f"{shown_name(model)} has no transform for image files: "
                f"{TRANSFORM_FROM.get(model.origin, 'a plain module needs transform=')}; or give, "
                "in Python, an iterable of batches as data"
            )
        if images is not None and workers:
            raise UsageError(f"--workers {workers}: a stream is read by this process alone; give 0")
        if images is None:
            images = data if isinstance(data, ImageSource) else open_images(data, num_images, seed)
        return image_stream(
            model, images, transform, num_images, batch_size, workers, mask, loader_timeout
        )
    if not isinstance(data, Iterable):
        raise UsageError(
            f"data is a {type(data).__name__}; accepted: a folder, files, or an iterable of batches"
        )
    return _batch_stream(
        data.split(batch_size) if isinstance(data, Tensor) else data, num_images, mask
    )


def _check_timeout(seconds: float | None, workers: int) -> None:
    if seconds is None:
        return
    if seconds <= 0:
        raise UsageError(f"--loader-timeout {seconds:g}: must be more than 0 seconds")
    if not workers:
        raise UsageError(
            f"--loader-timeout {seconds:g}: is for the processes of --workers N, and there are none"
        )


def _batch_stream(data: Iterable[Any], num_images: int | None, mask: Mask | None) -> Stream:
    """Batches as they come; images are counted, having no names."""

    def batches() -> Iterator[Inputs]:
        start = 0
        for batch in data:
            args, kwargs = _arguments(batch)
            images = np.arange(start, start + _batch_length(args, kwargs))
            if not len(images):  # as a loader may end with; most models take no empty batch
                continue
            start += len(images)
            yield Inputs(args, kwargs, images, images % GROUPS, valid_positions(mask, batch))
            if num_images is not None and start >= num_images:
                return

    description = {"kind": "batches", "location": type(data).__name__, "identity": None}
    return Stream(batches(), _length(data, num_images), [], description)


def _length(data: Iterable[Any], num_images: int | None) -> int | None:
    """Number of images where a list of tensors tells it; knowing it saves copying rows that the
    draw would drop again.
    """
    if (
        num_images is not None
        or not isinstance(data, list | tuple)
        or not all(isinstance(batch, Tensor) for batch in data)
    ):
        return None
    return sum(len(batch) for batch in data)


def _arguments(batch: Any) -> tuple[tuple, dict[str, Any]]:
    """What the module is called with: a tensor, the first item of a tuple (of a detection loader:
    a list of images), or a mapping as keyword arguments.
    """
    if isinstance(batch, Tensor):
        return (batch,), {}
    if isinstance(batch, Mapping):
        return (), dict(batch)
    if isinstance(batch, tuple | list) and batch and _is_input(batch[0]):
        return (batch[0],), {}
    raise UsageError(
        f"a batch is a {type(batch).__name__}; accepted: a tensor, a tuple whose first item is "
        "the input tensor, or a mapping"
    )


def _is_input(item: Any) -> bool:
    images = item if isinstance(item, list | tuple) and item else [item]
    return all(isinstance(image, Tensor) for image in images)


def _batch_length(args: tuple, kwargs: dict[str, Any]) -> int:
    if args and isinstance(args[0], list | tuple):
        return len(args[0])
    first = next(
        (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.ndim),
        None,
    )
    if first is None:
        raise UsageError("a batch holds no tensor with a batch axis")
    return len(first)
