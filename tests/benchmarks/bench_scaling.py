"""What a capture costs per image, layer and channel; what it takes of memory and disk as images
grow in number; how fast it is with several workers; and what many more images would cost, computed
from that. Run by hand, on a quiet machine (6 minutes on two cores). One command does it all:

    python tests/benchmarks/bench_scaling.py --markdown docs/scaling.md

`--json FILE` keeps the measurements, `--from FILE` computes and writes from such a file without
measuring; `--quick` measures little of everything, to see that it runs. Each capture is a process
of its own. Images are photographs of the package, cut and written as JPEG; the model is the bundled
ViT, and ViT-B/16 with random weights for what real networks cost, which weights do not change.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from marked import write_measured
from scaling.page import page
from scaling.projection import projections

HERE = Path(__file__).resolve().parent
MODELS = ("bundled:vit_cifar10", "vit_base_patch16_224")
WORKERS = (("processes", 1), ("processes", 2), ("ray", 1), ("ray", 2), ("ray", 4))


def child(what: str, *arguments: Any) -> dict[str, Any]:
    """The JSON that a process of `scaling.measure` prints last."""
    paths = [str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    threads = {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "10000", "PROBE_PROCESSES": "1"}
    print(what, *arguments, file=sys.stderr, flush=True)
    ended = subprocess.run(
        [sys.executable, "-m", "scaling.measure", what, *map(str, arguments)],
        env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise SystemExit(f"{what} {arguments} failed:\n{ended.stderr}")
    answer: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    return answer


def measured(quick: bool) -> dict[str, Any]:
    sizes = (32, 64) if quick else (64, 256, 1024, 4096)
    few, many = (32, 64) if quick else (256, 1536)
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        child("images", images, sizes[-1])
        out = Path(folder) / "run"
        return {
            "machine": child("machine"),
            "sizes": [child("capture", images, out, n, "local", 0, 1) for n in sizes],
            "threads": [rate(images, out, few, many, "local", 0, threads) for threads in (1, 2)],
            "workers": [
                rate(images, out, few, many, engine, workers, 1) for engine, workers in WORKERS
            ],
            "layers": child("layers", 2 if quick else 6),
            "parts": [child("parts", name) for name in MODELS],
            "large": child("large", 1 if quick else 3),
            "decoding": child("decoding", 16 if quick else 200),
        }


def rate(
    images: Path, out: Path, few: int, many: int, engine: str, workers: int, threads: int
) -> dict[str, Any]:
    """Images per second of what comes after the start: the slope between two numbers of images."""
    first, second = (
        child("capture", images, out, number, engine, workers, threads) for number in (few, many)
    )
    seconds = second["seconds"] - first["seconds"]
    return {
        "engine": engine,
        "workers": workers,
        "threads": threads,
        "images_per_second": (many - few) / seconds,
        "start_seconds": max(0.0, first["seconds"] - few * seconds / (many - few)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--markdown", type=Path, help="page whose numbers are written anew")
    parser.add_argument("--json", type=Path, help="file for the measurements")
    parser.add_argument("--from", type=Path, dest="before", help="such a file: measure nothing")
    parser.add_argument("--quick", action="store_true", help="little of everything")
    parser.add_argument(
        "--gpu-rate",
        type=float,
        default=1000.0,
        help="images/s of ViT-B/16 on one GPU with the capture, for the projection",
    )
    options = parser.parse_args()
    if options.before is not None:
        found = json.loads(options.before.read_text(encoding="utf-8"))
    else:
        found = measured(options.quick)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    projected = projections(found, options.gpu_rate)
    print(page(found, projected))
    if options.markdown is not None:
        write_measured(options.markdown, page(found, projected))


if __name__ == "__main__":
    main()
