"""The networks that ship with the package: no download, no options."""

from __future__ import annotations

from probe.errors import ProbeError, UsageError
from probe.models.loading import bundled
from probe.models.loading.origins.common import Built, Request, load_exactly, read_state
from probe.models.loading.origins.names import unknown_model
from probe.models.loading.weights import seeded


def build_bundled(request: Request) -> Built:
    """Raises UsageError for an unknown name, an option, or a checkpoint that does not fit."""
    if request.name not in bundled.ARCHITECTURES:
        raise unknown_model(request.name, "bundled")
    if request.options:
        raise UsageError(
            f"model bundled:{request.name} takes no options; given: {', '.join(request.options)}"
        )
    path = bundled.weights_path(request.name) if request.weights == "pretrained" else request.path
    if request.weights == "pretrained" and not bundled.weights_path(request.name).is_file():
        raise ProbeError(
            f"the weights of bundled:{request.name} are missing: install the package again, or "
            "give --weights FILE"
        )
    with seeded(request.seed):
        module = bundled.ARCHITECTURES[request.name]()
    source = f"seed {request.seed}"
    if path is not None:
        state, source = read_state(path)
        load_exactly(module, state, request.name, path)
    prefix_tokens = int(getattr(module, "num_prefix_tokens", 0))
    return Built(module, bundled.transform(), bundled.INPUT_SIZE, prefix_tokens, source)


__all__ = ["build_bundled"]
