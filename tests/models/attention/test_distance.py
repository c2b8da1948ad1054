"""What the tap reads against brute force: unfused attention in float64, full maps, distances by
loops.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from probe.models.attention import AttentionProbe, attention_maps
from support.attention_models import CASES, SIZE, Case, brute_force, images

BATCH = 2


def probed(module: nn.Module, x: Tensor, **options: object) -> tuple[AttentionProbe, Tensor]:
    probe = AttentionProbe(module, **options)
    with probe, torch.no_grad():
        probe.begin(len(x), tuple(x.shape[-2:]))
        output = module(x)
    return probe, output


@pytest.fixture(scope="module", params=CASES)
def seen(request: pytest.FixtureRequest) -> tuple[Case, nn.Module, AttentionProbe, Tensor]:
    case = CASES[request.param]
    module = case.build()
    return case, module, *probed(module, images(BATCH))


def test_every_number_agrees_with_brute_force_in_float64(seen) -> None:
    case, module, probe, _ = seen
    with torch.no_grad():
        maps = case.maps(copy.deepcopy(module).double(), images(BATCH).double())
    rows = probe.rows()
    assert probe.calls == len(maps) == len(case.squares) > 0
    assert len(rows) == sum(layer.shape[1] for layer in maps)
    for depth, (layer, (side, stride)) in enumerate(zip(maps, case.squares, strict=True)):
        mine = [row for row in rows if row["depth"] == depth]
        for column, expected in brute_force(layer, BATCH, case.prefix, side, stride).items():
            tolerance = (
                {"atol": 2e-4} if column == "distance_px_std" else {"rtol": 1e-5, "atol": 1e-6}
            )
            np.testing.assert_allclose(
                [row[column] for row in mine],
                expected,
                **tolerance,
                err_msg=f"layer {depth}: {column}",
            )
        assert {row["token_stride"] for row in mine} == {stride}


def test_heads_of_the_cases_are_far_from_uniform(seen) -> None:
    """Or the comparison with brute force would say little."""
    _, _, probe, _ = seen
    ratios = [row["distance_px"] / row["uniform_px"] for row in probe.rows()]
    assert max(abs(ratio - 1) for ratio in ratios) > 2e-3


def test_the_output_is_what_it_is_without_the_tap(seen) -> None:
    _, module, _, tapped = seen
    with torch.no_grad():
        plain = module(images(BATCH))
    if type(module).__module__.startswith("timm."):
        assert torch.equal(tapped, plain)
    torch.testing.assert_close(tapped, plain, rtol=1e-5, atol=1e-5)


def test_in_inference_mode_everything_is_seen_too(seen) -> None:
    _, module, probe, _ = seen
    again = AttentionProbe(module)
    with again, torch.inference_mode():
        again.begin(BATCH, SIZE)
        module(images(BATCH))
    assert again.calls == probe.calls
    for one, other in zip(again.rows(), probe.rows(), strict=True):
        assert one["distance_px"] == pytest.approx(other["distance_px"], rel=1e-5)


def test_the_numbers_are_the_same_for_any_batch_size_and_merge_is_one_pass(seen) -> None:
    _, module, whole, _ = seen
    parts = [probed(module, images(BATCH)[i : i + 1])[0] for i in range(BATCH)]
    parts[0].merge(parts[1])
    assert parts[0].calls == BATCH * whole.calls
    for one, other in zip(parts[0].rows(), whole.rows(), strict=True):
        assert one.keys() == other.keys()
        for column, value in one.items():
            near = {"rel": 1e-5, "abs": 1e-3 if "std" in column else 1e-6}
            assert value == (
                pytest.approx(other[column], **near) if isinstance(value, float) else other[column]
            )


def test_maps_of_one_image_give_the_same_distance(seen) -> None:
    case, module, _, _ = seen
    one, _ = probed(module, images(1))
    maps = attention_maps(module, images(1))
    assert [found.layer for found in maps] == list(
        dict.fromkeys(row["layer"] for row in one.rows())
    )
    for depth, (found, (side, stride)) in enumerate(zip(maps, case.squares, strict=True)):
        np.testing.assert_allclose(found.probabilities.sum(-1), 1, rtol=1e-5)
        heads = found.probabilities if found.windows == 1 else found.probabilities.swapaxes(0, 1)
        expected = brute_force(
            torch.from_numpy(heads).reshape(-1, len(found.probabilities), *heads.shape[-2:]),
            1,
            case.prefix,
            side,
            stride,
        )
        distances = [row["distance_px"] for row in one.rows() if row["depth"] == depth]
        np.testing.assert_allclose(distances, expected["distance_px"], rtol=1e-5)


@pytest.mark.parametrize("name", ["vit", "deit distilled", "registers", "swin"])
def test_probabilities_times_values_are_the_output_of_the_attention(name: str) -> None:
    module = CASES[name].build()
    kept: dict[str, Tensor] = {}
    layer = next(child for child in module.modules() if hasattr(child, "qkv"))
    layer.qkv.register_forward_hook(lambda _, args, output: kept.update(qkv=output))
    layer.proj.register_forward_pre_hook(lambda _, args: kept.update(mixed=args[0]))
    first = attention_maps(module, images(1))[0]
    windows, tokens, channels = kept["mixed"].shape
    heads = layer.num_heads
    v = kept["qkv"].reshape(windows, tokens, 3, heads, -1)[:, :, 2].transpose(1, 2)
    probabilities = torch.from_numpy(first.probabilities)
    probabilities = probabilities[None] if first.windows == 1 else probabilities.transpose(0, 1)
    mixed = (probabilities @ v).transpose(1, 2).reshape(windows, tokens, channels)
    torch.testing.assert_close(mixed, kept["mixed"], rtol=1e-4, atol=1e-5)


def test_a_bfloat16_model_gives_the_distances_of_float32() -> None:
    module = CASES["vit"].build()
    exact, _ = probed(module, images(BATCH))
    half, _ = probed(copy.deepcopy(module).bfloat16(), images(BATCH).bfloat16())
    for one, other in zip(half.rows(), exact.rows(), strict=True):
        assert one["distance_px"] == pytest.approx(other["distance_px"], rel=1e-2)


def test_autocast_leaves_the_scores_in_float32() -> None:
    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, tokens: Tensor) -> Tensor:
            x = tokens[:, None] * self.scale
            return F.scaled_dot_product_attention(x, x, x)

    module, tokens = (
        nn.Sequential(Fused()),
        torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(0)),
    )
    values = []
    for enabled in (False, True):
        probe = AttentionProbe(module, patch_size=16)
        with probe, torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            probe.begin(2, (64, 64))
            module(tokens)
        values.append([row["distance_px"] for row in probe.rows()])
    assert len(values[0]) == 1
    np.testing.assert_allclose(values[1], values[0], rtol=1e-7)
