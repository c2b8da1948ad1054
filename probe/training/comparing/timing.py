"""How long a forward pass takes with each norm: networks take turns in one process, so that what
else the machine does meets all of them alike; the ratio to the reference is taken turn by turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from probe.jobs.inputs import Inputs
from probe.jobs.speed import EAGER, timed_pass

BATCH = 32
TURNS = 20


def forward_times(
    modules: Mapping[str, nn.Module], reference: str, images: Tensor, turns: int = TURNS
) -> dict[str, dict[str, Any]]:
    """By name: forward_ms (median over turns) of a batch `images` (B, 3, H, W) in evaluation mode,
    forward_ratio to the reference (median of the ratios of each turn), and its quartiles
    forward_ratio_low and forward_ratio_high.
    """
    seconds: dict[str, list[float]] = {name: [] for name in modules}
    places = np.arange(len(images))
    inputs = Inputs((images,), {}, images=places, groups=places)
    passes = {name: timed_pass(module.eval(), EAGER, inputs) for name, module in modules.items()}
    for turn in range(turns + 1):
        for name, run in passes.items():
            took = run()
            if turn:  # the first is for caches and compilation
                seconds[name].append(took)
    of_reference = np.array(seconds.get(reference, []))
    return {name: _summary(np.array(each), of_reference) for name, each in seconds.items()}


def _summary(seconds: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    ratios = seconds / reference if reference.size else np.full(seconds.size, np.nan)
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    return {
        "forward_ms": 1000 * float(np.median(seconds)),
        "forward_ratio": float(middle),
        "forward_ratio_low": float(low),
        "forward_ratio_high": float(high),
    }
