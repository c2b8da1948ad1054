"""The one line for a model name that nobody knows."""

from __future__ import annotations

from probe.errors import UsageError, nearest

ACCEPTED = "NAME or timm:NAME, torchvision:NAME, bundled:NAME"


def unknown_model(name: str, origin: str) -> UsageError:
    """Names the nearest models: those of `origin` first, then those of the others."""
    plain = name.lower().split(".")[0]
    close = [
        known if other == "timm" else f"{other}:{known}"
        for other, names in sorted(_known().items(), key=lambda item: item[0] != origin)
        for known in ([plain] if plain in names else nearest(plain, names).split(", "))
        if known
    ]
    hint = f"did you mean {', '.join(close[:4])}? " if close else ""
    return UsageError(f"model {name!r} is not in {origin}; {hint}accepted: {ACCEPTED}")


def _known() -> dict[str, list[str]]:
    import timm
    import torchvision

    from probe.models.bundled import ARCHITECTURES

    return {
        "timm": [name for name in timm.list_models() if not name.startswith("test_")],
        "torchvision": torchvision.models.list_models(module=torchvision.models),
        "bundled": list(ARCHITECTURES),
    }


__all__ = ["ACCEPTED", "unknown_model"]
