"""Norm classes of a user's own: registered, read as told, and refused in one line where told
wrongly.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import probe
from probe.errors import UsageError
from probe.models.reading.layers import (
    affine_of,
    eval_affine,
    list_norm_layers,
    norm_type,
)
from probe.models.reading.recognize import recognize
from probe.models.reading.registration import registered_names, snake_case
from probe.models.reading.registry import REGISTERED

C = 8
PAGE = Path(probe.__file__).parent.parent / "docs" / "norm_types.md"


@pytest.fixture(autouse=True)
def empty_registry():
    """No registration is left by a test."""
    REGISTERED.clear()
    yield
    REGISTERED.clear()


def rms(x: torch.Tensor, axis: int = -1) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(axis, keepdim=True) + 1e-5)


class Scaled(nn.Module):  # no name of a norm
    def __init__(self) -> None:
        super().__init__()
        self.eps = 1e-5
        self.scale = nn.Parameter(torch.linspace(0.5, 2, C))

    def forward(self, x):
        return self.scale * rms(x)


class Ratio(nn.Module):
    """w x / max|x| + b on images."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 2, C))
        self.bias = nn.Parameter(torch.linspace(-1, 1, C))

    def forward(self, x):
        weight, bias = (value[:, None, None] for value in (self.weight, self.bias))
        return weight * x / x.abs().amax(1, keepdim=True) + bias


def ratio(module, x):
    return x / x.abs().amax(1, keepdim=True)


def tokens(batches: int = 3) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(4, 5, C, generator=rng) for _ in range(batches)]


def images(batches: int = 3) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(4, C, 3, 3, generator=rng) for _ in range(batches)]


def captured(module, data, tmp_path):
    run = probe.capture(nn.Sequential(module), data, out=tmp_path / "run")
    (layer,) = run.manifest["layers"]
    return run, layer


def test_a_class_is_read_as_the_kind_it_is_registered_as(tmp_path):
    probe.register_norm(Scaled, "rms_norm", weight="scale")
    run, layer = captured(Scaled(), tokens(), tmp_path)
    assert (layer["kind"], layer["channels"], layer["eps"]) == ("rms_norm", C, 1e-5)
    assert layer["affine_error"] < 1e-6
    assert run.moments()["weight"].tolist() == pytest.approx(Scaled().scale.tolist())
    assert list(run.manifest["registered_norms"].values()) == ["rms_norm"]


def test_a_class_is_read_by_a_function_of_its_normalized_value(tmp_path):
    probe.register_norm(Ratio, ratio, channels_last=False)
    run, layer = captured(Ratio(), images(), tmp_path)
    assert (layer["kind"], layer["channels"]) == ("ratio", C)
    assert layer["affine_error"] < 1e-6
    samples = run.samples("0")
    expected = torch.cat([ratio(None, batch) for batch in images()]).flatten(2)
    at = [torch.tensor(samples[name]) for name in ("image", "channel", "position")]
    assert samples["normalized"].tolist() == pytest.approx(expected[tuple(at)].tolist())


def test_a_function_may_call_its_module(tmp_path):
    def normalized(module, x):
        weight, bias = (value[:, None, None] for value in (module.weight, module.bias))
        return (module(x) - bias) / weight

    probe.register_norm(Ratio, normalized, channels_last=False)
    _, layer = captured(Ratio(), images(), tmp_path)
    assert layer["layer"] == "0"  # called once, not `0#1`, `0#2`
    assert layer["affine_error"] < 1e-6


def test_a_weight_stored_less_one_is_found_in_a_registered_class():
    class Gemma(Scaled):
        def forward(self, x):
            return (1 + self.scale) * rms(x)

    probe.register_norm(Gemma, "rms_norm", weight="scale")
    module = Gemma()
    torch.testing.assert_close(affine_of(module, C)[0], 1 + module.scale.detach().double())


def test_channels_last_false_chooses_the_form_on_images():
    class Planes(Scaled):
        def forward(self, x):
            return self.scale[:, None, None] * rms(x, 1)

    probe.register_norm(Planes, "rms_norm", weight="scale", channels_last=False)
    assert list_norm_layers(nn.Sequential(Planes()))[0].kind == "rms_norm_2d"


def test_a_simple_norm_on_images_is_read_on_their_channels():
    class Planes(Scaled):
        def forward(self, x):
            return self.scale[:, None, None] * x * torch.rsqrt(x.var(1, keepdim=True) + self.eps)

    probe.register_norm(Planes, "simple_norm_2d")
    assert recognize(Planes()).is_right


def test_the_names_of_weight_and_bias_are_found_and_what_is_said_counts_where_they_are_not():
    class Shifted(Scaled):
        def __init__(self):
            super().__init__()
            self.offset = nn.Parameter(torch.linspace(-1, 1, C))

        def forward(self, x):
            return self.scale * rms(x) + self.offset

    class Closed(Shifted):
        def forward(self, x):
            raise RuntimeError("needs a kernel that is not here")

    probe.register_norm(Shifted, "rms_norm")
    assert recognize(Shifted()).names == ("scale", "offset")
    probe.register_norm(Closed, "rms_norm")
    assert recognize(Closed()).names == (None, None)
    probe.register_norm(Closed, "rms_norm", weight="scale", bias="offset")
    assert recognize(Closed()).names == ("scale", "offset")


def test_a_class_of_a_file_counts_under_whatever_name_the_file_was_imported(tmp_path):
    """As a model from a file has it, which runs under another module name."""
    path = tmp_path / "net.py"
    path.write_text("from torch import nn\n\nclass Mine(nn.Module):\n    pass\n")

    def imported(name: str):
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.Mine

    first, second = imported("net_once"), imported("net_again")
    try:
        probe.register_norm(first, "rms_norm")
        assert norm_type(second()).kind == "rms_norm"
    finally:
        del sys.modules["net_once"], sys.modules["net_again"]


def test_subclasses_follow_and_the_nearest_class_counts():
    class Sub(Scaled):
        pass

    probe.register_norm(Scaled, "rms_norm", weight="scale")
    assert norm_type(Sub()).kind == "rms_norm"
    probe.register_norm(Sub, "rms_norm", weight="scale", kind="mine")
    assert (norm_type(Scaled()).kind, norm_type(Sub()).kind) == ("rms_norm", "mine")


def test_registering_again_replaces_and_unregistering_forgets():
    probe.register_norm(Scaled, "rms_norm", weight="scale", kind="first")
    probe.register_norm(Scaled, "rms_norm", weight="scale", kind="second")
    assert norm_type(Scaled()).kind == "second"
    assert list(registered_names().values()) == ["second"]
    probe.unregister_norm(Scaled)
    assert norm_type(Scaled()) is None
    with pytest.raises(UsageError, match="'Scaled' is not registered; registered: none"):
        probe.unregister_norm(Scaled)


def test_a_registration_comes_before_what_probe_knows():
    class Known(nn.LayerNorm):
        pass

    probe.register_norm(Known, lambda module, x: x, kind="identity")
    assert norm_type(Known(C)).kind == "identity"
    assert norm_type(nn.LayerNorm(C)).kind == "layer_norm"


def test_a_registered_layer_is_replaced_fitted_and_folded_with_its_own_names(tmp_path):
    probe.register_norm(Scaled, "rms_norm", weight="scale")
    model = nn.Sequential(Scaled(), nn.Linear(C, 4)).eval()
    x = torch.cat(tokens())
    before = model(x)
    run = probe.capture(model, tokens(), out=tmp_path / "run")
    with probe.fold(model, x) as done:
        assert done.report["status"].tolist() == ["folded"]
        assert model[0].scale.tolist() == [1.0] * C
        torch.testing.assert_close(model(x), before)
    with probe.replace_norms(model, "dyt", alphas=run) as swapped:
        assert swapped.report["status"].tolist() == ["replaced"]
        assert model[0].weight.numel() == C


class Running(nn.Module):
    """Batch normalization with names of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.eps = 1e-5
        self.scale = nn.Parameter(torch.linspace(0.5, 2, C))
        self.shift = nn.Parameter(torch.linspace(-1, 1, C))
        self.register_buffer("running_mean", torch.linspace(-2, 2, C))
        self.register_buffer("running_var", torch.linspace(0.5, 3, C))

    def forward(self, x):
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        values = (mean, (var + self.eps).rsqrt(), self.scale, self.shift)
        mean, inverse, scale, shift = (value[:, None, None] for value in values)
        return scale * (x - mean) * inverse + shift


@pytest.mark.parametrize("training", [False, True])
def test_a_batch_norm_of_ones_own_is_a_line_at_evaluation_only(training, tmp_path):
    probe.register_norm(Running, "batch_norm", weight="scale", bias="shift")
    module = Running().train(training)
    _, layer = captured(module, images(), tmp_path)
    assert (layer["kind"], layer["affine"]) == ("batch_norm", not training)
    assert layer["affine_error"] < 1e-6
    slope, offset = eval_affine(module)
    x = images(1)[0].double()
    line = slope[:, None, None] * x + offset[:, None, None]
    torch.testing.assert_close(line, module.double().eval()(x), rtol=0, atol=1e-6)


# --- mistakes ------------------------------------------------------------------------------------


class Bare(nn.Module):
    def forward(self, x):
        return x


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Scaled, "rms_nrm"), r"kind 'rms_nrm' is unknown \(did you mean .*rms_norm.*\); known: "),
        ((Scaled, "dtn"), r"kind 'dtn' is unknown"),
        ((str, "rms_norm"), r"str is no nn.Module class"),
        ((Scaled(), "rms_norm"), r"an object of type Scaled is no nn.Module class"),
        ((nn.Module, "rms_norm"), r"nn.Module is the base of every layer"),
        ((Scaled, nn.LayerNorm), r"Scaled is to be read like <class .*LayerNorm'>: give the name"),
        ((Scaled, 3), r"Scaled is to be read like 3: give the name of a kind or a function"),
    ],
)
def test_a_wrong_registration_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        probe.register_norm(*arguments)
    assert REGISTERED == {}


def test_a_kind_on_images_only_takes_no_channels_last():
    with pytest.raises(UsageError, match=r"batch_norm is on images \(B, C, ...\)"):
        probe.register_norm(Bare, "batch_norm", channels_last=True)


def test_a_parameter_that_is_not_there_is_named_with_those_that_are():
    probe.register_norm(Scaled, "rms_norm", weight="gain")
    with pytest.raises(UsageError, match=r"layer '0': Scaled .*'gain'.* it has: scale"):
        list_norm_layers(nn.Sequential(Scaled()))


def test_a_class_without_alpha_is_no_dynamic_tanh(tmp_path):
    probe.register_norm(Bare, "dyt")
    with pytest.raises(UsageError, match=r"layer '0': Bare .* dyt, which reads 'alpha'"):
        captured(Bare(), tokens(), tmp_path)


def test_what_a_kind_reads_and_the_module_does_not_have_is_named(tmp_path):
    probe.register_norm(Bare, "group_norm")
    with pytest.raises(UsageError, match=r"layer '0': Bare .* group_norm, .* 'num_groups'"):
        captured(Bare(), images(), tmp_path)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda m, x: x.mean(-1), r"returned shape \(4, 5\); its input has \(4, 5, 8\)"),
        (lambda m, x: (x, x), r"returned a tuple; a tensor is needed"),
        (lambda m, x: x @ x, r"failed on an input of shape \(4, 5, 8\): RuntimeError: "),
    ],
)
def test_a_wrong_function_is_one_line_with_the_layer(function, message, tmp_path):
    probe.register_norm(Scaled, function, weight="scale")
    with pytest.raises(UsageError, match=message) as refused:
        captured(Scaled(), tokens(), tmp_path)
    assert str(refused.value).startswith("layer '0': the function registered for Scaled")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


# --- names and the documentation -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [("MyNorm", "my_norm"), ("RMSNorm", "rms_norm"), ("MyNorm2d", "my_norm_2d"), ("Norm", "norm")],
)
def test_the_kind_of_a_function_is_the_name_of_the_class(name, expected):
    assert snake_case(name) == expected


def test_the_example_of_the_documentation_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    exec(compile(code, str(PAGE), "exec"), {"__name__": "page"})
    assert capsys.readouterr().out == "['rms_norm', 'max_norm']\n"
    layers = probe.open_run("runs/mine").manifest["layers"]
    assert max(layer["affine_error"] for layer in layers) < 1e-6
