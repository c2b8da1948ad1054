"""What the origins of networks share: what is asked for, what is built, and loading a checkpoint
that must fit exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor, nn

from probe.errors import ProbeError, UsageError, first_line
from probe.models.loading.feed import Feed
from probe.models.loading.weights import mismatch, read_checkpoint, unwrap


@dataclass(frozen=True)
class Request:
    """A network by its name within one origin, and the weights it is wanted with."""

    name: str
    weights: str  # "pretrained", "random" or "file"
    path: Path | None  # of weights "file"
    seed: int  # of random weights
    offline: bool
    options: Mapping[str, Any]  # passed on to the constructor


@dataclass(frozen=True)
class Built:
    """A network in float32 on the CPU."""

    module: nn.Module
    transform: Callable[[Any], Tensor] | None  # None: the origin knows none
    input_size: tuple[int, ...]  # () where it is not known or follows the image
    prefix_tokens: int
    source: str  # where the weights came from: a file, a repository, an address, a seed
    feed: Feed = Feed.STACKED


def constructed(
    name: str, create: Callable[..., nn.Module], *args: Any, **options: Any
) -> nn.Module:
    """Calls a constructor of another library; whatever it raises becomes a UsageError of one
    line.
    """
    try:
        return create(*args, **options)
    except ProbeError:
        raise
    except Exception as error:  # constructors and conversions of checkpoints raise many types
        reason = first_line(error)
        if reason.endswith(":"):  # the heading of a list: its first item says what is wrong
            reason = " ".join(line.strip() for line in str(error).strip().split("\n")[:2])
        raise UsageError(f"model {name!r} cannot be built: {reason[:300]}") from error


def read_state(path: Path) -> tuple[dict[str, Tensor], str]:
    """The state dict of a weights file, and the file as text (with the key it lay under). Raises
    UsageError.
    """
    state, key = unwrap(read_checkpoint(path))
    if not state:
        raise UsageError(
            f"weights {str(path)!r} holds no tensors; accepted: a state dict (name to tensor)"
        )
    return state, f"{path.name} [{key}]" if key else path.name


def load_exactly(
    module: nn.Module, state: Mapping[str, Tensor], name: str, path: Path | None
) -> None:
    """Loads a state dict that has every tensor of the module and no other. Raises UsageError with
    the difference.
    """
    difference = mismatch(module.state_dict(), state)
    if difference:
        raise does_not_fit(name, path, difference)
    module.load_state_dict(state)


def does_not_fit(name: str, path: Path | None, difference: str) -> UsageError:
    return UsageError(f"weights {str(path)!r} do not fit model {name!r}: {difference}")


def size_after(transform: Callable[[Any], Tensor]) -> tuple[int, ...]:
    """Shape of what a transform makes of photographs, where all get the same; () where it follows
    the photograph, or cannot be told.
    """
    try:
        photographs = (Image.new("RGB", size) for size in ((640, 480), (480, 480)))
        sizes = {tuple(transform(photograph).shape) for photograph in photographs}
    except Exception:  # a user's transform may raise anything; it will be told with a real image
        return ()
    return sizes.pop() if len(sizes) == 1 else ()


__all__ = [
    "Built",
    "Request",
    "constructed",
    "does_not_fit",
    "load_exactly",
    "read_state",
    "size_after",
]
