"""What layers leave on a device is fetched once for all of them, beside the next pass, and counts
as on the CPU. A stand-in: tensors of the CPU that are taken for those of a device.
"""

from __future__ import annotations

import importlib.util
import pickle
from contextlib import nullcontext

import numpy as np
import pytest
import timm
import torch
from timm.layers import LayerNorm2d
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from probe.jobs.capturing.worker import Worker
from probe.jobs.inputs import Inputs, open_model
from probe.models.reading.layers import list_norm_layers
from probe.records import Plan
from probe.stats import torch_summary, triton_launch
from probe.stats.transfer import Transfer
from support.observations import as_on_a_device
from support.workers import assert_same_worker, factory, inputs, ran

ROUNDING = 1e-6  # of float32 against float64 in the sums of z


@pytest.fixture(scope="module")
def whole():
    return ran(factory(), inputs())


@pytest.fixture
def waits(monkeypatch):
    """The passes that were waited for: after which of them, and for which tensors."""
    as_on_a_device(torch_summary.reduce, monkeypatch)
    real, noted = Transfer.arrays, []

    def arrays(self):
        noted.append(self)
        return real(self)

    monkeypatch.setattr(Transfer, "arrays", arrays)
    return noted


def test_one_transfer_a_pass_brings_what_the_cpu_counts(waits, whole):
    with factory()() as worker:
        for number, batch in enumerate(inputs()):
            worker.update(batch)
            assert len(waits) == number  # that of the pass before
    worker.settle()
    assert len(waits) == len(inputs())
    worker.settle()
    assert len(waits) == len(inputs())
    assert_same_worker(worker, whole, ROUNDING)


def test_lists_that_overflow_take_one_more_transfer_for_all_layers(waits, whole, monkeypatch):
    monkeypatch.setattr(torch_summary, "CANDIDATES", 60)
    counts = []
    with factory()() as worker:
        for batch in inputs():
            worker.update(batch)
            counts.append(len(waits))
    # the first batch is waited for: without bounds, the list of the next one would overflow, too;
    # so is the second, the first one of the layer that the first batch skips
    assert counts[:3] == [2, 4, 4]
    assert_same_worker(worker, whole, ROUNDING)


@pytest.mark.parametrize("read", ["pickle", "state", "merge into", "merge from"])
def test_whatever_is_read_is_complete(waits, whole, read):
    batches, make_worker = inputs(), factory()
    with make_worker() as worker:
        for batch in batches:
            worker.update(batch)
    other = make_worker()
    if read == "pickle":
        worker = pickle.loads(pickle.dumps(worker))
    elif read == "state":
        other.restore(*worker.state())
        worker = other
    elif read == "merge into":
        worker.merge(other)
    else:
        other.merge(worker)
        worker = other
    assert_same_worker(worker, whole, ROUNDING)


class NoValues(TorchDispatchMode):
    """Tensors of the device `meta` hold no values: whoever asks for one gets an error where CUDA
    would wait. It would also wait for copies of what is not pinned on the host, and to count what a
    mask chooses, which these tensors take without an error.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.is_meta:
            flat = [each for arg in args for each in (arg if isinstance(arg, list) else [arg])]
            tensors = [each for each in flat if isinstance(each, torch.Tensor)]
            assert all(each.is_meta or not each.ndim for each in tensors), func
            # made of numbers of Python, as a list that is an index is
            assert func.overloadpacket != torch.ops.aten.lift_fresh, func
            is_index = func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put_)
            assert not is_index or all(each.dtype != torch.bool for each in tensors[1:]), func
        return result


def pinned_and_sent(tensor, device):
    """In place of `transfer.sent`: the copy for which nobody waits."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)


class NothingFetched:
    """In place of a Transfer from such a device."""

    def __init__(self, tensors):
        self._tensors = tensors

    def arrays(self):
        return [torch.zeros_like(each, device="cpu").numpy() for each in self._tensors]


class NotLaunched:
    def __getitem__(self, grid):
        return lambda **arguments: None


def tiny_vit():
    return timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=3
    )


def tiny_convolutions():
    norms = (nn.BatchNorm2d(8), nn.GroupNorm(2, 8), nn.InstanceNorm2d(8), LayerNorm2d(8))
    return nn.Sequential(nn.Conv2d(3, 8, 4, 4), *norms)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("make", "attention"), [(tiny_vit, {}), (tiny_convolutions, None)])
def test_no_hook_waits_for_a_value(make, attention, dtype, monkeypatch):
    from probe.stats import triton_farthest, triton_kernels

    monkeypatch.setattr(triton_kernels, "reduce", NotLaunched())
    monkeypatch.setattr(triton_farthest, "farthest", NotLaunched())
    monkeypatch.setattr("probe.stats.layer.reduce", triton_launch.reduce)
    monkeypatch.setattr("probe.stats.results.Transfer", NothingFetched)
    for module in ("transfer", "attention_sums"):
        monkeypatch.setattr(f"probe.stats.{module}.sent", pinned_and_sent)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # has no such device
    model = open_model(make().eval())
    model.module.to("meta", dtype)
    images, numbers = torch.empty(2, 3, 32, 32, device="meta", dtype=dtype), np.arange(6)
    with Worker(model, Plan(images=6, samples=20, tail=60), attention=attention) as worker:
        for number, part in enumerate(np.split(numbers, 3)):
            # the first pass puts on the device what stays there
            with NoValues() if number else nullcontext():
                worker.update(Inputs((images,), {}, part, part))
    worker.settle()
    layers = worker.layers(list_norm_layers(model.module))
    assert all(len(statistics.rows(statistics.uniform).input) for _, statistics in layers)
    assert attention is None or len(worker.attention.rows()) == 4
