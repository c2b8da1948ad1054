"""Each command hands its options to its job and tells the result on stdout, as lines for people or
as one JSON document.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from probe.cli.options import default_out
from probe.records import Layer
from support.fake_runs import FakeRun, resnet_alphas


def test_without_options_the_bundled_model_runs_on_the_bundled_photographs(
    cli: Any, jobs: Any
) -> None:
    assert cli("-q").code == 0
    call = jobs.last("analyze")
    assert call.args == ("bundled:vit_cifar10", None)
    expected = {
        "out": "runs/vit_cifar10",
        "weights": "pretrained",
        "samples": 512,
        "tail": 1000,
        "layers": "*",
        "num_images": 128,
    }
    expected |= {
        "batch_size": 8,
        "workers": 0,
        "engine": "local",
        "address": None,
        "device": None,
        "dtype": None,
        "autocast": None,
        "seed": 0,
        "offline": False,
        "overwrite": False,
        "resume": False,
        "loader_timeout": None,
    }
    expected |= {"figures": True, "formats": ("png",), "attention": True, "report": True}
    assert {name: value for name, value in call.options.items() if name != "progress"} == expected


@pytest.mark.parametrize(("command", "job"), [((), "analyze"), (("capture",), "capture")])
def test_every_option_reaches_the_job(
    cli: Any, jobs: Any, command: tuple[str, ...], job: str
) -> None:
    line = (
        "--model resnet50 --weights random --data photos --out o --samples 7 --tail 2 --layers a* "
        "--num-images all "
    )
    line += (
        "--batch-size 3 --workers 2 --device cpu --dtype bfloat16 --seed 5 --offline --overwrite "
        "--autocast float16 --no-attention --resume --loader-timeout 9 --engine ray "
        "--address auto -q"
    )
    assert cli(*command, *line.split()).code == 0
    call = jobs.last(job)
    assert call.args == ("resnet50", "photos")
    expected = {
        "out": "o",
        "weights": "random",
        "samples": 7,
        "tail": 2,
        "layers": "a*",
        "num_images": None,
        "batch_size": 3,
    }
    expected |= {
        "workers": 2,
        "engine": "ray",
        "address": "auto",
        "device": "cpu",
        "dtype": "bfloat16",
        "autocast": "float16",
        "seed": 5,
        "offline": True,
        "overwrite": True,
        "resume": True,
        "loader_timeout": 9,
    }
    expected |= {"attention": False}
    for name in ("figures", "formats", "report"):
        call.options.pop(name, None)
    assert {name: value for name, value in call.options.items() if name != "progress"} == expected


def test_the_formats_of_the_figures_reach_the_job(cli: Any, jobs: Any) -> None:
    cli("-q", "--format", "svg,pdf")
    assert jobs.last("analyze").options["formats"] == ("svg", "pdf")


def test_no_figures(cli: Any, jobs: Any) -> None:
    cli("-q", "--no-figures")
    assert jobs.last("analyze").options["figures"] is False


def test_no_report(cli: Any, jobs: Any) -> None:
    cli("-q", "--no-report")
    assert jobs.last("analyze").options["report"] is False


@pytest.mark.parametrize(
    ("model", "weights", "out"),
    [
        ("bundled:vit_cifar10", "pretrained", "runs/vit_cifar10"),
        ("timm:resnet50", "pretrained", "runs/resnet50"),
        ("torchvision:resnet50", "pretrained", "runs/torchvision_resnet50"),
        ("resnet50", "random", "runs/resnet50-random"),
        ("resnet50", "/w/epoch 3.safetensors", "runs/resnet50-epoch_3"),
        ("hf_hub:org/model.v1", "pretrained", "runs/hf_hub_org_model.v1"),
        ("../..", "pretrained", "runs/_.."),
    ],
)
def test_the_default_place_tells_models_and_weights_apart_and_stays_below_runs(
    model: str, weights: str, out: str
) -> None:
    assert default_out(model, weights) == out


def test_the_result_is_a_table_and_what_to_know(cli: Any, jobs: Any, tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    for name in ("s_curves.png", "s_curves.svg", "families.png", "notes.txt"):
        (tmp_path / "figures" / name).touch()
    (tmp_path / "report.html").touch()
    jobs.answers["analyze"] = FakeRun(tmp_path)
    lines = cli("-q").out.splitlines()
    assert lines[0].split()[0] == "layer"
    assert lines[2].split()[:2] == ["blocks.0.norm1", "128"]
    assert "0.0691 [0.0672, 0.0709]" in lines[2]
    seen = "64 images of 14 photographs"
    assert f"{seen}; 17 layers (17 layer_norm of 128 channels): 14 linear, 3 curved" in lines
    assert (
        "S-shaped: 3 of 17; R2 above that of a line: blocks.0.norm1 +0.028, blocks.0.norm2 "
        "+0.012, blocks.1.norm1 +0.0041" in lines
    )
    assert f"run: {tmp_path}" in lines
    assert f"figures: 2 (png, svg) in {tmp_path / 'figures'}" in lines
    assert f"report: {tmp_path / 'report.html'}" in lines
    assert cli.err == ""


def test_skipped_images_missed_norms_and_random_weights_are_said(cli: Any, jobs: Any) -> None:
    lost = [{"image": f"{n}.png", "reason": "truncated"} for n in range(7)]
    found = FakeRun(
        data={"skipped": lost},
        not_captured={"blocks.0.attn": 12, "": 1},
        model={"name": "m", "weights": "random"},
    )
    jobs.answers["analyze"] = jobs.answers["capture"] = found
    for command in ("", "capture"):
        out = cli(*command.split(), "-q").out
        assert "skipped images: 7: 0.png (truncated), " in out
        assert "4.png (truncated) and 2 more\n" in out
        assert (
            "functional norms (F.layer_norm, ...), not captured: blocks.0.attn (12 calls), the "
            "model itself (1 call)\n" in out
        )
        assert "WARNING: RANDOM WEIGHTS: the model was not trained" in out
        assert "RANDOM WEIGHTS" in cli(*command.split(), "-q", "--json").json["warnings"][0]


def test_json_is_one_document_without_nan(cli: Any, jobs: Any) -> None:
    cli("--json")
    found = cli.json
    assert found["run"] == "runs/vit_cifar10"
    assert len(found["layers"]) == 17
    assert found["layers"][0]["alpha"] == pytest.approx(0.069123)
    assert found["layers"][3]["alpha"] is None
    assert found["layers"][0]["tied"] == "erf|isru|arctan"
    assert (found["images"], found["sources"]) == (64, 14)
    assert found["warnings"] == found["skipped_images"] == []


def test_affine_layers_show_their_fan_of_lines_and_no_alpha(cli: Any, jobs: Any) -> None:
    jobs.answers["analyze"] = FakeRun(alphas=resnet_alphas())
    out = cli("-q").out
    assert not {"alpha", "tanh", "best", "beyond"} & set(out.splitlines()[0].split())
    assert "R2 one line" in out.splitlines()[0]
    assert "0.123 .. 12.3" in out
    assert "53 layers (53 batch_norm of 2048 channels): 53 affine" in out
    assert "S-shaped: none (each channel is exactly a straight line)" in out


def test_capture_tells_what_was_seen_and_what_comes_next(cli: Any, jobs: Any) -> None:
    out = cli("capture", "-q").out
    assert "532,480" in out
    assert "17 layers (17 layer_norm of 128 channels): 17 captured\n" in out
    assert "next: probe-norms fit runs/vit_cifar10\n" in out
    assert cli("capture", "--json", "-q").json["layers"][0]["sigma_cv"] is None


def test_fit_opens_the_run_and_saves(cli: Any, jobs: Any) -> None:
    jobs.answers["fit"] = pd.DataFrame(
        {"layer": ["norm"], "family": ["tanh"], "alpha": [float("nan")], "best": [True]}
    )
    assert "17 layers" in cli("fit", "runs/a", "--families", "tanh, erf", "-q").out
    assert jobs.last("open_run").args == ("runs/a",)
    assert jobs.last("fit").options["families"] == ["tanh", "erf"]
    assert jobs.last("fit").options["save"] is True
    fits = cli("fit", "runs/a", "--json", "-q").json["fits"]
    assert fits == [{"layer": "norm", "family": "tanh", "alpha": None, "best": True}]
    assert jobs.last("fit").options["families"] is None


def test_plot_lists_the_figures_that_it_drew(cli: Any, jobs: Any) -> None:
    jobs.answers["plot"] = [Path("f/a.png"), Path("f/b.png")]
    line = "plot runs/a --kind s_curves,alpha --layers blocks.0.*,norm --format png --out f -q"
    assert cli(*line.split()).out == "f/a.png\nf/b.png\n"
    given = jobs.last("plot").options
    assert given["kinds"] == ["s_curves", "alpha"]
    assert given["layers"] == "blocks.0.*,norm"
    assert given["formats"] == ("png",)
    assert given["out"] == "f"
    assert cli("plot", "runs/a", "--json", "-q").json == {
        "run": "runs/a",
        "figures": ["f/a.png", "f/b.png"],
    }
    assert jobs.last("plot").options["kinds"] is None
    assert jobs.last("plot").options["formats"] == ("png", "svg")


def test_export_says_where_the_alphas_are(cli: Any, jobs: Any) -> None:
    jobs.answers["export_alphas"] = lambda run, path, scope: Path(path)
    assert (
        cli("export", "runs/a", "--to", "x.safetensors", "--scope", "layer").out
        == "x.safetensors\n"
    )
    assert jobs.last("export_alphas").args == ("runs/a", "x.safetensors")
    assert jobs.last("export_alphas").options == {"scope": "layer"}
    assert cli("export", "runs/a", "--to", "x.csv", "--json").json == {
        "run": "runs/a",
        "file": "x.csv",
        "scope": "channel",
    }


def test_compare_opens_both_runs_and_shows_the_table(cli: Any, jobs: Any) -> None:
    jobs.answers["open_run"] = lambda path: SimpleNamespace(path=path)
    jobs.answers["compare"] = pd.DataFrame(
        {
            "run": ["a", "b"],
            "kinds": ["layer_norm", "batch_norm"],
            "median_alpha": [0.0691, float("nan")],
        }
    )
    out = cli("compare", "runs/a", "runs/b").out
    assert [run.path for run in jobs.last("compare").args] == ["runs/a", "runs/b"]
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["a", "b"]
    assert lines[2:4] == [["kinds", "layer_norm", "batch_norm"], ["median", "alpha", "0.0691", "-"]]
    assert lines[-1] == ["--out", "DIR", "writes", "this", "table", "and", "a", "figure"]
    assert (
        cli("compare", "runs/a", "runs/b", "--out", "c").out.splitlines()[-1]
        == "table and figure: c"
    )
    assert cli("compare", "runs/a", "runs/b", "--json").json["rows"][1] == {
        "run": "b",
        "kinds": "batch_norm",
        "median_alpha": None,
    }


def test_verify_tells_each_problem_and_fails(cli: Any, jobs: Any) -> None:
    jobs.answers["verify_run"] = []
    assert cli("verify", "runs/a").code == 0
    assert cli.out == "runs/a: sound\n"
    jobs.answers["verify_run"] = ["moments.parquet: missing", "rows.parquet: changed"]
    assert cli("verify", "runs/a").code == 1
    assert cli.out == "runs/a: moments.parquet: missing\nruns/a: rows.parquet: changed\n"
    assert cli.err == ""
    document = cli("verify", "runs/a", "--json").json
    assert document["sound"] is False
    assert len(document["problems"]) == 2
    assert cli.code == 1


def test_figures_hands_its_options_to_the_job(cli: Any, jobs: Any) -> None:
    jobs.answers["published_figures"] = [Path("f/a.png")]
    line = "figures --out f --vit v --resnet r --data d --num-images 3 --seed 4 --device cpu -q"
    assert cli(*line.split()).out == "f/a.png\n"
    assert jobs.last("published_figures").args == ("f",)
    given = jobs.last("published_figures").options
    expected = {"vit": "v", "resnet": "r", "data": "d", "num_images": 3, "seed": 4, "device": "cpu"}
    assert {name: given[name] for name in expected} == expected
    assert cli("figures", "--json", "-q").json == {"figures": ["f/a.png"]}


def test_an_option_that_the_job_does_not_take_is_found_by_these_tests(jobs: Any) -> None:
    analyze = jobs.job("analyze")
    analyze("model", None, out="runs/a", samples=3)
    for wrong in ({"sampels": 3}, {"out": "runs/a", "sampels": 3}, {}):
        with pytest.raises(TypeError):
            analyze("model", None, **wrong)
    with pytest.raises(TypeError):
        jobs.job("draw_attention")("model", "image", "out", wieghts="random")
    assert len(jobs.misfits) == 4
    jobs.misfits.clear()


def test_layers_of_random_weights_by_default_or_of_a_file_with_other_classes(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch

    from probe.models.loading import hub
    from probe.models.loading.load import load_model

    file = tmp_path / "three.safetensors"
    three = load_model("test_vit", weights="random", num_classes=3).module
    safetensors.torch.save_file(three.state_dict(), file)
    monkeypatch.setattr(hub, "unreachable", lambda url: pytest.fail(f"{url} was asked"))
    listed = [
        cli("layers", "--model", "test_vit", *weights, "-q", "--json").json["layers"]
        for weights in ([], ["--weights", "random"], ["--weights", str(file)])
    ]
    assert listed[0] == listed[1] == listed[2]
    assert len(listed[0]) > 2
    assert cli("layers", "--model", "test_vit", "--weights", "none.pth", "-q").code == 2
    assert "weights 'none.pth' is not a file" in cli.err


def test_layers_needs_no_weights(cli: Any, jobs: Any) -> None:
    jobs.answers["load_model"] = SimpleNamespace(module="a module")
    names = ("blocks.0.norm1", "norm")
    jobs.answers["list_norm_layers"] = [
        Layer(name, name, n, "layer_norm", 192, 1e-6, False) for n, name in enumerate(names)
    ]
    out = cli("layers", "--model", "vit_tiny", "-q").out
    assert jobs.last("load_model").options["weights"] == "random"
    assert jobs.last("list_norm_layers").args == ("a module", "*")
    cli("layers", "--weights", "pretrained", "--layers", "a*", "--offline", "-q")
    assert jobs.last("load_model").options["weights"] == "pretrained"
    assert jobs.last("load_model").options["offline"] is True
    assert jobs.last("list_norm_layers").args == ("a module", "a*")
    assert "vit_tiny: 2 normalization layers: 2 layer_norm of 192 channels\n" in out
    assert out.splitlines()[2].split() == ["blocks.0.norm1", "layer_norm", "192", "1e-6", "no"]
    assert cli("layers", "-q", "--json").json["layers"][1]["name"] == "norm"
