"""Weights of a network as bytes: reading a checkpoint without running code, comparing it with a
module, fingerprints.

A .safetensors file holds tensors only. A .pth, .pt, .th, .bin or .ckpt file is a pickle and is read
with `weights_only=True`, which refuses whatever would run code:
https://docs.pytorch.org/docs/stable/notes/serialization.html
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from probe.errors import UsageError, named_first_line

SAFETENSORS = ".safetensors"
PICKLES = (".pth", ".pt", ".th", ".bin", ".ckpt", ".tar")
# averaged weights first, as timm does
NESTS = ("state_dict_ema", "model_ema", "state_dict", "model", "module")
# torch.compile and data-parallel wrappers, in either order
WRAPPERS = ("_orig_mod.", "module.", "_orig_mod.")


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """What a weights file holds, on the CPU. Raises UsageError for a missing, broken or
    code-carrying file.
    """
    if path.suffix.lower() not in (SAFETENSORS, *PICKLES):
        raise UsageError(
            f"weights {str(path)!r}: suffix {path.suffix!r} is unknown; accepted: .safetensors, "
            f"{', '.join(PICKLES)}"
        )
    try:
        content = load_file(path) if path.suffix.lower() == SAFETENSORS else _read_pickle(path)
    except pickle.UnpicklingError as error:
        code = _code_in(path, str(error))
        if code:
            advice = "refused; save its tensors with safetensors and give that file"
            raise UsageError(
                f"weights {str(path)!r} is a pickle that wants to run code ({code}): {advice}"
            ) from None
        raise UsageError(f"weights {str(path)!r} is broken or no checkpoint of torch") from None
    except PermissionError:
        raise UsageError(f"weights {str(path)!r} cannot be read: permission denied") from None
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, LookupError) as error:
        raise UsageError(
            f"weights {str(path)!r} is broken or no checkpoint ({named_first_line(error)})"
        ) from None
    if not isinstance(content, Mapping):
        raise UsageError(
            f"weights {str(path)!r} holds a {type(content).__name__}; accepted: a state dict "
            "(name to tensor)"
        )
    return content


def unwrap(content: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """The state dict inside a training checkpoint, and the key it lay under ("" at the top).
    Wrapper prefixes are removed. Raises UsageError for one that contains itself.
    """
    path: list[str] = []
    seen = {id(content)}
    while key := next((nest for nest in NESTS if isinstance(content.get(nest), Mapping)), None):
        content, path = content[key], [*path, key]
        if id(content) in seen:
            raise UsageError(f"the checkpoint contains itself (at {'.'.join(path)}): it is damaged")
        seen.add(id(content))
    state = {
        _without_wrappers(name): value
        for name, value in content.items()
        if isinstance(value, Tensor)
    }
    state.pop("n_averaged", None)  # counter of torch.optim.swa_utils
    if state and all(name.startswith("model.") for name in state):
        state = {name.removeprefix("model."): value for name, value in state.items()}
    return state, ".".join(path)


def mismatch(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """How two state dicts differ in names and shapes, counts and a few examples; empty where they
    agree.
    """
    missing = [name for name in expected if name not in given]
    unexpected = [name for name in given if name not in expected]
    shapes = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in given and given[name].shape != expected[name].shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    return "; ".join(f"{len(names)} {kind} ({_few(names)})" for kind, names in kinds if names)


def fingerprint(module: nn.Module) -> str:
    """`sha256:` over name, dtype, shape and bytes of each tensor of the state dict, sorted by name;
    the same on any device.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if not isinstance(value, Tensor):
            digest.update(f"{name}\0{value!r}\0".encode())
            continue
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        # as bytes: numpy has no bfloat16, and a scalar must be a vector before it can be seen as
        # bytes
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"sha256:{digest.hexdigest()}"


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random initial weights depend on `seed` only, and the caller's random numbers are left as
    they were.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # of the CPU alone: torch.manual_seed would reseed the GPUs too
        torch.default_generator.manual_seed(seed)
        yield


def _read_pickle(path: Path) -> Any:
    # options in training checkpoints
    with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def _code_in(path: Path, message: str) -> str:
    """The functions or classes that a refused pickle asks for; empty where the file is merely
    broken.
    """
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:  # not a zip archive, or broken: torch's message may still tell
        names = []
    names = [name for name in names if name != "argparse.Namespace"] or re.findall(
        r"GLOBAL ([\w.]+)", message
    )
    return ", ".join(names[:3])


def _without_wrappers(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper)
    return name


def _few(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


__all__ = ["fingerprint", "mismatch", "read_checkpoint", "seeded", "unwrap"]
