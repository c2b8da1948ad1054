"""Images come in a fixed order from folders, lists and photographs; what cannot be read is named,
in one line.
"""

from __future__ import annotations

import json
import os
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from probe.data import BadImage, ImageSource, open_images
from probe.data import sources as sources_module
from probe.errors import UsageError


def save(path: Path, color: tuple[int, int, int] = (9, 9, 9)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), color).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty images in two classes, a text file, a hidden image."""
    for i in range(20):
        save(
            tmp_path
            / "photos"
            / ("cats" if i < 10 else "dogs")
            / f"{i:02d}.{'PNG' if i % 2 else 'jpg'}",
            (i, i, i),
        )
    (tmp_path / "photos" / "notes.md").write_text("not an image")
    save(tmp_path / "photos" / ".thumbnail.png")
    return tmp_path / "photos"


def test_a_folder_is_read_recursively_in_sorted_order(folder: Path) -> None:
    source = open_images(folder)
    assert source.ids[:2] == ("cats/00.jpg", "cats/01.PNG")
    assert list(source.ids) == sorted(source.ids)
    assert source.sources == source.ids
    assert [source.load(i).getpixel((0, 0))[0] for i in (0, 19)] == [0, 19]


def test_the_description_counts_and_is_json(folder: Path) -> None:
    described = open_images(folder, 5).description
    expected = {
        "kind": "folder",
        "location": str(folder),
        "found": 20,
        "chosen": 5,
        "ignored": 2,
        "unreadable": [],
    }
    assert {name: described[name] for name in expected} == expected
    assert json.loads(json.dumps(described)) == described


def test_a_subset_is_a_seeded_draw_kept_in_sorted_order(folder: Path) -> None:
    first, again, other = (
        open_images(folder, 6, seed=1),
        open_images(folder, 6, seed=1),
        open_images(folder, 6, seed=2),
    )
    assert first.ids == again.ids == tuple(sorted(first.ids))
    assert first.ids != other.ids
    assert {name.split("/")[0] for name in first.ids} == {"cats", "dogs"}


def test_the_identity_follows_names_and_sizes_of_the_chosen_images(folder: Path) -> None:
    before, same = (open_images(folder).description["identity"] for _ in range(2))
    save(folder / "cats" / "00.jpg").write_bytes(b"another size")
    assert before == same != open_images(folder).description["identity"]


@pytest.mark.parametrize("form", ["list", "sequence", "string", "single", "uri"])
def test_other_ways_to_name_images_give_the_same_pixels(
    folder: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "list.txt").write_text("# two of them\ndogs/19.PNG\n\ncats/03.PNG\ncats/03.PNG\n")
    data = {
        "list": "photos/list.txt",
        "sequence": ["photos/dogs/19.PNG", Path("photos/cats/03.PNG"), "photos/cats/03.PNG"],
        "string": "photos",
        "single": "photos/cats/03.PNG",
        "uri": "folder/photos",
    }[form]
    source = open_images(data)
    assert source.load([name.endswith("03.PNG") for name in source.ids].index(True)).getpixel(
        (0, 0)
    ) == (3, 3, 3)
    assert len(source) == {"list": 2, "sequence": 2, "string": 20, "single": 1, "uri": 20}[form]
    assert source.description.get("repeated", 1) == 1


def test_links_are_followed_once(folder: Path) -> None:
    (folder / "cats" / "loop").symlink_to(folder)
    assert len(open_images(folder)) == 20


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_with_odd_characters_are_read_and_printable(tmp_path: Path) -> None:
    names = [b"new\nline.png", b"caf\xe9.png", "\N{SNOWMAN} # %20 'x'.png".encode()]
    for name in names:
        save(tmp_path / "a.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    source = open_images(tmp_path)
    assert set(source.ids) == {"new\\nline.png", "caf\\xe9.png", "\N{SNOWMAN} # %20 'x'.png"}
    assert all(source.load(i).size == (4, 4) for i in range(3))
    json.dumps(source.ids, ensure_ascii=False).encode("utf-8")


def test_what_a_list_names_wrongly_is_a_bad_image_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    source = open_images([tmp_path / "absent.png", tmp_path / "folder.png", tmp_path / "pipe.png"])
    reasons = []
    for i in range(3):
        with pytest.raises(BadImage) as caught:
            source.load(i)
        reasons.append(caught.value.reason)
    assert reasons == ["no such file or directory", "is a folder", "not a regular file"]


def test_a_file_without_permission_is_a_bad_image(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "secret")

    source = open_images(folder)
    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(BadImage, match="^permission denied$"):
        source.load(0)


def test_a_folder_that_cannot_be_entered_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name in closed:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(sources_module.os, "scandir", refuse)
    closed = {"dogs"}
    source = open_images(folder)
    assert (len(source), source.description["unreadable"]) == (10, ["dogs: permission denied"])
    closed = {"photos"}
    with pytest.raises(UsageError, match="permission denied"):
        open_images(folder)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("absent", "data 'absent' does not exist; accepted: a folder of images"),
        ("empty", "no image in 'empty'; accepted suffixes: .apng"),
        ("texts", r"no image in 'texts' \(1 other files"),
        ("blank.txt", "names no path"),
        ([], "names no path"),
        ([3], "data holds a int; accepted: a folder"),
        ("tfds/mnist", "stream without a fixed order"),
    ],
)
def test_data_without_images_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: object, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.md").write_text("")
    (tmp_path / "blank.txt").write_text("\n# nothing\n")
    with pytest.raises(UsageError, match=message) as caught:
        open_images(data)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [0, -1])
def test_fewer_than_one_image_is_a_usage_error(number: int) -> None:
    with pytest.raises(UsageError, match="give at least 1"):
        open_images(None, number)


def test_groups_keep_one_source_together_and_fill_sixteen() -> None:
    names = tuple(f"{i:02d}" for i in range(20))
    source = ImageSource(
        tuple(f"{n}#{k}" for n in names for k in "ab"),
        tuple(n for n in names for _ in "ab"),
        {},
        lambda i: None,
    )
    assert source.groups.tolist() == [i % 16 for i in range(20) for _ in "ab"]
    assert source.groups.dtype == np.int64


def test_a_source_survives_pickling(folder: Path) -> None:
    source = open_images(folder, 4)
    copy = pickle.loads(pickle.dumps(source))
    assert copy.ids == source.ids
    assert copy.load(2).tobytes() == source.load(2).tobytes()


def test_the_default_is_bundled_photographs_interleaved_by_source() -> None:
    source = open_images(None, 64)
    per_photograph = Counter(source.sources)
    assert len(source) == len(set(source.ids)) == 64
    assert len(per_photograph) >= 10
    assert max(per_photograph.values()) - min(per_photograph.values()) <= 1
    assert len(set(source.groups.tolist())) == len(per_photograph)
    assert open_images(None, len(per_photograph)).sources == tuple(sorted(per_photograph))
    assert len(open_images(None, 16)) == 16
