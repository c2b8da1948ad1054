"""The measurements and what follows from them, as Markdown and for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Found = dict[str, Any]


PAGE = """
Measured by one run of `tests/benchmarks/bench_scaling.py` on {cores} cores of {processor},
torch {torch}, CPU.

### Cost per image, layer and channel

{costs}

### Memory and size of the run

Bundled ViT, attention included, one thread:

{sizes}

### Images per second

Bundled ViT, attention included; the slope between two numbers of images, so that the start does not
count, which is told beside it. Workers have one thread each.

{speeds}

### What many images cost

ViT-B/16, JPEG of {kb:.0f} KB, batches of 64. *Computed* from the costs above, as if all cores were
those of this machine; the rate of a GPU is a given ({rate:.0f} images/s, `--gpu-rate`), as are the
clusters and what their storage gives. *Merging* is the work of the one process that takes the parts
up, beside that of the others.

{projections}

"""
COST = ("what", "cost")
SIZE = ("images", "seconds", "peak memory, MB", "run on disk, MB")
SPEED = ("engine", "workers", "threads each", "images/s", "start, s")
PROJECTION = ("images", "on", "hours", "bound by", "GPU, h", "cores, h", "storage, h", "merging, h")


def page(found: Found, projected: list[Found]) -> str:
    """The part of docs/scaling.md between the marks."""
    sizes = [
        (each["images"], *(f"{each[name]:.1f}" for name in ("seconds", "peak_mb", "run_mb")))
        for each in found["sizes"]
    ]
    return PAGE.format(
        **found["machine"],
        costs=_table(COST, _costs(found)),
        sizes=_table(SIZE, sizes),
        speeds=_table(SPEED, _speeds(found)),
        kb=found["decoding"]["kb_per_image"],
        rate=_gpu_rate(projected),
        projections=_table(PROJECTION, [_row(each) for each in projected]),
    )


def _costs(found: Found) -> list[tuple[str, str]]:
    layers, large, decoding = found["layers"], found["large"], found["decoding"]
    parts = [
        (
            f"a part that comes back of a share, {part['model']} ({part['layers']} layers)",
            f"{part['part_mb']:.1f} MB; {part['merge_seconds'] * 1e3:.0f} ms to merge two",
        )
        for part in found["parts"]
    ]
    tokens = layers["tokens"]
    return [
        (
            "ViT-B/16, one core, everything kept",
            f"{large['seconds_per_image'] * 1e3:.0f} ms per image, "
            f"{large['bare_seconds_per_image'] * 1e3:.0f} of them the bare forward pass",
        ),
        (
            f"a LayerNorm of {tokens} tokens, beside the forward pass",
            f"{layers['us_per_layer']:.0f} us per image and layer",
        ),
        (
            f"each of its channels ({tokens} elements)",
            f"{layers['us_per_channel']:.2f} us per image ({layers['ns_per_element']:.1f} ns per "
            "element)",
        ),
        (
            "reading a JPEG of 500 x 375 pixels, ImageNet transform, one core",
            f"{1e3 / decoding['images_per_second']:.1f} ms per image",
        ),
        *parts,
    ]


def _speeds(found: Found) -> list[tuple[Any, ...]]:
    return [
        (
            speed["engine"],
            speed["workers"] or "none",
            speed["threads"],
            *_rate(speed),
        )
        for speed in (*found["threads"], *found["workers"])
    ]


def _row(each: Found) -> tuple[Any, ...]:
    seconds = each["seconds"]
    hours = [
        _hours(seconds[name] / 3600) if name in seconds else ""
        for name in ("GPU", "cores", "storage", "merging")
    ]
    return (f"{each['images']:,}", each["cluster"], _hours(each["hours"]), each["binding"], *hours)


def _rate(speed: Found) -> tuple[str, str]:
    """Images per second and seconds of the start; no slope of a busy machine that falls."""
    if not speed["images_per_second"] > 0:
        return "not told", "not told"
    return f"{speed['images_per_second']:.0f}", f"{speed['start_seconds']:.1f}"


def _hours(hours: float) -> str:
    """Two digits at least, no powers of ten."""
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}" if hours >= 0.001 else "<0.001"


def _gpu_rate(projected: list[Found]) -> float:
    """Images per second of one GPU that was given."""
    alone = next(each for each in projected if each["cluster"].startswith("one GPU"))
    return float(alone["images"] / alone["seconds"]["GPU"])


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
