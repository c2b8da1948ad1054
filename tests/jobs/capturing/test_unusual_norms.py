"""Norms that are not what they seem, from the capture to the table of the terminal and the page."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import probe
from probe.cli.views.capture import show_capture
from probe.cli.views.run import show_run
from probe.store.run import Run

C = 8


class LeakyLayerNorm(nn.LayerNorm):
    def forward(self, x):
        return F.leaky_relu(super().forward(x))


class MysteryNorm(nn.Module):
    def forward(self, x):
        return x.sort().values


class DyT(nn.Module):
    """As the paper lists it."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor([0.75]))
        self.gamma, self.beta = (nn.Parameter(torch.rand(C) + 0.5) for _ in range(2))

    def forward(self, x):
        return self.gamma * torch.tanh(self.alpha * x) + self.beta


class PerChannelDyT(DyT):
    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((C,), 0.75))


PerChannelDyT.__name__ = "DyT"


def batches() -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return [3 * torch.randn(4, 5, C, generator=rng) for _ in range(4)]


def captured(place, *norms: nn.Module) -> Run:
    return probe.capture(nn.Sequential(*norms), batches(), out=place)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    place = tmp_path_factory.mktemp("unusual") / "run"
    run = captured(place, nn.LayerNorm(C), LeakyLayerNorm(C), MysteryNorm(), DyT())
    probe.fit(run)
    return run


@pytest.mark.parametrize("show", [show_run, show_capture])
def test_the_terminal_has_a_column_for_an_output_that_is_not_w_z_plus_b(
    show, run, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "200")
    show(run, False)
    printed = capsys.readouterr().out
    (header,) = (line for line in printed.splitlines() if line.startswith("layer "))
    at = re.split(r"\s\s+", header.strip()).index("output off")
    rows = [line for line in printed.splitlines() if re.match(r"\d  ", line)]
    cells = {row[0]: re.split(r"\s\s+", row.strip())[at] for row in rows}
    assert cells.pop("1").startswith("0.")
    assert set(cells.values()) == {"-"}
    assert "output is not weight * normalized + bias where the table has an error" in printed
    assert "not read, though by its name a normalization layer: 2 (MysteryNorm)" in printed


def test_the_page_has_the_column_and_the_notes(run):
    [page] = probe.report(run)
    text = page.read_text(encoding="utf-8")
    assert "output off" in text
    assert "Output is not weight * normalized + bias where the table has an error" in text
    assert "Not read, though by its name a normalization layer: 2 (MysteryNorm)" in text


def test_json_has_the_error_of_each_layer_and_what_was_not_read(run, capsys):
    show_run(run, True)
    document = json.loads(capsys.readouterr().out)
    errors = {layer["layer"]: layer["output_error"] for layer in document["layers"]}
    assert errors.pop("1") == pytest.approx(run.manifest["layers"][1]["affine_error"])
    assert set(errors.values()) == {None}
    assert document["not_read"] == {"2": "MysteryNorm"}


def test_a_run_of_usual_norms_has_no_such_column(tmp_path, capsys):
    show_capture(captured(tmp_path / "run", nn.LayerNorm(C)), False)
    printed = capsys.readouterr().out
    assert "output" not in printed
    assert "not read" not in printed


def test_the_alpha_of_a_layer_itself_stands_in_run_layers_and_manifest(run):
    alphas = run.layers.set_index("layer")["own_alpha"]
    assert alphas["3"] == 0.75
    assert alphas[["0", "1"]].isna().all()
    assert [layer["own_alpha"] for layer in run.manifest["layers"]] == [None, None, 0.75]


def test_the_alpha_of_norms_of_the_zoo_is_there_and_many_alphas_are_none(tmp_path):
    derf = probe.norms.create_norm("derf", C, alpha_init=0.25)
    run = captured(tmp_path / "run", derf, PerChannelDyT())
    assert [layer["kind"] for layer in run.manifest["layers"]] == ["derf", "dyt"]
    assert [layer["own_alpha"] for layer in run.manifest["layers"]] == [0.25, None]
