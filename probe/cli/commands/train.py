"""`probe-norms train --model M --norm N --data D --out DIR`: train a network with other
normalizers, by a named recipe.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from probe.cli import options as opt
from probe.cli.recipe_options import with_recipe_fields

Data = Annotated[
    str | None,
    opt.text_option(
        "--data",
        "D",
        "Folder with train/ and val/ (a sub-folder per class in each), folder of Parquet files, or "
        "timm dataset (hfds/..., torch/...?root=...).",
    ),
]
ValData = Annotated[
    str | None,
    opt.text_option(
        "--val-data", "D", "Validation images, where they are elsewhere (FOLDER?split=test)."
    ),
]
Out = Annotated[
    str | None,
    opt.text_option("--out", "DIR", "Directory of the training.  [default: trainings/MODEL-NORM]"),
]
RecipeName = Annotated[
    str | None,
    opt.text_option("--recipe", "R", "A named recipe; see --list-recipes.  [default: plain]"),
]
ListRecipes = Annotated[
    bool, typer.Option("--list-recipes", help="Say what each recipe does, and leave.")
]
AsPublished = Annotated[
    bool, typer.Option("--as-published", help="The recipe with the faults of its source.")
]
PlanOnly = Annotated[bool, typer.Option("--plan", help="Say what would be done, and leave.")]
TrainImages = Annotated[
    int | None,
    opt.number_option(
        "--train-images", 1, "Training images, of each class its share.  [default: all]"
    ),
]
ValImages = Annotated[
    int | None,
    opt.number_option("--val-images", 1, "Validation images, likewise.  [default: all]"),
]
HeldBack = Annotated[
    float | None,
    typer.Option(
        "--held-back",
        metavar="SHARE",
        parser=opt.positive("--held-back"),
        help="Share of the training images to validate on, in place of the validation part.  "
        "[default: none]",
    ),
]
Alphas = Annotated[
    str | None,
    opt.text_option("--alphas", "RUN", "Run or file of fitted curves, for --init fitted."),
]
Processes = Annotated[
    int, opt.number_option("--processes", 1, "Processes that train together, a GPU each.")
]
MicroBatch = Annotated[
    int | None,
    opt.number_option(
        "--micro-batch", 1, "Images of a forward pass.  [default: all of a process's share]"
    ),
]
KeepEvery = Annotated[
    int | None,
    opt.number_option("--keep-every", 1, "Keep the weights of each K-th epoch.  [default: none]"),
]
ProbeEvery = Annotated[
    int | None,
    opt.number_option("--probe-every", 1, "Capture and fit at each K-th epoch.  [default: none]"),
]
SaveMinutes = Annotated[
    float,
    typer.Option(
        "--save-minutes",
        metavar="X",
        parser=opt.positive("--save-minutes"),
        help="Minutes between saves within an epoch.",
    ),
]
Log = Annotated[
    str | None,
    opt.text_option("--log", "TRACKER", "tensorboard, wandb or another tracker of accelerate."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Begin anew where DIR holds another training.")
]


def command(
    data: Data = None,
    out: Out = None,
    recipe: RecipeName = None,
    list_recipes: ListRecipes = False,
    as_published: AsPublished = False,
    plan: PlanOnly = False,
    val_data: ValData = None,
    train_images: TrainImages = None,
    val_images: ValImages = None,
    held_back: HeldBack = None,
    alphas: Alphas = None,
    device: opt.Device = None,
    workers: opt.Workers = 0,
    processes: Processes = 1,
    micro_batch: MicroBatch = None,
    keep_every: KeepEvery = None,
    probe_every: ProbeEvery = None,
    save_minutes: SaveMinutes = 5.0,
    log: Log = None,
    no_report: opt.NoReport = False,
    overwrite: Overwrite = False,
    offline: opt.Offline = False,
    quiet: opt.Quiet = False,
    json: opt.Json = False,
    **fields: Any,
) -> None:
    """Train a network with other normalizers, and keep what they learn.

    The same command continues a training that ended early. Options below --json override fields of
    the recipe.
    """
    from probe.cli.views.train import list_all, run_training

    if list_recipes:
        list_all(json)
        return
    run_training(
        fields,
        data=data,
        out=out,
        recipe=recipe,
        as_published=as_published,
        plan=plan,
        val_data=val_data,
        train_images=train_images,
        val_images=val_images,
        held_back=held_back,
        alphas=alphas,
        device=device,
        workers=workers,
        processes=processes,
        micro_batch=micro_batch,
        keep_every=keep_every,
        probe_every=probe_every,
        save_minutes=save_minutes,
        log=log,
        report=not no_report,
        overwrite=overwrite,
        offline=offline,
        quiet=quiet,
        as_json=json,
    )


def train(**options: Any) -> None:
    command(**options)


with_recipe_fields(train, command)
