"""Losses from outside of the network, against loops; the network's output stays equal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from probe.errors import UsageError
from probe.models.attention.calls import Call
from probe.models.attention.live import probabilities
from probe.training.losses import diffuse_rows, excess, extra_losses, weights
from probe.training.recipe import Recipe

IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def recipe(**fields: Any) -> Recipe:
    return replace(Recipe("mine", "nowhere", "none"), **fields)


def vit(fused: bool = True) -> Any:
    torch.manual_seed(0)
    module = timm.models.VisionTransformer(
        img_size=16, patch_size=4, embed_dim=12, depth=3, num_heads=2, num_classes=5
    )
    for block in module.blocks:
        block.attn.fused_attn = fused
    return module.train()


def large(module: Any) -> Any:
    """The residual stream goes above 200 in the second block."""
    with torch.no_grad():
        module.blocks[1].mlp.fc2.bias.add_(torch.linspace(100, 400, 12))
    return module


def looped_excess(h: Tensor) -> Tensor:
    d = [abs(v) - 200 for v in h.flatten() if abs(v) > 200]
    return sum(d) / len(d) + max(d) if d else torch.zeros(())


def looped_diffuse(a: Tensor) -> Tensor:
    rows = [row.max() for row in a.flatten(0, -2) if row.max() < 0.5]
    return 1 - sum(rows) / len(rows) if rows else torch.zeros(())


def stream(module: Any, x: Tensor) -> list[Tensor]:
    """The residual stream after attention and after the feed-forward layer of each block."""
    x = module.norm_pre(module._pos_embed(module.patch_embed(x)))
    values = []
    for block in module.blocks:
        x = x + block.attn(block.norm1(x))
        values.append(x)
        x = x + block.mlp(block.norm2(x))
        values.append(x)
    return values


def maps(module: Any, x: Tensor) -> list[Tensor]:
    x = module.norm_pre(module._pos_embed(module.patch_embed(x)))
    values = []
    for block in module.blocks:
        y = block.attn.qkv(block.norm1(x)).unflatten(-1, (3, 2, 6)).permute(2, 0, 3, 1, 4)
        values.append(torch.softmax(y[0] @ y[1].transpose(-2, -1) / 6**0.5, dim=-1))
        x = block(x)
    return values


def test_excess_is_mean_and_largest_of_what_is_above_200() -> None:
    h = torch.tensor([[0.0, -201.0, 199.9], [230.0, 200.0, -100.0]])
    assert float(excess(h)) == pytest.approx((1 + 30) / 2 + 30)
    assert float(excess(h.clamp(-200, 200))) == 0
    h = 300 * torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(excess(h), looped_excess(h))


def test_diffuse_rows_are_pulled_at_their_largest_entry_up_to_one_half() -> None:
    rng = torch.Generator().manual_seed(0)
    a = torch.softmax(4 * torch.randn(2, 3, 4, 5, generator=rng), dim=-1).requires_grad_()
    torch.testing.assert_close(diffuse_rows(a), looped_diffuse(a))
    (grad,) = torch.autograd.grad(diffuse_rows(a), a)
    diffuse = a.amax(-1) < 0.5
    expected = torch.zeros_like(a)
    expected.scatter_(-1, a.argmax(-1, keepdim=True), -1 / int(diffuse.sum()))
    torch.testing.assert_close(grad, expected * diffuse[..., None])
    assert float(diffuse_rows(torch.eye(4))) == 0


def test_feature_decay_reads_the_stream_twice_per_block() -> None:
    module = large(vit())
    with extra_losses(module, recipe(feature_decay=0.1)) as extra:
        output = module(IMAGES)
        added = extra()
    expected = sum(looped_excess(h) for h in stream(module, IMAGES))
    assert expected.detach() > 100
    torch.testing.assert_close(added, 0.1 * expected)
    torch.testing.assert_close(output, module(IMAGES), rtol=0, atol=0)


@pytest.mark.parametrize("fused", [True, False])
def test_attention_loss_reads_the_first_layers(fused: bool) -> None:
    module = vit(fused)
    settings = recipe(attention_loss=0.03, attention_loss_layers=2)
    with extra_losses(module, settings) as extra:
        output = module(IMAGES)
        added = extra()
    expected = sum(looped_diffuse(a) for a in maps(module, IMAGES)[:2])
    torch.testing.assert_close(added, 0.03 * expected)
    torch.testing.assert_close(output, module(IMAGES), rtol=0, atol=0)


def test_gradients_are_those_of_the_formula() -> None:
    module = large(vit())
    settings = recipe(feature_decay=0.1, attention_loss=0.5, attention_loss_layers=3)
    with extra_losses(module, settings) as extra:
        module(IMAGES)
        extra().backward()
    mine = [p.grad.clone() for p in module.blocks.parameters()]
    module.zero_grad()
    loss = 0.1 * sum(excess(h) for h in stream(module, IMAGES))
    (loss + 0.5 * sum(diffuse_rows(a) for a in maps(module, IMAGES))).backward()
    for got, parameter in zip(mine, module.blocks.parameters(), strict=True):
        torch.testing.assert_close(got, parameter.grad)


def test_published_weights_are_squared() -> None:
    settings = recipe(feature_decay=0.1, attention_loss=0.03, attention_loss_layers=6)
    assert weights(settings) == (0.1, 0.03)
    published = weights(replace(settings, squared_losses=True))
    assert published == (pytest.approx(0.01), pytest.approx(0.003))
    assert weights(replace(settings, attention_loss_layers=0))[1] == 0


def test_each_forward_pass_counts_for_itself_and_evaluation_for_nothing() -> None:
    module = large(vit())
    with extra_losses(module, recipe(feature_decay=0.1)) as extra:
        module(IMAGES)
        module(IMAGES)
        once = extra()
        module.eval()(IMAGES)
        assert extra() is None
    torch.testing.assert_close(once, 0.1 * sum(looped_excess(h) for h in stream(module, IMAGES)))


def test_nothing_is_left_on_the_network() -> None:
    module = vit()
    settings = recipe(feature_decay=0.1, attention_loss=0.03, attention_loss_layers=2)
    with extra_losses(module, settings), pytest.raises(AssertionError):
        module(IMAGES[:, :, :8])  # a pass that fails
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    with extra_losses(module, recipe()) as extra:
        module(IMAGES)
        assert extra() is None
    assert not torch.overrides._get_current_function_mode_stack()


def test_a_mask_is_part_of_the_probabilities() -> None:
    q, k = torch.randn(2, 1, 3, 4), torch.randn(2, 1, 5, 4)
    for bias in (torch.randn(3, 5), torch.rand(3, 5) < 0.7):
        given = bias if bias.dtype != torch.bool else torch.where(bias, 0.0, -torch.inf)
        expected = torch.softmax(q @ k.transpose(-2, -1) / 2 + given, dim=-1)
        got = probabilities(Call(q, k, bias, scale=0.5))
        torch.testing.assert_close(got, expected, equal_nan=True)


def test_networks_that_cannot_be_read_are_refused() -> None:
    decay = recipe(feature_decay=0.1)
    with pytest.raises(UsageError, match="needs blocks with"), extra_losses(nn.Linear(2, 2), decay):
        pass
    post = timm.models.VisionTransformer(
        img_size=16,
        patch_size=4,
        embed_dim=12,
        depth=1,
        num_heads=2,
        block_fn=timm.models.vision_transformer.ResPostBlock,
    ).train()
    with extra_losses(post, decay), pytest.raises(UsageError, match="pre-norm blocks"):
        post(IMAGES)
