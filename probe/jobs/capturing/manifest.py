"""What the manifest of a run says: model, data, plan, layers, versions. Plain values, ready for
JSON.
"""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version
from typing import Any

import torch

from probe.jobs.inputs import Stream, describe
from probe.models.attention import AttentionProbe
from probe.models.loading.load import Model
from probe.records import Layer, Plan, Status, finite_or_none
from probe.stats.layer import LayerStatistics
from probe.store.schema import ATTENTION, LISTED

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "numba", "pyarrow", "pandas", "scipy")


def manifest_of(
    model: Model,
    autocast: str | None,
    stream: Stream,
    plan: Plan,
    layers: str,
    engine: str,
    records: list[dict[str, Any]],
) -> dict[str, Any]:
    """Everything but the counts and times of the run. `layers` is the glob, `engine` the name of
    who ran it, `records` one `layer_record` per layer.
    """
    return {
        "model": describe(model) | {"autocast": autocast},
        "data": _data(stream),
        "plan": _plan(plan, stream) | {"layers": layers, "engine": engine},
        "layers": records,
        "versions": _versions(),
    }


def attention_record(probe: AttentionProbe | None, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The entry `attention`: whether and how far the attention of the model was read, and what
    could not be, with the reason.

    status: off (not asked for), none (no attention was seen), unreadable, partial, captured.
    """
    if probe is None:
        return {"status": "off", "layers": 0, "heads": 0, "unreadable": {}}
    whole, nothing = ("partial", "unreadable") if probe.unreadable else ("captured", "none")
    status = whole if rows else nothing
    layers = len({row["layer"] for row in rows})
    return {
        "status": status,
        "layers": layers,
        "heads": len(rows),
        "unreadable": dict(probe.unreadable),
    }


def attention_manifest(
    model: Model, stream: Stream, seed: int, batch_size: int, engine: str
) -> dict[str, Any]:
    """What `manifest_of` says, of a run whose only job was attention: no normalization layer was
    looked at.
    """
    return {
        "job": ATTENTION,
        "model": describe(model) | {"autocast": None},
        "data": _data(stream),
        "plan": {
            "images": stream.images,
            "seed": seed,
            "batch_size": batch_size,
            "engine": engine,
        },
        "layers": [],
        "versions": _versions(),
    }


def layer_record(
    layer: Layer, statistics: LayerStatistics | None, affine_error: float | None = None
) -> dict[str, Any]:
    """One entry of `layers`: what the layer is, its status and what was seen of it; statistics
    None: never called.
    """
    facts = layer.as_dict()
    record: dict[str, Any] = {"layer": facts.pop("name"), **facts}
    if statistics is None:
        return record | {"status": Status.NOT_CALLED}
    inverse, sigma, cv = statistics.scale.read()
    return record | {
        "status": Status.NOT_FINITE if statistics.not_finite else Status.CAPTURED,
        "positions": statistics.positions,
        "prefix_tokens": statistics.prefix_tokens,
        "not_finite": statistics.not_finite,
        "count": int(statistics.moments.count.sum()),
        "inverse_sigma_mean": finite_or_none(inverse),
        "sigma_mean": finite_or_none(sigma),
        "sigma_cv": finite_or_none(cv),
        "affine_error": finite_or_none(affine_error),
    }


def _data(stream: Stream) -> dict[str, Any]:
    skipped = [{"image": name, "reason": why} for name, why in stream.skipped]
    if len(stream.ids) > LISTED:  # a table of its own has them
        return stream.description | {"images": len(stream.ids), "skipped": skipped}
    return stream.description | {"images": stream.ids, "groups": stream.groups, "skipped": skipped}


def _plan(plan: Plan, stream: Stream) -> dict[str, Any]:
    kept = {name: getattr(plan, name) for name in ("samples", "tail", "seed", "batch_size")}
    return {"images": stream.images, **kept}


def _versions() -> dict[str, Any]:
    here = {
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        "threads": torch.get_num_threads(),
    }
    return {name: version(name) for name in _PACKAGES} | here
