"""Results as a table of the terminal and as the page of the documentation."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from peers.tools import TOOLS

HEADER = (
    *("tool", "version", "seconds (least to most)", "times the bare pass", "import, s"),
    *("memory above the bare process, MB", "on disk, MB", "inputs right", "outputs right"),
)

PAGE = """# Beside other tools

What it costs to learn mean and variance per channel of the input and output of every norm layer,
and to store the elements of the same 256 rows (image, position) of each as Parquet; and who gets it
right.

Measured by one run of `tests/benchmarks/bench_peers.py` on {machine};
torch {torch}; {images} images of noise in batches of {batch}, random weights, CPU,
{repeats} runs of each in processes of their own, which alternate. Times are without imports and
without building the model; *times the bare pass* and *memory* are against a process that only runs
the model, with the same interpreter.

{tables}

*Right* means that mean and variance of every channel and every stored element agree within 0.001
standard deviations with a reference that uses none of the tools: `forward` of each norm layer
replaced by one that clones what enters and leaves, checked against the layer's formula in float64.
An output is wrong where an in-place ReLU or residual addition overwrites it before it is read.

probe keeps more than is compared here: minimum and maximum, normalized values, and for layers that
are not affine per channel the profile that curves are fitted to. Its numbers include all of that.

## How each was used

| tool | use |
|---|---|
{uses}
{rest}"""


def text_table(result: dict[str, Any]) -> str:
    """Columns as wide as their widest cell, below a line that names the model."""
    lines = [HEADER, *map(cells, measured(result))]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    body = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return "\n".join([f"\n{caption(result)}\n", body, *failures(result)])


def measured(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in result["rows"] if "error" not in row]


def failures(result: dict[str, Any]) -> list[str]:
    return [
        f"{row['tool']} {row['version']} failed: {row['error']}"
        for row in result["rows"]
        if "error" in row
    ]


def caption(result: dict[str, Any]) -> str:
    bare = result["bare"]
    least, most = bare["seconds"], bare["seconds_max"]
    return f"{result['model']}: bare forward pass {least:.2f} to {most:.2f} s"


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["tool"],
        row["version"],
        f"{row['seconds']:.2f} to {row['seconds_max']:.2f}",
        f"{row['times_bare']:.2f}",
        f"{row['import_seconds']:.1f}",
        f"{row['memory_mb']:.0f}",
        f"{row['disk_mb']:.0f}",
        f"{row['input']} of {row['layers']}",
        f"{row['output']} of {row['layers']}",
    )


def markdown_table(result: dict[str, Any]) -> str:
    lines = [HEADER, ("---",) * len(HEADER), *map(cells, measured(result))]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join([f"## {caption(result)}", body, *failures(result)])


def page(conditions: dict[str, Any], results: list[dict[str, Any]]) -> str:
    """docs/peers.md, from the results of one run."""
    there = {row["tool"] for result in results for row in measured(result)}
    uses = "\n".join(
        f"| {f'[{tool.name}]({tool.page})' if tool.page else tool.name} | {tool.use} |"
        for tool in TOOLS
        if tool.name in there
    )
    lacking = ", ".join(conditions["not_installed"])
    return PAGE.format(
        **{key: conditions[key] for key in ("machine", "images", "batch", "repeats")},
        torch=", ".join(sorted({row["torch"] for r in results for row in measured(r)})),
        tables="\n\n".join(map(markdown_table, results)),
        uses=uses,
        rest=f"\nNot measured, as it was not installed: {lacking}.\n" if lacking else "",
    )


def machine() -> str:
    """Processor, cores and memory, and the load before the first run."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    name = names[0] if names else platform.processor() or platform.machine()
    size = f"{os.cpu_count()} cores, {memory:.0f} GB"
    return f"{name}, {size}, load {os.getloadavg()[0]:.1f} at the start"
