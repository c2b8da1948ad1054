"""What the user may say about a foreign model, what is refused, and that nothing stays behind on
the model.
"""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from probe.errors import UsageError
from probe.models.attention import AttentionProbe, attention_maps
from support.attention_models import CASES, images, randomized, read, small_vit


def hooks_of(module: nn.Module) -> int:
    return sum(
        len(child._forward_hooks) + len(child._forward_pre_hooks) for child in module.modules()
    )


class Foreign(nn.Module):
    """Tokens in, tokens out: nothing says what they are."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.attn(tokens, tokens, tokens, need_weights=False)[0]


def foreign(tokens: int, size: tuple[int, int] | None = None, **options: object) -> AttentionProbe:
    module = Foreign().eval()
    probe = AttentionProbe(module, **options)
    with probe, torch.no_grad():
        probe.begin(2, size)
        module(torch.randn(2, tokens, 8))
    return probe


SAID = [
    (26, None, {"grid": (3, 8), "prefix_tokens": 2, "patch_size": 16}, "3x8", 16.0),
    (25, None, {"grid": (5, 5), "patch_size": 4}, "5x5", 4.0),
    (24, (48, 32), {"patch_size": 8}, "6x4", 8.0),
    (27, (48, 32), {"prefix_tokens": 3, "patch_size": 8}, "6x4", 8.0),
    (24, (48, 32), {"patch_size": (16, 4)}, "3x8", 8.0),
    (24, (48, 32), {"grid": (3, 8)}, "3x8", 8.0),
]


@pytest.mark.parametrize(("tokens", "size", "options", "grid", "stride"), SAID)
def test_the_user_says_what_a_foreign_model_does_not(tokens, size, options, grid, stride) -> None:
    row = foreign(tokens, size, **options).rows()[0]
    assert (row["grid"], row["token_stride"], row["prefix_tokens"]) == (
        grid,
        stride,
        options.get("prefix_tokens", 0),
    )


@pytest.mark.parametrize(
    ("tokens", "size", "options", "reason"),
    [
        (25, None, {}, "grid= and patch_size="),
        (24, (48, 32), {}, "grid= and patch_size="),
        (27, (48, 32), {"prefix_tokens": 3}, "grid= and patch_size="),
        (25, None, {"patch_size": 4}, "give grid="),
        (25, None, {"grid": (5, 5)}, "give patch_size="),
    ],
)
def test_a_number_of_tokens_is_no_evidence_of_a_grid(tokens, size, options, reason) -> None:
    probe = foreign(tokens, size, **options)
    assert probe.rows() == []
    assert reason in probe.unreadable["attn"]


WRONG = [
    (
        {"prefix_tokens": 0},
        "prefix_tokens=0 does not fit: blocks.0.attn works on 17 tokens of an input of 64x64",
    ),
    ({"prefix_tokens": 5}, "prefix_tokens=5 does not fit"),
    ({"patch_size": 8}, "does not fit: blocks.0.attn works on 17 tokens"),
    ({"patch_size": (16, 8)}, "does not fit"),
    ({"grid": (4, 5)}, "grid=.4, 5. does not fit"),
    ({"grid": (2, 2)}, "grid=.2, 2. does not fit"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_what_does_not_fit_the_model_is_a_usage_error_and_leaves_no_hooks(options, message) -> None:
    module = small_vit()
    with pytest.raises(UsageError, match=message):
        read(module, **options)
    assert hooks_of(module) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"prefix_tokens": -1},
        {"patch_size": 0},
        {"patch_size": (16,)},
        {"grid": (0, 4)},
        {"grid": 4.5},
        {"prefix_tokens": 1.0},
    ],
)
def test_what_can_fit_no_model_is_refused_at_once(options) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        AttentionProbe(small_vit(), **options)


def test_a_grid_that_does_not_fit_windows_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="grid=.14, 14. does not fit"):
        read(CASES["swin"].build(), (224, 224), count=1, grid=(14, 14))


def test_a_layer_that_saw_images_of_two_sizes_has_no_number_but_a_reason() -> None:
    module = small_vit(dynamic_img_size=True)
    probe = AttentionProbe(module)
    with probe, torch.no_grad():
        for side in (64, 96):
            probe.begin(1, (side, side))
            module(images(1, (side, side)))
    assert probe.rows() == []
    assert "4x4 and then of 6x6" in probe.unreadable["blocks.0.attn"]
    one, other = read(module), read(module, (96, 96))
    one.merge(other)
    assert one.rows() == []
    assert "do not mix" in one.unreadable["blocks.0.attn"]


def test_maps_are_of_one_image() -> None:
    with pytest.raises(UsageError, match="one image"):
        attention_maps(small_vit(), images(2, (64, 64)))


# nothing stays behind


def test_hooks_mode_and_fast_path_live_inside_of_the_block_only() -> None:
    module = randomized(torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 8))
    assert torch.backends.mha.get_fastpath_enabled()
    probe = AttentionProbe(module)
    assert hooks_of(module) == 0
    with probe:
        assert hooks_of(module) > 0
        assert not torch.backends.mha.get_fastpath_enabled()
    assert hooks_of(module) == 0
    assert torch.backends.mha.get_fastpath_enabled()
    with torch.no_grad():
        module(images(1, (32, 32)))
    assert probe.calls == 0


def test_after_an_exception_nothing_is_left() -> None:
    module = small_vit()
    probe = AttentionProbe(module)
    with pytest.raises(RuntimeError), probe, torch.no_grad():
        probe.begin(1, (64, 64))
        module(torch.zeros(1, 5, 64, 64))
    assert hooks_of(module) == 0
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.overrides._get_current_function_mode_stack() == []
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None


def test_a_fast_path_that_was_off_stays_off() -> None:
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with AttentionProbe(small_vit()):
            pass
        assert not torch.backends.mha.get_fastpath_enabled()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_the_block_can_be_entered_again() -> None:
    module = small_vit()
    probe = AttentionProbe(module)
    for part in images(2, (64, 64)).split(1):
        with probe, torch.no_grad():
            probe.begin(1, (64, 64))
            module(part)
    np.testing.assert_allclose(
        [r["distance_px"] for r in probe.rows()],
        [r["distance_px"] for r in read(module).rows()],
        rtol=1e-6,
    )
    assert probe.rows()[0]["images"] == 2


def test_what_a_probe_read_travels_to_another_process_and_merges() -> None:
    module = small_vit()
    there = pickle.loads(pickle.dumps(read(module)))
    here = AttentionProbe(module)
    here.merge(there)
    assert here.rows() == there.rows() == read(module).rows()
    assert here.unreadable == {}
