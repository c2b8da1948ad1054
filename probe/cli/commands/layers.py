"""`probe-norms layers`: the normalization layers of a model, without running it."""

from __future__ import annotations

from probe.cli import options as opt
from probe.cli.norm_classes import norm_classes


def layers(
    model: opt.Model = opt.MODEL,
    weights: opt.Weights = "random",
    layers: opt.Layers = "*",
    norm_type: opt.NormTypes = None,
    offline: opt.Offline = False,
    quiet: opt.Quiet = False,
    json: opt.Json = False,
) -> None:
    """List the normalization layers of a model.

    Name, kind, channels, eps, and whether a layer is affine per channel by construction. Layers do
    not depend on the weights, so none are downloaded unless --weights asks for them.
    """
    from probe.cli.progress import progress_bar
    from probe.cli.views.layers import show

    with norm_classes(norm_type), progress_bar(quiet, message=model):
        from probe.models.loading.load import load_model
        from probe.models.reading.layers import list_norm_layers
        from probe.models.reading.unusual import affine_errors, unread_norms

        loaded = load_model(model, weights=weights, device="cpu", offline=offline)
        rows = [layer.as_dict() for layer in list_norm_layers(loaded.module, layers)]
        errors, unread = affine_errors(loaded.module), unread_norms(loaded.module)
    show(model, rows, errors, unread, json)
