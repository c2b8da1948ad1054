"""A converted model is saved with all that it takes to load it again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import probe
from probe.errors import UsageError
from probe.jobs.converting.convert import convert
from probe.jobs.converting.converted_file import load_converted
from probe.jobs.converting.page import conversion_page
from probe.jobs.speed import Speed
from probe.models.loading.load import load_model
from support.captures import token_batches
from support.classifiers import FAMILIES, VIT, Classifier, captured, crops

SOME = "blocks.[01].norm1,norm"


@pytest.fixture(scope="module")
def saved(vit_run, tmp_path_factory):
    """Three layers of the bundled ViT as DyT, in a file."""
    return convert(
        vit_run,
        out=tmp_path_factory.mktemp("converted") / "vit.safetensors",
        layers=SOME,
        num_images=2,
    )


@pytest.mark.parametrize("to", FAMILIES)
def test_the_saved_model_loads_to_the_same_outputs_bit_by_bit(to, vit_run, tmp_path):
    images = crops(4)
    done = convert(
        vit_run, to, out=tmp_path / "m.safetensors", layers=SOME, num_images=2, curves="all"
    )
    loaded = probe.load_converted(tmp_path / "m.safetensors")
    with torch.no_grad():
        assert torch.equal(loaded.module(images), done.model.module(images))
        assert not torch.equal(loaded.module(images), load_model(VIT).module(images))
    assert loaded.fingerprint == done.model.fingerprint
    assert not loaded.module.training
    assert set(done.table["family"]) == {FAMILIES[to]}
    with safe_open(tmp_path / "m.safetensors", "np") as file:
        metadata = file.metadata()
        assert set(file.keys()) == set(done.model.module.state_dict())
    assert (metadata["format"], metadata["norm"], metadata["model"], metadata["scope"]) == (
        "probe-convert",
        to,
        VIT,
        "channel",
    )
    assert json.loads(metadata["layers"]) == dict.fromkeys(done.table["layer"], FAMILIES[to])


def test_the_file_has_a_table_a_figure_and_a_page_beside_it(saved):
    stem = saved.files[0].with_suffix("")
    assert saved.files == [
        stem.with_suffix(ending) for ending in (".safetensors", ".csv", ".png", ".svg", ".html")
    ]
    assert all(path.stat().st_size > 300 for path in saved.files)


def test_the_page_says_what_was_replaced_and_the_speed_where_it_was_measured(saved):
    text = saved.files[-1].read_text()
    assert "bundled:vit_cifar10 with dyt" in text
    assert all(name in text for name in saved.table["layer"])
    assert "Forward passes" not in text
    timed = replace(saved, speed=[Speed("eager", 32, 8.0, 5.0, 1.6, 1.5, 1.7, 40)])
    figure = saved.files[2].read_bytes()
    page = conversion_page(timed, load_model("bundled:vit_cifar10"), {}, figure).decode()
    assert all(word in page for word in ("Forward passes", "1.60 [1.50, 1.70]", "faster"))


def test_the_same_conversion_gives_the_same_bytes(vit_run, saved, tmp_path):
    again = convert(vit_run, out=tmp_path / "vit.safetensors", layers=SOME, num_images=2)
    assert [path.read_bytes() for path in again.files] == [
        path.read_bytes() for path in saved.files
    ]


def test_a_plain_module_is_converted_in_place_saved_and_loaded_into_another(tmp_path):
    module, batches = Classifier(), token_batches()
    run = captured(module, tmp_path / "run")
    x = batches[0]
    with torch.no_grad():
        before = module(x)
        done = convert(run, "dyt", model=module, data=batches, out=tmp_path / "m.safetensors")
        after = module(x)
        assert not torch.equal(before, after)
        assert torch.equal(
            load_converted(tmp_path / "m.safetensors", Classifier()).module(x), after
        )
        done.swap.undo()
        assert torch.equal(module(x), before)
    with pytest.raises(
        UsageError, match="is of a module Classifier, not of a named model: give one as model="
    ):
        load_converted(tmp_path / "m.safetensors")
    with pytest.raises(UsageError, match="do not fit this model|does not fit this model"):
        load_converted(tmp_path / "m.safetensors", nn.Sequential(nn.LayerNorm(8)))


def test_files_are_replaced_only_when_asked(vit_run, tmp_path):
    (tmp_path / "m.png").write_text("mine")
    with pytest.raises(UsageError, match=r"m\.png exists; give another file, or --overwrite"):
        convert(vit_run, out=tmp_path / "m.safetensors")
    convert(vit_run, out=tmp_path / "m.safetensors", layers="norm", num_images=1, overwrite=True)
    assert (tmp_path / "m.png").stat().st_size > 1000


def test_another_file_is_no_converted_model(vit_run, tmp_path):
    path = probe.export_alphas(vit_run, tmp_path / "alpha.safetensors")
    with pytest.raises(UsageError, match="is no converted model: its format is 'probe-dyt'"):
        load_converted(path)
    (tmp_path / "text.safetensors").write_text("no")
    with pytest.raises(UsageError, match="cannot be read as a converted model"):
        load_converted(tmp_path / "text.safetensors")


def test_a_file_with_the_older_names_of_curves_loads_to_the_same(saved, tmp_path):
    """`line` for the family of a line, `erf` for that of every derf."""
    path = tmp_path / "older.safetensors"
    with safe_open(saved.files[0], "pt") as file:
        metadata = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    layers = dict.fromkeys(json.loads(metadata["layers"]), "line")
    save_file(state, path, metadata | {"layers": json.dumps(layers)})
    assert load_converted(path).fingerprint == saved.model.fingerprint
