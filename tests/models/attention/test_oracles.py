"""Attention that looks everywhere alike: with no query weights and no position bias every model
must show its geometry's number.
"""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from probe.models.attention import AttentionProbe
from probe.models.loading.load import load_model
from support.attention_models import images

TINY = {"embed_dim": 24, "depth": 1, "num_heads": 2}


def without_queries(module: nn.Module) -> nn.Module:
    """Query weights and biases, and position biases, are zero, so that all scores of a query are
    equal.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "relative_position_bias" in name:
                parameter.zero_()
            elif "qkv" in name or "in_proj" in name:
                parameter[: len(parameter) // 3].zero_()
    return module.eval()


def rows_of(module: nn.Module, size: tuple[int, int], count: int = 2) -> list[dict]:
    probe = AttentionProbe(module)
    with probe, torch.no_grad():
        probe.begin(count, size)
        module(images(count, size))
    assert probe.calls > 0
    assert probe.unreadable == {}
    return probe.rows()


GLOBAL = {
    "14x14, 16 px": (lambda: timm.create_model("vit_tiny_patch16_224", **TINY), 224, 116.49),
    "7x7, 32 px": (lambda: timm.create_model("vit_base_patch32_224", **TINY), 224, 115.50),
    "24x24, 16 px": (lambda: timm.create_model("vit_base_patch16_384", **TINY), 384, 200.05),
    "16x16, 14 px": (
        lambda: timm.create_model("vit_small_patch14_dinov2", img_size=224, **TINY),
        224,
        116.57,
    ),
    "bundled, 8x8, 4 px": (
        lambda: load_model("bundled:vit_cifar10", device="cpu").module,
        32,
        16.55,
    ),
    "torchvision": (
        lambda: torchvision.models.VisionTransformer(224, 16, 1, 2, 24, 24),
        224,
        116.49,
    ),
}


@pytest.mark.parametrize("name", GLOBAL)
def test_uniform_attention_has_the_distance_of_its_grid(name: str) -> None:
    build, side, expected = GLOBAL[name]
    for row in rows_of(without_queries(build()), (side, side)):
        assert row["distance_px"] == pytest.approx(expected, abs=0.01)
        assert row["distance_px"] == pytest.approx(row["uniform_px"], rel=1e-5)
        assert row["distance_patches"] == pytest.approx(expected / row["token_stride"], abs=0.0025)
        assert row["distance_px_std"] == pytest.approx(0, abs=1e-3)


def test_not_renormalized_the_class_token_takes_its_share() -> None:
    row = rows_of(without_queries(timm.create_model("vit_tiny_patch16_224", **TINY)), (224, 224))[0]
    assert row["distance_px_raw"] == pytest.approx(115.90, abs=0.01)
    assert row["prefix_mass"] == pytest.approx(1 / 197, rel=1e-5)
    assert row["distance_patches"] == pytest.approx(7.2808, abs=1e-4)


@pytest.mark.parametrize(
    "build",
    [
        lambda: timm.create_model(
            "swin_tiny_patch4_window7_224",
            embed_dim=12,
            depths=(2, 2, 2, 2),
            num_heads=(1, 1, 1, 1),
        ),
        lambda: torchvision.models.SwinTransformer([4, 4], 12, [2, 2, 2, 2], [1, 1, 1, 1], [7, 7]),
    ],
    ids=["timm", "torchvision"],
)
def test_windows_have_the_stride_of_their_stage_and_shifted_ones_keep_their_mask(build) -> None:
    rows = rows_of(without_queries(build()), (224, 224))
    straight, shifted = rows[::2], rows[1::2]
    assert [row["distance_px"] for row in straight] == pytest.approx(
        [14.44, 28.88, 57.75, 115.50], abs=0.01
    )
    assert [row["uniform_px"] for row in rows[::2]] == pytest.approx(
        [14.44, 28.88, 57.75, 115.50], abs=0.01
    )
    assert [row["windows"] for row in straight] == [64, 16, 4, 1]
    assert [row["token_stride"] for row in straight] == [4, 8, 16, 32]
    assert [row["grid"] for row in straight] == ["56x56", "28x28", "14x14", "7x7"]
    assert all(
        one["distance_px"] < other["distance_px"]
        for one, other in zip(shifted[:3], straight[:3], strict=True)
    )


@pytest.mark.parametrize("count", [1, 3])
def test_rectangles_are_measured_by_their_two_sides(count: int) -> None:
    module = timm.create_model("vit_tiny_patch16_224", img_size=(96, 160), **TINY)
    row = rows_of(without_queries(module), (96, 160), count)[0]
    assert (row["grid"], row["token_stride"]) == ("6x10", 16)
    places = [(r * 16, c * 16) for r in range(6) for c in range(10)]
    mean = sum(((a - c) ** 2 + (b - d) ** 2) ** 0.5 for a, b in places for c, d in places) / 60**2
    assert row["distance_px"] == pytest.approx(mean, rel=1e-5)


def test_identity_attention_has_distance_zero() -> None:
    """Every patch has a position embedding of its own, and the queries and keys are those
    embeddings, scaled up.
    """
    module = timm.create_model(
        "vit_tiny_patch16_224", embed_dim=256, depth=1, num_heads=1, pre_norm=False
    )
    with torch.no_grad():
        module.patch_embed.proj.weight.zero_()
        module.patch_embed.proj.bias.zero_()
        module.cls_token.zero_()
        module.pos_embed.copy_(torch.eye(197, 256))
        module.blocks[0].attn.qkv.weight.copy_(torch.eye(256).repeat(3, 1) * 20)
        module.blocks[0].attn.qkv.bias.zero_()
    row = rows_of(module.eval(), (224, 224))[0]
    assert row["distance_px"] == pytest.approx(0, abs=1e-6)
    assert row["entropy"] == pytest.approx(0, abs=1e-6)
