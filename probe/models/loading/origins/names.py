"""The one line for a model name that nobody knows."""

from __future__ import annotations

import re

from probe.errors import UsageError, nearest

ACCEPTED = (
    "NAME or timm:NAME, torchvision:NAME, bundled:NAME, hf:NAME or hf:./FOLDER (transformers), "
    "hf-hub:OWNER/NAME (timm), FILE.py:FUNCTION"
)


def unknown_model(name: str, origin: str) -> UsageError:
    """Names the nearest models: the same name elsewhere, then those of `origin`, then those of the
    others.
    """
    plain = name.lower().split(".")[0]
    registries = sorted(
        _known().items(), key=lambda item: (plain not in item[1], item[0] != origin)
    )
    close = []
    for other, names in registries:
        found = [plain] if plain in names else [n for n in nearest(plain, names).split(", ") if n]
        if other == "bundled" == origin:
            found = names
        close += [n if other == "timm" else f"{other}:{n}" for n in found]
    hint = f"did you mean {', '.join(close[:4])}? " if close else ""
    return UsageError(f"model {name!r} is not in {origin}; {hint}accepted: {ACCEPTED}")


def is_architecture(name: object) -> bool:
    """Is this the plain name of a network, as a stored file may give it?

    `vit_base_patch16_224.augreg_in21k` or `torchvision:resnet50`, never a path, a URL or an address
    on a hub: what a stranger's file names must not make anybody open or download anything.
    """
    if not isinstance(name, str):
        return False
    return re.fullmatch(r"((timm|torchvision|bundled):)?\w+(\.\w+)?", name, re.ASCII) is not None


def _known() -> dict[str, list[str]]:
    import timm
    import torchvision

    import probe.models.architectures  # noqa: F401  # registers the networks that timm lacks
    from probe.models.loading.bundled import ARCHITECTURES

    return {
        "timm": [name for name in timm.list_models() if not name.startswith("test_")],
        "torchvision": torchvision.models.list_models(),
        "bundled": list(ARCHITECTURES),
    }


__all__ = ["ACCEPTED", "is_architecture", "unknown_model"]
