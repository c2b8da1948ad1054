"""One process of `bench_peers.py`; prints one line of JSON, its last.

python -m peers.measure installed
python -m peers.measure prepare MODEL WORK IMAGES SAMPLES
python -m peers.measure run MODEL WORK OUT ADAPTER MODULE BATCH
python -m peers.measure check WORK OUT
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from peers.tools import BARE, TOOLS


def installed() -> dict[str, Any]:
    """Package -> version, of those that this interpreter has."""
    names = sorted({"torch", "pandas", "pyarrow", "numpy", *(tool.package for tool in TOOLS)})
    there = [name for name in names if importlib.util.find_spec(name) is not None]
    return {name: version(name) for name in there}


def version(package: str) -> str:
    distribution = "probe-norms" if package == "probe" else package
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return str(importlib.import_module(package).__version__)


def prepare(model: str, work: str, images: str, samples: str) -> dict[str, Any]:
    from peers import reference

    reference.prepare(model, int(images), int(samples), Path(work))
    return {}


def run(
    model: str, work: str, out: str, adapter: str, imported_as: str, batch: str
) -> dict[str, Any]:
    """Seconds of imports, of building the model, and of the job; peak memory of the process."""
    began = time.perf_counter()
    import numpy as np
    import torch

    from peers import adapters, reference

    torch_there = time.perf_counter()
    importlib.import_module(imported_as)
    imported = time.perf_counter()
    module = reference.load_model(model, Path(work))
    batches = list(torch.load(Path(work) / reference.IMAGES).split(int(batch)))
    rows = {int(grid): chosen for grid, chosen in np.load(Path(work) / reference.ROWS).items()}
    job = adapters.Job(module, reference.norm_layers(module), batches, rows, Path(out))
    with torch.no_grad():
        module(batches[0])  # what torch sets up at its first batch is no tool's cost
    built = time.perf_counter()
    getattr(adapters, adapter)(job)
    ended = time.perf_counter()
    return {
        "seconds": ended - built,
        "import_seconds": 0.0 if adapter == BARE else imported - torch_there,
        "torch_import_seconds": torch_there - began,
        "model_seconds": built - imported,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "disk_mb": sum(p.stat().st_size for p in Path(out).rglob("*") if p.is_file()) / 1e6,
    }


def check(work: str, out: str) -> dict[str, Any]:
    from peers.check import right_layers

    return right_layers(Path(work), Path(out))


if __name__ == "__main__":
    job = {"installed": installed, "prepare": prepare, "run": run, "check": check}[sys.argv[1]]
    print(json.dumps(job(*sys.argv[2:])))
