"""`probe-norms capture`: statistics and samples of every layer, without fits and figures."""

from __future__ import annotations

from probe.cli import options as opt
from probe.cli.norm_classes import norm_classes


def capture(
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
    loader_timeout: opt.LoaderTimeout = None,
    resume: opt.Resume = False,
    overwrite: opt.Overwrite = False,
    offline: opt.Offline = False,
    quiet: opt.Quiet = False,
    json: opt.Json = False,
) -> None:
    """Run a model and keep statistics and samples of its layers.

    The first half of the whole job; the commands fit, plot and export then work on the run, without
    the model.
    """
    from probe.cli.progress import progress_bar
    from probe.cli.views.capture import show_capture

    opt.refuse_torchrun()
    place = out or opt.default_out(model, weights)
    with norm_classes(norm_type), progress_bar(quiet, message=model) as progress:
        from probe.jobs.capturing.capture import capture as job

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
            progress=progress,
        )
    show_capture(run, json)
