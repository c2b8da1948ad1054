"""Classification networks of torchvision, `NAME` or `NAME.WEIGHTS` (resnet50.IMAGENET1K_V1; else
its default weights).

https://docs.pytorch.org/vision/stable/models.html. Detection and segmentation networks take other
inputs and are left out.
"""

from __future__ import annotations

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
)
from probe.models.loading.origins.names import unknown_model
from probe.models.loading.weights import seeded


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
        module = create(**_classes(create().state_dict(), state))
        load_exactly(module, state, request.name, request.path)
    else:
        url_file(weights.url, request.offline)  # from here on torchvision finds it in the cache
        module, source = create(weights=weights), weights.url
    size = request.options.get("image_size")
    transform = (
        weights.transforms(crop_size=size, resize_size=size) if size else weights.transforms()
    )
    side = transform.crop_size[0]
    return Built(
        module, transform, (3, side, side), int(isinstance(module, VisionTransformer)), source
    )


def _resolve(given: str) -> tuple[str, Any]:
    """Name and weights entry (address, transform) of `NAME` or `NAME.WEIGHTS`."""
    import torchvision
    from torchvision.models import get_model_weights, list_models

    name, _, tag = given.partition(".")
    name = name.lower()
    if name not in list_models(module=torchvision.models):
        raise unknown_model(given, "torchvision")
    known = get_model_weights(name).__members__
    if tag and tag not in known:
        raise unknown(f"weights tag of torchvision's {name}", tag, known)
    return name, known[tag or "DEFAULT"]


def _create(name: str, request: Request, weights: Any = None, **more: Any) -> nn.Module:
    from torchvision.models import get_model

    with warnings.catch_warnings(), seeded(request.seed):
        # two networks announce that their random initialization will change
        warnings.simplefilter("ignore", FutureWarning)
        return constructed(
            request.name, get_model, name, weights=weights, **{**request.options, **more}
        )


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


__all__ = ["build_torchvision"]
