"""Do the jackknife intervals of alpha hold? Run by hand:

    python tests/benchmarks/bench_coverage.py FOLDER --model bundled:vit_cifar10

Every image of FOLDER goes through the model once. Then 60 draws of 64 images each are fitted as a
run would be; counted is how often the 95 % interval of alpha holds the alpha of all images, per
layer whose status over all images is `curved`. Aim: at least 85 %.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np
import torch

from probe.bins import BINS, PER_SIGN
from probe.curves import BinnedMap, fit_profile
from probe.data import iterate, open_images
from probe.models.loading.load import load_model
from probe.models.reading.observe import BatchContext
from probe.models.reading.tap import tap
from probe.records import GROUPS, Fit, Plan
from probe.stats.layer import LayerStatistics
from probe.stats.samples import RowChoice
from probe.stats.sums import CellSum


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
        summed = np.zeros((len(bins), len(CellSum)))
        np.add.at(summed, place, cells)
        found[layer].append((bins, summed, spread.min.min(), spread.max.max()))

    with tap(model.module, "*", receive) as hooks, torch.no_grad():
        for batch in iterate(open_images(folder), model.transform, batch_size=1):
            hooks.begin(BatchContext(np.zeros(1, int), np.zeros(1, int), model.prefix_tokens))
            model.module(batch.inputs)
    return found


def fitted(images: list[tuple]) -> Fit:
    """The tanh over some images, in groups as a run makes them."""
    cells = np.zeros((GROUPS, BINS, len(CellSum)))
    for rank, (bins, values, _, _) in enumerate(images):
        cells[rank % GROUPS, bins + PER_SIGN] += values
    kept = np.flatnonzero(cells[..., CellSum.COUNT].sum(axis=0))
    binned = BinnedMap(
        kept - PER_SIGN,
        *np.moveaxis(cells[:, kept], 2, 0),
        min(image[2] for image in images),
        max(image[3] for image in images),
    )
    return fit_profile(binned, families=["tanh"], weightings=("population",))[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("--model", default="bundled:vit_cifar10")
    parser.add_argument("--draws", type=int, default=60)
    parser.add_argument("--images", type=int, default=64)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    held = total = 0
    for layer, images in profiles_per_image(options.model, options.folder).items():
        truth = fitted(images)
        if truth.status != "curved":
            print(f"{layer}: {truth.status}")
            continue
        draws = [
            np.sort(random.choice(len(images), options.images, replace=False))
            for _ in range(options.draws)
        ]
        fits = [fitted([images[i] for i in draw]) for draw in draws]
        curved = [fit for fit in fits if fit.alpha_low is not None]
        inside = sum(fit.alpha_low <= truth.alpha <= fit.alpha_high for fit in curved)
        held, total = held + inside, total + len(curved)
        counts = f"{len(curved)} of {len(draws)} draws curved, {inside} intervals hold it"
        print(f"{layer}: alpha {truth.alpha:.4f} of {len(images)} images; {counts}")
    print(f"all curved layers: {held} of {total} intervals hold ({held / max(total, 1):.1%})")


if __name__ == "__main__":
    main()
