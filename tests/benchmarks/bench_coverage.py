"""Do the jackknife intervals hold, and how often is a status wrong? Run by hand:

    python tests/benchmarks/bench_coverage.py FOLDER --model bundled:vit_cifar10

Every image of FOLDER goes through the model once; all of them are the population. Then draws of
16, 64, 128 and 256 of them are fitted as a run would be, for every layer:

- how often the 95 % intervals of alpha and of the gain hold those of all images;
- how often a draw says `linear` of a layer that gains 0.001 or more over all images, and `curved`
  of one that gains less;
- the same where the population has no curvature: what the layer's mean map departs from its line is
  taken out of every element, so that images differ as they do, and the gain is 0.

Draws are without replacement, so those of a large part of the images vary less than draws from the
world would.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict

import numpy as np
import torch

from probe.bins import BINS, PER_SIGN
from probe.curves import BinnedMap, fit_profile
from probe.curves.selection import MIN_GAIN
from probe.data import iterate, open_images
from probe.models.loading.load import load_model
from probe.models.reading.observe import BatchContext
from probe.models.reading.tap import tap
from probe.records import GROUPS, Fit, Plan, Status
from probe.stats.layer import LayerStatistics
from probe.stats.samples import RowChoice
from probe.stats.sums import CellSum

# of a bin, in the order of BinnedMap
SUMS = [CellSum.COUNT, CellSum.X, CellSum.Z, CellSum.ZZ, CellSum.XX, CellSum.XZ]


def profiles_per_image(name: str, folder: str) -> dict[str, list[tuple]]:
    """{layer: [(bin index, cells, min, max) of each image]}."""
    model = load_model(name)
    plan = Plan(images=1, samples=1, tail=2)
    found = defaultdict(list)

    def receive(layer, call, observed):
        statistics = LayerStatistics(plan, observed.channels)
        statistics.update(observed, RowChoice(plan, observed.kinds))
        _, _, index, cells = statistics.profile.rows()
        spread = statistics.moments.input
        bins, place = np.unique(index, return_inverse=True)
        summed = np.zeros((len(bins), len(SUMS)))
        np.add.at(summed, place, cells[:, SUMS])
        found[layer].append((bins, summed, spread.min.min(), spread.max.max()))

    with tap(model.module, "*", receive) as hooks, torch.no_grad():
        for batch in iterate(open_images(folder), model.transform, batch_size=1):
            hooks.begin(BatchContext(np.zeros(1, int), np.zeros(1, int), model.prefix_tokens))
            model.module(batch.inputs)
    return found


Images = list[tuple]  # (bin index, cells, min, max) of each image


def in_groups(images: Images) -> BinnedMap:
    """The map of some images, in groups as a run makes them."""
    cells = np.zeros((GROUPS, BINS, len(SUMS)))
    for rank, (bins, values, _, _) in enumerate(images):
        cells[rank % GROUPS, bins + PER_SIGN] += values
    kept = np.flatnonzero(cells[..., 0].sum(axis=0))
    return BinnedMap(
        kept - PER_SIGN,
        *np.moveaxis(cells[:, kept], 2, 0),
        min(image[2] for image in images),
        max(image[3] for image in images),
    )


def fitted(images: Images) -> Fit:
    """The tanh over some images."""
    return fit_profile(in_groups(images), families=["tanh"], weightings=("population",))[0]


def straightened(images: Images) -> Images:
    """The same images without curvature: from each element the departure of its bin's mean from the
    line of all images is taken.
    """
    total = np.zeros((BINS, len(SUMS)))
    for bins, values, _, _ in images:
        total[bins + PER_SIGN] += values
    count, x, z, _, xx, xz = total.T
    n = count.sum()
    mean_x, mean_z = x.sum() / n, z.sum() / n
    slope = (xz.sum() / n - mean_x * mean_z) / (xx.sum() / n - mean_x**2)
    line = count * (mean_z - slope * mean_x) + slope * x
    departure = (z - line) / np.maximum(count, 1)
    return [
        (bins, _less(values, departure[bins + PER_SIGN]), *ends) for bins, values, *ends in images
    ]


def _less(values: np.ndarray, departure: np.ndarray) -> np.ndarray:
    """The sums of a bin's elements after `departure` was taken from each of their z."""
    count, x, z, zz, xx, xz = values.T
    zz = zz - 2 * departure * z + departure**2 * count
    return np.column_stack([count, x, z - departure * count, zz, xx, xz - departure * x])


def draws_of(images: Images, size: int, draws: int, random: np.random.Generator) -> list[Fit]:
    chosen = (np.sort(random.choice(len(images), size, replace=False)) for _ in range(draws))
    return [fitted([images[i] for i in choice]) for choice in chosen]


def holds(low: float | None, high: float | None, truth: float) -> bool | None:
    """Does the interval hold the number? None where there is no interval."""
    return None if low is None or high is None else low <= truth <= high


def share(flags: list[bool | None]) -> str:
    """`95.1 % of 900`, of those that say anything."""
    said = [flag for flag in flags if flag is not None]
    return f"{100 * np.mean(said):5.1f} % of {len(said)}" if said else "-"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("--model", default="bundled:vit_cifar10")
    parser.add_argument("--draws", type=int, default=60, help="of each size, per layer")
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 64, 128, 256])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    flags: dict[tuple[int, str], list[bool | None]] = defaultdict(list)
    for layer, images in profiles_per_image(options.model, options.folder).items():
        truth, straight = fitted(images), straightened(images)
        if truth.alpha is None:
            print(f"{layer}: {truth.status}")
            continue
        zero = fitted(straight).gain
        print(
            f"{layer}: {len(images)} images, {truth.status}, alpha {truth.alpha:.4f}, gain "
            f"{truth.gain:.2g}, straightened {zero:.1g}",
            flush=True,
        )
        for size in options.sizes:
            for fit in draws_of(images, size, options.draws, random):
                flags[size, "alpha"].append(holds(fit.alpha_low, fit.alpha_high, truth.alpha))
                flags[size, "gain"].append(holds(fit.gain_low, fit.gain_high, truth.gain))
                wrong = Status.LINEAR if truth.gain >= MIN_GAIN else Status.CURVED
                flags[size, f"false {wrong}"].append(fit.status == wrong)
                flags[size, "undetermined"].append(fit.status == Status.UNDETERMINED)
            for fit in draws_of(straight, size, options.draws, random):
                flags[size, "curved without curvature"].append(fit.status == Status.CURVED)
                flags[size, "linear without curvature"].append(fit.status == Status.LINEAR)
    for (size, what), each in flags.items():
        print(f"{size:4} images  {what:26} {share(each)}")
    result = {
        f"{size} {what}": float(np.mean([f for f in each if f is not None] or [np.nan]))
        for (size, what), each in flags.items()
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
