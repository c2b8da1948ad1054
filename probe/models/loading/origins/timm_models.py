"""Networks of timm: https://huggingface.co/docs/timm. Names of its registry, and those of
timm_folders.

Every checkpoint, downloaded or given, passes through timm's own conversion (`checkpoint_filter_fn`:
names, position embeddings, patch sizes), which timm applies to a state dict handed over in the
pretrained configuration.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from probe.errors import UsageError, quiet, unknown
from probe.models.loading.hub import hub_file, url_file
from probe.models.loading.origins.common import (
    Built,
    Request,
    constructed,
    does_not_fit,
    read_state,
)
from probe.models.loading.origins.names import unknown_model
from probe.models.loading.origins.timm_folders import (
    FOLDER,
    classifiers_in,
    folder_of,
    prefix_of,
    weights_in,
)
from probe.models.loading.weights import mismatch, read_checkpoint, seeded


def build_timm(request: Request) -> Built:
    """Raises UsageError for an unknown name or a checkpoint that does not fit, ProbeError without
    network.
    """
    from timm.data.transforms_factory import create_transform

    folder = folder_of(request.name, request.offline) if prefix_of(request.name) else None
    name = f"{FOLDER}:{folder}" if folder else current_name(request.name)
    if request.weights == "random":
        module, source = _create(name, request), f"seed {request.seed}"
    elif request.path is not None:
        state, source = read_state(request.path)
        module = _from_file(name, request, state)
        source += _resampled(module, state)
    elif folder:
        content = read_checkpoint(weights_in(request.name, folder, request.offline))
        module, source = _create(name, request, content), request.name
    else:
        content, source = _pretrained(name, request.offline)
        module = _create(name, request, content)
    data = _data_config(module, request.options)
    prefix_tokens = int(getattr(module, "num_prefix_tokens", 0) or 0)
    return Built(
        module,
        create_transform(**data, is_training=False),
        tuple(data["input_size"]),
        prefix_tokens,
        source,
    )


def current_name(name: str) -> str:
    """The current timm name, deprecated ones translated. Raises UsageError with the nearest names
    for an unknown one.
    """
    import timm
    from timm.models import get_deprecated_models, get_pretrained_cfg

    import probe.models.architectures  # noqa: F401  # registers the networks that timm lacks

    current = get_deprecated_models().get(name, name)
    if current is None or not timm.is_model(current):
        raise unknown_model(name, "timm")
    try:
        get_pretrained_cfg(current)
    except RuntimeError:
        architecture, _, tag = current.partition(".")
        tags = [
            n.partition(".")[2] for n in timm.list_models(f"{architecture}.*", include_tags=True)
        ]
        raise unknown(f"weights tag of timm's {architecture}", tag, tags) from None
    return current


def _data_config(module: nn.Module, options: Mapping[str, Any]) -> dict[str, Any]:
    """timm's evaluation settings: input size, crop, interpolation, mean and std; an `img_size`
    option wins.
    """
    from timm.data.config import resolve_data_config

    size = options.get("img_size")
    wanted = (
        {"img_size": size} if isinstance(size, int) else {"input_size": (3, *size)} if size else {}
    )
    return dict(resolve_data_config(wanted, model=module))


def _pretrained(name: str, offline: bool) -> tuple[Mapping[str, Any], str]:
    """The pretrained checkpoint of a timm name, as it is stored, and where it lies."""
    import timm
    from timm.models import get_pretrained_cfg

    cfg = get_pretrained_cfg(name)
    if cfg is not None and cfg.hf_hub_id:
        return read_checkpoint(
            hub_file(cfg.hf_hub_id, _file_names(cfg.hf_hub_filename), offline)
        ), cfg.hf_hub_id
    if cfg is not None and cfg.url:
        url, file = (cfg.url, None) if isinstance(cfg.url, str) else cfg.url
        return read_checkpoint(url_file(url, offline, file)), url
    tags = timm.list_models(f"{name.split('.')[0]}.*", pretrained=True)
    others = f"it has some for {', '.join(tags)}; " if tags else ""
    raise UsageError(
        f"timm has no pretrained weights for {name!r}; {others}give --weights random or --weights "
        "FILE"
    )


def _file_names(given: str | None) -> list[str]:
    """File names to look for in a hub repository, safetensors first, as timm does."""
    name = given or "pytorch_model.bin"
    if name.endswith(".safetensors"):
        return [name]
    safe = {
        "pytorch_model.bin": "model.safetensors",
        "open_clip_pytorch_model.bin": "open_clip_model.safetensors",
    }
    return [safe.get(name, name.rsplit(".", 1)[0] + ".safetensors"), name]


def _from_file(name: str, request: Request, state: dict[str, Tensor]) -> nn.Module:
    """The network with the weights of a file; its number of classes follows the file. Raises
    UsageError if it does not fit.
    """
    classes = _classes(name, state)
    # without a head in the file (self-supervised training) it may fit the network without one
    for number in [classes] if classes is not None else [None, 0]:
        try:
            module = _create(name, request, state, number)
        except UsageError:
            continue
        random = _never_loaded(name, request, module, state)
        if random:
            raise does_not_fit(
                name, request.path, f"{len(random)} missing ({', '.join(random[:3])})"
            )
        return module
    expected = _create(name, request, None, classes).state_dict()
    raise does_not_fit(name, request.path, mismatch(expected, state) or "timm cannot convert it")


def _resampled(module: nn.Module, state: Mapping[str, Tensor]) -> str:
    """What timm resized to make the file fit (position embeddings, patches of another size), as a
    remark; empty if nothing.
    """
    names = [
        n
        for n, value in module.state_dict().items()
        if n in state and state[n].shape != value.shape
    ]
    return f" (resized by timm: {', '.join(names)})" if names else ""


def _classes(name: str, state: Mapping[str, Tensor]) -> int | None:
    """Number of classes of a checkpoint with timm's names; None where it has no head, or other
    names.
    """
    from timm.models import get_pretrained_cfg

    if prefix_of(name):
        heads = classifiers_in(name)
    else:
        cfg = get_pretrained_cfg(name)
        heads = (cfg.classifier if cfg else None) or ()
    found = (state.get(f"{head}.weight") for head in ([heads] if isinstance(heads, str) else heads))
    return next((head.shape[0] for head in found if head is not None and head.ndim), None)


def _never_loaded(
    name: str, request: Request, module: nn.Module, state: Mapping[str, Tensor]
) -> list[str]:
    """Tensors still at their random start: a few timm networks load what fits and keep quiet about
    the rest.
    """
    loaded = module.state_dict()
    if loaded.keys() == state.keys():
        return []
    classes = getattr(module, "num_classes", None)
    start, other = (
        _create(name, replace(request, seed=request.seed + i), None, classes).state_dict()
        for i in (0, 1)
    )
    return [n for n, value in loaded.items() if value.equal(start[n]) and not value.equal(other[n])]


def _create(
    name: str,
    request: Request,
    content: Mapping[str, Any] | None = None,
    classes: int | None = None,
) -> nn.Module:
    """timm's constructor, with the weights of a checkpoint or random ones. Raises UsageError."""
    import timm

    options = dict(request.options)
    overlay: dict[str, Any] = {}
    if classes is not None:
        overlay["num_classes"] = (
            classes  # as a property of the checkpoint, else timm would throw its head away
        )
        options["num_classes"] = classes
    if content is not None:
        # without a source, a state dict goes before whatever timm would load itself
        overlay.update(state_dict=dict(content), custom_load=False, source="")
    with seeded(request.seed), quiet("timm.models", logging.ERROR):
        module = constructed(
            request.name,
            timm.create_model,
            name,
            pretrained=content is not None,
            pretrained_cfg_overlay=overlay or None,
            **options,
        )
    # timm keeps a second copy of all weights there
    getattr(module, "pretrained_cfg", {}).pop("state_dict", None)
    return module


__all__ = ["build_timm", "current_name"]
