"""A table that leaves its run still says that its numbers come from random weights: the warning
stands in the file.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open
from timm.models.vision_transformer import VisionTransformer

import probe
from probe.models.loading.load import Model
from probe.store.run import Run

FILES = ("moments", "profile", "rows", "attention", "fits", "channel_fits")


def model(weights: str) -> Model:
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    module = VisionTransformer(**sizes, num_classes=2).eval()
    return Model(module, "tiny", "timm", weights, None, (3, 32, 32), 1, "sha256:0")


def fitted_run(out: Path, weights: str) -> Run:
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    run = probe.capture(model(weights), [images], out=out, attention=True)
    probe.fit(run)
    return run


def warnings_in(run: Run) -> dict[str, str | None]:
    """File -> the warning in its schema."""
    files = [f"{name}.parquet" for name in FILES]
    files += [f"samples/{path.name}" for path in (run.path / "samples").iterdir()]
    stored = {name: pq.read_schema(run.path / name).metadata or {} for name in files}
    return {
        name: texts[b"warning"].decode() if b"warning" in texts else None
        for name, texts in stored.items()
    }


def test_every_table_of_random_weights_says_so_in_its_file(tmp_path: Path) -> None:
    run = fitted_run(tmp_path / "run", "random")
    warnings = warnings_in(run)
    assert len(warnings) == len(FILES) + len(run.layers)
    assert all(str(text).startswith("RANDOM WEIGHTS") for text in warnings.values()), warnings
    path = probe.export_alphas(run, tmp_path / "alpha.safetensors")
    with safe_open(path, "np") as file:
        assert file.metadata()["warning"].startswith("RANDOM WEIGHTS")
    assert list(run.samples()["layer"].unique()) == list(run.layers["layer"])


def test_tables_of_trained_weights_carry_no_warning(tmp_path: Path) -> None:
    run = fitted_run(tmp_path / "run", "pretrained")
    assert set(warnings_in(run).values()) == {None}
    path = probe.export_alphas(run, tmp_path / "alpha.safetensors")
    with safe_open(path, "np") as file:
        assert "warning" not in file.metadata()


def test_the_same_capture_writes_the_same_bytes_with_a_warning(tmp_path: Path) -> None:
    runs = [fitted_run(tmp_path / name, "random") for name in "ab"]
    for name in ("attention.parquet", "moments.parquet", "fits.parquet"):
        first, second = ((run.path / name).read_bytes() for run in runs)
        assert first == second


@pytest.mark.parametrize("weights", ["random", "pretrained"])
def test_a_run_of_attention_alone_says_it_too(tmp_path: Path, weights: str) -> None:
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    probe.attention_distance(model(weights), [images], out=tmp_path / "run")
    metadata = pq.read_schema(tmp_path / "run" / "attention.parquet").metadata or {}
    assert (b"warning" in metadata) is (weights == "random")
