"""Compare: the same training with each of several normalizers, by seed.

1. Every network is built: a norm that cannot be in it is told before anything runs, and all must
   start equal outside of their norms.
2. With a grid of learning rates the best one of each norm is chosen on training images held back.
3. The cells are trained; a cell that fails is a row with its reason.
4. Each final network is captured and fitted; forward passes are timed in turns.
5. Tables, figures and page are made of the folder alone (`comparing.page`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from probe.jobs.inputs import check_images
from probe.records import Progress, silent
from probe.training.comparing.job import Grid, Job
from probe.training.comparing.page import write_results
from probe.training.comparing.record import comparison_folder, read_record
from probe.training.comparing.starts import Asked, check_fields, check_starts
from probe.training.comparing.variants import reference_of, seeds_of, variants
from probe.training.options import Options
from probe.training.portions import Portions
from probe.training.recipe import Recipe
from probe.training.train import portioned

HELD_BACK = 0.1
PROBE_IMAGES = 64


@dataclass(frozen=True)
class NormComparison:
    """What `compare_norms` gives."""

    path: Path

    def _read(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.path / f"{name}.parquet")

    @property
    def table(self) -> pd.DataFrame:
        """One row per norm: n, mean, standard deviation, paired difference, cost."""
        return self._read("comparison")

    @property
    def cells(self) -> pd.DataFrame:
        """One row per norm and seed."""
        return self._read("cells")

    @property
    def layers(self) -> pd.DataFrame:
        """One row per norm, seed and layer of the final networks."""
        return self._read("layers")

    @property
    def attention(self) -> pd.DataFrame:
        """One row per norm, seed, attention layer and head."""
        return self._read("attention")

    @property
    def record(self) -> dict[str, Any]:
        """comparison.json."""
        return read_record(self.path)


def compare_norms(
    model: str | None = None,
    norms: str | Iterable[str] = (),
    *,
    data: str,
    out: str,
    recipe: str | Recipe | None = None,
    as_published: bool = False,
    seeds: int | Sequence[int] = 3,
    reference: str | None = None,
    lr_grid: Sequence[float] = (),
    held_back: float = HELD_BACK,
    grid_epochs: int | None = None,
    val_data: str | None = None,
    train_images: int | None = None,
    val_images: int | None = None,
    probe_images: int = PROBE_IMAGES,
    device: str | None = None,
    workers: int = 0,
    micro_batch: int | None = None,
    figures: bool = True,
    report: bool = True,
    offline: bool = False,
    progress: Progress = silent,
    **overrides: Any,
) -> NormComparison:
    """The same training with each of `norms` and each seed; tables, figures and a page in `out`.

        done = probe.compare_norms(
            "vit_tiny_patch16_224", "layer_norm,dyt,derf", data="photos/", out="compared", epochs=30
        )
        done.table  # pandas: norm, n, top1_mean, top1_std, difference, difference_low, ...

    norms: names of probe.norms, `own` for the network's own, `dyt:fitted` for another start,
    `dyt+alpha_init=0.8` for options. seeds: how many, or which. reference: what the others are
    compared with; None: the first.
    lr_grid: learning rates, of which each norm gets the one with the highest top-1 on the share
    `held_back` of the training images, after `grid_epochs` epochs of the first seed; (): the
    recipe's for all.
    probe_images: validation images of the run of each final network; 0: no runs.
    data, recipe, as_published, val_data, train_images, val_images, overrides: as `probe.train`
    takes them; in `model` and `weights` `{seed}` stands for the number of the seed.

    The same call continues a comparison that was interrupted, and adds norms and seeds. A cell that
    fails is a row with its reason. Raises UsageError for what cannot be asked, such as a norm that
    cannot be in the network; Interrupted at Ctrl-C.
    """
    check_fields(overrides)
    if probe_images:
        check_images(probe_images)
    asked = Asked(recipe, as_published, {"model": model, **_set(overrides)})
    chosen, numbers = variants(norms), seeds_of(seeds)
    base = reference_of(chosen, reference)
    options: dict[str, Any] = {
        "data": data,
        "val_data": val_data,
        "train_images": train_images,
        "val_images": val_images,
        "device": device,
        "workers": workers,
        "micro_batch": micro_batch,
        "offline": offline,
    }
    images = portioned(Options(out=out, **options))
    if lr_grid:
        Portions(held_back=held_back).of(images)  # refused here, where it leaves a class empty
    check_starts(asked, chosen, numbers, images, offline)
    folder = comparison_folder(out)
    grid = Grid(tuple(lr_grid), held_back, grid_epochs)
    Job(folder, asked, chosen, numbers, base, options, images, probe_images, progress).run(grid)
    write_results(folder, figures=figures, report=report, progress=progress)
    return NormComparison(folder)


def _set(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


__all__ = ["NormComparison", "compare_norms"]
