"""`probe-norms`: the whole job: capture, fit, alpha export, figures and report of one model."""

from __future__ import annotations

from typing import Any

import typer

from probe.cli import options as opt
from probe.cli.failure import PROGRAM
from probe.cli.norm_classes import norm_classes
from probe.errors import UsageError


def analyze(
    context: typer.Context,
    model: opt.Model = opt.MODEL,
    weights: opt.Weights = "pretrained",
    data: opt.Data = None,
    out: opt.Out = None,
    layers: opt.Layers = "*",
    norm_type: opt.NormTypes = None,
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
    no_attention: opt.NoAttention = False,
    no_figures: opt.NoFigures = False,
    format: opt.Formats = "png",
    no_report: opt.NoReport = False,
    loader_timeout: opt.LoaderTimeout = None,
    resume: opt.Resume = False,
    overwrite: opt.Overwrite = False,
    offline: opt.Offline = False,
    quiet: opt.Quiet = False,
    json: opt.Json = False,
    version: opt.Version = False,
) -> None:
    """What function does each normalization layer of a vision model compute?

    Runs the model on images, fits gamma * tanh(alpha * x) + beta and other curves to the
    input-output map of every normalization layer, writes samples, statistics, alphas, figures and a
    page that shows them (report.html) to DIR, and prints one row per layer. Without options: a
    small ViT and photographs that come with this package, offline. A command works on a finished
    run, or does one part of the job.
    """
    if context.invoked_subcommand is not None:
        refuse_root_options(context)
        return
    from probe.cli.progress import progress_bar
    from probe.cli.views.run import show_run

    opt.refuse_torchrun()
    place = out or opt.default_out(model, weights)
    with norm_classes(norm_type), progress_bar(quiet, message=model) as progress:
        from probe.jobs.analyze import analyze as job

        run = job(
            model,
            data,
            out=place,
            weights=weights,
            samples=samples,
            tail=tail,
            layers=layers,
            num_images=num_images,
            batch_size=batch_size,
            workers=workers,
            engine=engine,
            address=address,
            device=device,
            dtype=dtype,
            autocast=autocast,
            seed=seed,
            offline=offline,
            loader_timeout=loader_timeout,
            resume=resume,
            overwrite=overwrite,
            attention=not no_attention,
            figures=not no_figures,
            formats=tuple(format),
            report=not no_report,
            progress=progress,
        )
    show_run(run, json)


def refuse_root_options(context: Any) -> None:
    """Options before a sub-command would silently do nothing: the command has its own."""
    given = [
        param.opts[0]
        for param in context.command.params
        if getattr(context.get_parameter_source(param.name), "name", "") == "COMMANDLINE"
    ]
    if given:
        command = context.invoked_subcommand
        raise UsageError(
            f"{', '.join(given)} before {command}: options go after the command; see {PROGRAM} "
            f"{command} --help, or leave out "
            f"{command} to do the whole job"
        )
