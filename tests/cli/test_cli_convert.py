"""`probe-norms convert`: what it asks of the job, what it prints, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from probe.jobs.converting.calibrate import Calibration
from probe.jobs.converting.result import Distillation
from probe.jobs.converting.scores import Score
from probe.jobs.speed import Speed

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
        "calibration": None,
        "distillation": None,
        "stages": {},
        "speed": [],
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
        "--engine ray --address auto --overwrite --offline -q"
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
        "calibrate": False,
        "measure_speed": False,
        "model": "net.py:make",
        "weights": "w.pth",
        "batch_size": 3,
        "workers": 1,
        "engine": "ray",
        "address": "auto",
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


def test_a_distillation_is_asked_for_with_its_images(cli: Any, jobs: Any) -> None:
    jobs.answers["distill"] = conversion()
    line = "--calibrate --distill 40 --data photos --train all --lr 0.01 --train-images 64"
    assert cli("convert", "runs/a", *line.split(), "--out", "m.safetensors", "-q").code == 0
    options = jobs.last("distill").options
    asked = ("steps", "data", "train", "lr", "train_images", "precision", "calibrate", "eval_data")
    assert [options[name] for name in asked] == [40, "photos", "all", 0.01, 64, "no", True, None]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--distill 5 --out m.safetensors", "--distill 5: needs --data D"),
        ("--distill 5 --data photos", "--distill 5: needs --out FILE.safetensors"),
        ("--data photos", "--data photos: is for --distill STEPS"),
        ("--distill 0", "--distill 0: must be at least 1"),
        ("--train some", "--train some"),
        ("--lr 0", "--lr 0: must be a number above 0"),
    ],
)
def test_options_of_a_distillation_that_do_not_fit_are_one_line(
    line: str, message: str, cli: Any, jobs: Any
) -> None:
    done = cli("convert", "runs/a", *line.split())
    assert done.code == 2
    assert message in done.err
    assert not jobs.calls


def test_what_came_after_the_conversion_is_told(cli: Any, jobs: Any) -> None:
    steps = {"a": 1.0, "b": 0.0}
    rounds = pd.DataFrame({"epoch": [0, 1], "kl": [0.3, 0.1]})
    jobs.answers["convert"] = conversion(
        calibration=Calibration(64, "photographs", 0.7, 0.4, steps),
        distillation=Distillation(rounds, "norms", 40, 1, 56, 8, 2),
        stages={"converted": score(0.4, 0.6, None), "distilled": score(0.1, 0.8, None)},
        speed=[
            Speed("eager", 1, 2.0, 2.5, 0.8, 0.7, 0.9, 9),
            Speed("compiled", 1, None, None, None, None, None, 0, "torch.compile: no compiler"),
        ],
    )
    text = cli("convert", "runs/a").out
    assert "calibrated 1 of 2 layers on 64 images: mean squared output error 0.700 before" in text
    assert "distilled 40 updates of the norms' parameters on 56 images; on 8 held-out" in text
    assert "0.80 times as fast [0.70, 0.90], slower" in text
    assert "compiled, 1 image: not measured (torch.compile: no compiler)" in text
    assert "it buys no time on this machine" in text


def test_the_document_holds_what_came_after_the_conversion(cli: Any, jobs: Any) -> None:
    jobs.answers["convert"] = conversion(
        calibration=Calibration(64, "photographs", 0.7, 0.4, {"a": 1.0}),
        stages={"converted": Score(0.4, 0.6, None), "calibrated": Score(0.3, 0.7, None)},
        speed=[Speed("eager", 1, 2.0, 2.5, 0.8, 0.7, 0.9, 9)],
    )
    document = cli("convert", "runs/a", "--json").json
    assert document["calibration"]["steps"] == {"a": 1.0}
    assert document["stages"]["calibrated"]["kl"] == 0.3
    assert document["speed"][0]["verdict"] == "slower"
    assert "distillation" not in document
