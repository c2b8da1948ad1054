"""`hf:NAME` is a vision network of transformers with its image processor; `hf-hub:` and
`local-dir:` are names of timm. Folders made here stand for what the hub would give.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image

from probe.data import network
from probe.errors import ProbeError, UsageError
from probe.models.loading.load import load_model

transformers = pytest.importorskip("transformers")

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 16,
    "patch_size": 8,
}
TEXT = {k: v for k, v in TINY.items() if "size" not in k or k.startswith(("hid", "int"))}


def save(config: Any, kind: str, folder: Path, processor: Any = None) -> Any:
    """A random network of class `kind` as save_pretrained writes it, weights included."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = getattr(transformers, kind)(config)
    folder.mkdir()
    config.save_pretrained(folder)
    safetensors.torch.save_file(
        module.state_dict(), folder / "model.safetensors", metadata={"format": "pt"}
    )
    if processor is not None:
        processor.save_pretrained(folder)
    return module


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hf")
    processor = transformers.ViTImageProcessor(size={"height": 16, "width": 16})
    vit = transformers.ViTConfig(**TINY)
    save(vit, "ViTModel", root / "vit", processor)
    save(vit, "ViTForImageClassification", root / "head")
    registers = transformers.Dinov2WithRegistersConfig(**TINY, num_register_tokens=3)
    save(registers, "Dinov2WithRegistersModel", root / "registers")
    two = transformers.CLIPConfig(vision_config=TINY, text_config={**TEXT, "vocab_size": 50})
    save(two, "CLIPModel", root / "towers")
    save(transformers.BertConfig(**TEXT, vocab_size=50), "BertModel", root / "text")
    save(transformers.VideoMAEConfig(**TINY, num_frames=2), "VideoMAEModel", root / "video")
    (root / "empty").mkdir()
    (root / "bare").mkdir()
    vit.save_pretrained(root / "bare")
    return root


def test_a_folder_gives_the_network_with_its_weights_and_its_processor(folders: Path) -> None:
    model = load_model(f"hf:{folders / 'vit'}", device="cpu")
    stored = safetensors.torch.load_file(folders / "vit" / "model.safetensors")
    loaded = model.module.state_dict()
    assert loaded.keys() == stored.keys()
    assert all(torch.equal(loaded[name], value) for name, value in stored.items())
    assert (model.input_size, model.prefix_tokens, model.origin) == ((3, 16, 16), 1, "hf")
    assert (model.weights, model.source) == ("pretrained", str(folders / "vit"))
    image = Image.effect_noise((40, 30), 60).convert("RGB")
    transform = pickle.loads(pickle.dumps(model.transform))
    own = transformers.AutoImageProcessor.from_pretrained(folders / "vit")
    expected = own(images=image, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(transform(image), expected)
    with torch.inference_mode():
        assert model.module(transform(image)[None]).last_hidden_state.isfinite().all()


def test_a_relative_folder_and_random_weights_under_the_seed(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders)
    same, again, other = (
        load_model("hf:./bare", weights="random", device="cpu", seed=s) for s in (3, 3, 4)
    )
    assert same.fingerprint == again.fingerprint != other.fingerprint
    assert (same.transform, same.input_size, same.full_name) == (None, (), "hf:./bare")


def test_weights_that_the_checkpoint_lacks_are_named(folders: Path) -> None:
    model = load_model(f"hf:{folders / 'head'}", device="cpu")
    assert model.source.endswith("(random: pooler.dense.bias, pooler.dense.weight)")


def test_a_checkpoint_file_with_a_head_fills_the_network_below_it(folders: Path) -> None:
    path = folders / "head" / "model.safetensors"
    model = load_model(f"hf:{folders / 'bare'}", weights=path, device="cpu")
    stored = safetensors.torch.load_file(path)
    assert torch.equal(model.module.layernorm.weight, stored["vit.layernorm.weight"])
    name = "embeddings.patch_embeddings.projection.weight"
    assert torch.equal(model.module.state_dict()[name], stored[f"vit.{name}"])
    assert model.source.endswith("(random: pooler.dense.bias, pooler.dense.weight)")


def test_prefix_tokens_are_counted(folders: Path) -> None:
    assert load_model(f"hf:{folders / 'registers'}", device="cpu").prefix_tokens == 4


def test_of_two_towers_the_vision_one_is_taken(folders: Path) -> None:
    model = load_model(f"hf:{folders / 'towers'}", device="cpu")
    assert type(model.module).__name__ == "CLIPVisionModel"
    stored = safetensors.torch.load_file(folders / "towers" / "model.safetensors")
    values = list(model.module.state_dict().values())
    assert all(
        any(value.shape == v.shape and torch.equal(value, v) for v in stored.values())
        for value in values
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text", "takes input_ids, not images"),
        ("video", "takes clips of frames, not images"),
        ("empty", "holds no config.json; give a folder that save_pretrained wrote"),
        ("bare", "holds none of model.safetensors, "),
        ("absent", "is not a folder"),
        ("too/many/parts", "is no OWNER/NAME of the hub"),
    ],
)
def test_what_is_wrong_is_one_line(folders: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        load_model(f"hf:{name if '/' in name else folders / name}")
    assert "\n" not in str(caught.value)


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ProbeError, match=r"probe-norms\[hf\]"):
        load_model("hf:./anywhere")


@pytest.mark.parametrize("name", ["hf:google/vit", "hf-hub:timm/vit", "timm:hf-hub:timm/vit"])
def test_without_network_the_answer_is_one_line_within_seconds(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(network, "_head", lambda *_: "connection refused")
    began = time.monotonic()
    with pytest.raises(
        ProbeError, match=r"is not in the cache and .* does not answer \(connection refused\)"
    ) as caught:
        load_model(name)
    assert time.monotonic() - began < 15
    assert "give a folder of this machine" in str(caught.value)
    with pytest.raises(ProbeError, match="offline mode forbids the download"):
        load_model(name, offline=True)


@pytest.fixture
def timms(tmp_path: Path) -> Path:
    """A folder as timm's own save_for_hf writes it, of another width and number of classes."""
    import timm
    from timm.models import save_for_hf

    torch.manual_seed(173)  # not the seed that random weights are drawn with
    module = timm.create_model("test_resnet", num_classes=7)
    save_for_hf(module, str(tmp_path / "mine"), safe_serialization=True)
    return tmp_path / "mine"


def test_a_folder_of_timm_gives_the_network_that_it_describes(timms: Path) -> None:
    stored = safetensors.torch.load_file(timms / "model.safetensors")
    model = load_model(f"local-dir:{timms}", device="cpu")
    assert model.module.num_classes == 7
    assert all(torch.equal(v, stored[n]) for n, v in model.module.state_dict().items())
    assert (model.origin, model.full_name) == ("timm", f"timm:local-dir:{timms}")
    random = load_model(f"timm:local-dir:{timms}", weights="random", device="cpu")
    assert random.fingerprint != model.fingerprint
    again = load_model(f"local-dir:{timms}", weights=timms / "model.safetensors", device="cpu")
    assert again.fingerprint == model.fingerprint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("local-dir:/nowhere", "is no folder with a config.json"),
        ("hf-hub:vit", "is no OWNER/NAME of the hub"),
    ],
)
def test_a_wrong_place_of_timm_is_one_line(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_model(name)


def test_a_folder_of_timm_without_weights_says_what_to_give(timms: Path) -> None:
    (timms / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="give --weights FILE or --weights random"):
        load_model(f"local-dir:{timms}")
    known = json.loads((timms / "config.json").read_text())
    (timms / "config.json").write_text(json.dumps(known | {"architecture": "none_such"}))
    with pytest.raises(UsageError, match="cannot be built: Unknown model"):
        load_model(f"local-dir:{timms}", weights="random")
