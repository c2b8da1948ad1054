"""Where the memory of the GPU runs out, a batch goes through the model in parts: the run is the
same to rounding, and says so.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from probe.cli.failure import explain
from probe.jobs.capturing.attention import attention_distance
from probe.jobs.capturing.capture import capture
from probe.stats import device_batch, results, torch_summary
from probe.stats.profile import Profile
from probe.wording.notes import warnings_of
from support.captures import Everything, token_batches
from support.interrupted import GRID
from support.observations import as_on_a_device

FEW = {"samples": 40, "tail": 80, "attention": True, **GRID}
# above 0 where the model looks at the first image of a batch to decide about all of them
BATCHES = [batch.abs() - 0.01 for batch in token_batches(images=36, size=8, positions=12)]
for tokens in BATCHES:
    tokens[:, 0, 0].clamp_(min=0.01)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of batches that fit."""
    return capture(Everything(), BATCHES, out=tmp_path_factory.mktemp("whole") / "run", **FEW)


def fits(at_most: int):
    """A hook in whose place the memory runs out above so many images."""

    def hook(module, args, output=None):
        if len(args[0]) > at_most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    return hook


def tables(run):
    names = ("samples", "moments", "profile", "rows", "attention")
    return {name: getattr(run, name)() for name in names}


def assert_same(run, whole):
    for name, expected in tables(whole).items():
        pd.testing.assert_frame_equal(tables(run)[name], expected, rtol=1e-5, atol=1e-6, obj=name)
    assert np.array_equal(run.samples()["image"], whole.samples()["image"])
    for key in ("images_seen", "not_captured"):
        assert run.manifest[key] == whole.manifest[key]
    assert run.layers[["layer", "count"]].equals(whole.layers[["layer", "count"]])


@pytest.mark.parametrize("where", ["norm", "attn", "sometimes", "batch_norm", "head"])
@pytest.mark.parametrize("at_most", [1, 2, 4, 7])
def test_statistics_are_those_of_whole_batches(where, at_most, whole, tmp_path):
    module = Everything()
    module.get_submodule(where).register_forward_pre_hook(fits(at_most))
    run = capture(module, BATCHES, out=tmp_path / "run", **FEW)
    assert_same(run, whole)
    size = 4 if at_most == 7 else at_most
    assert run.manifest["halved"] == {"images_per_pass": size, "batches": 5 - (size == 4)}
    assert any("in parts of at most" in line for line in run.manifest["warnings"])
    assert "halved" not in whole.manifest


def out_of_memory(real, at: int = 0, above: int = 0):
    """In place of `real`: the memory runs out in the call number `at`, or above so many images."""
    calls = itertools.count(1)

    def run(first, *rest, **named):
        if next(calls) == at or (above and len(first.images) > above):
            raise torch.OutOfMemoryError
        return real(first, *rest, **named)

    return run


STAGES = {
    "reduction": (torch_summary, "_cells", {"above": 4}),
    "elements": (device_batch, "picked_elements", {"above": 4}),
    "rows": (device_batch, "picked_rows", {"above": 4}),
    "cells": (Profile, "make_room", {"at": 3}),
    "packing": (results, "Transfer", {"at": 1}),
    "packing, with another pass under way": (results, "Transfer", {"at": 4}),
    "rest of the lists": (results, "Transfer", {"at": 2}),
}


@pytest.mark.parametrize("stage", STAGES)
def test_memory_that_runs_out_in_the_statistics_costs_no_count(stage, whole, tmp_path, monkeypatch):
    as_on_a_device(torch_summary.reduce, monkeypatch)
    monkeypatch.setattr(torch_summary, "CANDIDATES", 300)  # so that the first list overflows
    owner, name, when = STAGES[stage]
    monkeypatch.setattr(owner, name, out_of_memory(getattr(owner, name), **when))
    run = capture(Everything(), BATCHES, out=tmp_path / "run", **FEW)
    assert run.manifest["halved"]["images_per_pass"] == 4
    assert_same(run, whole)


def test_a_batch_of_which_a_layer_kept_a_part_is_not_counted_again(tmp_path, monkeypatch):
    as_on_a_device(torch_summary.reduce, monkeypatch)
    monkeypatch.setattr(Profile, "add_later", out_of_memory(Profile.add_later, at=2))
    with pytest.raises(MemoryError) as caught:
        capture(Everything(), BATCHES, out=tmp_path / "run", **FEW)
    assert "out of memory" in explain(caught.value)[0]


@pytest.mark.parametrize("where", ["norm", "batch_norm", "head"])
def test_layers_on_a_device_see_the_parts_of_a_batch(where, whole, tmp_path, monkeypatch):
    as_on_a_device(torch_summary.reduce, monkeypatch)
    module = Everything()
    module.get_submodule(where).register_forward_pre_hook(fits(2))
    assert_same(capture(module, BATCHES, out=tmp_path / "run", **FEW), whole)


def test_attention_alone_is_read_in_parts_on_a_device_too(monkeypatch):
    expected = attention_distance(Everything(), BATCHES, **GRID)
    as_on_a_device(torch_summary.reduce, monkeypatch)
    module = Everything()
    module.head.register_forward_pre_hook(fits(3))
    pd.testing.assert_frame_equal(attention_distance(module, BATCHES, **GRID), expected, rtol=1e-6)


def test_attention_alone_is_read_in_parts_too():
    expected = attention_distance(Everything(), BATCHES, **GRID)
    module = Everything()
    module.head.register_forward_pre_hook(fits(3))
    pd.testing.assert_frame_equal(attention_distance(module, BATCHES, **GRID), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("module", "batches", "reason"),
    [
        (Everything().train(), BATCHES, "in train mode, or normalizes over the images of a batch"),
        (Everything(), token_batches(4, 1, positions=12), "one image alone does not fit"),
    ],
)
def test_what_cannot_be_halved_is_one_line_with_the_reason(module, batches, reason, tmp_path):
    module.head.register_forward_pre_hook(fits(0))
    with pytest.raises(torch.OutOfMemoryError) as caught:
        capture(module, batches, out=tmp_path / "run", **FEW)
    line, code = explain(caught.value)
    assert code == 1
    assert line.startswith("out of memory: give a smaller --batch-size")
    assert reason in line


def test_a_mapping_is_cut_only_if_all_of_it_has_a_row_per_image(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(8)
            self.eval()

        def forward(self, x, shift, scale=1.0):
            if len(x) > 3:
                raise torch.OutOfMemoryError
            return self.norm(x + shift) * scale

    x = torch.randn(6, 4, 8)
    run = capture(Two(), [{"x": x, "shift": x[:, :1], "scale": 2.0}], out=tmp_path / "run")
    assert run.manifest["images_seen"] == 6
    with pytest.raises(torch.OutOfMemoryError) as caught:
        capture(Two(), [{"x": x, "shift": x[:1]}], out=tmp_path / "other")
    assert "no part can be cut" in explain(caught.value)[0]


def test_the_note_says_how_many_batches_and_what_it_changes():
    [line] = warnings_of({"halved": {"images_per_pass": 1, "batches": 1}})
    assert line == (
        "IN PARTS: the memory of the GPU ran out (batches that did not fit: 1), and they went "
        "through the model in parts of at most 1 image, which changes sums by rounding only"
    )
