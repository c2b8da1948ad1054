"""`probe-norms fold`: what it hands to the job, what it prints, and how it refuses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

DONE = {
    "file": "f.safetensors",
    "page": "f.html",
    "model": {"name": "timm:net", "weights": "random", "device": "cpu"},
    "images": 8,
    "repeats": 10,
    "threads": 2,
    "before": {"norms": 5, "affines": 5},
    "after": {"norms": 3, "affines": 2},
    "seconds_before": {"best": 0.3, "median": 0.31},
    "seconds_after": {"best": 0.2, "median": 0.22},
    "deviation": 1.2e-6,
    "relative_deviation": 3.4e-7,
    "layers": [
        {
            "layer": "bn1",
            "kind": "batch_norm",
            "into": "conv1",
            "direction": "before",
            "status": "folded",
            "reason": "",
        },
        {
            "layer": "n0",
            "kind": "layer_norm",
            "into": "",
            "direction": "affine",
            "status": "kept",
            "reason": "add (b.0) is in",
        },
        {
            "layer": "n1",
            "kind": "layer_norm",
            "into": "",
            "direction": "affine",
            "status": "kept",
            "reason": "add (b.1) is in",
        },
        {
            "layer": "n2",
            "kind": "layer_norm",
            "into": "",
            "direction": "affine",
            "status": "kept",
            "reason": "it is returned",
        },
    ],
}


@pytest.fixture
def job(jobs: Any) -> list[SimpleNamespace]:
    """The calls of the job, which answers with DONE."""
    jobs.answers["fold_model"] = SimpleNamespace(as_dict=lambda: DONE)
    return jobs.calls


def test_the_options_reach_the_job(cli: Any, job: Any) -> None:
    cli(
        "fold",
        "--model",
        "resnet50",
        "--weights",
        "random",
        "--out",
        "f.safetensors",
        "--data",
        "photos",
        "--layers",
        "a.*",
    )
    assert cli.code == 0
    assert job[0].args == ("resnet50", "photos")
    options = job[0].options
    assert (options["out"], options["weights"], options["layers"]) == (
        "f.safetensors",
        "random",
        "a.*",
    )
    assert (options["num_images"], options["repeats"], options["seed"], options["overwrite"]) == (
        8,
        10,
        0,
        False,
    )


def test_the_table_and_the_lines_say_what_was_done(cli: Any, job: Any) -> None:
    lines = cli("fold", "--out", "f.safetensors", "-q").out.splitlines()
    assert lines[0].split() == ["layer", "kind", "map", "status", "into"]
    assert lines[2].split() == ["bn1", "batch_norm", "before", "folded", "conv1"]
    assert lines[lines.index("") + 1 :] == [
        "timm:net: 1 of 4 affine maps folded",
        "kept: n0 and 1 alike: add (b.0) is in",
        "kept: n2: it is returned",
        "normalization layers that compute: 5 before, 3 after",
        "with an affine of their own: 5 before, 2 after",
        "largest change of an output on 8 images: 1.2e-6, 3.4e-7 of the largest |output|",
        "forward pass of 8 images on cpu, 2 threads, best of 10: 300 ms (median 310) before, 200 "
        "ms (median 220) after, "
        "1.50 times as fast",
        'file: f.safetensors; load it with probe.load_folded("f.safetensors")',
        "page: f.html",
        "WARNING: RANDOM WEIGHTS: the model was not trained; these numbers say nothing about a "
        "trained one",
    ]


def test_json_has_the_same_numbers(cli: Any, job: Any) -> None:
    document = cli("fold", "--out", "f.safetensors", "-q", "--json").json
    assert {name: document[name] for name in DONE} == DONE
    assert len(document["warnings"]) == 1


def test_the_help_names_every_option(cli: Any) -> None:
    text = cli("fold", "--help").out
    assert text.startswith("Usage: probe-norms fold")
    for name in (
        "--out FILE",
        "--model M",
        "--weights W",
        "--data D",
        "--num-images N",
        "--device DEVICE",
        "--overwrite",
        "--json",
    ):
        assert name in text


WRONG = {
    "fold": "--out FILE is missing; see probe-norms fold --help",
    "fold --out x.pth": "--out x.pth: must end in .safetensors",
    "fold --out x.safetensors --num-images 0": "--num-images 0: must be at least 1, or 'all'",
    "fold --out x.safetensors --repeats 0": "--repeats 0: must be at least 1",
    "fold --out x.safetensors --model bundled:none": "model 'none' is not in bundled",
    "fold --out x.safetensors --layers "
    "none": "--layers 'none' matches none of the 17 normalization layers",
    "fold --out "
    "there.safetensors": "--out there.safetensors exists; give another file, or --overwrite",
    "fold --out folder.safetensors "
    "--overwrite": "--out folder.safetensors is a folder; give a file",
    "fold --out x.safetensors --data "
    "nowhere": "data 'nowhere' does not exist; accepted: a folder of images",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_usage_is_one_line_and_exit_code_2(
    cli: Any, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.safetensors").write_text("mine")
    Path("folder.safetensors").mkdir()
    cli(*line.split(), "-q")
    assert cli.code == 2
    assert cli.err.startswith(f"probe-norms: error: {WRONG[line]}")
    assert cli.err.count("\n") == 1
    assert cli.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "folder.safetensors",
        "there.safetensors",
    ]


def test_the_whole_command_on_the_bundled_network(cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "f.safetensors"
    cli(
        "fold",
        "--model",
        "bundled:resnet_cifar10",
        "--out",
        str(path),
        "--num-images",
        "2",
        "--repeats",
        "1",
        "-q",
        "--json",
    )
    assert cli.code == 0
    assert (cli.json["before"]["norms"], cli.json["after"]["norms"], cli.json["images"]) == (
        12,
        0,
        2,
    )
    import probe

    with torch.no_grad():
        assert probe.load_folded(path).module(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
