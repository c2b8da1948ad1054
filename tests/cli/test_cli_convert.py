"""`probe-norms convert`: what it asks of the job, what it prints, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

LAYERS = ["blocks.0.norm1", "blocks.0.norm2", "norm", "unused"]


def score(kl: float, agreement: float, accuracy: float | None) -> SimpleNamespace:
    return SimpleNamespace(kl=kl, agreement=agreement, accuracy=accuracy)


def conversion(**values: Any) -> Any:
    """A finished conversion of three layers, the second of which is a line and was kept; a fourth
    layer is never called.
    """
    numbers = {
        "rel_error": [0.123456, 0.2, 0.3, None],
        "kl": [0.01, 0.5, 0.001, None],
        "agreement": [0.99, 0.5, 1.0, None],
    }
    table = pd.DataFrame(
        {
            "layer": LAYERS,
            "depth": range(4),
            "kind": "layer_norm",
            "affine": False,
            "family": ["tanh", "linear", "tanh", ""],
            **numbers,
            "accuracy": None,
            **{f"{name}_cumulative": column for name, column in numbers.items()},
            "accuracy_cumulative": None,
            "replaced": [True, False, True, False],
            "reason": ["", "", "", "not_called"],
        }
    )
    given = {
        "table": table,
        "model": None,
        "swap": object(),
        "score": score(0.011, 0.985, None),
        "accuracy": None,
        "images": 64,
        "data": "bundled photographs, the images that the curves were fitted on",
        "asked": {"norm": "dyt", "scope": "channel", "curves": "established"},
        "tolerance": None,
        "notes": [],
        "files": [],
    }
    return SimpleNamespace(**(given | values))


def test_what_is_given_reaches_the_job(cli: Any, jobs: Any) -> None:
    jobs.answers["convert"] = conversion()
    line = (
        "--to derf --out m.safetensors --layers norm --scope layer --curves established "
        "--eval photos --num-images 9 --tolerance 0.01"
    )
    more = (
        "--model net.py:make --weights w.pth --batch-size 3 --workers 1 --seed 5 --device cpu "
        "--overwrite --offline -q"
    )
    assert cli("convert", "runs/a", *line.split(), *more.split()).code == 0
    call = jobs.last("convert")
    assert call.args == ("runs/a", "derf")
    options = dict(call.options)
    assert callable(options.pop("progress"))
    assert options == {
        "out": "m.safetensors",
        "layers": "norm",
        "scope": "layer",
        "curves": "established",
        "data": "photos",
        "num_images": 9,
        "tolerance": 0.01,
        "model": "net.py:make",
        "weights": "w.pth",
        "batch_size": 3,
        "workers": 1,
        "seed": 5,
        "device": "cpu",
        "overwrite": True,
        "offline": True,
    }


def test_defaults_are_dyt_per_channel_on_128_images_of_the_run(cli: Any, jobs: Any) -> None:
    jobs.answers["convert"] = conversion()
    assert cli("convert", "runs/a", "-q").code == 0
    call = jobs.last("convert")
    assert call.args == ("runs/a", "dyt")
    given = {
        name: call.options[name]
        for name in ("out", "layers", "scope", "curves", "data", "num_images", "tolerance")
    }
    assert given == {
        "out": None,
        "layers": "*",
        "scope": "channel",
        "curves": "all",
        "data": None,
        "num_images": 128,
        "tolerance": None,
    }


def test_one_row_per_layer_and_a_summary(
    cli: Any, jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    jobs.answers["convert"] = conversion(files=[Path("m.safetensors"), Path("m.csv")])
    lines = cli("convert", "runs/a", "-q").out.splitlines()
    rows = {
        line.split()[0]: line.split()[1:]
        for line in lines
        if line.split()[:1] and line.split()[0] in LAYERS
    }
    assert rows == {
        "blocks.0.norm1": [
            "tanh",
            "0.123",
            "0.0100",
            "99.0",
            "0.123",
            "0.0100",
            "99.0",
            "replaced",
        ],
        "blocks.0.norm2": ["linear", "0.200", "0.500", "50.0", "0.200", "0.500", "50.0", "kept"],
        "norm": ["tanh", "0.300", "0.00100", "100.0", "0.300", "0.00100", "100.0", "replaced"],
        "unused": ["-", "-", "-", "-", "-", "-", "-", "left", "out"],
    }
    assert "2 of 4 layers replaced by dyt (2 tanh)" in lines
    assert "converted model: KL 0.0110 nats, same top-1 class as the original 98.5 %" in lines
    assert (
        "measured on 64 images: bundled photographs, the images that the curves were fitted on"
        in lines
    )
    assert "left out: unused (not_called)" in lines
    assert (
        "lines for lack of an established curve: 1 layers; without --curves established each gets "
        "its curve of least loss" in lines
    )
    assert lines[-2:] == [
        "saved: m.safetensors, m.csv",
        "load it: probe.load_converted('m.safetensors')",
    ]
    assert "top-1 %" not in "\n".join(lines)


def test_labels_and_a_tolerance_are_told(cli: Any, jobs: Any) -> None:
    done = conversion(
        score=score(0.1, 0.9, 0.618),
        accuracy=0.727,
        tolerance=0.02,
        notes=["3 images could not be read"],
    )
    done.table["accuracy"] = [0.7, 0.6, 0.5, None]
    jobs.answers["convert"] = done
    lines = cli("convert", "runs/a", "-q").out.splitlines()
    assert "top-1: 72.7 % before, 61.8 % after" in lines
    assert (
        "tolerance: top-1 falls by at most 2.0 % of the images; layers taken by their KL alone"
        in lines
    )
    assert "3 images could not be read" in lines
    assert "top-1 % so far" in lines[0]
    assert lines[-1] == "nothing was written; --out FILE.safetensors saves the converted model"


def test_where_no_layer_is_within_the_tolerance_nothing_is_said_of_a_converted_model(
    cli: Any, jobs: Any
) -> None:
    done = conversion(swap=None, tolerance=0.0)
    done.table["replaced"] = False
    jobs.answers["convert"] = done
    lines = cli("convert", "runs/a", "-q").out.splitlines()
    assert "0 of 4 layers replaced by dyt" in lines
    assert (
        "tolerance: the class changes for at most 0.0 % of the images; layers taken by their KL "
        "alone" in lines
    )
    assert not any(line.startswith("converted model") for line in lines)
    assert lines[-1] == "nothing was written"


def test_json_has_every_number(cli: Any, jobs: Any) -> None:
    jobs.answers["convert"] = conversion(files=[Path("m.safetensors")])
    document = cli("convert", "runs/a", "-q", "--json").json
    assert document["layers"][0]["rel_error"] == 0.123456
    assert document["layers"][3]["kl"] is None
    assert document["converted"] == {"kl": 0.011, "agreement": 0.985, "accuracy": None}
    assert (document["run"], document["norm"], document["images"], document["files"]) == (
        "runs/a",
        "dyt",
        64,
        ["m.safetensors"],
    )


WRONG = {
    "convert": "RUN is missing; see probe-norms convert --help",
    "convert runs/a --to "
    "layer_norm": "--to layer_norm: must be one of dyt, derf, dyisru, learnable_scaler",
    "convert runs/a --tolerance 2": "--tolerance 2: must be a share of the images, from 0 to 1",
    "convert runs/a --tolerance nan": "--tolerance nan: must be a share of the images, from 0 to 1",
    "convert runs/a --tolerance 1%": "--tolerance 1%: must be a share of the images, from 0 to 1",
    "convert runs/a --scope token": "--scope token: must be one of channel, layer",
    "convert runs/a --curves some": "--curves some: must be one of all, established",
    "convert runs/a --eval --json": "--eval --json: needs a value before --json",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_use_is_one_line(cli: Any, jobs: Any, line: str) -> None:
    cli(*line.split())
    assert (cli.code, cli.out, cli.err) == (2, "", f"probe-norms: error: {WRONG[line]}\n")
    assert jobs.calls == []
