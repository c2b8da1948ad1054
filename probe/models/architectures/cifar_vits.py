"""ViT-S and T2T-ViT-S as they were trained on CIFAR with several norms.

https://github.com/lllirunze/Research-on-Dynamic-Normalization-method-in-Vision-Transformer:
224 pixels, patches of 16, 384 channels, 6 heads, 12 blocks, 10 classes.

`vit_s_cifar` and `t2t_vit_s_cifar` take any norm (`norm=`) and differ in nothing else: it is the
norm before attention and feed-forward layer of each block. The published networks differ in more,
and have names of their own (`vit_s_dtn_cifar`, ...): see `PUBLISHED`. Of these, the T2T networks
hold 0.3 million parameters of a patch embedding that nothing calls, and `vit_s_un_cifar` a norm
that nothing calls: they are part of the published numbers of parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from timm.layers import PatchEmbed
from torch import Tensor, nn

from probe.models.architectures.norm_choice import NormChoice, norm_layer
from probe.models.architectures.norm_vit import NormViT
from probe.models.architectures.registration import register
from probe.models.architectures.tokens_to_token import TokensToToken

# What a published network has that the others of its kind have not, by norm. DTN: the layout of its
# authors, in which the class token joins before block 10, with their initialization, which loses
# the local start of DTN.
_DTN_LAYOUT = {
    "class_token_from": 10,
    "norm_options": {"local_init": False},
    "init": "trunc_normal",
}
PUBLISHED: dict[str, dict[str, dict[str, Any]]] = {
    "vit_s": {
        "layer_norm": {},
        "batch_norm": {},  # the last norm stays LayerNorm
        "unified_norm": {"head_norm": "unified_norm", "unused_norm": True},
        "dtn": _DTN_LAYOUT,
    },
    "t2t_vit_s": {
        "layer_norm": {},
        "batch_norm": {},
        "unified_norm": {"depth": 14, "mlp_ratio": 3.0},
        "dtn": {"depth": 14, "drop_rate": 0.1} | _DTN_LAYOUT,
    },
}
SHORT = {"layer_norm": "ln", "batch_norm": "bn", "unified_norm": "un", "dtn": "dtn"}


class NormedPatches(nn.Module):
    """Patches as vectors, norm, linear, norm."""

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 384,
        norm: NormChoice = "layer_norm",
    ) -> None:
        super().__init__()
        rows, columns = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.img_size, self.patch_size = (rows, columns), (patch_size, patch_size)
        self.grid_size = (rows // patch_size, columns // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        pixels = in_chans * patch_size * patch_size
        make = norm_layer(norm, eps=1e-5, num_heads=1, grid=self.grid_size, prefix_tokens=0)
        self.norm1, self.norm2 = make(pixels), make(embed_dim)
        self.proj = nn.Linear(pixels, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, T, C); a vector holds the pixels of its patch row by row."""
        side = self.patch_size[0]
        patches = x.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # (B, 3, h, p, w, p)
        vectors = patches.permute(0, 2, 4, 3, 5, 1).flatten(1, 2).flatten(2)
        tokens: Tensor = self.norm2(self.proj(self.norm1(vectors)))
        return tokens


def cifar_vit(
    kind: str,
    *,
    norm: NormChoice = "layer_norm",
    norm_options: Mapping[str, Any] | None = None,
    as_published: bool = False,
    **options: Any,
) -> NormViT:
    """A network of `PUBLISHED[kind]`: any norm in the same layout, or as it was published with this
    norm.
    """
    own = dict(PUBLISHED[kind].get(str(norm), {})) if as_published else {}
    layout = {"init": "torch", "embed_layer": TokensToToken if kind == "t2t_vit_s" else None}
    settings = layout | own | options
    settings["norm_options"] = dict(own.get("norm_options", {})) | dict(norm_options or {})
    unused_norm = settings.pop("unused_norm", False)
    if settings["embed_layer"] is None:
        settings["embed_layer"] = _patches(str(norm), as_published)
    model = NormViT(norm=norm, **settings)
    if as_published and kind == "t2t_vit_s":
        model.unused_embedding = _patches(str(norm), as_published)(embed_dim=model.embed_dim)
    if unused_norm:
        model.unused_norm = norm_layer(norm)(model.embed_dim)
    return model


def _patches(norm: str, as_published: bool) -> Any:
    """What makes tokens of the images in the published network with this norm."""
    if as_published and norm == "dtn":
        return PatchEmbed
    return partial(NormedPatches, norm=norm if as_published else "layer_norm")


CIFAR = {
    "num_classes": 10,
    "crop_pct": 224 / 256,
    "interpolation": "bilinear",
    "mean": (0.4914, 0.4822, 0.4465),
    "std": (0.2023, 0.1994, 0.2010),
    "fixed_input_size": True,
}

for _kind, _published in PUBLISHED.items():
    register(f"{_kind}_cifar", partial(cifar_vit, _kind), **CIFAR)
    for _norm in _published:
        register(
            f"{_kind}_{SHORT[_norm]}_cifar",
            partial(cifar_vit, _kind, norm=_norm, as_published=True),
            **CIFAR,
        )
