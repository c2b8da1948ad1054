"""A stranger's model file or run names an architecture, and nothing that anybody would open."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

import probe
from probe.errors import UsageError
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
