"""Labels of images: sub-folders, datasets; none where the data does not tell them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from probe.data import labels_of, open_images
from probe.errors import UsageError

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:dill", "ignore::DeprecationWarning:multiprocess"
)


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["cat", "airplane", "dog"], {"airplane": 0, "cat": 1, "dog": 2}),
        (["10", "2", "0"], {"10": 10, "2": 2, "0": 0}),
        (["n02", "n010", "n1"], {"n010": 0, "n02": 1, "n1": 2}),
    ],
    ids=["by name", "by number", "names with numbers"],
)
def test_sub_folders_are_classes(
    folders: list[str], expected: dict[str, int], tmp_path: Path
) -> None:
    for name in folders:
        photo(tmp_path / name / "deeper" / "0.png")
        photo(tmp_path / name / "1.png")
    source = open_images(tmp_path)
    labels = labels_of(source)
    assert labels is not None
    assert labels.classes == len(folders)
    assert labels.index.tolist() == [expected[name.split("/")[0]] for name in source.ids]


def test_a_draw_of_few_images_keeps_the_numbers_of_all_classes(tmp_path: Path) -> None:
    for name in "abcdefgh":
        photo(tmp_path / name / "0.png")
    source = open_images(tmp_path, 3, seed=1)
    labels = labels_of(source)
    assert labels is not None
    assert labels.classes == 8
    assert labels.index.tolist() == ["abcdefgh".index(name[0]) for name in source.ids]


def test_photographs_without_classes_have_no_labels(tmp_path: Path) -> None:
    photo(tmp_path / "a" / "0.png")
    photo(tmp_path / "1.png")
    assert labels_of(open_images(tmp_path)) is None
    assert labels_of(open_images(None, 2)) is None
    assert labels_of(open_images([tmp_path / "1.png"])) is None


def hugging_face(folder: Path, labels: list[object], kind: object) -> str:
    import datasets

    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    features = datasets.Features({"image": datasets.Image(), "kind": kind})
    pictures = pa.array(
        [{"bytes": file.getvalue(), "path": None}] * len(labels),
        pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    )
    (folder / "data").mkdir()
    table = pa.table({"image": pictures, "kind": labels}).replace_schema_metadata(
        features.arrow_schema.metadata
    )
    pq.write_table(table, folder / "data" / "test-00000-of-00001.parquet")
    return f"hfds/{folder / 'data'}?root={folder / 'cache'}"


def test_labels_of_a_hugging_face_dataset_follow_the_chosen_rows(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    uri = hugging_face(tmp_path, [2, 0, 1, 1, 2, 0], datasets.ClassLabel(names=["x", "y", "z"]))
    source = open_images(f"{uri}&target_key=kind", 4, seed=3)
    labels = labels_of(source)
    assert labels is not None
    assert labels.classes == 3
    assert labels.index.tolist() == [[2, 0, 1, 1, 2, 0][int(name[-1])] for name in source.ids]
    assert labels_of(open_images(uri)) is None  # no column `label`
    with pytest.raises(UsageError, match="target_key 'sort'; its columns: image, kind"):
        open_images(f"{uri}&target_key=sort")


def test_texts_are_no_labels(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    uri = hugging_face(tmp_path, ["a", "b"], datasets.Value("string"))
    assert labels_of(open_images(f"{uri}&target_key=kind")) is None


def test_labels_of_a_torchvision_dataset(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        photo(tmp_path / name / "0.png")
    labels = labels_of(open_images(f"torch/image_folder?root={tmp_path}", 2, seed=0))
    assert labels is not None
    assert labels.classes == 3
    assert (
        labels.index.tolist()
        == np.sort(np.random.default_rng(0).choice(3, 2, replace=False)).tolist()
    )
