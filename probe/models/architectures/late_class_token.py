"""The vision transformers of Dynamic Token Normalization: the class token joins before block 10 of
12, so that the normalized tokens before it are those of the grid.

Shao et al. 2022, https://arxiv.org/abs/2112.02624, code at https://github.com/wqshao126/DTN. Their
names and sizes. As published, the local start of DTN's position weights was lost, for the network
initialized every linear layer anew: `norm_options={"local_init": False}` starts as that did.
"""

from __future__ import annotations

from functools import partial

from probe.models.architectures.norm_vit import NormViT
from probe.models.architectures.registration import register

# name: (channels, heads); with a star more heads for the same channels, or channels for the heads
SIZES = {
    "vit_norm_ti_star": (192, 4),
    "vit_norm_s": (384, 6),
    "vit_norm_s_star": (432, 9),
    "vit_norm_b": (768, 12),
    "vit_norm_b_star": (768, 16),
}

for _name, (_channels, _heads) in SIZES.items():
    register(
        _name,
        partial(NormViT, embed_dim=_channels, num_heads=_heads, class_token_from=10, norm="dtn"),
        fixed_input_size=True,
    )
