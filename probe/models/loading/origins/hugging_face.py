"""Vision networks of transformers: `hf:OWNER/NAME[@REVISION]` on the hub, `hf:./FOLDER` or any
other folder that `save_pretrained` wrote. https://huggingface.co/docs/transformers

The class is that of `AutoModel` (the network without a head), of a network of pictures and text its
vision tower; the transform is that of `AutoImageProcessor`. A repository is brought into the cache
first, by our own download, which gives up within seconds; transformers then reads the folder. Code
that comes with a repository is not run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from probe.errors import ProbeError, UsageError, first_line
from probe.models.loading.hub import hub_file
from probe.models.loading.origins.common import (
    Built,
    Request,
    constructed,
    load_exactly,
    read_state,
    size_after,
)
from probe.models.loading.origins.hugging_face_files import (
    PROCESSOR,
    config_folder,
    fetch_weights,
    is_folder,
)
from probe.models.loading.origins.timm_folders import FOLDER, HUB
from probe.models.loading.weights import seeded

# parameters of the embeddings of transformers' networks that stand before the patches
PREFIX_TOKENS = ("cls_token", "class_embedding", "distillation_token", "register_tokens")


@dataclass(frozen=True)
class Processed:
    """A photograph to the `pixel_values` (C, H, W) of an image processor."""

    processor: Callable[..., Any]

    def __call__(self, image: Any) -> Tensor:
        return self.processor(images=image, return_tensors="pt")["pixel_values"][0]


def build_hugging_face(request: Request) -> Built:
    """Raises UsageError for a folder or network that does not serve, ProbeError without network or
    without transformers.
    """
    _need_transformers()
    folder = config_folder(request.name, request.offline)
    with _quiet():
        config, kind = _class_of(folder, request)
        _check_takes_images(kind, config, request.name)
        module, source = _built(kind, config, folder, request)
        transform = _transform(request, folder)
    size = size_after(transform) if transform else ()
    return Built(module, transform, size, _prefix_tokens(module), source)


def _need_transformers() -> None:
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise ProbeError(
            "models hf:... need the package `transformers`: install the extra, pip install "
            "'probe-norms[hf]'"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """What transformers logs of checkpoints is told here in one line."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _class_of(folder: Path, request: Request) -> tuple[Any, Any]:
    """Configuration and class of the network, or of its vision tower."""
    from transformers import MODEL_MAPPING, AutoConfig

    classes: Any = MODEL_MAPPING
    config: Any = constructed(
        f"hf:{request.name}", AutoConfig.from_pretrained, folder, **_LOCAL, **request.options
    )
    if config.model_type == "timm_wrapper":
        prefix = FOLDER if is_folder(request.name) else HUB
        raise UsageError(f"model hf:{request.name} is of timm: give it as {prefix}:{request.name}")
    tower = getattr(config, "vision_config", None)
    if tower is not None and type(tower) in classes:
        config = tower
    if type(config) not in classes:
        raise UsageError(
            f"model hf:{request.name}: transformers has no AutoModel for {type(config).__name__}"
        )
    kind = classes[type(config)]
    return config, kind[0] if isinstance(kind, tuple | list) else kind


def _check_takes_images(kind: Any, config: Any, name: str) -> None:
    """Raises UsageError for a network of something else, before its weights are fetched."""
    wanted = getattr(kind, "main_input_name", "pixel_values")
    wanted = "clips of frames" if getattr(config, "num_frames", None) else wanted
    if wanted != "pixel_values":
        raise UsageError(
            f"model hf:{name} takes {wanted}, not images; in Python, give it as a module with "
            "batches of its own"
        )


def _built(kind: Any, config: Any, folder: Path, request: Request) -> tuple[nn.Module, str]:
    """The network with the weights that are asked for, and where they came from."""
    if request.weights == "pretrained":
        fetch_weights(request.name, folder, request.offline)
        return _pretrained(kind, config, folder, request)
    with seeded(request.seed):
        module = constructed(f"hf:{request.name}", kind, config)
    if request.path is None:
        return module, f"seed {request.seed}"
    state, source = read_state(request.path)
    state, random = _without_head(module, state)
    load_exactly(module, state, request.name, request.path)
    return module, source + _told_random(random)


def _pretrained(kind: Any, config: Any, folder: Path, request: Request) -> tuple[nn.Module, str]:
    """The network with its weights; those that the checkpoint lacks (often a pooling layer that
    the head of another task did not need) are random and named.
    """
    with seeded(request.seed):
        loaded: Any = constructed(
            f"hf:{request.name}",
            kind.from_pretrained,
            folder,
            config=config,
            output_loading_info=True,
            **_LOCAL,
        )
    module, told = loaded
    missing = sorted(told["missing_keys"])
    if len(missing) == len(module.state_dict()):
        raise UsageError(
            f"model hf:{request.name}: its checkpoint fits no layer of {kind.__name__}"
        )
    return module, request.name + _told_random(missing)


def _told_random(names: list[str]) -> str:
    return f" (random: {', '.join(names)})" if names else ""


def _without_head(
    module: nn.Module, state: dict[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """Of a checkpoint with a head, what lies under the name of the network below it; and the names
    of the pooling layer that this head did not need, whose tensors are the module's own.
    """
    prefix = f"{getattr(module, 'base_model_prefix', '')}."
    inner = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    if not inner:
        return state, []
    own = module.state_dict()
    random = sorted(n for n in own if n.startswith("pooler.") and n not in inner)
    return inner | {name: own[name] for name in random}, random


def _transform(request: Request, folder: Path) -> Processed | None:
    """None where the network comes without a preprocessor_config.json."""
    from transformers import AutoImageProcessor

    if not (folder / PROCESSOR).is_file() and not is_folder(request.name):
        with suppress(ProbeError):  # whether it exists is known only from the hub
            hub_file(request.name, [PROCESSOR], request.offline)
    if not (folder / PROCESSOR).is_file():
        return None
    try:
        return Processed(AutoImageProcessor.from_pretrained(folder, **_LOCAL))
    except Exception as error:  # broken JSON, an unknown type, a package that is missing
        raise UsageError(
            f"model hf:{request.name}: its image processor cannot be built: {first_line(error)}"
        ) from error


def _prefix_tokens(module: nn.Module) -> int:
    """Class, distillation and register tokens: a vector is one, (1, n, C) is n."""
    shapes = {name.rpartition(".")[2]: value.shape for name, value in module.named_parameters()}
    found = [shapes[name] for name in PREFIX_TOKENS if name in shapes]
    return sum(shape[-2] if len(shape) > 1 else 1 for shape in found)


_LOCAL = {"local_files_only": True, "trust_remote_code": False}

__all__ = ["Processed", "build_hugging_face"]
