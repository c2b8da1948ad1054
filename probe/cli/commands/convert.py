"""`probe-norms convert RUN --to NORM`: fitted curves in place of the model's normalization layers,
and what that costs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer

from probe.cli import options as opt
from probe.cli.norm_classes import norm_classes

# What the parts say that take their time to import: `curve_norms()`, `SCOPES` of stand_ins and
# `CURVES` of conversion_curves. A test holds both equal, so --help needs neither torch nor scipy.
NORMS = ("dyt", "derf", "dyisru", "learnable_scaler")
SCOPES = ("channel", "layer")
CURVES = ("all", "established")
# likewise RATES of probe.training.distilling.asked
TRAINED = ("norms", "all")
PRECISIONS = ("no", "bf16", "fp16")


def share(option: str) -> Callable[[Any], float | None]:
    """A parser for a number from 0 to 1."""

    def parse(value: Any) -> float | None:
        if value is None:
            return None
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number <= 1:
            raise opt.Refused(f"{option} {value}: must be a share of the images, from 0 to 1")
        return number

    return parse


def choice(name: str, metavar: str, accepted: tuple[str, ...], text: str) -> Any:
    return typer.Option(name, metavar=metavar, parser=opt.one_of(name, accepted), help=text)


To = Annotated[
    str,
    choice(
        "--to",
        "NORM",
        NORMS,
        "dyt (tanh), derf (erf), dyisru, or learnable_scaler (a line per channel).",
    ),
]
File = Annotated[
    str | None,
    opt.text_option(
        "--out",
        "FILE",
        "Converted model, ending in .safetensors; table, figure and page go beside it.  [default: "
        "none is written]",
    ),
]
Scope = Annotated[
    str,
    choice(
        "--scope",
        "SCOPE",
        SCOPES,
        "Gamma and beta per channel, or one of each per layer.",
    ),
]
Curves = Annotated[
    str,
    choice(
        "--curves",
        "WHICH",
        CURVES,
        "all: the curve of least loss in every layer that has one; established: a line where "
        "the curve is not shown to be better than one (95 %).",
    ),
]
Eval = Annotated[
    str | None,
    opt.text_option(
        "--eval",
        "DATA",
        "Images to compare the models on: a folder, a list, a timm dataset. With labels (a "
        "sub-folder per class, a dataset) also top-1.  [default: the images of the run]",
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        "--tolerance",
        metavar="T",
        parser=share("--tolerance"),
        help="Replace only layers that are replaceable within the tolerance: together they may "
        "change the class of this share of the images, or cost this share of top-1 where there are "
        "labels; e.g. 0.01.",
    ),
]
Distill = Annotated[
    int | None,
    opt.number_option(
        "--distill",
        1,
        "Then let the converted model learn from the original for so many updates, without labels; "
        "the same command continues it.",
        metavar="STEPS",
    ),
]
Data = Annotated[
    str | None,
    opt.text_option("--data", "D", "Images to distill on; labels are not read."),
]
TrainImages = Annotated[
    int | None,
    opt.number_option("--train-images", 1, "How many of them, chosen by the seed.  [default: all]"),
]
Train = Annotated[
    str,
    choice(
        "--train",
        "WHAT",
        TRAINED,
        "What learns: the parameters of the replaced norms, or all.",
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--lr",
        metavar="LR",
        parser=opt.positive("--lr"),
        help="Learning rate of the norms' weights while distilling.  [default: 0.005, of all "
        "parameters 0.002]",
    ),
]
Precision = Annotated[
    str, choice("--precision", "P", PRECISIONS, "no (float32), bf16 or fp16 while distilling.")
]
Model = Annotated[
    str | None,
    opt.text_option(
        "--model",
        "M",
        "The run's model, where it is a Python file or from a hub; must be the one captured.  "
        "[default: as the run says]",
    ),
]
Weights = Annotated[
    str | None,
    opt.text_option("--weights", "FILE", "The run's checkpoint, where it was one and moved."),
]


def convert(
    run: opt.Run,
    to: To = "dyt",
    out: File = None,
    layers: opt.Layers = "*",
    norm_type: opt.NormTypes = None,
    scope: Scope = "channel",
    curves: Curves = "all",
    evaluate_on: Eval = None,
    num_images: opt.NumImages = opt.DEFAULTS.images,
    tolerance: Tolerance = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Refit the replaced layers one after the other behind each other, on the images "
            "of the run, without labels.",
        ),
    ] = False,
    distill: Distill = None,
    data: Data = None,
    train_images: TrainImages = None,
    train: Train = "norms",
    lr: Rate = None,
    precision: Precision = "no",
    measure_speed: opt.MeasureSpeed = False,
    model: Model = None,
    weights: Weights = None,
    batch_size: opt.BatchSize = 32,
    workers: opt.ModelWorkers = 0,
    engine: opt.Engine = "local",
    address: opt.Address = None,
    seed: opt.Seed = opt.DEFAULTS.seed,
    device: opt.Device = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the files that are there.")
    ] = False,
    offline: opt.Offline = False,
    quiet: opt.Quiet = False,
    json: opt.Json = False,
) -> None:
    """Put fitted curves in place of a model's normalization layers, without training.

    Opens the model of the run again, replaces each layer alone and together with those before it,
    and says what that changes: error of the layer's output, KL of the logits, share of images with
    the same top-1. --calibrate and --distill then bring the outputs back towards the original's.
    Load the file with probe.load_converted.
    """
    learning = _learning(distill, data, out, train_images, train, lr, precision)
    from probe.cli.progress import progress_bar
    from probe.cli.terminal import note
    from probe.cli.views.convert import show

    own: dict[str, Any] = {"data": evaluate_on}
    if learning:
        own = {"eval_data": evaluate_on, "say": partial(note, quiet=quiet or json), **learning}

    with norm_classes(norm_type), progress_bar(quiet, message=run) as progress:
        conversion = _job(distill is not None)(
            run,
            to,
            out=out,
            layers=layers,
            scope=scope,
            curves=curves,
            num_images=num_images,
            tolerance=tolerance,
            calibrate=calibrate,
            measure_speed=measure_speed,
            model=model,
            weights=weights,
            batch_size=batch_size,
            workers=workers,
            engine=engine,
            address=address,
            device=device,
            seed=seed,
            offline=offline,
            overwrite=overwrite,
            progress=progress,
            **own,
        )
    show(conversion, run, json)


def _job(distilling: bool) -> Callable[..., Any]:
    if distilling:
        from probe.training.distilling.distill import distill

        return distill
    from probe.jobs.converting.convert import convert

    return convert


def _learning(
    steps: int | None,
    data: str | None,
    out: str | None,
    images: int | None,
    train: str,
    lr: float | None,
    precision: str,
) -> dict[str, Any]:
    """The options of a distillation; none without --distill. Raises UsageError where they need it,
    or it needs others.
    """
    from probe.errors import UsageError

    asked = {"--data": data, "--train-images": images, "--lr": lr}
    if steps is None:
        if lost := [option for option, value in asked.items() if value is not None]:
            raise UsageError(f"{lost[0]} {asked[lost[0]]}: is for --distill STEPS; give it too")
        return {}
    if data is None or out is None:
        lacking = "--data D, images to learn from" if data is None else "--out FILE.safetensors"
        raise UsageError(f"--distill {steps}: needs {lacking}")
    named = {"train_images": images, "train": train, "lr": lr, "precision": precision}
    return {"steps": steps, "data": data, **named}
