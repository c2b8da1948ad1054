"""`FILE.py:FACTORY` is a network from the user's own file; what is wrong with it is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

from probe.errors import UsageError
from probe.models.loading.load import load_model

NET = """
import torch
from torch import nn
from beside import WIDTH

class Net(nn.Module):
    def __init__(self, width=WIDTH):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 2)

    def forward(self, x):
        return self.head(self.norm(x.mean((2, 3))))

def pixels(image):
    return torch.full((3, 8, 8), image.getpixel((0, 0))[0] / 255)

def with_transform():
    return Net(), pixels

def named(depth, width):
    return Net()

def broken():
    raise ValueError("no such width\\nmore words")

def leaves():
    raise SystemExit(3)

def nothing():
    pass

def pair():
    return Net(), "not callable"

def timms():
    import timm
    return timm.create_model("test_vit")

ready = Net()
number = 3
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "beside.py").write_text("WIDTH = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "beside", raising=False)
    return "net.py"


def test_a_class_or_a_function_gives_the_network(net: str) -> None:
    for factory in ("Net", "with_transform"):
        model = load_model(f"{net}:{factory}", device="cpu")
        assert (model.full_name, model.origin, model.weights) == (
            f"net.py:{factory}",
            "file",
            "as given",
        )
        assert not model.module.training
    assert model.transform is not None
    pixels = model.transform(Image.new("RGB", (4, 4), (255, 0, 0)))
    assert tuple(pixels.shape) == model.input_size == (3, 8, 8)
    assert pixels.eq(1).all()


def test_options_reach_the_factory(net: str) -> None:
    model = load_model(f"{net}:Net", device="cpu", width=5)
    assert model.module.norm.normalized_shape == (5,)


def test_the_factory_runs_under_the_seed_and_random_is_said_where_the_user_says_so(
    net: str,
) -> None:
    first, again, other = (load_model(f"{net}:Net", device="cpu", seed=s) for s in (1, 1, 2))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert load_model(f"{net}:Net", weights="random", device="cpu").weights == "random"


def test_a_timm_network_of_a_factory_brings_its_own_transform(net: str) -> None:
    model = load_model(f"{net}:timms", device="cpu")
    assert (model.input_size, model.prefix_tokens) == ((3, 160, 160), 1)


def test_a_checkpoint_fills_what_the_factory_makes(net: str, tmp_path: Path) -> None:
    stored = load_model(f"{net}:Net", device="cpu", seed=9)
    safetensors.torch.save_file(stored.module.state_dict(), tmp_path / "net.safetensors")
    torch.save(stored.module.state_dict(), tmp_path / "net.th")
    for name in ("net.safetensors", "net.th"):
        model = load_model(f"{net}:Net", weights=tmp_path / name, device="cpu")
        assert (model.fingerprint, model.weights) == (stored.fingerprint, name)


WRONG = {
    "absent.py:Net": "model 'absent.py:Net': absent.py is not a file; accepted: FILE.py:FUNCTION",
    "net.py": "model 'net.py' names no factory; accepted: net.py:FUNCTION",
    "net.py:": "function or class '' is unknown; known: Net, pixels",
    "net.py:Nett": "function or class 'Nett' is unknown (did you mean Net?); known: Net, pixels",
    "net.py:named": "wants other arguments (missing a required argument: 'depth'); given: none",
    "net.py:broken": "net.py:broken fails: ValueError: no such width (line 25)",
    "net.py:leaves": "net.py:leaves fails: SystemExit: 3 (line 28)",
    "net.py:nothing": "net.py:nothing gives None; accepted: a torch.nn.Module, or a pair",
    "net.py:pair": "net.py:pair gives a value of type tuple; accepted: a torch.nn.Module",
    "net.py:ready": "ready is a value of type Net; accepted: a function or class that",
    "net.py:number": "number is a value of type int; accepted: a function or class",
    "syntax.py:Net": "syntax.py cannot be run: SyntaxError: ",
    "fails.py:Net": "fails.py cannot be run: ModuleNotFoundError: No module named 'nowhere_at_all' "
    "(line 2)",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_line(net: str, tmp_path: Path, name: str) -> None:
    (tmp_path / "syntax.py").write_text("def (:\n")
    (tmp_path / "fails.py").write_text("\nimport nowhere_at_all\n")
    with pytest.raises(UsageError) as caught:
        load_model(name, device="cpu")
    assert WRONG[name] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_does_not_fit_names_the_difference(net: str, tmp_path: Path) -> None:
    torch.save({"norm.weight": torch.ones(3)}, tmp_path / "net.th")
    with pytest.raises(UsageError, match=r"do not fit model 'net.py:Net': 3 missing"):
        load_model(f"{net}:Net", weights="net.th", device="cpu")
