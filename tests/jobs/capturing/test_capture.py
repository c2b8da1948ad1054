"""Capture from Python: any module, any batches, any mistake."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from probe.errors import ProbeError, UsageError
from probe.jobs.capturing.capture import capture
from probe.jobs.fitting.fit import fit
from probe.jobs.inputs import open_model
from probe.store import open_run, verify_run
from support.captures import Tokens, arrays, token_batches


def same_tables(a, b, *, rtol):
    for table in ("moments", "profile", "rows"):
        left, right = getattr(a, table)(), getattr(b, table)()
        pd.testing.assert_frame_equal(left, right, rtol=rtol, atol=1e-9, check_exact=False)


def test_a_plain_module_is_captured_in_execution_order(tmp_path):
    run = capture(Tokens(), token_batches(), out=tmp_path / "run")
    assert run.layers["layer"].tolist() == ["norm1", "norm2", "head_norm", "unused"]
    assert run.layers["status"].tolist() == ["captured"] * 3 + ["not_called"]
    assert run.layers["positions"].tolist() == [10, 10, 1, 0]
    assert run.layers["kind"].tolist() == ["layer_norm", "layer_norm", "rms_norm", "layer_norm"]


@pytest.mark.parametrize(
    "wrap",
    [lambda b: b, lambda b: (b, "label"), lambda b: {"x": b, "scale": 1.0}],
    ids=["tensor", "tuple", "mapping"],
)
def test_batches_may_be_tensors_tuples_or_mappings(wrap, tmp_path):
    expected = capture(Tokens(), token_batches(), out=tmp_path / "a")
    got = capture(Tokens(), map(wrap, token_batches()), out=tmp_path / "b")
    same_tables(got, expected, rtol=0)


def test_one_tensor_is_cut_into_batches(tmp_path):
    whole = torch.cat(token_batches())
    same_tables(
        capture(Tokens(), whole, out=tmp_path / "a"),
        capture(Tokens(), token_batches(), out=tmp_path / "b"),
        rtol=0,
    )


@pytest.mark.parametrize("size", [1, 7, 32])
def test_rows_do_not_depend_on_the_batch_size(size, tmp_path):
    a = capture(Tokens(), token_batches(size=8), out=tmp_path / "a", samples=50)
    b = capture(Tokens(), token_batches(size=size), out=tmp_path / "b", samples=50)
    for layer in ("norm1", "norm2"):
        left, right = (run.samples(layer, stratum="uniform") for run in (a, b))
        pd.testing.assert_frame_equal(
            left[["image", "position", "channel"]], right[["image", "position", "channel"]]
        )
        np.testing.assert_allclose(left["input"], right["input"], atol=1e-5)
    for column in ("mean_input", "var_input", "mean_output", "var_output"):
        np.testing.assert_allclose(a.moments()[column], b.moments()[column], rtol=1e-6, atol=1e-6)


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    runs = [capture(Tokens(), token_batches(), out=tmp_path / name) for name in "ab"]
    for run in runs:
        fit(run)
    files = sorted(
        path.relative_to(runs[0].path) for path in runs[0].path.rglob("*") if path.is_file()
    )
    assert len(files) > 8
    for name in files:
        if name.name != "manifest.json":
            assert (runs[0].path / name).read_bytes() == (runs[1].path / name).read_bytes(), name


def test_a_mask_leaves_padding_out(tmp_path):
    batches = token_batches()
    lengths = torch.arange(8) + 2
    mask = torch.arange(10)[None] < lengths[:, None]
    run = capture(Tokens(), batches, out=tmp_path / "run", mask=lambda batch: mask[: len(batch)])
    kept = torch.cat([batch[mask[: len(batch)]] for batch in batches]).double().numpy()
    moments = run.moments("norm1")
    assert moments["count"].tolist() == [len(kept)] * 8
    np.testing.assert_allclose(moments["mean_input"], kept.mean(0), rtol=1e-6)
    rows = run.samples("norm1")
    assert (rows["position"].to_numpy() < lengths.numpy()[rows["image"].to_numpy() % 8]).all()
    assert run.moments("head_norm")["count"].tolist() == [40] * 8


def test_a_mask_costs_no_sampled_rows(tmp_path):
    """With nine of ten positions masked, all the rows asked for still come, as long as there are so
    many.
    """
    mask = torch.arange(10)[None].expand(8, -1) == 3
    run = capture(
        Tokens(),
        token_batches(),
        out=tmp_path / "run",
        samples=32,
        mask=lambda batch: mask[: len(batch)],
    )
    rows = run.samples("norm1", channels=[0], stratum="uniform")
    assert len(rows) == 32
    assert set(rows["position"]) == {3}


def test_prefix_tokens_given_for_a_run_do_not_stick_to_the_model(tmp_path):
    model = open_model(Tokens())
    capture(model, token_batches(), out=tmp_path / "run", prefix_tokens=2)
    assert model.prefix_tokens == 0


def test_layers_that_are_never_called_make_an_empty_run(tmp_path):
    run = capture(Tokens(), token_batches(), out=tmp_path / "run", layers="unused")
    assert run.layers["status"].tolist() == ["not_called"]
    assert len(fit(run)) > 0
    assert run.alphas()["status"].tolist() == ["not_called"]
    assert verify_run(run) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_captured(dtype, tmp_path):
    run = capture(Tokens().to(dtype), [b.to(dtype) for b in token_batches()], out=tmp_path / "run")
    exact = capture(Tokens(), token_batches(), out=tmp_path / "exact")
    tolerance = 1e-6 if dtype == torch.float64 else 0.03
    np.testing.assert_allclose(
        run.moments("norm2")["mean_output"], exact.moments("norm2")["mean_output"], atol=tolerance
    )
    assert run.manifest["model"]["dtype"] == str(dtype).removeprefix("torch.")


def test_autocast_is_captured(tmp_path):
    run = capture(Tokens(), token_batches(), out=tmp_path / "run", autocast="bfloat16")
    assert run.manifest["model"]["autocast"] == "bfloat16"
    assert (run.layers["status"] == "captured").sum() == 3


def test_nan_activations_are_reported_for_their_layer_and_stop_no_other(tmp_path):
    module = Tokens()
    with torch.no_grad():
        module.mix.weight[0, 0] = torch.nan
    run = capture(module, token_batches(), out=tmp_path / "run")
    assert run.layers.set_index("layer")["status"].to_dict() == {
        "norm1": "captured",
        "norm2": "not_finite",
        "head_norm": "not_finite",
        "unused": "not_called",
    }
    fit(run)
    assert run.alphas()["status"].tolist()[1:] == ["not_finite", "not_finite", "not_called"]


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        return nn.functional.layer_norm(self.norm(self.norm(x) * 2), (8,))


def test_a_module_called_twice_is_two_layers_and_functional_calls_are_named(tmp_path):
    run = capture(Twice(), token_batches(), out=tmp_path / "run")
    assert run.layers["layer"].tolist() == ["norm#1", "norm#2"]
    assert run.manifest["not_captured"] == {": layer_norm": 1}
    assert len(run.samples("norm#2")) > 0


def test_a_layer_glob_keeps_only_its_layers(tmp_path):
    assert capture(Tokens(), token_batches(), out=tmp_path / "r", layers="norm*").layers[
        "layer"
    ].tolist() == ["norm1", "norm2"]


def test_stored_samples_are_what_the_module_computes(tmp_path):
    module = Tokens()
    run = capture(module, token_batches(), out=tmp_path / "run")
    x, z, y = arrays(run, "norm1", "input", "normalized", "output")
    expected = module.norm1(torch.from_numpy(x.copy())).detach().numpy()
    np.testing.assert_allclose(y, expected, atol=1e-6)
    np.testing.assert_allclose(z, expected, atol=2e-6)  # weight 1, bias 0


def test_prefix_tokens_are_kept_apart(tmp_path):
    run = capture(Tokens(), token_batches(), out=tmp_path / "run", prefix_tokens=2, samples=40)
    profile = run.profile("norm1").groupby("tokens")["count"].sum()
    assert profile.to_dict() == {"patch": 40 * 8 * 8, "prefix": 40 * 2 * 8}
    assert set(run.samples("norm1", stratum="prefix")["position"]) <= {0, 1}
    assert set(run.profile("head_norm")["tokens"]) == {"patch"}


def test_few_rows_leave_no_room_for_extra_prefix_rows(tmp_path):
    run = capture(Tokens(), token_batches(), out=tmp_path / "run", prefix_tokens=2, samples=4)
    assert run.samples("norm1", channels=[0]).query("stratum == 'uniform'").shape[0] == 4
    assert run.samples("norm1", stratum="prefix").empty
    assert verify_run(run) == []


def hooks_left(module):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def test_a_failing_model_leaves_no_hook_and_no_run(tmp_path):
    module = Tokens()

    def batches():
        yield token_batches()[0]
        raise RuntimeError("the data broke")

    with pytest.raises(RuntimeError, match="the data broke"):
        capture(module, batches(), out=tmp_path / "run")
    assert hooks_left(module) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "--samples 0: must be at least 1"),
        ({"tail": 1}, "--tail 1: must be at least 2"),
        ({"num_images": 0}, "--num-images 0: must be at least 1"),
        ({"batch_size": 0}, "--batch-size 0: must be at least 1"),
        ({"engine": "spark"}, "--engine 'spark' is unknown; known: local"),
        ({"autocast": "int8"}, "--autocast 'int8' is unknown; known: bfloat16, float16"),
        ({"layers": "blocks.*"}, "matches none of the 4 normalization layers"),
        ({"data": None}, "a plain module needs transform="),
        ({"data": 3}, "data is a int; accepted"),
        ({"data": ["a", 3]}, "a batch is a str; accepted: a tensor"),
        ({"mask": lambda batch: torch.ones(3)}, r"mask gave a tensor of shape \(3,\)"),
    ],
)
def test_wrong_arguments_get_one_line(options, message, tmp_path):
    data = options.pop("data", token_batches())
    with pytest.raises(UsageError, match=message) as error:
        capture(Tokens(), data, out=tmp_path / "run", **options)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_no_batch_at_all_is_an_error(tmp_path):
    with pytest.raises(ProbeError, match="no image went through the model"):
        capture(Tokens(), [], out=tmp_path / "run")


def test_a_compiled_model_is_captured_unwrapped(tmp_path):
    assert len(capture(torch.compile(Tokens()), token_batches(), out=tmp_path / "run").layers) == 4


def test_an_existing_run_is_refused_before_the_model_runs(tmp_path):
    capture(Tokens(), token_batches(), out=tmp_path / "run")
    with pytest.raises(UsageError, match="already holds a run"):
        capture("no such model", token_batches(), out=tmp_path / "run")
    assert len(capture(Tokens(), token_batches(), out=tmp_path / "run", overwrite=True).layers) == 4


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("probe.store.writer.EntryWriter.write", full)
    with pytest.raises(ProbeError, match="No space left on device") as error:
        capture(Tokens(), token_batches(), out=tmp_path / "run")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


SLEEPY = """
import sys, time
sys.path.insert(0, {folder!r})
from support.captures import Tokens, token_batches
from probe.jobs.capturing.capture import capture
def batches():
    for batch in token_batches():
        yield batch
        print("batch", flush=True)
        time.sleep(30)
capture(Tokens(), batches(), out={out!r})
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill"])
def test_an_interrupted_capture_leaves_nothing_that_opens(how, tmp_path):
    out = tmp_path / "run"
    code = SLEEPY.format(folder=str(Path(__file__).parents[2]), out=str(out))
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout.readline()
    time.sleep(0.1)
    process.send_signal(how)
    process.wait(20)
    process.stdout.close()
    assert not out.exists()
    with pytest.raises(UsageError):
        open_run(out)
    capture(Tokens(), token_batches(), out=out)  # and the next one may use the place
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_manifest_says_what_was_done(tmp_path):
    run = capture(Tokens(), token_batches(), out=tmp_path / "run", seed=5)
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["plan"]["seed"] == 5
    assert manifest["images_seen"] == 40
    assert manifest["model"]["fingerprint"].startswith("sha256:")
    assert manifest["versions"]["torch"] == torch.__version__.split("+")[0]
    assert all(
        record["affine_error"] < 1e-5
        for record in manifest["layers"]
        if record["status"] == "captured"
    )
