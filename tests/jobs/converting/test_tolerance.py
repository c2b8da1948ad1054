"""Which layers are replaceable within a tolerance."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from torch import nn

from probe.jobs.converting.convert import convert
from probe.jobs.converting.scores import Score
from probe.jobs.converting.table import choose
from support.captures import token_batches
from support.classifiers import Classifier, captured


def fake_comparison(costs, accuracy=None):
    """Losses that add up; KL grows with the cost."""

    def score(layers):
        cost = sum(costs[layer] for layer in layers)
        return Score(cost, 1.0 if accuracy else 1 - cost, accuracy - cost if accuracy else None)

    return SimpleNamespace(score=score, accuracy=accuracy)


@pytest.mark.parametrize("accuracy", [None, 0.8])
@pytest.mark.parametrize(
    ("tolerance", "expected"),
    [
        (None, ["a", "b", "c", "d"]),
        (0.0, ["c"]),
        (0.01, ["b", "c"]),
        (0.05, ["b", "c"]),
        (0.06, ["b", "c", "d"]),
        (1.0, list("abcd")),
    ],
)
def test_the_cheapest_layers_are_taken_as_far_as_the_tolerance_goes(tolerance, expected, accuracy):
    """Costs a 0.3, b 0.01, c 0, d 0.05: c first, then b, then d, then a."""
    table = captured_table(["a", "b", "c", "d", "e"])
    comparison = fake_comparison({"a": 0.3, "b": 0.01, "c": 0.0, "d": 0.05}, accuracy)
    assert choose(comparison, table, tolerance) == expected


def captured_table(names):
    """A table whose last layer cannot be replaced."""
    return pd.DataFrame({"layer": names, "family": ["tanh"] * (len(names) - 1) + [""]})


def test_a_tolerance_holds_for_the_saved_model(vit_run, tmp_path):
    done = convert(
        vit_run,
        "dyt",
        out=tmp_path / "m.safetensors",
        layers="blocks.[0457].*",
        num_images=8,
        tolerance=0.13,
    )
    replaced = done.table.loc[done.table["replaced"], "layer"].tolist()
    assert 0 < len(replaced) < 8
    assert 1 - done.score.agreement <= 0.13
    kept = {
        layer
        for layer in done.table["layer"]
        if isinstance(done.model.module.get_submodule(layer), nn.LayerNorm)
    }
    assert kept == set(done.table["layer"]) - set(replaced)
    with safe_open(tmp_path / "m.safetensors", "np") as file:
        assert set(json.loads(file.metadata()["left_out"]).values()) == {"not within the tolerance"}


def test_no_layer_within_the_tolerance_leaves_the_model_and_writes_nothing(tmp_path):
    """On the images alone whose class the one layer changes."""
    module, batches = Classifier(), token_batches()
    run = captured(module, tmp_path / "run")
    with torch.no_grad():
        before = [module(batch).argmax(1) for batch in batches]
        done = convert(run, "learnable_scaler", model=module, layers="norm1", data=batches)
        after = [module(batch).argmax(1) for batch in batches]
        done.swap.undo()
    changed = torch.cat([x[a != b] for x, a, b in zip(batches, before, after, strict=True)])
    assert len(changed)
    done = convert(
        run,
        "learnable_scaler",
        model=module,
        layers="norm1",
        data=[changed],
        tolerance=0.5,
        out=tmp_path / "m.safetensors",
    )
    assert (done.swap, done.files, list(tmp_path.glob("m.*"))) == (None, [], [])
    assert not done.table["replaced"].any()
    assert done.score.agreement == 1
    assert isinstance(module.norm1, nn.LayerNorm)
    assert done.notes == []


def test_a_tolerance_of_less_than_one_image_is_told(tmp_path):
    module, batches = Classifier(), token_batches(images=8)
    done = convert(
        captured(module, tmp_path / "run"),
        model=module,
        layers="norm1",
        data=batches,
        tolerance=0.1,
    )
    assert done.notes == [
        "a tolerance of 0.1 is less than one of 8 images: no image may change; give more"
    ]
