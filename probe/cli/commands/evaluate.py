"""`probe-norms evaluate --model M --weights FILE --data D`: loss, top-1 and top-5."""

from __future__ import annotations

from typing import Annotated

from probe.cli import options as opt

Model = Annotated[
    str | None,
    opt.text_option(
        "--model",
        "M",
        "As everywhere, or a FILE.safetensors that train wrote.  [default: the network that the "
        "weights name]",
    ),
]
Weights = Annotated[
    list[str] | None,
    opt.text_option(
        "--weights",
        "W",
        "pretrained, random, or a checkpoint FILE; may be repeated.  [default: pretrained]",
    ),
]
Data = Annotated[
    str,
    opt.text_option(
        "--data",
        "D",
        "Folder with a sub-folder per class, folder of Parquet files (FOLDER?split=test), or a "
        "timm dataset.",
    ),
]


def evaluate(
    data: Data,
    model: Model = None,
    weights: Weights = None,
    num_images: opt.NumImages = None,
    batch_size: opt.BatchSize = 64,
    workers: opt.Workers = 0,
    seed: opt.Seed = opt.DEFAULTS.seed,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    autocast: opt.Autocast = None,
    offline: opt.Offline = False,
    quiet: opt.Quiet = False,
    json: opt.Json = False,
) -> None:
    """Say how well networks classify images: loss, top-1, top-5, images per second.

    Classes are matched by number (folders 0, 1, ..., 999 as in ImageNet-V2), by WordNet id
    (n01440764), or by their order where there are as many as the network has.
    """
    from probe.cli.progress import progress_bar
    from probe.cli.views.evaluate import show

    with progress_bar(quiet, message=model or "") as progress:
        from probe.training.evaluate import evaluate as job

        table = job(
            model,
            weights,
            data=data,
            num_images=num_images,
            batch_size=batch_size,
            workers=workers,
            seed=seed,
            device=device,
            dtype=dtype,
            autocast=autocast,
            offline=offline,
            progress=progress,
        )
    show(table, data, json)
