"""Workers over a few batches of tokens, and whether two of them saw the same."""

from __future__ import annotations

from dataclasses import astuple
from functools import partial

import numpy as np
import pandas as pd

from probe.jobs.capturing.worker import Worker
from probe.jobs.inputs import open_model, open_stream
from probe.models.reading.layers import list_norm_layers
from probe.records import Plan
from support.captures import Everything, token_batches
from support.observations import assert_same_samples

GRID = {"grid": (1, 11), "patch_size": 4, "prefix_tokens": 1}
FEW = {"samples": 40, "tail": 80}
BATCHES = token_batches(images=36, size=3, positions=12)
LAYERS = ["norm#1", "norm#2", "batch_norm", "sometimes"]  # the first batch skips `sometimes`


def inputs(batches=BATCHES):
    stream = open_stream(
        open_model(Everything()),
        batches,
        num_images=None,
        batch_size=3,
        workers=0,
        seed=0,
        mask=None,
        transform=None,
    )
    return list(stream.batches)


def factory(module=None):
    model = open_model(Everything() if module is None else module)
    model.prefix_tokens = 1
    return partial(Worker, model, Plan(images=36, **FEW), attention=GRID)


def ran(make_worker, batches):
    with make_worker() as worker:
        for batch in batches:
            worker.update(batch)
    return worker


def assert_close(got, expected, within):
    """Sums in another order: equal to `within` of the largest of them."""
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=0)
    np.testing.assert_allclose(got, expected, rtol=within, atol=within * largest)


def assert_same_statistics(got, expected, within):
    assert len(expected.rows(expected.uniform).image) > 10  # some images skip a layer
    assert_same_samples(got, expected)
    assert_close(got.moments.sums, expected.moments.sums, within)
    assert_close(got.profile.sums, expected.profile.sums, within)
    np.testing.assert_allclose(astuple(got.scale), astuple(expected.scale), rtol=1e-12)
    for name in ("not_finite", "positions", "prefix_tokens"):
        assert getattr(got, name) == getattr(expected, name)


def assert_same_worker(got, expected, within=1e-12):
    """Everything that a run is written from; `within`: how far sums may differ."""
    chosen = list_norm_layers(Everything())
    layers, others = dict(got.layers(chosen)), dict(expected.layers(chosen))
    assert [layer.name for layer in others] == LAYERS
    assert list(layers) == list(others)
    for layer, statistics in others.items():
        assert_same_statistics(layers[layer], statistics, within)
    assert got.images == expected.images == 36
    assert got.functional == expected.functional == {": layer_norm": 1}
    rows, other_rows = (pd.DataFrame(worker.attention.rows()) for worker in (got, expected))
    assert len(other_rows) == 2
    pd.testing.assert_frame_equal(rows, other_rows, rtol=1e-12, atol=0)
    assert got.attention.unreadable == expected.attention.unreadable
