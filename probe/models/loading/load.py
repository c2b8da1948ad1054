"""A network by name, with weights and its own evaluation transform: `load_model("resnet50")`.

Names: `NAME` or `timm:NAME`, `torchvision:NAME`, `bundled:NAME`, `hf:NAME`, `hf-hub:OWNER/NAME`,
`FILE.py:FACTORY`, or `FILE.safetensors` that `train` or `convert` wrote. Weights: `pretrained`,
`random` (seeded) or a file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from probe.errors import UsageError
from probe.models.loading.feed import Feed
from probe.models.loading.origins import ORIGINS, Built, Request
from probe.models.loading.origins.names import ACCEPTED
from probe.models.loading.origins.python_file import is_file_name
from probe.models.loading.origins.timm_folders import prefix_of
from probe.models.loading.weights import SAFETENSORS, fingerprint
from probe.paths import user_path

TRAINED = "trained"  # origin of a file that says itself which network it is of
AS_GIVEN = "as given"  # the weights of a module that somebody else made
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass
class Model:
    """A network in evaluation mode and what a run must say about it."""

    module: nn.Module
    name: str  # within its origin: "resnet50", "vit_cifar10"
    origin: str  # a name of ORIGINS; module: given as it is
    weights: str  # pretrained, random, the file's name, or AS_GIVEN
    # PIL image -> (C, H, W) float32, of video (C, T, H, W): its own evaluation transform; None:
    # unknown
    transform: Callable[[Any], Tensor] | None
    input_size: tuple[int, ...]  # what the transform gives; empty: unknown, or as the image
    prefix_tokens: int  # class, distillation and register tokens before the patches
    fingerprint: str  # "sha256:..." of the weights as they are used
    source: str = ""  # where the weights came from: hub repository, address, file, seed
    feed: Feed = Feed.STACKED  # how batches of images reach the module

    @property
    def full_name(self) -> str:
        """`origin:name`, as load_model takes it; a Python file needs no origin."""
        return self.name if self.origin == "file" else f"{self.origin}:{self.name}"


def load_model(
    name: str,
    *,
    weights: str | os.PathLike[str] = "pretrained",
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    seed: int = 0,
    offline: bool = False,
    **kwargs: Any,
) -> Model:
    """A network in evaluation mode on `device` (None: the first GPU, else the CPU), its parameters
    as `dtype` (None: float32).

    kwargs go to the constructor of timm or torchvision (img_size=, num_classes=, ...), to the
    configuration of transformers, to the function of a Python file. `seed` is that of random
    weights.
    Raises UsageError for an unknown name, device, dtype or weights file, and for a file that does
    not fit; ProbeError where pretrained weights are neither in the cache nor, within seconds, to be
    had.
    """
    target, kind = resolve_device(device), resolve_dtype(dtype)
    origin, plain = split_name(name)
    if origin == TRAINED:
        from probe.models.loading.trained import trained_model  # see _built

        name, weights = trained_model(Path(plain).expanduser()), plain
        origin, plain = split_name(name)
    mode, path = _resolve_weights(weights)
    built = _built(origin, Request(plain, mode, path, seed, offline, kwargs))
    module = built.module.eval().to(device=target, dtype=kind)
    # what a factory of the user's makes is its own affair, unless the user says that it is random
    own = AS_GIVEN if origin == "file" and mode == "pretrained" else mode
    shown = path.name if path is not None else own
    return Model(
        module,
        plain,
        origin,
        shown,
        built.transform,
        built.input_size,
        built.prefix_tokens,
        fingerprint(module),
        built.source,
        built.feed,
    )


def _built(origin: str, request: Request) -> Built:
    """As its origin builds it; of a file that `train` or `convert` wrote, as that file says."""
    build = ORIGINS[origin]
    if request.path is not None:
        # here, as such files need the zoo, the curves and their compiler, and nothing else does
        from probe.models.loading.trained import builder_of

        if rebuild := builder_of(request.path):
            return rebuild(build, request, f"{origin}:{request.name}")
    return build(request)


def split_name(name: str) -> tuple[str, str]:
    """Origin and name of `ORIGIN:NAME`; a plain name is timm's, a file TRAINED. Raises UsageError
    for another origin.
    """
    if name.endswith(SAFETENSORS):
        return TRAINED, name
    if is_file_name(name):
        return "file", name.removeprefix("file:")
    if prefix_of(name):
        return "timm", name
    origin, colon, plain = name.partition(":")
    if not colon:
        return "timm", name
    if origin not in ORIGINS or not plain:
        raise UsageError(f"model {name!r} is unknown; accepted: {ACCEPTED}")
    return origin, plain


def resolve_device(device: str | torch.device | None) -> torch.device:
    """The device, checked by putting a tensor on it; None is the first CUDA GPU, else the CPU.
    Raises UsageError.
    """
    here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    problem = "is not available here"
    try:
        wanted = torch.device(
            device if device is not None else "cuda" if torch.cuda.is_available() else "cpu"
        )
        if wanted.type == "mps":
            problem = "has no float64, in which statistics are summed"
        if wanted.type in ("meta", "mps"):
            raise RuntimeError("holds no values that could be read")
        torch.zeros(1, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # torch raises each, by device type
        raise UsageError(
            f"--device {str(device)!r} {problem}; available: {', '.join(here)}"
        ) from error
    return wanted


def resolve_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """A torch dtype by its name; None is float32. Raises UsageError for any that is not in
    DTYPES.
    """
    found = dtype if isinstance(dtype, torch.dtype) else DTYPES.get(dtype or "float32")
    if found is None or found not in DTYPES.values():
        raise UsageError(f"dtype {str(dtype)!r} is unknown; accepted: {', '.join(DTYPES)}")
    return found


def _resolve_weights(weights: str | os.PathLike[str]) -> tuple[str, Path | None]:
    if weights in ("pretrained", "random"):
        return str(weights), None
    path = user_path(weights)
    if not path.is_file():
        raise UsageError(
            f"weights {os.fspath(weights)!r} is not a file; accepted: pretrained, random, or a "
            ".safetensors or .pth file"
        )
    return "file", path


__all__ = [
    "AS_GIVEN",
    "DTYPES",
    "Model",
    "load_model",
    "resolve_device",
    "resolve_dtype",
    "split_name",
]
