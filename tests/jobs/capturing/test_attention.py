"""Attention distance as a job of its own and in the same pass as a capture: the same numbers, by
any batches, and named gaps.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import probe
from probe.data import open_images
from probe.errors import ProbeError, UsageError
from probe.jobs.capturing.attention import AttentionWorker, attention_distance
from probe.jobs.capturing.capture import capture
from probe.jobs.drawing.compare import compare
from probe.jobs.fitting.fit import fit
from probe.jobs.inputs import open_model, open_stream
from probe.jobs.replacing.export import export_alphas
from probe.models.loading.load import load_model
from probe.store import open_run, verify_run
from probe.store.schema import TABLES
from support.captures import Tokens, TwoHeads, token_batches

MODEL = "bundled:vit_cifar10"
FEW = {"samples": 16, "tail": 8}
COLUMNS = TABLES["attention"].names


class LinearAttention(nn.Module):
    """What has no map from tokens to tokens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.v = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.softmax(-1) @ (x.transpose(1, 2) @ self.v(x))


class Block(nn.Module):
    """A norm, and behind it the attention modules that it is given."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x)
        for name, part in self.named_children():
            x = x + part(x) if name != "norm" else x
        return x


def tokens(count: int = 12, images: int = 6, size: int = 3) -> list[torch.Tensor]:
    return list(
        torch.randn(images, count, 8, generator=torch.Generator().manual_seed(0)).split(size)
    )


GRID = {"grid": (3, 4), "patch_size": 4}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """The bundled ViT on eight bundled photographs."""
    return attention_distance(MODEL, num_images=8)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The bundled ViT captured with and without attention."""
    place = tmp_path_factory.mktemp("pair")
    return [
        capture(MODEL, out=place / str(on), num_images=8, attention=on, **FEW)
        for on in (True, False)
    ]


def test_one_row_per_layer_and_head_in_execution_order(table):
    assert list(table.columns) == COLUMNS
    assert table["layer"].tolist() == [
        f"blocks.{block}.attn" for block in range(8) for _ in range(4)
    ]
    assert table["head"].tolist() == [0, 1, 2, 3] * 8
    assert table["depth"].tolist() == [depth for depth in range(8) for _ in range(4)]
    same = {"images": 8, "prefix_tokens": 1, "windows": 1, "grid": "8x8", "token_stride": 4.0}
    assert all((table[name] == value).all() for name, value in same.items())
    np.testing.assert_allclose(table["uniform_px"], 16.55, atol=0.005)
    assert table["distance_px"].between(8, 25).all()
    np.testing.assert_allclose(table["distance_px"], 4 * table["distance_patches"])
    assert table.attrs["status"] == "captured"
    assert table.attrs["unreadable"] == {}


def test_it_is_a_public_function():
    assert probe.attention_distance is attention_distance


def test_a_capture_reads_the_same_numbers_in_its_own_pass(table, pair):
    pd.testing.assert_frame_equal(pair[0].attention(), table, check_exact=True)
    record = pair[0].manifest["attention"]
    assert {name: record[name] for name in ("status", "layers", "heads", "unreadable")} == {
        "status": "captured",
        "layers": 8,
        "heads": 32,
        "unreadable": {},
    }
    assert verify_run(pair[0]) == []


def test_reading_attention_changes_no_byte_of_the_norm_layers(pair):
    with_attention, without = pair
    names = sorted(without.manifest["files"])
    assert sorted(with_attention.manifest["files"]) == sorted([*names, "attention.parquet"])
    assert all(
        with_attention.manifest["files"][name] == without.manifest["files"][name] for name in names
    )
    assert without.manifest["attention"]["status"] == "off"


def test_a_capture_without_attention_sets_no_hook_for_it(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("attention was not asked for")

    monkeypatch.setattr("probe.jobs.capturing.worker.AttentionProbe", refuse)
    run = capture(Tokens(), token_batches(), out=tmp_path / "run")
    with pytest.raises(
        UsageError,
        match="it was captured without; `probe-norms attention --model M --out DIR` measures it",
    ):
        run.attention()


def test_out_makes_a_finished_run_of_the_table_alone_with_the_same_bytes_each_time(tmp_path):
    a, b = (attention_distance(MODEL, num_images=4, out=tmp_path / name) for name in "ab")
    run = open_run(tmp_path / "a")
    assert sorted(path.name for path in run.path.iterdir() if path.is_file()) == [
        "attention.parquet",
        "manifest.json",
    ]
    pd.testing.assert_frame_equal(run.attention(), a, check_exact=True)
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    assert (run.path / "attention.parquet").read_bytes() == (
        tmp_path / "b" / "attention.parquet"
    ).read_bytes()
    assert verify_run(run) == []
    assert run.layers.empty
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert (manifest["job"], manifest["images_seen"], manifest["model"]["name"]) == (
        "attention",
        4,
        MODEL,
    )
    assert len(manifest["data"]["images"]) == 4


@pytest.mark.parametrize(
    "job",
    [
        fit,
        lambda run: export_alphas(run, "a.csv"),
        lambda run: compare(run, run),
        lambda run: run.profile(),
    ],
    ids=["fit", "export", "compare", "profile"],
)
def test_other_jobs_on_such_a_run_say_in_one_line_what_it_is(job, tmp_path):
    attention_distance(TwoHeads(), tokens(), out=tmp_path / "run", **GRID)
    with pytest.raises(
        UsageError,
        match=r"holds attention distances only, no .*: `probe-norms --model M` makes a whole run",
    ) as error:
        job(open_run(tmp_path / "run"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [1, 4, 6])
def test_numbers_do_not_depend_on_the_batch_size(size):
    a, b = (
        attention_distance(Block(attn=TwoHeads()), tokens(size=size), **GRID) for size in (3, size)
    )
    pd.testing.assert_frame_equal(a, b, rtol=1e-5)


@pytest.mark.parametrize(
    "wrap", [lambda b: (b, "label"), lambda b: {"x": b}], ids=["tuple", "mapping"]
)
def test_batches_may_be_tuples_or_mappings_as_in_a_capture(wrap):
    a, b = (
        attention_distance(TwoHeads(), data, **GRID)
        for data in (tokens(), list(map(wrap, tokens())))
    )
    pd.testing.assert_frame_equal(a, b, check_exact=True)


def test_what_the_user_says_of_a_plain_module_reaches_the_probe_and_the_manifest(tmp_path):
    """Uniform attention on 3 x 4 patches of 4 pixels, one class token before them."""
    rows, columns = np.indices((3, 4)).reshape(2, -1)
    expected = (
        4 * np.hypot(np.subtract.outer(rows, rows), np.subtract.outer(columns, columns)).mean()
    )
    given = {**GRID, "prefix_tokens": 1}
    table = attention_distance(TwoHeads(uniform=True), tokens(13), out=tmp_path / "run", **given)
    np.testing.assert_allclose(table["distance_px"], expected, rtol=1e-6)
    np.testing.assert_allclose(table["distance_px_raw"], expected * 12 / 13, rtol=1e-6)
    np.testing.assert_allclose(table["prefix_mass"], 1 / 13, rtol=1e-6)
    assert open_run(tmp_path / "run").manifest["attention"]["given"] == given | {"grid": [3, 4]}


def test_padding_tokens_are_neither_queries_nor_keys():
    """Uniform attention on 2 x 4 patches, of which the second row is padding: the distance on one
    row, 1.25 patches.
    """
    data = tokens(8)
    mask = torch.arange(8)[None] < 4
    table = attention_distance(
        TwoHeads(uniform=True),
        data,
        grid=(2, 4),
        patch_size=4,
        mask=lambda batch: mask.expand(len(batch), -1),
    )
    np.testing.assert_allclose(table["distance_px"], 4 * 1.25, rtol=1e-6)


def test_a_mask_of_a_capture_counts_for_attention_too(tmp_path):
    mask = torch.arange(12)[None] < 8
    options = {"mask": lambda batch: mask.expand(len(batch), -1), **GRID}
    run = capture(Block(attn=TwoHeads()), tokens(), out=tmp_path / "run", attention=True, **options)
    pd.testing.assert_frame_equal(
        run.attention(), attention_distance(Block(attn=TwoHeads()), tokens(), **options)
    )


def test_workers_merge_to_what_one_of_them_sees():
    whole = attention_distance(TwoHeads(), tokens(), **GRID)
    workers = []
    for part in tokens():
        model = open_model(TwoHeads())
        stream = open_stream(
            model,
            [part],
            num_images=None,
            batch_size=8,
            workers=0,
            seed=0,
            mask=None,
            transform=None,
        )
        with AttentionWorker(model, GRID) as worker:
            for batch in stream.batches:
                worker.update(batch)
        workers.append(worker)
    first, second = workers
    first.merge(second)
    assert first.images == 6
    pd.testing.assert_frame_equal(
        pd.DataFrame(first.probe.rows())[COLUMNS], whole, check_dtype=False, rtol=1e-12
    )


@pytest.mark.parametrize("out", [True, False], ids=["with out", "without"])
def test_a_model_without_attention_is_one_line_and_leaves_no_run(out, tmp_path):
    with pytest.raises(
        ProbeError, match=r"^bundled:resnet_cifar10 has no attention: a forward pass computes none$"
    ) as error:
        attention_distance(
            "bundled:resnet_cifar10", num_images=2, out=tmp_path / "run" if out else None
        )
    assert error.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_one_batch_is_enough_to_see_that_there_is_nothing_to_read():
    taken: list[int] = []

    def batches():
        for batch in tokens():
            taken.append(len(batch))
            yield batch

    with pytest.raises(ProbeError, match="Block has no attention"):
        attention_distance(Block(), batches(), **GRID)
    assert taken == [3]


def test_attention_that_cannot_be_read_is_named_with_its_reason():
    with pytest.raises(
        ProbeError,
        match=r"^none of the attention of Block can be read: attn: linear attention: no scores",
    ) as error:
        attention_distance(Block(attn=LinearAttention()), tokens(), **GRID)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("module", "status", "unreadable"),
    [
        (Block(), "none", {}),
        (
            Block(attn=LinearAttention()),
            "unreadable",
            {"attn": "linear attention: no scores between tokens"},
        ),
        (
            Block(a=TwoHeads(), b=LinearAttention()),
            "partial",
            {"b": "linear attention: no scores between tokens"},
        ),
        (Block(a=TwoHeads()), "captured", {}),
    ],
    ids=["none", "unreadable", "partial", "captured"],
)
def test_a_capture_never_fails_for_its_attention_and_says_what_it_read(
    module, status, unreadable, tmp_path
):
    run = capture(module, tokens(), out=tmp_path / "run", attention=True, **GRID)
    record = run.manifest["attention"]
    assert (record["status"], record["unreadable"]) == (status, unreadable)
    assert run.layers["status"].tolist() == ["captured"]
    assert (run.path / "attention.parquet").exists() == (status in ("partial", "captured"))
    assert verify_run(run) == []
    if status in ("partial", "captured"):
        assert set(run.attention()["layer"]) == {"a"}


def test_a_partial_table_names_what_it_lacks():
    table = attention_distance(Block(a=TwoHeads(), b=LinearAttention()), tokens(), **GRID)
    assert set(table["head"]) == {0, 1}
    assert table.attrs["unreadable"] == {"b": "linear attention: no scores between tokens"}


class AnySize(nn.Module):
    """Patches of 4 pixels of images of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_size = 4
        self.stem, self.norm, self.attn = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8), TwoHeads()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attn(self.norm(self.stem(x).flatten(2).transpose(1, 2)))


def test_images_of_several_sizes_leave_attention_out_and_the_capture_goes_on(tmp_path):
    batches = [torch.randn(2, 3, side, side) for side in (16, 24)]
    run = capture(AnySize(), batches, out=tmp_path / "run", attention=True)
    assert run.manifest["attention"]["status"] == "unreadable"
    assert "it works on a grid of 4x4 and then of 6x6 tokens" in str(
        run.manifest["attention"]["unreadable"]
    )
    assert verify_run(run) == []
    with pytest.raises(
        ProbeError, match="distances of different input sizes do not mix, give images of one size"
    ):
        attention_distance(AnySize(), batches)


def test_rectangular_images_have_rectangular_grids():
    table = attention_distance(AnySize(), [torch.randn(2, 3, 16, 24)])
    assert set(table["grid"]) == {"4x6"}
    assert set(table["token_stride"]) == {4.0}


def test_broken_images_are_skipped_counted_and_named(tmp_path):
    photos, source = tmp_path / "photos", open_images(None, 3)
    photos.mkdir()
    for index in range(3):
        source.load(index).resize((40, 40)).save(photos / f"{index}.png")
    (photos / "1.png").write_text("no image")
    table = attention_distance(MODEL, photos, out=tmp_path / "run")
    assert set(table["images"]) == {2}
    manifest = open_run(tmp_path / "run").manifest
    assert [item["image"] for item in manifest["data"]["skipped"]] == ["1.png"]
    assert manifest["images_seen"] == 2


def hooks_left(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


@pytest.mark.parametrize(
    "job",
    [attention_distance, lambda *a, **o: capture(*a, attention=True, **o)],
    ids=["alone", "capture"],
)
def test_a_failing_model_leaves_no_hook_and_no_run(job, tmp_path):
    module = Block(attn=TwoHeads())

    def batches():
        yield tokens()[0]
        raise RuntimeError("the data broke")

    with pytest.raises(RuntimeError, match="the data broke"):
        job(module, batches(), out=tmp_path / "run", **GRID)
    assert hooks_left(module) == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_images": 0}, "--num-images 0: must be at least 1"),
        ({"batch_size": 0}, "--batch-size 0: must be at least 1"),
        ({"data": 3}, "data is a int; accepted"),
        ({"data": None}, "a plain module needs transform="),
        ({"grid": (5, 5)}, r"grid=\(5, 5\) does not fit"),
        ({"prefix_tokens": -1}, "prefix_tokens=-1: accepted is a number"),
        ({"device": "abacus"}, "--device 'abacus'"),
    ],
)
def test_wrong_arguments_get_one_line(options, message, tmp_path):
    data = options.pop("data", tokens())
    with pytest.raises(UsageError, match=message) as error:
        attention_distance(TwoHeads(), data, out=tmp_path / "run", **options)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_no_batch_at_all_is_an_error():
    with pytest.raises(ProbeError, match="no image went through the model"):
        attention_distance(TwoHeads(), [], **GRID)


def test_an_existing_run_is_refused_before_the_model_is_loaded(tmp_path):
    attention_distance(TwoHeads(), tokens(), out=tmp_path / "run", **GRID)
    with pytest.raises(UsageError, match="already holds a run"):
        attention_distance("no such model", out=tmp_path / "run")
    again = attention_distance(TwoHeads(), tokens(), out=tmp_path / "run", overwrite=True, **GRID)
    assert len(again) == 2


def test_progress_counts_the_images():
    said: list[tuple] = []
    attention_distance(TwoHeads(), tokens(), progress=lambda *report: said.append(report), **GRID)
    assert said == [("attention", 0, 6), ("attention", 3, 6), ("attention", 6, 6)]


def test_a_loaded_model_is_taken_as_it_is(table):
    pd.testing.assert_frame_equal(
        attention_distance(load_model(MODEL), num_images=8), table, check_exact=True
    )
