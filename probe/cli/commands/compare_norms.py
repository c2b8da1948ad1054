"""`probe-norms compare-norms --model M --norms A,B,C --data D --out DIR`: which normalizer?"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from probe.cli import options as opt
from probe.cli.commands.train import (
    AsPublished,
    Data,
    MicroBatch,
    RecipeName,
    TrainImages,
    ValData,
    ValImages,
)
from probe.cli.recipe_options import with_recipe_fields

DECIDED = ("norm", "norm_options", "init", "seed")  # fields that --norms and --seeds say

Norms = Annotated[
    str | None,
    opt.text_option(
        "--norms",
        "LIST",
        "Normalizers with commas between: layer_norm,dyt,...; own: the network's; dyt:fitted, "
        "dyt:match: another start; dyt+alpha_init=0.8: options.",
    ),
]
Out = Annotated[
    str | None, opt.text_option("--out", "DIR", "Directory: new, or a comparison that goes on.")
]
Seeds = Annotated[int, opt.number_option("--seeds", 1, "Trainings of each norm.")]
Reference = Annotated[
    str | None,
    opt.text_option("--reference", "NORM", "What the others are compared with.  [default: first]"),
]
Grid = Annotated[
    str | None,
    opt.text_option(
        "--lr-grid",
        "X,Y,...",
        "Learning rates, of which each norm gets the best on training images held back.  "
        "[default: the recipe's rate for all]",
    ),
]
HeldBack = Annotated[
    float,
    typer.Option(
        "--held-back",
        metavar="SHARE",
        parser=opt.positive("--held-back"),
        help="Share of the training images held back for --lr-grid.",
    ),
]
GridEpochs = Annotated[
    int | None,
    opt.number_option("--grid-epochs", 1, "Epochs of each training of the grid.  [default: all]"),
]
ProbeImages = Annotated[
    int,
    opt.number_option(
        "--probe-images", 0, "Validation images of the run of each network; 0: none."
    ),
]


def command(
    norms: Norms = None,
    data: Data = None,
    out: Out = None,
    recipe: RecipeName = None,
    as_published: AsPublished = False,
    seeds: Seeds = 3,
    reference: Reference = None,
    lr_grid: Grid = None,
    held_back: HeldBack = 0.1,
    grid_epochs: GridEpochs = None,
    val_data: ValData = None,
    train_images: TrainImages = None,
    val_images: ValImages = None,
    probe_images: ProbeImages = 64,
    device: opt.Device = None,
    workers: opt.Workers = 0,
    micro_batch: MicroBatch = None,
    no_figures: opt.NoFigures = False,
    no_report: opt.NoReport = False,
    offline: opt.Offline = False,
    quiet: opt.Quiet = False,
    json: opt.Json = False,
    **fields: Any,
) -> None:
    """Train the same network with each of several normalizers, and compare.

    Of each seed all norms have the same start outside of the norms, data order and augmentation.
    The same command goes on where it was stopped. Exit code 1 if a training failed. Options below
    --json override fields of the recipe.
    """
    from probe.cli.views.compare_norms import run_comparison

    run_comparison(
        fields,
        norms=norms,
        data=data,
        out=out,
        recipe=recipe,
        as_published=as_published,
        seeds=seeds,
        reference=reference,
        lr_grid=lr_grid,
        held_back=held_back,
        grid_epochs=grid_epochs,
        val_data=val_data,
        train_images=train_images,
        val_images=val_images,
        probe_images=probe_images,
        device=device,
        workers=workers,
        micro_batch=micro_batch,
        figures=not no_figures,
        report=not no_report,
        offline=offline,
        quiet=quiet,
        as_json=json,
    )


def compare_norms(**options: Any) -> None:
    command(**options)


with_recipe_fields(compare_norms, command, without=DECIDED)
