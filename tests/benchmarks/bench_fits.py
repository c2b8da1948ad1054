"""CPU time of the fits of a finished run, reading left aside, and what is saved by each way that
saves some. Not collected by pytest; run by hand:

    python tests/benchmarks/bench_fits.py RUN [--rounds 5]

In each round the fits are made as they are and then with one way undone, in turn; ratios are to the
same round. Time of other threads is that of BLAS: the kernels start none.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from unittest.mock import patch

import numpy as np

from probe import open_run
from probe.curves import CHANNEL_FAMILIES, fit_channels, fit_profile, varpro
from probe.curves.points import Points
from probe.jobs.fitting.fit import LayerData, by_layer, image_groups, uniform_rows

Way = Callable[[], AbstractContextManager[object]]
OF_AFFINE: tuple[str, ...] = ("linear",)  # what is fitted to each channel of an affine layer


def layers_of(path: str) -> list[LayerData]:
    """The layers of a run that were captured, in memory."""
    run = open_run(path)
    moments, profiles, groups = by_layer(run.moments()), by_layer(run.profile()), image_groups(run)
    return [
        LayerData(moments[name], profiles.get(name), *uniform_rows(run, name, groups))
        for name in run.layers["layer"]
        if name in moments
    ]


def fit_all(layers: list[LayerData]) -> None:
    """Both scopes of every layer; one that is affine has no profile, and only lines."""
    for layer in layers:
        families = CHANNEL_FAMILIES if layer.profile is not None else OF_AFFINE
        fit_channels(layer.x, layer.z, layer.groups, families=families)
        if layer.profile is not None:
            fit_profile(layer.binned())


def families_for_affine() -> AbstractContextManager[object]:
    """Curves for affine layers too, per channel."""
    return patch(f"{__name__}.OF_AFFINE", CHANNEL_FAMILIES)


def replicates_apart() -> AbstractContextManager[object]:
    """Newton's method for one replicate after the other, not for all at once."""
    solve = varpro.solve

    def apart(family, points, starts, owner, max_abs, tolerance=1e-9):  # type: ignore[no-untyped-def]
        parts = []
        for b in np.unique(owner):
            own, mine = slice(b, b + 1), owner == b
            alone = Points(points.x, points.w[own], points.z[own], points.tss[own])
            nobody = np.zeros(mine.sum(), np.intp)
            parts.append(solve(family, alone, starts[mine], nobody, max_abs, tolerance))
        return varpro.Solution(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("theta", "loss", "gamma", "beta")
            )
        )

    return patch.object(varpro, "solve", apart)


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """How many problems are evaluated; how many would be if all went on until the last stops."""
    newton, counts = varpro.newton, {"evaluated": 0, "all": 0}

    def counting(objective, start, *box, **limits):  # type: ignore[no-untyped-def]
        def evaluated(theta, which):  # type: ignore[no-untyped-def]
            counts["evaluated"] += len(which)
            counts["all"] += len(start)
            return objective(theta, which)

        return newton(evaluated, start, *box, **limits)

    with patch.object(varpro, "newton", counting):
        yield counts


def seconds(layers: list[LayerData], way: Way = nullcontext) -> tuple[float, float]:
    """CPU time of this process, and of its other threads."""
    with way():
        process, thread = time.process_time(), time.thread_time()
        fit_all(layers)
        process, thread = time.process_time() - process, time.thread_time() - thread
    return process, process - thread


def measure(layers: list[LayerData], rounds: int) -> None:
    affine = sum(layer.profile is None for layer in layers)
    print(f"{len(layers)} layers, {affine} of them affine")
    undone = {"replicates one by one": replicates_apart} if affine < len(layers) else {}
    undone |= {"curves for affine layers": families_for_affine} if affine else {}
    fit_all(layers)  # loads the kernels
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ("", *undone)}
    for _ in range(rounds):
        for name in times:
            times[name].append(seconds(layers, undone.get(name, nullcontext)))
    usual, others = zip(*times.pop(""), strict=True)
    print(f"as they are: {min(usual):.2f} s at best, of that {max(others):.2f} s in other threads")
    for name, each in times.items():
        ratios = sorted(whole / own for (whole, _), own in zip(each, usual, strict=True))
        told = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{name}: {np.median(ratios):.2f} times that (rounds: {told})")
    with counted() as counts:
        fit_all(layers)
    if counts["all"]:
        share = counts["evaluated"] / counts["all"]
        print(f"evaluated: {share:.2f} of what it were if all replicates went on to the last step")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    measure(layers_of(arguments.run), arguments.rounds)
