"""The whole job: from a model and images to a sound run with alphas and figures, whatever the
images are.
"""

from __future__ import annotations

import random
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from probe.data import open_images
from probe.errors import ProbeError, UsageError
from probe.jobs.analyze import analyze
from probe.jobs.drawing.draw import ATTENTION_KINDS, KINDS
from probe.jobs.drawing.tables import FigureTables
from probe.store import verify_run
from support.captures import Tokens, token_batches

MODEL = "bundled:vit_cifar10"
FEW = {"samples": 64, "tail": 100, "figures": False, "report": False}


@pytest.fixture(scope="module")
def stages():
    """Every report of progress of `job`."""
    return []


@pytest.fixture(scope="module")
def job(tmp_path_factory, stages):
    """The bundled ViT on eight bundled photographs, figures included."""
    out = tmp_path_factory.mktemp("analyze") / "run"
    return analyze(
        MODEL,
        out=out,
        num_images=8,
        samples=64,
        tail=100,
        progress=lambda *report: stages.append(report),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six small photographs as files."""
    place = tmp_path_factory.mktemp("photos")
    source = open_images(None, 6)
    for index in range(len(source)):
        source.load(index).resize((40, 40)).save(place / f"{index}.png")
    return place


def test_every_table_alpha_file_and_figure_is_written(job):
    tables = {
        "moments.parquet",
        "profile.parquet",
        "rows.parquet",
        "fits.parquet",
        "channel_fits.parquet",
        "attention.parquet",
    }
    alphas = {"alpha.csv", "alpha.json", "alpha.safetensors"}
    assert {path.name for path in job.path.iterdir()} == tables | alphas | {
        "manifest.json",
        "samples",
        "figures",
        "report.html",
    }
    assert len(list((job.path / "samples").iterdir())) == len(job.layers) == 17
    assert {path.name for path in (job.path / "figures").iterdir()} == {
        f"{kind}.png" for kind in KINDS if kind != "lines"
    }
    assert "curved" in set(job.alphas()["status"])


def test_the_run_is_sound(job):
    assert verify_run(job) == []


def test_every_stage_is_reported_to_its_end(job, stages):
    ends = {stage: (done, total) for stage, done, total, *_ in stages if stage != "compile"}
    assert list(dict.fromkeys(ends)) == [
        "capture",
        "store",
        "fit",
        "figures",
        "report",
    ]
    drawn = {"figures": (len(KINDS), len(KINDS)), "report": (17, 17)}
    assert ends == {"capture": (8, 8), "store": (17, 17), "fit": (17, 17), **drawn}


def test_the_same_seed_gives_the_same_bytes_figures_included(job, tmp_path):
    again = analyze(MODEL, out=tmp_path / "run", num_images=8, samples=64, tail=100)
    files = sorted(path.relative_to(job.path) for path in job.path.rglob("*") if path.is_file())
    assert files == sorted(
        path.relative_to(again.path) for path in again.path.rglob("*") if path.is_file()
    )
    differ = [
        name.as_posix()
        for name in files
        if (job.path / name).read_bytes() != (again.path / name).read_bytes()
    ]
    assert differ == ["manifest.json"]
    assert {key for key in job.manifest if job.manifest[key] != again.manifest[key]} == {"times"}


def test_loader_workers_and_the_order_of_the_files_change_no_value(folder, tmp_path):
    paths = sorted(folder.iterdir())
    random.Random(1).shuffle(paths)
    assert paths != sorted(paths)
    a = analyze(MODEL, folder, out=tmp_path / "a", batch_size=2, **FEW)
    b = analyze(MODEL, paths, out=tmp_path / "b", batch_size=2, workers=2, **FEW)
    assert [Path(name).name for name in b.manifest["data"]["images"]] == a.manifest["data"][
        "images"
    ]
    for table in ("samples", "moments", "profile", "rows", "fits", "alphas", "attention"):
        pd.testing.assert_frame_equal(
            getattr(a, table)(), getattr(b, table)(), check_exact=True, obj=table
        )


def test_broken_images_are_skipped_counted_and_named(folder, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in folder.iterdir():
        (photos / path.name).write_bytes(path.read_bytes())
    whole = (folder / "2.png").read_bytes()
    (photos / "2.png").write_bytes(whole[: len(whole) // 2])
    (photos / "4.png").write_text("no image")
    run = analyze(MODEL, photos, out=tmp_path / "run", **FEW)
    assert [item["image"] for item in run.manifest["data"]["skipped"]] == ["2.png", "4.png"]
    assert all(item["reason"] for item in run.manifest["data"]["skipped"])
    assert run.manifest["images_seen"] == 4
    rows = run.samples("norm", channels=[0], stratum="uniform")
    assert set(rows["image"]) <= {
        0,
        1,
        3,
        5,
    }  # the index in the list of files, not in what could be read
    assert 30 < len(rows) < 64  # the rows of the broken ones are lost
    assert verify_run(run) == []


def test_a_format_that_no_figure_has_is_refused_before_the_capture(tmp_path):
    with pytest.raises(UsageError, match="format 'gif' is unknown.*known: png, svg, pdf"):
        analyze(MODEL, out=tmp_path / "run", formats=["png", "gif"])
    assert not (tmp_path / "run").exists()


def test_only_broken_images_are_an_error_and_leave_no_run(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.png", "b.jpg"):
        (photos / name).write_text("no image")
    with pytest.raises(
        ProbeError, match=r"none of the 2 images could be used \(a\.png: .*; b\.jpg: "
    ) as error:
        analyze(MODEL, photos, out=tmp_path / "run", **FEW)
    assert error.value.exit_code == 1
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_plain_module_goes_all_the_way_to_its_figures(tmp_path):
    run = analyze(Tokens(), token_batches(), out=tmp_path / "run")
    assert verify_run(run) == []
    assert run.alphas()["status"].tolist()[-1] == "not_called"
    drawn = {path.stem for path in (run.path / "figures").iterdir()}
    assert drawn == set(KINDS) - set(ATTENTION_KINDS) - {
        "tokens",
        "lines",
    }  # it has no attention, and its prefix tokens are not known
    assert (run.path / "alpha.safetensors").stat().st_size > 0


class Heads(nn.Module):
    """LayerNorm over the channels of two heads, as the q/k norms of attention: (B, heads, T, 8)."""

    def __init__(self):
        super().__init__()
        self.q_norm = nn.LayerNorm(8)

    def forward(self, x):
        return self.q_norm(torch.stack([x, 2 * x], dim=1))


def test_prefix_tokens_of_q_and_k_norms_are_found_in_every_head(tmp_path):
    """A position of a q/k norm is (head, token); here two heads of ten tokens, the first
    one of each a class token.
    """
    run = analyze(
        Heads(),
        token_batches(),
        out=tmp_path / "run",
        prefix_tokens=1,
        samples=400,
        figures=False,
        report=False,
    )
    samples = FigureTables(run).with_tokens()["q_norm"]
    assert set(samples.loc[samples["tokens"] == "prefix", "position"]) == {0, 10}
    assert set(samples.loc[samples["tokens"] == "patch", "position"]) == set(range(20)) - {0, 10}
    counts = run.profile("q_norm").groupby("tokens")["count"].sum()
    assert counts.to_dict() == {"patch": 40 * 18 * 8, "prefix": 40 * 2 * 8}
