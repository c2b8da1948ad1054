"""Exported alphas stand in for the layers they come from."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from torch import nn

from probe.errors import UsageError
from probe.jobs.capturing.capture import capture
from probe.jobs.replacing.export import dyt_state, export_alphas
from probe.norms import DyT
from support.captures import Tokens, token_batches


def dyt_from(path, layer):
    """The exported DyT of a layer."""
    with safe_open(path, "np") as file:
        state = {
            name: torch.from_numpy(file.get_tensor(f"{layer}.{name}").copy())
            for name in ("alpha", "weight", "bias")
        }
        metadata = file.metadata()
    module = DyT(len(state["weight"]))
    module.load_state_dict(state)
    return module, metadata


def uniform(run, layer):
    rows = run.samples(layer, stratum="uniform")
    channels = rows["channel"].nunique()
    return [
        torch.from_numpy(rows[name].to_numpy().reshape(channels, -1).T.copy())
        for name in ("input", "output")
    ]


@pytest.fixture
def dyt_run(tmp_path):
    module = DyT(8, alpha_init=0.7)
    with torch.no_grad():
        module.weight.copy_(torch.linspace(-2, 2, 8))
        module.bias.copy_(torch.linspace(1, 3, 8))
    return capture(nn.Sequential(module), token_batches(), out=tmp_path / "run")


@pytest.mark.parametrize("scope", ["channel", "layer"])
def test_the_exported_dyt_of_a_dyt_is_that_dyt(dyt_run, scope, tmp_path):
    path = export_alphas(dyt_run, tmp_path / "alpha.safetensors", scope=scope)
    module, metadata = dyt_from(path, "0")
    assert json.loads(metadata["stand_in"]) == {"0": "tanh"}
    x, y = uniform(dyt_run, "0")
    torch.testing.assert_close(module(x).detach(), y, atol=2e-3, rtol=0)


def test_a_linear_layer_is_exported_as_its_line(tmp_path):
    run = capture(
        nn.Sequential(nn.BatchNorm1d(8)).eval(),
        [b[:, 0] for b in token_batches(160)],
        out=tmp_path / "run",
    )
    path = export_alphas(run, tmp_path / "alpha.safetensors")
    module, metadata = dyt_from(path, "0")
    assert json.loads(metadata["stand_in"]) == {"0": "line"}
    x, y = uniform(run, "0")
    largest = run.moments()["max_input"].max()
    torch.testing.assert_close(module(x).detach(), y, atol=float(largest) * 1e-3, rtol=0)


def test_stand_ins_of_a_vit_err_less_than_its_lines(vit_run):
    """In the layers with an alpha of scope channel, the exported DyT is nearer to the output than
    the best line per channel.
    """
    arrays, metadata = dyt_state(vit_run)
    tanh = [name for name, form in metadata["stand_in"].items() if form == "tanh"]
    assert len(tanh) >= 3
    for layer in tanh:
        x, y = (t.numpy().astype(np.float64) for t in uniform(vit_run, layer))
        alpha, weight, bias = (
            arrays[f"{layer}.{name}"].astype(np.float64) for name in ("alpha", "weight", "bias")
        )
        dx, dy = x - x.mean(0), y - y.mean(0)
        slope = (dx * dy).sum(0) / (dx * dx).sum(0)
        assert ((weight * np.tanh(alpha * x) + bias - y) ** 2).sum() <= (
            (dy - slope * dx) ** 2
        ).sum()


def test_layers_without_a_curve_or_line_are_left_out_and_listed(tmp_path):
    run = capture(Tokens(), token_batches(), out=tmp_path / "run")
    arrays, metadata = state_after_export(run)
    assert metadata["left_out"] == {"unused": "not_called"}
    assert not any(name.startswith("unused") for name in arrays)


def state_after_export(run):
    export_alphas(run, run.path / "alpha.safetensors")
    return dyt_state(run)


def test_tables_are_exported_as_csv_and_json(vit_run, tmp_path):
    csv = pd.read_csv(export_alphas(vit_run, tmp_path / "a.csv"))
    rows = json.loads(export_alphas(vit_run, tmp_path / "a.json").read_text())
    assert (
        csv["layer"].tolist() == [row["layer"] for row in rows] == vit_run.layers["layer"].tolist()
    )
    assert [row["alpha"] for row in rows] == [
        None if np.isnan(a) else pytest.approx(a) for a in csv["alpha"]
    ]


def test_export_fits_first_where_nothing_is_fitted(tmp_path):
    run = capture(Tokens(), token_batches(), out=tmp_path / "run")
    export_alphas(run, tmp_path / "alpha.csv")
    assert (run.path / "fits.parquet").exists()


@pytest.mark.parametrize(
    ("path", "scope", "message"),
    [
        ("a.txt", "channel", r"--to .*a\.txt: must end in \.csv, \.json or \.safetensors"),
        ("a.csv", "token", "--scope 'token' is unknown"),
    ],
)
def test_wrong_exports_get_one_line(path, scope, message, vit_run, tmp_path):
    with pytest.raises(UsageError, match=message):
        export_alphas(vit_run, tmp_path / path, scope=scope)
