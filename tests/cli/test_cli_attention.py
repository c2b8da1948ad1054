"""`probe-norms attention` of a model, of runs and of an image; and what the whole job says about
attention.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from probe.cli.views.grid import columns_of
from probe.errors import ProbeError, UsageError
from probe.store.run import run_names
from probe.wording import attention as findings
from probe.wording.columns import ATTENTION_LAYERS
from support.fake_runs import FakeRun

RANDOM = "RANDOM WEIGHTS: the model was not trained; these numbers say nothing about a trained one"


def heads(layers: int = 2, **values: Any) -> pd.DataFrame:
    """Three heads a layer at 10, 40 and 70 pixels, of uniform 100; the second layer 10 farther."""
    rows = [
        {
            "layer": f"blocks.{depth}.attn",
            "head": head,
            "depth": depth,
            "distance_px": 10.0 + 30 * head + 10 * depth,
        }
        for depth in range(layers)
        for head in range(3)
    ]
    same = {
        "distance_patches": 2.5,
        "prefix_mass": 0.125,
        "entropy": 4.5,
        "token_stride": 16.0,
        "grid": "14x14",
    }
    return pd.DataFrame(rows).assign(
        **same | {"uniform_px": 100.0, "images": 8, "windows": 1, "prefix_tokens": 1} | values
    )


def measured(layers: int = 2, **attrs: Any) -> pd.DataFrame:
    """What the job returns."""
    table = heads(layers)
    table.attrs = {
        "model": "timm:m",
        "weights": "pretrained",
        "status": "captured",
        "unreadable": {},
        **attrs,
    }
    return table


class AttentionRun(FakeRun):
    """A run with an attention table."""

    def __init__(
        self, path: str = "runs/a", table: pd.DataFrame | None = None, **record: Any
    ) -> None:
        super().__init__(path, attention={"status": "captured", "unreadable": {}, **record})
        self._table = heads() if table is None else table

    def attention(self) -> pd.DataFrame:
        return self._table


@pytest.fixture
def attending(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys.modules["probe.store.run"], "run_names", run_names, raising=False)
    jobs.answers["attention_distance"] = measured()
    jobs.answers["open_run"] = AttentionRun
    jobs.answers["draw_runs"] = lambda runs, out: [
        Path(out) / name for name in ("attention.csv", "attention_distance.png")
    ]
    jobs.answers["draw_attention"] = lambda model, image, out, **options: (
        [Path(out) / "map.png"],
        {"rollout": "it has windows"},
    )
    jobs.answers["plot"] = [
        Path("o/figures/attention_distance.png"),
        Path("o/figures/attention_heads.png"),
    ]
    return jobs


def test_without_options_the_bundled_model_is_measured_and_nothing_is_written(
    cli: Any, attending: Any
) -> None:
    assert cli("attention", "-q").code == 0
    call = attending.last("attention_distance")
    assert call.args == ("bundled:vit_cifar10", None)
    expected = {
        "out": None,
        "weights": "pretrained",
        "num_images": 128,
        "batch_size": 8,
        "workers": 0,
        "engine": "local",
        "address": None,
        "device": None,
        "seed": 0,
    }
    expected |= {
        "dtype": None,
        "offline": False,
        "overwrite": False,
        "patch_size": None,
        "prefix_tokens": None,
        "grid": None,
    }
    assert {name: value for name, value in call.options.items() if name != "progress"} == expected
    assert [call.name for call in attending.calls] == ["attention_distance"]


def test_every_option_reaches_the_job(cli: Any, attending: Any) -> None:
    line = (
        "attention --model m --weights random --data photos --out o --num-images all --batch-size "
        "3 --workers 2 --engine ray --address auto --device cpu "
    )
    line += (
        "--dtype bfloat16 --seed 5 --patch-size 14 --prefix-tokens 5 --grid 16x12 --offline "
        "--overwrite --no-figures -q"
    )
    assert cli(*line.split()).code == 0
    call = attending.last("attention_distance")
    assert call.args == ("m", "photos")
    expected = {
        "out": "o",
        "weights": "random",
        "num_images": None,
        "batch_size": 3,
        "workers": 2,
        "engine": "ray",
        "address": "auto",
        "device": "cpu",
        "seed": 5,
    }
    expected |= {
        "dtype": "bfloat16",
        "offline": True,
        "overwrite": True,
        "patch_size": 14,
        "prefix_tokens": 5,
        "grid": (16, 12),
    }
    assert {name: value for name, value in call.options.items() if name != "progress"} == expected
    assert "plot" not in [call.name for call in attending.calls]


def test_the_table_has_one_row_per_layer(cli: Any, attending: Any) -> None:
    lines = cli("attention", "-q").out.splitlines()
    names = [
        "layer",
        "heads",
        "distance px",
        "min .. max",
        "patches",
        "uniform px",
        "local",
        "prefix %",
        "entropy",
        "grid",
    ]
    assert lines[0].split() == " ".join([*names, "stride px"]).split()
    cells = ["3", "40.0", "10.0", "..", "70.0", "2.50", "100", "2", "12.5", "4.50", "14x14", "16.0"]
    assert lines[2].split() == ["blocks.0.attn", *cells]
    assert lines[3].split()[:8] == [
        "blocks.1.attn",
        "3",
        "50.0",
        "20.0",
        "..",
        "80.0",
        "2.50",
        "100",
    ]
    assert (
        "6 heads in 2 layers: 3 local (mean distance under half of that of uniform attention)"
        in lines
    )


def test_json_has_every_head_with_every_number(cli: Any, attending: Any) -> None:
    found = cli("attention", "--json", "-q").json
    assert len(found["heads"]) == 6
    assert found["heads"][5]["distance_px"] == 80.0
    assert set(found["heads"][0]) == set(heads().columns)
    assert found["of"] == {
        "bundled:vit_cifar10": {
            "model": "timm:m",
            "weights": "pretrained",
            "status": "captured",
            "unreadable": {},
        }
    }
    assert found["warnings"] == {}


def test_with_out_the_run_is_drawn_and_named(cli: Any, attending: Any) -> None:
    out = cli("attention", "--out", "o", "-q").out
    assert attending.last("plot").args == ("o",)
    assert (
        "run: o\nfigures and tables: attention_distance.png, attention_heads.png in o/figures\n"
        in out
    )


def test_unreadable_layers_and_random_weights_are_said(cli: Any, attending: Any) -> None:
    unreadable = {f"stages.{n}.attn": "linear attention" for n in range(5)}
    attending.answers["attention_distance"] = measured(
        status="partial", unreadable=unreadable, weights="random"
    )
    lines = cli("attention", "-q").out.splitlines()
    named = ", ".join(f"stages.{n}.attn (linear attention)" for n in range(3))
    assert f"attention that cannot be read: {named} and 2 more" in lines
    assert f"WARNING: {RANDOM}" in lines
    found = cli("attention", "--json", "-q").json
    assert found["of"]["bundled:vit_cifar10"]["unreadable"] == unreadable
    assert found["warnings"] == {"bundled:vit_cifar10": [RANDOM]}


def test_runs_are_told_in_one_table_and_drawn_in_one_figure(cli: Any, attending: Any) -> None:
    out = cli("attention", "runs/a", "runs/b", "--out", "c", "-q").out
    assert [run.path for run in attending.last("draw_runs").args[0]] == [
        Path("runs/a"),
        Path("runs/b"),
    ]
    assert attending.last("draw_runs").args[1] == "c"
    rows = [line.split()[:2] for line in out.splitlines()[2:6]]
    assert rows == [[f"blocks.{depth}.attn", run] for run in ("a", "b") for depth in range(2)]
    for run in ("a", "b"):
        assert f"{run}: 6 heads in 2 layers: 3 local" in out
    assert "figures and tables: attention.csv, attention_distance.png in c\n" in out
    assert "attention_distance" not in [call.name for call in attending.calls]


def test_one_run_is_told_as_a_model_and_without_out_nothing_is_drawn(
    cli: Any, attending: Any
) -> None:
    lines = cli("attention", "runs/a", "-q").out.splitlines()
    assert "run" not in lines[0].split()
    assert lines[-1].startswith("6 heads in 2 layers")
    assert [call.name for call in attending.calls] == ["open_run"]


def test_json_of_runs_names_the_run_of_each_head(cli: Any, attending: Any) -> None:
    attending.answers["open_run"] = lambda path: AttentionRun(path, heads(1))
    found = cli("attention", "runs/a", "runs/b", "--json", "-q").json
    assert [row["run"] for row in found["heads"]] == ["a"] * 3 + ["b"] * 3
    assert found["of"]["b"]["name"] == "vit_cifar10"


def test_an_image_draws_its_maps_and_says_what_it_left_out(cli: Any, attending: Any) -> None:
    line = (
        "attention --model m --image a.png --query 3,5 --layers blocks.0.*,blocks.3.attn --out o "
        "--grid 8x8"
    )
    assert cli(*line.split()).out == "o/map.png\n"
    assert cli.err.splitlines()[-1] == "rollout left out: it has windows"
    call = attending.last("draw_attention")
    assert call.args == ("m", "a.png", "o")
    expected = {
        "query": (3, 5),
        "layers": "blocks.0.*,blocks.3.attn",
        "grid": (8, 8),
        "patch_size": None,
        "seed": 0,
    }
    expected |= {
        "prefix_tokens": None,
        "weights": "pretrained",
        "device": None,
        "dtype": None,
        "offline": False,
    }
    assert call.options == expected
    assert cli(*line.split(), "-q").err == ""
    assert cli(*line.split(), "-q", "--json").json["left_out"] == {"rollout": "it has windows"}


RUNS = "with RUN: give finished runs or a model, not both; --out, --quiet and --json go with runs"
WRONG = {
    "runs/a --model m": f"--model {RUNS}",
    "runs/a --num-images 3 --seed 1": f"--num-images, --seed {RUNS}",
    "runs/a --image a.png": f"--image {RUNS}",
    "--query 3,5": "--query does not go with a model: give --image FILE with it",
    "--layers blocks.*": "--layers does not go with a model: give --image FILE with it",
    "--check-grid --num-images 3": "--num-images does not go with --check-grid: it changes patches "
    "of an image of its own; leave it out for distances",
    "--image a.png": "--image needs --out DIR: the directory of its figures",
    "--image a.png --out o --data "
    "d": "--data does not go with --image: an image has maps only; leave --image out for distances",
    "--grid 14": "--grid 14: must be two whole numbers of at least 1, e.g. 14x14",
    "--grid 0x3": "--grid 0x3: must be two whole numbers of at least 1, e.g. 14x14",
    "--image a --query 3x5": "--query 3x5: must be two whole numbers of at least 0, e.g. 3,5",
    "--prefix-tokens -1": "--prefix-tokens -1: must be at least 0",
    "--patch-size 0": "--patch-size 0: must be at least 1",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_usage_is_one_line_and_starts_nothing(cli: Any, attending: Any, line: str) -> None:
    assert cli("attention", *line.split()).code == 2
    assert cli.err == f"probe-norms: error: {WRONG[line]}\n"
    assert (cli.out, attending.calls) == ("", [])


def test_a_model_without_attention_is_one_line_and_exit_code_1(cli: Any, attending: Any) -> None:
    attending.answers["attention_distance"] = ProbeError(
        "resnet50 has no attention: a forward pass computes none"
    )
    assert cli("attention", "--model", "resnet50", "-q").code == 1
    assert (
        cli.err == "probe-norms: error: resnet50 has no attention: a forward pass computes none\n"
    )
    assert cli.out == ""


def test_a_run_without_the_table_is_one_line(cli: Any, attending: Any) -> None:
    def without(_path: str) -> Any:
        def refuse() -> None:
            raise UsageError("run runs/a has no attention table")

        return SimpleNamespace(path="runs/a", attention=refuse, manifest={})

    attending.answers["open_run"] = without
    assert cli("attention", "runs/a").code == 2
    assert cli.err == "probe-norms: error: run runs/a has no attention table\n"


def test_patches_stand_in_where_pixels_are_not_known() -> None:
    rows = findings.per_layer(
        heads(distance_px=None, uniform_px=None).astype(object).to_dict("records")
    )
    assert (rows[0]["distance_px"], rows[0]["local"], rows[0]["distance_patches"]) == (
        None,
        None,
        2.5,
    )
    assert "distance px" not in [column.header for column in columns_of(ATTENTION_LAYERS, rows)]
    assert findings.count(heads(1, distance_px=None).to_dict("records")) == "3 heads in 1 layer"


def test_a_head_at_half_of_uniform_is_not_local() -> None:
    rows = [
        {"layer": "a", "head": n, "distance_px": px, "uniform_px": 100.0}
        for n, px in enumerate((49.9, 50.0, 80.0))
    ]
    assert findings.local(rows) == 1


def test_windows_are_a_column_where_there_are_some() -> None:
    rows = findings.per_layer(heads(windows=16).to_dict("records"))
    assert "windows" in [column.header for column in columns_of(ATTENTION_LAYERS, rows)]


@pytest.mark.parametrize(
    ("record", "line"),
    [
        ({"status": "none"}, "attention: none, the model computes none"),
        (
            {"status": "unreadable", "unreadable": {"a": "pools"}},
            "attention that cannot be read: a (pools)",
        ),
        (
            {"status": "captured"},
            "attention: 6 heads in 2 layers: 3 local (mean distance under half of that of uniform "
            "attention)",
        ),
        (
            {"status": "partial", "unreadable": {"a": "pools"}},
            "attention that cannot be read: a (pools)",
        ),
        ({"status": "off"}, None),
    ],
)
@pytest.mark.parametrize("command", ["", "capture"])
def test_the_whole_job_says_what_it_read_of_attention(
    cli: Any, attending: Any, command: str, record: dict[str, Any], line: str | None
) -> None:
    attending.answers["analyze"] = attending.answers["capture"] = AttentionRun(
        **{"unreadable": {}, **record}
    )
    said = [
        line
        for line in cli(*command.split(), "-q").out.splitlines()
        if line.startswith("attention")
    ]
    assert any(one.startswith(line) for one in said) if line else said == []
    document = cli(*command.split(), "-q", "--json").json["attention"]
    assert document["status"] == record["status"]
    assert len(document["table"]) == (6 if record["status"] in ("captured", "partial") else 0)


def test_the_whole_job_tells_the_range_of_distances(cli: Any, attending: Any) -> None:
    attending.answers["analyze"] = AttentionRun()
    assert ", distance 10.0 to 80.0 px\n" in cli("-q").out


def test_check_grid_shows_which_layers_agree(monkeypatch, capsys) -> None:
    from probe.cli.commands import attention as command
    from probe.jobs.capturing import grid_check

    asked: dict[str, Any] = {}

    def job(model: str, **options: Any) -> pd.DataFrame:
        inspect.signature(real).bind(model, **options)
        asked.update(options, model=model)
        row = {"grid": "14x14", "token_stride": 16.0, "patches": 9, "largest_offset": 0.5}
        return pd.DataFrame(
            [
                {"layer": "a", "agreeing": 9, "agrees": True, **row},
                {"layer": "b", "agreeing": 3, "agrees": False, **row},
            ]
        )

    real = grid_check.check_attention_grid
    monkeypatch.setattr(grid_check, "check_attention_grid", job)
    command.of_grid("m", True, False, weights="random", seed=1, patch_size=16)
    shown = capsys.readouterr().out
    assert "3 of 9" in shown
    assert "NO" in shown
    assert "1 of 2 layers change first where the image changed" in shown
    assert asked == {"model": "m", "weights": "random", "seed": 1, "patch_size": 16}
