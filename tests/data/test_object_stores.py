"""Folders of other file systems, by their address."""

from __future__ import annotations

import io
import pickle

import pytest
from PIL import Image

from probe.data import BadImage, open_images
from probe.errors import UsageError


def png(red: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (red, 0, 0)).save(file, "PNG")
    return file.getvalue()


FILES = {"a/1.png": png(1), "b.PNG": png(2), "c.png": b"broken", "d.txt": b"", ".e.png": png(3)}


@pytest.fixture(params=["file", "memory"])
def address(request, tmp_path):
    """The files on a file system of pyarrow, and on one of fsspec."""
    if request.param == "file":
        for name, content in FILES.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(content)
        yield f"file://{tmp_path}"
        return
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    for name, content in FILES.items():
        system.pipe(f"/{tmp_path.name}/{name}", content)
    yield f"memory://{tmp_path.name}"
    system.rm(f"/{tmp_path.name}", recursive=True)


def test_the_images_below_an_address_are_read_in_any_process(address):
    source = pickle.loads(pickle.dumps(open_images(address)))
    assert source.ids == ("a/1.png", "b.PNG", "c.png")
    assert [source.load(index).getpixel((0, 0))[0] for index in (0, 1)] == [1, 2]
    with pytest.raises(BadImage):
        source.load(2)
    assert source.description["kind"] == "store"
    assert source.description["ignored"] == 2
    assert len(open_images(address, num_images=2)) == 2


def test_addresses_that_lead_nowhere_are_told_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    for wrong, why in (
        (f"file://{tmp_path}/none", "cannot be opened"),
        (f"file://{tmp_path}/empty", "no image in"),
        ("nonsense://bucket/folder", "cannot be opened"),
    ):
        with pytest.raises(UsageError, match=why) as caught:
            open_images(wrong)
        assert "\n" not in str(caught.value)
