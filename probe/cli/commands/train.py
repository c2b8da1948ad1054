"""`probe-norms train --model M --norm N --data D --out DIR`: train a network with other
normalizers, by a named recipe.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from probe.cli import options as opt
from probe.training.flags import Field, recipe_fields

RECIPE_HELP = "[default: the recipe's]"


def field_parser(field: Field) -> Callable[[Any], Any]:
    """The parser of a field of the recipe, with the message that options give."""

    def parse(value: Any) -> Any:
        if value is None or not isinstance(value, str):
            return value
        if value.startswith("--") or not value.strip():
            raise opt.Refused(f"{field.flag} {value}: needs a value")
        try:
            return field.parse(value)
        except ValueError as error:
            raise opt.Refused(f"{field.flag} {value}: must be {error}") from None

    return parse


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


def parameters() -> Iterator[inspect.Parameter]:
    """Those of the command: its own, then one per field of a recipe."""
    signature = inspect.signature(command, eval_str=True)
    yield from (each for each in signature.parameters.values() if each.name != "fields")
    for field in recipe_fields():
        yield inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option_of(field)
        )


def option_of(field: Field) -> Any:
    """The annotation that typer reads."""
    if field.is_switch:
        no = f"--no-{field.flag[2:]}"
        return Annotated[bool | None, typer.Option(f"{field.flag}/{no}", help=field.help)]
    option = typer.Option(
        field.flag, metavar=field.metavar, parser=field_parser(field), help=field.help
    )
    return Annotated[str | None, option]


def train(**options: Any) -> None:
    command(**options)


train.__doc__ = command.__doc__
train.__signature__ = inspect.Signature(list(parameters()))  # type: ignore[attr-defined]
train.__annotations__ = {each.name: each.annotation for each in parameters()}
