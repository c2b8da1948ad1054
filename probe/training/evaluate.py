"""Loss, top-1 and top-5 of networks on images with classes: one table for several checkpoints.

Whether class 3 of the data is class 3 of the network is the known trap: folders named 0 .. 999
(ImageNet-V2) are numbers, which sorted as texts would be 0, 1, 10, 100; folders named by WordNet
(n01440764) are matched by name, so that part of the classes will do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from probe.errors import UsageError
from probe.jobs.inputs import open_model, shown_name
from probe.models.loading.feed import Feed
from probe.models.loading.load import Model, resolve_dtype
from probe.records import Progress, silent
from probe.training.images import VALIDATION, Labelled, open_labelled
from probe.training.network import logits_of
from probe.training.validation import Validation

COLUMNS = ("model", "weights", "loss", "top1", "top5", "images", "skipped", "images_per_second")
WORDNET = re.compile(r"n\d{8}")
Weights = str | os.PathLike[str]


def evaluate(
    model: str | Model | nn.Module | None = None,
    weights: Weights | Sequence[Weights] | None = None,
    *,
    data: str,
    num_images: int | None = None,
    batch_size: int = 64,
    workers: int = 0,
    seed: int = 0,
    device: str | None = None,
    dtype: str | None = None,
    autocast: str | None = None,
    offline: bool = False,
    progress: Progress = silent,
) -> pd.DataFrame:
    """One row per checkpoint: model, weights, loss, top1 and top5 (per cent; None under six
    classes), images, skipped (that could not be read), images_per_second.

    model: a name, a loaded one, or None where the weights are files that `train` wrote. weights:
    one or several, as load_model takes them. data: a folder with a sub-folder per class (or with
    such a folder as val/ or test/), a folder of Parquet files, or a timm dataset.

    Raises UsageError where the data has no classes, or others than the network.
    """
    images = open_labelled(validation_part(data), num_images, seed)
    given = weights if isinstance(weights, list | tuple) else [weights]
    options = {"device": device, "dtype": dtype, "offline": offline}
    rows = []
    for each in given:
        name, chosen = (str(each), None) if model is None and each is not None else (model, each)
        if name is None:
            raise UsageError("no network: give --model M, or --weights FILE that train wrote")
        loaded = _opened(name, chosen, options)
        rows.append(_row(loaded, images, batch_size, workers, autocast, progress))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def validation_part(data: str) -> str:
    """The folder itself, or the validation part in it."""
    folder = Path(data).expanduser()
    if not (folder / "train").is_dir():
        return str(data)
    part = next((split for split in VALIDATION if (folder / split).is_dir()), None)
    return str(folder / part) if part else str(data)


def _opened(name: Any, weights: Any, options: dict[str, Any]) -> Model:
    if isinstance(name, str):
        chosen = {} if weights is None else {"weights": weights}
        return open_model(name, **chosen, **options)
    if weights is not None:
        raise UsageError("weights go with a model by its name; this one is there already")
    return open_model(name, device=options["device"], dtype=options["dtype"])


def _row(
    model: Model,
    images: Labelled,
    batch_size: int,
    workers: int,
    autocast: str | None,
    progress: Any,
) -> dict[str, Any]:
    if model.transform is None or model.feed is Feed.LIST:
        raise UsageError(f"{shown_name(model)} does not classify image files: it has no transform")
    matched = matching(images, model)
    validation = Validation(
        matched, _in_dtype(model), batch_size, workers, autocast=_autocast(model, autocast)
    )
    scores = validation(model.module, progress, "evaluate")
    return {
        "model": shown_name(model),
        "weights": model.weights,
        "loss": scores.loss,
        "top1": scores.top1,
        "top5": scores.top5,
        "images": scores.images,
        "skipped": len(scores.skipped),
        "images_per_second": scores.images / scores.seconds,
    }


def _in_dtype(model: Model) -> Callable[[Any], torch.Tensor]:
    """The model's transform, in the dtype of its parameters."""
    kinds = (each.dtype for each in model.module.parameters() if each.is_floating_point())
    return _Transform(model.transform, next(kinds, torch.float32))


class _Transform:
    """Picklable, for loader workers."""

    def __init__(self, transform: Any, dtype: torch.dtype) -> None:
        self._transform, self._dtype = transform, dtype

    def __call__(self, image: Any) -> torch.Tensor:
        tensor: torch.Tensor = self._transform(image)
        return tensor.to(self._dtype)


def _autocast(model: Model, kind: str | None) -> Callable[[], Any]:
    if kind is None:
        return nullcontext
    device = next(model.module.parameters()).device.type
    return partial(torch.autocast, device, dtype=resolve_dtype(kind))


def matching(images: Labelled, model: Model) -> Labelled:
    """The images with the classes of the network. Raises UsageError where they cannot be told."""
    width = classes_of(model)
    names = images.names
    if names and all(WORDNET.fullmatch(name) for name in names) and width != len(names):
        return _by_wordnet(images, model, width)
    numbered = not names or all(name.isdecimal() for name in names)
    fits = len(names) == width or numbered
    if not fits or images.labels.max() >= width:
        known = f"{len(names)} classes ({', '.join(names[:3])}, ...)" if names else "classes"
        raise UsageError(
            f"the data has {known} up to number {images.labels.max()}, {shown_name(model)} has "
            f"{width}: they cannot be matched; folders named by class number or by WordNet id can"
        )
    return images


def classes_of(model: Model) -> int:
    """How many logits the network gives."""
    parameter = next(model.module.parameters())
    images = torch.zeros(1, *model.input_size, device=parameter.device, dtype=parameter.dtype)
    with torch.inference_mode():
        return logits_of(model.module.eval()(images)).shape[1]


def _by_wordnet(images: Labelled, model: Model, width: int) -> Labelled:
    """Folders named by WordNet, as timm knows the classes of ImageNet and its larger relatives."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(model.module) or ("imagenet-1k" if width == 1000 else None)
    known = ImageNetInfo(subset).label_names() if subset else []
    number = {name: place for place, name in enumerate(known)}
    lost = [name for name in images.names if name not in number]
    if lost or len(known) != width:
        raise UsageError(
            f"the data has {len(images.names)} WordNet classes, {shown_name(model)} has {width}: "
            f"they cannot be matched{f' (unknown: {lost[0]})' if lost and known else ''}"
        )
    table = np.array([number[name] for name in images.names])
    return replace(images, labels=table[images.labels])


__all__ = ["evaluate", "matching"]
