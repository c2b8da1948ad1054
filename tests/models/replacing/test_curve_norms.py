"""The norms of the zoo that can start as a fitted curve: each says which, and starts as that."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from probe.cli.commands import convert as command
from probe.curves import FAMILIES, family_of
from probe.errors import UsageError
from probe.jobs.converting.curves import CURVES
from probe.jobs.replacing.stand_ins import SCOPES
from probe.models.replacing.curve_norms import curve_norms, fitted_family
from probe.norms import RMSNorm
from probe.norms.registry import NORMS, norm_families
from support.norm_cases import CHANNELS, inputs, made
from support.third_party import Ramp, Softsign

CASES = [(name, family) for name in NORMS for family in norm_families(name)]


@pytest.mark.parametrize(("name", "family"), CASES)
def test_a_norm_that_starts_as_a_curve_computes_it(name, family):
    norm, x = made(name).double(), inputs(name)
    shift = 0.3 if family_of(family).shifted else 0.0
    weight = torch.linspace(-1, 2, CHANNELS, dtype=torch.float64)
    bias = torch.linspace(0, 1, CHANNELS, dtype=torch.float64)
    norm.init_from_curve(family, alpha=0.7, shift=shift, weight=weight, bias=bias)
    curve = torch.from_numpy(family_of(family).value((0.7 * x + shift).numpy()))
    expected = norm.on_channels(weight, x) * curve + norm.on_channels(bias, x)
    torch.testing.assert_close(norm(x).detach(), expected, rtol=1e-12, atol=1e-12)


def test_a_norm_without_families_is_no_curve():
    weight = bias = torch.zeros(CHANNELS)
    with pytest.raises(NotImplementedError, match="RMSNorm is no curve of family tanh"):
        RMSNorm(CHANNELS).init_from_curve("tanh", alpha=1.0, shift=0.0, weight=weight, bias=bias)
    with pytest.raises(UsageError, match="init 'fitted' is for dyt, derf.*; rms_norm takes"):
        fitted_family("rms_norm", "channel")


def test_every_family_of_the_zoo_is_one_of_the_curves():
    assert {family for _, family in CASES} <= set(FAMILIES)
    assert [name for name in NORMS if norm_families(name) == ("linear",)] == [
        "learnable_scaler",
        "learnable_scaler_2d",
    ]


def test_the_command_line_accepts_what_the_registry_holds():
    """Its tuples are literals so that --help needs no torch."""
    assert list(command.NORMS) == curve_norms()
    assert command.SCOPES == SCOPES
    assert command.CURVES == CURVES


def test_a_norm_that_is_registered_is_offered(monkeypatch):
    assert "softsign" not in curve_norms()
    monkeypatch.setitem(NORMS, "softsign", Softsign)
    assert curve_norms() == [*("dyt", "derf", "dyisru", "softsign"), "learnable_scaler"]


def test_per_channel_a_family_without_shift_is_fitted():
    assert [fitted_family("derf", scope) for scope in SCOPES] == ["erf", "erf_shift"]
    assert fitted_family(Softsign, "channel") == fitted_family(Softsign, "layer") == "softsign"


def test_a_curve_that_always_has_a_shift_has_no_scope_channel():
    assert fitted_family(Ramp, "layer") == "tanh_shift"
    with pytest.raises(UsageError, match="Ramp is a curve of tanh_shift.*: use scope 'layer'"):
        fitted_family(Ramp, "channel")


def test_a_function_is_no_curve():
    with pytest.raises(UsageError, match="init 'fitted' is for dyt"):
        fitted_family(lambda channels: nn.LayerNorm(channels), "layer")
