"""A stranger's model file or run names an architecture, and nothing that anybody would open."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import probe
from probe.errors import UsageError
from probe.jobs.converting.eval_data import run_images
from probe.jobs.reopen import run_model

LOADERS = {
    "probe-convert": probe.load_converted,
    "probe-fold": probe.load_folded,
}


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return Path.touch, (self.marker,)


def model_file(path: Path, kind: str, model: str = "resnet18", **options: object) -> Path:
    """A file of this kind that holds nothing but its metadata."""
    parts = ("layers", "left_out", "measured", "removed", "biases", "folded")
    metadata = dict.fromkeys(parts, "{}") | {
        "format": kind,
        "version": "1",
        "model": model,
        "origin": "timm",
        "norm": "dyt",
        "options": json.dumps(options),
    }
    save_file({"weight": torch.zeros(1)}, path, metadata=metadata)
    return path


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("option", ["checkpoint_path", "pretrained_cfg", "features_only"])
def test_an_option_that_files_may_not_set_is_refused_and_nothing_is_read(
    kind: str, option: str, tmp_path: Path
) -> None:
    marker, pickled = tmp_path / "ran", tmp_path / "weights.pth"
    pickled.write_bytes(pickle.dumps({"state_dict": Payload(marker)}))
    path = model_file(tmp_path / "model.safetensors", kind, **{option: str(pickled)})
    with pytest.raises(UsageError, match="accepted: num_classes") as error:
        LOADERS[kind](path)
    assert "\n" not in str(error.value)
    assert not marker.exists()


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("value", ["10", 0, -3, 1.5, True, None, [10]])
def test_a_number_of_classes_is_a_whole_number(kind: str, value: object, tmp_path: Path) -> None:
    path = model_file(tmp_path / "model.safetensors", kind, num_classes=value)
    with pytest.raises(UsageError, match="num_classes is no whole number"):
        LOADERS[kind](path)


@pytest.mark.parametrize(
    "name",
    [
        "hf-hub:someone/model",
        "timm:hf_hub:someone/model",
        "local-dir:/srv/model",
        "../../etc/passwd",
        "/srv/model.py:factory",
        "model.py:factory",
        "file:model.py:factory",
        "hf:someone/model",
        "hf:model",
        "hf:./model",
        "timm:hf-hub:someone/model",
        "https://example.org/model",
        "bundled:../x",
        "resnet18\n",
        "",
    ],
)
def test_only_an_architecture_is_named_by_a_file_or_a_run(name: str, tmp_path: Path) -> None:
    for kind, load in LOADERS.items():
        with pytest.raises(UsageError, match="no architecture of timm, torchvision or probe"):
            load(model_file(tmp_path / f"{kind}.safetensors", kind, name))
    run = SimpleNamespace(
        path=tmp_path, manifest={"model": {"name": name or " ", "origin": "timm"}}
    )
    with pytest.raises(UsageError, match="no architecture of timm, torchvision or probe"):
        run_model(run)


MALFORMED: list[tuple[str, dict[str, str | None]]] = [
    ("version", {"version": None}),
    ("version", {"version": "new"}),
    ("version", {"version": "9" * 5000}),
    ("version", {"version": "-1"}),
    ("model", {"model": None}),
    ("origin", {"origin": None}),
    ("options", {"options": None}),
    ("options", {"options": "{"}),
    ("options", {"options": "3"}),
    ("options", {"options": "[" * 100_000}),
    ("options", {"options": "[1]"}),
    ("layers", {"layers": None}),
    ("layers", {"layers": "null"}),
    ("layers", {"layers": '["norm"]'}),
    ("layers", {"layers": "[[1]]"}),
    ("norm", {"norm": None}),
    ("norm", {"norm": "\x1b[2J"}),
    ("removed", {"removed": "3"}),
    ("biases", {"biases": "NaN"}),
    ("no place", {"removed": "[3]"}),
    ("no place", {"biases": '["a.b"]'}),
    ("no place", {"biases": "[[]]"}),
]
OF_ONE_KIND = {"layers": "probe-convert", "norm": "probe-convert", "removed": "probe-fold"}


@pytest.mark.parametrize(("problem", "changes"), MALFORMED)
def test_malformed_metadata_is_one_line_that_names_the_entry(
    problem: str, changes: dict[str, str | None], tmp_path: Path
) -> None:
    entry = next(iter(changes))
    for kind, load in LOADERS.items():
        if kind != OF_ONE_KIND.get(entry, "probe-fold" if entry == "biases" else kind):
            continue
        path = model_file(tmp_path / "model.safetensors", kind, "bundled:vit_cifar10")
        with safe_open(path, "np") as file:
            metadata = {**file.metadata(), "origin": "bundled", **changes}
        kept = {name: text for name, text in metadata.items() if text is not None}
        save_file({"weight": torch.zeros(1)}, path, metadata=kept)
        with pytest.raises(UsageError, match=problem) as error:
            load(path)
        message = str(error.value)
        assert "\n" not in message
        assert "\x1b" not in message
        assert len(message.replace(str(path), "")) < 500


@pytest.mark.parametrize(
    "data",
    [
        {"kind": "folder", "location": "hfds/somebody/data", "identity": "x"},
        {"kind": "folder", "identity": "x"},
        {"kind": "list", "location": "torch/cifar10"},
        {"kind": "paths", "images": None},
        {"kind": "dataset"},
        {"kind": "dataset", "location": "hfds/somebody/data", "split": "test", "identity": "x"},
        {"kind": "parquet", "location": "hfds/somebody/data", "identity": "x"},
        {"kind": "parquet"},
        {"kind": "folder", "location": "\0"},
        {"kind": "folder", "location": ".", "chosen": "x"},
        {},
    ],
)
def test_data_that_a_run_names_is_files_that_are_there_or_the_bundled_photographs(
    data: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "probe.data.sources.open_dataset", lambda *_given: pytest.fail("a data set was opened")
    )
    run = SimpleNamespace(path=tmp_path, manifest={"data": data})
    source, words = run_images(run, 2)
    assert source.description["kind"] == "bundled"
    assert "the run's own images cannot be used" in words
