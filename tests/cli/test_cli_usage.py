"""Wrong usage is one line on stderr with what was given, what is accepted and what to do; exit code
2, no job is started.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

WRONG = {
    "--samples 0": "--samples 0: must be at least 1",
    "--samples -1": "--samples -1: must be at least 1",
    "--samples abc": "--samples abc: must be a whole number of at least 1",
    "--samples 1.5": "--samples 1.5: must be a whole number of at least 1",
    "capture --samples 0": "--samples 0: must be at least 1",
    "--tail 1": "--tail 1: must be at least 2",
    "--num-images 0": "--num-images 0: must be at least 1, or 'all'",
    "--num-images some": "--num-images some: must be a whole number of at least 1, or 'all'",
    "--batch-size 0": "--batch-size 0: must be at least 1",
    "--workers -1": "--workers -1: must be at least 0",
    "--seed -1": "--seed -1: must be at least 0",
    "--dtype int8": "--dtype int8: must be one of float32, bfloat16, float16",
    "--samples": "--samples needs a value after it; see probe-norms --help",
    "--out --json": "--out --json: needs a value before --json",
    "--sampels 3": "option --sampels is unknown (did you mean --samples?); see probe-norms --help",
    "fit runs/a --model x": (
        "option --model is unknown (accepted: --families, --out, --overwrite, --quiet, --json, "
        "--help); see probe-norms fit --help"
    ),
    "-x": "option -x is unknown (accepted: --model, ",
    "fitt runs/a": "command 'fitt' is unknown (did you mean fit?); known: capture, layers, "
    "attention, fit, plot, ",
    "fit": "RUN is missing; see probe-norms fit --help",
    "compare runs/a": "RUN is missing; see probe-norms compare --help",
    "export runs/a": "--to FILE is missing; see probe-norms export --help",
    "export runs/a --to x.csv --scope pixel": "--scope pixel: must be one of channel, layer",
    "plot runs/a --format "
    "gif,png": "--format gif,png: must be one or more of png, svg, pdf, with commas between",
    "fit runs/a --families ,": "--families ,: must be one or more names, with commas between",
    "verify runs/a "
    "runs/b": "Got unexpected extra argument(s) (runs/b); see probe-norms verify --help",
    "--model m fit runs/a": (
        "--model before fit: options go after the command; see probe-norms fit --help, or leave "
        "out fit to do the whole job"
    ),
    "-q --json verify runs/a": "--quiet, --json before verify: options go after the command",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_usage_is_one_line_and_exit_code_2(cli: Any, jobs: Any, line: str) -> None:
    cli(*line.split())
    assert cli.code == 2
    assert cli.err.startswith(f"probe-norms: error: {WRONG[line]}")
    assert cli.err.count("\n") == 1
    assert cli.out == ""
    assert jobs.calls == []


def test_a_file_of_an_unknown_ending_is_wrong_usage_before_the_run_is_opened(cli: Any) -> None:
    assert cli("export", "runs/none", "--to", "x.txt").code == 2
    assert cli.err == "probe-norms: error: --to x.txt: must end in .csv, .json or .safetensors\n"


def test_an_empty_value_is_refused(cli: Any, jobs: Any) -> None:
    assert cli("--out", "").code == 2
    assert cli.err == "probe-norms: error: --out : needs a value\n"


def test_a_path_that_starts_with_dashes_can_be_given(cli: Any, jobs: Any) -> None:
    assert cli("--out", "./--json").code == 0
    assert jobs.last("analyze").options["out"] == "./--json"


@pytest.mark.parametrize(
    "command", ["", "capture", "layers", "attention", "fit", "plot", "export", "compare", "verify"]
)
def test_every_command_has_help(cli: Any, command: str) -> None:
    cli(*command.split(), "--help")
    assert cli.code == 0
    assert cli.out.startswith(f"Usage: {' '.join(['probe-norms', *command.split()])}")
    assert cli.err == ""


def test_options_read_the_same_in_every_help(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    whole = [" ".join(line.split()) for line in cli("--help").out.splitlines()]
    shared = [
        "--model",
        "--weights",
        "--data",
        "--out",
        "--layers",
        "--num-images",
        "--batch-size",
        "--workers",
        "--samples",
    ]
    shared += [
        "--tail",
        "--seed",
        "--device",
        "--dtype",
        "--overwrite",
        "--offline",
        "-q, --quiet",
        "--json",
    ]
    capture = [" ".join(line.split()) for line in cli("capture", "--help").out.splitlines()]
    for name in shared:
        described = [line for line in whole if line.startswith(f"{name} ")]
        assert described, name
        assert described[0] in capture


def test_help_shows_the_defaults_that_the_job_gets(cli: Any, jobs: Any) -> None:
    text = " ".join(cli("--help").out.split())
    cli("-q")
    options = jobs.last("analyze").options
    for name in ("samples", "tail", "num_images", "batch_size", "workers", "seed"):
        shown = text.split(f"--{name.replace('_', '-')} N ")[1].split("[default: ")[1].split("]")[0]
        assert shown == str(options[name]), name


def test_version(cli: Any) -> None:
    assert cli("--version").out.startswith("probe-norms")
    assert cli.code == 0


def test_nothing_is_written_by_wrong_usage(
    cli: Any, jobs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cli("--samples", "0")
    assert list(tmp_path.iterdir()) == []
