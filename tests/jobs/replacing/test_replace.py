"""Norms replaced by the curves that were fitted to them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import probe
from probe.curves import StandIn
from probe.errors import UsageError
from probe.jobs.capturing.capture import capture
from probe.jobs.fitting.fit import fit
from probe.jobs.replacing.alpha_files import file_stand_ins
from probe.jobs.replacing.export import export_alphas
from probe.jobs.replacing.replace import replace_norms
from probe.jobs.replacing.stand_ins import run_stand_ins
from probe.models.loading.weights import fingerprint
from probe.norms import DyT
from support.captures import Tokens, arrays, straight_layer, token_batches


@pytest.fixture
def vit():
    return probe.load_model("bundled:vit_cifar10")


def parameters(module, layer):
    norm = module.get_submodule(layer)
    return [value.detach().double().numpy() for value in (norm.alpha, norm.weight, norm.bias)]


def alpha_rows(run):
    return {row["layer"]: row for row in run.alphas().to_dict("records")}


def layers_with(run, column):
    return [name for name, row in alpha_rows(run).items() if pd.notna(row[column])]


def test_a_fitted_dyt_has_the_alpha_of_the_run_and_the_trained_affine(vit, vit_run):
    """By hand: weight = w gamma_c, bias = w beta_c + b with the layer's w, b and the run's alpha,
    gamma, beta per channel.
    """
    norms = {
        name: module
        for name, module in vit.module.named_modules()
        if isinstance(module, nn.LayerNorm)
    }
    done = replace_norms(vit, "dyt", alphas=vit_run)
    assert done.report["init"].tolist() == ["fitted"] * 17
    curved = layers_with(vit_run, "alpha_channel")
    assert len(curved) >= 3
    for layer in curved:
        w, b = (
            value.detach().double().numpy() for value in (norms[layer].weight, norms[layer].bias)
        )
        channels = vit_run.channel_fits(layer)
        alpha, weight, bias = parameters(vit.module, layer)
        np.testing.assert_allclose(alpha, [alpha_rows(vit_run)[layer]["alpha_channel"]], rtol=1e-6)
        np.testing.assert_allclose(weight, w * channels["gamma"], rtol=1e-6)
        np.testing.assert_allclose(bias, w * channels["beta"] + b, rtol=1e-5, atol=1e-6)


def test_a_layer_without_alpha_gets_its_line(tmp_path):
    module, run = straight_layer(tmp_path / "run")
    w, b = (each.detach().double().numpy() for each in (module[0].weight, module[0].bias))
    report = replace_norms(module, "dyt", alphas=run).report.set_index("layer")
    assert report["reason"].to_dict() == {"0": "line: the layer has no alpha"}
    channels, moments = run.channel_fits("0"), run.moments("0")
    alpha, weight, bias = parameters(module, "0")
    largest = moments[["min_input", "max_input"]].abs().to_numpy().max()
    np.testing.assert_allclose(alpha, 0.05 / largest, rtol=1e-6)
    np.testing.assert_allclose(weight * alpha, w * channels["slope"], rtol=1e-5)
    np.testing.assert_allclose(bias, w * channels["offset"] + b, rtol=1e-5, atol=1e-6)


def test_scope_layer_has_one_gamma_and_beta(vit, vit_run):
    norms = dict(vit.module.named_modules())
    replace_norms(vit, "dyt", alphas=vit_run, scope="layer")
    curved = layers_with(vit_run, "alpha")
    assert curved
    for layer in curved:
        row = alpha_rows(vit_run)[layer]
        w, b = (
            value.detach().double().numpy() for value in (norms[layer].weight, norms[layer].bias)
        )
        alpha, weight, bias = parameters(vit.module, layer)
        np.testing.assert_allclose(alpha, [row["alpha"]], rtol=1e-6)
        np.testing.assert_allclose(weight, w * row["gamma"], rtol=1e-6)
        np.testing.assert_allclose(bias, w * row["beta"] + b, rtol=1e-5, atol=1e-6)


def states(vit, **options):
    done = replace_norms(vit, "dyt", **options)
    state = {name: value.clone() for name, value in vit.module.state_dict().items()}
    done.undo()
    return state


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.mark.parametrize("scope", ["channel", "layer"])
def test_the_exported_file_gives_what_the_run_gives(vit, vit_run, scope, tmp_path):
    path = export_alphas(vit_run, tmp_path / "alpha.safetensors", scope=scope)
    from_run = states(vit, alphas=vit_run, scope=scope)
    assert same(states(vit, alphas=path), from_run)
    assert same(states(vit, alphas=str(vit_run.path), scope=scope), from_run)


@pytest.mark.parametrize("kind", ["csv", "json", "DataFrame"])
def test_a_table_gives_what_scope_layer_gives(vit, vit_run, kind, tmp_path):
    alphas = (
        vit_run.alphas()
        if kind == "DataFrame"
        else export_alphas(vit_run, tmp_path / f"alpha.{kind}")
    )
    assert same(states(vit, alphas=alphas), states(vit, alphas=vit_run, scope="layer"))


def test_the_affine_is_that_of_the_model_at_hand(vit, vit_run):
    """Not the one that the run saw: the model may have learnt since."""
    with torch.no_grad():
        vit.module.norm.weight.mul_(2)
        vit.module.norm.bias.add_(1)
    expected, _ = run_stand_ins(vit_run)
    w, b = (vit_run.moments("norm")[name].to_numpy() for name in ("weight", "bias"))
    beta = (expected["norm"].bias - b) / w
    replace_norms(vit, "dyt", alphas=vit_run)
    np.testing.assert_allclose(
        parameters(vit.module, "norm")[1], 2 * expected["norm"].weight, rtol=1e-5
    )
    np.testing.assert_allclose(
        parameters(vit.module, "norm")[2], 2 * w * beta + b + 1, rtol=1e-4, atol=1e-4
    )


def test_a_run_that_is_not_fitted_yet_is_fitted_first(tmp_path):
    run = capture(Tokens(), token_batches(), out=tmp_path / "run")
    module = Tokens()
    report = replace_norms(module, "dyt", alphas=run).report.set_index("layer")
    assert (run.path / "fits.parquet").exists()
    assert report.loc["unused"].tolist() == [
        "layer_norm",
        "",
        8,
        "",
        "kept",
        "no stand-in: not_called",
    ]
    assert set(report["status"].drop("unused")) == {"replaced"}
    assert isinstance(module.unused, nn.LayerNorm)


def test_a_model_of_dyts_takes_the_dyts_that_were_fitted_to_it(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(DyT(8, alpha_init=0.7))
    with torch.no_grad():
        module[0].weight.copy_(torch.linspace(-2, 2, 8))
        module[0].bias.copy_(torch.linspace(1, 3, 8))
    run = capture(module, token_batches(), out=tmp_path / "run")
    before = {name: value.clone() for name, value in module.state_dict().items()}
    done = replace_norms(module, "dyt", alphas=run)
    assert done.report["old"].tolist() == ["dyt"]
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, before[name], atol=2e-3, rtol=2e-3)


@pytest.fixture
def batch_norm_run(tmp_path):
    """BatchNorm on (B, C, H, W), and its run."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6)).eval()
    for name, tensor in (*module[1].named_parameters(), *module[1].named_buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.5 if name != "bias" else 2)
    images = list(torch.randn(24, 3, 8, 8).split(8))
    return module, images, capture(module, images, out=tmp_path / "run", samples=32)


def test_affine_layers_become_lines_and_a_scaler_keeps_them_exactly(batch_norm_run):
    module, images, run = batch_norm_run
    x = torch.cat(images)
    with torch.no_grad():
        before = module(x)
        for name, atol in (("learnable_scaler", 1e-5), ("dyt", 0.05)):
            with replace_norms(module, name, alphas=run) as done:
                assert done.report["new"].tolist() == [f"{name}_2d"]
                torch.testing.assert_close(module(x), before, atol=atol, rtol=0)


def test_a_table_has_no_lines_of_affine_layers(batch_norm_run):
    module, _, run = batch_norm_run
    fit(run)
    with pytest.raises(
        UsageError,
        match="affine: a table holds no line per channel; give the run or its .safetensors",
    ):
        replace_norms(module, "dyt", alphas=run.alphas())


@pytest.mark.parametrize(("name", "family"), [("derf", "erf_shift"), ("dyisru", "isru")])
def test_other_curves_come_from_their_own_fits(vit, vit_run, name, family):
    """Scope `layer` of a run that fitted them; here the line and the curve agree with the fit at
    three points.
    """
    fits = vit_run.fits().query(
        "family == @family and scope == 'layer' and weighting == 'population' and tokens == 'all'"
    )
    norms = dict(vit.module.named_modules())
    report = replace_norms(vit, name, alphas=vit_run, scope="layer").report.set_index("layer")
    curved = fits[fits["alpha"].notna()]
    assert len(curved)
    assert (report["reason"] == "").sum() == len(curved)
    for row in curved.to_dict("records"):
        x = torch.tensor([-10.0, 0.3, 5.0]).double()[:, None].expand(3, 128)
        u = row["alpha"] * x + (row["shift"] if family == "erf_shift" else 0.0)
        z = (
            row["gamma"] * (torch.erf(u) if family == "erf_shift" else u / (1 + u * u).sqrt())
            + row["beta"]
        )
        w, b = (
            value.detach().double()
            for value in (norms[row["layer"]].weight, norms[row["layer"]].bias)
        )
        with torch.no_grad():
            torch.testing.assert_close(
                vit.module.get_submodule(row["layer"])(x.float()).double(),
                w * z + b,
                # float32 of a curve on its edge, where gamma and beta all but cancel
                atol=1e-4 + 2e-7 * abs(row["gamma"]) * float(w.abs().max()),
                rtol=1e-4,
            )


@pytest.mark.parametrize(("name", "family"), [("derf", "erf"), ("dyisru", "isru")])
def test_other_curves_per_channel_are_fitted_to_the_samples(vit, vit_run, name, family):
    """The alpha is that of the run's fit, weight and bias are the least-squares ones on the layer's
    output.
    """
    fits = vit_run.fits().query("family == @family and scope == 'channel' and alpha.notna()")
    layer, alpha = fits.iloc[0][["layer", "alpha"]]
    replace_norms(vit, name, layers=layer, alphas=vit_run)
    norm = vit.module.get_submodule(layer)
    assert (norm.alpha if name == "derf" else norm.beta**-0.5).item() == pytest.approx(
        alpha, rel=1e-3
    )
    x, y = (
        torch.from_numpy(values.copy()).double()
        for values in arrays(vit_run, layer, "input", "output")
    )
    curve = torch.erf(alpha * x) if name == "derf" else alpha * x / (1 + (alpha * x) ** 2).sqrt()
    for channel in (0, 40, 127):
        weight, bias = np.polyfit(curve[:, channel].numpy(), y[:, channel].numpy(), 1)
        played = norm(x.float()).detach()[:, channel].numpy()
        np.testing.assert_allclose(played, weight * curve[:, channel].numpy() + bias, atol=2e-3)


def test_a_curve_of_a_family_that_was_not_fitted_is_refused(tmp_path):
    run = capture(Tokens(), token_batches(), out=tmp_path / "run")
    fit(run, families=["tanh"])
    with pytest.raises(
        UsageError, match="was fitted without isru .it holds linear, tanh.: `probe-norms fit "
    ):
        replace_norms(Tokens(), "dyisru", alphas=run, scope="layer")


def test_stand_ins_can_be_handed_in(vit):
    """Whoever fits another curve passes it on as records."""
    stand_in = StandIn("norm", "erf_shift", 0.3, 0.1, np.ones(128), np.zeros(128))
    report = replace_norms(vit, "derf", alphas={"norm": stand_in}).report
    assert report.query("status == 'replaced'")["layer"].tolist() == ["norm"]
    assert vit.module.norm.shift.item() == pytest.approx(0.1)


def test_a_module_called_twice_has_no_single_curve(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.mix, self.last = nn.LayerNorm(8), nn.Linear(8, 8), nn.LayerNorm(8)

        def forward(self, x):
            return self.last(self.norm(self.mix(self.norm(x))))

    module = Twice()
    run = capture(module, token_batches(), out=tmp_path / "run")
    report = replace_norms(module, "dyt", alphas=run).report
    assert report["status"].tolist() == ["kept", "replaced"]
    assert "called 2 times in a forward pass, each with a curve of its own" in report["reason"][0]


def test_a_loaded_model_says_that_its_norms_were_replaced(vit):
    before = (vit.fingerprint, vit.source)
    done = replace_norms(vit, "dyt", layers="blocks.0.*")
    assert vit.fingerprint == fingerprint(vit.module) != before[0]
    assert vit.source.endswith("; 2 norms replaced by dyt (default)")
    done.undo()
    assert (vit.fingerprint, vit.source) == before


def test_the_start_is_default_without_alphas_and_fitted_with_them(vit, vit_run):
    for options, init in (
        ({}, "default"),
        ({"alphas": vit_run}, "fitted"),
        ({"init": "match"}, "match"),
    ):
        with replace_norms(vit, "dyt", **options) as done:
            assert set(done.report["init"]) == {init}


def test_a_captured_replacement_is_curved_again(vit, vit_run, tmp_path):
    """The layers of the replaced model are DyT, with the alphas that were put in."""
    layers = layers_with(vit_run, "alpha_channel")[:2]
    replace_norms(vit, "dyt", layers=",".join(layers), alphas=vit_run)
    run = capture(vit, out=tmp_path / "run", num_images=8, samples=32, layers=",".join(layers))
    assert run.layers["kind"].tolist() == ["dyt", "dyt"]


def broken(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda run, tmp: {"alphas": tmp / "nothing.csv"},
            "nothing.csv' cannot be read as a table",
        ),
        (
            lambda run, tmp: {"alphas": broken(tmp, "a.csv", b"layer,alpha\nnorm,0.5\n")},
            "has no column gamma, beta",
        ),
        (
            lambda run, tmp: {"alphas": broken(tmp, "a.json", b"{nonsense")},
            "a.json' cannot be read as a table",
        ),
        (
            lambda run, tmp: {"alphas": broken(tmp, "a.safetensors", b"nonsense")},
            "a.safetensors' cannot be read",
        ),
        (
            lambda run, tmp: {"alphas": broken(tmp, "a.txt", b"")},
            "accepted: the folder of a run, or a file ending in .csv, .json",
        ),
        (
            lambda run, tmp: {"alphas": tmp / "nothing"},
            "nothing does not exist; give the folder of a run",
        ),
        (lambda run, tmp: {"alphas": 3}, "alphas of type int; accepted: a run, a table or a file"),
        (
            lambda run, tmp: {"alphas": pd.concat([run.alphas()] * 2)},
            "has several rows of one layer",
        ),
        (
            lambda run, tmp: {"alphas": run.alphas(), "scope": "channel"},
            "a table of alphas has no curve per channel",
        ),
        (
            lambda run, tmp: {"alphas": run.alphas(), "name": "derf"},
            "a table of alphas holds curves of tanh, for dyt.*: give the run",
        ),
        (
            lambda run, tmp: {"alphas": run, "scope": "head"},
            "scope 'head' is unknown.*known: channel, layer",
        ),
        (lambda run, tmp: {"scope": "layer"}, "scope says how alphas are used; give alphas"),
        (
            lambda run, tmp: {"alphas": run, "init": "match"},
            "alphas are given, but init 'match' does not use them",
        ),
        (
            lambda run, tmp: {"alphas": run, "name": "layer_norm"},
            "init 'fitted' is for dyt, derf, dyisru, learnable_scaler",
        ),
        (lambda run, tmp: {"init": "fitted"}, "init 'fitted' needs fitted curves: give alphas="),
        (
            lambda run, tmp: {"module": "vit_tiny"},
            "a str is no model; give an nn.Module or what load_model returns",
        ),
        (
            lambda run, tmp: {"alphas": run, "module": nn.Sequential(nn.LayerNorm(4))},
            r"the alphas do not name the layer \(they name blocks.0.norm1, .*\.\.\.\)",
        ),
        (
            lambda run, tmp: {"alphas": run, "module": nn.ModuleDict({"norm": nn.LayerNorm(4)})},
            "the alphas are of another model: norm has 4 channels, theirs 128",
        ),
        (
            lambda run, tmp: {
                "alphas": run.alphas(),
                "module": nn.ModuleDict({"norm": nn.LayerNorm(4)}),
            },
            "the alphas are of another model: norm has 4 channels, theirs 128",
        ),
    ],
)
def test_wrong_replacements_get_one_line(make, message, vit_run, tmp_path):
    options = {"module": nn.Sequential(nn.LayerNorm(128)), "name": "dyt"} | make(vit_run, tmp_path)
    with pytest.raises(UsageError, match=message) as caught:
        replace_norms(**options)
    assert "\n" not in str(caught.value)


def test_a_file_without_dyts_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"norm.weight": np.ones(3, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match="holds no <layer>.alpha .weight .bias"):
        replace_norms(nn.Sequential(nn.LayerNorm(3)), "dyt", alphas=tmp_path / "model.safetensors")


def test_a_file_may_name_its_curves_as_older_ones_did(tmp_path):
    """`line` and `erf`, whose shift is in `.shift`; `tanh` where nothing is said."""
    from safetensors.numpy import save_file

    parts = {"alpha": [0.3], "weight": [1.0, 2.0], "bias": [0.5, 0.5]}
    state = {
        f"{layer}.{name}": np.array(value, np.float32)
        for layer in "abc"
        for name, value in parts.items()
    }
    state["b.shift"] = np.array([0.25], np.float32)
    names = {"stand_in": json.dumps({"a": "line", "b": "erf"})}
    save_file(state, tmp_path / "alpha.safetensors", metadata=names)
    stand_ins, _ = file_stand_ins(tmp_path / "alpha.safetensors")
    read = {layer: (each.family, each.shift) for layer, each in stand_ins.items()}
    assert read == {"a": ("linear", 0.0), "b": ("erf_shift", 0.25), "c": ("tanh", 0.0)}
    module = nn.ModuleDict({layer: nn.LayerNorm(2) for layer in "ab"})
    replace_norms(module, "derf", alphas=tmp_path / "alpha.safetensors")
    assert module["b"].shift.item() == 0.25


def test_a_file_tells_what_was_left_out(tmp_path):
    run = capture(Tokens(), token_batches(), out=tmp_path / "run")
    path = export_alphas(run, tmp_path / "alpha.safetensors")
    report = replace_norms(Tokens(), "dyt", alphas=path).report.set_index("layer")
    assert report.loc["unused", "reason"] == "no stand-in: not_called"


def test_alphas_of_json_may_be_null(tmp_path):
    _, run = straight_layer(tmp_path / "run")
    rows = json.loads(export_alphas(run, tmp_path / "a.json").read_text())
    assert any(row["alpha"] is None for row in rows)


def test_the_fitted_dyt_is_nearer_to_the_layer_than_the_default(vit, vit_run):
    """On the run's own inputs of the layers with an alpha."""
    originals = dict(vit.module.named_modules())
    layer = layers_with(vit_run, "alpha_channel")[0]
    x, y = (torch.from_numpy(values.copy()) for values in arrays(vit_run, layer, "input", "output"))
    errors = {}
    for init, alphas in (("default", None), ("match", None), ("fitted", vit_run)):
        with replace_norms(vit, "dyt", init=init, alphas=alphas, layers=layer), torch.no_grad():
            errors[init] = float((vit.module.get_submodule(layer)(x) - y).square().mean())
    assert errors["fitted"] < 0.5 * min(errors["default"], errors["match"])
    assert vit.module.get_submodule(layer) is originals[layer]
