"""Names of classes and parameters that say what no shape does: the one list of each kind."""

from __future__ import annotations

import re

from torch import nn

# a module of such a class computes attention: if no call is seen in it, it is named
ATTENTION = re.compile(
    r"att(n|ention)|MH?S?A(?![a-z])|XCA|GPSA|MLA(?![a-z])|Performer|Linformer", re.IGNORECASE
)

# class name -> why its attention has no distance between patches
WITHOUT_DISTANCE = (
    (
        re.compile(r"XCA|CrossCovariance|Channel|^DCA", re.IGNORECASE),
        "channel attention: its scores are between channels, not tokens",
    ),
    (
        re.compile(r"LiteMLA|Linear|Performer|Linformer|Additive|Factor", re.IGNORECASE),
        "linear attention: no scores between tokens",
    ),
    (
        re.compile(r"Split|SelectiveKernel|SpatialAtt|^Coord|^Eca|Cbam", re.IGNORECASE),
        "a gate, no attention between tokens",
    ),
    (
        re.compile(r"^ClassAtt|AttentionPool|AttnPool", re.IGNORECASE),
        "queries are not patches: it pools",
    ),
    (
        re.compile(r"^GPSA$|TalkingHead|DiffAtt", re.IGNORECASE),
        "its softmax is not what weighs the values: it is mixed with another",
    ),
)

# attributes of attention modules that hold the number of heads
HEADS = ("num_heads", "num_attention_heads", "n_heads", "nheads", "n_head", "heads")

# parameters that stand before the patches, by the last part of their name: one kind a row
PREFIX_PARAMETERS = (
    ("cls_token", "class_token", "class_embedding", "cls_embedding", "cls_token_0"),
    ("dist_token", "distillation_token"),
    ("reg_token", "register_tokens", "registers", "register_token"),
)


def named_like_attention(module: nn.Module) -> bool:
    return bool(ATTENTION.search(type(module).__name__))


def without_distance(module: nn.Module) -> str | None:
    """Why a module of a known class has no attention distance; None for all others."""
    if getattr(module, "use_global", None) is True:
        return "queries are not patches: they are made from the whole image"
    name = type(module).__name__
    return next((reason for names, reason in WITHOUT_DISTANCE if names.search(name)), None)
