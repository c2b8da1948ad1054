"""timm dataset names open as image sources, offline for local folders; what cannot be opened is one
line.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from probe.data import BadImage, open_images
from probe.data import timm_datasets as module
from probe.errors import ProbeError, UsageError

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:dill", "ignore::DeprecationWarning:multiprocess"
)


@pytest.fixture
def parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """`hfds/...` of a folder with a train and a test split, column `picture`; image 1 of the test
    split is broken.
    """
    pytest.importorskip("datasets")
    for split, number in (("train", 6), ("test", 4)):
        rows = [{"bytes": png(i), "path": None} for i in range(number)]
        if split == "test":
            rows[1]["bytes"] = b"broken"
        write(tmp_path / "pictures" / f"{split}-00000-of-00001.parquet", rows)
    monkeypatch.chdir(tmp_path)
    return f"hfds/pictures?root={tmp_path / 'cache'}"


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write(path: Path, rows: list[dict[str, object]]) -> None:
    import datasets

    path.parent.mkdir(parents=True, exist_ok=True)
    features = datasets.Features({"picture": datasets.Image(), "label": datasets.Value("int64")})
    pictures = pa.array(rows, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    table = pa.table({"picture": pictures, "label": list(range(len(rows)))})
    pq.write_table(table.replace_schema_metadata(features.arrow_schema.metadata), path)


def test_a_local_hugging_face_dataset_opens_offline(parquet: str) -> None:
    source = open_images(parquet)
    assert source.ids == tuple(f"hfds/pictures:test#{i}" for i in range(4))
    assert source.description["split"] == "test"
    assert source.load(3).getpixel((0, 0)) == (3, 0, 0)
    # timm's own reading would give the next image instead
    with pytest.raises(BadImage, match="not an image"):
        source.load(1)


def test_split_and_subset_are_chosen(parquet: str) -> None:
    source = open_images(f"{parquet}&split=train", 3, seed=5)
    assert (len(source), source.description["found"], source.description["chosen"]) == (3, 6, 3)
    reds = [source.load(i).getpixel((0, 0))[0] for i in range(3)]
    assert [f"hfds/pictures:train#{red}" for red in reds] == list(source.ids)


def test_a_torchvision_dataset_opens_from_its_root(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        Image.new("L", (4, 4), 7).save(tmp_path / "classes" / name / "x.png")
    source = open_images(f"torch/image_folder?root={tmp_path / 'classes'}")
    assert isinstance(source.read.dataset, ImageFolder)  # type: ignore[attr-defined]
    assert source.ids == ("torch/image_folder:validation#0", "torch/image_folder:validation#1")
    assert np.asarray(source.load(0)).tolist() == [[[7, 7, 7]] * 4] * 4


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("torch/cifar10", r"torch/cifar10\?root=FOLDER"),
        ("torch/cifar10?root=.", "cannot be opened: Dataset not found"),
        ("torch/nothing?root=.", "Unknown torchvision dataset nothing"),
        ("torch/cifar10?rot=x", r"dataset option 'rot' is unknown \(did you mean root\?\)"),
        ("wds/x", "stream without a fixed order"),
        ("PARQUET&split=dev", 'Unknown split "dev"'),
        ("PARQUET&input_key=image", "input_key 'image'; its columns: picture, label"),
    ],
)
def test_what_cannot_be_opened_is_one_line(parquet: str, uri: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        open_images(uri.replace("PARQUET", parquet))
    assert "\n" not in str(caught.value)


def test_without_the_datasets_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ProbeError, match=r"probe-norms\[hub\]"):
        open_images("hfds/anything")


def test_a_hub_dataset_without_network_says_so_at_once(
    parquet: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "unreachable", lambda url: "connection refused")
    with pytest.raises(
        ProbeError, match=r"does not answer \(connection refused\); give a local folder"
    ):
        open_images("hfds/somebody/something")
