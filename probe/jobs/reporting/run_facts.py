"""What the report says of the run itself: the model, the data, the versions, its files; the
manifest without what is long.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from probe.formatting import json_text
from probe.store.run import Run
from probe.wording.evidence import seen, seen_images

KEPT = 20  # entries of a long list or mapping
LEFT_OUT = {
    "times": "in manifest.json",  # the one thing that differs between two runs of one seed
    "layers": "in the table of layers",
    "files": "in manifest.json",
}

FILES = {
    "manifest.json": "model, data, plan, versions and checksums; `json.load`",
    "samples/": "stored elements, one Parquet file per layer: `run.samples(layer)`, or the folder "
    "with pandas, Polars or DuckDB",
    "moments.parquet": "exact mean, variance and range per channel: `run.moments()`",
    "profile.parquet": "histogram of every element, what the curves are fitted to: "
    "`run.profile(layer)`",
    "rows.parquet": "mean and sigma of sampled tokens: `run.rows()`",
    "fits.parquet": "every family of curves of every layer: `run.fits()`",
    "channel_fits.parquet": "curves per channel: `run.channel_fits()`",
    "alpha.csv": "the table of layers of this page, all columns: `run.alphas()` or any spreadsheet",
    "alpha.json": "the same as JSON",
    "alpha.safetensors": "ready-made weights of a DyT for each layer",
    "attention.parquet": "distance, mass and entropy of every head: `run.attention()`",
    "figures/": "the figures as PNG and SVG",
}


def facts_of(run: Run) -> tuple[tuple[str, str], ...]:
    """Model, data, plan and versions in short lines."""
    return tuple((name, value) for name, value in _facts(run.manifest) if value)


def _facts(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    model, data, plan = (manifest.get(name) or {} for name in ("model", "data", "plan"))
    yield "Model", _joined(model.get("name"), _millions(model.get("parameters")))
    yield "Weights", _joined(model.get("weights"), model.get("source"), model.get("fingerprint"))
    size = model.get("input_size")
    yield (
        "Input",
        _joined(
            " x ".join(map(str, size)) if size else None, model.get("dtype"), model.get("device")
        ),
    )
    counted = seen(manifest) if seen_images(manifest)[0] else None
    yield "Images", _joined(counted, data.get("kind"), data.get("location"))
    yield (
        "Plan",
        ", ".join(
            f"{name.replace('_', ' ')} {value}" for name, value in plan.items() if value is not None
        ),
    )
    yield (
        "Versions",
        ", ".join(f"{name} {value}" for name, value in (manifest.get("versions") or {}).items()),
    )


def _joined(*parts: Any) -> str:
    return ", ".join(str(part) for part in parts if part)


def _millions(count: Any) -> str:
    return f"{count:,} parameters" if isinstance(count, int) else ""


def files_of(run: Run) -> tuple[tuple[str, str], ...]:
    """Files that are there, and how to read them; first of all, how to open the run."""
    there = {name: how for name, how in FILES.items() if run.has_file(name.rstrip("/"))}
    return (("in Python", f'run = probe.open_run("{run.path.name}")'), *there.items())


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """As JSON, long lists cut, without what stands elsewhere."""
    kept = {name: LEFT_OUT.get(name) or _cut(value) for name, value in manifest.items()}
    return json_text(kept)


def _cut(value: Any) -> Any:
    if isinstance(value, Mapping):
        cut = {name: _cut(item) for name, item in list(value.items())[:KEPT]}
        return cut | ({"...": f"{len(value) - KEPT} more"} if len(value) > KEPT else {})
    if isinstance(value, list):
        return [_cut(item) for item in value[:KEPT]] + (
            [f"... {len(value) - KEPT} more"] if len(value) > KEPT else []
        )
    return value
