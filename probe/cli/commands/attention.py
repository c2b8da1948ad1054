"""`probe-norms attention`: how far each attention head looks; of a model, of finished runs side by
side, or of one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from probe.cli import options as opt
from probe.errors import UsageError

Runs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN", show_default=False, help="Directories of finished runs, in place of a model."
    ),
]
Out = Annotated[
    str | None,
    opt.text_option(
        "--out",
        "DIR",
        "Directory or address of the new run; of runs and images: of the figures.  [default: none]",
    ),
]
Image = Annotated[
    str | None,
    opt.text_option(
        "--image", "FILE", "Draw the attention maps and the rollout of this image instead."
    ),
]
Query = Annotated[
    str | None,
    typer.Option(
        "--query",
        metavar="ROW,COL",
        parser=opt.sides("--query", ",", 0, "3,5"),
        help="Patch of the image that asks.  [default: the middle one]",
    ),
]
Layers = Annotated[
    str | None,
    opt.text_option(
        "--layers",
        "GLOBS",
        "Layers whose maps are drawn, by name, with commas between.  [default: four at equal "
        "steps]",
    ),
]
CheckGrid = Annotated[
    bool,
    typer.Option(
        "--check-grid",
        help="Prove the places of tokens instead: change patches, see which tokens change.",
    ),
]

SHARED = {"out", "quiet", "json"}
LOADING = {
    "model",
    "weights",
    "seed",
    "device",
    "dtype",
    "offline",
    "patch_size",
    "prefix_tokens",
    "grid",
}
ACCEPTED = {
    "RUN": SHARED | {"runs"},
    "--image": SHARED | LOADING | {"image", "query", "layers"},
    "--check-grid": LOADING - {"dtype"} | {"check_grid", "quiet", "json"},
    "a model": SHARED
    | LOADING
    | {"data", "num_images", "batch_size", "workers", "engine", "address"}
    | {"no_figures", "overwrite"},
}
HINTS = {
    "--image": "an image has maps only; leave --image out for distances",
    "--check-grid": "it changes patches of an image of its own; leave it out for distances",
    "a model": "give --image FILE with it",
}


def attention(
    context: typer.Context,
    runs: Runs = None,
    model: opt.Model = opt.MODEL,
    weights: opt.Weights = "pretrained",
    data: opt.Data = None,
    out: Out = None,
    num_images: opt.NumImages = opt.DEFAULTS.images,
    batch_size: opt.BatchSize = opt.DEFAULTS.batch_size,
    workers: opt.ModelWorkers = 0,
    engine: opt.Engine = "local",
    address: opt.Address = None,
    seed: opt.Seed = opt.DEFAULTS.seed,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    patch_size: opt.PatchSize = None,
    prefix_tokens: opt.PrefixTokens = None,
    grid: opt.Grid = None,
    image: Image = None,
    query: Query = None,
    layers: Layers = None,
    check_grid: CheckGrid = False,
    no_figures: opt.NoFigures = False,
    overwrite: opt.Overwrite = False,
    offline: opt.Offline = False,
    quiet: opt.Quiet = False,
    json: opt.Json = False,
) -> None:
    """How far does each attention head look?

    The mean distance between a patch and the patches that it attends to, per head, in pixels of the
    input. Of a model on images (with --out also as a run with figures), or of finished runs, which
    --out draws side by side.
    """
    chosen = {"RUN": runs, "--image": image, "--check-grid": check_grid}
    mode = next((name for name, value in chosen.items() if value), "a model")
    refuse_others(context, mode)
    if mode == "RUN":
        of_runs(runs or [], out, quiet, json)
        return
    tokens = {"patch_size": patch_size, "prefix_tokens": prefix_tokens, "grid": grid}
    loading = {
        "weights": weights,
        "device": device,
        "dtype": dtype,
        "seed": seed,
        "offline": offline,
    }
    if check_grid:
        del loading["dtype"]
        of_grid(model, quiet, json, **tokens, **loading)
        return
    if image is not None:
        if out is None:
            raise UsageError("--image needs --out DIR: the directory of its figures")
        of_image(model, image, out, quiet, json, query=query, layers=layers, **loading, **tokens)
        return
    opt.refuse_torchrun()
    reading = {
        "num_images": num_images,
        "batch_size": batch_size,
        "workers": workers,
        "engine": engine,
        "address": address,
        "overwrite": overwrite,
    }
    of_model(model, data, out, not no_figures, quiet, json, **loading, **reading, **tokens)


def refuse_others(context: Any, mode: str) -> None:
    """Options that a mode does not use would silently do nothing."""
    given = [
        param.opts[0]
        for param in context.command.params
        if getattr(context.get_parameter_source(param.name), "name", "") == "COMMANDLINE"
        and param.name not in ACCEPTED[mode]
    ]
    if given and mode == "RUN":
        raise UsageError(
            f"{', '.join(given)} with RUN: give finished runs or a model, not both; --out, --quiet "
            "and --json go with runs"
        )
    if given:
        hint = HINTS[mode]
        raise UsageError(f"{', '.join(given)} does not go with {mode}: {hint}")


def of_model(
    model: str,
    data: str | None,
    out: str | None,
    figures: bool,
    quiet: bool,
    json: bool,
    **options: Any,
) -> None:
    """Measure, and write and draw a run where there is a place for it."""
    from probe.cli.progress import progress_bar
    from probe.cli.views.attention import AttentionSummary, show
    from probe.formatting import records

    with progress_bar(quiet, message=model) as progress:
        from probe.jobs.capturing.attention import attention_distance as job

        table = job(model, data, out=out, progress=progress, **options)
        drawn: list[Any] = []
        if out is not None and figures:
            from probe.jobs.drawing.draw import plot

            drawn = plot(out, progress=progress)
    show([AttentionSummary(model, records(table), table.attrs)], drawn, json, run=out)


def of_grid(model: str, quiet: bool, json: bool, **options: Any) -> None:
    """Do the tokens that change stand where the grid says?"""
    from probe.cli.progress import progress_bar
    from probe.cli.views.grid_check import show_agreement

    with progress_bar(quiet, message=model):
        from probe.jobs.capturing.grid_check import check_attention_grid

        table = check_attention_grid(model, **options)
    show_agreement(table, json)


def of_runs(runs: Sequence[str], out: str | None, quiet: bool, json: bool) -> None:
    """The table of finished runs, and one figure of them all."""
    from probe.cli.progress import progress_bar
    from probe.cli.views.attention import AttentionSummary, show
    from probe.formatting import records
    from probe.store.run import open_run, run_names

    opened = [open_run(run) for run in dict.fromkeys(runs)]
    summaries = [
        AttentionSummary(
            name,
            records(run.attention()),
            (run.manifest.get("model") or {}) | (run.manifest.get("attention") or {}),
        )
        for name, run in zip(run_names(opened), opened, strict=True)
    ]
    drawn: list[Any] = []
    if out is not None:
        with progress_bar(quiet, "figures", ", ".join(runs)):
            from probe.jobs.drawing.attention import draw_runs

            drawn = draw_runs(opened, out)
    show(summaries, drawn, json)


def of_image(model: str, image: str, out: str, quiet: bool, json: bool, **options: Any) -> None:
    """Maps and rollout of one image."""
    from probe.cli.progress import progress_bar
    from probe.cli.terminal import note, print_json, print_lines

    with progress_bar(quiet, message=model):
        from probe.jobs.drawing.attention import draw_attention

        paths, left_out = draw_attention(model, image, out, **options)
    if json:
        drawn = [str(path) for path in paths]
        print_json({"model": model, "image": image, "figures": drawn, "left_out": left_out})
        return
    print_lines([str(path) for path in paths])
    for name, reason in left_out.items():
        note(f"{name} left out: {reason}", quiet)
