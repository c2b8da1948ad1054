"""A weights file is loaded exactly or refused in one line; a pickle never runs code."""

from __future__ import annotations

import argparse
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from probe.errors import UsageError
from probe.models.loading.load import Model, load_model
from probe.models.loading.weights import mismatch, unwrap


def load(name: str = "test_vit", **options: object) -> Model:
    return load_model(name, device="cpu", **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Weights of the tiny ViT that no seed of this file gives."""
    return load(weights="random", seed=77).module.state_dict()


State = dict[str, torch.Tensor]
FORMS: dict[str, tuple[str, Callable[[State], object], str]] = {
    "safetensors": ("a.safetensors", lambda s: s, ""),
    "plain pickle": ("a.pth", lambda s: s, ""),
    "state_dict": (
        "a.pt",
        lambda s: {"state_dict": s, "epoch": 3, "args": argparse.Namespace(lr=1)},
        " [state_dict]",
    ),
    "model": ("a.bin", lambda s: {"model": s, "optimizer": {"state": {}}}, " [model]"),
    "averaged weights win": (
        "a.ckpt",
        lambda s: {"state_dict_ema": s, "state_dict": {}},
        " [state_dict_ema]",
    ),
    "data parallel": ("a.pth", lambda s: {f"module.{k}": v for k, v in s.items()}, ""),
    "compiled data parallel": (
        "a.pth",
        lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
        "",
    ),
    "lightning": (
        "a.ckpt",
        lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}},
        " [state_dict]",
    ),
    "swa": (
        "a.pth",
        lambda s: {"n_averaged": torch.tensor(5), **{f"module.{k}": v for k, v in s.items()}},
        "",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_common_forms_of_a_checkpoint_load_exactly(tmp_path: Path, state: State, form: str) -> None:
    file, wrap, key = FORMS[form]
    save(wrap(state), tmp_path / file)
    model = load(weights=tmp_path / file)
    assert_equal(model.module.state_dict(), state)
    assert (model.weights, model.source) == (file, file + key)


def save(content: object, path: Path) -> None:
    if path.suffix == ".safetensors":
        save_file(content, path)  # type: ignore[arg-type]
    else:
        torch.save(content, path)


def assert_equal(given: State, expected: State) -> None:
    assert given.keys() == expected.keys()
    assert all(torch.equal(given[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "name", ["test_resnet", "torchvision:shufflenet_v2_x0_5", "bundled:resnet_cifar10"]
)
def test_a_saved_state_dict_comes_back_in_every_origin(tmp_path: Path, name: str) -> None:
    source = load(name, weights="random", seed=5)
    save_file(source.module.state_dict(), tmp_path / "w.safetensors")
    back = load(name, weights=tmp_path / "w.safetensors")
    assert back.fingerprint == source.fingerprint


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "torchvision:shufflenet_v2_x0_5"])
def test_the_number_of_classes_follows_the_file(tmp_path: Path, name: str) -> None:
    source = load(name, weights="random", seed=5, num_classes=7)
    save_file(source.module.state_dict(), tmp_path / "w.safetensors")
    assert load(name, weights=tmp_path / "w.safetensors").fingerprint == source.fingerprint


def test_a_file_without_a_head_fits_the_network_without_one(tmp_path: Path, state: State) -> None:
    body = {k: v for k, v in state.items() if not k.startswith("head.")}
    save_file(body, tmp_path / "w.safetensors")
    assert_equal(load(weights=tmp_path / "w.safetensors").module.state_dict(), body)


def test_timm_converts_position_embeddings_and_says_so(tmp_path: Path) -> None:
    larger = load(weights="random", seed=5, img_size=192)
    save_file(larger.module.state_dict(), tmp_path / "w.safetensors")
    model = load(weights=tmp_path / "w.safetensors")
    assert model.source == "w.safetensors (resized by timm: pos_embed)"
    assert torch.equal(model.module.head.weight, larger.module.head.weight)  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize(
    "name", ["test_resnet", "torchvision:shufflenet_v2_x0_5", "bundled:resnet_cifar10", "dla46x_c"]
)
def test_a_checkpoint_of_another_architecture_names_a_few_keys(tmp_path: Path, name: str) -> None:
    """dla46x_c is one of the networks that timm loads loosely: nothing fits and nothing is said."""
    save_file(load("test_vit", weights="random").module.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(
        UsageError, match=r"do not fit model '.*': \d+ missing \(\S+, \S+, \S+(, \.\.\.)?\)"
    ) as caught:
        load(name, weights=tmp_path / "w.safetensors")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_checkpoint_of_another_width_names_shapes(tmp_path: Path, state: State) -> None:
    save_file(state | {"norm.weight": torch.ones(9)}, tmp_path / "w.safetensors")
    with pytest.raises(
        UsageError, match=r"1 of another shape \(norm.weight \(9,\) instead of \(64,\)\)"
    ):
        load(weights=tmp_path / "w.safetensors")


class Evil:
    """Unpickling this makes the file `ran`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_pickle_that_wants_to_run_code_is_refused_unrun(
    tmp_path: Path, state: State, new_format: bool
) -> None:
    file = tmp_path / "evil.pth"
    torch.save(
        {"state_dict": state, "x": Evil(tmp_path / "ran")},
        file,
        _use_new_zipfile_serialization=new_format,
    )
    with pytest.raises(
        UsageError, match=r"evil.pth' is a pickle that wants to run code \(\w+.mkdir\): refused"
    ) as caught:
        load(weights=file)
    assert not (tmp_path / "ran").exists()
    assert "\n" not in str(caught.value)


def test_a_raw_pickle_is_refused_unrun(tmp_path: Path) -> None:
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(UsageError):
        load(weights=tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


BROKEN = {
    "empty.pth": (b"", "is broken or no checkpoint"),
    "text.pth": (b"hello, this is a text file", "is broken or no checkpoint"),
    "text.safetensors": (b"hello, this is a text file", "is broken or no checkpoint"),
    "zip.pth": (b"PK\x03\x04" + b"\0" * 200, "is broken or no checkpoint"),
    "weights.npz": (b"", "suffix '.npz' is unknown; accepted: .safetensors, .pth"),
}


@pytest.mark.parametrize("file", BROKEN)
def test_a_file_that_is_no_checkpoint_is_one_line(tmp_path: Path, file: str) -> None:
    content, message = BROKEN[file]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        load(weights=tmp_path / file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [100, 30_000])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_truncated_file_is_one_line(tmp_path: Path, state: State, suffix: str, cut: int) -> None:
    file = tmp_path / f"w{suffix}"
    save(state, file)
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(UsageError, match="is broken or no checkpoint"):
        load(weights=file)


@pytest.mark.parametrize(
    ("content", "message"),
    [([1], "holds a list; accepted: a state dict"), ({"epoch": 1}, "holds no tensors")],
)
def test_a_pickle_without_tensors_is_one_line(
    tmp_path: Path, content: object, message: str
) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UsageError, match=message):
        load(weights=tmp_path / "w.pth")


def test_mismatch_counts_every_kind_and_is_empty_for_equals() -> None:
    ours = {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(1)}
    assert mismatch(ours, dict(ours)) == ""
    theirs = {"a": torch.zeros(2, 1), "d": torch.zeros(1), "e": torch.zeros(1)}
    assert (
        mismatch(ours, theirs)
        == "2 missing (b, c); 2 unexpected (d, e); 1 of another shape (a (2, 1) instead of (2,))"
    )


def test_a_module_named_model_keeps_its_prefix_where_others_have_none() -> None:
    kept = {"model.a": torch.zeros(1), "head": torch.zeros(1)}
    assert unwrap(kept)[0].keys() == kept.keys()


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_checkpoint_that_contains_itself_is_refused(key: str) -> None:
    content: dict = {"weight": torch.ones(1)}
    content["model"] = {key: content}
    with pytest.raises(UsageError, match="contains itself"):
        unwrap(content)
