"""The file of a trained network is checked before anything of it is used."""

from __future__ import annotations

import json

import pytest
import safetensors
import safetensors.torch

import probe
from probe.errors import UsageError
from support.tiny_training import ASKED, MODEL, colour_folders


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    data = str(colour_folders(tmp_path_factory.mktemp("data")))
    out = str(tmp_path_factory.mktemp("training") / "t")
    return probe.train(MODEL, "dyt", data=data, out=out, **ASKED | {"epochs": 1}).weights


def changed(path, tmp_path, **metadata):
    """The same tensors, with other metadata."""
    with safetensors.safe_open(path, "pt") as file:
        texts = file.metadata()
    texts |= {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file(safetensors.torch.load_file(path), other, metadata=texts)
    return str(other)


OPTIONS = {**ASKED["model_options"], "num_classes": 3}
WRONG = {
    "a path": (
        {"options": OPTIONS | {"checkpoint_path": "/evil.pth"}},
        "an option of the model that files may not set: 'checkpoint_path'",
    ),
    "a mapping": (
        {"options": OPTIONS | {"pretrained_cfg": {"url": "x"}}},
        "may not set: 'pretrained_cfg'",
    ),
    "a python file": ({"model": "evil.py:make", "origin": "file"}, "no architecture of timm"),
    "a hub": ({"model": "hf-hub:somebody/model"}, "no architecture of timm"),
    "an unknown norm": ({"norm": "dytt"}, "norm of .* 'dytt' is unknown"),
    "an option of the norm": ({"norm_options": {"device": "cuda"}}, "none of dyt"),
    "no list": ({"layers": {"a": 1}}, "its layers are no list of names"),
    "no such layer": ({"layers": ["blocks.9.norm1"]}, "no normalization layer blocks.9.norm1"),
    "no such head": ({"head": ["blocks.0", 3]}, "it has no such last layer"),
    "no image": ({"image": {"size": [16]}}, "its image settings cannot be used"),
    "a newer version": ({"version": "9"}, "update probe-norms"),
    "another shape": (
        {"options": OPTIONS | {"embed_dim": 48}},
        "do not fit model 'timm:vit_tiny_patch16_224': .* of another shape",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_asks_for_more_than_it_may_is_refused(case, trained, tmp_path):
    metadata, told = WRONG[case]
    with pytest.raises(UsageError, match=told) as error:
        probe.load_model(changed(trained, tmp_path, **metadata), device="cpu")
    assert "\n" not in str(error.value)


def test_a_file_without_that_metadata_is_no_model_by_itself(trained, tmp_path):
    plain = tmp_path / "plain.safetensors"
    safetensors.torch.save_file(safetensors.torch.load_file(trained), plain)
    with pytest.raises(UsageError, match="is no trained model: its format is None"):
        probe.load_model(str(plain))
    with pytest.raises(UsageError, match=r"model 'nowhere.safetensors' is not a file"):
        probe.load_model("nowhere.safetensors")


def test_the_file_loads_as_weights_of_its_network_too(trained):
    model = probe.load_model(MODEL, weights=trained, device="cpu")
    assert type(model.module.norm).__name__ == "DyT"
    assert model.weights == "model.safetensors"
