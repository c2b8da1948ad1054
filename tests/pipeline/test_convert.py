"""Converting a pretrained model without training: what is replaced, what it costs, and what the saved file gives back."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from captures import token_batches
from safetensors import safe_open
from torch import nn

import probe
from probe.data import open_images
from probe.errors import ProbeError, UsageError
from probe.models.load import load_model
from probe.norms import DyT
from probe.pipeline.capture import capture
from probe.pipeline.conversion_table import choose
from probe.pipeline.convert import convert
from probe.pipeline.converted_file import load_converted
from probe.pipeline.eval_data import run_images
from probe.pipeline.evaluate_swap import Score
from probe.pipeline.fit_run import fit

VIT = "bundled:vit_cifar10"
FORMS = {"dyt": "tanh", "derf": "erf", "dyisru": "isru", "learnable_scaler": "line"}


class Classifier(nn.Module):
    """Two norms on tokens (B, T, 8), a linear layer between them, three classes."""

    def __init__(self, norm=nn.LayerNorm):
        super().__init__()
        torch.manual_seed(0)
        self.norm1, self.mix, self.norm2, self.head = norm(8), nn.Linear(8, 8), norm(8), nn.Linear(8, 3)

    def forward(self, x):
        x = x + self.mix(self.norm1(x))
        return self.head(self.norm2(x).mean(1))


def captured(module, out, batches=None):
    run = capture(module.eval(), batches or token_batches(), out=out, samples=400)
    fit(run)
    return run


@pytest.fixture(scope="module")
def images():
    """Eight bundled crops as one batch of the bundled ViT."""
    source, transform = open_images(None, 8), load_model(VIT).transform
    return torch.stack([transform(source.load(i)) for i in range(8)])


@pytest.fixture(scope="module")
def vit_done(vit_run, tmp_path_factory):
    """The bundled ViT as DyT, measured on eight crops, saved."""
    return convert(vit_run, "dyt", out=tmp_path_factory.mktemp("converted") / "vit.safetensors", num_images=8)


def outputs_of(module, x, layers):
    """Logits of `module`, and the outputs of `layers` seen on the way."""
    seen = {}
    hooks = [
        module.get_submodule(layer).register_forward_hook(lambda _m, _i, y, layer=layer: seen.update({layer: y}))
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
    """DyT comes back as DyT; BatchNorm at evaluation is a line per channel, which a tanh plays within 0.1 %."""
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
    assert set(done.table["form"]) == ({"tanh"} if norm is DyT else {"line"})
    assert done.table["rel_error"].max() < exact
    assert done.table["rel_error_cumulative"].max() < exact
    assert done.score.kl < exact**2
    assert done.score.agreement == 1


def test_lines_of_affine_layers_are_exact_where_the_norm_is_a_line(tmp_path):
    batches = [batch[:, 0] for batch in token_batches(160)]
    module = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 3))
    module(batches[0] * 3 + 1)
    done = convert(captured(module, tmp_path / "run", batches), "learnable_scaler", model=module, data=batches)
    assert done.table["rel_error"].max() < 1e-6


def test_every_layer_of_a_vit_has_its_error_alone_and_so_far(vit_done, vit_run):
    table = vit_done.table
    assert table["layer"].tolist() == vit_run.layers["layer"].tolist()
    assert set(table["form"]) == {"tanh", "line"}  # some layers have no established curve on 16 images
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


def test_the_errors_are_those_of_the_models_outputs(vit_done, images):
    """Against a calculation of its own: hooks on the original and on the converted model, softmax and logarithm by hand."""
    layers = ["blocks.0.norm1", "blocks.3.norm2", "norm"]
    before, y = outputs_of(load_model(VIT).module, images, layers)
    after, changed = outputs_of(vit_done.model.module, images, layers)
    rows = vit_done.table.set_index("layer")
    for layer in layers:
        expected = (changed[layer] - y[layer]).norm() / y[layer].norm()
        assert rows.loc[layer, "rel_error_cumulative"] == pytest.approx(float(expected), rel=1e-4)
    p, q = (logits.double().softmax(1).numpy() for logits in (before, after))
    assert vit_done.score.kl == pytest.approx(float((p * (np.log(p) - np.log(q))).sum(1).mean()), rel=1e-4)
    assert vit_done.score.agreement == (before.argmax(1) == after.argmax(1)).double().mean()


def test_a_layer_alone_is_measured_in_the_original_model(vit_done, images):
    layer = "blocks.3.norm2"
    original = load_model(VIT).module
    before, y = outputs_of(original, images, [layer])
    original.set_submodule(layer, copy.deepcopy(vit_done.model.module.get_submodule(layer)))
    after, changed = outputs_of(original, images, [layer])
    row = vit_done.table.set_index("layer").loc[layer]
    assert row["rel_error"] == pytest.approx(float((changed[layer] - y[layer]).norm() / y[layer].norm()), rel=1e-4)
    p, q = (logits.double().softmax(1).numpy() for logits in (before, after))
    assert row["kl"] == pytest.approx(float((p * (np.log(p) - np.log(q))).sum(1).mean()), rel=1e-3)


def test_a_converted_vit_keeps_more_than_lines_and_than_the_default_dyt(vit_run):
    """On the 112 bundled crops: top-1 class of the original kept by curves, by lines per channel, by one line, by alpha 0.5."""
    model = load_model(VIT)
    source = open_images(None)
    x = torch.stack([model.transform(source.load(i)) for i in range(len(source))])
    assert len(x) == 112

    def kept(norm, **how):
        with probe.replace_norms(load_model(VIT), norm, **how) as done, torch.no_grad():
            return (done.module(x).argmax(1) == wanted).double().mean().item()

    with torch.no_grad():
        wanted = model.module(x).argmax(1)
    curves = kept("dyt", alphas=vit_run)
    lines = [kept("learnable_scaler", alphas=vit_run, scope=scope) for scope in ("channel", "layer")]
    default = [kept("dyt", init=init) for init in ("match", "default")]
    assert curves > max(lines) > max(default) + 0.1


@pytest.mark.parametrize("to", FORMS)
def test_the_saved_model_loads_to_the_same_outputs_bit_by_bit(to, vit_run, images, tmp_path):
    done = convert(vit_run, to, out=tmp_path / "m.safetensors", layers="blocks.[01].*,norm", num_images=2, curves="all")
    loaded = probe.load_converted(tmp_path / "m.safetensors")
    with torch.no_grad():
        assert torch.equal(loaded.module(images), done.model.module(images))
        assert not torch.equal(loaded.module(images), load_model(VIT).module(images))
    assert loaded.fingerprint == done.model.fingerprint
    assert not loaded.module.training
    assert set(done.table["form"]) == {FORMS[to]}
    with safe_open(tmp_path / "m.safetensors", "np") as file:
        metadata = file.metadata()
        assert set(file.keys()) == set(done.model.module.state_dict())
    assert (metadata["format"], metadata["norm"], metadata["model"], metadata["scope"]) == ("probe-convert", to, VIT, "channel")
    assert json.loads(metadata["layers"]) == dict.fromkeys(done.table["layer"], FORMS[to])


def test_the_file_has_a_table_and_a_figure_beside_it(vit_done):
    stem = vit_done.files[0].with_suffix("")
    assert vit_done.files == [stem.with_suffix(ending) for ending in (".safetensors", ".csv", ".png", ".svg")]
    assert all(path.stat().st_size > 1000 for path in vit_done.files)


def test_the_same_conversion_gives_the_same_bytes(vit_run, vit_done, tmp_path):
    again = convert(vit_run, "dyt", out=tmp_path / "vit.safetensors", num_images=8)
    assert [path.read_bytes() for path in again.files] == [path.read_bytes() for path in vit_done.files]


def test_a_plain_module_is_converted_in_place_saved_and_loaded_into_another(tmp_path):
    module, batches = Classifier(), token_batches()
    run = captured(module, tmp_path / "run")
    x = batches[0]
    with torch.no_grad():
        before = module(x)
        done = convert(run, "dyt", model=module, data=batches, out=tmp_path / "m.safetensors")
        after = module(x)
        assert not torch.equal(before, after)
        assert torch.equal(load_converted(tmp_path / "m.safetensors", Classifier()).module(x), after)
        done.swap.undo()
        assert torch.equal(module(x), before)
    with pytest.raises(UsageError, match="is of a module Classifier, not of a named model: give one as model="):
        load_converted(tmp_path / "m.safetensors")
    with pytest.raises(UsageError, match="do not fit this model|does not fit this model"):
        load_converted(tmp_path / "m.safetensors", nn.Sequential(nn.LayerNorm(8)))


def test_labels_of_batches_give_accuracy_before_and_after(tmp_path):
    module = Classifier()
    run = captured(module, tmp_path / "run")
    with torch.no_grad():
        labelled = [(batch, (module(batch).argmax(1) + (torch.arange(len(batch)) % 4 == 0)) % 3) for batch in token_batches()]
    done = convert(run, "dyt", model=module, data=labelled)
    with torch.no_grad():
        right = torch.cat([module(x).argmax(1) == y for x, y in labelled]).double().mean().item()
    assert done.accuracy == 0.75
    assert done.score.accuracy == right
    assert done.table["accuracy"].notna().all()


def test_labels_of_other_classes_are_told_and_not_used(tmp_path):
    module = Classifier()
    run = captured(module, tmp_path / "run")
    done = convert(run, "dyt", model=module, data=[(batch, torch.full((len(batch),), 7)) for batch in token_batches()])
    assert done.accuracy is None
    assert done.notes == ["no accuracy: the data has 8 classes and the model 3"]


def test_sub_folders_are_labels(vit_run, tmp_path):
    """Ten folders, as many as the model has classes; the image of folder n is right where the model says n."""
    source = open_images(None, 10)
    for index in range(10):
        (tmp_path / f"class{index}").mkdir()
        source.load(index).resize((32, 32)).save(tmp_path / f"class{index}" / "image.png")
    done = convert(vit_run, "dyt", data=tmp_path, layers="norm")
    model = load_model(VIT)
    with torch.no_grad():
        said = [int(model.module(model.transform(source.load(i).resize((32, 32)))[None]).argmax()) for i in range(10)]
    assert done.accuracy == np.mean([said[i] == i for i in range(10)])
    assert done.data == str(tmp_path)


def fake_comparison(costs, accuracy=None):
    """Losses that add up; KL grows with the cost."""

    def score(layers):
        cost = sum(costs[layer] for layer in layers)
        return Score(cost, 1.0 if accuracy else 1 - cost, accuracy - cost if accuracy else None)

    return SimpleNamespace(score=score, accuracy=accuracy)


@pytest.mark.parametrize("accuracy", [None, 0.8])
@pytest.mark.parametrize(
    ("tolerance", "expected"),
    [
        (None, ["a", "b", "c", "d"]),
        (0.0, ["c"]),
        (0.01, ["b", "c"]),
        (0.05, ["b", "c"]),
        (0.06, ["b", "c", "d"]),
        (1.0, list("abcd")),
    ],
)
def test_the_cheapest_layers_are_taken_as_far_as_the_tolerance_goes(tolerance, expected, accuracy):
    """Costs a 0.3, b 0.01, c 0, d 0.05: c first, then b, then d, then a."""
    table = captured_table(["a", "b", "c", "d", "e"])
    comparison = fake_comparison({"a": 0.3, "b": 0.01, "c": 0.0, "d": 0.05}, accuracy)
    assert choose(comparison, table, tolerance) == expected


def captured_table(names):
    """A table whose last layer cannot be replaced."""
    import pandas as pd

    return pd.DataFrame({"layer": names, "form": ["tanh"] * (len(names) - 1) + [""]})


def test_a_tolerance_holds_for_the_saved_model(vit_run, tmp_path):
    done = convert(vit_run, "dyt", out=tmp_path / "m.safetensors", num_images=8, tolerance=0.13)
    replaced = done.table.loc[done.table["replaced"], "layer"].tolist()
    assert 0 < len(replaced) < 17
    assert 1 - done.score.agreement <= 0.13
    kept = {layer for layer in done.table["layer"] if isinstance(done.model.module.get_submodule(layer), nn.LayerNorm)}
    assert kept == set(done.table["layer"]) - set(replaced)
    with safe_open(tmp_path / "m.safetensors", "np") as file:
        assert set(json.loads(file.metadata()["left_out"]).values()) == {"not within the tolerance"}


def test_no_layer_within_the_tolerance_leaves_the_model_and_writes_nothing(tmp_path):
    """On the images alone whose class the one layer changes."""
    module, batches = Classifier(), token_batches()
    run = captured(module, tmp_path / "run")
    with torch.no_grad():
        before = [module(batch).argmax(1) for batch in batches]
        done = convert(run, "learnable_scaler", model=module, layers="norm1", data=batches)
        after = [module(batch).argmax(1) for batch in batches]
        done.swap.undo()
    changed = torch.cat([x[a != b] for x, a, b in zip(batches, before, after, strict=True)])
    assert len(changed)
    done = convert(
        run, "learnable_scaler", model=module, layers="norm1", data=[changed], tolerance=0.5, out=tmp_path / "m.safetensors"
    )
    assert (done.swap, done.files, list(tmp_path.glob("m.*"))) == (None, [], [])
    assert not done.table["replaced"].any()
    assert done.score.agreement == 1
    assert isinstance(module.norm1, nn.LayerNorm)


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


def test_all_curves_err_less_than_the_lines_they_replace(vit_run):
    some = "blocks.[34567].*,norm"
    best, sure = (convert(vit_run, "dyt", curves=curves, layers=some, num_images=4).table for curves in ("all", "established"))
    lines = (sure["form"] == "line").to_numpy()
    assert lines.any()
    assert (best["form"] == "tanh").all()
    assert (best["rel_error"].to_numpy()[lines] < sure["rel_error"].to_numpy()[lines]).all()


def test_scope_layer_has_one_gamma_per_layer(vit_run):
    done = convert(vit_run, "derf", scope="layer", layers="blocks.0.*", num_images=2)
    norm, original = done.model.module.blocks[0].norm2, load_model(VIT).module.blocks[0].norm2
    ratio = (norm.weight / original.weight).detach().numpy()
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)


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
    with pytest.raises(UsageError, match=r"a Tensor of shape \(8, 10, 8\); logits \(images, classes\) are needed"):
        convert(run, "dyt", model=module, data=token_batches())
    assert (module.norm1, module.norm2) == norms


def test_progress_is_reported_to_its_end(vit_run):
    stages = []
    convert(vit_run, "dyt", layers="blocks.0.*", num_images=2, tolerance=0.5, progress=lambda *report: stages.append(report))
    ends = {stage: (done, total) for stage, done, total, *_ in stages}
    assert ends["convert"][0] == ends["convert"][1]
    assert ends["images"] == (2, 2)


def test_the_images_of_a_run_are_found_again(vit_run, tmp_path):
    source, said = run_images(vit_run)
    assert list(source.ids) == vit_run.manifest["data"]["images"]
    assert said == "bundled photographs, the images that the curves were fitted on"
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(6):
        open_images(None, 6).load(index).resize((40, 40)).save(photos / f"{index}.png")
    run = capture(VIT, photos, out=tmp_path / "run", num_images=4, samples=20, tail=20, seed=3)
    source, said = run_images(run)
    assert list(source.ids) == run.manifest["data"]["images"]
    assert said == f"{photos}, the images that the curves were fitted on"
    (photos / source.ids[0]).unlink()
    source, said = run_images(run, 5)
    assert source.description["kind"] == "bundled"
    assert len(source) == 5
    assert "the run's own images cannot be used" in said


ERRORS = [
    ({"to": "dyt2"}, "--to 'dyt2' is unknown .*known: dyt, derf, dyisru, learnable_scaler"),
    ({"to": "layer_norm"}, "--to 'layer_norm' is unknown"),
    ({"tolerance": 1.5}, "--tolerance 1.5: must be a share of the images, from 0 to 1"),
    ({"out": "model.pth"}, r"--out 'model.pth': must end in .safetensors"),
    ({"scope": "token"}, "--scope 'token' is unknown"),
    ({"curves": "some"}, "--curves 'some' is unknown"),
    ({"curves": "all", "scope": "layer"}, "--curves all: .*use --scope channel"),
    ({"layers": "block.*"}, "--layers 'block.*' matches none"),
    ({"data": "nowhere"}, "data 'nowhere' does not exist"),
    ({"num_images": 0}, "--num-images 0: must be at least 1"),
    ({"model": "bundled:resnet_cifar10"}, "the weights of resnet_cifar10 are not those of run .*fingerprint sha256:"),
    ({"model": "bundled:vit_cifar10", "weights": "random"}, "the weights of vit_cifar10 are not those of run"),
]


@pytest.mark.parametrize(
    ("options", "message"), ERRORS, ids=[next(iter(options)) + str(i) for i, (options, _) in enumerate(ERRORS)]
)
def test_wrong_conversions_get_one_line(options, message, vit_run):
    with pytest.raises(UsageError, match=message) as error:
        convert(vit_run, **options)
    assert "\n" not in str(error.value)


def test_files_are_replaced_only_when_asked(vit_run, tmp_path):
    (tmp_path / "m.png").write_text("mine")
    with pytest.raises(UsageError, match=r"m\.png exists: choose another --out, or give --overwrite"):
        convert(vit_run, out=tmp_path / "m.safetensors")
    convert(vit_run, out=tmp_path / "m.safetensors", layers="norm", num_images=1, overwrite=True)
    assert (tmp_path / "m.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"origin": "module", "name": "Net"}, r"is of a module Net, not of a named model: give it, in Python, as model="),
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


def test_another_file_is_no_converted_model(vit_run, tmp_path):
    path = probe.export_alphas(vit_run, tmp_path / "alpha.safetensors")
    with pytest.raises(UsageError, match="is no converted model: its format is 'probe-dyt'"):
        load_converted(path)
    (tmp_path / "text.safetensors").write_text("no")
    with pytest.raises(UsageError, match="cannot be read as a converted model"):
        load_converted(tmp_path / "text.safetensors")


def test_an_original_that_gives_no_finite_logits_is_an_error(tmp_path):
    module = Classifier()
    run = captured(module, tmp_path / "run")
    with pytest.raises(ProbeError, match="logits that are not finite"):
        convert(run, model=module, data=[torch.full((2, 10, 8), float("nan"))])
