"""The option types that several commands share, so that an option reads the same in every command's
help.

Values are checked by parsers of our own: the messages are then one line with what was given and
what is accepted, whatever the installed typer or click would say.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import PurePath
from typing import Annotated, Any

import typer

from probe import __version__
from probe.errors import UsageError
from probe.records import FIGURE_FORMATS, Plan

DEFAULTS = Plan(images=128)
MODEL = "bundled:vit_cifar10"


class Refused(typer.BadParameter):
    """A value that an option does not take; `message` is the whole line."""


def whole(option: str, minimum: int, word: str | None = None) -> Callable[[Any], int | None]:
    """A parser for whole numbers from `minimum` up; `word` is an extra accepted text that stands
    for None.
    """
    accepted = f"a whole number of at least {minimum}{f', or {word!r}' if word else ''}"

    def parse(value: Any) -> int | None:
        if value is None or (word and value == word):
            return None
        try:
            number = int(value)
        except ValueError:
            raise Refused(f"{option} {value}: must be {accepted}") from None
        if number < minimum:
            raise Refused(
                f"{option} {value}: must be at least {minimum}{f', or {word!r}' if word else ''}"
            )
        return number

    return parse


def positive(option: str) -> Callable[[Any], float]:
    """A parser for numbers above 0."""

    def parse(value: Any) -> float:
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if not number > 0:
            raise Refused(f"{option} {value}: must be a number above 0")
        return number

    return parse


def listed(option: str, known: tuple[str, ...] = ()) -> Callable[[Any], Any]:
    """A parser for names with commas between, as a tuple; only names of `known`, where it is
    given.
    """

    def parse(value: Any) -> Any:
        if value is None or isinstance(value, tuple):
            return value
        names = tuple(dict.fromkeys(name.strip() for name in str(value).split(",") if name.strip()))
        wrong = [name for name in names if known and name not in known]
        if wrong or not names:
            accepted = f"one or more of {', '.join(known)}" if known else "one or more names"
            raise Refused(f"{option} {value}: must be {accepted}, with commas between")
        return names

    return parse


def one_of(option: str, known: tuple[str, ...]) -> Callable[[Any], Any]:
    """A parser for exactly one name of `known`."""

    def parse(value: Any) -> Any:
        if value is not None and value not in known:
            raise Refused(f"{option} {value}: must be one of {', '.join(known)}")
        return value

    return parse


def text(option: str) -> Callable[[Any], Any]:
    """A parser for any text but an option, which would be a forgotten value: `--out --json`."""

    def parse(value: Any) -> Any:
        if isinstance(value, str) and (value.startswith("--") or not value.strip()):
            raise Refused(
                f"{option} {value}: needs a value{' before ' + value if value.strip() else ''}"
            )
        return value

    return parse


def sides(option: str, between: str, minimum: int, example: str) -> Callable[[Any], Any]:
    """A parser for two whole numbers with `between` between them, as a tuple."""

    def parse(value: Any) -> Any:
        if value is None or isinstance(value, tuple):
            return value
        try:
            found = tuple(int(part) for part in str(value).split(between))
        except ValueError:
            found = ()
        if len(found) != 2 or min(found) < minimum:
            raise Refused(
                f"{option} {value}: must be two whole numbers of at least {minimum}, e.g. {example}"
            )
        return found

    return parse


def text_option(name: str, metavar: str, help: str, **more: Any) -> Any:
    return typer.Option(name, parser=text(name), metavar=metavar, help=help, **more)


def number_option(
    name: str, minimum: int, text: str, word: str | None = None, metavar: str = "N"
) -> Any:
    return typer.Option(name, parser=whole(name, minimum, word), metavar=metavar, help=text)


Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN", show_default=False, help="Directory or address of a finished run."
    ),
]
Model = Annotated[
    str,
    text_option(
        "--model",
        "M",
        "timm name, or torchvision:NAME, bundled:NAME, hf:NAME, hf-hub:OWNER/NAME, or "
        "FILE.py:FUNCTION.",
    ),
]
Weights = Annotated[
    str,
    text_option("--weights", "W", "pretrained, random, or a checkpoint FILE (safetensors, pth)."),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="D",
        help="Folder of images or Parquet files (FOLDER?split=test), a .txt list of files, or a "
        "timm dataset (hfds/..., hfids/..., torch/...).  [default: bundled photographs]",
    ),
]
Out = Annotated[
    str | None,
    text_option(
        "--out",
        "DIR",
        "Directory of the new run, or an address in storage (s3://..., gs://..., what fsspec "
        "opens).  [default: runs/MODEL]",
    ),
]
Layers = Annotated[
    str,
    text_option(
        "--layers",
        "GLOBS",
        "Layers by name, with commas between; ! leaves out: 'blocks.*,!*.norm2' or '!head*'.",
    ),
]
NormTypes = Annotated[
    list[str] | None,
    text_option(
        "--norm-type",
        "CLASS=KIND",
        "A norm class of your own and the kind it computes, e.g. mypkg.layers:MyNorm=rms_norm, or "
        "a function (module, x) -> normalized as mypkg.layers:normalized; may be repeated.",
    ),
]
Samples = Annotated[
    int, number_option("--samples", 1, "Sampled rows kept per layer, with all channels.")
]
Tail = Annotated[int, number_option("--tail", 2, "Extreme elements kept per layer.")]
NumImages = Annotated[
    int | None,
    number_option("--num-images", 1, "Images to use, chosen by the seed; 'all' for all.", "all"),
]
BatchSize = Annotated[int, number_option("--batch-size", 1, "Images per forward pass.")]
Workers = Annotated[int, number_option("--workers", 0, "Extra processes that read images.")]
ModelWorkers = Annotated[
    int,
    number_option(
        "--workers",
        0,
        "Extra processes that read images; with --engine processes or ray those that run the "
        "model (0: one per GPU, or per core).",
    ),
]
ENGINES = ("local", "processes", "ray")  # the names of probe.engines, which imports torch
Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="ENGINE",
        parser=one_of("--engine", ENGINES),
        help="Who runs the model: local (this process), processes (several of this machine) or "
        "ray (a cluster).",
    ),
]
Address = Annotated[
    str | None,
    text_option(
        "--address",
        "HOST:PORT",
        "The Ray cluster, or auto for that of this machine.  [default: one is started here]",
    ),
]
Seed = Annotated[int, number_option("--seed", 0, "Decides images, rows and random weights.")]
Device = Annotated[
    str | None,
    text_option("--device", "DEVICE", "cpu, cuda, cuda:1.  [default: cuda, where there is one]"),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="TYPE",
        parser=one_of("--dtype", ("float32", "bfloat16", "float16")),
        help="float32, bfloat16 or float16.  [default: that of the weights]",
    ),
]
Autocast = Annotated[
    str | None,
    typer.Option(
        "--autocast",
        metavar="TYPE",
        parser=one_of("--autocast", ("bfloat16", "float16")),
        help="Run under torch.autocast: bfloat16 or float16.  [default: not]",
    ),
]
PrefixTokens = Annotated[
    int | None,
    number_option(
        "--prefix-tokens",
        0,
        "Class and register tokens before the patches.  [default: found in the model]",
    ),
]
PatchSize = Annotated[
    int | None,
    number_option("--patch-size", 1, "Pixels of a patch.  [default: found in the model]"),
]
Grid = Annotated[
    str | None,
    typer.Option(
        "--grid",
        metavar="RxC",
        parser=sides("--grid", "x", 1, "14x14"),
        help="Rows and columns of patches, e.g. 14x14.  [default: found in the model]",
    ),
]
NoAttention = Annotated[
    bool, typer.Option("--no-attention", help="Leave out how far the attention heads look.")
]
LoaderTimeout = Annotated[
    int | None,
    number_option(
        "--loader-timeout",
        1,
        "Seconds that the --workers may take for a batch.  [default: any time]",
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on with an interrupted job; what is finished is not made again."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run that is in DIR.")]
Offline = Annotated[
    bool, typer.Option("--offline", help="Use no network: files on this machine only.")
]
NoFigures = Annotated[bool, typer.Option("--no-figures", help="Draw no figures.")]
Formats = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="NAMES",
        parser=listed("--format", FIGURE_FORMATS),
        help="Files of the figures: png, svg, pdf, with commas between.",
    ),
]
NoReport = Annotated[bool, typer.Option("--no-report", help="Write no report.html.")]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="No progress and no messages; results and errors only."),
]
MeasureSpeed = Annotated[
    bool,
    typer.Option(
        "--measure-speed",
        help="Time the forward pass before and after: one image and 32, eager and torch.compile.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Results as one JSON document on stdout.")]


def print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"probe-norms {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=print_version, is_eager=True, help="Print the version and leave."
    ),
]


def refuse_torchrun() -> None:
    """Raises UsageError in one of several processes that torchrun started: each of them would do
    the whole job.
    """
    number = os.environ.get("WORLD_SIZE", "1")
    if number != "1":
        raise UsageError(
            f"started as process {os.environ.get('RANK', '?')} of {number} (torchrun): every one "
            "would do the whole job; leave torchrun out and give --engine processes --workers "
            f"{number} (one machine) or --engine ray (several)"
        )


def default_out(model: str, weights: str) -> str:
    """Where a run goes when --out does not say it: `runs/<model>`, without `timm:` and `bundled:`,
    with `-random` or the name of the checkpoint for other weights.
    """
    name = re.sub(r"^(timm|bundled):", "", model)
    kind = "" if weights == "pretrained" else f"-{PurePath(weights).stem}"
    return f"runs/{re.sub(r'[^A-Za-z0-9._-]+', '_', name + kind).lstrip('.') or 'model'}"
