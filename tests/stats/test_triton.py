"""The Triton kernels in Triton's interpreter, on the CPU: no GPU is needed, and none is tested."""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from probe.bins import CELLS
from probe.records import GROUPS
from probe.stats import device_summary
from probe.stats.fixed_point import Measure
from probe.stats.observed import TokenNorm
from probe.stats.profile import Profile

HERE = Path(__file__).parent


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
@pytest.mark.parametrize(
    "file", [pytest.param("test_summary.py", marks=pytest.mark.slow), "triton_contract.py"]
)
def test_the_kernels_keep_the_contract_in_the_interpreter(file):
    # numpy, which plays the processor, warns of the infinities that are put in
    options = ["-q", "-n0", "-p", "no:randomly", "-W", "ignore::RuntimeWarning"]
    chosen = ["-k", "triton"] if file == "test_summary.py" else []
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *chosen, str(HERE / file)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def restored(profile):
    other = Profile()
    other.restore(profile.state())
    return other


@pytest.mark.parametrize("read", [lambda p: p, restored, lambda p: pickle.loads(pickle.dumps(p))])
def test_cells_that_wait_on_a_device_are_there_when_the_profile_is_read(read):
    first, second = torch.rand(1, 2, CELLS, 6).double(), torch.rand(2, 1, CELLS, 6).double()
    profile = Profile()
    profile.add(np.array([3]), second.numpy())
    profile.add_later(first, torch.tensor([3, 5]))
    profile.add_later(second, torch.tensor([5]))
    got = read(profile).sums
    expected = np.zeros((2, GROUPS, CELLS, 6))
    expected[:, 3] += second[:, 0].numpy()
    expected[:1, [3, 5]] += first.numpy()
    expected[:, 5] += second[:, 0].numpy()
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(profile.sums, expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 768, 4096])
@pytest.mark.parametrize("rows", [1, 197 * 8, 1 << 24])
def test_whole_numbers_hold_the_largest_sums_and_are_fine(channels, rows):
    measure = Measure.of(TokenNorm(1e-6, centered=True), rows, channels)
    # x is below 2 of its units, z at most sqrt(C): x x is the largest
    assert measure.z_unit >= channels**0.5
    assert 4 * rows * channels * measure.quantum <= 2**62
    if rows * channels <= 1 << 24:
        assert measure.quantum >= 2.0**35


@pytest.mark.parametrize("device", ["cpu", "mps", "meta"])
def test_only_cuda_devices_get_triton(device):
    assert not device_summary.runs_on(torch.device(device))


def test_without_triton_cuda_gets_plain_torch(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    device_summary.runs_on.cache_clear()
    assert not device_summary.runs_on(torch.device("cuda", 7))
    device_summary.runs_on.cache_clear()


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
@pytest.mark.parametrize(
    "norm",
    ["token", *(pytest.param(n, marks=pytest.mark.slow) for n in ("planes", "given", "farthest"))],
)
def test_the_kernels_compile_for_a_processor_of_today(norm):
    """Through Triton's compiler and the assembler of CUDA, which need no GPU; in a process of its
    own, as Triton must not interpret.
    """
    code = f"from support.triton_compiler import compiled; compiled({norm!r}, capability=90)"
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    path = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
