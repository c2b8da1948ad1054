"""`probe-norms layers`: the normalization layers of a model, without running it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from probe.cli import options as opt
from probe.cli.norm_classes import norm_classes
from probe.cli.views.grid import Column
from probe.formatting import number


def layers(
    model: opt.Model = opt.MODEL,
    layers: opt.Layers = "*",
    norm_type: opt.NormTypes = None,
    offline: opt.Offline = False,
    quiet: opt.Quiet = False,
    json: opt.Json = False,
) -> None:
    """List the normalization layers of a model.

    Name, kind, channels, eps, and whether a layer is affine per channel by construction. No weights
    are downloaded.
    """
    from probe.cli.progress import progress_bar
    from probe.cli.terminal import print_json
    from probe.wording.unusual_norms import unusual

    with progress_bar(quiet, message=model), norm_classes(norm_type):
        from probe.models.loading.load import load_model
        from probe.models.reading.layers import list_norm_layers
        from probe.models.reading.unusual import affine_errors, unread_norms

        # which layers a model has does not depend on its weights
        loaded = load_model(model, weights="random", device="cpu", offline=offline)
        found = [layer.as_dict() for layer in list_norm_layers(loaded.module, layers)]
        errors, unread = affine_errors(loaded.module), unread_norms(loaded.module)
    if json:
        more = {"not_read": unread, "affine_errors": errors}
        print_json({"model": model, "layers": found, **more})
    else:
        show(model, found, unusual(errors, unread))


def columns() -> list[Column]:
    return [
        Column("layer", lambda row: str(row["name"]), left=True),
        Column("kind", lambda row: str(row["kind"]), left=True),
        Column("channels", lambda row: str(row["channels"])),
        Column("eps", lambda row: number(row["eps"]), rank=1),
        Column(
            "affine per channel", lambda row: "yes" if row["affine"] else "no", rank=2, left=True
        ),
    ]


def show(model: str, found: Sequence[Mapping[str, Any]], notes: list[str]) -> None:
    from probe.cli.terminal import print_table
    from probe.wording.layers import kinds

    total = f"{model}: {len(found)} normalization layer{'s' if len(found) != 1 else ''}"
    print_table(columns(), found, lambda grid: [f"{total}: {kinds(found)}", *notes])
