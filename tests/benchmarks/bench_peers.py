"""What it costs to learn mean and variance of every norm layer's input and output, and to store
the elements of the same 256 rows of each, with probe and with what people use instead; and which
of them get it right. Run by hand, on a quiet machine. One command measures everything:

    python tests/benchmarks/bench_peers.py --python ../peers/bin/python --markdown docs/peers.md

The tools (extra `bench`) go into an environment of their own, with the torch, torchvision and timm
of this one:

    uv venv ../peers
    uv pip install -p ../peers/bin/python captum nnsight torchextractor torch==2.15.0 \\
        torchvision==0.29.2 timm==1.0.31 pandas pyarrow

`--python` may be given several times: thingsvision needs an old torch, and so an environment of its
own (`thingsvision==2.7.3 timm==1.0.31 'pyarrow<23'`). Each tool runs with the first interpreter,
this one first, that has it; tools that none has are listed. A run is a fresh process, and runs of
different tools alternate. Prints a table and a line of JSON for each model.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from peers.tables import machine, page, text_table
from peers.tools import BARE, TOOLS, Tool

HERE = Path(__file__).resolve().parent
Versions = dict[str, dict[str, str]]  # interpreter -> package -> version


def child(python: str, *arguments: str) -> dict[str, Any]:
    """The JSON that a process of `peers.measure` prints last; `error` where it fails."""
    paths = [str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    # as the command line of probe does: threads that wait leave the core to others
    variables = {"GOMP_SPINCOUNT": "10000", "TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    ended = subprocess.run(
        [python, "-m", "peers.measure", *arguments],
        env=variables | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        return {"error": (ended.stderr.strip().splitlines() or ["no message"])[-1]}
    answer: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    return answer


def interpreter_of(tool: Tool, versions: Versions) -> str | None:
    return next((python for python in versions if tool.package in versions[python]), None)


def measure(options: argparse.Namespace, model: str, versions: Versions) -> dict[str, Any]:
    """Every run of every tool on one model."""
    work = Path(tempfile.mkdtemp(dir=options.scratch))
    made = child(sys.executable, "prepare", model, str(work), str(options.images), "256")
    if "error" in made:
        raise SystemExit(made["error"])
    runs: dict[str, list[dict[str, Any]]] = {}
    jobs = list_of_jobs(options, versions)
    for _, python, adapter, module in jobs:
        if adapter == "probe":  # its first run on a machine compiles kernels and stores them
            one_run(python, model, work, adapter, module, options.batch, checked=False)
    for turn in range(options.repeats):
        for name, python, adapter, module in jobs:
            print(f"{model}: {name}, run {turn + 1} of {options.repeats}", file=sys.stderr)
            run = one_run(python, model, work, adapter, module, options.batch, checked=turn == 0)
            runs.setdefault(name, []).append(run)
    shutil.rmtree(work)
    tools = {tool.name: tool for tool in TOOLS}
    rows = [row(tools[name], runs, versions) for name in runs if name in tools]
    return {"model": model, "bare": bare_of(runs), "rows": rows}


def list_of_jobs(
    options: argparse.Namespace, versions: Versions
) -> list[tuple[str, str, str, str]]:
    """Name, interpreter, adapter, module; the bare forward pass for each interpreter in use."""
    chosen = [tool for tool in TOOLS if not options.only or tool.adapter in options.only]
    jobs = [
        (tool.name, python, tool.adapter, tool.module)
        for tool in chosen
        if (python := interpreter_of(tool, versions)) is not None
    ]
    used = dict.fromkeys(python for _, python, _, _ in jobs)
    return [(f"{BARE} {python}", python, BARE, "torch") for python in used] + jobs


def one_run(
    python: str, model: str, work: Path, adapter: str, module: str, batch: int, checked: bool
) -> dict[str, Any]:
    out = work / "out"
    out.mkdir()
    run = child(python, "run", model, str(work), str(out), adapter, module, str(batch))
    if checked and adapter != BARE and "error" not in run:
        run |= child(sys.executable, "check", str(work), str(out))
    shutil.rmtree(out)
    return run


def bare_of(runs: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    seconds = [run["seconds"] for run in runs[f"{BARE} {sys.executable}"]]
    return {"seconds": min(seconds), "seconds_max": max(seconds)}


def row(tool: Tool, runs: dict[str, list[dict[str, Any]]], versions: Versions) -> dict[str, Any]:
    """One row of the table: the least of the runs, and the most, as the spread."""
    python = interpreter_of(tool, versions) or sys.executable
    mine, bare = runs[tool.name], runs[f"{BARE} {python}"]
    facts = {
        "tool": tool.name,
        "version": versions[python][tool.package],
        "torch": versions[python]["torch"],
    }
    errors = [run["error"] for run in mine + bare if "error" in run]
    if errors:
        return facts | {"error": errors[0]}
    least = {key: min(run[key] for run in mine) for key in mine[-1]}
    return facts | {
        "seconds": least["seconds"],
        "seconds_max": max(run["seconds"] for run in mine),
        "times_bare": least["seconds"] / min(run["seconds"] for run in bare),
        "import_seconds": least["import_seconds"],
        "model_seconds": least["model_seconds"],
        "memory_mb": least["peak_mb"] - min(run["peak_mb"] for run in bare),
        "memory_mb_max": max(run["peak_mb"] for run in mine) - min(run["peak_mb"] for run in bare),
        "disk_mb": least["disk_mb"],
        **{key: mine[0][key] for key in ("layers", "input", "output")},
    }


def main() -> None:
    options = options_of_command_line()
    interpreters = dict.fromkeys([sys.executable, *options.python])
    versions = {python: child(python, "installed") for python in interpreters}
    for python, packages in versions.items():
        if "error" in packages:
            raise SystemExit(f"{python}: {packages['error']}")
    lacking = sorted({t.package for t in TOOLS if interpreter_of(t, versions) is None})
    conditions = {
        "machine": machine(),
        "python": platform.python_version(),
        "versions": versions[sys.executable],
        "images": options.images,
        "batch": options.batch,
        "repeats": options.repeats,
        "not_installed": lacking,
    }
    results = []
    for model in options.models:
        result = measure(options, model, versions)
        results.append(result)
        print(text_table(result))
        print(json.dumps({"benchmark": "peers", **conditions, **result}), flush=True)
    if lacking:
        print(f"not installed: {', '.join(lacking)}")
    if options.markdown:
        options.markdown.write_text(page(conditions, results), encoding="utf-8")


def options_of_command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=["vit_base_patch16_224", "resnet50"])
    parser.add_argument("--python", action="append", default=[], metavar="PATH")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=[tool.adapter for tool in TOOLS])
    parser.add_argument("--markdown", type=Path, help="write the page of the documentation")
    parser.add_argument("--scratch", help="folder for temporary files (about 2 GB)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
