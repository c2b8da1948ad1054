"""What compiled kernels compute, to the bit: `python -m support.kernel_numbers objective` writes
its digest.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable

import numpy as np


def objective() -> Iterable[np.ndarray]:
    """What the fits minimize, and its derivatives."""
    from probe.curves.kernels import reduced_objective

    generator = np.random.default_rng(0)
    f, slope, bend = generator.standard_normal((3, 3, 203))
    x, alpha = generator.standard_normal(203), np.array([0.3, 1.0, 2.0])
    w, z = generator.random((1, 203)), generator.standard_normal((1, 203))
    out = [np.empty((3, *(2,) * axes)) for axes in (0, 1, 2, 0, 0)]
    reduced_objective(x, alpha, f, slope, bend, w / w.sum(), z, np.zeros(3, int), *out)
    return out


def fits() -> Iterable[np.ndarray]:
    """Every family in both scopes."""
    from probe.curves import fit_channels, fit_profile
    from support.curve_maps import in_bins

    x = np.random.default_rng(0).normal(0, 2, (2000, 8)).astype(np.float32)
    z, groups = np.tanh(0.7 * x), np.arange(len(x)) % 16
    rows = fit_profile(in_bins(x, z, np.repeat(groups, 8))) + fit_channels(x, z, groups).fits
    return [np.array([row.alpha, row.gamma, row.r2, row.gain_high], float) for row in rows]


def statistics() -> Iterable[np.ndarray]:
    """All that is kept of layers of every kind."""
    from probe.records import Plan
    from probe.stats.layer import LayerStatistics
    from probe.stats.samples import RowChoice
    from support.observations import NORMS, observed, tokens

    plan = Plan(images=3, samples=30, tail=80)
    for norm in NORMS:
        for shape in ((3, 10, 12), (2, 33, 130), (2, 7, 530)):
            batch = observed(tokens(*shape), norm)
            layer = LayerStatistics(plan, batch.channels)
            layer.update(batch, RowChoice(plan, batch.kinds))
            yield from layer.state().values()


def attention() -> Iterable[np.ndarray]:
    """The sums of a few heads."""
    from probe.stats.attention_kernels import add_rows

    generator, sums = np.random.default_rng(0), np.zeros((3, 5))
    distances = generator.random((20, 70), np.float32)
    add_rows(generator.standard_normal((3, 20, 76), np.float32), distances, 1, sums)
    return [sums]


PARTS: dict[str, Callable[[], Iterable[np.ndarray]]] = {
    part.__name__: part for part in (objective, fits, statistics, attention)
}

if __name__ == "__main__":
    digest = hashlib.sha256()
    for numbers in PARTS[sys.argv[1]]():
        digest.update(np.ascontiguousarray(numbers).tobytes())
    sys.stdout.write(digest.hexdigest())
