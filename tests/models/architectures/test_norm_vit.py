"""ViTs with a chosen norm, against timm's ViT and against loops."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from probe.errors import UsageError
from probe.models.architectures.cifar_vits import NormedPatches
from probe.models.architectures.norm_vit import NormViT
from probe.norms.registry import norm_name

SIZES = {"img_size": 32, "patch_size": 8, "num_classes": 5, "embed_dim": 24, "num_heads": 3}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def norms(module: nn.Module) -> list[str]:
    return [name for child in module.modules() if (name := norm_name(child)) is not None]


def test_with_the_class_token_from_the_start_it_is_the_vit_of_timm() -> None:
    mine = NormViT(depth=3, **SIZES).eval()
    theirs = timm.models.VisionTransformer(depth=3, qkv_bias=False, fc_norm=True, **SIZES).eval()
    for module in theirs.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5
    theirs.load_state_dict(
        {
            name.replace("norm.", "fc_norm.") if name.startswith("norm.") else name: value
            for name, value in mine.state_dict().items()
        }
    )
    torch.testing.assert_close(mine(IMAGES), theirs(IMAGES))


def test_the_class_token_joins_late_and_alone_is_read() -> None:
    module = NormViT(depth=4, class_token_from=3, norm="dtn", **SIZES).eval()
    tokens = []
    for block in module.blocks:
        block.register_forward_hook(lambda *given: tokens.append(given[2].shape[1]))
    before = module(IMAGES)
    assert tokens == [16, 16, 16, 17]
    assert module.pos_embed.shape == (1, 16, 24)
    assert norms(module) == ["dtn"] * 6 + ["layer_norm"] * 3
    with torch.no_grad():
        module.cls_token.add_(torch.randn(24))
    assert not torch.allclose(module(IMAGES), before)


def test_late_blocks_are_those_of_timm_in_a_row() -> None:
    module = NormViT(depth=3, class_token_from=2, **SIZES).eval()
    x = module.patch_embed(IMAGES) + module.pos_embed
    for block in list(module.blocks)[:2]:
        x = block(x)
    x = module.blocks[2](torch.cat([module.cls_token.expand(2, 1, 24), x], dim=1))
    torch.testing.assert_close(module(IMAGES), module.head(module.norm(x)[:, 0]))


@pytest.mark.parametrize("block", [-1, 3, 12])
def test_a_class_token_that_nothing_reads_is_refused(block: int) -> None:
    with pytest.raises(UsageError, match=f"class_token_from={block} given; a block from 0 to 2"):
        NormViT(depth=3, class_token_from=block, **SIZES)


def test_dtn_with_a_class_token_from_the_start_keeps_it_off_the_grid() -> None:
    module = NormViT(depth=2, norm="dtn", **SIZES)
    assert module.blocks[0].norm1.prefix_tokens == 1
    assert module(IMAGES).isfinite().all()


def test_published_starts_of_class_token_and_positions() -> None:
    module = NormViT(depth=1, init="torch", **{**SIZES, "embed_dim": 240})
    assert float(module.pos_embed.detach().std()) == pytest.approx(1, abs=0.1)
    assert float(NormViT(depth=1, **SIZES).pos_embed.detach().std()) == pytest.approx(
        0.02, abs=0.005
    )


def test_normed_patches_are_those_of_a_loop() -> None:
    module = NormedPatches(img_size=(16, 24), patch_size=8, embed_dim=12)
    image = torch.randn(1, 3, 16, 24)
    rows = [patch_of(image, row, column) for row in range(2) for column in range(3)]
    expected = module.norm2(module.proj(module.norm1(torch.stack(rows, dim=1))))
    torch.testing.assert_close(module(image), expected)


def patch_of(image: Tensor, row: int, column: int) -> Tensor:
    """(1, 8 * 8 * 3): pixels row by row, the colours of a pixel beside each other."""
    cut = image[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
    return torch.stack([cut[:, :, i, j] for i in range(8) for j in range(8)], dim=1).flatten(1)


def test_mended_networks_differ_in_the_norms_of_their_blocks_alone() -> None:
    layouts = []
    for norm in ("layer_norm", "batch_norm", "unified_norm", "dtn"):
        module = timm.create_model("vit_s_cifar", norm=norm, img_size=32)
        assert norms(module).count(norm) == (27 if norm == "layer_norm" else 24)
        layouts.append([name for name, _ in module.named_parameters() if "norm" not in name])
    assert layouts == layouts[:1] * 4


def test_published_networks_have_the_published_quirks() -> None:
    batch = timm.create_model("vit_s_bn_cifar", img_size=32)
    assert norms(batch).count("batch_norm") == 26
    assert norms(batch).count("layer_norm") == 1
    assert norms(timm.create_model("vit_s_un_cifar", img_size=32)).count("unified_norm") == 28
    token = timm.create_model("vit_s_dtn_cifar", img_size=32)
    assert norms(token).count("dtn") == 20
    assert norms(token).count("layer_norm") == 5
    assert token.class_token_from == 10
    unified = timm.create_model("t2t_vit_s_un_cifar", img_size=32)
    assert len(unified.blocks) == 14
    assert unified.blocks[0].mlp.fc1.out_features == 1152
    dtn = timm.create_model("t2t_vit_s_dtn_cifar", img_size=32)
    assert len(dtn.blocks) == 14
    assert dtn.pos_drop.p == 0.1
    assert any(name.startswith("unused") for name, _ in dtn.named_parameters())
