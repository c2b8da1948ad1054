"""Parts of the pyramid and of the tokens-to-token networks, against loops."""

from __future__ import annotations

import math

import pytest
import timm
import torch

from probe.errors import UsageError
from probe.models.architectures.pvt import ReducedAttention
from probe.models.architectures.tokens_to_token import Performer, TokensToToken
from probe.norms.registry import norm_name


def test_reduced_attention_is_softmax_over_pooled_keys() -> None:
    module, x = ReducedAttention(12, 3, reduction=2), torch.randn(2, 24, 12)
    image = x.transpose(1, 2).reshape(2, 12, 4, 6)
    pooled = module.norm(module.sr(image).flatten(2).transpose(1, 2))  # (2, 6, 12)
    (k, v), q = module.kv(pooled).split(12, dim=-1), module.q(x)
    heads = []
    for h in range(3):
        own = slice(4 * h, 4 * h + 4)
        scores = torch.softmax(q[..., own] @ k[..., own].transpose(1, 2) / math.sqrt(4), dim=-1)
        heads.append(scores @ v[..., own])
    torch.testing.assert_close(module(x, (4, 6)), module.proj(torch.cat(heads, dim=-1)))


def test_a_pyramid_has_the_chosen_norm_in_three_stages_and_a_class_token_in_the_last() -> None:
    module = timm.create_model("pvt_norm_tiny", img_size=64).eval()
    chosen = [[norm_name(b.norm1), norm_name(b.norm2)] for stage in module.stages for b in stage]
    assert chosen == [["dtn", "dtn"]] * 6 + [["layer_norm", "layer_norm"]] * 2
    assert [stage[0].attn.num_heads for stage in module.stages] == [4, 4, 5, 8]
    assert [tuple(p.shape) for p in module.pos_embeds] == [
        (1, 256, 64),
        (1, 64, 128),
        (1, 16, 320),
        (1, 5, 512),
    ]
    assert [stage[0].norm1.grid for stage in list(module.stages)[:3]] == [(16, 16), (8, 8), (4, 4)]


def test_a_pyramid_at_224_pixels_pools_its_positions_as_published() -> None:
    with torch.device("meta"):
        module = timm.create_model("pvt_norm_tiny")
    assert [stage[0].norm1.pool for stage in list(module.stages)[:3]] == [4, 2, 1]


def test_a_performer_is_attention_with_a_kernel_of_random_features() -> None:
    torch.manual_seed(0)
    module, x = Performer(10, 8).eval(), torch.randn(2, 5, 10)
    k, q, v = module.kqv(module.norm1(x)).split(8, dim=-1)

    def phi(a: torch.Tensor) -> torch.Tensor:
        return torch.exp(module.features @ a - a @ a / 2) / math.sqrt(4)

    rows = []
    for b in range(2):
        for t in range(5):
            weights = torch.stack([phi(q[b, t]) @ phi(k[b, s]) for s in range(5)])
            rows.append((weights @ v[b]) / (weights.sum() + 1e-8))
    mixed = v + module.proj(torch.stack(rows).view(2, 5, 8))
    torch.testing.assert_close(module(x), mixed + module.mlp(module.norm2(mixed)))


def test_random_features_are_orthogonal_rows_that_never_learn() -> None:
    module = Performer(10, 8)
    gram = module.features @ module.features.T
    torch.testing.assert_close(gram, 4 * torch.eye(4), atol=1e-5, rtol=0)
    assert "features" in module.state_dict()
    assert "features" not in dict(module.named_parameters())


def test_tokens_stand_on_a_grid_of_sixteenths() -> None:
    module = TokensToToken(img_size=(64, 96), embed_dim=24).eval()
    assert module.grid_size == (4, 6)
    assert module(torch.randn(1, 3, 64, 96)).shape == (1, 24, 24)
    with pytest.raises(UsageError, match="multiple of 16 pixels"):
        TokensToToken(img_size=72)
    with pytest.raises(UsageError, match="multiples of 32 pixels"):
        timm.create_model("pvt_norm_tiny", img_size=48)
