"""A norm with a curve of its own is one class in the registry; nothing else is edited for it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import probe
from probe.curves import FAMILIES, Family, predict
from probe.jobs.capturing.capture import capture
from probe.jobs.converting.convert import convert
from probe.jobs.converting.converted_file import load_converted
from probe.jobs.fitting.fit import fit
from probe.jobs.replacing.replace import replace_norms
from probe.norms.registry import NORMS
from probe.records import main_fits
from support.captures import arrays, straight_layer, token_batches
from support.classifiers import VIT, crops
from support.third_party import Softsign


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(NORMS, "softsign", Softsign)
    return "softsign"


def test_it_starts_as_the_curves_of_its_family_in_a_run(vit_run, registered):
    """Scope `layer`: alpha, gamma and beta of the run, behind them the affine of the layer."""
    fits = main_fits(vit_run.fits(), family="softsign")
    curved = fits[fits["alpha"].notna()]
    vit = probe.load_model(VIT)
    report = replace_norms(vit, registered, alphas=vit_run, scope="layer").report
    assert report.query("reason == ''")["layer"].tolist() == curved["layer"].tolist()
    assert len(curved) >= 3
    row = curved.iloc[0]
    own = vit.module.get_submodule(row["layer"])
    x = np.linspace(-9, 9, 7)
    z = predict("softsign", x, row["alpha"], None, row["gamma"], row["beta"])
    w, b = (vit_run.moments(row["layer"])[name].to_numpy() for name in ("weight", "bias"))
    output = own(torch.from_numpy(x).float()[:, None].expand(7, 128)).detach().numpy()
    np.testing.assert_allclose(output, z[:, None] * w + b, atol=1e-4, rtol=1e-4)


def test_its_class_starts_as_the_curve_per_channel(vit_run):
    """Nearer to the layer than any line per channel; no registration is needed."""
    fits = vit_run.fits().query("family == 'tanh' and scope == 'channel' and alpha.notna()")
    layer, vit = fits["layer"].iloc[0], probe.load_model(VIT)
    report = replace_norms(vit, Softsign, layers=layer, alphas=vit_run).report
    assert report[["new", "status", "reason"]].values.tolist() == [["Softsign", "replaced", ""]]
    x, y = arrays(vit_run, layer, "input", "output")
    error = vit.module.get_submodule(layer)(torch.from_numpy(x.copy())).detach().numpy() - y
    dx, dy = x - x.mean(0), y - y.mean(0)
    slope = (dx * dy).sum(0) / (dx * dx).sum(0)
    assert (error**2).sum() < ((dy - slope * dx) ** 2).sum()


def test_its_lines_are_lines(tmp_path, registered):
    """A softsign bends at once: a line takes a smaller part of it than of a tanh."""
    module, run = straight_layer(tmp_path / "run")
    row = main_fits(run.fits(), family="softsign").iloc[0]
    report = replace_norms(module, registered, alphas=run, scope="layer").report
    assert report["reason"].tolist() == ["line: the layer has no alpha"]
    w, b = (run.moments("0")[name].to_numpy() for name in ("weight", "bias"))
    x = arrays(run, "0", "input")[0]
    output = module[0](torch.from_numpy(x.copy())).detach().numpy()
    rise = output - (w * row["beta"] + b)
    np.testing.assert_allclose(rise, w * row["slope"] * x, rtol=2e-3, atol=2e-3)


def test_a_model_is_converted_to_it_saved_and_loaded(vit_run, registered, tmp_path):
    done = convert(
        vit_run,
        registered,
        out=tmp_path / "m.safetensors",
        layers="blocks.0.norm1,norm",
        num_images=2,
        curves="all",
    )
    assert set(done.table["family"]) == {"softsign"}
    assert type(done.model.module.norm) is Softsign
    images = crops(2)
    with torch.no_grad():
        assert torch.equal(
            load_converted(tmp_path / "m.safetensors").module(images), done.model.module(images)
        )


def gudermannian(u):
    """f, f' = 1 / cosh(u) and f'' of f(u) = 2 atan(tanh(u / 2))."""
    decay = np.exp(-np.abs(u))
    slope = 2 * decay / (1 + decay * decay)
    return 2 * np.arctan(np.tanh(u / 2)), slope, -slope * np.tanh(u)


class Gudermannian(Softsign):
    families = ("gudermannian",)

    def normalized(self, x):
        return 2 * torch.atan(torch.tanh(self.sharpness * x / 2))


def test_a_new_family_is_one_entry(monkeypatch, tmp_path):
    """It is fitted with the others, and a norm starts as its fits."""
    family = Family("gudermannian", gudermannian, lambda u: gudermannian(u)[0], math.acosh(2))
    monkeypatch.setitem(FAMILIES, family.name, family)
    monkeypatch.setitem(NORMS, family.name, Gudermannian)
    run = capture(nn.Sequential(nn.LayerNorm(8)), token_batches(), out=tmp_path / "run")
    assert family.name in set(fit(run)["family"])
    for scope in ("layer", "channel"):
        module = nn.Sequential(nn.LayerNorm(8))
        report = replace_norms(module, family.name, alphas=run, scope=scope).report
        assert isinstance(module[0], Gudermannian)
        assert report["reason"].tolist() == [""]
        alphas = run.fits().query("family == @family.name and scope == 'layer'")["alpha"]
        assert scope == "channel" or module[0].sharpness.item() in alphas.astype("f4").tolist()
