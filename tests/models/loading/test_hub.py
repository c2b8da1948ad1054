"""Pretrained weights come from the cache, else from the hub that HF_ENDPOINT names, else an answer
comes within seconds.

The hub is a stand-in on the loopback interface; its address is read at import, so the loading runs
in another process.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from timm.models import save_for_hf

import probe
from probe.errors import ProbeError
from probe.models.loading import hub
from probe.models.loading.load import load_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Answers HEAD and GET of /REPO/resolve/REVISION/FILE as the hub does; `files` maps REPO/FILE
    to bytes.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        body = self._answer()
        if body:
            self.wfile.write(body)

    def _answer(self) -> bytes | None:
        repo, _, rest = self.path.lstrip("/").partition("/resolve/")
        name = f"{repo}/{rest.partition('/')[2]}" if rest else repo
        self.server.asked[f"{self.command} {name}"] += 1
        body = self.server.files.get(name)
        known = any(file.startswith(f"{repo}/") for file in self.server.files)
        self.send_response(200 if body is not None else 404)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(body or b"")))
        if body is None:
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
        else:
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.end_headers()
        return body

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with Hub() as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield http
        http.shutdown()
        thread.join()


CHILD = """
import json, sys, time
import huggingface_hub, timm
from probe.errors import ProbeError
from probe.models.loading.load import load_model
results = {}
for label, name, offline in json.loads(sys.argv[1]):
    began = time.monotonic()
    try:
        model = load_model(name, offline=offline, device="cpu")
        told = ("fingerprint", "weights", "source", "input_size")
        result = {name: getattr(model, name) for name in told}
    except ProbeError as error:
        result = {"error": str(error), "code": error.exit_code}
    results[label] = result | {"seconds": time.monotonic() - began}
print(json.dumps(results))
"""


def load_elsewhere(
    endpoint: str, home: Path, jobs: list[tuple[str, str, bool]]
) -> dict[str, dict[str, Any]]:
    """load_model in a fresh process whose hub is `endpoint` and whose cache is empty at first."""
    proxies = {"http_proxy": "", "https_proxy": "", "all_proxy": "", "no_proxy": "127.0.0.1"}
    hidden = ("HF_", "TRANSFORMERS_", "HUGGINGFACE_")
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(hidden) and k.lower() not in proxies
    }
    package = str(Path(probe.__file__).parents[1])
    env = (
        kept
        | proxies
        | {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(home),
            "TORCH_HOME": str(home),
            "PYTHONPATH": package,
        }
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, json.dumps(jobs)],
        env=env,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def served(
    server: Hub, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """What loading from the stand-in gave, and the fingerprints of what it served."""
    vit, resnet = (
        load_model(name, weights="random", seed=11, device="cpu")
        for name in ("test_vit", "test_resnet")
    )
    pickled, evil = io.BytesIO(), io.BytesIO()
    torch.save(resnet.module.state_dict(), pickled)
    torch.save({"x": os.getcwd}, evil)
    server.files |= {
        "timm/test_vit.r160_in1k/model.safetensors": safetensors.torch.save(
            vit.module.state_dict()
        ),
        "timm/test_resnet.r160_in1k/pytorch_model.bin": pickled.getvalue(),
        "timm/test_byobnet.r160_in1k/pytorch_model.bin": evil.getvalue(),
        "timm/test_efficientnet.r160_in1k/README.md": b"no weights here",
    }
    jobs = [
        ("before", "test_vit", True),
        ("safetensors", "test_vit", False),
        ("cached", "test_vit.r160_in1k", False),
        ("cached, offline", "test_vit", True),
        ("pickle", "test_resnet", False),
        ("code", "test_byobnet", False),
        ("no file", "test_efficientnet", False),
        ("no repository", "test_convnext", False),
    ]
    results = load_elsewhere(server.url, tmp_path_factory.mktemp("hub"), jobs)
    return results, {"vit": vit.fingerprint, "resnet": resnet.fingerprint}


Served = tuple[dict[str, dict[str, Any]], dict[str, str]]


@pytest.mark.parametrize("label", ["safetensors", "cached", "cached, offline"])
def test_the_loaded_weights_are_the_served_ones(served: Served, label: str) -> None:
    results, fingerprints = served
    assert results[label]["fingerprint"] == fingerprints["vit"]
    assert (results[label]["weights"], results[label]["source"]) == (
        "pretrained",
        "timm/test_vit.r160_in1k",
    )


def test_a_repository_with_a_pickle_only_is_read_without_running_it(served: Served) -> None:
    results, fingerprints = served
    assert results["pickle"]["fingerprint"] == fingerprints["resnet"]
    assert "wants to run code" in results["code"]["error"]


def test_a_file_is_downloaded_once(served: Served, server: Hub) -> None:
    assert server.asked["GET timm/test_vit.r160_in1k/model.safetensors"] == 1


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (
            "before",
            "no pretrained weights: timm/test_vit.r160_in1k is not in the cache and offline mode "
            "forbids the download; give",
        ),
        (
            "no file",
            "weights of timm/test_efficientnet.r160_in1k cannot be downloaded: it has none of "
            "model.safetensors, pytorch_mod",
        ),
        ("no repository", "weights of timm/test_convnext.r160_in1k cannot be downloaded: "),
    ],
)
def test_what_the_hub_does_not_give_is_one_line_with_the_ways_out(
    served: Served, label: str, message: str
) -> None:
    error = served[0][label]["error"]
    assert error.startswith(message)
    assert "--weights FILE, --weights random, or --model bundled:vit_cifar10" in error
    assert "\n" not in error
    assert served[0][label]["code"] == 1


def test_without_network_the_answer_comes_within_seconds(tmp_path: Path) -> None:
    with (
        socket.socket() as silent
    ):  # takes connections and never answers, as a broken firewall does
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        dead = f"http://127.0.0.1:{silent.getsockname()[1]}"
        result = load_elsewhere(dead, tmp_path, [("silent", "test_vit", False)])["silent"]
    assert "127.0.0.1 does not answer" in result["error"]
    assert "bundled:vit_cifar10, which needs no network" in result["error"]
    assert (
        result["seconds"] < 20
    )  # the limit is 5 s; the hub client's own retries take most of a minute


def test_torchvision_reads_its_weights_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name = "torchvision:shufflenet_v2_x0_5.IMAGENET1K_V1"
    with pytest.raises(
        ProbeError, match="shufflenetv2_x0.5-f707e7126e.pth is not in the cache and offline mode"
    ):
        load_model(name, offline=True)
    stored = load_model(name, weights="random", seed=11, device="cpu")
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(
        stored.module.state_dict(),
        tmp_path / "hub" / "checkpoints" / "shufflenetv2_x0.5-f707e7126e.pth",
    )
    assert load_model(name, offline=True, device="cpu").fingerprint == stored.fingerprint


def test_a_file_from_a_plain_address_is_checked_and_kept(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    body = b"weights"
    name = f"net-{hashlib.sha256(body).hexdigest()[:8]}.pth"
    server.files[name] = body
    server.files["net-00000000.pth"] = body
    for _ in range(2):
        assert hub.url_file(f"{server.url}/{name}").read_bytes() == body
    assert server.asked[f"GET {name}"] == 1
    with pytest.raises(ProbeError, match=r"net-00000000.pth cannot be downloaded: .*hash"):
        hub.url_file(f"{server.url}/net-00000000.pth")
    assert not (tmp_path / "hub" / "checkpoints" / "net-00000000.pth").exists()


def test_repositories_that_describe_their_network_are_those_of_a_folder(
    server: Hub, tmp_path: Path
) -> None:
    """`hf-hub:` of timm and `hf:` of transformers: configuration, weights and processor."""
    transformers = pytest.importorskip("transformers")
    timm_net, vit = tmp_path / "net", tmp_path / "vit"
    save_for_hf(timm.create_model("test_resnet", num_classes=7), timm_net, safe_serialization=True)
    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16}
    transformers.ViTModel(transformers.ViTConfig(**tiny, patch_size=8)).save_pretrained(vit)
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(vit)
    server.files |= {
        f"me/{folder.name}/{file.name}": file.read_bytes()
        for folder in (timm_net, vit)
        for file in folder.iterdir()
    }
    jobs = [
        ("timm", "hf-hub:me/net", False),
        ("timm, offline", "hf-hub:me/net", True),
        ("transformers", "hf:me/vit", False),
        ("transformers, offline", "hf:me/vit", True),
        ("absent", "hf-hub:me/none", False),
        ("of timm", "hf:me/net", False),
    ]
    results = load_elsewhere(server.url, tmp_path / "home", jobs)
    for label, folder in (("timm", f"local-dir:{timm_net}"), ("transformers", f"hf:{vit}")):
        stored = load_model(folder, device="cpu")
        for result in (results[label], results[f"{label}, offline"]):
            assert result.get("fingerprint") == stored.fingerprint, result
            assert result["input_size"] == list(stored.input_size)
    assert results["absent"]["error"].startswith("config.json of me/none cannot be downloaded: ")
    assert results["of timm"]["error"] == "model hf:me/net is of timm: give it as hf-hub:me/net"
    assert not any("\n" in result.get("error", "") for result in results.values())
