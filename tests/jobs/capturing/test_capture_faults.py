"""Faults in the midst of a capture: it goes on, or ends in one line and can be gone on with."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from torch import nn

from probe.cli.failure import explain
from probe.errors import ProbeError, UsageError
from probe.jobs.analyze import analyze
from probe.jobs.capturing.capture import capture
from probe.store import open_run
from support.captures import Everything, Tokens, token_batches
from support.interrupted import contents, job, tokens, write_images


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("faults") / "images")


class Deadly:
    """A transform that kills its loader process at one image."""

    def __init__(self, at, how):
        self.left, self.how, self.main = at, how, os.getpid()

    def __call__(self, image):
        self.left -= 1
        if not self.left and os.getpid() != self.main:
            self.how()
        return tokens(image)

    __qualname__ = "tokens"  # what the same transform is called in the job that goes on


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def hang():
    signal.pause()


@pytest.mark.parametrize(
    ("how", "line"),
    [(kill, "a loader worker process died"), (hang, "gave no batch for 2 s (--loader-timeout)")],
)
def test_a_lost_loader_worker_ends_in_one_line_and_the_job_goes_on(
    how, line, images, tmp_path, monkeypatch
):
    from support.interrupted import state_after_each_batch

    state_after_each_batch(monkeypatch)
    out, same = tmp_path / "run", Deadly(0, how)
    with pytest.raises(ProbeError) as caught:
        job(images, out, transform=Deadly(12, how), workers=1, loader_timeout=2)
    said, code = explain(caught.value)
    assert line in said
    assert "of 26 images are done: --resume (resume=True) goes on" in said
    assert code == 1
    run = job(images, out, transform=same, resume=True)
    assert contents(run) == contents(job(images, tmp_path / "whole", transform=same))


def test_an_error_of_a_lost_worker_in_the_midst_of_a_batch_is_the_same_line(tmp_path):
    def raised(*_):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    module = Everything()
    module.head.register_forward_pre_hook(raised)
    with pytest.raises(ProbeError, match="a loader worker process died .out of memory"):
        capture(module, token_batches(positions=12), out=tmp_path / "run")


@pytest.mark.parametrize("place", [0, 2, 5])
def test_an_empty_batch_is_left_out(place, tmp_path):
    batches = token_batches()
    whole = capture(Tokens(), batches, out=tmp_path / "whole")
    batches.insert(place, torch.zeros(0, 10, 8))
    assert (
        contents(capture(Tokens(), batches, out=tmp_path / "run"))["moments.parquet"]
        == (whole.path / "moments.parquet").read_bytes()
    )
    with pytest.raises(ProbeError, match="no image went through the model"):
        capture(Tokens(), [torch.zeros(0, 10, 8)], out=tmp_path / "none")


@pytest.mark.parametrize("path", ["~no-such-user-here/x", "a\0b"])
def test_a_place_that_cannot_be_is_one_line(path):
    for wrong in (lambda: capture(Tokens(), token_batches(), out=path), lambda: open_run(path)):
        with pytest.raises(UsageError, match="home folder of ~no-such-user-here|NUL character"):
            wrong()


@pytest.mark.parametrize("scale", [1e19, 1e30, 2e37])
def test_huge_activations_give_a_run_whose_numbers_are_right(scale, tmp_path):
    class Huge(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.batch_norm = nn.LayerNorm(8), nn.BatchNorm1d(8)
            self.eval()

        def forward(self, x):
            x = x * scale
            return self.norm(x), self.batch_norm(x.transpose(1, 2))

    batches = token_batches()
    run = analyze(Huge(), batches, out=tmp_path / "run", attention=False, figures=False)
    everything = torch.cat(batches).double().flatten(0, 1) * scale
    for layer in ("norm", "batch_norm"):
        moments = run.moments(layer)
        largest, mean = (torch.tensor(moments[f"{name}_input"]) for name in ("max", "mean"))
        assert torch.allclose(largest, everything.amax(0), rtol=1e-6)
        assert torch.allclose(mean, everything.mean(0), rtol=1e-5)
    assert run.alphas()["max_abs_input"].tolist() == pytest.approx(
        [everything.abs().max().item()] * 2
    )
    lines = run.channel_fits().query("layer == 'batch_norm'")
    assert lines["slope"].to_numpy() == pytest.approx(1, rel=1e-4)


def test_infinite_activations_are_counted_and_warn_of_nothing(tmp_path):
    class Infinite(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.batch_norm = nn.LayerNorm(8), nn.BatchNorm1d(8)
            self.eval()

        def forward(self, x):
            x = torch.where(x > 2, torch.inf, x)
            return self.norm(x), self.batch_norm(x.transpose(1, 2))

    run = analyze(Infinite(), token_batches(), out=tmp_path / "run", attention=False, figures=False)
    assert run.layers["status"].tolist() == ["not_finite"] * 2
    assert (run.layers["not_finite"] > 0).all()
