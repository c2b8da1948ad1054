"""Response norms and EvoNorms against their own forward pass, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import timm.layers as tl
import torch
from timm.layers import evo_norm
from timm.layers.filter_response_norm import FilterResponseNormAct2d, FilterResponseNormTlu2d
from timm.layers.grn import GlobalResponseNorm
from torch import nn

from probe.models.folding.fold import fold
from probe.models.reading.layers import affine_of, list_norm_layers, norm_type
from probe.models.reading.observe import BatchContext
from probe.models.reading.tap import tap
from probe.models.reading.trial import written_out
from probe.models.replacing.swap import swap

C = 8
NAMES = ("B0", "B1", "B2", "S0", "S0a", "S1", "S1a", "S2", "S2a")


class ConvNextV2GRN(nn.Module):
    """As transformers has it: no eps, parameters of four axes."""

    def __init__(self, dim):
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.zeros(1, 1, 1, dim)) for _ in range(2))

    def forward(self, x):
        g = torch.linalg.vector_norm(x, ord=2, dim=(1, 2), keepdim=True)
        n = g / (g.mean(dim=-1, keepdim=True) + 1e-6)
        return self.weight * (x * n) + self.bias + x


def evo(name, **options):
    groups = {} if name.startswith("B") else {"groups": 2}
    return getattr(evo_norm, f"EvoNorm2d{name}")(C, **groups, **options)


CASES = {
    "GRN": (GlobalResponseNorm(C, channels_last=False), "global_response_norm_2d"),
    "GRN tokens": (GlobalResponseNorm(C), "global_response_norm"),
    "GRN transformers": (ConvNextV2GRN(C), "global_response_norm"),
    "FRN TLU": (FilterResponseNormTlu2d(C), "filter_response_norm"),
    "FRN act": (FilterResponseNormAct2d(C), "filter_response_norm"),
    "FRN bare": (FilterResponseNormTlu2d(C, apply_act=False), "filter_response_norm"),
    "LRN": (nn.LocalResponseNorm(3, alpha=0.1), "local_response_norm"),
} | {name: (evo(name), f"evo_norm_{name.lower()}") for name in NAMES}
EACH = pytest.mark.parametrize(("module", "kind"), CASES.values(), ids=CASES)


def trained(module):
    """The module in float64 with other values than its first."""
    rng = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for value in (*module.parameters(), *module.buffers()):
            value.copy_(torch.rand(value.shape, generator=rng) + 0.2)
    return module.double()


def run(module, channels_last):
    """x, z and y as the tap hands them on and the module's own output, channels last."""
    shape = (3, 5, 4, C) if channels_last else (3, C, 5, 4)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = []
    with (
        tap(nn.Sequential(module), "*", lambda _, __, seen: found.append(seen)) as hooks,
        torch.no_grad(),
    ):
        hooks.begin(BatchContext(np.arange(3), np.arange(3)))
        output = module(x)
    seen = found[0].as_given_rows()
    z = written_out(seen.norm, seen.x, norm_type(nn.LayerNorm(C)))
    flat = output.flatten(1, 2) if channels_last else output.flatten(2).transpose(1, 2)
    return seen.x, z, seen.y, flat


@EACH
def test_it_is_listed_under_its_kind(module, kind):
    (layer,) = list_norm_layers(nn.Sequential(module))
    assert layer.kind == kind
    assert not layer.affine


def own_output(module, kind, x, y):
    """The module's output from w z + b: its skip, its threshold or its activation."""
    if kind.startswith("global"):
        return x + y
    if getattr(module, "tau", None) is not None:
        return torch.maximum(y, module.tau)
    return module.act(y) if kind.startswith("filter") and hasattr(module, "act") else y


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@EACH
def test_weight_times_normalized_plus_bias_is_what_its_own_forward_computes(module, kind, training):
    module = trained(module).train(training)
    before = [value.clone() for value in module.buffers()]
    x, z, y, output = run(module, kind == "global_response_norm")
    weight, bias = affine_of(module, C)
    torch.testing.assert_close(weight * z + bias, y, rtol=0, atol=1e-6)
    torch.testing.assert_close(own_output(module, kind, x, y), output, rtol=0, atol=1e-6)
    if not training:
        assert all(map(torch.equal, before, module.buffers()))


def test_the_normalized_value_of_a_filter_response_norm_has_mean_square_one():
    module = trained(FilterResponseNormTlu2d(C, eps=1e-12))
    _, z, _, _ = run(module, False)
    torch.testing.assert_close(z.square().mean(1), torch.ones_like(z[:, 0]), rtol=0, atol=1e-6)


def test_a_norm_with_a_skip_or_a_threshold_inside_is_kept_with_the_reason():
    module = nn.Sequential(
        GlobalResponseNorm(C, channels_last=False),
        FilterResponseNormAct2d(C),
        tl.LayerNorm2d(C),
    )
    report = swap(module, "dyt").report.set_index("layer")
    assert report["status"].tolist() == ["kept", "kept", "replaced"]
    assert "adds its own input" in report["reason"]["0"]
    assert "threshold or activation" in report["reason"]["1"]


def test_the_weight_before_a_skip_is_not_folded():
    module = nn.Sequential(
        trained(GlobalResponseNorm(C, channels_last=False)), nn.Conv2d(C, 4, 1).double()
    ).eval()
    x = torch.randn(2, C, 5, 4, dtype=torch.float64)
    (row,) = fold(module, x).report.to_dict("records")
    assert row["status"] == "kept"
    assert "adds its own input" in row["reason"]
