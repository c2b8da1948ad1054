"""Every norm of the zoo is listed and captured as what it is."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import probe
from probe.models.reading.layers import affine_of, list_norm_layers
from probe.models.reading.norm_types import NORM_TYPES
from probe.models.reading.observe import BatchContext
from probe.models.reading.tap import tap
from probe.norms import create_norm, list_norms
from probe.stats.observed import GivenNorm, Observed, PlaneNorm, TokenNorm

OPTIONS = {"dtn": {"grid": (2, 3)}, "group_norm_2d": {"num_heads": 4}}
EVERY = pytest.mark.parametrize("name", list_norms())
LINES = {"batch_norm", "learnable_scaler", "unified_norm", "rep_batch_norm"}


def made(name: str, seed: int = 0) -> nn.Module:
    """A norm in evaluation mode after three training steps, its parameters moved by noise."""
    rng = torch.Generator().manual_seed(seed)
    norm = create_norm(name, 8, **OPTIONS.get(name, {})).train()
    for step in range(3):
        norm(batch(name, seed=step).requires_grad_()).square().sum().backward()
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=rng))
    return norm.eval()


def batch(name: str, images: int = 3, seed: int = 9) -> torch.Tensor:
    shape = (images, 8, 2, 3) if name.endswith("_2d") else (images, 6, 8)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def observed(norm: nn.Module, x: torch.Tensor, prefix: int = 0) -> Observed:
    """What the tap hands on of one call, channels last."""
    found: list[Observed] = []
    with (
        tap(
            nn.Sequential(norm), "*", lambda _, __, seen: found.append(seen.as_given_rows())
        ) as hooks,
        torch.no_grad(),
    ):
        hooks.begin(BatchContext(np.arange(len(x)), np.arange(len(x)), prefix))
        norm(x)
    (one,) = found
    return one


def normalized(seen: Observed) -> torch.Tensor:
    if isinstance(seen.norm, TokenNorm):
        x = seen.x.double()
        x = x - x.mean(-1, keepdim=True) if seen.norm.centered else x
        return x / torch.sqrt(x.square().mean(-1, keepdim=True) + seen.norm.eps)
    assert isinstance(seen.norm, GivenNorm)
    return seen.norm.z.double()


def rows(name: str, x: torch.Tensor) -> torch.Tensor:
    return x.flatten(2).transpose(1, 2) if name.endswith("_2d") else x


@EVERY
def test_it_is_listed_under_its_name(name):
    norm = made(name)
    (layer,) = list_norm_layers(nn.Sequential(nn.Linear(2, 2), norm))
    assert (layer.name, layer.kind, layer.channels) == ("1", name, 8)
    assert layer.eps == getattr(norm, "eps", None)
    assert layer.affine == (name.removesuffix("_2d") in LINES)


@EVERY
def test_nothing_is_affine_in_training(name):
    (layer,) = list_norm_layers(nn.Sequential(made(name).train()))
    assert not layer.affine


def test_rep_batch_norm_is_affine_once_its_schedule_is_over():
    norm = create_norm("rep_batch_norm", 8, decay_steps=2)
    listed = []
    for _ in range(3):
        listed.append(list_norm_layers(nn.Sequential(norm.eval()))[0].affine)
        norm.train()(batch("rep_batch_norm"))
    assert listed == [False, False, True]


def test_the_table_holds_every_name_of_the_registry():
    assert set(list_norms()) <= {kind.kind for kind in NORM_TYPES}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@EVERY
def test_weight_times_normalized_plus_bias_is_the_output(name, training):
    norm, x = made(name).train(training), batch(name)
    seen = observed(norm, x)
    weight, bias = affine_of(norm, 8)
    torch.testing.assert_close(seen.x, rows(name, x), rtol=0, atol=0)
    scale = max(1.0, float(seen.y.abs().max()))
    torch.testing.assert_close(
        weight * normalized(seen) + bias, seen.y.double(), rtol=0, atol=1e-5 * scale
    )


@EVERY
def test_normalized_is_that_of_the_module(name):
    norm, x = made(name), batch(name)
    torch.testing.assert_close(
        normalized(observed(norm, x)).float(),
        rows(name, norm.normalized(x)).detach(),
        rtol=0,
        atol=1e-5,
    )


@EVERY
def test_a_module_in_half_precision_is_read_in_float32(name):
    norm, x = made(name).bfloat16(), batch(name).bfloat16()
    exact = copy.deepcopy(norm).float()
    z = normalized(observed(norm, x)).float()
    expected = rows(name, exact.normalized(x.float())).detach()
    torch.testing.assert_close(
        z, expected, rtol=0, atol=1e-5 * max(1.0, float(expected.abs().max()))
    )


@EVERY
def test_prefix_tokens_are_marked_on_tokens_only(name):
    marked = observed(made(name), batch(name), prefix=1).kinds.tolist()
    assert marked == [0 if name.endswith("_2d") else 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("name", ["learnable_scaler", "rep_batch_norm", "rep_batch_norm_2d"])
def test_a_channel_without_slope_keeps_its_offset(name):
    norm, x = made(name), batch(name)
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter[:1] = 0
        norm.bias[0] = 0.75
    seen = observed(norm, x)
    weight, bias = affine_of(norm, 8)
    assert float(norm.eval_affine()[0][0]) == 0
    torch.testing.assert_close(weight * normalized(seen) + bias, seen.y.double(), rtol=0, atol=1e-5)


def test_lines_are_handed_on_as_lines():
    found = []
    norm = made("batch_norm")
    with (
        tap(nn.Sequential(norm), "*", lambda _, __, seen: found.append(seen.norm)) as hooks,
        torch.no_grad(),
    ):
        hooks.begin(BatchContext(np.arange(3), np.arange(3)))
        norm(batch("batch_norm"))
    assert isinstance(found[0], PlaneNorm)
    assert found[0].fixed


class Zoo(nn.Module):
    """All norms of the registry side by side, on tokens and on the same tokens as images."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({name: made(name) for name in list_norms()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        image = x.transpose(1, 2).reshape(len(x), 8, 2, 3)
        return sum(
            norm(image if name.endswith("_2d") else x).sum() for name, norm in self.norms.items()
        )


def test_a_model_of_all_norms_is_captured_and_fitted(tmp_path):
    """Every layer has a status, affine ones exact slopes, and the output is weight * normalized +
    bias to rounding.
    """
    batches = [batch("dyt", images=8, seed=seed) for seed in range(4)]
    run = probe.capture(Zoo().eval(), batches, out=tmp_path / "zoo", samples=64, num_images=32)
    fits = probe.fit(run, families=["tanh"])
    layers = run.layers.set_index("layer")
    assert list(layers["kind"]) == list_norms()
    assert (layers["status"] == "captured").all()
    assert max(layer["affine_error"] for layer in run.manifest["layers"]) < 1e-5
    affine = layers.index[layers["affine"]]
    assert {name.removeprefix("norms.").removesuffix("_2d") for name in affine} == LINES
    moments = run.moments()
    moments = moments[moments["layer"].isin(affine)]
    assert moments["slope"].notna().all()
    z = moments["slope"] * moments["mean_input"] + moments["offset"]
    np.testing.assert_allclose(
        moments["weight"] * z + moments["bias"], moments["mean_output"], rtol=0, atol=1e-4
    )
    status = (
        fits[(fits["scope"] == "layer") & (fits["weighting"] == "population")]
        .groupby("layer")["status"]
        .first()
    )
    assert set(status[affine]) == {"affine"}
    assert isinstance(fits, pd.DataFrame)
    assert not set(status) & {"not_finite", "not_called", "too_few"}
