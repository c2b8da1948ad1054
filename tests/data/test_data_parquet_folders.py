"""A folder of Parquet files is a source of images with splits and labels; no library but pyarrow is
needed for it.
"""

from __future__ import annotations

import io
import json
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from probe.data import BadImage, labels_of, open_images
from probe.errors import UsageError

STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def png(red: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (red, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write(
    path: Path,
    images: Sequence[Any],
    labels: Sequence[Any] | None = None,
    column: str = "img",
    kind: pa.DataType = STRUCT,
    features: dict[str, Any] | None = None,
) -> None:
    columns: dict[str, Any] = {column: pa.array(images, kind)}
    if labels is not None:
        columns["label"] = labels
    table = pa.table(columns)
    if features is not None:
        told = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": told})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=3)


def rows(*reds: int) -> list[dict[str, Any]]:
    return [{"bytes": png(red), "path": f"{red}.png"} for red in reds]


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """CIFAR-10's own layout; the test split in two files, image 1 of it broken."""
    plain = tmp_path / "cifar10" / "plain_text"
    names = {"label": {"_type": "ClassLabel", "names": ["cat", "dog", "ship"]}}
    write(plain / "train-00000-of-00001.parquet", rows(*range(10)), [0, 1] * 5, features=names)
    test = rows(100, 101, 102, 103)
    test[1]["bytes"] = b"broken"
    write(plain / "test-00000-of-00002.parquet", test, [2, 2, 1, 0], features=names)
    write(plain / "test-00001-of-00002.parquet", rows(104), [1], features=names)
    (tmp_path / "cifar10" / "README.md").write_text("a card")
    (tmp_path / "cifar10" / ".cache").mkdir()
    write(tmp_path / "cifar10" / ".cache" / "x.parquet", rows(1))
    return tmp_path / "cifar10"


def red(source: Any, index: int) -> int:
    return source.load(index).getpixel((0, 0))[0]


def test_the_layout_of_cifar10_is_read_with_its_labels(
    cifar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    source = open_images(cifar)
    assert source.ids == tuple(f"cifar10:test#{i}" for i in range(5))
    assert [red(source, i) for i in (0, 2, 3, 4)] == [100, 102, 103, 104]
    with pytest.raises(BadImage, match="not an image"):
        source.load(1)
    labels = labels_of(source)
    assert labels is not None
    assert (labels.index.tolist(), labels.classes) == ([2, 2, 1, 0, 1], 3)
    assert source.description["kind"] == "parquet"
    assert source.description["split"] == "test"
    json.dumps(source.description)


def test_a_split_and_a_draw_are_chosen(cifar: Path) -> None:
    source = open_images(f"{cifar}?split=train", 4, seed=2)
    assert (len(source), source.description["found"]) == (4, 10)
    reds = [red(source, i) for i in range(4)]
    assert source.ids == tuple(f"cifar10:train#{value}" for value in reds)
    assert reds == sorted(reds)
    labels = labels_of(source)
    assert labels is not None
    assert labels.index.tolist() == [value % 2 for value in reds]
    other = open_images(f"{cifar}?split=train", 4, seed=3)
    assert other.description["identity"] != source.description["identity"]


def test_the_reader_survives_pickling(cifar: Path) -> None:
    source = pickle.loads(pickle.dumps(open_images(cifar, 2)))
    assert isinstance(source.load(1), Image.Image)


def test_one_file_and_plain_bytes_and_a_named_column(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    write(path, [png(7), None], column="jpg", kind=pa.binary())
    source = open_images(path)
    assert source.ids == ("part.parquet:part#0", "part.parquet:part#1")
    assert red(source, 0) == 7
    with pytest.raises(BadImage, match="no image is stored"):
        source.load(1)
    assert labels_of(source) is None
    assert red(open_images(f"{path}?input_key=jpg"), 0) == 7


def test_a_column_that_the_file_calls_an_image_goes_before_others(tmp_path: Path) -> None:
    table = pa.table({"mask": pa.array(rows(1), STRUCT), "picture": pa.array(rows(2), STRUCT)})
    told = json.dumps({"info": {"features": {"picture": {"_type": "Image"}}}})
    pq.write_table(table.replace_schema_metadata({"huggingface": told}), tmp_path / "x.parquet")
    assert red(open_images(tmp_path), 0) == 2
    assert red(open_images(f"{tmp_path}?input_key=mask"), 0) == 1


def test_folders_named_as_splits_are_splits(tmp_path: Path) -> None:
    for split, value in (("train", 1), ("validation", 2)):
        write(tmp_path / split / "0000.parquet", rows(value))
    assert red(open_images(tmp_path), 0) == 2
    assert red(open_images(f"{tmp_path}?split=train"), 0) == 1


def test_a_path_without_bytes_is_a_bad_image(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", [{"bytes": None, "path": "/etc/passwd"}])
    with pytest.raises(BadImage, match="only the path of a file is stored"):
        open_images(tmp_path).load(0)


def test_images_beside_parquet_files_are_what_a_folder_holds(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", rows(1))
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert open_images(tmp_path).ids == ("a.png",)
    assert open_images(f"{tmp_path}?split=x").ids == (f"{tmp_path.name}:x#0",)


WRONG = {
    "?split=dev": r"split of .*cifar10' 'dev' is unknown; known: test, train",
    "?root=x": "option of a Parquet folder 'root' is unknown",
    "?input_key=label": "input_key 'label' is no column of images .*; its columns: img, label; "
    r"name one by \?input_key=img",
    "?target_key=fine": "target_key 'fine'; its columns: img, label",
    "/none?split=x": "none' does not exist; accepted: a folder of images or of Parquet files",
}


@pytest.mark.parametrize("query", WRONG)
def test_a_wrong_question_is_one_line(cifar: Path, query: str) -> None:
    with pytest.raises(UsageError, match=WRONG[query]) as caught:
        open_images(f"{cifar}{query}")
    assert "\n" not in str(caught.value)


def no_images(folder: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), folder / "x.parquet")


def broken(folder: Path) -> None:
    (folder / "x.parquet").write_bytes(b"PAR1 and nothing more")


def empty(folder: Path) -> None:
    write(folder / "x.parquet", [])


def two_sets(folder: Path) -> None:
    for name in ("plain", "gray"):
        write(folder / name / "test-00000-of-00001.parquet", rows(1))


def odd_splits(folder: Path) -> None:
    for name in ("left", "right"):
        write(folder / f"{name}-00000-of-00001.parquet", rows(1))


MADE = {
    no_images: "no column of images .*; its columns: text, label$",
    broken: "cannot be read: ",
    empty: "holds no image in split 'x'",
    two_sets: "holds several sets of Parquet files .*: give one of these folders",
    odd_splits: "has the splits left, right; name one by",
}


@pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)
def test_a_folder_that_does_not_serve_is_one_line(tmp_path: Path, make: Any) -> None:
    make(tmp_path)
    with pytest.raises(UsageError, match=MADE[make]) as caught:
        open_images(tmp_path)
    assert "\n" not in str(caught.value)


def test_options_behind_a_folder_of_photographs_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"holds no Parquet file; \?split=x goes with"):
        open_images(f"{tmp_path}?split=x")
