"""`probe-norms figures`: draw anew every published figure that this project reproduces."""

from __future__ import annotations

from typing import Annotated

from probe.cli import options as opt

Folder = Annotated[
    str,
    opt.text_option(
        "--out", "DIR", "Directory of the figures; those of the same names are replaced."
    ),
]
Vit = Annotated[str, opt.text_option("--vit", "M", "Network with LayerNorm and attention.")]
Resnet = Annotated[str, opt.text_option("--resnet", "M", "Network with BatchNorm.")]
VitWeights = Annotated[
    str, opt.text_option("--vit-weights", "W", "Weights of --vit: pretrained, random, or a FILE.")
]
ResnetWeights = Annotated[
    str,
    opt.text_option("--resnet-weights", "W", "Weights of --resnet: pretrained, random, or a FILE."),
]


def figures(
    out: Folder = "figures",
    vit: Vit = "bundled:vit_cifar10",
    resnet: Resnet = "bundled:resnet_cifar10",
    vit_weights: VitWeights = "pretrained",
    resnet_weights: ResnetWeights = "pretrained",
    data: opt.Data = None,
    num_images: opt.NumImages = opt.DEFAULTS.images,
    seed: opt.Seed = opt.DEFAULTS.seed,
    device: opt.Device = None,
    offline: opt.Offline = False,
    quiet: opt.Quiet = False,
    json: opt.Json = False,
) -> None:
    """Draw the published figures that this project reproduces, of a ViT and a ResNet, into one
    folder.
    """
    from probe.cli.progress import progress_bar
    from probe.cli.terminal import print_json, print_lines

    with progress_bar(quiet, message=vit) as progress:
        from probe.jobs.published import published_figures

        paths = published_figures(
            out,
            vit=vit,
            resnet=resnet,
            vit_weights=vit_weights,
            resnet_weights=resnet_weights,
            data=data,
            num_images=num_images,
            seed=seed,
            device=device,
            offline=offline,
            progress=progress,
        )
    if json:
        print_json({"figures": [str(path) for path in paths]})
    else:
        print_lines([str(path) for path in paths])
