"""Images that come as a stream: the first ones are used, counted as they come, and none is kept."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from probe.data import image_stream_of, open_image_stream
from probe.errors import ProbeError, UsageError
from probe.jobs.capturing.capture import capture

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:dill", "ignore::DeprecationWarning:multiprocess"
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x.flatten(2).transpose(1, 2))


def transform(image: Image.Image) -> torch.Tensor:
    return torch.tensor(image.getpixel((0, 0)), dtype=torch.float32)[:, None, None] + torch.zeros(
        3, 2, 2
    )


def png(red: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (red, 10, 20)).save(file, "PNG")
    return file.getvalue()


def stream(broken: int | None = None, seen: list[int] | None = None, number: int = 1000) -> Any:
    """An iterable data set of `number` images, which notes in `seen` what was asked of it."""

    def rows() -> Iterator[dict[str, Any]]:
        for i in range(number):
            if seen is not None:
                seen.append(i)
            content = b"broken" if i == broken else png(i % 256)
            yield {"text": "x", "image": {"bytes": content, "path": None}}

    features = datasets.Features({"text": datasets.Value("string"), "image": datasets.Image()})
    return datasets.IterableDataset.from_generator(rows, features=features)


def reds(run: Any) -> dict[int, float]:
    samples = run.samples("norm", channels=[0])
    return dict(zip(samples["image"], samples["input"], strict=False))


def test_the_first_images_are_used_and_no_more_are_read(tmp_path: Path) -> None:
    seen: list[int] = []
    run = capture(
        Net(),
        stream(seen=seen),
        out=tmp_path / "r",
        transform=transform,
        num_images=5,
        batch_size=2,
    )
    assert run.manifest["images_seen"] == 5
    assert max(seen) <= 6
    assert reds(run) == {i: float(i) for i in range(5)}
    assert run.manifest["data"]["kind"] == "stream"
    assert run.manifest["data"]["images"] == []


def test_without_a_number_the_stream_is_read_to_its_end(tmp_path: Path) -> None:
    run = capture(Net(), stream(number=7), out=tmp_path / "r", transform=transform, batch_size=3)
    assert run.manifest["images_seen"] == 7


def test_a_broken_image_is_named_by_its_place_and_the_rest_goes_on(tmp_path: Path) -> None:
    run = capture(
        Net(), stream(broken=1), out=tmp_path / "r", transform=transform, num_images=4, batch_size=2
    )
    assert sorted(reds(run)) == [0, 2, 3]
    skipped = run.manifest["data"]["skipped"]
    assert [(item["image"], "not an image" in item["reason"]) for item in skipped] == [
        ("image #1", True)
    ]


def test_only_broken_images_fail_the_job(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=r"none of the 1 images could be used \(image #0: "):
        capture(Net(), stream(broken=0), out=tmp_path / "r", transform=transform, num_images=1)
    assert not (tmp_path / "r").exists()


def test_a_stream_without_a_row_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'IterableDataset' is an empty stream: it has no row"):
        capture(Net(), stream(number=0), out=tmp_path / "r", transform=transform)


def test_a_stream_that_breaks_off_is_one_line_and_leaves_no_run(tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield {"image": {"bytes": png(0), "path": None}}
        raise OSError("connection lost\nmore words")

    broken = datasets.IterableDataset.from_generator(
        rows, features=datasets.Features({"image": datasets.Image()})
    )
    with pytest.raises(ProbeError, match="broke off: .*connection lost$"):
        capture(Net(), broken, out=tmp_path / "r", transform=transform)
    assert not (tmp_path / "r").exists()


def test_a_stream_with_workers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--workers 2: a stream is read by this process alone"):
        capture(Net(), stream(), out=tmp_path / "r", transform=transform, workers=2)


def test_iterable_data_sets_of_tensors_stay_batches(tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield {"x": [[[1.0, 2.0, 4.0]]]}

    plain = datasets.IterableDataset.from_generator(rows)
    assert image_stream_of(plain) is None
    assert image_stream_of([1]) is None


@pytest.fixture
def hfids(tmp_path: Path) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pictures = [{"bytes": png(i), "path": None} for i in range(6)]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    features = datasets.Features({"img": datasets.Image(), "label": datasets.Value("int64")})
    table = pa.table({"img": pa.array(pictures, kind), "label": list(range(6))})
    table = table.replace_schema_metadata(features.arrow_schema.metadata)
    (tmp_path / "data").mkdir()
    pq.write_table(table, tmp_path / "data" / "test-00000-of-00001.parquet")
    return f"hfids/{tmp_path / 'data'}?root={tmp_path / 'cache'}"


def test_a_name_of_timm_opens_as_a_stream(hfids: str, tmp_path: Path) -> None:
    run = capture(Net(), hfids, out=tmp_path / "r", transform=transform, num_images=3)
    assert reds(run) == {0: 0.0, 1: 1.0, 2: 2.0}
    assert run.manifest["data"]["split"] == "test"
    assert run.manifest["data"]["location"].startswith("hfids/")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("&split=dev", "cannot be opened"),
        ("&input_key=picture", "input_key 'picture'; its columns: img, label"),
        ("&colour=red", "dataset option 'colour' is unknown"),
    ],
)
def test_a_stream_that_cannot_be_opened_is_one_line(hfids: str, query: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        open_image_stream(hfids + query)
    assert "\n" not in str(caught.value)
