"""Tokens that are no image grid get no number: a square number of them is no evidence."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from probe.models.attention import AttentionProbe
from support.attention_models import images, randomized, read, small_vit

SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "intermediate_size": 32,
}
TEXT = {**SMALL, "vocab_size": 60, "max_position_embeddings": 70}
DETR = {
    "d_model": 24,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_queries": 16,
}


@pytest.fixture(scope="module")
def transformers() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("transformers")


def seen(module: nn.Module, **inputs: Tensor) -> AttentionProbe:
    probe = AttentionProbe(module.eval())
    image = next((x for x in inputs.values() if x.ndim == 4), None)
    size = None if image is None else tuple(image.shape[-2:])
    with probe, torch.no_grad():
        probe.begin(2, size)
        module(**inputs)
    return probe


def words(count: int = 64) -> Tensor:
    return torch.randint(0, 50, (2, count), generator=torch.Generator().manual_seed(0))


def video(side: int = 64, frames: int = 4) -> Tensor:
    return torch.randn(2, frames, 3, side, side, generator=torch.Generator().manual_seed(0))


def resnet(t: Any) -> dict[str, Any]:
    backbone = t.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage4"],
    )
    return {"use_timm_backbone": False, "backbone": None, "backbone_config": backbone}


def pixels(side: int) -> dict[str, Tensor]:
    return {"pixel_values": images(2, (side, side))}


# name -> (model, inputs, what the reason says); none of their layers has a number
NOWHERE: dict[str, tuple[Callable, dict, str]] = {
    "masked autoencoder, patches shuffled and dropped": (
        lambda t: t.ViTMAEModel(t.ViTMAEConfig(**SMALL, image_size=128, mask_ratio=0.75)),
        pixels(128),
        "picked, shuffled",
    ),
    "masked autoencoder that keeps all patches, shuffled": (
        lambda t: t.ViTMAEModel(t.ViTMAEConfig(**SMALL, image_size=96, mask_ratio=0.0)),
        pixels(96),
        "picked, shuffled",
    ),
    "frames of VideoMAE": (
        lambda t: t.VideoMAEModel(t.VideoMAEConfig(**SMALL, image_size=32, num_frames=8)),
        {"pixel_values": video(32, 8)},  # four times 2x2 are 16
        "video",
    ),
    "frames of ViViT": (
        lambda t: t.VivitModel(t.VivitConfig(**SMALL, image_size=64, num_frames=4)),
        {"pixel_values": video()},
        "video",
    ),
    "frames of TimeSformer": (
        lambda t: t.TimesformerModel(t.TimesformerConfig(**SMALL, image_size=64, num_frames=4)),
        {"pixel_values": video()},
        "video",
    ),
    "text and patches of ViLT": (
        lambda t: t.ViltModel(t.ViltConfig(**TEXT, image_size=128, patch_size=16)),
        {**pixels(128), "input_ids": words(35)},  # with 64 patches and a class token 10x10
        "picked, shuffled",
    ),
    "windows of one token of MobileViT": (
        lambda t: t.MobileViTModel(
            t.MobileViTConfig(
                hidden_sizes=[24, 32, 40], neck_hidden_sizes=[8, 16, 16, 24, 32, 40, 80]
            )
        ),
        pixels(16),
        "one query and one key",
    ),
    "text of BERT": (
        lambda t: t.BertModel(t.BertConfig(**TEXT)),
        {"input_ids": words()},
        "text",
    ),
    "text of GPT-2": (
        lambda t: t.GPT2Model(
            t.GPT2Config(n_embd=24, n_layer=1, n_head=3, vocab_size=60, n_positions=70)
        ),
        {"input_ids": words()},
        "text",
    ),
    "colours of ImageGPT": (
        lambda t: t.ImageGPTModel(
            t.ImageGPTConfig(n_embd=24, n_layer=1, n_head=3, vocab_size=60, n_positions=70)
        ),
        {"input_ids": words()},
        "text",
    ),
    "sound of the Audio Spectrogram Transformer": (
        lambda t: t.ASTModel(t.ASTConfig(**SMALL, max_length=64, num_mel_bins=48)),
        {"input_values": torch.ones(2, 64, 48)},
        "do not come from an image",
    ),
    "sound of wav2vec": (
        lambda t: t.Wav2Vec2Model(
            t.Wav2Vec2Config(
                **SMALL,
                conv_dim=(8, 8),
                conv_stride=(5, 2),
                conv_kernel=(10, 3),
                num_feat_extract_layers=2,
                num_conv_pos_embeddings=8,
                num_conv_pos_embedding_groups=2,
            )
        ),
        {"input_values": torch.ones(2, 645)},
        "do not come from an image",
    ),
    "patches that were cut before": (
        lambda t: t.Siglip2VisionModel(t.Siglip2VisionConfig(**SMALL, num_patches=36)),
        {
            "pixel_values": torch.ones(2, 36, 768),
            "pixel_attention_mask": torch.ones(2, 36),
            "spatial_shapes": torch.tensor([[6, 6], [6, 6]]),
        },
        "do not come from an image",
    ),
    "latents of Perceiver": (
        lambda t: t.PerceiverForImageClassificationLearned(
            t.PerceiverConfig(
                num_latents=16,
                d_latents=32,
                d_model=64,
                num_blocks=1,
                num_self_attends_per_block=1,
                num_self_attention_heads=2,
                num_cross_attention_heads=1,
                image_size=32,
                num_labels=3,
            )
        ),
        {"inputs": images(2, (32, 32))},
        "not patches",
    ),
}


@pytest.mark.parametrize("name", NOWHERE)
def test_tokens_that_are_no_image_grid_are_refused_by_name(transformers: Any, name: str) -> None:
    build, inputs, reason = NOWHERE[name]
    probe = seen(build(transformers), **inputs)
    assert probe.rows() == []
    assert probe.unreadable
    assert any(reason in text for text in probe.unreadable.values()), probe.unreadable


# towers of which one is read: (model, inputs, layers read, layers refused -> part of the reason)
HALF: dict[str, tuple[Callable, dict, set[str], dict[str, str]]] = {
    "SigLIP": (
        lambda t: t.SiglipModel(
            t.SiglipConfig(
                text_config=TEXT, vision_config={**SMALL, "image_size": 96, "patch_size": 16}
            )
        ),
        {**pixels(96), "input_ids": words()},
        {"vision_model"},
        {"text_model": "text"},
    ),
    "CLIP": (
        lambda t: t.CLIPModel(
            t.CLIPConfig(
                text_config=TEXT, vision_config={**SMALL, "image_size": 96, "patch_size": 16}
            )
        ),
        {**pixels(96), "input_ids": words()},
        {"vision_model"},
        {"text_model": "text"},
    ),
    "DETR": (
        lambda t: t.DetrModel(t.DetrConfig(**DETR, **resnet(t))),
        pixels(128),
        {"encoder"},
        {"decoder": ""},
    ),
    "conditional DETR": (
        lambda t: t.ConditionalDetrModel(t.ConditionalDetrConfig(**DETR, **resnet(t))),
        pixels(128),
        {"encoder"},
        {"decoder": ""},
    ),
}


@pytest.mark.parametrize("name", HALF)
def test_text_and_queries_are_refused_where_the_image_beside_them_is_read(
    transformers: Any, name: str
) -> None:
    build, inputs, towers, refused = HALF[name]
    probe = seen(build(transformers), **inputs)
    assert {row["layer"].partition(".")[0] for row in probe.rows()} == towers
    assert {row["grid"] for row in probe.rows()} <= {"6x6", "4x4"}
    for tower, reason in refused.items():
        texts = [text for layer, text in probe.unreadable.items() if layer.startswith(tower)]
        assert texts
        assert all(reason in text for text in texts)


# timm


# what the reason of some layer says, and the grids that may be read beside it
TIMM = {
    "nextvit_small": ("no rectangle of the image", {"7x7"}),
    "efficientformerv2_s0": ("after the softmax", {"7x7"}),  # where it halves the grid
    "hiera_tiny_224": ("order of the patch grid", {"7x7"}),  # its last, row by row again
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_pooled_along_rows_or_mixed_after_the_softmax_is_refused(name: str) -> None:
    reason, grids = TIMM[name]
    probe = read(timm.create_model(name).eval(), (224, 224), count=1)
    assert {row["grid"] for row in probe.rows()} == grids
    assert any(reason in text for text in probe.unreadable.values()), probe.unreadable


def test_dropped_patches_are_no_coarser_grid() -> None:
    module = small_vit()
    module.pos_drop = nn.Module()
    module.pos_drop.forward = lambda x: x[:, :9]
    probe = read(module)
    assert probe.rows() == []
    assert "some were dropped" in probe.unreadable["blocks.0.attn"]


class Changed(nn.Module):
    """The tokens of a small network, changed before its one attention layer."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.patches, self.change = nn.Conv2d(3, 8, 16, 16), change
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.change(self.patches(x).flatten(2).transpose(1, 2))
        return self.attn(x, x, x, need_weights=False)[0]


def _shuffled(x: Tensor) -> Tensor:
    order = torch.rand(x.shape[:2]).argsort(1)
    return x.gather(1, order[..., None].expand(x.shape))


CHANGES = {
    "shuffled by gather": (_shuffled, "picked, shuffled"),
    "shuffled by index": (lambda x: x[:, torch.randperm(x.shape[1])], "picked, shuffled"),
    "reversed": (lambda x: x.flip(1), "not in the order"),
    "column by column": (
        lambda x: x.unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2),
        "not in the order",
    ),
    "half of them": (lambda x: x[:, :8], "some were dropped"),
    "pairs of neighbours averaged three by three": (
        lambda x: x[:, :15].unflatten(1, (5, 3)).mean(2),
        "no rectangle",
    ),
    "mixed by a learned matrix": (lambda x: torch.ones(16, 16) @ x, "mixed"),
    "sorted": (lambda x: x.sort(1).values, "picked, shuffled"),
    "most active": (lambda x: x.topk(4, 1).values, "picked, shuffled"),
    "transformed": (lambda x: torch.fft.fft(x, dim=1).real.contiguous(), "could not be followed"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_tokens_are_refused_with_what_changed_them(name: str) -> None:
    change, reason = CHANGES[name]
    probe = read(randomized(Changed(change)))
    assert probe.rows() == []
    assert reason in probe.unreadable["attn"]


AFTER = {
    "heads mixed by a matrix": lambda a: (torch.eye(2) @ a.flatten(2)).view(a.shape),
    "another map added": lambda a: a + a.roll(1, -1),
    "keys weighed": lambda a: a * torch.linspace(0, 1, a.shape[-1]),
}


@pytest.mark.parametrize("name", AFTER)
def test_weights_changed_after_the_softmax_leave_no_number(name: str) -> None:
    class Altered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.attn = nn.Conv2d(3, 8, 16, 16), SoftAttention(AFTER[name])

        def forward(self, x: Tensor) -> Tensor:
            return self.attn(self.patches(x).flatten(2).transpose(1, 2))

    probe = read(randomized(Altered()))
    assert probe.rows() == []
    assert "after the softmax" in probe.unreadable["attn"]


class SoftAttention(nn.Module):
    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.q, self.change = nn.Linear(8, 8), change

    def forward(self, x: Tensor) -> Tensor:
        heads = self.q(x).unflatten(-1, (2, 4)).transpose(1, 2)
        weights = self.change((heads @ heads.transpose(-1, -2)).softmax(-1))
        return (weights @ heads).transpose(1, 2).flatten(2)
