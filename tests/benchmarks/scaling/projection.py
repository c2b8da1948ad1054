"""What many images cost, computed from measurements: which resource binds first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from probe.jobs.capturing.shares import share_size

IMAGENET, BILLION = 1_281_167, 1_000_000_000
BATCH = 64


@dataclass(frozen=True)
class Cluster:
    """Machines that work on a capture."""

    name: str
    gpus: int  # 0: the model runs on the cores
    cores: int
    gigabytes_per_second: float  # that storage gives, all together


CLUSTERS = (
    Cluster("one core", 0, 1, 1.0),
    Cluster("one machine of 64 cores", 0, 64, 2.0),
    Cluster("one GPU, 16 cores", 1, 16, 2.0),
    Cluster("8 machines of 8 GPUs, 128 cores each", 64, 1024, 20.0),
    Cluster("125 machines of 8 GPUs, 128 cores each", 1000, 16_000, 250.0),
)


def projections(measured: dict[str, Any], gpu_rate: float) -> list[dict[str, Any]]:
    """Hours of each data set on each cluster, and the resource that takes them. `gpu_rate`: images
    per second of ViT-B/16 with everything kept, on one GPU: a given, not a measurement.
    """
    return [
        _projected(measured, gpu_rate, images, cluster)
        for images in (IMAGENET, BILLION)
        for cluster in CLUSTERS
    ]


def _projected(
    measured: dict[str, Any], gpu_rate: float, images: int, cluster: Cluster
) -> dict[str, Any]:
    decoding, large = measured["decoding"], measured["large"]
    batches = -(-images // BATCH)
    shares = -(-batches // share_size(batches))
    part = measured["parts"][-1]
    decoded = images / decoding["images_per_second"]  # seconds of one core
    modelled = images * large["seconds_per_image"]
    if cluster.gpus:
        seconds = {"GPU": images / (gpu_rate * cluster.gpus), "cores": decoded / cluster.cores}
    else:
        seconds = {"cores": (decoded + modelled) / cluster.cores}
    seconds["storage"] = (
        images * decoding["kb_per_image"] * 1e3 / (cluster.gigabytes_per_second * 1e9)
    )
    seconds["merging"] = shares * part["merge_seconds"]  # by one process, beside the others
    binding = max(seconds, key=lambda name: seconds[name])
    return {
        "images": images,
        "cluster": cluster.name,
        "hours": seconds[binding] / 3600,
        "binding": binding,
        "shares": shares,
        "parts_gb": shares * part["part_mb"] / 1e3,
        "seconds": seconds,
    }
