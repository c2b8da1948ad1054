"""--norm-type: a norm class of the user's own, for one command; mistakes are one line."""

from __future__ import annotations

import sys

import pytest

from probe.models.reading.registration import registered_names
from probe.models.reading.registry import REGISTERED

MODULE = """
import torch
from torch import nn

class MyNorm(nn.Module):
    def forward(self, x):
        return x

class Outer:
    class Inner(MyNorm):
        pass

def normalized(module, x):
    return x

number = 3
"""
COMMANDS = {
    "analyze": [],
    "capture": ["capture"],
    "convert": ["convert", "runs/a"],
    "fold_model": ["fold", "--out", "x.safetensors"],
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current directory with a module of the user's."""
    (tmp_path / "usermod.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield tmp_path
    assert sys.path == path
    assert REGISTERED == {}
    for name in ("usermod", "broken"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("command", ["analyze", "capture", "convert"])
def test_the_class_is_registered_while_the_command_runs(command, place, jobs, cli):
    seen = []
    answer = jobs.answers.get(command)
    jobs.answers[command] = lambda *_, **__: seen.append(registered_names()) or answer
    cli(*COMMANDS[command], "--norm-type", "usermod:MyNorm=rms_norm")
    assert seen == [{"usermod:MyNorm": "rms_norm"}]


def test_it_may_be_repeated_with_inner_classes_and_functions(place, jobs, cli):
    seen = []
    run = jobs.answers["capture"]
    jobs.answers["capture"] = lambda *_, **__: seen.append(registered_names()) or run
    texts = ("usermod:MyNorm=usermod:normalized", "usermod:Outer.Inner=layer_norm")
    cli("capture", "--norm-type", texts[0], "--norm-type", texts[1])
    assert seen == [{"usermod:MyNorm": "my_norm", "usermod:Outer.Inner": "layer_norm"}]


WRONG = {
    "MyNorm=rms_norm": "must be MODULE:CLASS=KIND, e.g. mypkg.layers:MyNorm=rms_norm",
    "usermod:MyNorm": "must be MODULE:CLASS=KIND",
    "usermod:MyNorm=": "must be MODULE:CLASS=KIND",
    "usermodd:MyNorm=rms_norm": "module 'usermodd' cannot be imported: No module named 'usermodd'",
    "broken:MyNorm=rms_norm": "module 'broken' cannot be imported: No module named 'nothing_of",
    "usermod:MyNrm=rms_norm": "module 'usermod' has no 'MyNrm' (did you mean MyNorm?)",
    "usermod:Outer=rms_norm": "Outer is no nn.Module class",
    "usermod:number=rms_norm": "an object of type int is no nn.Module class",
    "usermod:MyNorm=rms_nrm": "kind 'rms_nrm' is unknown (did you mean rms_norm",
    "usermod:MyNorm=usermod:number": "MyNorm is to be read like 3",
    "usermod:MyNorm=usermod:normalizd": "module 'usermod' has no 'normalizd' (did you mean norm",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_mistake_is_one_line_and_no_job_starts(text, place, jobs, cli):
    cli("capture", "--norm-type", text)
    assert (cli.code, cli.out) == (2, "")
    assert cli.err.count("\n") == 1
    assert f"--norm-type {text}: {WRONG[text]}" in cli.err
    assert jobs.calls == []


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_command_that_reads_a_model_takes_it(command, place, jobs, cli):
    cli(*command, "--norm-type", "nonsense")
    assert "--norm-type nonsense: must be MODULE:CLASS=KIND" in cli.err


def test_layers_lists_a_registered_class_and_what_is_unusual(place, cli, monkeypatch):
    from torch import nn

    from probe.models.loading import load

    class OddLayerNorm(nn.LayerNorm):
        def forward(self, x):
            return super().forward(x).relu()

    class MysteryNorm(nn.Module):
        def forward(self, x):
            return x.sort().values

    def load_model(*_, **__):
        import usermod

        modules = usermod.MyNorm(), OddLayerNorm(8), MysteryNorm()
        return type("Loaded", (), {"module": nn.Sequential(*modules)})

    monkeypatch.setattr(load, "load_model", load_model)
    words = " ".join(cli("layers", "--norm-type", "usermod:MyNorm=rms_norm").out.split())
    assert "1 rms_norm" in words
    assert "output is not weight * normalized + bias where the table has an error" in words
    assert "output off" in words
    assert "not read, though by its name a normalization layer: 2 (MysteryNorm)" in words
    document = cli("layers", "--json", "--norm-type", "usermod:MyNorm=usermod:normalized").json
    assert [layer["kind"] for layer in document["layers"]] == ["my_norm", "layer_norm"]
    assert document["not_read"] == {"2": "MysteryNorm"}
    assert [layer["output_error"] is None for layer in document["layers"]] == [True, False]
