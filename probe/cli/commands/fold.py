"""`probe-norms fold --model M --out FILE`: affine maps of normalization layers moved into the
linear layers around them.
"""

from __future__ import annotations

from typing import Annotated

import typer

from probe.cli import options as opt
from probe.cli.norm_classes import norm_classes

IMAGES = 8

File = Annotated[
    str,
    opt.text_option(
        "--out",
        "FILE",
        "Folded model, ending in .safetensors; a page goes beside it.",
        show_default=False,
    ),
]
NumImages = Annotated[
    int | None,
    opt.number_option(
        "--num-images", 1, "Images in the one batch to check and time on; 'all' for all.", "all"
    ),
]
Repeats = Annotated[
    int,
    opt.number_option("--repeats", 1, "Forward passes that are timed, before and after in turns."),
]


def fold(
    out: File,
    model: opt.Model = opt.MODEL,
    weights: opt.Weights = "pretrained",
    data: opt.Data = None,
    layers: opt.Layers = "*",
    norm_type: opt.NormTypes = None,
    num_images: NumImages = IMAGES,
    repeats: Repeats = 10,
    measure_speed: opt.MeasureSpeed = False,
    seed: opt.Seed = opt.DEFAULTS.seed,
    device: opt.Device = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.")] = False,
    offline: opt.Offline = False,
    quiet: opt.Quiet = False,
    json: opt.Json = False,
) -> None:
    """Fold the affine part of normalization layers into the linear layers around them, where that
    is exact.

    A BatchNorm disappears in the convolution before it; of a LayerNorm the weight and bias move
    into the linear layers after it. Checked on images, then written. Load the file with
    probe.load_folded.
    """
    from probe.cli.progress import progress_bar
    from probe.cli.views.fold import show

    with norm_classes(norm_type), progress_bar(quiet, message=model) as progress:
        from probe.jobs.folding.fold_model import fold_model

        done = fold_model(
            model,
            data,
            out=out,
            weights=weights,
            layers=layers,
            num_images=num_images,
            device=device,
            seed=seed,
            offline=offline,
            repeats=repeats,
            measure_speed=measure_speed,
            overwrite=overwrite,
            progress=progress,
        )
    show(done.as_dict(), json)
