"""The published figures that this project reproduces, of one ViT and one ResNet, into one folder
with a page that names their commands.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from probe import plots
from probe.jobs.capturing.capture import capture
from probe.jobs.converting.convert import convert
from probe.jobs.drawing.compare import compare_figure, scope_figure
from probe.jobs.drawing.draw import figure
from probe.jobs.drawing.tables import frame_of
from probe.jobs.figure_file import picture
from probe.jobs.fitting.fit import fit
from probe.jobs.inputs import open_model, shown_name
from probe.models.loading.load import Model
from probe.records import Progress, silent
from probe.store.outputs import output_folder
from probe.store.run import Run
from probe.store.step import Step

VIT, RESNET = "bundled:vit_cifar10", "bundled:resnet_cifar10"

Draw = Callable[[Run, Run, Model], Figure | None]  # runs of ViT and ResNet, model of the ViT


class Published(NamedTuple):
    """What a figure reproduces, the command that makes it from runs `vit` and `resnet`, and how it
    is drawn.
    """

    reproduces: str
    command: str
    draw: Draw


def _of_vit(kind: str) -> Draw:
    return lambda vit, resnet, model: figure(vit, kind)


def _of_resnet(kind: str) -> Draw:
    return lambda vit, resnet, model: figure(resnet, kind)


def _of_both(draw: Callable[[Run, Run], Figure | None]) -> Draw:
    return lambda vit, resnet, model: draw(vit, resnet)


def _convert(vit: Run, resnet: Run, model: Model) -> Figure:
    done = convert(vit, to="dyt", model=model)
    if done.swap is not None:
        done.swap.undo()  # the model may be the user's own
    return plots.conversion_by_depth(done.table, frame=frame_of(vit))


FIGURES: dict[str, Published] = {
    "s_curves_selected": Published(
        "DyT, figure 2; Dynamic_Tanh, experiment 1",
        "plot vit --kind s_curves_selected",
        _of_vit("s_curves_selected"),
    ),
    "by_position": Published(
        "DyT, figure 4: points of one token", "plot vit --kind by_position", _of_vit("by_position")
    ),
    "by_channel": Published(
        "DyT, figure 4: points of one channel", "plot vit --kind by_channel", _of_vit("by_channel")
    ),
    "alpha_vs_inverse_std": Published(
        "DyT, figures 8 and 9, for fitted alphas",
        "plot vit --kind alpha_vs_inverse_std",
        _of_vit("alpha_vs_inverse_std"),
    ),
    "families": Published(
        "DyT and Derf: which curve fits", "plot vit --kind families", _of_vit("families")
    ),
    "lines": Published(
        "Dynamic_Tanh, experiment 1: BatchNorm is a fan of lines",
        "plot resnet --kind lines",
        _of_resnet("lines"),
    ),
    "compare_vit_resnet": Published(
        "Dynamic_Tanh, experiment 1: LayerNorm beside BatchNorm",
        "compare vit resnet",
        _of_both(compare_figure),
    ),
    "r2_by_scope": Published(
        "the same in R2, along depth", "compare vit resnet", _of_both(scope_figure)
    ),
    "attention_distance": Published(
        "DTN, attention distance per head",
        "plot vit --kind attention_distance",
        _of_vit("attention_distance"),
    ),
    "attention_heads": Published(
        "Raghu et al. 2021, figure 1", "plot vit --kind attention_heads", _of_vit("attention_heads")
    ),
    "convert": Published("what a fitted DyT in place of each norm costs", "convert vit", _convert),
}


def published_figures(
    out: str | Path,
    *,
    vit: str | Model = VIT,
    resnet: str | Model = RESNET,
    vit_weights: str | os.PathLike[str] = "pretrained",
    resnet_weights: str | os.PathLike[str] = "pretrained",
    data: Any = None,
    num_images: int | None = 128,
    device: str | None = None,
    seed: int = 0,
    offline: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Draw every figure of FIGURES as PNG into the folder `out`, with a README.md; existing ones
    are replaced. Returns the paths.

    vit, resnet: a network with LayerNorm and attention, and one with BatchNorm; vit_weights and
    resnet_weights: pretrained, random or a file, of those given by name. The runs are made
    anew and not kept.
    """
    folder = output_folder(out)
    models = [
        open_model(model, weights=weights, device=device, seed=seed, offline=offline)
        for model, weights in ((vit, vit_weights), (resnet, resnet_weights))
    ]
    with Step(folder) as step, tempfile.TemporaryDirectory() as place:
        runs = [
            capture(
                model,
                data,
                out=Path(place) / name,
                attention=name == "vit",
                num_images=num_images,
                seed=seed,
                offline=offline,
                progress=progress,
            )
            for name, model in zip(("vit", "resnet"), models, strict=True)
        ]
        for run in runs:
            fit(run, progress=progress)
        images = frame_of(runs[0]).heading.rpartition(", ")[2]
        page = _page([_named(model) for model in models], images, seed)
        files = {
            **_draw(runs[0], runs[1], models[0], progress or silent),
            "README.md": page.encode(),
        }
        return [step.put(folder / name, data) for name, data in files.items()]


def _draw(vit: Run, resnet: Run, model: Model, report: Progress) -> dict[str, bytes]:
    """File name -> its content."""
    files: dict[str, bytes] = {}
    for done, (name, published) in enumerate(FIGURES.items()):
        report("figures", done, len(FIGURES), name)
        drawn = published.draw(vit, resnet, model)
        if drawn is not None:
            files[f"{name}.png"] = picture(drawn)
    report("figures", len(FIGURES), len(FIGURES))
    return files


def _named(model: Model) -> str:
    own = model.weights == "pretrained"
    return shown_name(model) if own else f"{shown_name(model)} with weights {model.weights}"


def _page(models: list[str], images: str, seed: int) -> str:
    """README.md of the folder."""
    rows = [
        f"| `{name}.png` | {one.reproduces} | `probe-norms {one.command}` |"
        for name, one in FIGURES.items()
    ]
    head = [
        "# Figures",
        "",
        f"Made anew by `python -m probe figures`: {models[0]} (`vit`) and {models[1]} (`resnet`), "
        f"{images}, seed {seed}.",
        "The bundled networks are toys, trained on CIFAR-10; the photographs come with "
        "scikit-image.",
        "",
        "| file | reproduces | command, on runs of the two networks |",
        "|---|---|---|",
    ]
    if VIT not in models or RESNET not in models:
        head.pop(3)
    return "\n".join([*head, *rows]) + "\n"
