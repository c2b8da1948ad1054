"""Whatever is wrong with what a command is given is said in one line, with what is accepted or what
to do: paths, runs, models, weights, data and options, by the real jobs.

What options alone get wrong, before any job is imported: tests/cli/test_cli_usage.py.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from probe.jobs.capturing.capture import capture
from support.captures import Tokens, token_batches
from support.manifests import change_manifest

NO_RUN = "give the folder of a run (--out of a capture)"
SUCH_AS = "(such as blocks.0.norm1, blocks.0.norm2, blocks.1.norm1); globs like 'blocks.*' work"
ACCEPTED = "accepted: NAME or timm:NAME, torchvision:NAME, bundled:NAME, hf:NAME or hf:./FOLDER"
SMALL = "--num-images 2 --out new"

# line -> exit code and how its message begins; `...`: and goes on
BAD: dict[str, tuple[int, str]] = {
    # runs
    "fit nowhere": (2, f"nowhere does not exist; {NO_RUN}"),
    "fit text.txt": (2, f"text.txt is a file; {NO_RUN}"),
    "fit empty": (2, "empty is no run: it holds no manifest.json"),
    "fit half": (2, "half is no run: its manifest.json is damaged or of another kind"),
    "fit other": (2, "other is no run: its manifest.json is of another kind"),
    "fit loop": (2, f"loop cannot be opened (Too many levels of symbolic links); {NO_RUN}"),
    "fit ~nobody/run": (2, f"~nobody/run does not exist; {NO_RUN}"),
    "fit damaged": (1, "damaged/manifest.json is damaged: the content changed (its checksum ..."),
    "fit newer": (2, "newer has run format 99; this version reads up to 2: update probe-norms"),
    "fit unlisted": (1, "run unlisted is damaged: moments.parquet: missing or unreadable ..."),
    "verify nowhere": (2, f"nowhere does not exist; {NO_RUN}"),
    "verify half": (2, "half is no run: its manifest.json is damaged or of another kind"),
    "report nowhere": (2, f"nowhere does not exist; {NO_RUN}"),
    "report run nowhere": (2, f"nowhere does not exist; {NO_RUN}"),
    "plot nowhere --kind lines": (2, f"nowhere does not exist; {NO_RUN}"),
    "export nowhere --to x.csv": (2, f"nowhere does not exist; {NO_RUN}"),
    "compare run run": (2, "run run has no alphas yet: `probe-norms export run` makes them"),
    "compare run nowhere": (2, f"nowhere does not exist; {NO_RUN}"),
    "convert nowhere": (2, f"nowhere does not exist; {NO_RUN}"),
    "convert run": (
        2,
        "run run is of a module Tokens, not of a named model: give it, in Python, ...",
    ),
    "attention run": (
        2,
        "run run has no attention table: it was captured without; `probe-norms ...",
    ),
    "attention nowhere": (2, f"nowhere does not exist; {NO_RUN}"),
    # where results go
    "fit run --out text.txt": (2, "text.txt is a file; give a folder"),
    "fit run --out run": (2, "run already holds a run; give another folder, or --overwrite ..."),
    "report run --out empty": (
        2,
        "--out empty is a folder; give a file, such as empty/report.html",
    ),
    "plot run --out text.txt": (2, "text.txt is a file; give a folder"),
    "export run --to x.txt": (2, "--to x.txt: must end in .csv, .json or .safetensors"),
    "export run --to empty": (2, "--to empty: must end in .csv, .json or .safetensors"),
    "convert run --out x.pt": (2, "--out x.pt: must end in .safetensors"),
    "capture --out text.txt": (2, "text.txt is a file; give a folder"),
    "capture --out folder": (2, "folder is no run and holds other files (sub); give a new or ..."),
    "capture --out run": (2, "run already holds a run; give another folder, or --overwrite ..."),
    "capture --out text.txt/new": (1, "text.txt/new: cannot be written (..."),
    "fold --out x.pt": (2, "--out x.pt: must end in .safetensors"),
    "fold --out there.safetensors": (
        2,
        "--out there.safetensors exists; give another file, or ...",
    ),
    "fold --out text.txt/x.safetensors": (1, "text.txt: cannot be written (..."),
    "figures --out text.txt": (2, "text.txt is a file; give a folder"),
    # what to compute
    "fit run --families cubic": (2, "--families 'cubic' is unknown; known: linear, tanh, erf, ..."),
    "plot run --kind nothing": (2, "figure 'nothing' is unknown; known: s_curves, ..."),
    "plot run --layers nothing": (2, "--layers 'nothing' matches none of the 4 layers of run ..."),
    "convert run --to nothing": (2, "--to nothing: must be one of dyt, derf, dyisru, ..."),
    "convert run --tolerance 2": (2, "--tolerance 2: must be a share of the images, from 0 to 1"),
    "convert run --tolerance x": (2, "--tolerance x: must be a share of the images, from 0 to 1"),
    "convert run --scope pixel": (2, "--scope pixel: must be one of channel, layer"),
    "convert run --curves none": (2, "--curves none: must be one of all, established"),
    "convert run --layers x.*": (2, "--layers 'x.*' matches none of the 4 layers of run run ..."),
    "attention --image no.png": (2, "--image needs --out DIR: the directory of its figures"),
    "attention --image no.png --out new": (2, "--image no.png is no file; give one image"),
    "attention --image text.txt --out new": (2, "--image text.txt cannot be read: not an image..."),
    "attention run --model x": (
        2,
        "--model with RUN: give finished runs or a model, not both; ...",
    ),
    "attention --query 3": (2, "--query 3: must be two whole numbers of at least 0, e.g. 3,5"),
    "attention --query a,b": (2, "--query a,b: must be two whole numbers of at least 0, e.g. 3,5"),
    "attention --patch-size 0": (2, "--patch-size 0: must be at least 1"),
    "attention --grid 3": (2, "--grid 3: must be two whole numbers of at least 1, e.g. 14x14"),
    "capture --autocast int8": (2, "--autocast int8: must be one of bfloat16, float16"),
    "capture --device quantum --out new": (2, "--device 'quantum' is not available here; ..."),
    "fold --out x.safetensors --repeats 0": (2, "--repeats 0: must be at least 1"),
    "figures --num-images 0": (2, "--num-images 0: must be at least 1, or 'all'"),
    # models and weights
    "layers --model vit_tiny": (
        2,
        f"model 'vit_tiny' is not in timm; did you mean ...{ACCEPTED}...",
    ),
    "layers --model bundled:no": (
        2,
        f"model 'no' is not in bundled; did you mean ...{ACCEPTED}...",
    ),
    "layers --model torchvision:no": (2, "model 'no' is not in torchvision; ..."),
    "layers --model no.py:make": (
        2,
        "model 'no.py:make': no.py is not a file; accepted: FILE.py:FUNCTION",
    ),
    "layers --model broken.py:make": (2, "...broken.py cannot be run: ZeroDivisionError: ..."),
    "layers --model net.py:make": (
        2,
        "model 'net.py:make': function or class 'make' is unknown...",
    ),
    "layers --model net.py:x": (2, "model 'net.py:x': x is a value of type int; accepted: ..."),
    "layers --weights bad.safetensors": (2, "weights 'bad.safetensors' is broken or no ..."),
    "layers --weights no.pth": (2, "weights 'no.pth' is not a file; accepted: pretrained, ..."),
    "layers --weights text.txt": (2, "weights 'text.txt': suffix '.txt' is unknown; accepted: ..."),
    "layers --layers x.*": (
        2,
        f"--layers 'x.*' matches none of the 17 normalization layers {SUCH_AS}",
    ),
    "capture --layers x.* --out new": (2, "--layers 'x.*' matches none of the 17 ..."),
    "layers --norm-type x": (2, "--norm-type x: must be MODULE:CLASS=KIND, e.g. mypkg.layers:..."),
    "layers --norm-type os:path=layer_norm": (
        2,
        "--norm-type os:path=layer_norm: an object of ...",
    ),
    "layers --norm-type no.mod:X=layer_norm": (2, "--norm-type no.mod:X=layer_norm: module ..."),
    # data
    f"capture --data nowhere {SMALL}": (2, "data 'nowhere' does not exist; accepted: a folder ..."),
    f"capture --data empty {SMALL}": (2, "no image in 'empty'; accepted suffixes: .apng ..."),
    f"capture --data images {SMALL}": (1, "none of the 1 images could be used (a.png: not an ..."),
    f"capture --data list.txt {SMALL}": (1, "none of the 1 images could be used (no.png: no ..."),
    f"capture --data pipe {SMALL}": (
        1,
        "none of the 1 images could be used (pipe: not a regular file)",
    ),
    f"capture --data hfds {SMALL}": (2, "data 'hfds' does not exist; accepted: a folder ..."),
    f"capture --data torch/cifar10 {SMALL}": (2, "data 'torch/cifar10' needs to know where it ..."),
    f"capture --data images?splt=test {SMALL}": (2, "data 'images' holds no Parquet file; ..."),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that is wrong, and one small run that is not."""
    folder = tmp_path_factory.mktemp("bad")
    for name in ("empty", "folder/sub", "images", "half", "other"):
        (folder / name).mkdir(parents=True)
    texts = {
        "text.txt": "hello",
        "list.txt": "no.png\n",
        "images/a.png": "no image",
        "bad.safetensors": "xx",
        "there.safetensors": "",
        "broken.py": "1 / 0",
        "net.py": "x = 3",
        "half/manifest.json": "{",
        "other/manifest.json": '{"name": "a page"}',
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    make_runs(folder)
    return folder


def make_runs(folder: Path) -> None:
    capture(Tokens(), token_batches(), out=folder / "run", samples=16, tail=4)
    for name in ("damaged", "newer", "unlisted"):
        shutil.copytree(folder / "run", folder / name)
    manifest = folder / "damaged" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("Tokens", "Others"))
    change_manifest(folder / "newer", lambda manifest: manifest.update(version=99))
    (folder / "unlisted" / "moments.parquet").unlink()


def files_of(place: Path) -> list[Path]:
    """What lies in a folder; Python keeps what it compiled of a user's own file beside it."""
    return sorted(path for path in place.rglob("*") if "__pycache__" not in path.parts)


@pytest.mark.parametrize("line", BAD)
def test_a_bad_input_is_one_line(
    line: str, place: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    before = files_of(place)
    code, message = BAD[line]
    assert cli(*line.split()).code == code
    assert cli.out == ""
    error = cli.err.splitlines()[-1].removeprefix("probe-norms: error: ")
    assert re.match(re.escape(message).replace(re.escape("..."), ".*") + "$", error), error
    assert sum(part.startswith("probe-norms: error: ") for part in cli.err.splitlines()) == 1
    assert files_of(place) == before


def test_there_are_many() -> None:
    assert len(BAD) >= 60
