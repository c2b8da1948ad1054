"""Networks of torchvision, `NAME` or `NAME.WEIGHTS` (resnet50.IMAGENET1K_V1; else its default
weights): classification, detection, segmentation, video, optical flow, and the quantizable ones in
their floating-point form.

https://docs.pytorch.org/vision/stable/models.html
"""

from __future__ import annotations

import inspect
import warnings
from functools import partial
from typing import Any

from torch import Tensor, nn

from probe.errors import unknown
from probe.models.loading.hub import url_file
from probe.models.loading.origins.common import (
    Built,
    Request,
    constructed,
    load_exactly,
    read_state,
    size_after,
)
from probe.models.loading.origins.names import unknown_model
from probe.models.loading.origins.torchvision_images import photographs_for
from probe.models.loading.weights import seeded

COUNTER = "num_batches_tracked"  # what a BatchNorm has and a frozen one has not


def build_torchvision(request: Request) -> Built:
    """Raises UsageError for an unknown name or a checkpoint that does not fit, ProbeError without
    network.
    """
    from torchvision.models import VisionTransformer

    name, weights = _resolve(request.name)
    create = partial(_create, name, request)
    if request.weights == "random":
        module, source = create(), f"seed {request.seed}"
    elif request.path is not None:
        state, source = read_state(request.path)
        module = _as_frozen(create(**_classes(create().state_dict(), state)), state)
        load_exactly(module, state, request.name, request.path)
    else:
        url_file(weights.url, request.offline)  # from here on torchvision finds it in the cache
        module, source = create(weights=weights), weights.url
    size = request.options.get("image_size")
    preset = weights.transforms(crop_size=size, resize_size=size) if size else weights.transforms()
    transform, feed = photographs_for(preset, name)
    prefix_tokens = int(isinstance(module, VisionTransformer))
    return Built(module, transform, size_after(transform), prefix_tokens, source, feed)


def _resolve(given: str) -> tuple[str, Any]:
    """Name and weights entry (address, transform) of `NAME` or `NAME.WEIGHTS`.

    The entries of quantizable networks are of integer weights and name the floating-point entry
    that they came from, which is the one used.
    """
    from torchvision.models import get_model_weights, list_models

    name, _, tag = given.partition(".")
    name = name.lower()
    if name not in list_models():
        raise unknown_model(given, "torchvision")
    entries = get_model_weights(name).__members__
    if tag and tag not in entries:
        raise unknown(f"weights tag of torchvision's {name}", tag, entries)
    entry = entries[tag or "DEFAULT"]
    return name, entry.meta.get("unquantized", entry)


def _create(name: str, request: Request, weights: Any = None, **more: Any) -> nn.Module:
    from torchvision.models import get_model, get_model_builder

    options = {**request.options, **more}
    if "weights_backbone" in inspect.signature(get_model_builder(name)).parameters:
        options.setdefault("weights_backbone", None)  # its default is a download
    with warnings.catch_warnings(), seeded(request.seed):
        # two networks announce that their random initialization will change
        warnings.simplefilter("ignore", FutureWarning)
        return constructed(request.name, get_model, name, weights=weights, **options)


def _classes(expected: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, int]:
    """The option `num_classes` where the file differs in the first dimension of its last layer
    alone, else nothing.
    """
    other = [n for n, value in expected.items() if n in state and state[n].shape != value.shape]
    rows = {state[n].shape[:1] for n in other}
    same_columns = all(state[n].shape[1:] == expected[n].shape[1:] for n in other)
    return (
        {"num_classes": int(rows.pop()[0])}
        if len(rows) == 1 and same_columns and rows != {()}
        else {}
    )


def _as_frozen(module: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """The network with those BatchNorms frozen that are frozen in the file, which then lacks their
    counter. torchvision freezes them in pretrained detection networks only.
    """
    from torchvision.ops import FrozenBatchNorm2d

    for path, child in list(module.named_modules()):
        frozen = f"{path}.running_mean" in state and f"{path}.{COUNTER}" not in state
        if frozen and isinstance(child, nn.BatchNorm2d):
            owner, _, name = path.rpartition(".")
            setattr(
                module.get_submodule(owner), name, FrozenBatchNorm2d(child.num_features, child.eps)
            )
    return module


__all__ = ["build_torchvision"]
