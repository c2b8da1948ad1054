"""From what a user gives (names, paths, modules, iterables of batches) to a module and a stream of
batches for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from probe.data import ImageSource, iterate, open_images
from probe.errors import UsageError
from probe.models.loading.load import Model, load_model, resolve_device, resolve_dtype
from probe.models.loading.weights import fingerprint
from probe.models.reading.layers import unwrapped
from probe.records import GROUPS

Mask = Callable[[Any], Any]


@dataclass(frozen=True)
class Inputs:
    """One batch on its way into the model."""

    args: tuple
    kwargs: dict[str, Any]
    images: NDArray[np.int64]  # (B,) image index
    groups: NDArray[np.int64]  # (B,) jackknife group
    valid: NDArray[np.bool_] | None = None  # (B, T)

    def __len__(self) -> int:
        return len(self.images)


@dataclass
class Stream:
    """Batches with what the manifest says about them; `skipped` fills up while the batches are
    read.
    """

    batches: Iterator[Inputs]
    images: int | None  # how many are planned, None if unknown
    ids: list[str]
    description: dict[str, Any]
    groups: list[int] | None = None  # jackknife group per image
    skipped: list[tuple[str, str]] = field(default_factory=list)


def open_model(model: str | Model | nn.Module, **options: Any) -> Model:
    """A loaded model, a name to load (options: those of load_model), or any module, which is used
    as it is, mode included.
    """
    if isinstance(model, Model):
        return model
    if isinstance(model, nn.Module):
        return _plain_model(unwrapped(model), options.get("device"), options.get("dtype"))
    return load_model(model, **options)


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
        weights="as given",
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
        "training": model.module.training,
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
) -> Stream:
    """The batches of `data` for `model`. Raises UsageError where they cannot be made (no images, no
    transform).

    num_images: of image files so many are chosen by the seed, of batches so many are read (to the
    end of a batch); None: all.
    """
    if batch_size < 1:
        raise UsageError(f"--batch-size {batch_size}: must be at least 1")
    if is_images(data):
        transform = transform or model.transform
        if transform is None:
            raise UsageError(
                "a plain module needs transform= to read image files; or give an iterable of "
                "batches as data"
            )
        source = data if isinstance(data, ImageSource) else open_images(data, num_images, seed)
        return _image_stream(model, source, transform, batch_size, workers, mask)
    if not isinstance(data, Iterable):
        raise UsageError(
            f"data is a {type(data).__name__}; accepted: a folder, files, or an iterable of batches"
        )
    return _batch_stream(
        data.split(batch_size) if isinstance(data, Tensor) else data, num_images, mask
    )


def _image_stream(
    model: Model,
    source: ImageSource,
    transform: Callable[[Any], Tensor],
    batch_size: int,
    workers: int,
    mask: Mask | None,
) -> Stream:
    """Batches of image files, in the parameters' dtype."""
    floating = next(
        (p.dtype for p in model.module.parameters() if p.is_floating_point()), torch.float32
    )
    described = {**source.description, "sources": len(set(source.sources))}
    stream = Stream(iter(()), len(source), list(source.ids), described, source.groups.tolist())

    def batches() -> Iterator[Inputs]:
        for batch in iterate(source, transform, batch_size, workers):
            stream.skipped += batch.skipped
            if len(batch):
                inputs = batch.inputs.to(floating)
                yield Inputs(
                    (inputs,), {}, batch.indices, source.groups[batch.indices], _valid(mask, inputs)
                )

    stream.batches = batches()
    return stream


def _batch_stream(data: Iterable[Any], num_images: int | None, mask: Mask | None) -> Stream:
    """Batches as they come; images are counted, having no names."""

    def batches() -> Iterator[Inputs]:
        start = 0
        for batch in data:
            args, kwargs = _arguments(batch)
            images = np.arange(start, start + _batch_length(args, kwargs))
            start += len(images)
            yield Inputs(args, kwargs, images, images % GROUPS, _valid(mask, batch))
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
    """What the module is called with: a tensor, the first item of a tuple, or a mapping as keyword
    arguments.
    """
    if isinstance(batch, Tensor):
        return (batch,), {}
    if isinstance(batch, Mapping):
        return (), dict(batch)
    if isinstance(batch, tuple | list) and batch and isinstance(batch[0], Tensor):
        return (batch[0],), {}
    raise UsageError(
        f"a batch is a {type(batch).__name__}; accepted: a tensor, a tuple whose first item is "
        "the input tensor, or a mapping"
    )


def _batch_length(args: tuple, kwargs: dict[str, Any]) -> int:
    first = next(
        (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor) and value.ndim),
        None,
    )
    if first is None:
        raise UsageError("a batch holds no tensor with a batch axis")
    return len(first)


def _valid(mask: Mask | None, batch: Any) -> NDArray[np.bool_] | None:
    if mask is None:
        return None
    valid = torch.as_tensor(mask(batch))
    if valid.ndim != 2:
        raise UsageError(
            f"mask gave a tensor of shape {tuple(valid.shape)}; accepted: boolean (B, T), True at "
            "valid positions"
        )
    return valid.to("cpu", torch.bool).numpy()
