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
from support.captures import arrays, token_batches
from support.classifiers import VIT, crops
from support.third_party import Softsign


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(NORMS, "softsign", Softsign)
    return "softsign"


@pytest.mark.parametrize("given", ["by name", "as class"])
@pytest.mark.parametrize("scope", ["channel", "layer"])
def test_it_starts_as_the_curves_of_its_family_in_a_run(given, scope, vit_run, registered):
    norm = registered if given == "by name" else Softsign
    fits = vit_run.fits().query("family == 'softsign' and weighting == 'population'")
    curved = fits.query("scope == 'layer' and tokens == 'all' and alpha.notna()")
    vit = probe.load_model(VIT)
    done = replace_norms(vit, norm, alphas=vit_run, scope=scope)
    assert set(done.report["status"]) == {"replaced"}
    curves = done.report.query("reason == ''")["layer"].tolist()
    assert len(curves) >= 3
    if scope == "layer":
        assert curves == curved["layer"].tolist()
        row, own = curved.iloc[0], vit.module.get_submodule(curves[0])
        assert own.sharpness.item() == pytest.approx(row["alpha"], rel=1e-6)
        x = np.linspace(-9, 9, 7)
        z = predict("softsign", x, row["alpha"], None, row["gamma"], row["beta"])
        w, b = (vit_run.moments(curves[0])[name].to_numpy() for name in ("weight", "bias"))
        played = own(torch.from_numpy(x).float()[:, None].expand(7, 128)).detach().numpy()
        np.testing.assert_allclose(played, z[:, None] * w + b, atol=1e-4, rtol=1e-4)
    else:
        x, y = (torch.from_numpy(v.copy()) for v in arrays(vit_run, curves[0], "input", "output"))
        error = (vit.module.get_submodule(curves[0])(x) - y).detach()
        assert float(error.var() / y.var()) < 0.2


def test_its_lines_are_lines(vit_run, registered):
    """A softsign bends at once: the line of a layer takes a smaller part of it than of a tanh."""
    vit = probe.load_model(VIT)
    done = replace_norms(vit, registered, alphas=vit_run)
    lines = done.report.query("reason == 'line: the layer has no alpha'")["layer"]
    assert len(lines)
    for layer in lines:
        channels, moments = vit_run.channel_fits(layer), vit_run.moments(layer)
        w, b = (moments[name].to_numpy() for name in ("weight", "bias"))
        x = torch.from_numpy(arrays(vit_run, layer, "input")[0].copy())
        slope, offset = (channels[name].to_numpy() for name in ("slope", "offset"))
        expected = w * slope * x.numpy()
        rise = vit.module.get_submodule(layer)(x).detach().numpy() - (w * offset + b)
        np.testing.assert_allclose(rise, expected, rtol=2e-3, atol=2e-4)


def test_a_model_is_converted_to_it_saved_and_loaded(vit_run, registered, tmp_path):
    done = convert(
        vit_run,
        registered,
        out=tmp_path / "m.safetensors",
        layers="blocks.[01].norm1,norm",
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
