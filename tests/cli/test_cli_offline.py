"""With --offline, and with offline=True, no socket is opened: what is here is used, what is not is
refused in one line.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

import probe
from probe.cli.main import main
from probe.errors import ProbeError

SMALL = ["--num-images", "2", "--offline", "-q"]
CAPTURED = ["--samples", "16", "--tail", "20", "--out", "run"]
MODEL = ["--model", "bundled:vit_cifar10"]


class Opened(BaseException):
    """Not to be caught by anybody who tries again."""


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What somebody tried to open, in any thread."""
    attempts: list[str] = []

    def forbidden(name: str) -> Callable[..., None]:
        def attempt(*given: object, **options: object) -> None:
            attempts.append(f"{name}{given[-1:]}")
            raise Opened(name)

        return attempt

    for name in ("connect", "connect_ex", "bind", "sendto"):
        monkeypatch.setattr(socket.socket, name, forbidden(name))
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, forbidden(name))
    return attempts


WORKING = {
    "capture": ["capture", *MODEL, *SMALL, *CAPTURED],
    "whole job": [*MODEL, *SMALL, *CAPTURED, "--no-figures", "--no-report"],
    "layers": ["layers", "--model", "resnet18", "--offline", "-q"],
    "random weights": ["layers", "--model", "torchvision:resnet18", "--offline", "-q"],
    "attention": ["attention", *MODEL, *SMALL],
    "fold": ["fold", "--out", "folded.safetensors", "--model", "bundled:resnet_cifar10", *SMALL],
}
REFUSED = {
    "timm weights": ["capture", "--model", "test_vit", *SMALL, *CAPTURED],
    "torchvision weights": ["capture", "--model", "torchvision:vgg11", *SMALL, *CAPTURED],
    "hub data set": ["capture", *MODEL, *SMALL, *CAPTURED, "--data", "hfds/nobody/nothing"],
    "stream of the hub": ["capture", *MODEL, *SMALL, *CAPTURED, "--data", "hfids/nobody/nothing"],
    "hub model": ["capture", "--model", "hf-hub:nobody/nothing", *SMALL, *CAPTURED],
}


@pytest.fixture
def _empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.usefixtures("_empty_caches")
@pytest.mark.parametrize("command", WORKING)
def test_what_is_here_needs_no_socket(command: str, opened: list[str]) -> None:
    assert main(WORKING[command]) == 0
    assert opened == []


@pytest.mark.usefixtures("_empty_caches")
@pytest.mark.parametrize("command", REFUSED)
def test_what_is_not_here_is_refused_without_a_socket(
    command: str, opened: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(REFUSED[command]) in (1, 2)
    assert opened == []
    message = capsys.readouterr().err
    assert message.startswith("probe-norms: error: ")
    assert message.count("\n") == 1


@pytest.mark.usefixtures("_empty_caches")
@pytest.mark.parametrize("data", ["hfds/nobody/nothing", "hfids/nobody/nothing"])
def test_the_functions_hold_to_offline_too(data: str, opened: list[str]) -> None:
    options = {"num_images": 2, "offline": True}
    with pytest.raises(ProbeError, match="nobody/nothing"):
        probe.capture("bundled:vit_cifar10", data, out="run", **options)
    with pytest.raises(ProbeError, match="nobody/nothing"):
        probe.attention_distance("bundled:vit_cifar10", data, **options)
    assert opened == []
