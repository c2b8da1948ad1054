"""One measurement in a process of its own: prints it as a line of JSON."""

from __future__ import annotations

import io
import json
import os
import pickle
import platform
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from probe.data import open_images
from probe.data.images import read_image
from probe.jobs.capturing.capture import capture
from probe.jobs.capturing.worker import Worker
from probe.jobs.inputs import open_model, open_stream
from probe.models.loading.load import load_model
from probe.models.reading.layers import list_norm_layers
from probe.records import Plan

Measurement = dict[str, Any]
LAYERS, TOKENS = (2, 8), 65  # of the stack of LayerNorms
WIDTHS = (128, 512)


def images(folder: str, number: str) -> Measurement:
    """Photographs of the package, cut at random places to 64 pixels, as JPEG."""
    rng, source = np.random.default_rng(0), open_images()
    pictures = [source.load(index) for index in range(min(16, len(source)))]
    Path(folder).mkdir()
    for count in range(int(number)):
        picture = pictures[count % len(pictures)]
        left, top = (int(rng.integers(0, side - 64)) for side in picture.size)
        cut = picture.crop((left, top, left + 64, top + 64))
        cut.save(Path(folder) / f"{count:05d}.jpg", quality=90)
    return {"images": int(number)}


def machine() -> Measurement:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    named = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": named[0] if named else platform.processor(),
        "cores": cores,
        "torch": torch.__version__,
    }


def captured(
    folder: str, out: str, number: str, engine: str, workers: str, threads: str
) -> Measurement:
    torch.set_num_threads(int(threads))
    began = time.perf_counter()
    run = capture(
        "bundled:vit_cifar10",
        folder,
        out=out,
        num_images=int(number),
        engine=engine,
        workers=int(workers),
        attention=True,
        overwrite=True,
        device="cpu",
    )
    seconds = time.perf_counter() - began
    size = sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
    return {
        "images": int(number),
        "seconds": seconds,
        "run_mb": size / 1e6,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "layers": len(run.layers),
    }


def layers(rounds: str) -> Measurement:
    """Microseconds per image of each layer and of each of its channels, beside the forward pass: a
    plane through the costs of stacks of LayerNorms.
    """
    torch.set_num_threads(1)
    rows, costs = [], []
    for width in WIDTHS:
        for depth in LAYERS:
            module = nn.Sequential(*(nn.LayerNorm(width) for _ in range(depth))).eval()
            costs.append(_beside_forward(module, width, int(rounds)) / 1e-6)
            rows.append([depth, depth * width])
    by_layer, by_channel = np.linalg.lstsq(np.array(rows, float), np.array(costs), rcond=None)[0]
    return {
        "tokens": TOKENS,
        "us_per_layer": float(by_layer),
        "us_per_channel": float(by_channel),
        "ns_per_element": float(by_channel) * 1e3 / TOKENS,
    }


def _beside_forward(module: nn.Module, width: int, rounds: int) -> float:
    """Seconds per image that a worker takes beyond the forward pass, the least of the rounds."""
    batches = list(torch.randn(16, 8, TOKENS, width))
    stream = open_stream(
        (model := open_model(module)),
        batches,
        num_images=None,
        batch_size=8,
        workers=0,
        seed=0,
        mask=None,
        transform=None,
    )
    given, best = list(stream.batches), [np.inf, np.inf]
    with Worker(model, Plan(images=128 * (rounds + 1))) as worker:
        for turn in range(rounds + 1):  # the first one compiles, and fills the tail
            began = time.perf_counter()
            for batch in given:
                worker.update(batch)
            taken = time.perf_counter() - began
            best[0] = min(best[0], taken) if turn else best[0]
    with torch.no_grad():
        for _ in range(rounds):
            began = time.perf_counter()
            for batch in batches:
                module(batch)
            best[1] = min(best[1], time.perf_counter() - began)
    return (best[0] - best[1]) / 128


def parts(name: str) -> Measurement:
    """What comes back of a share, and what merging two of them takes."""
    model = load_model(name, weights="random", device="cpu")
    size = model.input_size[-1]
    stream = open_stream(
        model,
        list(torch.randn(2, 8, 3, size, size)),
        num_images=None,
        batch_size=8,
        workers=0,
        seed=0,
        mask=None,
        transform=None,
    )
    sent = []
    for batch in stream.batches:
        with Worker(model, Plan(images=128), attention={}) as worker:
            worker.update(batch)
        sent.append(pickle.dumps(worker))
    began = time.perf_counter()
    first = pickle.loads(sent[0])
    first.merge(pickle.loads(sent[1]))
    whole = pickle.dumps(first)
    return {
        "model": name,
        "part_mb": len(sent[0]) / 1e6,
        "merged_mb": len(whole) / 1e6,
        "merge_seconds": time.perf_counter() - began,
        "layers": len(list_norm_layers(model.module)),
    }


def large(batches: str) -> Measurement:
    """Seconds per image of ViT-B/16 in a capture, one thread."""
    torch.set_num_threads(1)
    model = load_model("vit_base_patch16_224", weights="random", device="cpu")
    data = torch.randn(8, 3, 224, 224)
    with torch.no_grad():
        began = time.perf_counter()
        model.module(data)
        bare = time.perf_counter() - began
    stream = open_stream(
        model,
        [data] * (int(batches) + 1),
        num_images=None,
        batch_size=8,
        workers=0,
        seed=0,
        mask=None,
        transform=None,
    )
    times = []
    with Worker(model, Plan(images=8 * (int(batches) + 1)), attention={}) as worker:
        for batch in stream.batches:
            began = time.perf_counter()
            worker.update(batch)
            times.append(time.perf_counter() - began)
    return {"bare_seconds_per_image": bare / 8, "seconds_per_image": min(times[1:]) / 8}


def decoding(number: str) -> Measurement:
    """Images per second of one core: JPEG of 500 x 375 pixels, with the transform of ViT-B/16."""
    torch.set_num_threads(1)
    transform = load_model("vit_base_patch16_224", weights="random", device="cpu").transform
    assert transform is not None
    file = io.BytesIO()
    open_images().load(0).resize((500, 375)).save(file, "JPEG", quality=90)
    began = time.perf_counter()
    for _ in range(int(number)):
        file.seek(0)
        transform(read_image(file))
    seconds = time.perf_counter() - began
    return {"images_per_second": int(number) / seconds, "kb_per_image": file.tell() / 1e3}


WHAT = {
    "images": images,
    "machine": machine,
    "capture": captured,
    "layers": layers,
    "parts": parts,
    "large": large,
    "decoding": decoding,
}


def main() -> None:
    what, *arguments = sys.argv[1:]
    answer = WHAT[what](*arguments)
    if what == "capture":
        shutil.rmtree(arguments[1])
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
