"""A folded model as a file, and the job that writes it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from timm.models import VisionTransformer
from torch import nn

import probe
from probe.errors import ProbeError, UsageError
from probe.jobs.folding.fold_model import Counts, counts, fold_model
from probe.jobs.folding.folded_file import FOLDED, load_folded, save_folded
from probe.jobs.folding.page import fold_page
from probe.jobs.model_file import read_metadata
from probe.jobs.speed import Speed
from probe.models.reading.layers import norm_modules

CNN = "bundled:resnet_cifar10"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The job on the bundled ResNet: (what it answers, the file)."""
    path = tmp_path_factory.mktemp("folded") / "cnn.safetensors"
    return fold_model(CNN, torch.randn(2, 3, 32, 32), out=path, repeats=2), path


def logits(module, x):
    with torch.no_grad():
        return module(x)


def test_a_named_model_comes_back_folded_from_its_file_alone(written):
    done, path = written
    x = torch.randn(2, 3, 32, 32)
    loaded = load_folded(path, device="cpu")
    assert list(norm_modules(loaded.module)) == []
    assert torch.equal(logits(loaded.module, x), logits(done.fold.module, x))
    torch.testing.assert_close(
        logits(loaded.module, x), logits(probe.load_model(CNN).module, x), rtol=1e-4, atol=1e-4
    )
    assert (loaded.full_name, loaded.weights, loaded.input_size) == (
        CNN,
        "cnn.safetensors",
        (3, 32, 32),
    )
    assert loaded.transform is not None


def test_the_page_beside_the_file_shows_the_maps_and_the_speed_where_it_was_measured(written):
    done, path = written
    text = path.with_suffix(".html").read_text()
    assert "bundled:resnet_cifar10: 12 of 12 affine maps folded" in text
    assert all(outcome.layer in text for outcome in done.fold.outcomes)
    assert "Forward passes" not in text
    timed = replace(done, speed=[Speed("eager", 32, 8.0, 5.0, 1.6, 1.5, 1.7, 40)])
    page = fold_page(timed.as_dict()).decode()
    assert all(word in page for word in ("Forward passes", "1.60 [1.50, 1.70]", "faster"))


def test_the_job_counts_and_times_both_models(written):
    done, path = written
    assert done.path == path
    assert (done.before, done.after) == (Counts(12, 12), Counts(0, 0))
    assert 0 < done.seconds_before.best <= done.seconds_before.median
    assert 0 < done.seconds_after.best <= done.seconds_after.median
    assert done.fold.relative < 1e-5
    document = json.loads(json.dumps(done.as_dict()))
    assert document["images"] == 2
    assert document["before"] == {"norms": 12, "affines": 12}
    assert [row["status"] for row in document["layers"]] == ["folded"] * 12


def test_the_metadata_says_what_was_folded(written):
    known = read_metadata(written[1], FOLDED)
    assert (known["format"], known["model"], known["weights"]) == ("probe-fold", CNN, "pretrained")
    assert known["fingerprint"] == probe.load_model(CNN).fingerprint
    assert known["folded"][0] == {"layer": "bn1", "into": "conv1", "direction": "before"}
    assert known["biases"][0] == "conv1.bias"


def test_a_folded_file_cannot_be_folded_again(written):
    with pytest.raises(UsageError, match="folded already"):
        probe.fold(load_folded(written[1]))


def vit(channels=12):
    sizes = {
        "img_size": 16,
        "patch_size": 8,
        "embed_dim": channels,
        "depth": 1,
        "num_heads": 2,
        "num_classes": 3,
    }
    return VisionTransformer(**sizes, qkv_bias=False).eval()


def test_a_module_of_ones_own_is_saved_and_loaded_into_another_one(tmp_path):
    module, other = vit(), vit()
    nn.init.normal_(module.norm.bias)
    nn.init.normal_(module.blocks[0].norm1.bias)
    path = save_folded(probe.fold(module.to(torch.float64)), tmp_path / "vit.safetensors")
    loaded = load_folded(path, other)
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    assert loaded.module is other
    assert torch.equal(logits(other, x), logits(module, x))
    with pytest.raises(
        UsageError,
        match="is of a module VisionTransformer, not of a named model: give one as model=",
    ):
        load_folded(path)


def test_a_file_that_does_not_fit_leaves_the_module_as_it_was(tmp_path, written):
    module = vit()
    original = (
        dict(module.named_modules()),
        {name: value.clone() for name, value in module.state_dict().items()},
    )
    path = save_folded(probe.fold(vit()), tmp_path / "vit.safetensors")
    with pytest.raises(
        UsageError,
        match=r"vit.safetensors does not fit model 'VisionTransformer': \d+ of another shape",
    ):
        load_folded(path, vit(16))
    with pytest.raises(
        UsageError, match="cnn.safetensors does not fit model 'VisionTransformer': no place for"
    ):
        load_folded(written[1], module)
    assert dict(module.named_modules()) == original[0]
    assert all(torch.equal(value, original[1][name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    "content", [None, b"no tensors", {"a": "b"}, {"format": "probe-fold", "version": "99"}]
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "other.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        safetensors.torch.save_file({"x": torch.zeros(1)}, path, metadata=content)
    with pytest.raises(
        UsageError, match=r"other.safetensors (cannot be read as|is no|has version 99)"
    ):
        load_folded(path)


def test_the_same_fold_writes_the_same_bytes(tmp_path):
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    module = vit()
    for path in paths:
        with probe.fold(module) as done:
            save_folded(done, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_an_existing_file_is_replaced_only_when_asked(tmp_path):
    path = tmp_path / "vit.safetensors"
    path.write_text("mine")
    with probe.fold(vit()) as done:
        with pytest.raises(UsageError, match="exists; give another file, or --overwrite"):
            save_folded(done, path)
        assert path.read_text() == "mine"
        save_folded(done, path, overwrite=True)
    assert read_metadata(path, FOLDED)["format"] == "probe-fold"


def test_where_nothing_can_be_folded_nothing_is_written(tmp_path):
    module = nn.Sequential(nn.Flatten(), nn.LayerNorm(12), nn.ReLU()).eval()
    with pytest.raises(
        ProbeError, match=r"no layer of Sequential can be folded: 1: nothing to fold"
    ):
        fold_model(module, torch.randn(2, 3, 2, 2), out=tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_counts_are_of_layers_that_compute_and_of_their_own_affines():
    net = nn.Sequential(
        nn.BatchNorm2d(3), nn.LayerNorm(4), nn.LayerNorm(4, elementwise_affine=False), nn.Identity()
    ).eval()
    nn.init.ones_(net[1].bias)
    assert counts(net) == Counts(3, 2)
