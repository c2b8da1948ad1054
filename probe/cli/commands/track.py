"""`probe-norms track CHECKPOINT...`: when does each normalization layer become S-shaped?"""

from __future__ import annotations

from typing import Annotated

import typer

from probe.cli import options as opt
from probe.cli.norm_classes import norm_classes

Checkpoints = Annotated[
    list[str],
    typer.Argument(
        metavar="CHECKPOINT...",
        show_default=False,
        help="Weights files (safetensors, pth), folders of them, or a training of this program.",
    ),
]
Model = Annotated[
    str | None,
    opt.text_option(
        "--model",
        "M",
        "The network: timm name, or torchvision:NAME, bundled:NAME, FILE.py:FUNCTION.  [default: "
        "what the checkpoints say]",
    ),
]
Norm = Annotated[
    str | None,
    opt.text_option(
        "--norm",
        "NAME",
        "Normalizer of the zoo that the network was trained with in place of its own, e.g. dyt.  "
        "[default: what the checkpoints say]",
    ),
]
NormLayers = Annotated[
    str,
    opt.text_option("--norm-layers", "GLOBS", "Layers that it replaced, by name."),
]
Out = Annotated[str, opt.text_option("--out", "DIR", "Directory: new, or a tracking that goes on.")]
Attention = Annotated[
    bool, typer.Option("--attention", help="Also how far each attention head looks.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Capture every checkpoint anew, with other settings.")
]


def track(
    checkpoints: Checkpoints,
    out: Out,
    model: Model = None,
    data: opt.Data = None,
    norm: Norm = None,
    norm_layers: NormLayers = "*",
    layers: opt.Layers = "*",
    norm_type: opt.NormTypes = None,
    attention: Attention = False,
    num_images: opt.NumImages = opt.DEFAULTS.images,
    batch_size: opt.BatchSize = opt.DEFAULTS.batch_size,
    workers: opt.ModelWorkers = 0,
    engine: opt.Engine = "local",
    address: opt.Address = None,
    samples: opt.Samples = opt.DEFAULTS.samples,
    tail: opt.Tail = opt.DEFAULTS.tail,
    seed: opt.Seed = opt.DEFAULTS.seed,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    autocast: opt.Autocast = None,
    no_figures: opt.NoFigures = False,
    no_report: opt.NoReport = False,
    overwrite: Overwrite = False,
    offline: opt.Offline = False,
    quiet: opt.Quiet = False,
    json: opt.Json = False,
) -> None:
    """Capture and fit the checkpoints of any training on the same images.

    Writes a table over checkpoints and layers, a run per checkpoint, figures and a page that says
    when each layer becomes S-shaped. Runs that are finished are not made again: the same command
    goes on where it was stopped. Exit code 1 if a checkpoint could not be opened.
    """
    from probe.cli.progress import progress_bar
    from probe.cli.views.track import show

    named = f"{len(checkpoints)} paths" if len(checkpoints) > 1 else checkpoints[0]
    with norm_classes(norm_type), progress_bar(quiet, message=named) as progress:
        from probe.training.tracking.track import track as job

        tracking = job(
            checkpoints,
            model,
            data,
            out=out,
            norm=norm,
            norm_layers=norm_layers,
            layers=layers,
            attention=attention,
            num_images=num_images,
            batch_size=batch_size,
            workers=workers,
            engine=engine,
            address=address,
            samples=samples,
            tail=tail,
            seed=seed,
            device=device,
            dtype=dtype,
            autocast=autocast,
            figures=not no_figures,
            report=not no_report,
            overwrite=overwrite,
            offline=offline,
            progress=progress,
        )
    show(tracking, json)
    if tracking.failed:
        raise typer.Exit(1)
