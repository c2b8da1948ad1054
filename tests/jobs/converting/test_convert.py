"""Converting a pretrained model without training: what is replaced, and what it costs."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import probe
from probe.errors import ProbeError, UsageError
from probe.jobs.capturing.capture import capture
from probe.jobs.converting.convert import convert
from probe.jobs.converting.curves import conversion_curves
from probe.models.loading.load import load_model
from probe.norms import DyT
from support.captures import token_batches
from support.classifiers import VIT, Classifier, captured, crops


@pytest.fixture(scope="module")
def vit_done(vit_run):
    """The bundled ViT as DyT, measured on eight crops."""
    return convert(vit_run, "dyt", num_images=8)


def outputs_of(module, x, layers):
    """Logits of `module`, and the outputs of `layers` seen on the way."""
    seen = {}
    hooks = [
        module.get_submodule(layer).register_forward_hook(
            lambda _m, _i, y, layer=layer: seen.update({layer: y})
        )
        for layer in layers
    ]
    try:
        with torch.no_grad():
            return module(x), seen
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("norm", [DyT, nn.BatchNorm1d], ids=["dyt", "affine"])
def test_a_model_that_is_element_wise_already_converts_to_itself(norm, tmp_path):
    """DyT comes back as DyT; BatchNorm at evaluation is a line per channel, which a tanh plays
    within 0.1 %.
    """
    if norm is DyT:
        module, batches, exact = Classifier(lambda c: DyT(c, alpha_init=0.7)), token_batches(), 1e-4
        with torch.no_grad():
            module.norm1.weight.copy_(torch.linspace(-2, 2, 8))
            module.norm2.bias.copy_(torch.linspace(1, 3, 8))
    else:
        batches, exact = [batch[:, 0] for batch in token_batches(160)], 1e-3
        module = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 3))
        module(batches[0] * 3 + 1)
    run = captured(module, tmp_path / "run", batches)
    done = convert(run, "dyt", model=module, data=batches)
    assert set(done.table["family"]) == ({"tanh"} if norm is DyT else {"linear"})
    assert done.table["rel_error"].max() < exact
    assert done.table["rel_error_cumulative"].max() < exact
    assert done.score.kl < exact**2
    assert done.score.agreement == 1


def test_lines_of_affine_layers_are_exact_where_the_norm_is_a_line(tmp_path):
    batches = [batch[:, 0] for batch in token_batches(160)]
    module = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 3))
    module(batches[0] * 3 + 1)
    done = convert(
        captured(module, tmp_path / "run", batches), "learnable_scaler", model=module, data=batches
    )
    assert done.table["rel_error"].max() < 1e-6


def test_every_layer_of_a_vit_has_its_error_alone_and_so_far(vit_done, vit_run):
    table = vit_done.table
    assert table["layer"].tolist() == vit_run.layers["layer"].tolist()
    assert set(table["family"]) == {"tanh"}
    assert table["replaced"].all()
    assert (table["reason"] == "").all()
    first = table.iloc[0]
    for name in ("rel_error", "kl", "agreement"):
        assert table[[name, f"{name}_cumulative"]].notna().all().all()
        assert first[name] == first[f"{name}_cumulative"]
    assert table["kl_cumulative"].iloc[-1] == vit_done.score.kl
    assert table["accuracy"].isna().all()
    assert vit_done.images == 8
    assert vit_done.accuracy is None


def test_the_errors_are_those_of_the_models_outputs(vit_done):
    """Against a calculation of its own: hooks on the original and on the converted model, softmax
    and logarithm by hand.
    """
    layers = ["blocks.0.norm1", "blocks.3.norm2", "norm"]
    before, y = outputs_of(load_model(VIT).module, crops(8), layers)
    after, changed = outputs_of(vit_done.model.module, crops(8), layers)
    rows = vit_done.table.set_index("layer")
    for layer in layers:
        expected = (changed[layer] - y[layer]).norm() / y[layer].norm()
        assert rows.loc[layer, "rel_error_cumulative"] == pytest.approx(float(expected), rel=1e-4)
    p, q = (logits.double().softmax(1).numpy() for logits in (before, after))
    assert vit_done.score.kl == pytest.approx(
        float((p * (np.log(p) - np.log(q))).sum(1).mean()), rel=1e-4
    )
    assert vit_done.score.agreement == (before.argmax(1) == after.argmax(1)).double().mean()


def test_a_layer_alone_is_measured_in_the_original_model(vit_done):
    layer = "blocks.3.norm2"
    original = load_model(VIT).module
    before, y = outputs_of(original, crops(8), [layer])
    original.set_submodule(layer, copy.deepcopy(vit_done.model.module.get_submodule(layer)))
    after, changed = outputs_of(original, crops(8), [layer])
    row = vit_done.table.set_index("layer").loc[layer]
    assert row["rel_error"] == pytest.approx(
        float((changed[layer] - y[layer]).norm() / y[layer].norm()), rel=1e-4
    )
    p, q = (logits.double().softmax(1).numpy() for logits in (before, after))
    assert row["kl"] == pytest.approx(float((p * (np.log(p) - np.log(q))).sum(1).mean()), rel=1e-3)


def test_what_comes_behind_a_layer_may_overwrite_its_output(tmp_path):
    """An in-place ReLU: alone and with nothing before it, the first layer has the same error."""

    class Relu(Classifier):
        def forward(self, x):
            return self.head(self.norm2(x + self.mix(self.norm1(x).relu_())).mean(1))

    module = Relu()
    row = convert(
        captured(module, tmp_path / "run"), "dyt", model=module, data=token_batches()
    ).table.iloc[0]
    assert row["rel_error"] == row["rel_error_cumulative"] < 1


def test_a_converted_vit_keeps_more_than_lines_and_than_the_default_dyt(vit_run):
    """On the 112 bundled crops: top-1 class of the original kept by curves, by lines per channel,
    by one line, by alpha 0.5.
    """
    x = crops(None)
    assert len(x) == 112

    def kept(norm, **how):
        with probe.replace_norms(load_model(VIT), norm, **how) as done, torch.no_grad():
            return (done.module(x).argmax(1) == wanted).double().mean().item()

    with torch.no_grad():
        wanted = load_model(VIT).module(x).argmax(1)
    curves = kept("dyt", alphas=vit_run)
    lines = [
        kept("learnable_scaler", alphas=vit_run, scope=scope) for scope in ("channel", "layer")
    ]
    default = [kept("dyt", init=init) for init in ("match", "default")]
    assert curves > max(lines) > max(default) + 0.1


def test_all_curves_err_less_than_the_lines_they_replace(tmp_path):
    """Four images establish no curve, so there every layer is a line."""
    run = captured(load_model(VIT).module, tmp_path / "run", [crops(4)])
    some = "blocks.[34567].*,norm"
    best, sure = (
        convert(
            run, "dyt", curves=curves, layers=some, model=load_model(VIT), data=[crops(4)]
        ).table
        for curves in ("all", "established")
    )
    assert (sure["family"] == "linear").all()
    assert (best["family"] == "tanh").all()
    assert (best["rel_error"] < sure["rel_error"]).all()


def test_scope_layer_has_one_gamma_per_layer(vit_run):
    done = convert(vit_run, "derf", scope="layer", layers="blocks.0.*", num_images=2)
    norm, original = done.model.module.blocks[0].norm2, load_model(VIT).module.blocks[0].norm2
    ratio = (norm.weight / original.weight).detach().numpy()
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)


def test_layers_that_cannot_be_replaced_are_listed_with_the_reason(tmp_path):
    class Twice(Classifier):
        def __init__(self):
            super().__init__()
            self.again, self.unused = nn.LayerNorm(8), nn.LayerNorm(8)

        def forward(self, x):
            return super().forward(self.again(self.again(x) * 2 + x))

    module = Twice()
    done = convert(captured(module, tmp_path / "run"), "dyt", model=module, data=token_batches())
    reasons = done.table.set_index("layer")["reason"]
    assert "called 2 times" in reasons["again#1"]
    assert "called 2 times" in reasons["again#2"]
    assert reasons["unused"] == "not_called"
    assert done.table.loc[done.table["replaced"], "layer"].tolist() == ["norm1", "norm2"]
    assert done.table.set_index("layer").loc["unused", ["rel_error", "kl"]].isna().all()


def test_a_run_without_fits_is_fitted_first(tmp_path):
    module = Classifier()
    run = capture(module.eval(), token_batches(), out=tmp_path / "run", samples=400)
    convert(run, "dyt", model=module, data=token_batches())
    assert (run.path / "fits.parquet").exists()


def test_a_failure_leaves_the_model_as_it_was(tmp_path):
    class NoClasses(Classifier):
        def forward(self, x):
            return self.norm2(x + self.mix(self.norm1(x)))

    module = NoClasses()
    run = captured(module, tmp_path / "run")
    norms = module.norm1, module.norm2
    with pytest.raises(
        UsageError, match=r"a Tensor of shape \(8, 10, 8\); logits \(images, classes\) are needed"
    ):
        convert(run, "dyt", model=module, data=token_batches())
    assert (module.norm1, module.norm2) == norms


def test_progress_is_reported_to_its_end(vit_run):
    stages = []
    convert(
        vit_run,
        "dyt",
        layers="blocks.0.*",
        num_images=2,
        tolerance=0.5,
        progress=lambda *report: stages.append(report),
    )
    ends = {stage: (done, total) for stage, done, total, *_ in stages}
    assert ends["convert"][0] == ends["convert"][1]
    assert ends["images"] == (2, 2)


ERRORS = [
    ({"to": "dyt2"}, "--to 'dyt2' is unknown .*known: dyt, derf, dyisru, learnable_scaler"),
    ({"to": "layer_norm"}, "--to 'layer_norm' is unknown"),
    ({"tolerance": 1.5}, "--tolerance 1.5: must be a share of the images, from 0 to 1"),
    ({"out": "model.pth"}, r"--out model.pth: must end in .safetensors"),
    ({"scope": "token"}, "--scope 'token' is unknown"),
    ({"curves": "some"}, "--curves 'some' is unknown"),
    ({"layers": "block.*"}, "--layers 'block.*' matches none"),
    ({"data": "nowhere"}, "data 'nowhere' does not exist"),
    ({"num_images": 0}, "--num-images 0: must be at least 1"),
    (
        {"model": "bundled:resnet_cifar10"},
        "the weights of resnet_cifar10 are not those of run .*fingerprint sha256:",
    ),
    (
        {"model": "bundled:vit_cifar10", "weights": "random"},
        "the weights of vit_cifar10 are not those of run",
    ),
]


@pytest.mark.parametrize(
    ("options", "message"),
    ERRORS,
    ids=[next(iter(options)) + str(i) for i, (options, _) in enumerate(ERRORS)],
)
def test_wrong_conversions_get_one_line(options, message, vit_run):
    with pytest.raises(UsageError, match=message) as error:
        convert(vit_run, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"origin": "module", "name": "Net"},
            r"is of a module Net, not of a named model: give it, in Python, as model=",
        ),
        (
            {"name": VIT, "weights": "mine.safetensors"},
            "is of the weights file mine.safetensors, which is not here: give it by --weights",
        ),
        ({}, "does not say its model"),
    ],
)
def test_a_model_that_the_run_cannot_name_is_one_line(model, message, vit_run):
    run = copy.copy(vit_run)
    run.manifest = vit_run.manifest | {"model": model}
    with pytest.raises(UsageError, match=message):
        convert(run)


def test_an_original_that_gives_no_finite_logits_is_an_error(tmp_path):
    module = Classifier()
    run = captured(module, tmp_path / "run")
    with pytest.raises(ProbeError, match="logits that are not finite"):
        convert(run, model=module, data=[torch.full((2, 10, 8), float("nan"))])


def test_established_and_all_curves_agree_where_a_curve_is_established(vit_run):
    """The run's own tanh, and the curve of least loss fitted again to the same samples."""
    sure, best = (
        conversion_curves(vit_run, "tanh", curves=curves, progress=lambda *_: None)[0]
        for curves in ("established", "all")
    )
    curved = [name for name, each in sure.items() if each.family == "tanh"]
    assert len(curved) >= 2
    for name in curved:
        assert best[name].alpha == pytest.approx(sure[name].alpha, rel=1e-6)
        np.testing.assert_allclose(best[name].weight, sure[name].weight, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(best[name].bias, sure[name].bias, rtol=1e-5, atol=1e-6)
