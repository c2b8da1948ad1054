"""What the blocks of a network give out while it runs: residual blocks, encoder layers, stages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from probe.models.reading.layers import norm_modules
from probe.models.reading.observe import first_tensor

CONTAINERS = (nn.Sequential, nn.ModuleList)


def block_names(module: nn.Module) -> list[str]:
    """Paths of the blocks: the innermost items of containers that hold a normalization layer, and
    are none themselves. Empty for a network without such containers.
    """
    norms = [name for name, _, _ in norm_modules(module)]
    modules = dict(module.named_modules())
    items = {
        name
        for name in modules
        if "." in name and isinstance(modules[name.rpartition(".")[0]], CONTAINERS)
    }
    holding = {item for item in items if any(norm.startswith(f"{item}.") for norm in norms)}
    inner = {item for item in holding if not any(o.startswith(f"{item}.") for o in holding)}
    return [name for name in modules if name in inner]


@contextmanager
def block_outputs(module: nn.Module, names: list[str]) -> Iterator[dict[str, Tensor]]:
    """What these modules gave out in the last forward pass, by path, with its gradients."""
    seen: dict[str, Tensor] = {}

    def keeping(name: str) -> Any:
        def hook(_: nn.Module, args: Any, output: Any) -> None:
            given = output if isinstance(output, tuple | list) else (output,)
            if (tensor := first_tensor(tuple(given), {})) is not None:
                seen[name] = tensor

        return hook

    with ExitStack() as stack:
        for name in names:
            handle = module.get_submodule(name).register_forward_hook(keeping(name))
            stack.callback(handle.remove)
        yield seen


__all__ = ["block_names", "block_outputs"]
